//! Files on disk: the work directory of one run, and nothing outside it.
//!
//! Records are whole or not there. What a guest can write to is never read through a link.

mod call_record;
mod free_space;
pub mod layout;
mod lock;
mod scratch;
mod worker_folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use crate::event::EventLog;
use crate::folder::{Folder, WriteContents, check_folder, check_plain, write_all_whole};
use crate::model::HostError;
use layout::SCRATCH_DIR;
use lock::{Lock, Locked};

pub use call_record::{CallOutput, CallRecord};
pub use free_space::check_free_space;
pub use lock::LockHolder;
pub use scratch::{Scratch, TakeError, TakenFile};
pub use worker_folder::WorkerFolder;

/// The folder of one run.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    folder: Folder,
    /// The folder of scratch folders.
    scratch: Arc<Folder>,
    n_workers: AtomicU64,
    /// Removed last.
    _lock: Lock,
}

/// Why a work directory cannot be had.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WorkDirError {
    /// A run is going on in it.
    #[error("{}", in_use(.path, .holder.as_ref()))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Whose run, if that is known.
        holder: Option<LockHolder>,
    },
    /// A run was in it.
    #[error("Workflow dir {} already exists. It holds the records of a run: choose another, or \
        take it up with --resume", .0.display())]
    HoldsARun(PathBuf),
    /// What is in it is no run that could be taken up.
    #[error(
        "Workflow dir {} holds files but no run of mandelbox (there is no events.jsonl); name the \
         folder of the run to resume",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A file or folder of the run, which would be opened, is something else there.
    #[error("Workflow dir {} cannot be used: {what}: {problem}", .path.display(), what = .entry.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        entry: PathBuf,
        /// What it is, and what to do.
        problem: String,
    },
    /// It cannot be made.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl std::fmt::Debug for WorkDirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(err) => std::fmt::Debug::fmt(err, f),
            obstacle => std::fmt::Display::fmt(obstacle, f),
        }
    }
}

impl From<WorkDirError> for HostError {
    /// For folders that nobody else has.
    fn from(err: WorkDirError) -> Self {
        match err {
            WorkDirError::Host(err) => err,
            obstacle => HostError::Setup {
                action: "make a work directory",
                source: obstacle.into(),
            },
        }
    }
}

fn in_use(path: &Path, holder: Option<&LockHolder>) -> String {
    let holder = holder.map_or_else(|| "another process".to_owned(), LockHolder::to_string);
    format!(
        "Workflow dir {} is in use by a run ({holder}): wait for its end, or choose another",
        path.display()
    )
}

impl WorkDir {
    /// Makes the folder, its parents too, and locks it; it may exist but must not hold the records
    /// of a run.
    ///
    /// # Errors
    /// [`WorkDirError`]; nothing was changed if a run is or was there.
    pub fn create(path: &Path) -> Result<Self, WorkDirError> {
        let lock = make_and_lock(path)?;
        if Self::holds_a_run(path) {
            return Err(WorkDirError::HoldsARun(path.to_owned()));
        }
        Self::locked(path, lock)
    }

    /// Makes a folder that was not there before: `path`, or `path` with `_2`, `_3` and so on behind
    /// its name. Of runs that start at the same moment each gets another. Its parents are made too.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn make_new(path: &Path) -> Result<PathBuf, HostError> {
        let failed = |path: &Path| HostError::file("make the work directory", path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(path))?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut numbered = path.to_owned();
        for n in 2_u64.. {
            match make_folder(&numbered) {
                Ok(()) => break,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                    numbered.set_file_name(format!("{name}_{n}"));
                }
                Err(err) => return Err(failed(&numbered)(err)),
            }
        }
        Ok(numbered)
    }

    fn locked(path: &Path, lock: Lock) -> Result<Self, WorkDirError> {
        if let Some(obstacle) = unsafe_entry(path) {
            return Err(obstacle);
        }
        let folder =
            Folder::open(path).map_err(HostError::file("open the work directory", path))?;
        let scratch = folder.open_or_create_folder(SCRATCH_DIR);
        let scratch =
            scratch.map_err(HostError::file("make the folder", &path.join(SCRATCH_DIR)))?;
        let (scratch, n_workers) = (Arc::new(scratch), AtomicU64::new(0));
        Ok(Self {
            path: path.to_owned(),
            folder,
            scratch,
            n_workers,
            _lock: lock,
        })
    }

    /// Whose run is going on in a folder; `None`: nobody's, or it cannot be told.
    pub fn holder(path: &Path) -> Option<LockHolder> {
        lock::holder(path)
    }

    /// Why a run cannot have a folder that is there: a run is or was in it. Changes nothing, so
    /// that it may be otherwise by the time of [`Self::create`].
    pub fn obstacle(path: &Path) -> Option<WorkDirError> {
        match lock::holder(path) {
            Some(holder) => Some(WorkDirError::InUse {
                path: path.to_owned(),
                holder: Some(holder),
            }),
            None if Self::holds_a_run(path) => Some(WorkDirError::HoldsARun(path.to_owned())),
            None => unsafe_entry(path),
        }
    }

    /// Takes up the folder of a run that has ended or was killed, and locks it. A folder in which
    /// no run has begun yet is made, as by [`Self::create`].
    ///
    /// # Errors
    /// [`WorkDirError`]; nothing was changed but for the lock.
    pub fn reopen(path: &Path) -> Result<Self, WorkDirError> {
        let lock = make_and_lock(path)?;
        if !Self::is_known(path) {
            return Err(WorkDirError::Unknown(path.to_owned()));
        }
        Self::locked(path, lock)
    }

    /// Removes what a killed run has left that is no record: scratch folders, and files that were
    /// being written.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn tidy(&self) -> Result<(), HostError> {
        let failed = HostError::file(
            "remove the files of killed calls in",
            &self.path.join(SCRATCH_DIR),
        );
        self.scratch.remove_contents().map_err(failed)?;
        crate::folder::remove_unfinished(&self.path)
            .map_err(HostError::file("remove unfinished files in", &self.path))
    }

    /// Why a run cannot be taken up in a folder; as [`Self::obstacle`].
    pub fn obstacle_to_resume(path: &Path) -> Option<WorkDirError> {
        match lock::holder(path) {
            Some(holder) => Some(WorkDirError::InUse {
                path: path.to_owned(),
                holder: Some(holder),
            }),
            None if !Self::is_known(path) => Some(WorkDirError::Unknown(path.to_owned())),
            None => unsafe_entry(path),
        }
    }

    /// Whether a folder holds a run of ours, or nothing.
    fn is_known(path: &Path) -> bool {
        if path
            .join(EventLog::NAME)
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            return true;
        }
        match fs::read_dir(path) {
            // Runs begin with their log: what stands before it is the lock and the folder of
            // scratch folders.
            Ok(mut entries) => entries.all(|entry| {
                entry.is_ok_and(|entry| {
                    [lock::NAME, SCRATCH_DIR]
                        .iter()
                        .any(|name| entry.file_name() == **name)
                })
            }),
            Err(err) => err.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Whether a folder holds the records of a run.
    pub fn holds_a_run(path: &Path) -> bool {
        [
            EventLog::NAME,
            "workflow.log",
            "metadata.json",
            "history.json",
        ]
        .iter()
        .any(|record| path.join(record).symlink_metadata().is_ok())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the subfolder of a task and returns its path.
    ///
    /// # Errors
    /// [`HostError::File`] if it cannot be made.
    pub fn create_task_folder(&self, order: u64, task_name: &str) -> Result<PathBuf, HostError> {
        let folder = self.task_folder(order, task_name);
        let name = layout::task_folder_name(order, task_name);
        let made = make_folder_if_missing(&folder);
        // Opened, too: a link in its place is no folder of this run.
        let opened = made.and_then(|()| self.folder.open_or_create_folder(&*name));
        opened.map_err(HostError::file("make the folder", &folder))?;
        Ok(folder)
    }

    /// The subfolder of a task.
    pub fn task_folder(&self, order: u64, task_name: &str) -> PathBuf {
        self.path.join(layout::task_folder_name(order, task_name))
    }

    /// Writes metadata, history or the result: readers see the old or the new file, never a part.
    ///
    /// * `records`: names, and what writes their contents.
    ///
    /// # Errors
    /// [`HostError::File`]; the file that it names is then untouched.
    pub fn write_records(&self, records: &[(&str, &WriteContents<'_>)]) -> Result<(), HostError> {
        let files: Vec<_> = records
            .iter()
            .map(|(name, write)| (Path::new(*name), *write))
            .collect();
        write_all_whole(&self.path, &files)
    }

    /// Creates a folder for the scratch folders of one worker.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_worker_folder(&self) -> io::Result<WorkerFolder> {
        let n = self.n_workers.fetch_add(1, Ordering::Relaxed);
        WorkerFolder::create(&self.scratch, &self.path.join(SCRATCH_DIR), n.to_string())
    }
}

impl Drop for WorkDir {
    /// Removes what only running calls need; an error leaves an empty folder behind, which hurts
    /// nobody.
    fn drop(&mut self) {
        let _ = self.folder.remove_folder(SCRATCH_DIR);
    }
}

/// An entry of a work directory that a run would open and that is not what it should be, such as a
/// link: a folder that somebody else has made, or could write to, leads nowhere else.
fn unsafe_entry(path: &Path) -> Option<WorkDirError> {
    let is_file =
        |name: &str| [lock::NAME, EventLog::NAME, crate::workdir::layout::LOG_FILE].contains(&name);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let checked = match entry.file_type() {
            Ok(kind) if is_file(&name) => check_plain(kind),
            Ok(kind) if name == SCRATCH_DIR || layout::is_task_folder_name(&name) => {
                check_folder(kind)
            }
            _ => Ok(()),
        };
        if let Err(err) = checked {
            let (path, entry) = (path.to_owned(), PathBuf::from(entry.file_name()));
            return Some(WorkDirError::Unsafe {
                path,
                entry,
                problem: err.to_string(),
            });
        }
    }
    None
}

fn make_and_lock(path: &Path) -> Result<Lock, WorkDirError> {
    let parents = path.parent().map_or(Ok(()), fs::create_dir_all);
    parents
        .and_then(|()| make_folder_if_missing(path))
        .map_err(HostError::file("make the work directory", path))?;
    match Lock::take(path)? {
        Locked::Here(lock) => Ok(lock),
        Locked::Elsewhere(holder) => Err(WorkDirError::InUse {
            path: path.to_owned(),
            holder,
        }),
    }
}

/// Makes a folder that others may read whatever the umask, as in Fractal: people look into each
/// other's runs. What the umask and the parent folder give beyond that stays: write access for the
/// group, the set-group-ID bit.
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const READABLE: u32 = 0o755;
    fs::create_dir(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & READABLE != READABLE {
        // SMB, DrvFs and some FUSE file systems refuse; the folder is of use all the same.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(mode | READABLE));
    }
    Ok(())
}

/// [`make_folder`]; a folder that is there keeps its mode: it may be closed to others on purpose.
fn make_folder_if_missing(folder: &Path) -> io::Result<()> {
    match make_folder(folder) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}
