//! A backend without guests: a function returns the outcome of each call. For tests.

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, BatchCalls, CallEvent};
use crate::model::{CallSpec, Ended, HostError, Limits, ModuleFile, ModuleKind, Modules, Outcome};

/// Function from a call to its outcome.
pub type Script = dyn Fn(&CallSpec) -> Outcome + Send + Sync;

/// Backend that runs no guest: a function returns the outcome of each call, one after the other,
/// on the calling thread.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
}

impl Scripted {
    /// A backend whose calls have the outcomes that `script` returns.
    pub fn new(script: impl Fn(&CallSpec) -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
        }
    }
}

impl Modules for Scripted {
    fn prepare(&self, _: &ModuleFile, _: &Limits, _: Duration) -> Result<ModuleKind, String> {
        Ok(ModuleKind::CommandP1)
    }
}

impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn run_calls(
        &self,
        calls: &Arc<BatchCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        for attempt in (0..calls.n_pending()).filter_map(|position| calls.attempt(position)) {
            if calls.cancel().is_cancelled() {
                break;
            }
            let run = |attempt| Ended::without_guest((self.script)(&calls.call(attempt)));
            let failed = calls
                .run_with_retries(attempt, run, &mut *observe)?
                .is_some();
            if failed && !calls.batch().keep_going {
                break;
            }
        }
        Ok(())
    }
}
