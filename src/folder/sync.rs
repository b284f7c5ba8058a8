//! Waiting until files are on disk, if the file system supports this.
//!
//! SMB, DrvFs and some FUSE file systems cannot sync folders, or cannot sync at all. Data that was
//! written there survives the process, and only a power failure can lose it. So a run continues,
//! with a warning in its log.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// Result of requesting a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Synced {
    /// The data is on disk.
    Done,
    /// The file system does not support the operation.
    Unsupported,
}

/// Waits until a file is on disk.
///
/// # Errors
/// The operating system's error, except those of a file system that cannot sync.
pub(crate) fn sync_file(file: &File) -> io::Result<Synced> {
    supported(file.sync_all())
}

/// Waits until the contents and the size of a file are on disk. Its times are not waited for, which
/// is faster.
///
/// # Errors
/// The operating system's error, except those of a file system that cannot sync.
pub(crate) fn sync_contents(file: &File) -> io::Result<Synced> {
    supported(file.sync_data())
}

/// Waits until the names in a folder are on disk.
///
/// # Errors
/// The operating system's error, except those of a file system that cannot sync.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<Synced> {
    match File::open(folder) {
        Ok(folder) => supported(folder.sync_all()),
        // A folder that may be written but not read cannot be opened for syncing.
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

/// Returns true for the errors of a file system that lacks an operation, and false for the errors
/// of an operation that failed.
fn is_unsupported(err: &io::Error) -> bool {
    const UNSUPPORTED: [Errno; 5] = [
        Errno::INVAL,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::PERM,
        Errno::BADF,
    ];
    // ENOTSUP is the same as EOPNOTSUPP on Linux, and has its own number elsewhere.
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
