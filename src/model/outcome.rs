//! All that can happen to a call, as one enum, and what a failed call tells its reader.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::json::{Map, Value};
use crate::text::{bytes_text, escaped};

/// How one call ended. The cause is recorded where it is known, never guessed afterwards.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Exit code 0 and a output that is an object, or none.
    Succeeded {
        /// What the call adds to the metadata; `None` if it gave none or `null`.
        output: Option<Map<String, Value>>,
    },
    /// The guest ended itself with an exit code other than 0.
    Exited {
        /// The code, as the guest gave it.
        code: i32,
    },
    /// A typed task returned an error.
    Failed {
        /// What the task says, at most 4 KiB.
        message: String,
    },
    /// The guest hit a trap: `unreachable`, a bad memory access, a stack overflow.
    Trapped {
        /// What the runtime says, with the guest's function names where known.
        message: String,
    },
    /// The wall-time limit ended the guest.
    TimedOut {
        /// The limit, in seconds.
        limit_s: f64,
    },
    /// The memory budget ended the guest.
    MemoryExceeded {
        /// The budget over all memories and tables, in bytes.
        limit_bytes: u64,
        /// What the guest would have had, in bytes.
        asked_bytes: u64,
    },
    /// Exit code 0, but the output is not a JSON object or cannot be taken.
    BadOutput {
        /// What is wrong with it, and where.
        message: String,
    },
    /// There is no room for its output beside those of the calls before.
    OutputsExceeded {
        /// What all outputs of a run may have together, in bytes.
        limit_bytes: u64,
        /// What they would have had, in bytes.
        asked_bytes: u64,
    },
    /// The call was not started: its module cannot be run.
    Refused {
        /// Why.
        message: String,
    },
    /// The run was cancelled while the guest ran.
    Cancelled,
    /// The host could not do its part for this call: a full disk, no file descriptor left.
    HostFailed {
        /// What failed.
        message: String,
    },
    /// The process that the call ran in died.
    Lost {
        /// What is known of why.
        message: String,
    },
    /// The host has a bug; the panic was caught and other calls go on.
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// Which of Fractal's two errors a failed call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task failed by itself.
    TaskExecution,
    /// The sandbox ended it, or the host failed.
    JobExecution,
}

impl Outcome {
    /// Its name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Exited { .. } => "exited",
            Self::Failed { .. } => "failed",
            Self::Trapped { .. } => "trapped",
            Self::TimedOut { .. } => "timed_out",
            Self::MemoryExceeded { .. } => "memory_exceeded",
            Self::BadOutput { .. } => "bad_output",
            Self::OutputsExceeded { .. } => "outputs_exceeded",
            Self::Refused { .. } => "refused",
            Self::Cancelled => "cancelled",
            Self::HostFailed { .. } => "host_failed",
            Self::Lost { .. } => "lost",
            Self::Panicked { .. } => "panicked",
        }
    }

    /// The kind of failure; `None` for a call that succeeded.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        match self {
            Self::Succeeded { .. } => None,
            Self::Exited { .. } | Self::Failed { .. } | Self::BadOutput { .. } => {
                Some(FailureKind::TaskExecution)
            }
            Self::Trapped { .. }
            | Self::TimedOut { .. }
            | Self::MemoryExceeded { .. }
            | Self::OutputsExceeded { .. }
            | Self::Refused { .. }
            | Self::Cancelled
            | Self::HostFailed { .. }
            | Self::Lost { .. }
            | Self::Panicked { .. } => Some(FailureKind::JobExecution),
        }
    }

    /// Cuts its message, if it has one.
    pub(crate) fn shorten(&mut self, max_chars: usize) {
        match self {
            Self::Failed { message }
            | Self::Trapped { message }
            | Self::BadOutput { message }
            | Self::Refused { message }
            | Self::HostFailed { message }
            | Self::Lost { message }
            | Self::Panicked { message } => {
                if let Some((end, _)) = message.char_indices().nth(max_chars) {
                    *message = format!("{} ...", &message[..end]);
                }
            }
            Self::Succeeded { .. }
            | Self::Exited { .. }
            | Self::TimedOut { .. }
            | Self::MemoryExceeded { .. }
            | Self::OutputsExceeded { .. }
            | Self::Cancelled => {}
        }
    }

    /// What happened, in words that fit after a item's name.
    pub fn describe(&self) -> String {
        match self {
            Self::Succeeded { .. } => "succeeded".to_owned(),
            Self::Exited { code } => format!("exited with code {code}"),
            Self::Failed { message } => format!("failed: {message}"),
            Self::Trapped { message } => format!("trapped: {message}"),
            Self::TimedOut { limit_s } => format!("was ended after its time limit of {limit_s} s"),
            Self::MemoryExceeded {
                limit_bytes,
                asked_bytes,
            } => format!(
                "was ended at its memory limit of {} (it asked for {} in all); --memory, the \
                 policy or the task's meta sets it",
                bytes_text(*limit_bytes),
                bytes_text(*asked_bytes)
            ),
            Self::BadOutput { message } => format!("gave a bad output: {message}"),
            Self::OutputsExceeded {
                limit_bytes,
                asked_bytes,
            } => format!(
                "gave a output for which there is no room: all outputs of the run would be \
                 {}, and {} is the limit of \
                 `host.outputs` in the policy; let tasks write their data to the output, or \
                 raise the limit",
                bytes_text(*asked_bytes),
                bytes_text(*limit_bytes)
            ),
            Self::Refused { message } => format!("was not started: {message}"),
            Self::Cancelled => "was cancelled".to_owned(),
            Self::HostFailed { message } => format!("could not be run: {message}"),
            Self::Lost { message } => format!("was lost: {message}"),
            Self::Panicked { message } => {
                format!("met a bug of mandelbox, please report it: {message}")
            }
        }
    }
}

/// What a call used, beside how it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// From the call's start to its end, with the host's work for it but for removing what its
    /// guest has left.
    #[serde(rename = "wall_time_s", with = "seconds")]
    pub wall_time: Duration,
    /// Most bytes that the guest's memories and tables had together.
    pub peak_memory_bytes: u64,
    /// Bytes that the guest wrote to stdout, those cut off included.
    pub stdout_bytes: u64,
    /// Bytes that the guest wrote to stderr, those cut off included.
    pub stderr_bytes: u64,
}

/// How a call ended and what it used.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// The last bytes of stderr as text, at most 4 KiB, not escaped.
    pub stderr_tail: String,
}

impl Ended {
    /// A call that ended before its guest ran.
    pub fn without_guest(outcome: Outcome) -> Self {
        Self {
            outcome,
            usage: Usage::default(),
            stderr_tail: String::new(),
        }
    }
}

/// A call that failed, for the error of its task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallFailure {
    /// Position in the item list, from 0; 0 for a single task.
    pub call_index: usize,
    /// What users call an item: a singular noun.
    pub item_kind: Cow<'static, str>,
    /// The item; `None` for a single call.
    pub item: Option<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// The last bytes of stderr as text, not escaped.
    pub stderr_tail: String,
    /// Where the whole of stderr is, if it was kept.
    pub stderr_path: Option<std::path::PathBuf>,
}

impl CallFailure {
    /// The item's name, escaped, or `call` for a single task.
    pub fn name(&self) -> String {
        match &self.item {
            None => "call".to_owned(),
            Some(Value::String(text)) => format!("{} \"{}\"", self.item_kind, escaped(text)),
            Some(value) => format!("{} {}", self.item_kind, escaped(&value.to_string())),
        }
    }
}

impl std::fmt::Display for CallFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name(), escaped(&self.outcome.describe()))?;
        let tail = self.stderr_tail.trim_end();
        if !tail.is_empty() {
            for line in tail.lines() {
                write!(f, "\n    | {}", escaped(line))?;
            }
        }
        if let Some(path) = &self.stderr_path {
            write!(f, "\n    stderr: {}", escaped(&path.to_string_lossy()))?;
        }
        Ok(())
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((value.as_secs_f64() * 1e6).round() / 1e6)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let time = Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)?;
        // As precise as it is written; what is finer is the rounding of a large number.
        let micros = (u64::from(time.subsec_nanos()) + 500) / 1000;
        Ok(Duration::from_secs(time.as_secs()).saturating_add(Duration::from_micros(micros)))
    }
}
