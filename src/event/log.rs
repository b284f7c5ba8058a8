//! `events.jsonl`: the run's own record, one JSON object a line, only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Event;
use crate::error::HostError;

/// Appends events to `events.jsonl`.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventLog {
    /// Name of the log in the work directory.
    pub const NAME: &str = "events.jsonl";

    /// Makes the log of a new run.
    ///
    /// # Errors
    /// [`HostError::File`], also if there is one already.
    pub fn create(work_dir: &Path) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = BufWriter::new(file.map_err(HostError::file("make", &path))?);
        // The file's name is on disk too before its contents count.
        let folder = File::open(work_dir).and_then(|folder| folder.sync_all());
        folder.map_err(HostError::file("sync", work_dir))?;
        Ok(Self { path, file })
    }

    /// Appends one event to what the next [`Self::flush`] or [`Self::sync`] writes.
    ///
    /// # Errors
    /// [`HostError::File`] if a write to the file fails.
    pub fn append(&mut self, event: &Event) -> Result<(), HostError> {
        let written = serde_json::to_writer(&mut self.file, event).map_err(std::io::Error::from);
        written.and_then(|()| self.file.write_all(b"\n")).map_err(HostError::file("write to", &self.path))
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// [`HostError::File`] if the write fails.
    pub fn flush(&mut self) -> Result<(), HostError> {
        self.file.flush().map_err(HostError::file("write to", &self.path))
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// [`HostError::File`] if it cannot be written or synced.
    pub fn sync(&mut self) -> Result<(), HostError> {
        self.flush()?;
        self.file.get_ref().sync_data().map_err(HostError::file("sync", &self.path))
    }
}
