//! One run at a time in a work directory: a lock that ends with its process, whatever ends that.

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

/// Name of the lock's file. It is no record: it is removed with the lock, and one that a killed run
/// leaves locks nothing.
pub(super) const NAME: &str = ".mandelbox-lock";
/// Bytes that are read of it.
const MAX_BYTES: u64 = 4096;

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its process.
    pub pid: u32,
    /// Name of its machine.
    pub host: String,
    /// When it took the lock, UTC.
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

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

/// What came of trying.
pub(super) enum Locked {
    /// The lock is held.
    Here(Lock),
    /// Another process, or another run of this one, holds it: as far as its file tells, this one.
    Elsewhere(Option<LockHolder>),
}

impl Lock {
    /// Takes the lock of a work directory, which is there.
    ///
    /// # Errors
    /// [`HostError::File`] if the file cannot be made, or not be locked on this file system.
    pub(super) fn take(work_dir: &Path) -> Result<Locked, HostError> {
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
                .map_err(HostError::file("make", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Locked::Elsewhere(read_holder(&path))),
                Err(TryLockError::Error(err)) => {
                    return Err(HostError::file("lock", &path)(with_advice(err)));
                }
            }
            // The holder before may have removed this file after it was opened here: then it locks
            // nothing.
            if is_at(&file, &path) {
                let written = file.set_len(0).and_then(|()| {
                    let holder = serde_json::to_vec(&LockHolder::this_process())
                        .map_err(io::Error::other)?;
                    file.write_all(&holder)
                });
                written.map_err(HostError::file("write to", &path))?;
                return Ok(Locked::Here(Self { path, _file: file }));
            }
        }
    }
}

/// The error, with what to do where a file system has no locks, as NFS without its lock service.
/// Without a lock two runs could spoil each other's records, so none starts.
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
    let advice = "this file system cannot lock files, so two runs there could not be kept apart; \
        choose a --work-dir on a \
                  local disk, or enable locks there (NFS: start the lock service, or mount with \
                  `local_lock=flock`)";
    io::Error::new(err.kind(), format!("{err}: {advice}"))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the file is closed, which gives the lock up. One that stays locks nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// Who holds the lock of a work directory; `None`: nobody, or it cannot be told.
///
/// A file whose lock is free is left by a killed run: it is not taken here, but for the moment of
/// looking.
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

/// Whether an open file is the one at a path.
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
                        let Locked::Here(lock) = Lock::take(folder.path()).expect("a lock") else {
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
