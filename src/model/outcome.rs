//! Outcomes of calls, and the text that reports a failed call.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::json::{Map, Value};
use crate::text::{bytes_text, escaped};

/// Outcome of one call. The cause is recorded where it is known, never guessed afterwards.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The guest exited with code 0, and its output is an object or missing.
    Succeeded {
        /// Output of the call; `None` if it is missing or `null`.
        output: Option<Map<String, Value>>,
    },
    /// The guest exited with a code other than 0.
    Exited {
        /// Exit code of the guest.
        code: i32,
    },
    /// A typed task returned an error.
    Failed {
        /// Error message of the task, at most 4 KiB.
        message: String,
    },
    /// The guest trapped: `unreachable`, a bad memory access, a stack overflow.
    Trapped {
        /// Message of the runtime, with the guest's function names where known.
        message: String,
    },
    /// The guest exceeded its time limit.
    TimedOut {
        /// The limit, in seconds.
        limit_s: f64,
    },
    /// The guest exceeded its memory budget.
    MemoryExceeded {
        /// Budget for all memories and tables together, in bytes.
        limit_bytes: u64,
        /// Memory that the guest requested in total, in bytes.
        asked_bytes: u64,
    },
    /// The guest exited with code 0, but its output is not a JSON object or cannot be read.
    BadOutput {
        /// Description of the problem, with its location.
        message: String,
    },
    /// The output exceeds the limit on all outputs of the run.
    OutputsExceeded {
        /// Limit on the size of all outputs together, in bytes.
        limit_bytes: u64,
        /// Size of all outputs including this one, in bytes.
        asked_bytes: u64,
    },
    /// The call was not started because its module cannot be run.
    Refused {
        /// The reason.
        message: String,
    },
    /// The run was cancelled while the guest ran.
    Cancelled,
    /// The host failed to do its part for this call: a full disk, no file descriptor left.
    HostFailed {
        /// Description of the failure.
        message: String,
    },
    /// The process that ran the call died.
    Lost {
        /// The cause, as far as it is known.
        message: String,
    },
    /// A bug in the host. The panic was caught, and other calls continue.
    Panicked {
        /// Message of the panic.
        message: String,
    },
}

/// Class of a failed call: one of Fractal's two errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The task itself failed.
    TaskExecution,
    /// The sandbox ended the call, or the host failed.
    JobExecution,
}

impl Outcome {
    /// Returns the name of the outcome in records.
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

    /// Returns the kind of failure; `None` for a call that succeeded.
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

    /// Shortens the message, if there is one.
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

    /// Describes the outcome in words that fit after an item's name.
    pub fn describe(&self) -> String {
        match self {
            Self::Succeeded { .. } => "succeeded".to_owned(),
            Self::Exited { code } => format!("exited with code {code}"),
            Self::Failed { message } => format!("failed: {message}"),
            Self::Trapped { message } => format!("trapped: {message}"),
            Self::TimedOut { limit_s } => format!("exceeded its time limit of {limit_s} s"),
            Self::MemoryExceeded {
                limit_bytes,
                asked_bytes,
            } => format!(
                "exceeded its memory limit of {} (it requested {} in total); raise `--memory`, or \
                 the limit in the policy or the task's meta",
                bytes_text(*limit_bytes),
                bytes_text(*asked_bytes)
            ),
            Self::BadOutput { message } => format!("returned an invalid output: {message}"),
            Self::OutputsExceeded {
                limit_bytes,
                asked_bytes,
            } => format!(
                "returned an output that exceeds the limit on all outputs of the run ({} in \
                 total, the limit is {}); write data to files in the output folder, or raise \
                 `host.outputs` in the policy",
                bytes_text(*asked_bytes),
                bytes_text(*limit_bytes)
            ),
            Self::Refused { message } => format!("was not started: {message}"),
            Self::Cancelled => "was cancelled".to_owned(),
            Self::HostFailed { message } => format!("could not be run: {message}"),
            Self::Lost { message } => format!("was lost: {message}"),
            Self::Panicked { message } => {
                format!("failed because of a bug in mandelbox; please report it: {message}")
            }
        }
    }
}

/// Resource usage of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Time from the start of the call to its end. It includes the host's work for the call, except
    /// for removing the files that the guest has left.
    #[serde(rename = "wall_time_s", with = "seconds")]
    pub wall_time: Duration,
    /// CPU time of the call, the host's work for it included; `None` if the call took less than
    /// 1 ms, since measuring would slow such calls.
    #[serde(
        rename = "cpu_time_s",
        default,
        with = "optional_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub cpu_time: Option<Duration>,
    /// Peak size of the guest's memories and tables together, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes that the guest wrote to stdout, including those that were dropped.
    pub stdout_bytes: u64,
    /// Bytes that the guest wrote to stderr, including those that were dropped.
    pub stderr_bytes: u64,
    /// True if the guest wrote the word "warning", in any case; `None` if that was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_warnings: Option<bool>,
}

/// End of a call: its outcome and its usage.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Outcome of the call.
    pub outcome: Outcome,
    /// Resource usage of the call.
    pub usage: Usage,
    /// The last bytes of stdout as text, not escaped; empty unless they are asked for.
    pub stdout_tail: String,
    /// The last bytes of stderr as text, not escaped; at most 4 KiB unless more are asked for.
    pub stderr_tail: String,
}

impl Ended {
    /// Creates the end of a call whose guest did not run.
    pub fn without_guest(outcome: Outcome) -> Self {
        Self {
            outcome,
            usage: Usage::default(),
            stdout_tail: String::new(),
            stderr_tail: String::new(),
        }
    }
}

/// A failed call, for the error of its task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallFailure {
    /// Index in the list of items, from 0; 0 for a single task.
    pub call_index: usize,
    /// Name of an item for users: a singular noun.
    pub item_kind: Cow<'static, str>,
    /// The item; `None` for a single call.
    pub item: Option<Value>,
    /// Outcome of the call.
    pub outcome: Outcome,
    /// The last bytes of stderr as text, not escaped.
    pub stderr_tail: String,
    /// Path of the complete stderr, if it was kept.
    pub stderr_path: Option<std::path::PathBuf>,
}

impl CallFailure {
    /// Returns the item's name, escaped, or `call` for a single task.
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

/// As [`seconds`], for a time that may be missing.
mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::seconds::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Seconds(#[serde(with = "super::seconds")] Duration);
        let seconds = Option::<Seconds>::deserialize(deserializer)?;
        Ok(seconds.map(|Seconds(time)| time))
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
        // Times are stored in microseconds; finer digits are rounding errors of large numbers.
        let micros = (u64::from(time.subsec_nanos()) + 500) / 1000;
        Ok(Duration::from_secs(time.as_secs()).saturating_add(Duration::from_micros(micros)))
    }
}
