//! Backends run calls and return outcomes. Every backend gives the same outcomes for the same
//! calls.

mod admission;
mod calls;
mod describe;
mod inbox;
mod local;
mod memory;
mod node;
mod output_budget;
mod process;
mod queue;
mod scripted;
mod shared;
mod slurm;
#[cfg(feature = "compiler")]
mod snapshots;

use std::path::Path;
use std::sync::Arc;

use crate::event::{EventKind, Fact};
use crate::model::{Grant, HostError, Modules, TaskSpec};
use crate::problem::Problems;

pub(crate) use calls::SeenWarnings;
pub use calls::{BatchCalls, OutputWriter, Pending, RunContext, Tails};
pub use local::{CallSource, Isolation, Local};
#[cfg(feature = "cli")]
pub(crate) use node::outcome_of_end;
pub(crate) use output_budget::OutputBudget;
#[cfg(feature = "cli")]
pub(crate) use process::close_inherited_files;
#[cfg(feature = "compiler")]
pub use process::compile_for_parent;
#[doc(hidden)]
pub use process::read_from_child;
#[cfg(feature = "weakened-for-tests")]
#[doc(hidden)]
pub use process::serve_with;
pub use process::{Confinement, Layer, LayerReport, LayerState, WorkerCommand, serve};
pub use scripted::{Script, Scripted};
pub use slurm::{
    CheckOutput, Client, ClusterCheck, EXIT_REFUSED, EXIT_SUPERSEDED, JobIdentity,
    PASSED_VARIABLES, Slice, SliceEnd, Slurm, SlurmConfig, SlurmOptions, WorkerSettings,
    check_cluster,
};
#[cfg(feature = "compiler")]
pub use snapshots::{MadeSnapshot, NoSnapshot, WantedSnapshot};

/// Runs the calls of one task at a time.
pub trait Backend: Modules {
    /// Name of the backend, as records show it.
    fn name(&self) -> &'static str;

    /// Settings of this backend that results depend on. A resumed run reruns calls that ran with
    /// other settings.
    fn settings(&self) -> String {
        String::new()
    }

    /// Returns the reason why fewer calls of a task run at a time than threads and the task's own
    /// limit allow: a sentence for the user.
    fn concurrency_limit_reason(&self, task: &TaskSpec) -> Option<String> {
        let _ = task;
        None
    }

    /// Checks what the meta of a task requests of this backend, before the run. Problems with a
    /// location go to `problems`.
    ///
    /// # Errors
    /// A sentence for the user if the calls of the task cannot run here.
    fn check_task(&self, task: &TaskSpec, problems: &mut Problems) -> Result<(), String> {
        let _ = (task, problems);
        Ok(())
    }

    /// Returns what a dry run shows of how the calls of a task run here: a text of any number of
    /// lines, not escaped.
    ///
    /// * `n_calls`: number of calls, or 1 if it is not known yet.
    /// * `work_dir`: the work directory of the run.
    fn preview(&self, task: &TaskSpec, n_calls: usize, work_dir: &Path) -> Option<String> {
        let _ = (task, n_calls, work_dir);
        None
    }

    /// Called once before the first task, after all documents were checked. Returns notes for the
    /// log about how calls run here.
    ///
    /// * `folders`: folders that all calls of the run see.
    fn start(&self, folders: &[Grant]) -> Vec<String> {
        let _ = folders;
        Vec::new()
    }

    /// Runs the pending calls of a batch. Returns when none runs any more, or when those that still
    /// run have been reported as cancelled.
    ///
    /// At most `max_parallel` calls of the task run at a time, and a call starts as soon as another
    /// one ends. The first of these always start. After a failure or a cancellation no other call
    /// starts, unless the batch keeps going.
    ///
    /// * `observe`: gets, on the calling thread, the start of each call, what it reports, and its
    ///   end, in the order in which they happened. An error from it ends the batch as a failure
    ///   does.
    ///
    /// # Errors
    /// The error of `observe`, or the host's own failure to run calls at all.
    fn run_calls(
        &self,
        calls: &Arc<BatchCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError>;
}

/// An event of a call. [`BatchCalls`] creates them.
#[derive(Debug)]
pub enum CallEvent {
    /// A call has started, or has reported something.
    Happened(Fact),
    /// A call ended.
    Finished {
        /// An [`EventKind::CallFinished`].
        fact: Fact,
        /// Last bytes of its stderr.
        stderr_tail: String,
    },
    /// No further event is waiting: those before can be written to disk.
    Idle,
}

impl CallEvent {
    /// Returns true if a call has failed and is not retried.
    pub(crate) fn is_final_failure(&self) -> bool {
        let Self::Finished { fact, .. } = self else {
            return false;
        };
        match fact.kind() {
            EventKind::CallFinished {
                outcome,
                retry_in_s: None,
                ..
            } => outcome.failure_kind().is_some(),
            _ => false,
        }
    }
}
