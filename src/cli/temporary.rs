//! A temporary folder, gone at the end.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::folder::Folder;
use crate::model::HostError;

/// Tries to remove it: a guest that was not waited for may still write there.
const TRIES: u32 = 50;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A folder that is removed with all in it when it is dropped.
pub(super) struct TemporaryFolder(TempDir);

impl TemporaryFolder {
    /// * `prefix`: begins its name.
    pub(super) fn new(prefix: &str) -> Result<Self, HostError> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        folder
            .map(Self)
            .map_err(HostError::setup("make a temporary folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Guests leave trees of any depth in it, which the standard library's function does not
    /// remove.
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
