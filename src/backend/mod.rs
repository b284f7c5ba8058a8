//! Where calls run: calls in, outcomes out. Every backend gives the same outcomes for the same
//! calls.

mod admission;
pub(crate) mod calls;
mod describe;
mod inbox;
mod local;
mod memory;
mod one_call;
pub(crate) mod output_budget;
mod process;
mod queue;
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use crate::event::{EventKind, Fact};
use crate::model::{Grant, HostError, Limits, ModuleFile, ModuleKind};
use crate::plan::PlannedTask;

pub use calls::{Attempt, Call, OutputWriter, Retries, TaskCalls};
pub use describe::described_limits;
pub use local::{Isolation, Local};
pub(crate) use one_call::outcome_of_end;
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
pub trait Backend: Send + Sync {
    /// Name of the backend, as records show it.
    fn name(&self) -> &'static str;

    /// Makes a module ready to be called, before the run; writes nothing.
    ///
    /// * `limits`: those of the calls that it is made ready for.
    /// * `time`: what compiling may take; past it the module is refused.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    fn prepare(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String>;

    /// What a typed task says of itself, which nobody has checked: its entry in a manifest, as JSON
    /// text. Called after
    /// [`Self::prepare`]; the guest gets no folder, 10 seconds and 1 MiB for its answer.
    ///
    /// * `limits`: [`described_limits`] of those of calls; the module was prepared for them.
    ///
    /// # Errors
    /// A sentence for the user that says why there is no answer.
    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        let _ = (module, limits);
        Err(format!(
            "the backend {} asks no task what it is; name the folder of a package",
            self.name()
        ))
    }

    /// Settings of this backend that results depend on, for a run that is taken up again: what was
    /// made with others is made again.
    fn settings(&self) -> String {
        String::new()
    }

    /// Why fewer calls of a task run at a time than there are threads and its own bound lets: a
    /// sentence for the user.
    fn holds_back(&self, task: &PlannedTask) -> Option<String> {
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
    /// At most [`TaskCalls::window`] calls run at a time, and a call starts as soon as another
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
        calls: &Arc<TaskCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError>;
}

/// What a backend tells of calls. [`TaskCalls`] makes them.
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
