//! The files of one call, out of reach of its guest: args, output, stdout and stderr.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::packed::PackedCall;
use super::scratch::{Scratch, TakenFile};
use crate::model::{CallFiles, HostError};

/// Output of a call.
#[derive(Clone, Copy, Debug)]
pub enum CallOutput<'a> {
    /// Output in memory.
    Returned(&'a [u8]),
    /// File in the scratch folder, which is moved to the records.
    Left(&'a Scratch, &'a TakenFile),
}

impl<'a> CallOutput<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Returned(bytes) => bytes,
            Self::Left(_, taken) => &taken.bytes,
        }
    }
}

/// Form of the files that a call leaves.
#[derive(Debug)]
pub enum RecordForm {
    /// A file for each part.
    All,
    /// As [`Self::All`], if the call fails.
    Failed,
    /// A record in the file of its task, and as [`Self::Failed`].
    Packed(PackedCall),
    /// Nothing.
    None,
}

/// Writers for the stdout and stderr of a guest.
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
    form: RecordForm,
    args: &'a [u8],
    /// Stdout and stderr of a call whose files depend on its outcome.
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
        form: RecordForm,
        args: &'a [u8],
        replaces: bool,
    ) -> Result<Self, HostError> {
        if replaces {
            for path in [files.args(), files.output(), files.out(), files.err()] {
                remove(&path)?;
            }
        }
        if matches!(form, RecordForm::All) {
            write_new(&files.args(), args)?;
        }
        Ok(Self {
            files,
            form,
            args,
            kept: Default::default(),
        })
    }

    /// Returns the writers for the stdout and stderr of the guest.
    ///
    /// # Errors
    /// [`HostError::File`] if a file cannot be created.
    pub fn writers(&self) -> Result<CallWriters, HostError> {
        let stdout = self.writer(0)?;
        if self.files.has_one_log() {
            return Ok(CallWriters::Shared(stdout));
        }
        Ok(CallWriters::Separate([stdout, self.writer(1)?]))
    }

    /// Returns the writer for stdout (0) or stderr (1).
    fn writer(&self, stream: usize) -> Result<OptionalWriter, HostError> {
        Ok(match &self.form {
            RecordForm::All => {
                let path = [self.files.out(), self.files.err()][stream].clone();
                let file = File::create_new(&path).map_err(HostError::file("create", &path))?;
                Some(Box::new(file))
            }
            RecordForm::Failed => Some(Box::new(self.kept[stream].clone())),
            RecordForm::Packed(packed) => Some(packed.writer(stream)),
            RecordForm::None => None,
        })
    }

    /// Writes the files that are known after the guest has ended.
    ///
    /// * `output`: output of the guest, whether or not it is used.
    ///
    /// # Errors
    /// [`HostError::File`] if a file cannot be written.
    pub fn finish(self, failed: bool, output: Option<CallOutput<'_>>) -> Result<(), HostError> {
        if let RecordForm::Packed(packed) = &self.form {
            let bytes = output.map(CallOutput::bytes);
            let has_one_log = self.files.has_one_log();
            packed.finish(&self.files.stem, has_one_log, self.args, bytes)?;
        }
        let is_written = match self.form {
            RecordForm::All => true,
            RecordForm::Failed | RecordForm::Packed(_) => {
                if failed {
                    self.write_kept()?;
                }
                failed
            }
            RecordForm::None => false,
        };
        match output {
            Some(output) if is_written => self.write_output(output),
            _ => Ok(()),
        }
    }

    /// Writes the args and the streams of a call that has failed.
    fn write_kept(&self) -> Result<(), HostError> {
        write_new(&self.files.args(), self.args)?;
        let n_streams = if self.files.has_one_log() { 1 } else { 2 };
        let paths = [self.files.out(), self.files.err()];
        for (stream, path) in paths.iter().enumerate().take(n_streams) {
            match &self.form {
                RecordForm::Packed(packed) => packed.write_stream(stream, path)?,
                _ => write_new(path, &self.kept[stream].lock())?,
            }
        }
        Ok(())
    }

    fn write_output(&self, output: CallOutput<'_>) -> Result<(), HostError> {
        let path = self.files.output();
        if let CallOutput::Left(scratch, taken) = output {
            // Moving the file is cheaper than writing it again, and leaves one file less to remove.
            let moved = scratch.move_taken(taken, &path);
            if moved.map_err(HostError::file("move the output to", &path))? {
                return Ok(());
            }
        }
        write_new(&path, output.bytes())
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
#[derive(Clone, Debug, Default)]
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
