//! The folder that contains the scratch folders of one worker.
//!
//! A worker runs one call after the other. In process mode, its process may access this folder, and
//! not the folder of all scratch folders. Escaped code in one process therefore cannot change the
//! files of calls in another.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Scratch;
use crate::folder::Folder;
use crate::model::{Grant, Rights};

/// Folder for the scratch folders of one worker. It is removed when this value is dropped.
#[derive(Debug)]
pub struct WorkerFolder {
    path: PathBuf,
    folder: Arc<Folder>,
    /// Parent folder, and name of the folder in it.
    parent: Arc<Folder>,
    name: String,
    n_scratch: u64,
}

impl WorkerFolder {
    /// Creates the folder.
    ///
    /// * `parent_path`: path of `parent`.
    pub(super) fn create(
        parent: &Arc<Folder>,
        parent_path: &Path,
        name: String,
    ) -> io::Result<Self> {
        let folder = Arc::new(parent.open_or_create_folder(&*name)?);
        Ok(Self {
            path: parent_path.join(&name),
            folder,
            parent: Arc::clone(parent),
            name,
            n_scratch: 0,
        })
    }

    /// Creates a scratch folder that no other call uses.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn create_scratch(&mut self) -> io::Result<Scratch> {
        let name = self.n_scratch.to_string();
        self.n_scratch += 1;
        Scratch::create(&self.folder, &self.path, name)
    }

    /// Returns a grant of the folder, for the confinement of a worker process.
    pub fn grant(&self) -> Grant {
        Grant::new(
            self.path.clone(),
            self.path.to_string_lossy(),
            Rights::ReadWrite,
        )
    }
}

impl Drop for WorkerFolder {
    fn drop(&mut self) {
        // A folder that cannot be removed stays in the work directory, where a user can see it.
        let _ = self.parent.remove_tree(&*self.name);
    }
}
