//! A workflow that is ready to run: all questions that the documents can answer are answered.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::fractal::v1::TaskDetails;
use crate::model::{Grant, TaskSpec};
use crate::problem::{Location, Problem, Problems};

/// The tasks that will run, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workflow's name.
    pub workflow_name: String,
    /// Indices of the first and the last task of the workflow that run, from 0, both inclusive;
    /// `None` if the workflow has no tasks.
    pub task_range: Option<(usize, usize)>,
    /// The tasks that run.
    pub tasks: Vec<PlannedTask>,
    /// Warnings to show before the run.
    pub warnings: Vec<Problem>,
}

/// One workflow task, ready to be called.
#[derive(Clone, Debug)]
pub struct PlannedTask {
    /// The part that every version of Fractal has.
    pub spec: TaskSpec,
    /// The part that only version 1 has.
    pub details: TaskDetails,
}

/// Requests of a package or a workflow in `meta.mandelbox` (and Fractal's `mem` and
/// `cpus_per_task`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Memory budget of a call, in bytes.
    pub memory_bytes: Option<u64>,
    /// Wall-time limit of a call.
    pub wall_time: Option<Duration>,
    /// Number of CPUs that a call counts as.
    pub n_cpus: Option<NonZeroUsize>,
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
    /// True if calls should start from a snapshot.
    pub snapshot: bool,
}

/// Checks that all orders differ: two tasks of one order and name would share a folder.
///
/// * `orders`: the order of each task of a workflow, and its location.
pub(super) fn check_orders(orders: impl Iterator<Item = (u64, Location)>, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (order, location) in orders {
        if !seen.insert(order) {
            let text = format!("duplicate order {order}; give each workflow task its own");
            problems.add(location, text);
        }
    }
}
