//! What the planner asks of whoever runs modules.

use std::time::Duration;

use super::{Limits, ModuleFile, ModuleKind};

/// Gets modules ready to be called.
pub trait Modules: Send + Sync {
    /// Gets a module ready to be called, before the run; writes nothing.
    ///
    /// * `limits`: those of the calls that it is prepared for.
    /// * `time`: longest time for compiling; past it the module is refused.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    fn prepare(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String>;

    /// The description that a typed task gives of itself, unchecked: its entry in a manifest, as
    /// JSON text. Called after [`Self::prepare`]; the guest gets no folder.
    ///
    /// * `limits`: [`Limits::for_description`] of those of calls; the module was prepared for them.
    ///
    /// # Errors
    /// A sentence for the user that says why there is no answer.
    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        let _ = (module, limits);
        Err(
            "this backend cannot ask a task to describe itself; name the folder of a package"
                .to_owned(),
        )
    }
}
