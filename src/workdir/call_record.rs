//! The four files of one call, out of reach of its guest.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scratch::{Scratch, TakenFile};
use crate::model::{CallFiles, HostError, TaskFiles};

/// Output of a call.
#[derive(Clone, Copy, Debug)]
pub enum CallOutput<'a> {
    /// Output in memory.
    Returned(&'a [u8]),
    /// File in the scratch folder, which is moved to the records.
    Left(&'a Scratch, &'a TakenFile),
}

/// Writers for the stdout and stderr of a guest; `None`: the output is dropped.
pub enum CallWriters {
    /// One writer for each.
    Separate([OptionalWriter; 2]),
    /// One writer for both, which keeps the order of writing.
    Shared(OptionalWriter),
}

/// Writer for an output stream; `None`: the output is dropped.
type OptionalWriter = Option<Box<dyn Write + Send>>;

/// Files of a call while it runs.
pub struct CallRecord<'a> {
    files: &'a CallFiles,
    which: TaskFiles,
    args: &'a [u8],
    kept: [Memory; 2],
}

impl<'a> CallRecord<'a> {
    /// Writes the files that are known before the guest runs.
    ///
    /// * `replaces`: true if files of an earlier attempt may exist, which are then removed.
    ///
    /// # Errors
    /// [`HostError::File`], also if a file exists that is not replaced.
    pub fn begin(
        files: &'a CallFiles,
        which: TaskFiles,
        args: &'a [u8],
        replaces: bool,
    ) -> Result<Self, HostError> {
        if replaces {
            for path in [files.args(), files.output(), files.out(), files.err()] {
                remove(&path)?;
            }
        }
        if which == TaskFiles::All {
            write_new(&files.args(), args)?;
        }
        Ok(Self {
            files,
            which,
            args,
            kept: Default::default(),
        })
    }

    /// Returns the writers for the stdout and stderr of the guest.
    ///
    /// # Errors
    /// [`HostError::File`] if a file cannot be created.
    pub fn writers(&self) -> Result<CallWriters, HostError> {
        let writer = |path: PathBuf, memory: &Memory| -> Result<OptionalWriter, HostError> {
            Ok(match self.which {
                TaskFiles::All => Some(Box::new(
                    File::create_new(&path).map_err(HostError::file("create", &path))?,
                )),
                TaskFiles::Failed => Some(Box::new(memory.clone())),
                TaskFiles::None => None,
            })
        };
        let stderr = |memory| writer(self.files.err(), memory);
        if self.files.has_one_log() {
            return Ok(CallWriters::Shared(stderr(&self.kept[0])?));
        }
        let stdout = writer(self.files.out(), &self.kept[0])?;
        Ok(CallWriters::Separate([stdout, stderr(&self.kept[1])?]))
    }

    /// Writes the files that are known after the guest has ended.
    ///
    /// * `output`: output of the guest, whether or not it is used.
    ///
    /// # Errors
    /// [`HostError::File`] if a file cannot be written.
    pub fn finish(self, failed: bool, output: Option<CallOutput<'_>>) -> Result<(), HostError> {
        if self.which == TaskFiles::Failed && failed {
            write_new(&self.files.args(), self.args)?;
            write_new(&self.files.out(), &self.kept[0].lock())?;
            if !self.files.has_one_log() {
                write_new(&self.files.err(), &self.kept[1].lock())?;
            }
        }
        match output {
            Some(output)
                if self.which == TaskFiles::All || (self.which == TaskFiles::Failed && failed) =>
            {
                let path = self.files.output();
                let bytes = match output {
                    CallOutput::Returned(bytes) => bytes,
                    CallOutput::Left(scratch, taken) => {
                        // Moving the file is cheaper than writing it again, and leaves one file
                        // less to remove.
                        let moved = scratch.move_taken(taken, &path);
                        if moved.map_err(HostError::file("move the output to", &path))? {
                            return Ok(());
                        }
                        &taken.bytes
                    }
                };
                write_new(&path, bytes)
            }
            _ => Ok(()),
        }
    }
}

fn remove(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(HostError::file("remove", path)(err))
        }
        _ => Ok(()),
    }
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(HostError::file("write", path))
}

/// Writer into memory that its clones share.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
