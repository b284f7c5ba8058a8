//! `workflow.log`, in Fractal's format.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::log_lines::LinesOfEvents;
use crate::event::{Event, Reporter};
use crate::folder::FILE_FLAGS;
use crate::model::HostError;
use crate::text::escaped;
use crate::workdir::layout::LOG_FILE;

/// Reporter that writes `workflow.log`: `%Y-%m-%d %H:%M:%S,mmm - NAME - LEVEL - message`, with
/// times in UTC.
///
/// Source: conformance rules 46, 47 and 93.
pub struct LogFile {
    file: File,
    logger_name: String,
    lines: LinesOfEvents,
    /// Lines that are not in the file yet.
    text: String,
}

impl LogFile {
    /// Name of the log in the work directory.
    pub const NAME: &str = LOG_FILE;

    /// Creates the log of a new run.
    ///
    /// # Errors
    /// [`HostError::File`], also if the log already exists.
    pub fn create(work_dir: &Path, logger_name: &str) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        let file = File::create_new(&path).map_err(HostError::file("create", &path))?;
        Ok(Self::new(file, logger_name, &path))
    }

    /// Opens the log of a run that is resumed, or creates it if it does not exist.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub fn reopen(work_dir: &Path, logger_name: &str) -> Result<Self, HostError> {
        let path = work_dir.join(Self::NAME);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .create(true)
            .custom_flags(FILE_FLAGS.bits() as i32);
        let file = options.open(&path);
        let file = file.and_then(|mut file| {
            end_line(&mut file)?;
            Ok(file)
        });
        Ok(Self::new(
            file.map_err(HostError::file("open", &path))?,
            logger_name,
            &path,
        ))
    }

    fn new(file: File, logger_name: &str, path: &Path) -> Self {
        let path = escaped(&path.to_string_lossy());
        Self {
            file,
            logger_name: escaped(logger_name),
            lines: LinesOfEvents::new(path),
            text: String::new(),
        }
    }
}

/// Completes a line that a killed run has left incomplete.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        Ok(())
    } else {
        file.write_all(b"\n")
    }
}

impl Reporter for LogFile {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        let lines = self.lines.of(&event.kind);
        // Most events have no line, and formatting a time costs more than this check.
        if lines.is_empty() {
            return Ok(());
        }
        let time = event.time.strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
        for (level, message) in lines {
            self.text.push_str(&format!(
                "{time} - {} - {level} - {message}\n",
                self.logger_name
            ));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}
