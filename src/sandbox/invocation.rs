//! What one call gets, and how it ended.

use std::time::Duration;

use super::reports::GuestReports;
use super::stdio::GuestOutput;
use super::warnings::GuestWarnings;
use crate::model::{CancelToken, Grant, Limits, TaskMetadata};

/// What of a module is called.
pub enum Entry<'a> {
    /// The entry of a command.
    Command,
    /// `run` of a typed task.
    Run(TypedCall<'a>),
    /// `describe` of a typed task, which no function of the host answers.
    Describe,
}

/// What a call of a typed task has beside files and limits.
pub struct TypedCall<'a> {
    /// The parameters, as JSON text.
    pub args: &'a str,
    /// What the task may fetch.
    pub metadata: &'a TaskMetadata,
    /// Takes its log lines and its progress.
    pub reports: GuestReports,
}

/// What a guest reads as its stdin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestInput {
    /// Nothing: its end.
    #[default]
    Empty,
    /// The stdin of this process, or what it hands on to the child process that the guest runs in.
    Inherited,
}

/// One call of a module.
pub struct Invocation<'a> {
    /// SHA-256 of a module that the sandbox has prepared.
    pub module_sha256: &'a str,
    /// What of it is called.
    pub entry: Entry<'a>,
    /// The command line, the module's own name first.
    pub argv: &'a [String],
    /// Environment variables, name and value.
    pub env: &'a [(String, String)],
    /// Folders that the guest sees; with the longest guest path that fits, a path finds its folder.
    pub grants: &'a [Grant],
    /// What is read from stdin.
    pub stdin: GuestInput,
    /// Where stdout goes.
    pub stdout: GuestOutput,
    /// Where stderr goes.
    pub stderr: GuestOutput,
    /// Takes warnings for the user.
    pub warnings: GuestWarnings,
    /// What the call may use.
    pub limits: &'a Limits,
    /// What a deterministic sandbox makes random numbers from.
    pub seed: u64,
    /// Ends the guest when it is cancelled.
    pub cancel: &'a CancelToken,
}

/// How a guest ended. Its stdout and stderr were given to the invocation's outputs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuestEnd {
    /// It ended itself; `_start` that returns is exit code 0.
    Exited(i32),
    /// A typed task returned an output, or none; or its description.
    Returned(Option<String>),
    /// A typed task returned more than the limit on outputs lets through.
    ReturnedTooMuch(String),
    /// A typed task returned an error: the first 4 KiB of it.
    Failed(String),
    /// It trapped; what the runtime says.
    Trapped(String),
    /// Its wall time was over.
    TimedOut(Duration),
    /// It asked for more memory than its budget.
    MemoryExceeded {
        /// The budget, in bytes.
        limit_bytes: u64,
        /// What it would have had, in bytes.
        asked_bytes: u64,
    },
    /// The run was cancelled.
    Cancelled,
    /// Its output could not be handed on, see [`GuestOutput::handed_on`].
    OutputFailed,
    /// The host could not start it.
    HostFailed(String),
    /// The process that it ran in is gone; what is known of why.
    Lost(String),
}
