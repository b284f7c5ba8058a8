//! Waiting until files are on disk, where the file system can do that.
//!
//! SMB, DrvFs and some FUSE file systems refuse to sync folders, or anything at all. What was
//! written there survives the process, and only a power failure can lose it: a run goes on, and its
//! log has a warning.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// Result of asking for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Synced {
    /// It is on disk.
    Done,
    /// The file system has no such operation.
    Unsupported,
}

/// Waits until a file is on disk.
///
/// # Errors
/// The operating system's, but for those of a file system that cannot sync.
pub(crate) fn sync_file(file: &File) -> io::Result<Synced> {
    supported(file.sync_all())
}

/// Waits until the contents and the size of a file are on disk, but not its times, which is faster.
///
/// # Errors
/// The operating system's, but for those of a file system that cannot sync.
pub(crate) fn sync_contents(file: &File) -> io::Result<Synced> {
    supported(file.sync_data())
}

/// Waits until the names in a folder are on disk.
///
/// # Errors
/// The operating system's, but for those of a file system that cannot sync.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<Synced> {
    match File::open(folder) {
        Ok(folder) => supported(folder.sync_all()),
        // A folder that may be written to and not read cannot be opened for that.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Ok(Synced::Unsupported),
        Err(err) => Err(err),
    }
}

fn supported(synced: io::Result<()>) -> io::Result<Synced> {
    match synced {
        Ok(()) => Ok(Synced::Done),
        Err(err) if is_unsupported(&err) => Ok(Synced::Unsupported),
        Err(err) => Err(err),
    }
}

/// True for the errors of a file system that lacks an operation, false for those of one that fails
/// at it.
fn is_unsupported(err: &io::Error) -> bool {
    const UNSUPPORTED: [Errno; 5] = [
        Errno::INVAL,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::PERM,
        Errno::BADF,
    ];
    // ENOTSUP is EOPNOTSUPP on Linux, and a number of its own elsewhere.
    let is_listed = Errno::from_io_error(err)
        .is_some_and(|errno| UNSUPPORTED.contains(&errno) || errno == Errno::NOTSUP);
    is_listed || err.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_is_no_file_system_that_cannot() {
        let of = |errno: Errno| supported(Err(errno.into()));
        for errno in [
            Errno::INVAL,
            Errno::NOTSUP,
            Errno::OPNOTSUPP,
            Errno::NOSYS,
            Errno::PERM,
            Errno::BADF,
        ] {
            assert_eq!(of(errno).expect("tolerated"), Synced::Unsupported);
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::STALE] {
            assert!(of(errno).is_err(), "{errno}");
        }
    }
}
