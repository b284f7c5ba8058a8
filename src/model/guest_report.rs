//! Reports of a running guest.

use serde::{Deserialize, Serialize};

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Steps inside a function.
    Trace,
    /// What helps to find a mistake.
    Debug,
    /// What happens.
    Info,
    /// Something is odd, and the task goes on.
    Warn,
    /// Something went wrong.
    Error,
}

/// One thing that a running task tells. The text is the guest's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum GuestReport {
    /// A log line, at most 4 KiB.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// How far the call is.
    Progress {
        /// In thousandths of the whole, 0 to 1000.
        permille: u16,
        /// What is being done, at most 256 bytes; may be empty.
        message: String,
    },
}
