//! Temporary folder that is removed at the end.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::folder::Folder;
use crate::model::HostError;

/// Attempts to remove the folder: an abandoned guest may still write to it.
const TRIES: u32 = 50;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Folder that is removed with its contents when dropped.
pub(super) struct TemporaryFolder(TempDir);

impl TemporaryFolder {
    /// Creates the folder.
    ///
    /// * `prefix`: start of its name.
    pub(super) fn new(prefix: &str) -> Result<Self, HostError> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        folder
            .map(Self)
            .map_err(HostError::setup("create a temporary folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes the folder. `std::fs::remove_dir_all` would fail on the deepest trees that guests
    /// can create.
    fn remove(&self) -> std::io::Result<()> {
        let parent = self.path().parent().unwrap_or(Path::new("."));
        Folder::open(parent)?.remove_tree(self.path().file_name().unwrap_or_default())
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match self.remove() {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(PAUSE),
                _ => break,
            }
        }
    }
}
