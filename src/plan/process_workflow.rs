//! The parameters of Fractal's main function, with the additions of mandelbox.

use std::path::{Path, PathBuf};

use super::planner::{PlanRequest, build_plan};
use super::{Job, Policy, RunPlan};
use crate::fractal::ItemFilter;
use crate::fractal::dialect::Dialect;
use crate::fractal::local_config::LocalConfig;
use crate::fractal::package::TaskPackage;
use crate::fractal::v1::{DEFAULT_TASKS_INCLUDE_IMAGE, Dataset, WorkflowDocument, normalized};
use crate::json::{Map, Value};
use crate::model::{HostError, Modules};
use crate::problem::{Location, Problems};

/// The parameters of Fractal's `process_workflow`, with Fractal's names and meaning, and the
/// documents that a workflow can refer to.
///
/// Source: fractal-server 2.9.2, `fractal_server.app.runner.v1._local.process_workflow`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessWorkflow {
    /// The workflow, of which only the tasks and the name are used.
    pub workflow: WorkflowDocument,
    /// Input paths of the first task that runs.
    pub input_paths: Vec<PathBuf>,
    /// Folders that all tasks can read, in addition to the input paths.
    pub read_paths: Vec<PathBuf>,
    /// Items of a trial run; without a glob, all.
    pub only: ItemFilter,
    /// Output path of all tasks, and input path of all but the first.
    pub output_path: PathBuf,
    /// Metadata at the start; not modified.
    pub input_metadata: Map<String, Value>,
    /// History at the start; new items are appended.
    pub input_history: Vec<Value>,
    /// Name of the run in the lines of `workflow.log`.
    pub logger_name: String,
    /// The work directory. It is created if it does not exist. It must not contain the records of
    /// another run.
    pub workflow_dir_local: PathBuf,
    /// `None`, or the same path as `workflow_dir_local`.
    pub workflow_dir_remote: Option<PathBuf>,
    /// Ignored by the local backend.
    pub slurm_user: Option<String>,
    /// Ignored by the local backend.
    pub slurm_account: Option<String>,
    /// Ignored by the local backend.
    pub user_cache_dir: Option<String>,
    /// Ignored by the local backend.
    pub worker_init: Option<String>,
    /// Index of the first task that runs, from 0; `None`: the first.
    pub first_task_index: Option<i64>,
    /// Index of the last task that runs, from 0, inclusive; `None`: the last.
    pub last_task_index: Option<i64>,
    /// Packages in which the workflow's sources are looked up.
    pub packages: Vec<TaskPackage>,
    /// Configuration of Fractal's local backend.
    pub local_config: LocalConfig,
    /// Type of the input dataset; `None`: not checked.
    pub input_type: Option<String>,
    /// Type of the output dataset; `None`: not checked.
    pub output_type: Option<String>,
    /// Names of parallel tasks whose calls get `metadata["image"]`.
    pub tasks_include_image: Vec<String>,
}

impl From<WorkflowDocument> for ProcessWorkflow {
    /// Creates parameters without an output folder, which is required, and without a work
    /// directory.
    fn from(workflow: WorkflowDocument) -> Self {
        Self::new(workflow, Path::new(""), Path::new(""))
    }
}

/// A task package.
pub type Package = TaskPackage;

impl ProcessWorkflow {
    /// Creates the parameters from the required ones; the others have their defaults.
    pub fn new(workflow: WorkflowDocument, output_path: &Path, workflow_dir_local: &Path) -> Self {
        Self {
            input_paths: Vec::new(),
            read_paths: Vec::new(),
            only: ItemFilter::default(),
            output_path: output_path.to_owned(),
            input_metadata: Map::new(),
            input_history: Vec::new(),
            logger_name: workflow.name.clone(),
            workflow,
            workflow_dir_local: workflow_dir_local.to_owned(),
            workflow_dir_remote: None,
            slurm_user: None,
            slurm_account: None,
            user_cache_dir: None,
            worker_init: None,
            first_task_index: None,
            last_task_index: None,
            packages: Vec::new(),
            local_config: LocalConfig::default(),
            input_type: None,
            output_type: None,
            tasks_include_image: DEFAULT_TASKS_INCLUDE_IMAGE.map(str::to_owned).to_vec(),
        }
    }
}

impl Job for ProcessWorkflow {
    fn workflow_name(&self) -> &str {
        &self.workflow.name
    }

    fn logger_name(&self) -> &str {
        &self.logger_name
    }

    fn work_dir(&self) -> &Path {
        &self.workflow_dir_local
    }

    fn check(&self, problems: &mut Problems) -> Result<(), HostError> {
        if self.output_path.as_os_str().is_empty() {
            let location = Location::Parameter("output".to_owned());
            problems.add(
                location,
                "no output folder is set; call `RunBuilder::output`",
            );
        }
        match &self.workflow_dir_remote {
            Some(remote) if *remote != self.workflow_dir_local => {
                Err(HostError::NotImplemented(format!(
                    "Local backend does not support different directories workflow_dir_local={} \
                     and workflow_dir_remote={}",
                    self.workflow_dir_local.display(),
                    remote.display()
                )))
            }
            _ => Ok(()),
        }
    }

    fn plan(
        &self,
        policy: &Policy,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> (RunPlan, Box<dyn Dialect>) {
        let plan = build_plan(
            &PlanRequest {
                workflow: &self.workflow,
                packages: &self.packages,
                metadata: Some(&self.input_metadata),
                first_task_index: self.first_task_index,
                last_task_index: self.last_task_index,
                input_type: self.input_type.as_deref(),
                output_type: self.output_type.as_deref(),
                local_config: self.local_config,
                policy,
                modules,
            },
            problems,
        );
        let paths = self.input_paths.iter();
        let input_paths: Vec<_> = paths.map(|path| normalized(path)).collect();
        let output_path = normalized(&self.output_path);
        let mut specs = Vec::new();
        let mut dataset = Dataset {
            input_paths: input_paths.clone(),
            output_path: output_path.clone(),
            metadata: self.input_metadata.clone().into(),
            history: self.input_history.clone(),
            tasks_include_image: self.tasks_include_image.clone(),
            only: self.only.clone(),
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
            input_paths: [input_paths, self.read_paths.clone()].concat(),
            output_path,
            output_option: "--output",
            only: self.only.globs(),
            input_metadata_keys: self.input_metadata.keys().cloned().collect(),
        };
        (plan, Box::new(dataset))
    }
}
