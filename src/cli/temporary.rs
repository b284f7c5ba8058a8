//! A temporary folder, gone at the end.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::error::HostError;

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
        folder.map(Self).map_err(HostError::setup("make a temporary folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match std::fs::remove_dir_all(self.path()) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(PAUSE),
                _ => break,
            }
        }
    }
}
