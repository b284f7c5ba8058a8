//! Calls as jobs of a SLURM cluster.
//!
//! The run writes the calls of a batch to files in its work directory, which is on a file system
//! that all nodes share, and submits job arrays. An element of an array is `mandelbox worker` with
//! one slice of the calls: the same local backend, with results in a file. [`driver`] explains how
//! results and states come together.

mod adopt;
mod batch_file;
mod batching;
mod client;
mod config;
mod config_values;
mod doctor;
mod driver;
mod jobs;
mod judge;
mod parse;
mod results;
mod script;
mod states;
mod submit;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Backend, BatchCalls, CallEvent, Local};
use crate::model::{
    CancelToken, Grant, HostError, Limits, ModuleFile, ModuleKind, Modules, TaskSpec,
};
use crate::problem::Problems;
use batching::{Demand, JobShape, choose_shape};
use config::TaskSettings;
use driver::Driver;
use jobs::split_into_arrays;
use parse::ClusterFacts;
use script::{ScriptContents, build_script};

pub use batch_file::{CheckOutput, WorkerSettings};
pub use client::{Client, PASSED_VARIABLES};
pub use config::SlurmConfig;
pub use doctor::{ClusterCheck, check_cluster};
pub use judge::{EXIT_REFUSED, EXIT_SUPERSEDED};
pub use worker::{JobIdentity, Slice, SliceEnd};

/// SLURM's default of the number of elements of an array.
const DEFAULT_ARRAY_SIZE: u64 = 1001;

/// Settings of the backend.
#[derive(Clone, Debug)]
pub struct SlurmOptions {
    /// Resources of jobs, and their number.
    pub config: SlurmConfig,
    /// This program, at a path that exists on all nodes.
    pub program: PathBuf,
    /// Settings of the workers.
    pub worker: WorkerSettings,
    /// Time in which results of a job can appear on this machine after the job has left the queue.
    pub grace: Duration,
}

/// The SLURM backend.
pub struct Slurm {
    options: SlurmOptions,
    client: Client,
    /// Prepares modules, and describes tasks.
    local: Arc<Local>,
    facts: OnceLock<ClusterFacts>,
}

impl Slurm {
    /// * `local`: prepares modules on this machine.
    pub fn new(options: SlurmOptions, client: Client, local: Arc<Local>) -> Self {
        Self {
            options,
            client,
            local,
            facts: OnceLock::new(),
        }
    }

    fn max_array_size(&self, cancel: &CancelToken) -> u64 {
        match self.facts(cancel) {
            Some(facts) => facts.max_array_size,
            None => DEFAULT_ARRAY_SIZE,
        }
    }

    fn facts(&self, cancel: &CancelToken) -> Option<&ClusterFacts> {
        if let Some(facts) = self.facts.get() {
            return Some(facts);
        }
        let facts = self.client.facts(cancel).ok()?;
        Some(self.facts.get_or_init(|| facts))
    }

    /// Settings and shape of the jobs of a task.
    fn shape(
        &self,
        task: &TaskSpec,
        n_calls: usize,
        problems: &mut Problems,
    ) -> Result<(TaskSettings, JobShape), String> {
        let mut settings = self.options.config.for_task(&task.resources, problems);
        // A memory limit that somebody asked for is what a call needs.
        if settings.job.mem_mb.is_none() && task.reserves_memory {
            settings.job.mem_mb = Some(task.limits.memory_bytes.div_ceil(1_000_000));
        }
        let demand = Demand {
            n_calls: (n_calls as u64).max(1),
            cpus: settings.job.cpus(),
            mem_mb: settings.job.mem_mb.unwrap_or_default(),
            tasks_per_job: settings.tasks_per_job,
            parallel_tasks_per_job: settings.parallel_tasks_per_job,
        };
        let shape = choose_shape(&demand, &self.options.config.batching)?;
        Ok((settings, shape))
    }

    /// Text of a dry run: the plan of the arrays of a task, and its script.
    fn preview_task(&self, task: &TaskSpec, n_calls: usize, work_dir: &Path) -> String {
        let (settings, shape) = match self.shape(task, n_calls, &mut Problems::default()) {
            Ok(shaped) => shaped,
            Err(text) => return text,
        };
        let n_jobs = usize::try_from(shape.n_jobs(n_calls as u64)).unwrap_or(usize::MAX);
        let max_array_size = self.max_array_size(&CancelToken::new());
        let arrays = split_into_arrays(n_jobs, max_array_size);
        let sizes: Vec<_> = arrays.iter().map(|(_, n)| n.to_string()).collect();
        let batch_file = work_dir.join("BATCH").join(batch_file::BATCH_FILE);
        let script = build_script(&ScriptContents {
            settings: &settings.job,
            program: &self.options.program,
            batch_file: &batch_file,
            parallel: shape.parallel,
            rounds: shape.rounds(),
            first_slice: 0,
            n_slices: arrays.first().map_or(1, |(_, n)| *n),
        });
        format!(
            "{n_calls} calls in {n_jobs} jobs of at most {} calls, {} at a time; arrays of {} \
             jobs\n{script}",
            n_calls.div_ceil(n_jobs.max(1)),
            shape.parallel,
            sizes.join(", ")
        )
    }
}

impl Modules for Slurm {
    fn prepare(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String> {
        self.local.prepare(module, limits, time)
    }

    fn prepare_known(
        &self,
        path: &Path,
        limits: &Limits,
        max_bytes: u64,
        has_snapshot: bool,
    ) -> Option<(String, ModuleKind)> {
        self.local
            .prepare_known(path, limits, max_bytes, has_snapshot)
    }

    fn prepare_snapshots(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String> {
        self.local.prepare_snapshots(module, limits, time)
    }

    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        self.local.describe(module, limits)
    }
}

impl Backend for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn settings(&self) -> String {
        self.local.settings()
    }

    fn check_task(&self, task: &TaskSpec, problems: &mut Problems) -> Result<(), String> {
        // A list of one call has the smallest jobs; the number of calls is not known yet.
        self.shape(task, 1, problems).map(drop)
    }

    fn preview(&self, task: &TaskSpec, n_calls: usize, work_dir: &Path) -> Option<String> {
        Some(self.preview_task(task, n_calls, work_dir))
    }

    fn start(&self, _: &[Grant]) -> Vec<String> {
        // The workers find the compiled modules there, if they see the same folder.
        self.local.write_cache();
        let program = self.options.program.display();
        vec![match self.facts(&CancelToken::new()) {
            Some(facts) => format!(
                "calls run as jobs of SLURM {} (cluster {}), which start {program}",
                facts.version, facts.cluster
            ),
            None => format!("calls run as jobs of SLURM, which start {program}"),
        }]
    }

    fn run_calls(
        &self,
        calls: &Arc<BatchCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        if calls.cancel().is_cancelled() || calls.n_pending() == 0 {
            return Ok(());
        }
        let task = &calls.batch().task;
        let shaped = self.shape(task, calls.n_pending(), &mut Problems::default());
        let (settings, shape) = shaped.map_err(|message| HostError::Setup {
            action: "plan the jobs of a task",
            source: message.into(),
        })?;
        Driver::new(self, calls, settings, shape, observe)?.run()
    }
}
