//! `workflow.log`, in Fractal's format.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::event::{Event, EventKind, Reporter, RunStarted, Status};
use crate::folder::FILE_FLAGS;
use crate::model::{CallRef, HostError, LogLevel};
use crate::text::{bytes_text, escaped};
use crate::workdir::layout::LOG_FILE;

/// Reporter that writes `workflow.log`: `%Y-%m-%d %H:%M:%S,mmm - NAME - LEVEL - message`, with
/// times in UTC.
///
/// Source: conformance rules 46, 47 and 93.
pub struct LogFile {
    file: File,
    logger_name: String,
    workflow: String,
    /// Name of an item of a task for users.
    item_kind: String,
    path: String,
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
            workflow: String::new(),
            item_kind: String::new(),
            path,
            text: String::new(),
        }
    }

    fn lines(&mut self, kind: &EventKind) -> Vec<(&'static str, String)> {
        let debug = |text: String| vec![("DEBUG", text)];
        let workflow = &self.workflow;
        match kind {
            EventKind::RunStarted(run) => {
                self.workflow = escaped(&run.workflow);
                self.item_kind = run.item_kind.to_string();
                self.start_lines(run)
            }
            EventKind::RunResumed(run) => {
                self.workflow = escaped(&run.workflow);
                self.item_kind = run.item_kind.to_string();
                let mut lines = self.start_lines(run);
                lines[0].1 = format!(
                    "Resume execution of workflow \"{}\"; more logs at {}",
                    self.workflow, self.path
                );
                lines
            }
            EventKind::Warning { message } => vec![("WARNING", escaped(message))],
            EventKind::Note { message } | EventKind::Rerun { message } => {
                vec![("INFO", escaped(message))]
            }
            EventKind::SnapshotStarted { task, module } => debug(format!(
                "START  {} once, for a snapshot for the {task}-th task",
                escaped(module)
            )),
            EventKind::SnapshotMade {
                init_time_s,
                memory_bytes,
                ..
            } => debug(format!(
                "       made the snapshot in {init_time_s:.3} s, with {} of memory",
                bytes_text(*memory_bytes)
            )),
            EventKind::TaskStarted {
                task,
                batch: 0,
                name,
                ..
            } => debug(format!(
                "SUBMIT {task}-th task (name=\"{}\")",
                escaped(name)
            )),
            EventKind::TaskFinished {
                task,
                name,
                status: Status::Done,
                ..
            } => debug(format!(
                "END    {task}-th task (name=\"{}\")",
                escaped(name)
            )),
            EventKind::CallFinished {
                call,
                outcome,
                retry_in_s,
                ..
            } if outcome.failure_kind().is_some() => {
                let text = format!("{}{}", self.item(call, " "), outcome.describe());
                match retry_in_s {
                    None => vec![("ERROR", escaped(&text))],
                    Some(seconds) => {
                        vec![("WARNING", escaped(&format!("{text}; retry in {seconds} s")))]
                    }
                }
            }
            EventKind::CallLogged {
                call,
                level,
                message,
            } => {
                let text = format!("{}{message}", self.item(call, ": "));
                vec![(level_name(*level), escaped(&text))]
            }
            EventKind::DatasetUpdated { message, .. } => vec![("WARNING", escaped(message))],
            EventKind::ItemsChanged { task, changes } => debug(format!(
                "{task}-th task: {}",
                changes.describe(&self.item_kind)
            )),
            EventKind::RunFinished {
                status: Status::Done,
                ..
            } => vec![
                (
                    "INFO",
                    format!(
                        "End execution of workflow \"{workflow}\"; more logs at {}",
                        self.path
                    ),
                ),
                ("DEBUG", format!("END workflow \"{workflow}\"")),
            ],
            EventKind::RunFinished {
                status: Status::Failed,
                error,
            } => {
                let error = escaped(error.as_deref().unwrap_or("unknown error"));
                vec![
                    ("DEBUG", format!("FAILED workflow \"{workflow}\", {error}.")),
                    ("INFO", format!("Workflow \"{workflow}\" failed ({error}).")),
                ]
            }
            EventKind::TaskStarted { .. }
            | EventKind::TaskFinished { .. }
            | EventKind::CallStarted { .. }
            | EventKind::CallReused { .. }
            | EventKind::CallProgress { .. }
            | EventKind::CallFinished { .. } => Vec::new(),
        }
    }

    /// Returns the item of a call, as the start of a line about the call.
    fn item(&self, call: &CallRef, separator: &str) -> String {
        match &call.item {
            None => String::new(),
            Some(item) => format!("{} {item}{separator}", self.item_kind),
        }
    }

    fn start_lines(&self, run: &RunStarted) -> Vec<(&'static str, String)> {
        let quoted = |items: Vec<String>| {
            let items: Vec<_> = items
                .iter()
                .map(|item| format!("'{}'", escaped(item)))
                .collect();
            format!("[{}]", items.join(", "))
        };
        let paths = run
            .input_paths
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let index =
            |index: Option<usize>| index.map_or("None".to_owned(), |index| index.to_string());
        let work_dir = escaped(&run.work_dir.to_string_lossy());
        let start = format!(
            "Start execution of workflow \"{}\"; more logs at {}",
            self.workflow, self.path
        );
        let facts = [
            format!("mandelbox.__VERSION__: {}", escaped(&run.mandelbox_version)),
            format!("FRACTAL_RUNNER_BACKEND: {}", escaped(&run.backend)),
            format!(
                "input metadata keys: {}",
                quoted(run.input_metadata_keys.clone())
            ),
            format!("input_paths: {}", quoted(paths)),
            format!(
                "output_path: {}",
                escaped(&run.output_path.to_string_lossy())
            ),
            format!("job.working_dir: {work_dir}"),
            format!("job.first_task_index: {}", index(run.first_task_index)),
            format!("job.last_task_index: {}", index(run.last_task_index)),
            format!("START workflow \"{}\"", self.workflow),
        ];
        let mut lines = vec![("INFO", start)];
        lines.extend(facts.map(|fact| ("DEBUG", fact)));
        lines
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

/// Returns the name of a level in Python's logging, which has no level below DEBUG.
fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace | LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARNING",
        LogLevel::Error => "ERROR",
    }
}

impl Reporter for LogFile {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        let lines = self.lines(&event.kind);
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
