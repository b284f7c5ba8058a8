//! `events.jsonl`: the record of the run, one JSON object per line, append-only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::seal::Seal;
use super::{EndOfLog, Fact};
use crate::folder::{
    FILE_FLAGS, Synced, open_plain_file, sync_contents, sync_folder, unfinished_file,
};
use crate::model::HostError;

/// Maximum size of the lines that wait for a flush, in bytes.
const BUFFER_BYTES: usize = 8 << 10;

/// Writer that appends events to `events.jsonl`.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    /// Size of the file, which consists of complete lines.
    written_bytes: u64,
    /// Lines that are not in the file yet.
    unwritten: Vec<u8>,
    seal: Seal,
}

impl EventLog {
    /// Name of the log in the work directory.
    pub const NAME: &str = "events.jsonl";

    /// Returns the name that a damaged log gets.
    ///
    /// * `number`: from 1; the first one that is free.
    fn damaged_name(number: u32) -> String {
        format!("events.damaged-{number}.jsonl")
    }

    /// Returns true if a name is that of a damaged log.
    #[cfg(feature = "cli")]
    pub(crate) fn is_damaged_name(name: &str) -> bool {
        name.starts_with("events.damaged-") && name.ends_with(".jsonl")
    }

    /// Creates the log of a new run.
    ///
    /// # Errors
    /// [`HostError::File`], also if the log already exists.
    pub fn create(work_dir: &Path) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(HostError::file("create", &path))?;
        sync_name(work_dir)?;
        Ok(Self {
            path,
            file,
            written_bytes: 0,
            unwritten: Vec::new(),
            seal: Seal::default(),
        })
    }

    /// Opens the log of a run that is resumed, or creates it if that run was interrupted before it
    /// had a log. Removes an incomplete last line. If earlier lines are damaged, replaces the log
    /// by one without them, and keeps the damaged log as `events.damaged-1.jsonl` (or the next free
    /// number).
    ///
    /// * `end`: result of reading the log.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn reopen(work_dir: &Path, end: &EndOfLog) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        if end.n_damaged_bytes > 0 || end.is_headless {
            remove_damage(work_dir, &path, end)
                .map_err(HostError::file("remove the damaged lines of", &path))?;
        }
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create(true)
            .custom_flags(FILE_FLAGS.bits() as i32);
        let file = options
            .open(&path)
            .map_err(HostError::file("open", &path))?;
        let written_bytes = end.whole_bytes - end.n_damaged_bytes;
        file.set_len(written_bytes)
            .map_err(HostError::file("remove the incomplete last line of", &path))?;
        sync_name(work_dir)?;
        Ok(Self {
            path,
            file,
            written_bytes,
            unwritten: Vec::new(),
            seal: end.next_seal(),
        })
    }

    /// Number of the session whose events are appended.
    pub(super) fn session(&self) -> u32 {
        self.seal.session
    }

    /// Returns true if so many lines wait that they should be written.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten.len() >= BUFFER_BYTES
    }

    /// Appends one event to the lines that the next [`Self::flush`] or [`Self::sync`] writes.
    /// Returns the event's line.
    ///
    /// * `time`: in the format of [`crate::text::time_text`].
    pub(super) fn append(&mut self, seq: u64, time: &str, fact: &Fact) -> &[u8] {
        let start = self.unwritten.len();
        fact.write_line(seq, time, &mut self.seal, &mut self.unwritten);
        &self.unwritten[start..]
    }

    /// Passes all lines to the operating system. If it does not accept all of them, as on a full
    /// disk, the file keeps its complete lines, and the others wait for the next attempt.
    ///
    /// # Errors
    /// [`HostError::File`] if the write fails.
    pub fn flush(&mut self) -> Result<(), HostError> {
        if let Err(err) = self.file.write_all(&self.unwritten) {
            // If this fails too, part of a line stays in the file. Readers of the log expect that,
            // since a run that is killed can leave one as well.
            let _ = self.file.set_len(self.written_bytes);
            return Err(HostError::file("write to", &self.path)(err));
        }
        self.written_bytes += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Waits until everything is on disk, if the file system supports that.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written or synced.
    pub fn sync(&mut self) -> Result<Synced, HostError> {
        self.flush()?;
        sync_contents(&self.file).map_err(HostError::file("sync", &self.path))
    }
}

/// Replaces a log by its complete lines. Either the old log or the new one exists at any time.
fn remove_damage(work_dir: &Path, path: &Path, end: &EndOfLog) -> io::Result<()> {
    let mut old = open_plain_file(path)?;
    let mut new = unfinished_file(path)?;
    for range in &end.whole_lines {
        old.seek(SeekFrom::Start(range.start))?;
        io::copy(
            &mut (&mut old).take(range.end - range.start),
            new.as_file_mut(),
        )?;
    }
    let _ = sync_contents(new.as_file())?;
    keep_damaged(work_dir, path)?;
    new.persist(path)?;
    Ok(())
}

/// Keeps a damaged log under a second name, so that the user can inspect it. On a file system
/// without hard links it is not kept.
fn keep_damaged(work_dir: &Path, path: &Path) -> io::Result<()> {
    for number in 1_u32.. {
        match fs::hard_link(path, work_dir.join(EventLog::damaged_name(number))) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) if err.kind() == io::ErrorKind::StorageFull => return Err(err),
            _ => break,
        }
    }
    Ok(())
}

/// Waits until the log's name is on disk: without the name, its contents would be lost.
fn sync_name(work_dir: &Path) -> Result<(), HostError> {
    sync_folder(work_dir)
        .map(drop)
        .map_err(HostError::file("sync", work_dir))
}
