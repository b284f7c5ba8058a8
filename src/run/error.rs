//! Errors of a run, and the exit codes of the program.

use crate::model::{CallFailure, HostError};
use crate::problem::Problems;

/// Exit codes of the program, as users' scripts see them.
pub mod exit_code {
    /// The run, or the check, succeeded.
    pub const SUCCESS: u8 = 0;
    /// The host failed: a disk is full, a file cannot be written.
    pub const HOST_FAILED: u8 = 1;
    /// Wrong usage or wrong documents; nothing was run and nothing written.
    pub const WRONG_INPUT: u8 = 2;
    /// A task ended with an exit code above 0, an `err`, or gave a bad output.
    pub const TASK_EXECUTION_ERROR: u8 = 3;
    /// The sandbox ended a task, or the host could not run it.
    pub const JOB_EXECUTION_ERROR: u8 = 4;
    /// SIGHUP ended the work; what was done is saved.
    pub const STOPPED_BY_SIGHUP: u8 = 129;
    /// SIGINT ended the work, or a token did; what was done is saved.
    pub const STOPPED_BY_SIGINT: u8 = 130;
    /// SIGTERM ended the work; what was done is saved. Other signals give 128 and their number
    /// likewise.
    pub const STOPPED_BY_SIGTERM: u8 = 143;
    /// `exec` of a command: the sandbox ended it, as a signal ends a program that aborts.
    pub const ENDED_BY_SANDBOX: u8 = 134;
    /// `exec` of a command: the reader of its output has gone away, as of a program that SIGPIPE
    /// ends.
    pub const OUTPUT_CLOSED: u8 = 141;
}

/// Error of a run. A program that returns it from `main` prints its causes too.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The documents are wrong; nothing was run and nothing written.
    #[error("{0}")]
    Documents(Problems),
    /// A task failed by itself.
    #[error("TaskExecutionError: {0}")]
    TaskExecution(Box<TaskFailure>),
    /// The sandbox or the host ended a task.
    #[error("JobExecutionError: {0}")]
    JobExecution(Box<TaskFailure>),
    /// The run was cancelled before all calls of a task had succeeded.
    #[error("the run was cancelled; {0}")]
    Cancelled(Box<Cancelled>),
    /// The host could not do its own part.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(err) => std::fmt::Debug::fmt(err, f),
            other => std::fmt::Display::fmt(other, f),
        }
    }
}

impl Error {
    /// The exit code of the program for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Documents(_) => exit_code::WRONG_INPUT,
            Self::TaskExecution(_) => exit_code::TASK_EXECUTION_ERROR,
            Self::JobExecution(_) => exit_code::JOB_EXECUTION_ERROR,
            Self::Cancelled(_) => exit_code::STOPPED_BY_SIGINT,
            Self::Host(_) => exit_code::HOST_FAILED,
        }
    }

    /// The failed task, where one failed or was cancelled.
    pub fn task_failure(&self) -> Option<&TaskFailure> {
        match self {
            Self::TaskExecution(failure) | Self::JobExecution(failure) => Some(failure),
            Self::Cancelled(cancelled) => Some(&cancelled.failure),
            Self::Documents(_) | Self::Host(_) => None,
        }
    }
}

/// A workflow task that failed, with every call of it that did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskFailure {
    /// Name of the task.
    pub task_name: String,
    /// The workflow task's order, which also begins its file names.
    pub workflow_task_order: u64,
    /// The workflow task's `id`, where its document has one.
    pub workflow_task_id: Option<serde_json::Value>,
    /// Length of the item list; 0 for a single task, or if there is no list.
    pub n_items: usize,
    /// Set where the task failed as a whole, before any call.
    pub reason: Option<String>,
    /// The calls that failed, in the order of their items; the first decides the kind of the
    /// error.
    pub calls: Vec<CallFailure>,
}

impl std::fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Failed calls that are shown in full; the others are listed by name.
        const IN_FULL: usize = 3;
        use crate::text::escaped;
        let order = self.workflow_task_order;
        write!(
            f,
            "task \"{}\" (order {order}) failed",
            escaped(&self.task_name)
        )?;
        if let Some(reason) = &self.reason {
            write!(f, ": {}", escaped(reason))?;
        }
        for call in self.calls.iter().take(IN_FULL) {
            write!(f, "\n  {call}")?;
        }
        if self.calls.len() > IN_FULL {
            let names: Vec<_> = self.calls[IN_FULL..]
                .iter()
                .map(CallFailure::name)
                .collect();
            write!(f, "\n  also failed: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// A workflow task that was cancelled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cancelled {
    /// The task, with the calls that had failed or were ended.
    pub failure: TaskFailure,
    /// Calls that the task has.
    pub n_calls: usize,
    /// Calls of it that had succeeded.
    pub n_succeeded: usize,
}

impl std::fmt::Display for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::model::Outcome;
        use crate::text::escaped;
        let Self {
            failure,
            n_calls,
            n_succeeded,
        } = self;
        let name = escaped(&failure.task_name);
        let plural = if *n_calls == 1 { "" } else { "s" };
        write!(
            f,
            "{n_succeeded} of {n_calls} call{plural} of task \"{name}\" had succeeded"
        )?;
        let n_failed = failure
            .calls
            .iter()
            .filter(|call| !matches!(call.outcome, Outcome::Cancelled))
            .count();
        if n_failed > 0 {
            write!(f, ", {n_failed} had failed")
        } else {
            Ok(())
        }
    }
}
