//! A plan, together with the dataset that it runs on.

use std::path::PathBuf;

use crate::model::TaskSpec;
use crate::problem::Problem;

/// The tasks that will run, and their data.
pub struct RunPlan {
    /// The workflow's name.
    pub workflow_name: String,
    /// Indices of the first and the last task of the workflow that run, from 0, both inclusive;
    /// `None` if the workflow has no tasks.
    pub task_range: Option<(usize, usize)>,
    /// The tasks that run, in order.
    pub tasks: Vec<TaskSpec>,
    /// Warnings about the documents.
    pub warnings: Vec<Problem>,
    /// Folders that the first task reads.
    pub input_paths: Vec<PathBuf>,
    /// Folder that all tasks write to.
    pub output_path: PathBuf,
    /// Option or key that sets it.
    pub output_option: &'static str,
    /// Globs of the items of a trial run; empty if all items run.
    pub only: Vec<String>,
    /// Keys of the metadata at the start.
    pub input_metadata_keys: Vec<String>,
}
