//! A run of a workflow of version 2: its documents and parameters.

use std::path::{Path, PathBuf};

use super::dataset_planner::plan_dataset_job;
use super::{Job, Policy, RunPlan};
use crate::fractal::ItemFilter;
use crate::fractal::dialect::Dialect;
use crate::fractal::local_config::LocalConfig;
use crate::fractal::v2::{DatasetDocument, Filters, Package, Statuses, WorkflowDocument};
use crate::model::Modules;
use crate::problem::Problems;

/// A run of a workflow of Fractal v2 on a dataset.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatasetJob {
    /// The workflow.
    pub workflow: WorkflowDocument,
    /// Packages in which the tasks of the workflow are looked up.
    pub packages: Vec<Package>,
    /// The dataset at the start. Tasks read and write its `zarr_dir`, a folder of this machine.
    pub dataset: DatasetDocument,
    /// Statuses of the images for each task, from earlier runs on the dataset.
    pub statuses: Statuses,
    /// Filters of the run.
    pub filters: Filters,
    /// Images of a trial run; without a glob, all.
    pub only: ItemFilter,
    /// Folders that all tasks can read, in addition to `zarr_dir`.
    pub read_paths: Vec<PathBuf>,
    /// Name of the run in the lines of `workflow.log`.
    pub logger_name: String,
    /// The work directory; empty for a new one below `mandelbox-runs`. It is created if it does not
    /// exist. It must not contain the records of another run.
    pub work_dir: PathBuf,
    /// Index of the first task that runs, from 0; `None`: the first.
    pub first_task_index: Option<i64>,
    /// Index of the last task that runs, from 0, inclusive; `None`: the last.
    pub last_task_index: Option<i64>,
    /// Configuration of Fractal's local backend.
    pub local_config: LocalConfig,
}

impl DatasetJob {
    /// Creates a job from what it needs at least; the rest has its defaults.
    pub fn new(workflow: WorkflowDocument, dataset: DatasetDocument) -> Self {
        Self {
            logger_name: workflow.name.clone(),
            workflow,
            packages: Vec::new(),
            dataset,
            statuses: Statuses::default(),
            filters: Filters::default(),
            only: ItemFilter::default(),
            read_paths: Vec::new(),
            work_dir: PathBuf::new(),
            first_task_index: None,
            last_task_index: None,
            local_config: LocalConfig::default(),
        }
    }
}

impl Job for DatasetJob {
    fn workflow_name(&self) -> &str {
        &self.workflow.name
    }

    fn logger_name(&self) -> &str {
        &self.logger_name
    }

    fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    fn plan(
        &self,
        policy: &Policy,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> (RunPlan, Box<dyn Dialect>) {
        plan_dataset_job(self, policy, modules, problems)
    }
}
