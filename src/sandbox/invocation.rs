//! Input of one call, and its result.

#[cfg(feature = "compiler")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::reports::GuestReports;
use super::stdio::GuestOutput;
use super::warnings::GuestWarnings;
use crate::model::{CancelToken, Grant, Limits, TaskMetadata};

/// Entry point of a call.
pub enum Entry<'a> {
    /// Entry of a command.
    Command,
    /// `run` of a typed task.
    Run(TypedCall<'a>),
    /// `describe` of a typed task, in which the functions of the host have no effect.
    Describe,
    /// Initialization of a module for a snapshot, whose image goes to the slot. The module is the
    /// one of [`Sandbox::prepare_initial_image`](super::Sandbox).
    #[cfg(feature = "compiler")]
    Initialize(&'a ImageSlot),
}

impl Entry<'_> {
    /// Returns true for the initialization of a module.
    pub(super) fn is_initialization(&self) -> bool {
        #[cfg(feature = "compiler")]
        let is_initialization = matches!(self, Self::Initialize(_));
        #[cfg(not(feature = "compiler"))]
        let is_initialization = false;
        is_initialization
    }
}

/// Receiver of the image that a guest leaves when it has started.
#[cfg(feature = "compiler")]
#[derive(Default)]
pub struct ImageSlot(Mutex<Option<Vec<u8>>>);

#[cfg(feature = "compiler")]
impl ImageSlot {
    /// Stores the image.
    pub(crate) fn put(&self, image: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
    }

    /// Takes the image, if the guest has started.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Input of a call of a typed task, in addition to files and limits.
pub struct TypedCall<'a> {
    /// Parameters as JSON text.
    pub args: &'a str,
    /// Metadata that the task can request.
    pub metadata: &'a TaskMetadata,
    /// Receiver of the task's log lines and progress.
    pub reports: GuestReports,
}

/// Source of a guest's stdin.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestInput {
    /// No input: reading returns the end of the file.
    #[default]
    Empty,
    /// Stdin of this process, which is forwarded if the guest runs in a child process.
    Inherited,
    /// A text, followed by the end of the file.
    Text(String),
}

/// One call of a module.
pub struct Invocation<'a> {
    /// SHA-256 of a module that the sandbox has prepared.
    pub module_sha256: &'a str,
    /// Entry point of the module.
    pub entry: Entry<'a>,
    /// Command line, which starts with the name of the module.
    pub argv: &'a [String],
    /// Environment variables: names and values.
    pub env: &'a [(String, String)],
    /// Folders that the guest sees. A path belongs to the folder with the longest guest path that
    /// matches.
    pub grants: &'a [Grant],
    /// Source of stdin.
    pub stdin: GuestInput,
    /// Destination of stdout.
    pub stdout: GuestOutput,
    /// Destination of stderr.
    pub stderr: GuestOutput,
    /// Receiver of warnings for the user.
    pub warnings: GuestWarnings,
    /// Limits of the call.
    pub limits: &'a Limits,
    /// Seed of the random numbers in a deterministic sandbox.
    pub seed: u64,
    /// Token that ends the guest when it is cancelled.
    pub cancel: &'a CancelToken,
}

/// Result of running a guest. Its stdout and stderr went to the outputs of the invocation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuestEnd {
    /// The guest exited with this code. A `_start` that returns counts as exit code 0.
    Exited(i32),
    /// A typed task returned an output, no output, or its description.
    Returned(Option<String>),
    /// A typed task returned more than its output limit allows.
    ReturnedTooMuch(String),
    /// A typed task returned an error, of which the first 4 KiB are kept.
    Failed(String),
    /// The guest trapped; the message of the runtime.
    Trapped(String),
    /// The wall-time limit expired.
    TimedOut(Duration),
    /// The guest requested more memory than its budget.
    MemoryExceeded {
        /// Budget in bytes.
        limit_bytes: u64,
        /// Memory that the guest would have had, in bytes.
        asked_bytes: u64,
    },
    /// The run was cancelled.
    Cancelled,
    /// The output of the guest could not be passed through, see [`GuestOutput::handed_on`].
    OutputFailed,
    /// The host could not start the guest.
    HostFailed(String),
    /// The process that the guest ran in is gone; the reason, as far as it is known.
    Lost(String),
}
