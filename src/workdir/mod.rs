//! Files on disk: the work directory of one run.
//!
//! Records are written atomically, so each one is complete or missing. What a guest can write to is
//! never read through a link.

mod call_record;
mod free_space;
mod job_files;
pub mod layout;
mod lock;
mod packages;
mod packed;
#[cfg(feature = "cli")]
mod removal;
mod scratch;
mod worker_folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use crate::event::EventLog;
use crate::folder::{Folder, WriteContents, check_folder, check_plain, write_all_whole};
use crate::model::HostError;
use layout::{JOBS_DIR, PACKAGES_DIR, SCRATCH_DIR};
use lock::{Lock, LockAttempt};

pub use call_record::{CallOutput, CallRecord, CallWriters, RecordForm};
pub use free_space::check_free_space;
pub(crate) use job_files::{JobFolder, LineReader, LineWriter};
pub use lock::LockHolder;
pub use packed::{AttemptKey, PackedCall, PackedCalls, PackedRecord, find_packed, find_packed_in};
#[cfg(feature = "cli")]
pub(crate) use removal::{
    Contents, RemoveError, WorkDirId, contents_of, holds_begun_run, is_removed_name, remove,
    remove_rest,
};
pub use scratch::{Scratch, TakeError, TakenFile};
pub use worker_folder::WorkerFolder;

/// Work directory of one run.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    folder: Folder,
    /// Folder that contains the scratch folders.
    scratch: Arc<Folder>,
    n_workers: AtomicU64,
    /// The last field, so that the lock is released last.
    _lock: Lock,
}

/// Reason why a work directory cannot be used.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WorkDirError {
    /// A run is in progress in the folder.
    #[error("{}", in_use(.path, .holder.as_ref()))]
    InUse {
        /// Path of the folder.
        path: PathBuf,
        /// Holder of the lock, if it is known.
        holder: Option<LockHolder>,
    },
    /// The folder contains the records of a run.
    #[error("Workflow dir {} already exists. It holds the records of a run: choose another, or \
        resume the run with --resume", .0.display())]
    ContainsRun(PathBuf),
    /// The folder contains no run that could be resumed.
    #[error(
        "Workflow dir {} holds files but no run of mandelbox (there is no events.jsonl); name the \
         folder of the run to resume",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A file or folder that the run would open has the wrong type.
    #[error("Workflow dir {} cannot be used: {what}: {problem}", .path.display(), what = .entry.display())]
    Unsafe {
        /// Path of the folder.
        path: PathBuf,
        /// Name of the entry.
        entry: PathBuf,
        /// Type of the entry, with advice.
        problem: String,
    },
    /// The folder cannot be created or opened.
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
    /// Converts errors for folders that nobody else uses.
    fn from(err: WorkDirError) -> Self {
        match err {
            WorkDirError::Host(err) => err,
            obstacle => HostError::Setup {
                action: "create a work directory",
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
    /// Creates the folder and its parents, and locks it. The folder may exist, but it must not
    /// contain the records of a run.
    ///
    /// # Errors
    /// [`WorkDirError`]. Nothing was changed if the folder contains a run.
    pub fn create(path: &Path) -> Result<Self, WorkDirError> {
        Self::create_in(path, false)
    }

    /// Creates and locks the folder like [`Self::create`].
    ///
    /// * `is_prepared`: true if the folder may contain a `workflow.log`.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub fn create_in(path: &Path, is_prepared: bool) -> Result<Self, WorkDirError> {
        let lock = create_and_lock(path)?;
        if Self::is_taken(path, is_prepared) {
            return Err(WorkDirError::ContainsRun(path.to_owned()));
        }
        Self::locked(path, lock)
    }

    /// Creates a folder that did not exist before: `path`, or `path` with `_2`, `_3` and so on
    /// after its name. Runs that start at the same time get different folders. The parents are
    /// created as well.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn make_new(path: &Path) -> Result<PathBuf, HostError> {
        let failed = |path: &Path| HostError::file("create the work directory", path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(path))?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut numbered = path.to_owned();
        for n in 2_u64.. {
            match create_folder(&numbered) {
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
        let scratch = scratch.map_err(HostError::file(
            "create the folder",
            &path.join(SCRATCH_DIR),
        ))?;
        let (scratch, n_workers) = (Arc::new(scratch), AtomicU64::new(0));
        Ok(Self {
            path: path.to_owned(),
            folder,
            scratch,
            n_workers,
            _lock: lock,
        })
    }

    /// Returns the holder of the run in progress in a folder; `None` if there is no run or the
    /// holder is unknown.
    pub fn holder(path: &Path) -> Option<LockHolder> {
        lock::holder(path)
    }

    /// Returns the reason why a new run cannot use an existing folder. This changes nothing, so the
    /// answer may be outdated when [`Self::create`] is called.
    pub fn obstacle(path: &Path) -> Option<WorkDirError> {
        Self::obstacle_in(path, false)
    }

    /// Returns the reason like [`Self::obstacle`], for [`Self::create_in`].
    pub fn obstacle_in(path: &Path, is_prepared: bool) -> Option<WorkDirError> {
        match lock::holder(path) {
            Some(holder) => Some(WorkDirError::InUse {
                path: path.to_owned(),
                holder: Some(holder),
            }),
            None if Self::is_taken(path, is_prepared) => {
                Some(WorkDirError::ContainsRun(path.to_owned()))
            }
            None => unsafe_entry(path),
        }
    }

    /// Opens the folder of a run that has ended or was killed, to resume the run, and locks it. A
    /// folder in which no run has begun yet is created, as by [`Self::create`].
    ///
    /// # Errors
    /// [`WorkDirError`]. Nothing was changed except for the lock.
    pub fn reopen(path: &Path) -> Result<Self, WorkDirError> {
        let lock = create_and_lock(path)?;
        if !Self::is_known(path) {
            return Err(WorkDirError::Unknown(path.to_owned()));
        }
        Self::locked(path, lock)
    }

    /// Removes files of a killed run that are not records: scratch folders, and files that were
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

    /// Returns the reason why a run in a folder cannot be resumed, like [`Self::obstacle`].
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

    /// Returns true if a folder contains a run of mandelbox, or nothing.
    fn is_known(path: &Path) -> bool {
        if path
            .join(EventLog::NAME)
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            return true;
        }
        match fs::read_dir(path) {
            // A run starts with its log. Before that, only the lock and the folder of scratch
            // folders exist.
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

    /// Returns true if a folder contains the records of a run.
    pub fn holds_a_run(path: &Path) -> bool {
        Self::is_taken(path, false)
    }

    /// Returns true if a folder contains the records of a run, apart from the log of a prepared
    /// folder.
    fn is_taken(path: &Path, is_prepared: bool) -> bool {
        layout::RECORD_FILES
            .into_iter()
            .filter(|record| !is_prepared || *record != layout::LOG_FILE)
            .any(|record| path.join(record).symlink_metadata().is_ok())
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the subfolder of a task and returns its path.
    ///
    /// # Errors
    /// [`HostError::File`] if it cannot be created.
    pub fn create_task_folder(&self, order: u64, task_name: &str) -> Result<PathBuf, HostError> {
        let folder = self.task_folder(order, task_name);
        let name = layout::task_folder_name(order, task_name);
        let created = create_folder_if_missing(&folder);
        // Also open the folder, which fails for a link in its place.
        let opened = created.and_then(|()| self.folder.open_or_create_folder(&*name));
        opened.map_err(HostError::file("create the folder", &folder))?;
        Ok(folder)
    }

    /// Returns the path of a task's subfolder.
    pub fn task_folder(&self, order: u64, task_name: &str) -> PathBuf {
        self.path.join(layout::task_folder_name(order, task_name))
    }

    /// Writes metadata, history or the result. Readers see the old or the new file, never a part.
    ///
    /// * `records`: names, and functions that write the contents.
    ///
    /// # Errors
    /// [`HostError::File`]. The file that it names is then unchanged.
    pub fn write_records(&self, records: &[(&str, &WriteContents<'_>)]) -> Result<(), HostError> {
        let files: Vec<_> = records
            .iter()
            .map(|(name, write)| (Path::new(*name), *write))
            .collect();
        write_all_whole(&self.path, &files)
    }

    /// Returns a folder for files that jobs of a cluster share with this run; it may not exist.
    pub(crate) fn job_folder(&self, name: &str) -> JobFolder {
        JobFolder::new(self.path.join(JOBS_DIR).join(name))
    }

    /// Creates a folder for the scratch folders of one worker.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn create_worker_folder(&self) -> io::Result<WorkerFolder> {
        let n = self.n_workers.fetch_add(1, Ordering::Relaxed);
        WorkerFolder::create(&self.scratch, &self.path.join(SCRATCH_DIR), n.to_string())
    }
}

impl Drop for WorkDir {
    /// Removes what only running calls need. An error leaves an empty folder behind, which does no
    /// harm.
    fn drop(&mut self) {
        let _ = self.folder.remove_folder(SCRATCH_DIR);
        let _ = self.folder.remove_folder(JOBS_DIR);
    }
}

/// Returns the error for an entry that a run would open and that has the wrong type, such as a
/// link. A folder that somebody else has created, or can write to, therefore cannot redirect the
/// files of a run.
fn unsafe_entry(path: &Path) -> Option<WorkDirError> {
    let is_file =
        |name: &str| [lock::NAME, EventLog::NAME, crate::workdir::layout::LOG_FILE].contains(&name);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let checked = match entry.file_type() {
            Ok(kind) if is_file(&name) => check_plain(kind),
            Ok(kind)
                if [SCRATCH_DIR, JOBS_DIR, PACKAGES_DIR].contains(&&*name)
                    || layout::is_task_folder_name(&name) =>
            {
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

fn create_and_lock(path: &Path) -> Result<Lock, WorkDirError> {
    let parents = path.parent().map_or(Ok(()), fs::create_dir_all);
    parents
        .and_then(|()| create_folder_if_missing(path))
        .map_err(HostError::file("create the work directory", path))?;
    match Lock::take(path)? {
        LockAttempt::Acquired(lock) => Ok(lock),
        LockAttempt::HeldBy(holder) => Err(WorkDirError::InUse {
            path: path.to_owned(),
            holder,
        }),
    }
}

/// Creates a folder that others may read whatever the umask is, as in Fractal: people look at each
/// other's runs. Further rights from the umask and the parent folder are kept, such as write access
/// for the group and the set-group-ID bit.
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const READABLE: u32 = 0o755;
    fs::create_dir(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & READABLE != READABLE {
        // SMB, DrvFs and some FUSE file systems refuse this, but the folder is still usable.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(mode | READABLE));
    }
    Ok(())
}

/// Creates a folder like [`create_folder`] if it does not exist. An existing folder keeps its mode,
/// since it may be closed to others on purpose.
fn create_folder_if_missing(folder: &Path) -> io::Result<()> {
    match create_folder(folder) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        created => created,
    }
}
