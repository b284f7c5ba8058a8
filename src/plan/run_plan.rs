//! A plan, together with the dataset that it runs on.

use std::path::PathBuf;

use super::planner::{PlanRequest, build_plan};
use super::{Policy, ProcessWorkflow};
use crate::fractal::dialect::Dialect;
use crate::fractal::v1::{Dataset, normalized};
use crate::model::{Modules, TaskSpec};
use crate::problem::{Problem, Problems};

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
    /// Keys of the metadata at the start.
    pub input_metadata_keys: Vec<String>,
}

/// Plans a run of a workflow of version 1. Adds problems to `problems`; the plan is valid only if
/// there are none.
///
/// Returns the plan, and the dataset at its start.
pub fn plan_run(
    arguments: &ProcessWorkflow,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> (RunPlan, Box<dyn Dialect>) {
    let plan = build_plan(
        &PlanRequest {
            workflow: &arguments.workflow,
            packages: &arguments.packages,
            metadata: Some(&arguments.input_metadata),
            first_task_index: arguments.first_task_index,
            last_task_index: arguments.last_task_index,
            input_type: arguments.input_type.as_deref(),
            output_type: arguments.output_type.as_deref(),
            local_config: arguments.local_config,
            policy,
            modules,
        },
        problems,
    );
    let paths = arguments.input_paths.iter();
    let input_paths: Vec<_> = paths.map(|path| normalized(path)).collect();
    let output_path = normalized(&arguments.output_path);
    let mut specs = Vec::new();
    let mut dataset = Dataset {
        input_paths: input_paths.clone(),
        output_path: output_path.clone(),
        metadata: arguments.input_metadata.clone().into(),
        history: arguments.input_history.clone(),
        tasks_include_image: arguments.tasks_include_image.clone(),
        ..Dataset::default()
    };
    for task in plan.tasks {
        dataset.tasks.insert(task.spec.order, task.details);
        specs.push(task.spec);
    }
    let plan = RunPlan {
        workflow_name: plan.workflow_name,
        task_range: plan.task_range,
        tasks: specs,
        warnings: plan.warnings,
        input_paths,
        output_path,
        input_metadata_keys: arguments.input_metadata.keys().cloned().collect(),
    };
    (plan, Box::new(dataset))
}
