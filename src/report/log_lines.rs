//! Log lines of Fractal for events.

use std::io;

use crate::event::{Event, EventKind, Reporter, RunStarted, Status};
use crate::model::{CallRef, LogLevel};
use crate::text::escaped;

/// Reporter that passes log lines to a function, once their events are on disk. For programs with a
/// log of their own, which contains the start and the end of the run already: lines about those are
/// left out.
pub struct LogLines<F> {
    lines: LinesOfEvents,
    waiting: Vec<(&'static str, String)>,
    log: F,
}

impl<F: FnMut(&str, &str) -> io::Result<()> + Send> LogLines<F> {
    /// * `log`: called with the level (`DEBUG`, `INFO`, `WARNING` or `ERROR`, as in Python) and the
    ///   text of each line, without its line feed and safe to show.
    pub fn new(log: F) -> Self {
        Self {
            lines: LinesOfEvents::new(String::new()),
            waiting: Vec::new(),
            log,
        }
    }
}

impl<F: FnMut(&str, &str) -> io::Result<()> + Send> Reporter for LogLines<F> {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        let lines = self.lines.of(&event.kind);
        let is_edge = matches!(
            event.kind,
            EventKind::RunStarted(_) | EventKind::RunResumed(_) | EventKind::RunFinished { .. }
        );
        if !is_edge {
            self.waiting.extend(lines);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting
            .drain(..)
            .try_for_each(|(level, text)| (self.log)(level, &text))
    }
}

/// Turns events into log lines.
pub(super) struct LinesOfEvents {
    workflow: String,
    /// Name of an item of a task for users.
    item_kind: String,
    /// Path of the log for users.
    path: String,
}

impl LinesOfEvents {
    /// * `path`: path of the log, safe to show.
    pub(super) fn new(path: String) -> Self {
        Self {
            workflow: String::new(),
            item_kind: String::new(),
            path,
        }
    }

    /// Returns the lines for an event: level, and text that is safe to show.
    pub(super) fn of(&mut self, kind: &EventKind) -> Vec<(&'static str, String)> {
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
            EventKind::JobsCounted {
                task,
                n_queued,
                n_running,
                n_ended,
                reason,
            } => {
                let reason = reason.as_ref().map(|reason| format!(" ({reason})"));
                debug(format!(
                    "{task}-th task: jobs: {n_queued} queued{}, {n_running} running, {n_ended} ended",
                    escaped(&reason.unwrap_or_default())
                ))
            }
            EventKind::JobEnded {
                task,
                job,
                node,
                state,
                n_calls,
                queued_s,
                ran_s,
            } => {
                let time = |time: &Option<f64>| {
                    time.map_or("unknown".to_owned(), |time| format!("{time:.1} s"))
                };
                debug(format!(
                    "{task}-th task: job {} on node {} with {n_calls} calls: {}; queue time {}, run \
                     time {}",
                    escaped(job),
                    escaped(node),
                    escaped(state),
                    time(queued_s),
                    time(ran_s)
                ))
            }
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

/// Returns the name of a level in Python's logging, which has no level below DEBUG.
fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace | LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARNING",
        LogLevel::Error => "ERROR",
    }
}
