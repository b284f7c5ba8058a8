//! Where calls run: calls in, outcomes out. Every backend gives the same outcomes for the same
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

use std::sync::Arc;

use crate::event::{EventKind, Fact};
use crate::model::{Grant, HostError, Modules, TaskSpec};

pub(crate) use calls::SeenWarnings;
pub use calls::{BatchCalls, OutputWriter, Pending, RunContext};
pub use local::{Isolation, Local};
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

/// Runs the calls of one task at a time.
pub trait Backend: Modules {
    /// Name of the backend, as records show it.
    fn name(&self) -> &'static str;

    /// Settings of this backend that results depend on, for a run that is taken up again: what was
    /// made with others is made again.
    fn settings(&self) -> String {
        String::new()
    }

    /// Why fewer calls of a task run at a time than there are threads and its own bound lets: a
    /// sentence for the user.
    fn holds_back(&self, task: &TaskSpec) -> Option<String> {
        let _ = task;
        None
    }

    /// Called once all documents were found good, before the first task. Returns what a reader of
    /// the run's log should know about how calls run here.
    ///
    /// * `folders`: what all calls of the run see.
    fn start(&self, folders: &[Grant]) -> Vec<String> {
        let _ = folders;
        Vec::new()
    }

    /// Runs the calls of a task and returns when none runs any more, or every one that does was
    /// told to be cancelled.
    ///
    /// At most [`TaskSpec::max_parallel`](crate::model::TaskSpec::max_parallel) calls run at a time, and a call starts as soon as another
    /// ends. The first window always starts; after a failure or a cancellation no other call does,
    /// unless the task keeps going.
    ///
    /// * `observe`: gets, on the calling thread, every call's start, what it reports, and its end,
    ///   in the order in which they happened; an error from it ends the task as a failure does.
    ///
    /// # Errors
    /// What `observe` returned, or the host's own failure to run calls at all.
    fn run_calls(
        &self,
        calls: &Arc<BatchCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError>;
}

/// What a backend tells of calls. [`BatchCalls`] makes them.
#[derive(Debug)]
pub enum CallEvent {
    /// A call runs now, or tells something while it runs.
    Happened(Fact),
    /// A call ended.
    Finished {
        /// An [`EventKind::CallFinished`].
        fact: Fact,
        /// Last bytes of its stderr.
        stderr_tail: String,
    },
    /// Nothing more has happened by now: what was told can be written down.
    Idle,
}

impl CallEvent {
    /// Whether a call has failed and is not tried again.
    pub(crate) fn ends_badly(&self) -> bool {
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
