//! Exclusive use of a work directory by one run.
//!
//! The lock is a lock of the operating system on a file in the work directory. The system releases
//! it when the process ends, whatever ends the process, so a killed run leaves no lock behind. The
//! contents of the file only name the holder for messages.
//!
//! The holder removes the file before it releases the lock. A process that has opened the file
//! shortly before then locks a file without a name, which protects nothing. So [`Lock::take`]
//! checks after locking that the file still has its name, and tries again otherwise.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::folder::{FILE_FLAGS, open_plain_file};
use crate::model::HostError;
use crate::text::time_text;

/// Name of the lock file. It is not a record: it is removed with the lock, and a file that a killed
/// run leaves behind locks nothing.
pub(super) const NAME: &str = ".mandelbox-lock";
/// Maximum number of bytes that are read of the file.
const MAX_BYTES: u64 = 4096;

/// Holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// ID of the process.
    pub pid: u32,
    /// Name of the machine.
    pub host: String,
    /// Time at which the holder took the lock, UTC.
    pub since: String,
}

impl LockHolder {
    fn this_process() -> Self {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Self {
            pid: std::process::id(),
            host,
            since: time_text(Timestamp::now()),
        }
    }
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} on {} since {}",
            self.pid, self.host, self.since
        )
    }
}

/// Lock that is held until this value is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Path of the file; `None` if the file was moved or removed.
    path: Option<PathBuf>,
    _file: File,
}

/// Result of trying to lock a work directory.
pub(super) enum LockAttempt {
    /// This run holds the lock.
    Acquired(Lock),
    /// Another process, or another run of this process, holds the lock. The holder comes from the
    /// file, if it is readable.
    HeldBy(Option<LockHolder>),
}

impl Lock {
    /// Locks an existing work directory.
    ///
    /// # Errors
    /// [`HostError::File`] if the file cannot be created, or cannot be locked on this file system.
    pub(super) fn take(work_dir: &Path) -> Result<LockAttempt, HostError> {
        let path = work_dir.join(NAME);
        loop {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(FILE_FLAGS.bits() as i32);
            let mut file = options
                .open(&path)
                .map_err(HostError::file("create", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Ok(LockAttempt::HeldBy(read_holder(&path)));
                }
                Err(TryLockError::Error(err)) => {
                    return Err(HostError::file("lock", &path)(with_advice(err)));
                }
            }
            // The previous holder may have removed the file after it was opened here. A lock on a
            // removed file protects nothing, so try again.
            if is_at(&file, &path) {
                let written = file.set_len(0).and_then(|()| {
                    let holder = serde_json::to_vec(&LockHolder::this_process())
                        .map_err(io::Error::other)?;
                    file.write_all(&holder)
                });
                written.map_err(HostError::file("write to", &path))?;
                return Ok(LockAttempt::Acquired(Self {
                    path: Some(path),
                    _file: file,
                }));
            }
        }
    }
}

#[cfg(feature = "cli")]
impl Lock {
    /// Notes that the file has another path now. Its old path can be that of another lock.
    pub(super) fn note_moved(&mut self) {
        self.path = None;
    }
}

/// Adds advice to the error of a file system without locks, such as NFS without its lock service.
/// Without a lock, two runs could damage each other's records, so none starts.
fn with_advice(err: io::Error) -> io::Error {
    const NO_LOCKS: [Errno; 5] = [
        Errno::NOLCK,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::NOTSUP,
        Errno::INVAL,
    ];
    if !Errno::from_io_error(&err).is_some_and(|errno| NO_LOCKS.contains(&errno)) {
        return err;
    }
    let advice = "this file system cannot lock files, so two runs could use the same work \
        directory; choose a --work-dir on a local disk, or enable locks there (NFS: start the lock \
        service, or mount with `local_lock=flock`)";
    io::Error::new(err.kind(), format!("{err}: {advice}"))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Remove the file first: closing it releases the lock, and another run could then lock the
        // old inode. A file that cannot be removed locks nothing.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns the holder of the lock of a work directory; `None` if nobody holds it or the holder is
/// unknown.
///
/// A file whose lock is free was left behind by a killed run. This function locks the file only for
/// the moment of the check.
pub(super) fn holder(work_dir: &Path) -> Option<LockHolder> {
    let path = work_dir.join(NAME);
    let holder = read_holder(&path)?;
    match open_plain_file(&path).ok()?.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder),
        _ => None,
    }
}

fn read_holder(path: &Path) -> Option<LockHolder> {
    let mut text = Vec::new();
    open_plain_file(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut text)
        .ok()?;
    serde_json::from_slice(&text).ok()
}

/// Returns true if a path leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(here), Ok(there)) => (here.dev(), here.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_file_that_its_holder_removes_locks_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (n_holders, n_taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while n_taken.load(Ordering::SeqCst) < 200 {
                        let LockAttempt::Acquired(lock) =
                            Lock::take(folder.path()).expect("a lock")
                        else {
                            continue;
                        };
                        assert_eq!(
                            n_holders.fetch_add(1, Ordering::SeqCst),
                            0,
                            "two hold the lock"
                        );
                        n_taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        n_holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
