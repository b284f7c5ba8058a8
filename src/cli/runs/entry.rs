//! One run of a list: its state, from its log and its lock.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::FoundFolder;
use crate::event::{Event, EventKind, EventLog, RunSummary, Status, TaskSummary, visit_events};
use crate::run::folders::real_path;
use crate::text::{escaped, unreadable};
use crate::workdir::{Contents, WorkDir, WorkDirId, contents_of};

/// Maximum number of input and output folders of a run that are compared with work directories.
const MAX_DATA_FOLDERS: usize = 1000;

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    /// A process holds the lock.
    Running,
    Finished,
    Failed,
    /// It was stopped by a signal or killed.
    Stopped,
    /// The folder or its log cannot be read.
    Unreadable,
    /// Its removal was interrupted.
    PartlyRemoved,
}

impl RunState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Unreadable => "unreadable",
            Self::PartlyRemoved => "partly_removed",
        }
    }
}

/// A run of a list.
#[derive(Debug)]
pub(super) struct RunEntry {
    /// Path of its work directory.
    pub(super) path: PathBuf,
    pub(super) state: RunState,
    /// Kind of the error of a failed run, or what stopped the run: `cancelled` or `killed`.
    pub(super) error: Option<String>,
    /// Reason why the run cannot be read, or the part of its log that is damaged.
    pub(super) damage: Option<String>,
    /// Contents of its log; `None` if that cannot be read.
    pub(super) facts: Option<Facts>,
    pub(super) contents: Contents,
    /// Identity of the folder, if it could be read.
    pub(super) id: Option<WorkDirId>,
    /// Input and output folders of the run, without links.
    data_folders: BTreeSet<PathBuf>,
}

/// Facts of a run, from its log.
#[derive(Debug)]
pub(super) struct Facts {
    /// Name of the workflow.
    pub(super) workflow: String,
    pub(super) started: Timestamp,
    pub(super) last_event: Timestamp,
    /// Calls of the tasks that have started.
    pub(super) n_calls: usize,
    pub(super) n_done: usize,
    pub(super) n_failed: usize,
}

impl RunEntry {
    /// Reads a run. An error becomes part of the entry.
    pub(super) fn read(found: &FoundFolder) -> Self {
        match found {
            FoundFolder::Run(path) => Self::read_run(path),
            FoundFolder::PartlyRemoved(path) => {
                let mut entry = Self::new(path, RunState::PartlyRemoved);
                entry.read_contents();
                // The rest of a run is removed whatever it consists of.
                entry.contents.obstacle = None;
                entry
            }
            FoundFolder::Unreadable(path, err) => {
                let mut entry = Self::new(path, RunState::Unreadable);
                entry.damage = Some(unreadable(err));
                entry
            }
        }
    }

    fn new(path: &Path, state: RunState) -> Self {
        Self {
            path: path.to_owned(),
            state,
            error: None,
            damage: None,
            facts: None,
            contents: Contents::default(),
            id: None,
            data_folders: BTreeSet::new(),
        }
    }

    fn read_run(path: &Path) -> Self {
        let mut entry = Self::new(path, RunState::Unreadable);
        // Read this first: a log that grows from now on is another one for its removal.
        entry.id = WorkDirId::read(path).ok();
        let is_held = WorkDir::holder(path).is_some();
        let mut summary = RunSummary::default();
        let read = visit_events(&path.join(EventLog::NAME), |event| {
            entry.add_data_folders(&event);
            summary.add(&event);
        });
        let (is_readable, damage) = match read {
            Ok(end) if summary.run.is_some() => (true, end.damage()),
            Ok(end) if end.is_headless => (false, Some("its first line is damaged".to_owned())),
            Ok(_) => (false, Some("contains no event".to_owned())),
            Err(err) => (false, Some(err.to_string())),
        };
        entry.damage = damage.map(|damage| format!("{}: {damage}", EventLog::NAME));
        if is_held {
            entry.state = RunState::Running;
        } else if is_readable {
            (entry.state, entry.error) = end_of(&summary);
        }
        entry.facts = Facts::of(&summary);
        entry.read_contents();
        if entry.data_folders.len() > MAX_DATA_FOLDERS {
            entry.keep("has too many input and output folders to compare".to_owned());
        }
        entry
    }

    fn read_contents(&mut self) {
        match contents_of(&self.path) {
            Ok(contents) => self.contents = contents,
            Err(err) => self.keep(unreadable(&err)),
        }
    }

    /// Adds the folders whose contents are not records of the run, from the start of a session.
    fn add_data_folders(&mut self, event: &Event) {
        let (EventKind::RunStarted(run) | EventKind::RunResumed(run)) = &event.kind else {
            return;
        };
        let inputs = run.inputs.iter().map(|input| &input.path);
        let folders = inputs.chain(&run.input_paths).chain([&run.output_path]);
        for folder in folders {
            if self.data_folders.len() > MAX_DATA_FOLDERS {
                return;
            }
            self.data_folders.insert(real_path(folder));
            // The work directory may have been moved, with what is in it.
            if let Ok(inside) = folder.strip_prefix(&run.work_dir) {
                self.data_folders.insert(real_path(&self.path.join(inside)));
            }
        }
    }

    /// Keeps the folder if all is removed, for this reason.
    fn keep(&mut self, reason: String) {
        self.contents.obstacle.get_or_insert(reason);
    }

    /// Returns the reason why the folder must not be removed; `None` if it can be.
    pub(super) fn obstacle(&self) -> Option<&str> {
        match self.state {
            RunState::Running => Some("a run is in progress"),
            RunState::Unreadable => Some("is not certainly the work directory of a run"),
            _ => self.contents.obstacle.as_deref(),
        }
    }

    /// Time of the start; `None` if it is not known.
    pub(super) fn started(&self) -> Option<Timestamp> {
        self.facts.as_ref().map(|facts| facts.started)
    }
}

impl Facts {
    fn of(summary: &RunSummary) -> Option<Self> {
        let run = summary.run.as_deref()?;
        let sum = |count: fn(&TaskSummary) -> usize| summary.tasks.iter().map(count).sum();
        Some(Self {
            workflow: run.workflow.clone(),
            started: summary.started,
            last_event: summary.last_event,
            n_calls: sum(|task| task.n_calls),
            n_done: sum(TaskSummary::n_done),
            n_failed: sum(|task| task.failed.len()),
        })
    }
}

/// Returns the state of a run that no process holds.
fn end_of(summary: &RunSummary) -> (RunState, Option<String>) {
    match (summary.end, summary.error.as_deref()) {
        (Some(Status::Done), _) => (RunState::Finished, None),
        (Some(Status::Failed), Some("cancelled")) => {
            (RunState::Stopped, Some("cancelled".to_owned()))
        }
        (Some(Status::Failed), error) => {
            let error = error.unwrap_or("unknown error");
            (RunState::Failed, Some(error.to_owned()))
        }
        (None, _) => (RunState::Stopped, Some("killed".to_owned())),
    }
}

/// Keeps work directories that contain an input or the output of any of the runs.
pub(super) fn note_data_inside(entries: &mut [RunEntry]) {
    let data_folders: BTreeSet<PathBuf> = entries
        .iter_mut()
        .flat_map(|entry| std::mem::take(&mut entry.data_folders))
        .collect();
    for entry in entries {
        let real = real_path(&entry.path);
        // What is in a folder follows it in this order.
        let next = data_folders.range(real.clone()..).next();
        if let Some(folder) = next.filter(|folder| folder.starts_with(&real)) {
            let folder = escaped(&folder.to_string_lossy());
            entry.keep(format!("contains the input or output folder {folder}"));
        }
    }
}
