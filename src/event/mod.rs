//! Events of a run, in order: facts only, without wording and without settings of a reader.

#[cfg(feature = "cli")]
mod call_history;
mod cursor;
mod fact;
mod fields;
mod line;
mod log;
mod outcome_fields;
mod read;
mod recorder;
mod reporter;
mod seal;
mod summary;

use std::borrow::Cow;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::json::{Map, Value};
use crate::model::{
    BatchFiles, CallRef, GuestReport, ItemChanges, Limits, LogLevel, Outcome, ScriptRef, Usage,
};

pub(crate) use cursor::Lost;
pub use cursor::{EndOfLog, LineError};
pub use fact::Fact;
pub(crate) use line::parse_fact;
pub use log::EventLog;
#[cfg(feature = "cli")]
pub(crate) use read::first_event;
pub(crate) use read::visit_log;
pub use read::{ReadEventsError, StoredEvents, parse_events, read_events, visit_events};
pub use recorder::Recorder;
pub use reporter::Reporter;
pub use seal::seal_lines;

pub use crate::folder::Synced;
#[cfg(feature = "cli")]
pub use call_history::{AttemptEnd, CallHistory, KnownCall};
pub use summary::{FailedCall, JobSummary, RunSummary, TaskSummary};

/// Format version of the event log, stored in its first line.
pub const FORMAT_VERSION: u32 = 3;

/// A recorded fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Position in the run, from 0, without gaps.
    pub seq: u64,
    /// Time of recording, UTC.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// The fact.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Kind and data of an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first event of a run.
    RunStarted(Box<RunStarted>),
    /// The run is resumed, however it ended; calls that were running do not run any more.
    RunResumed(Box<RunStarted>),
    /// A problem that does not stop the run.
    Warning {
        /// The text.
        message: String,
    },
    /// Information on how calls run.
    Note {
        /// The text.
        message: String,
    },
    /// Calls of a resumed run that had succeeded run again.
    Rerun {
        /// The calls and the reason.
        message: String,
    },
    /// The module of a task is started once, without a call's data, for a snapshot from which the
    /// calls start.
    SnapshotStarted {
        /// Order of the task.
        task: u64,
        /// Name of the module's file.
        module: String,
    },
    /// The snapshot was created.
    SnapshotMade {
        /// Order of the task.
        task: u64,
        /// Seconds that it took.
        init_time_s: f64,
        /// Size of its memory, which each call has from its start.
        memory_bytes: u64,
    },
    /// A workflow task starts, or the next batch of its calls.
    TaskStarted {
        /// Order of the task.
        task: u64,
        /// Index of the batch, from 0.
        #[serde(skip_serializing_if = "is_first_batch")]
        batch: u32,
        /// Name of the task.
        name: String,
        /// Number of calls: 1 for a single task, one for each item for a parallel task.
        n_calls: usize,
        /// Name of the list of items; `None` for a single call.
        items: Option<String>,
        /// SHA-256 of the module.
        module_sha256: String,
        /// Script that the module interprets; `None`: the module is the task.
        #[serde(skip_serializing_if = "Option::is_none")]
        script: Option<Box<ScriptRef>>,
        /// BLAKE3 digest of everything else that the calls share: args, fixed arguments,
        /// environment, metadata to fetch.
        args_digest: String,
        /// Limits of each call, as far as a result can depend on them.
        limits: CallLimits,
        /// Selection of the earlier results that are reused.
        #[serde(skip_serializing_if = "Reused::is_none")]
        reused: Reused,
        /// Number of results that are reused.
        #[serde(skip_serializing_if = "is_zero")]
        n_reused: usize,
        /// Version 2 of Fractal: number of images that passed the type filters.
        #[serde(rename = "n_available_images", skip_serializing_if = "Option::is_none")]
        n_available: Option<usize>,
        /// Form of the files of its calls; `None` if the task has no calls.
        #[serde(skip_serializing_if = "Option::is_none")]
        files: Option<Box<BatchFiles>>,
    },
    /// A call that succeeded earlier is not rerun, but has another index in the list of items now.
    /// Applies to the next [`Self::TaskStarted`].
    CallReused {
        /// The call, with its new index.
        #[serde(flatten)]
        call: CallRef,
        /// Output of the call.
        output: Option<Map<String, Value>>,
    },
    /// A call starts.
    CallStarted {
        /// The call.
        #[serde(flatten)]
        call: CallRef,
        /// Common start of the names of its files in the task's subfolder; `None` if no files are
        /// kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        files: Option<String>,
    },
    /// A call of a typed task logs a line.
    CallLogged {
        /// The call.
        #[serde(flatten)]
        call: CallRef,
        /// Severity of the line.
        level: LogLevel,
        /// The line, at most 4 KiB.
        message: String,
    },
    /// A call of a typed task reports its progress.
    CallProgress {
        /// The call.
        #[serde(flatten)]
        call: CallRef,
        /// Progress in thousandths, 0 to 1000.
        permille: u16,
        /// Current step, at most 256 bytes; may be empty.
        message: String,
    },
    /// A call ended.
    CallFinished {
        /// The call.
        #[serde(flatten)]
        call: CallRef,
        /// Outcome of the call.
        #[serde(flatten)]
        outcome: Outcome,
        /// Resource usage of the call.
        #[serde(flatten)]
        usage: Usage,
        /// Seconds until the call is retried; `None` if it is not retried.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_s: Option<f64>,
        /// Path of the file with its stderr, relative to the work directory, if the call failed and
        /// left one.
        #[serde(skip_serializing_if = "Option::is_none")]
        stderr: Option<String>,
        /// Version 2 of Fractal: the images that the call is for.
        #[serde(rename = "zarr_urls", skip_serializing_if = "Option::is_none")]
        item_urls: Option<Vec<String>>,
    },
    /// The jobs of a cluster that run the calls of a batch have changed their states.
    JobsCounted {
        /// Order of the task.
        task: u64,
        /// Number of jobs that wait in the queue of the cluster, or are not submitted yet.
        n_queued: usize,
        /// Number of jobs that run.
        n_running: usize,
        /// Number of jobs that have ended.
        n_ended: usize,
        /// Reason why jobs wait, as the cluster names it, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A job of a cluster ended.
    JobEnded {
        /// Order of the task.
        task: u64,
        /// Identifier of the job.
        job: String,
        /// Node that the job ran on; empty if it is not known.
        node: String,
        /// State of the job, as the cluster names it; `COMPLETED` also if only its results show it.
        state: String,
        /// Number of its calls.
        n_calls: usize,
        /// Seconds from its submission to its start.
        #[serde(skip_serializing_if = "Option::is_none")]
        queued_s: Option<f64>,
        /// Seconds from its start to its end.
        #[serde(skip_serializing_if = "Option::is_none")]
        ran_s: Option<f64>,
    },
    /// A task changed the dataset.
    DatasetUpdated {
        /// Order of the task.
        task: u64,
        /// Text for readers of the log.
        message: String,
    },
    /// A task ended that may have changed the list of items of the dataset.
    ItemsChanged {
        /// Order of the task.
        task: u64,
        /// Changes of the list.
        #[serde(flatten)]
        changes: ItemChanges,
    },
    /// A workflow task ended.
    TaskFinished {
        /// Order of the task.
        task: u64,
        /// Name of the task.
        name: String,
        /// Status of the task.
        status: Status,
        /// Number of calls that did not succeed.
        n_failed: usize,
        /// True if the output folder was empty at that time; `None` if that is not known.
        output_is_empty: Option<bool>,
    },
    /// The last event of a run that was not killed.
    RunFinished {
        /// Status of the run.
        status: Status,
        /// Name of the error, if the run failed: `TaskExecutionError`, `JobExecutionError`,
        /// `cancelled` or `unknown error`.
        error: Option<Cow<'static, str>>,
    },
}

impl EventKind {
    /// Converts a report of a running call to an event.
    pub fn of_report(call: CallRef, report: GuestReport) -> Self {
        match report {
            GuestReport::Log { level, message } => Self::CallLogged {
                call,
                level,
                message,
            },
            GuestReport::Progress { permille, message } => Self::CallProgress {
                call,
                permille,
                message,
            },
        }
    }
}

/// Facts about a run that are known at its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Version of mandelbox.
    pub mandelbox_version: Cow<'static, str>,
    /// Name of the backend.
    pub backend: Cow<'static, str>,
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the run in log lines.
    pub logger_name: String,
    /// The work directory.
    pub work_dir: PathBuf,
    /// Input paths of the first task.
    pub input_paths: Vec<PathBuf>,
    /// Output path of every task.
    pub output_path: PathBuf,
    /// Name of an item for users: a singular noun.
    #[serde(default = "default_item_kind")]
    pub item_kind: Cow<'static, str>,
    /// Globs of the items of a trial run; empty if all items run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Keys of the metadata at the start.
    pub input_metadata_keys: Vec<String>,
    /// Index of the first task that runs, from 0.
    pub first_task_index: Option<usize>,
    /// Index of the last task that runs, from 0, inclusive.
    pub last_task_index: Option<usize>,
    /// The tasks that run, in order.
    #[serde(default)]
    pub tasks: Vec<RunTask>,
    /// Identity of the output folder; `None` if it is not known.
    #[serde(default)]
    pub output: Option<FolderId>,
    /// State of the input folders and the mounts.
    #[serde(default)]
    pub inputs: Vec<InputState>,
}

/// A task of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTask {
    /// Order of the task.
    pub task: u64,
    /// Name of the task.
    pub name: String,
    /// The workflow task with its args; `None` if the records of the dataset have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_task: Option<Map<String, Value>>,
}

/// Identity of a folder. Another folder can have the same path later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    /// Device number, which can change when the file system is mounted again.
    pub device: u64,
    /// Inode number, which can be given to another folder once this one is removed.
    pub inode: u64,
    /// Time of creation, RFC 3339; `None` if the file system does not record it.
    pub created: Option<String>,
}

/// Contents of a folder when a run started, as far as they were scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputState {
    /// Path of the folder.
    pub path: PathBuf,
    /// Time of the scan, RFC 3339.
    pub scanned: String,
    /// Number of scanned entries, including folders; `None`: the folder could not be read.
    pub n_entries: Option<u64>,
    /// Latest time of modification of a file, RFC 3339; `None` if the folder has no file.
    pub newest: Option<String>,
    /// BLAKE3 digest of the paths, kinds, sizes and times of modification of these entries.
    pub digest: String,
    /// False if the folder has more entries than are scanned.
    pub is_whole: bool,
}

/// The part of [`crate::model::Limits`] that a result can depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Wall time in seconds; `None`: unlimited.
    pub wall_time_s: Option<f64>,
    /// Bytes kept of stdout and of stderr, each.
    pub output_bytes: u64,
    /// Bytes of an output.
    pub call_output_bytes: u64,
}

impl From<&Limits> for CallLimits {
    fn from(limits: &Limits) -> Self {
        // All fields: can a result depend on a new one?
        let Limits {
            memory_bytes,
            wall_time,
            output_bytes,
            call_output_bytes,
            open_files: _,
            module_bytes: _,
        } = *limits;
        Self {
            memory_bytes,
            wall_time_s: wall_time.map(|time| time.as_secs_f64()),
            output_bytes,
            call_output_bytes,
        }
    }
}

/// Selection of the results of a task, recorded before it starts, that are reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reused {
    /// None: this is the first start, or something that results depend on has changed.
    #[default]
    None,
    /// All results of calls that succeeded; the calls have kept their indices.
    All,
    /// The results in the [`EventKind::CallReused`] events since the last start of a task: the list
    /// of items has changed.
    Listed,
}

fn default_item_kind() -> Cow<'static, str> {
    "item".into()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_first_batch(batch: &u32) -> bool {
    *batch == 0
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Reused {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Status of a task or a run, in Fractal's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
}

mod rfc3339 {
    use jiff::Timestamp;
    use serde::Serializer;

    pub(super) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::text::time_text(*time))
    }
}
