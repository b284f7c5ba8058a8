//! What happened in a run, in order: facts only, no wording and no setting of a reader.

mod cursor;
mod fact;
mod line;
mod log;
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
use crate::model::{CallRef, GuestReport, Limits, LogLevel, Outcome, Usage};

pub(crate) use cursor::Lost;
pub use cursor::{EndOfLog, LineError};
pub use fact::Fact;
pub use log::EventLog;
pub(crate) use read::visit_log;
pub use read::{ReadEventsError, StoredEvents, parse_events, read_events, visit_events};
pub use recorder::Recorder;
pub use reporter::Reporter;
pub use seal::seal_lines;

pub use crate::folder::Synced;
pub use summary::{FailedCall, RunSummary, TaskSummary};

/// Version of the event log's format, in its first line.
pub const FORMAT_VERSION: u32 = 3;

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Position in the run, from 0, without gaps.
    pub seq: u64,
    /// When it was recorded, UTC.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first event of a run.
    RunStarted(Box<RunStarted>),
    /// The run is taken up again, however it ended; what was running does not run any more.
    RunResumed(Box<RunStarted>),
    /// Something deserves a word but stops nothing.
    Warning {
        /// The text.
        message: String,
    },
    /// How calls run, where that is worth a line.
    Note {
        /// The text.
        message: String,
    },
    /// A workflow task begins, or the next batch of its calls.
    TaskStarted {
        /// Its order.
        task: u64,
        /// Index of the batch, from 0.
        #[serde(skip_serializing_if = "is_first_batch")]
        batch: u32,
        /// Its name.
        name: String,
        /// Calls that it has: 1 for a single task, one for each item for a parallel one.
        n_calls: usize,
        /// Name of the list of items; `None` for a single call.
        items: Option<String>,
        /// SHA-256 of its module.
        module_sha256: String,
        /// BLAKE3 of all else that its calls share: args, fixed arguments, environment, metadata to
        /// fetch.
        args_digest: String,
        /// Limits of each call, as far as a result can depend on them.
        limits: CallLimits,
        /// Which of the results recorded before count.
        #[serde(skip_serializing_if = "Reused::is_none")]
        reused: Reused,
        /// How many these are.
        #[serde(skip_serializing_if = "is_zero")]
        n_reused: usize,
    },
    /// A call that ended well before is not made again, but has another place in the item list
    /// now. Counts from the task's start on, which follows.
    CallReused {
        /// Which one, where it stands now.
        #[serde(flatten)]
        call: CallRef,
        /// What it adds to the metadata.
        output: Option<Map<String, Value>>,
    },
    /// A call begins.
    CallStarted(CallRef),
    /// A call of a typed task logs a line.
    CallLogged {
        /// Which one.
        #[serde(flatten)]
        call: CallRef,
        /// How much the line matters.
        level: LogLevel,
        /// The line, at most 4 KiB.
        message: String,
    },
    /// A call of a typed task says how far it is.
    CallProgress {
        /// Which one.
        #[serde(flatten)]
        call: CallRef,
        /// In thousandths of the whole, 0 to 1000.
        permille: u16,
        /// What is being done, at most 256 bytes; may be empty.
        message: String,
    },
    /// A call ended.
    CallFinished {
        /// Which one.
        #[serde(flatten)]
        call: CallRef,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// What it used.
        #[serde(flatten)]
        usage: Usage,
        /// Set if it failed and is tried again: after how many seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_in_s: Option<f64>,
        /// The file with its stderr, as a path in the work directory, if it failed and left one.
        #[serde(skip_serializing_if = "Option::is_none")]
        stderr: Option<String>,
    },
    /// A task has changed the dataset.
    DatasetUpdated {
        /// Order of the task.
        task: u64,
        /// What a reader of the log should know.
        message: String,
    },
    /// A workflow task ended.
    TaskFinished {
        /// Its order.
        task: u64,
        /// Its name.
        name: String,
        /// How.
        status: Status,
        /// Calls that did not end well.
        n_failed: usize,
        /// True if the output folder was empty then; `None` if that is not known.
        output_is_empty: Option<bool>,
    },
    /// The last event of a run that was not killed.
    RunFinished {
        /// How.
        status: Status,
        /// `TaskExecutionError`, `JobExecutionError`, `cancelled` or `unknown error`, if it failed.
        error: Option<Cow<'static, str>>,
    },
}

impl EventKind {
    /// What a running call tells.
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
    /// What users call an item of a task: a singular noun.
    #[serde(default = "default_item_kind")]
    pub item_kind: Cow<'static, str>,
    /// Keys of the metadata at the start.
    pub input_metadata_keys: Vec<String>,
    /// First task that runs, from 0.
    pub first_task_index: Option<usize>,
    /// Last task that runs, from 0, inclusive.
    pub last_task_index: Option<usize>,
    /// The tasks that run, in order.
    #[serde(default)]
    pub tasks: Vec<RunTask>,
    /// Which folder the output path names; `None` if that is not known.
    #[serde(default)]
    pub output: Option<FolderId>,
    /// What was in the input folders and the mounts.
    #[serde(default)]
    pub inputs: Vec<InputState>,
}

/// A task of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTask {
    /// Its order.
    pub task: u64,
    /// Its name.
    pub name: String,
}

/// Identity of a folder. Another folder can have the same path later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    /// Number of its device, which can be another one after the file system is mounted again.
    pub device: u64,
    /// Number of its inode, which can be given to another folder once this one is removed.
    pub inode: u64,
    /// When it was created, RFC 3339; `None` if the file system does not say.
    pub created: Option<String>,
}

/// What was in a folder when a run started, as far as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputState {
    /// The folder.
    pub path: PathBuf,
    /// When it was looked at, RFC 3339.
    pub looked: String,
    /// Entries that were looked at, folders included; `None`: it could not be read.
    pub n_entries: Option<u64>,
    /// Latest time of modification of a file, RFC 3339; `None` if there is none.
    pub newest: Option<String>,
    /// BLAKE3 of the paths, kinds, sizes and times of modification of these entries.
    pub digest: String,
    /// False if there are more entries than are looked at.
    pub is_whole: bool,
}

/// What of [`crate::model::Limits`] a result can depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Wall time in seconds; `None`: any.
    pub wall_time_s: Option<f64>,
    /// Bytes kept of stdout and of stderr, each.
    pub output_bytes: u64,
    /// Bytes of a output.
    pub call_output_bytes: u64,
}

impl From<&Limits> for CallLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            wall_time_s: limits.wall_time.map(|time| time.as_secs_f64()),
            output_bytes: limits.output_bytes,
            call_output_bytes: limits.call_output_bytes,
        }
    }
}

/// Which results of a task, recorded before it starts, count when it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reused {
    /// None: the first start, or something that results depend on has changed.
    #[default]
    None,
    /// All of calls that ended well: they stand where they stood.
    All,
    /// Those of [`EventKind::CallReused`] since the last start of a task: the item list has
    /// changed.
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

/// How a task or a run ended, in Fractal's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Well.
    Done,
    /// Not well.
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
