//! Packages of typed tasks, each with one task that describes itself.

use std::path::Path;
use std::time::Duration;

use super::description::{describe, is_only_v2};
use super::package::TaskPackage;
use super::v2;
use crate::model::{Limits, Modules};
use crate::problem::Problems;

/// Package of one typed task, of the version that its description is for.
#[derive(Debug)]
pub(crate) enum TypedPackage {
    /// Also if the description is valid for both versions.
    V1(TaskPackage),
    V2(v2::Package),
}

impl TypedPackage {
    /// Reads the description of a typed task. Adds problems to `problems`.
    ///
    /// * `limits`: limits of calls, which also apply to the description.
    /// * `compile_time`: longest time for compiling the module.
    /// * `modules`: prepares the module, and runs it for its description.
    pub(crate) fn read(
        path: &Path,
        limits: &Limits,
        compile_time: Duration,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> Option<Self> {
        let description = describe(path, limits, compile_time, modules, problems)?;
        if is_only_v2(&description) {
            v2::Package::from_description(path, description, problems).map(Self::V2)
        } else {
            TaskPackage::from_description(path, description, problems).map(Self::V1)
        }
    }
}
