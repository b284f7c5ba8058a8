//! Reports of a running guest.

use serde::{Deserialize, Serialize};

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Single steps inside a function.
    Trace,
    /// Details that help to find a bug.
    Debug,
    /// Normal events.
    Info,
    /// An unexpected condition that does not stop the task.
    Warn,
    /// A failure.
    Error,
}

impl LogLevel {
    /// Returns the name of the level in lines for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
        }
    }
}

/// A report of a running task. Its text is untrusted, since it comes from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum GuestReport {
    /// A log line, at most 4 KiB.
    Log {
        /// Severity of the line.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// Progress of the call.
    Progress {
        /// Progress in thousandths, 0 to 1000.
        permille: u16,
        /// Current step, at most 256 bytes; may be empty.
        message: String,
    },
}
