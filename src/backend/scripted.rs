//! A backend without guests: a function says how each call ends. For tests of everything around it.

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, CallEvent};
use crate::backend::{Call, TaskCalls};
use crate::model::{Ended, HostError, Limits, ModuleFile, ModuleKind, Outcome};

/// How a call ends: the call in, its outcome out.
pub type Script = dyn Fn(&Call) -> Outcome + Send + Sync;

/// Runs no guest; calls end as a function says, one after the other, on the calling thread.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
}

impl Scripted {
    /// A backend whose calls end as `script` says.
    pub fn new(script: impl Fn(&Call) -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
        }
    }
}

impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn prepare(&self, _: &ModuleFile, _: &Limits, _: Duration) -> Result<ModuleKind, String> {
        Ok(ModuleKind::CommandP1)
    }

    fn run_calls(
        &self,
        calls: &Arc<TaskCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        for attempt in (0..calls.n_to_make()).filter_map(|position| calls.attempt(position)) {
            if calls.cancel().is_cancelled() {
                break;
            }
            let run = |attempt| Ended::without_guest((self.script)(&calls.call(attempt)));
            let failed = calls.make(attempt, run, &mut *observe)?.is_some();
            if failed && !calls.keeps_going() {
                break;
            }
        }
        Ok(())
    }
}
