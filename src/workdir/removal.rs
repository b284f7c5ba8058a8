//! Removal of the work directories of runs that have ended.
//!
//! A work directory is removed only if it is certainly one: its event log has an intact first line,
//! and everything at its top is a record. The lock is held meanwhile, so no run is in progress and
//! none can be resumed.
//!
//! The folder gets a name of its own before anything in it is removed. After a crash, the name
//! shows that the rest can be removed too, and no half-removed run is taken for a whole one.

use std::ffi::{CStr, OsStr};
use std::io;
use std::path::Path;

use rustix::fs::{FileType, FlockOperation, Stat, flock};
use rustix::io::Errno;

use super::layout::{self, JOBS_DIR, PACKAGES_DIR, SCRATCH_DIR};
use super::lock::{self, Lock, LockAttempt};
use crate::event::{Event, EventKind, EventLog, first_event};
use crate::folder::{Folder, disk_bytes, sync_folder};
use crate::model::HostError;
use crate::text::escaped;

/// Start of the name of a work directory that is being removed. 16 hexadecimal digits follow.
const REMOVED: &str = ".mandelbox-removed-";
const N_DIGITS: usize = 16;

/// Identity and state of a work directory, to notice changes before it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkDirId {
    folder: (u64, u64),
    log_bytes: u64,
}

impl WorkDirId {
    /// Returns the identity of the work directory at a path.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Self::of(&Folder::open(path)?)
    }

    fn of(folder: &Folder) -> io::Result<Self> {
        Ok(Self {
            folder: folder.identity()?,
            log_bytes: folder.open_file(EventLog::NAME)?.metadata()?.len(),
        })
    }
}

/// Contents of a work directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Size on disk, in bytes.
    pub(crate) disk_bytes: u64,
    /// False if something could not be counted: it is not readable, too deep, or another file
    /// system.
    pub(crate) is_whole: bool,
    /// Reason why the folder must not be removed, as a sentence; `None`: all of it is of one run.
    pub(crate) obstacle: Option<String>,
}

/// Reason why a work directory was not removed.
#[derive(Debug)]
pub(crate) enum RemoveError {
    /// It must not be removed. Nothing was changed.
    Kept(String),
    /// The removal failed. Parts of the folder may be removed.
    Failed(HostError),
}

impl From<HostError> for RemoveError {
    fn from(err: HostError) -> Self {
        Self::Failed(err)
    }
}

/// Returns true if a run has begun in a folder, or a program holds it for one: it has a log or a
/// lock, of any type.
///
/// # Errors
/// The operating system's error if the folder cannot be searched.
pub(crate) fn holds_begun_run(folder: &Folder) -> io::Result<bool> {
    for name in [EventLog::NAME, lock::NAME] {
        match folder.file_type(name) {
            Ok(_) => return Ok(true),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(false)
}

/// Returns true if a name is that of a work directory whose removal has begun.
pub(crate) fn is_removed_name(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(REMOVED));
    digits.is_some_and(|digits| {
        digits.len() == N_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Returns the contents of a work directory. Follows no link.
///
/// # Errors
/// The operating system's error if the folder cannot be read.
pub(crate) fn contents_of(path: &Path) -> io::Result<Contents> {
    let folder = Folder::open(path)?;
    let mut contents = Contents {
        is_whole: true,
        obstacle: foreign_entry(&folder)?,
        ..Contents::default()
    };
    for (name, _) in folder.entries()? {
        contents.add(&folder, &name)?;
    }
    Ok(contents)
}

impl Contents {
    /// Adds an entry at the top of a work directory.
    fn add(&mut self, folder: &Folder, name: &OsStr) -> io::Result<()> {
        let stat = match folder.stat(name) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            stat => stat?,
        };
        self.disk_bytes = self.disk_bytes.saturating_add(disk_bytes(&stat));
        let Ok(subfolder) = folder.open_folder(name) else {
            self.is_whole &= !is_folder(&stat);
            return Ok(());
        };
        // What killed calls have left in scratch folders can have any names.
        let is_scratch = name == SCRATCH_DIR;
        let mut holds_run = false;
        let is_whole = subfolder.walk(|name, stat| {
            self.disk_bytes = self.disk_bytes.saturating_add(disk_bytes(stat));
            holds_run |= !is_scratch && is_sign_of_run(name);
        });
        // A folder that is closed to this user is an error of its removal, if it comes to that.
        self.is_whole &= is_whole.unwrap_or(false);
        if holds_run {
            let name = escaped(&name.to_string_lossy());
            self.obstacle = Some(format!("another run is in its folder `{name}`"));
        }
        Ok(())
    }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_sign_of_run(name: &CStr) -> bool {
    [EventLog::NAME, lock::NAME]
        .iter()
        .any(|sign| sign.as_bytes() == name.to_bytes())
}

/// Returns the reason why a folder is not one of records only, as a sentence; `None` if it is.
fn foreign_entry(folder: &Folder) -> io::Result<Option<String>> {
    for (name, kind) in folder.entries()? {
        let is_known = name.to_str().is_some_and(|name| match kind {
            FileType::Directory => {
                [SCRATCH_DIR, JOBS_DIR, PACKAGES_DIR].contains(&name)
                    || layout::is_task_folder_name(name)
            }
            FileType::RegularFile => layout::is_record_name(name),
            _ => false,
        });
        if !is_known {
            let name = escaped(&name.to_string_lossy());
            return Ok(Some(format!(
                "contains `{name}`, which is not a record of its run; move it elsewhere"
            )));
        }
    }
    Ok(None)
}

/// Removes the work directory of a run that has ended.
///
/// * `id`: what was at the path when the caller decided to remove it.
///
/// # Errors
/// [`RemoveError`].
pub(crate) fn remove(path: &Path, id: WorkDirId) -> Result<(), RemoveError> {
    let failed = || HostError::file("remove", path);
    let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(RemoveError::Kept("it has no name".to_owned()));
    };
    let parent = Folder::open(parent_path).map_err(failed())?;
    let folder = parent.open_folder(name).map_err(failed())?;
    let mut lock = match Lock::take(path)? {
        LockAttempt::Acquired(lock) => lock,
        LockAttempt::HeldBy(holder) => {
            let holder = holder.map_or_else(|| "another process".to_owned(), |it| it.to_string());
            return Err(RemoveError::Kept(format!(
                "a run is in progress ({holder})"
            )));
        }
    };
    // From here on no run starts in the folder, so what is checked stays as it is.
    if WorkDirId::read(path).ok() != Some(id) || folder.identity().ok() != Some(id.folder) {
        let text = "it has changed since it was listed; list the runs again";
        return Err(RemoveError::Kept(text.to_owned()));
    }
    check_is_run(&folder).map_err(failed())??;
    let removed_name = format!(
        "{REMOVED}{:016x}",
        getrandom::u64()
            .map_err(io::Error::other)
            .map_err(failed())?
    );
    parent.rename(name, &*removed_name).map_err(failed())?;
    lock.note_moved();
    let moved = parent.open_folder(&*removed_name).map_err(failed())?;
    if moved.identity().map_err(failed())? != id.folder {
        // Somebody has put another folder in place of the one that was checked.
        parent.rename(&*removed_name, name).map_err(failed())?;
        return Err(RemoveError::Kept(
            "another folder has its name now".to_owned(),
        ));
    }
    // If the name reaches the disk later than the removals, a power failure can leave a work
    // directory without some of its files.
    let _ = sync_folder(parent_path);
    empty_and_remove(&parent, &moved, &removed_name).map_err(failed())?;
    drop(lock);
    Ok(())
}

/// Fails with [`RemoveError::Kept`] unless a folder is certainly the work directory of a run.
fn check_is_run(folder: &Folder) -> io::Result<Result<(), RemoveError>> {
    let is_start = |event: Event| matches!(event.kind, EventKind::RunStarted(_));
    let first = first_event(folder.open_file(EventLog::NAME)?);
    if !first.is_ok_and(|event| event.is_some_and(is_start)) {
        let text = format!(
            "`{}` does not begin with the start of a run",
            EventLog::NAME
        );
        return Ok(Err(RemoveError::Kept(text)));
    }
    Ok(match foreign_entry(folder)? {
        Some(text) => Err(RemoveError::Kept(text)),
        None => Ok(()),
    })
}

/// Completes a removal that was interrupted.
///
/// * `path`: of a folder with a name of [`is_removed_name`].
///
/// # Errors
/// [`RemoveError`]; `Kept` if another process removes the folder.
pub(crate) fn remove_rest(path: &Path) -> Result<(), RemoveError> {
    let failed = || HostError::file("remove", path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
    else {
        return Err(RemoveError::Kept("it has no name".to_owned()));
    };
    let parent = Folder::open(parent).map_err(failed())?;
    match parent.open_folder(name) {
        Ok(folder) => empty_and_remove(&parent, &folder, name).map_err(|err| match err.kind() {
            io::ErrorKind::WouldBlock => {
                RemoveError::Kept("another process is removing it".to_owned())
            }
            _ => failed()(err).into(),
        }),
        // Another process was faster.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(failed()(err).into()),
    }
}

/// Empties a folder and removes it.
///
/// # Errors
/// The operating system's error; [`io::ErrorKind::WouldBlock`] if another process removes it.
fn empty_and_remove(parent: &Folder, folder: &Folder, name: &str) -> io::Result<()> {
    // On a file system without locks, two removals at a time can only make each other fail.
    if let Err(Errno::WOULDBLOCK) = flock(folder, FlockOperation::NonBlockingLockExclusive) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    folder.remove_contents()?;
    parent.remove_folder(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_removed_folders_are_recognized() {
        for (name, expected) in [
            (".mandelbox-removed-0123456789abcdef", true),
            (".mandelbox-removed-0123456789abcde", false),
            (".mandelbox-removed-0123456789abcdefg", false),
            (".mandelbox-removed-0123456789abcdeg", false),
            (".mandelbox-removed-", false),
            ("mandelbox-removed-0123456789abcdef", false),
            ("run_20270101_120000", false),
        ] {
            assert_eq!(is_removed_name(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_run_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("work");
        std::fs::create_dir(&path).expect("made");
        for log in ["", "{}\n", "{\"event\":\"run_started\"}\n"] {
            std::fs::write(path.join(EventLog::NAME), log).expect("written");
            let id = WorkDirId::read(&path).expect("read");
            let kept = remove(&path, id).expect_err("kept");
            assert!(matches!(kept, RemoveError::Kept(_)), "{kept:?}");
            let entries = std::fs::read_dir(&path).expect("there").count();
            assert_eq!(entries, 1, "the lock is removed");
        }
        let id = WorkDirId::read(&path).expect("read");
        std::fs::write(
            path.join(EventLog::NAME),
            "longer than before: it has changed",
        )
        .expect("written");
        match remove(&path, id).expect_err("kept") {
            RemoveError::Kept(text) => assert!(text.contains("has changed"), "{text}"),
            failed => panic!("{failed:?}"),
        }
    }

    #[test]
    fn rests_are_removed_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".mandelbox-removed-0123456789abcdef");
        std::fs::create_dir_all(path.join("0_t/deep")).expect("made");
        std::fs::write(path.join("0_t/file"), "x").expect("written");
        let other = Folder::open(&path).expect("opened");
        flock(&other, FlockOperation::NonBlockingLockExclusive).expect("locked");
        let kept = remove_rest(&path).expect_err("locked");
        assert!(matches!(kept, RemoveError::Kept(_)), "{kept:?}");
        assert!(path.join("0_t/file").exists());
        drop(other);
        remove_rest(&path).expect("removed");
        assert!(!path.exists());
        remove_rest(&path).expect("gone already");
    }
}
