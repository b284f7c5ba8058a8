//! Input of the planner, whatever its version of Fractal.

use std::path::Path;

use super::{Policy, RunPlan};
use crate::fractal::dialect::Dialect;
use crate::model::{HostError, Modules};
use crate::problem::Problems;

/// The documents and parameters of a run, of one version of Fractal.
pub trait Job {
    /// Returns the name of the workflow.
    fn workflow_name(&self) -> &str;

    /// Returns the name of the run in the lines of `workflow.log`.
    fn logger_name(&self) -> &str;

    /// Returns the work directory; empty for a new one below `mandelbox-runs`.
    fn work_dir(&self) -> &Path;

    /// Checks the parameters before any document. Problems go to `problems`.
    ///
    /// # Errors
    /// [`HostError::NotImplemented`] for parameters that mandelbox does not support.
    fn check(&self, problems: &mut Problems) -> Result<(), HostError> {
        let _ = problems;
        Ok(())
    }

    /// Plans the run. Adds problems to `problems`; the plan is valid only if there are none.
    ///
    /// Returns the plan, and the dataset at its start.
    fn plan(
        &self,
        policy: &Policy,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> (RunPlan, Box<dyn Dialect>);
}
