//! `events.jsonl`: the run's own record, one JSON object a line, only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Fact;
use crate::error::HostError;
use crate::folder::FILE_FLAGS;
use crate::workdir::{Synced, sync_contents, sync_folder};

/// Bytes of lines that wait for a flush at most.
const BUFFER_BYTES: usize = 8 << 10;

/// Appends events to `events.jsonl`.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    /// Bytes of the file, which are whole lines.
    written_bytes: u64,
    /// Lines that are not in the file yet.
    unwritten: Vec<u8>,
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
        let file = file.map_err(HostError::file("make", &path))?;
        sync_name(work_dir)?;
        Ok(Self { path, file, written_bytes: 0, unwritten: Vec::new() })
    }

    /// Opens the log of a run that is taken up again, or makes it if that run had not come so far.
    ///
    /// * `whole_bytes`: bytes of its whole lines; what stands behind them is cut off.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn reopen(work_dir: &Path, whole_bytes: u64) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        let mut options = OpenOptions::new();
        options.append(true).create(true).custom_flags(FILE_FLAGS.bits() as i32);
        let file = options.open(&path).map_err(HostError::file("open", &path))?;
        file.set_len(whole_bytes).map_err(HostError::file("cut off the torn end of", &path))?;
        sync_name(work_dir)?;
        Ok(Self { path, file, written_bytes: whole_bytes, unwritten: Vec::new() })
    }

    /// Whether so many lines wait that they should be written down.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten.len() >= BUFFER_BYTES
    }

    /// Appends one event to what the next [`Self::flush`] or [`Self::sync`] writes.
    ///
    /// * `time`: as [`super::time_text`] gives it.
    pub(super) fn append(&mut self, seq: u64, time: &str, fact: &Fact) {
        fact.write_line(seq, time, &mut self.unwritten);
    }

    /// Hands everything to the operating system. If it does not take all, as on a full disk, the file keeps its whole
    /// lines, and the others wait for the next try.
    ///
    /// # Errors
    /// [`HostError::File`] if the write fails.
    pub fn flush(&mut self) -> Result<(), HostError> {
        if let Err(err) = self.file.write_all(&self.unwritten) {
            // A line in part stays there if this fails too; readers of the log know that of runs that were killed.
            let _ = self.file.set_len(self.written_bytes);
            return Err(HostError::file("write to", &self.path)(err));
        }
        self.written_bytes += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Waits until everything is on disk, if the file system can do that.
    ///
    /// # Errors
    /// [`HostError::File`] if it cannot be written or synced.
    pub fn sync(&mut self) -> Result<Synced, HostError> {
        self.flush()?;
        sync_contents(&self.file).map_err(HostError::file("sync", &self.path))
    }
}

/// Waits until the log's name is on disk, without which its contents do not count.
fn sync_name(work_dir: &Path) -> Result<(), HostError> {
    sync_folder(work_dir).map(drop).map_err(HostError::file("sync", work_dir))
}
