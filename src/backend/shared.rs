//! CPUs and memory that the runs of several processes share, through files in a folder.
//!
//! Each process has a file there with what its calls have claimed, and holds a lock on it. The
//! operating system releases the lock when the process ends, whatever ends it, so the claims of a
//! killed process do not count. All files are read and changed under the lock of one more file.
//!
//! A process that has waited for [`MAX_WAIT_OF_OTHERS`] goes first: without that, calls of a process
//! that starts the next one at once would never leave room for another process.
//!
//! Calls can be much shorter than reading the files takes. So a claim of a call that has ended is
//! kept for [`CLAIM_REUSE_TIME`], and the next call of this process uses it.
//!
//! A process that is stopped (SIGSTOP) while it holds the lock must not block others, whose calls
//! can be cancelled. So the lock is only waited for briefly, and changes that could not be written
//! are written later.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::Ticker;
use crate::folder::FILE_FLAGS;
use crate::model::HostError;

/// Time after which a process that waits goes before one that has calls running.
const MAX_WAIT_OF_OTHERS: Nanoseconds = 50_000_000;
/// Time for which the claim of a call that has ended is kept for the next one.
const CLAIM_REUSE_TIME: Duration = Duration::from_millis(10);
/// Time for which the lock of the folder is waited for, and the interval between two attempts. On a
/// loaded machine a test may have to wait longer for a thread that holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 20 });
const LOCK_INTERVAL: Duration = Duration::from_micros(50);
/// File whose lock guards all others.
const LOCK: &str = "lock";
/// Start of the names of the files of processes.
const CLAIMS: &str = "claims-";
/// Maximum number of bytes that are read of a file.
const MAX_BYTES: u64 = 256;

/// Time of the clock that all processes of a machine share.
type Nanoseconds = u64;

/// The part of a process in the CPUs and memory that processes share.
pub(super) struct ProcessClaims {
    files: Arc<Files>,
    /// Gives back claims that are kept.
    _ticker: Ticker,
}

struct Files {
    folder: PathBuf,
    lock: File,
    own: PathBuf,
    state: Mutex<OwnClaims>,
}

struct OwnClaims {
    file: File,
    /// Claims of the calls that run.
    used: Claims,
    /// Claims in the file: those of the calls that run, and those that are kept.
    claimed: Claims,
    /// False if the file does not have the last changes, since it could not be written.
    is_written: bool,
    /// Time at which the files were last read.
    checked_at: Nanoseconds,
    /// Calls that wait, by the time since when.
    waiting: Vec<Nanoseconds>,
}

/// Claims of one process, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) n_calls: u64,
    pub(super) n_cpus: u64,
    pub(super) bytes: u64,
}

impl Claims {
    /// Returns these claims with those of one more call, or of another process.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            n_calls: self.n_calls.saturating_add(other.n_calls),
            n_cpus: self.n_cpus.saturating_add(other.n_cpus),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn covers(self, other: Self) -> bool {
        self.n_calls >= other.n_calls && self.n_cpus >= other.n_cpus && self.bytes >= other.bytes
    }

    fn without(self, other: Self) -> Self {
        Self {
            n_calls: self.n_calls.saturating_sub(other.n_calls),
            n_cpus: self.n_cpus.saturating_sub(other.n_cpus),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl ProcessClaims {
    /// Joins the processes that share a folder. It is created if it is missing.
    ///
    /// # Errors
    /// [`HostError::File`] if the folder cannot be created or written to, [`HostError::Setup`] if
    /// no thread can be started.
    pub(super) fn join(folder: &Path) -> Result<Self, HostError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let failed = |path: &Path| HostError::file("share calls through the folder", path);
        if folder.is_file() {
            return Err(failed(folder)(io::ErrorKind::NotADirectory.into()));
        }
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock = open(&folder.join(LOCK)).map_err(failed(folder))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = folder.join(format!("{CLAIMS}{}-{number}", std::process::id()));
        let guard = locked(&lock).map_err(failed(folder))?;
        // A process of another container can have the same number. Its file is kept by its lock.
        let (own, file) = create_claims(own).map_err(failed(folder))?;
        drop(guard);
        let files = Arc::new(Files {
            folder: folder.to_owned(),
            lock,
            own,
            state: Mutex::new(OwnClaims {
                file,
                used: Claims::default(),
                claimed: Claims::default(),
                is_written: true,
                checked_at: 0,
                waiting: Vec::new(),
            }),
        });
        let of_ticker = Arc::clone(&files);
        let ticker = Ticker::start("mandelbox-share", CLAIM_REUSE_TIME, move || {
            of_ticker.give_back()
        });
        let ticker = ticker.map_err(HostError::setup("share calls between processes"))?;
        Ok(Self {
            files,
            _ticker: ticker,
        })
    }

    /// Returns the present time, for [`Self::claim`].
    pub(super) fn now() -> Nanoseconds {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
    }

    /// Claims the share of one call. Returns false if it has to wait, and is to be called again.
    ///
    /// * `call`: CPUs and memory of the call, whose `n_calls` is 1.
    /// * `since`: time at which the call was ready to start.
    /// * `fits`: true if these claims of all processes are no more than there is.
    ///
    /// # Errors
    /// The operating system's error. Nothing is claimed then, and the call does not wait.
    pub(super) fn claim(
        &self,
        call: Claims,
        since: Nanoseconds,
        fits: impl Fn(Claims) -> bool,
    ) -> io::Result<bool> {
        let mut own = self.files.own();
        let used = own.used;
        let claimed = self.files.claim(&mut own, call, since, fits);
        if claimed.is_err() {
            own.used = used;
            own.waiting.retain(|waiting| *waiting != since);
            own.is_written = false;
        }
        claimed
    }

    /// Gives up waiting for a claim.
    pub(super) fn give_up(&self, since: Nanoseconds) {
        let mut own = self.files.own();
        own.waiting.retain(|waiting| *waiting != since);
        self.files.write_or_defer(&mut own);
    }

    /// Gives back the claim of a call that has ended, after a moment.
    pub(super) fn release(&self, call: Claims) {
        let mut own = self.files.own();
        own.used = own.used.without(call);
    }
}

impl Files {
    fn claim(
        &self,
        own: &mut OwnClaims,
        call: Claims,
        since: Nanoseconds,
        fits: impl Fn(Claims) -> bool,
    ) -> io::Result<bool> {
        let now = ProcessClaims::now();
        let used = own.used.with(call);
        // While a call of this process waits, other processes give way to it, so the file has to be
        // updated.
        let is_kept = own.claimed.covers(used) && own.waiting.is_empty();
        if is_kept && now.saturating_sub(own.checked_at) < CLAIM_REUSE_TIME.as_nanos() as u64 {
            own.used = used;
            return Ok(true);
        }
        let Some(_guard) = locked_briefly(&self.lock)? else {
            return Ok(false);
        };
        let (others, oldest_wait) = self.others()?;
        own.checked_at = now;
        let all = own.used.with(others);
        let is_first =
            oldest_wait.is_none_or(|oldest| oldest.saturating_add(MAX_WAIT_OF_OTHERS) > since);
        let may_start = is_first && (all.n_calls == 0 || fits(all.with(call)));
        if may_start {
            own.used = used;
            own.waiting.retain(|waiting| *waiting != since);
        } else if !own.waiting.contains(&since) {
            own.waiting.push(since);
        } else if own.claimed == own.used {
            return Ok(false);
        }
        own.write()?;
        Ok(may_start)
    }

    /// Gives back claims that no call uses.
    fn give_back(&self) {
        let mut own = self.own();
        if own.claimed != own.used || !own.is_written {
            self.write_or_defer(&mut own);
        }
    }

    /// Writes the claims of this process now, or else in [`Self::give_back`].
    fn write_or_defer(&self, own: &mut OwnClaims) {
        own.is_written = false;
        if let Ok(Some(_guard)) = locked_briefly(&self.lock) {
            // The end of the process releases all claims in any case.
            let _ = own.write();
        }
    }

    /// Reads the claims of all other processes, and the time since when the first of them waits.
    fn others(&self) -> io::Result<(Claims, Option<Nanoseconds>)> {
        let (mut claims, mut oldest_wait) = (Claims::default(), None);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(CLAIMS) || path == self.own {
                continue;
            }
            let mut file = match open_plain(&path) {
                Ok(file) => file,
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err),
            };
            match file.try_lock() {
                // Its process has ended.
                Ok(()) => fs::remove_file(&path)?,
                Err(TryLockError::WouldBlock) => {
                    let (claimed, since) = read(&mut file)?;
                    claims = claims.with(claimed);
                    oldest_wait = oldest_wait.into_iter().chain(since).min();
                }
                Err(TryLockError::Error(err)) => return Err(err),
            }
        }
        Ok((claims, oldest_wait))
    }

    fn own(&self) -> MutexGuard<'_, OwnClaims> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Otherwise another process removes the file, which nobody holds a lock on then.
        if let Ok(Some(_guard)) = locked_briefly(&self.lock) {
            let _ = fs::remove_file(&self.own);
        }
    }
}

impl OwnClaims {
    fn write(&mut self) -> io::Result<()> {
        let Claims {
            n_calls,
            n_cpus,
            bytes,
        } = self.used;
        let mut text = format!("{n_calls} {n_cpus} {bytes}");
        if let Some(oldest) = self.waiting.iter().min() {
            text.push_str(&format!(" {oldest}"));
        }
        text.push('\n');
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)?;
        self.claimed = self.used;
        self.is_written = true;
        Ok(())
    }
}

/// Lock of the folder, released when this is dropped.
struct FolderLock<'a>(&'a File);

impl Drop for FolderLock<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn locked(file: &File) -> io::Result<FolderLock<'_>> {
    file.lock().map(|()| FolderLock(file))
}

/// As [`locked`]; `None` if another process holds the lock for [`LOCK_TIMEOUT`].
fn locked_briefly(file: &File) -> io::Result<Option<FolderLock<'_>>> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(FolderLock(file))),
            Err(TryLockError::Error(err)) => return Err(err),
            Err(TryLockError::WouldBlock) if started.elapsed() >= LOCK_TIMEOUT => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(FILE_FLAGS.bits() as i32).open(path)
}

fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(FILE_FLAGS.bits() as i32).open(path)
}

/// Creates and locks the file of a process. A name that is in use gets a suffix.
fn create_claims(mut path: PathBuf) -> io::Result<(PathBuf, File)> {
    loop {
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(b"0 0 0\n")?;
                return Ok((path, file));
            }
            Err(TryLockError::WouldBlock) => {
                path.as_mut_os_string().push("x");
            }
            Err(TryLockError::Error(err)) => return Err(err),
        }
    }
}

/// Reads the claims of a process. Values that cannot be parsed count as zero.
fn read(file: &mut File) -> io::Result<(Claims, Option<Nanoseconds>)> {
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    let mut next = || numbers.next();
    let claims = Claims {
        n_calls: next().unwrap_or_default(),
        n_cpus: next().unwrap_or_default(),
        bytes: next().unwrap_or_default(),
    };
    Ok((claims, next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Claims = Claims {
        n_calls: 1,
        n_cpus: 1,
        bytes: 100,
    };

    fn two_cpus(all: Claims) -> bool {
        all.n_cpus <= 2
    }

    #[test]
    fn processes_have_no_more_than_there_is_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            ProcessClaims::join(folder.path()).expect("joined"),
            ProcessClaims::join(folder.path()).expect("joined"),
        );
        let since = ProcessClaims::now();
        let claim =
            |shared: &ProcessClaims, n| shared.claim(CALL, since + n, two_cpus).expect("read");
        assert!(claim(&a, 0) && claim(&a, 1));
        assert!(!claim(&b, 2));
        a.release(CALL);
        a.files.give_back();
        assert!(claim(&b, 2));
        assert!(!claim(&a, 3));
        // The claims of a process that has ended do not count.
        drop(b);
        assert!(claim(&a, 3));
        let names: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_started_call_delays_no_other_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            ProcessClaims::join(folder.path()).expect("joined"),
            ProcessClaims::join(folder.path()).expect("joined"),
        );
        let one = |all: Claims| all.n_cpus <= 1;
        assert!(a.claim(CALL, 0, one).expect("read"));
        assert!(!b.claim(CALL, 10, one).expect("read"));
        a.release(CALL);
        a.files.give_back();
        let mut own = b.files.own();
        (own.claimed, own.checked_at) = (CALL, Nanoseconds::MAX);
        drop(own);
        assert!(b.claim(CALL, 10, one).expect("read"));
        b.release(CALL);
        b.files.give_back();
        let later = 10 + 2 * MAX_WAIT_OF_OTHERS;
        assert!(a.claim(CALL, later, one).expect("read"));
    }

    #[test]
    fn the_next_call_has_the_claim_of_one_that_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let shared = ProcessClaims::join(folder.path()).expect("joined");
        // The thread that gives claims back can be faster, but not always.
        let has_kept = (0..100).any(|_| {
            let mut own = shared.files.own();
            (own.claimed, own.checked_at) = (CALL, Nanoseconds::MAX);
            drop(own);
            assert!(shared.claim(CALL, 0, two_cpus).expect("read"));
            shared.release(CALL);
            shared.files.own().checked_at == Nanoseconds::MAX
        });
        assert!(has_kept);
        // Given back a moment after the end.
        std::thread::sleep(10 * CLAIM_REUSE_TIME);
        assert_eq!(shared.files.own().claimed, Claims::default());
    }

    #[test]
    fn a_call_larger_than_all_runs_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let shared = ProcessClaims::join(folder.path()).expect("joined");
        let never = |_| false;
        assert!(shared.claim(CALL, 1, never).expect("read"));
        assert!(!shared.claim(CALL, 2, never).expect("read"));
    }

    #[test]
    fn the_process_that_waits_longest_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            ProcessClaims::join(folder.path()).expect("joined"),
            ProcessClaims::join(folder.path()).expect("joined"),
        );
        let one = |all: Claims| all.n_cpus <= 1;
        assert!(a.claim(CALL, 0, one).expect("read"));
        assert!(!b.claim(CALL, 10, one).expect("read"));
        a.release(CALL);
        a.files.give_back();
        assert!(a.claim(CALL, 20, one).expect("read"), "within its slice");
        a.release(CALL);
        a.files.give_back();
        let later = 10 + MAX_WAIT_OF_OTHERS;
        assert!(!a.claim(CALL, later, one).expect("read"));
        assert!(b.claim(CALL, 10, one).expect("read"));
        b.release(CALL);
        b.files.give_back();
        assert!(a.claim(CALL, later, one).expect("read"));
        a.release(CALL);
        a.files.give_back();
        // A process that gives up is not waited for.
        assert!(a.claim(CALL, later, one).expect("read"));
        assert!(!b.claim(CALL, later, one).expect("read"));
        b.give_up(later);
        a.release(CALL);
        a.files.give_back();
        assert!(
            a.claim(CALL, later + 2 * MAX_WAIT_OF_OTHERS, one)
                .expect("read")
        );
    }

    #[test]
    fn after_an_error_nothing_is_claimed_or_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            ProcessClaims::join(folder.path()).expect("joined"),
            ProcessClaims::join(folder.path()).expect("joined"),
        );
        assert!(a.claim(CALL, 1, |_| false).expect("read"));
        assert!(!b.claim(CALL, 2, |_| false).expect("read"));
        let path = folder.path().join(format!("{CLAIMS}folder"));
        fs::create_dir(&path).expect("created");
        b.claim(CALL, 2, two_cpus).expect_err("a folder");
        let own = b.files.own();
        assert_eq!(own.used, Claims::default());
        assert!(own.waiting.is_empty());
        drop(own);
        fs::remove_dir(&path).expect("removed");
        b.files.give_back();
        let (claims, oldest_wait) = a.files.others().expect("read");
        assert_eq!((claims, oldest_wait), (Claims::default(), None));
    }

    #[test]
    fn a_process_that_is_stopped_with_the_lock_blocks_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            ProcessClaims::join(folder.path()).expect("joined"),
            ProcessClaims::join(folder.path()).expect("joined"),
        );
        let one = |all: Claims| all.n_cpus <= 1;
        assert!(a.claim(CALL, 1, one).expect("read"));
        assert!(!b.claim(CALL, 2, one).expect("read"));
        let lock = open(&folder.path().join(LOCK)).expect("opened");
        let guard = locked(&lock).expect("locked");
        assert!(!b.claim(CALL, 2, one).expect("no answer"));
        b.give_up(2);
        a.release(CALL);
        a.files.give_back();
        assert!(!a.files.own().is_written && !b.files.own().is_written);
        drop(guard);
        a.files.give_back();
        b.files.give_back();
        let others = |shared: &ProcessClaims| shared.files.others().expect("read");
        assert_eq!(others(&a), (Claims::default(), None));
        assert_eq!(others(&b), (Claims::default(), None));
    }

    #[test]
    fn a_foreign_file_counts_as_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let shared = ProcessClaims::join(folder.path()).expect("joined");
        let path = folder.path().join("claims-1-0");
        fs::write(&path, "x y").expect("written");
        let file = open(&path).expect("opened");
        file.lock().expect("locked");
        assert_eq!(
            shared.files.others().expect("read"),
            (Claims::default(), None)
        );
        drop(file);
        assert!(shared.claim(CALL, 1, two_cpus).expect("read"));
        assert!(!path.exists());
    }
}
