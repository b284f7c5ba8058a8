//! The interface that the planner uses to prepare modules.

use std::path::Path;
use std::time::Duration;

use super::{Limits, ModuleFile, ModuleKind};

/// Preparation of modules for calls.
pub trait Modules: Send + Sync {
    /// Prepares a module for calls, before the run; writes nothing.
    ///
    /// * `limits`: limits of the calls.
    /// * `time`: longest time for compiling; a module that takes longer is refused.
    ///
    /// # Errors
    /// A sentence for the user with the reason why the module cannot be called.
    fn prepare(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String>;

    /// Prepares a module without reading its file, if the backend knows the file by its identity and
    /// has its code. Returns its SHA-256 and its kind. By default, no file is known.
    ///
    /// * `limits`: limits of the calls.
    /// * `max_bytes`: maximum size of the file.
    /// * `has_snapshot`: true if the calls start from a snapshot.
    fn prepare_known(
        &self,
        path: &Path,
        limits: &Limits,
        max_bytes: u64,
        has_snapshot: bool,
    ) -> Option<(String, ModuleKind)> {
        let _ = (path, limits, max_bytes, has_snapshot);
        None
    }

    /// Prepares a module for calls that start from a snapshot. By default, prepares it for plain
    /// calls, for backends without snapshots.
    ///
    /// # Errors
    /// As [`Self::prepare`], and if no snapshot of the module is possible.
    fn prepare_snapshots(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String> {
        self.prepare(module, limits, time)
    }

    /// Returns the description that a typed task gives of itself, unchecked: its entry in a
    /// manifest, as JSON text. Called after [`Self::prepare`]; the guest can access no folder.
    ///
    /// * `limits`: [`Limits::for_description`] of the limits of calls; the module was prepared for
    ///   them.
    ///
    /// # Errors
    /// A sentence for the user with the reason why there is no description.
    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        let _ = (module, limits);
        Err(
            "this backend cannot ask a task to describe itself; name the folder of a package"
                .to_owned(),
        )
    }
}
