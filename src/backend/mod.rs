//! Where calls run: calls in, outcomes out. Every backend gives the same outcomes for the same calls.

mod local;
mod one_call;
mod process;
mod scripted;

use crate::error::HostError;
use crate::outcome::Ended;
use crate::runner::TaskCalls;
use crate::sandbox::Grant;
use crate::workflow::ModuleFile;

pub use local::{Isolation, Local};
#[doc(hidden)]
pub use process::read_from_child;
pub use process::{WorkerCommand, serve};
pub use scripted::{Script, Scripted};

/// Runs the calls of one task at a time.
pub trait Backend: Send + Sync {
    /// Name of the backend, as records show it.
    fn name(&self) -> &'static str;

    /// Makes a module ready to be called, before the run and before anything is written.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    fn prepare(&self, module: &ModuleFile) -> Result<(), String>;

    /// What a reader of the run's log should know about how calls run here; called before the first task.
    ///
    /// * `folders`: what all calls of the run see.
    fn notes(&self, folders: &[Grant]) -> Vec<String> {
        let _ = folders;
        Vec::new()
    }

    /// Runs the calls of a task and returns when none runs any more.
    ///
    /// At most [`TaskCalls::window`] calls run at a time, and a call starts as soon as another ends. The first window
    /// always starts; after a failure or a cancellation no other call does, unless the task keeps going.
    ///
    /// * `observe`: gets, on the calling thread, every call's start and then its end, in the order in which they
    ///   happened; an error from it ends the task as a failure does.
    ///
    /// # Errors
    /// What `observe` returned, or the host's own failure to run calls at all.
    fn run_calls(
        &self,
        calls: &TaskCalls<'_>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError>;
}

/// What a backend tells of a call.
#[derive(Debug)]
pub enum CallEvent {
    /// It runs now.
    Started {
        /// Position in the component list.
        call_index: usize,
    },
    /// It ended.
    Finished {
        /// Position in the component list.
        call_index: usize,
        /// How.
        ended: Ended,
    },
}
