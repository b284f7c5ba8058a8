//! A workflow that can run: every question that the documents can answer is answered.

use std::time::Duration;

use crate::fractal::v1::TaskDetails;
use crate::model::{Grant, TaskSpec};
use crate::problem::Problem;

/// What will run, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workflow's name.
    pub workflow_name: String,
    /// First and last task of the workflow that run, from 0, both inclusive; `None` if the workflow
    /// has no task.
    pub task_range: Option<(usize, usize)>,
    /// The tasks that run.
    pub tasks: Vec<PlannedTask>,
    /// What deserves a word before the run.
    pub warnings: Vec<Problem>,
}

/// One workflow task, ready to be called.
#[derive(Clone, Debug)]
pub struct PlannedTask {
    /// What every version of Fractal has.
    pub spec: TaskSpec,
    /// What version 1 has in addition.
    pub details: TaskDetails,
}

/// What a package or a workflow asks for in `meta.mandelbox` (and Fractal's `mem`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Memory budget of a call, in bytes.
    pub memory_bytes: Option<u64>,
    /// Wall-time limit of a call.
    pub wall_time: Option<Duration>,
    /// Expected SHA-256 of the module, lower-case hexadecimal.
    pub sha256: Option<String>,
    /// See [`TaskDetails::metadata_keys`].
    pub metadata_keys: Option<Vec<String>>,
    /// See [`TaskDetails::metadata_in_args`].
    pub metadata_in_args: Option<bool>,
    /// Environment variables that the policy allows.
    pub env: Vec<(String, String)>,
    /// Folders that the policy allows.
    pub mounts: Vec<Grant>,
}
