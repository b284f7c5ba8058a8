//! Plans a run of a workflow of version 2.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::interpreter::{Program, ScriptHome};
use super::module_loader::{ModuleLoader, WantedModule};
use super::planned::check_orders;
use super::planner::set_start_and_last_task_index;
use super::requested::{read_requested, read_resources};
use super::{DatasetJob, Policy, RunPlan};
use crate::fractal::args::schema::{SchemaBudget, check_args};
use crate::fractal::command::command_words;
use crate::fractal::dialect::Dialect;
use crate::fractal::local_config::LocalConfig;
use crate::fractal::v2::{
    Dataset, Package, Selection, Side, TaskDetails, TaskDocument, TaskReference, WorkflowDocument,
    WorkflowTask, find_task, overridden_filters, pre_checks,
};
use crate::json::{Map, Value};
use crate::model::{Modules, TaskSpec};
use crate::problem::{Cursor, Location, Problems};

const NO_TASKS: &str = "the workflow has no tasks; add one";

/// Plans the tasks of a workflow of version 2, without a dataset.
pub(crate) struct DatasetPlanner<'a> {
    workflow: &'a WorkflowDocument,
    packages: &'a [Package],
    local_config: LocalConfig,
    policy: &'a Policy,
    modules: ModuleLoader<'a>,
    schemas: SchemaBudget,
    /// Messages about packages and modules that are missing. Each is reported for the first task
    /// that needs it.
    reported: HashSet<String>,
}

impl<'a> DatasetPlanner<'a> {
    /// Creates a planner.
    pub(crate) fn new(
        workflow: &'a WorkflowDocument,
        packages: &'a [Package],
        policy: &'a Policy,
        modules: &'a dyn Modules,
    ) -> Self {
        Self {
            workflow,
            packages,
            local_config: LocalConfig::default(),
            policy,
            modules: ModuleLoader::new(policy, modules),
            schemas: SchemaBudget::default(),
            reported: HashSet::new(),
        }
    }

    /// Plans all tasks, for a check of the workflow without a dataset. Adds their problems to
    /// `problems`.
    ///
    /// Returns the order of each task that could be planned, its details and its first batch.
    #[cfg(feature = "cli")]
    pub(crate) fn plan_all(
        &mut self,
        problems: &mut Problems,
    ) -> Vec<(u64, TaskDetails, TaskSpec)> {
        let workflow = self.workflow;
        check_workflow_orders(workflow, problems);
        // A list whose entries cannot be read has other problems.
        if workflow.task_list.is_empty() && problems.is_empty() {
            problems.add(list_location(workflow), NO_TASKS);
        }
        let mut planned = Vec::with_capacity(workflow.task_list.len());
        for entry in &workflow.task_list {
            if let Some((details, Some(spec))) = self.plan_task(entry, true, problems) {
                planned.push((entry.order, details, spec));
            }
        }
        planned
    }

    /// Plans one call of a task, without a workflow. Adds its problems to `problems`.
    ///
    /// * `folder`: folder that the executables of the task are relative to.
    /// * `args`: arguments without those that the runner fills in, and their file.
    #[cfg(feature = "cli")]
    pub(crate) fn plan_call(
        task: &TaskDocument,
        folder: &Path,
        side: Side,
        (args, file): (&Map<String, Value>, &Path),
        policy: &Policy,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> Option<TaskSpec> {
        let workflow = WorkflowDocument {
            file: file.to_owned(),
            folder: folder.to_owned(),
            name: task.name.clone(),
            task_list: Vec::new(),
        };
        let entry = WorkflowTask::of_task(task, file);
        let mut planner = DatasetPlanner::new(&workflow, &[], policy, modules);
        if let Some(schema) = task.schema(side) {
            let location = |at: &str| Location::Pointer {
                file: file.to_owned(),
                pointer: at.to_owned(),
            };
            check_args(&schema, args, location, &mut planner.schemas, problems);
        }
        planner.spec(&entry, task, folder, side, problems)
    }

    /// Plans one task. Adds its problems to `problems`.
    ///
    /// * `runs`: false for a task that is only checked, because it is not in the range of the run.
    ///
    /// Returns the details of the task, and its first batch if it runs.
    pub(crate) fn plan_task(
        &mut self,
        entry: &'a WorkflowTask,
        runs: bool,
        problems: &mut Problems,
    ) -> Option<(TaskDetails, Option<TaskSpec>)> {
        let (task, folder) = self.find(entry, problems)?;
        let mut details = entry.details(task, problems);
        for side in Side::ALL {
            self.check_args(entry, task, side, problems);
        }
        if !runs {
            return Some((details, None));
        }
        let [single, parallel] = Side::ALL.map(|side| {
            task.side(side)?;
            self.spec(entry, task, &folder, side, problems)
        });
        let spec = match (single, parallel) {
            (Some(single), parallel) => {
                details.compute = parallel;
                Some(single)
            }
            (None, parallel) => parallel,
        };
        Some((details, spec))
    }

    /// Returns the task of an entry, and the folder that its executables are relative to.
    fn find(
        &mut self,
        entry: &'a WorkflowTask,
        problems: &mut Problems,
    ) -> Option<(&'a TaskDocument, PathBuf)> {
        let (pkg_name, version, name) = match &entry.task {
            TaskReference::Inline(task) => {
                return Some((task, self.workflow.folder.clone()));
            }
            TaskReference::Package {
                pkg_name,
                version,
                name,
            } => (pkg_name, version.as_deref(), name),
        };
        match find_task(self.packages, pkg_name, version, name) {
            Ok(found) => {
                if version.is_none() {
                    let text = format!(
                        "no version is given; version {} of {pkg_name} is used, the only one",
                        found.package.version
                    );
                    problems.warn(entry.location_of("task"), text);
                }
                Some((found.task, found.package.folder.clone()))
            }
            Err(message) => {
                // The problem of a package that could not be read, whose name may not be known
                // either, was reported before.
                if !self.packages.iter().any(|package| package.is_refused) {
                    self.add_once(entry.location_of("task"), message, problems);
                }
                None
            }
        }
    }

    fn add_once(&mut self, location: Location, message: String, problems: &mut Problems) {
        if self.reported.insert(message.clone()) {
            problems.add(location, message);
        }
    }

    /// Checks the arguments of one kind of calls against their schema. Defaults of the schema are
    /// not filled in, as in Fractal.
    ///
    /// Source: conformance rules V17 and V29, defect W4.
    fn check_args(
        &mut self,
        entry: &WorkflowTask,
        task: &TaskDocument,
        side: Side,
        problems: &mut Problems,
    ) {
        if let Some(schema) = task.schema(side) {
            let args = &entry.side(side).args;
            let location = |at: &str| entry.location_of(&format!("args_{}{at}", side.name()));
            check_args(&schema, args, location, &mut self.schemas, problems);
        }
    }

    /// Returns what the calls of one kind have in common.
    fn spec(
        &mut self,
        entry: &WorkflowTask,
        task: &TaskDocument,
        folder: &Path,
        side: Side,
        problems: &mut Problems,
    ) -> Option<TaskSpec> {
        let meta = Value::Object(entry.merged_meta(task, side));
        let meta_of = |key: &str| entry.meta_cursor(task, side, &meta, key);
        let requested = read_requested(meta_of, folder, self.policy, problems);
        let resources = read_resources(meta_of, meta.as_object().unwrap_or(&Map::new()));
        let policy = self.policy;
        let (limits, lowered) =
            policy
                .default
                .clamp_to(requested.memory_bytes, requested.wall_time, &policy.maximum);
        if let Some(text) = lowered {
            problems.warn(entry.location_of(&format!("meta_{}", side.name())), text);
        }
        let max_parallel = match side {
            Side::NonParallel => None,
            Side::Parallel => entry.max_parallel(task, self.local_config, problems),
        };
        let is_inline = matches!(entry.task, TaskReference::Inline(_));
        let start = if is_inline { "command" } else { "executable" };
        let executable = Value::String(task.side(side)?.executable.clone());
        let (file, pointer) = &task.origin;
        let pointer = format!("{pointer}/{start}_{}", side.name());
        let executable = Cursor::at(file, pointer, &executable);
        let command = command_words(&executable, is_inline, folder, problems)?;
        let home = match &entry.task {
            TaskReference::Inline(_) => ScriptHome::Workflow {
                folder,
                allowed: &policy.mounts,
            },
            // A module or script that is called alone, and is in no package.
            TaskReference::Package { .. } if folder.as_os_str().is_empty() => ScriptHome::Operator,
            TaskReference::Package { .. } => ScriptHome::Package(folder),
        };
        let program = self
            .modules
            .program(&command.named(), &command.module, home);
        let program = program
            .map_err(|text| self.add_once(executable.location(), text, problems))
            .ok()?;
        let path = program.as_ref().map(|program| &program.module);
        let snapshot = policy.snapshot(
            requested.snapshot || Program::wants_snapshot(program.as_ref()),
            || Program::start_mounts(program.as_ref(), &requested.mounts),
        );
        let wanted = WantedModule {
            path: path.unwrap_or(&command.module).clone(),
            limits: &limits,
            script: program.as_ref().map(|program| &program.script),
            sha256: requested.sha256.as_deref(),
            has_snapshot: snapshot.is_some(),
            location: executable.location(),
        };
        let mut found = Problems::default();
        let loaded = self.modules.load(wanted, || command.advice(), &mut found);
        for problem in found.iter() {
            self.add_once(problem.location.clone(), problem.message.clone(), problems);
        }
        let (module, kind) = loaded?;
        let (script, args, mounts) = Program::into_parts(program);
        Some(TaskSpec {
            order: entry.order,
            name: task.name.clone(),
            id: None,
            module,
            kind,
            script,
            fixed_args: args.into_iter().chain(command.fixed_args).collect(),
            is_single: side == Side::NonParallel,
            max_parallel,
            reserves_memory: requested.memory_bytes.is_some() || policy.reserves_memory,
            n_cpus: requested.n_cpus.unwrap_or(NonZeroUsize::MIN),
            limits,
            env: requested.env,
            mounts: [requested.mounts, mounts].concat(),
            resources,
            snapshot,
        })
    }
}

/// Plans a job. Adds problems to `problems`; the plan is valid only if there are none.
pub(super) fn plan_dataset_job(
    job: &DatasetJob,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> (RunPlan, Box<dyn Dialect>) {
    let entries = &job.workflow.task_list;
    let task_range = task_range(job, problems);
    check_workflow_orders(&job.workflow, problems);
    let mut planner = DatasetPlanner {
        local_config: job.local_config,
        ..DatasetPlanner::new(&job.workflow, &job.packages, policy, modules)
    };
    let mut specs = Vec::new();
    let mut details = BTreeMap::new();
    let mut all = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let runs = task_range.is_some_and(|(first, last)| (first..=last).contains(&index));
        let planned = planner.plan_task(entry, runs, problems);
        if let Some((task, Some(spec))) = &planned {
            details.insert(entry.order, task.clone());
            specs.push(spec.clone());
        }
        all.push(planned.map(|(task, _)| (entry.order, task)));
    }
    if problems.is_empty() {
        warn_of_selection(job, &specs, &details, &all, task_range, problems);
    }
    let zarr_dir = PathBuf::from(&job.dataset.zarr_dir);
    // Without a dataset there are other problems.
    if !zarr_dir.is_absolute() && !job.dataset.zarr_dir.is_empty() {
        let text = "must be a folder of this machine: an absolute path";
        let name = format!("zarr_dir {}", job.dataset.zarr_dir);
        problems.add(Location::Parameter(name), text);
    }
    let plan = RunPlan {
        workflow_name: job.workflow.name.clone(),
        task_range,
        tasks: specs,
        warnings: problems.warnings().to_vec(),
        input_paths: job.read_paths.clone(),
        output_path: zarr_dir,
        output_option: "--zarr-dir",
        only: job.only.globs(),
        input_metadata_keys: Vec::new(),
    };
    let dataset = Dataset::new(
        job.dataset.clone(),
        job.filters.clone(),
        job.statuses.clone(),
        details,
    );
    let dataset = dataset.only(job.only.clone()).max_items(policy.task_items);
    (plan, Box::new(dataset))
}

/// Returns the indices of the first and the last task that run.
///
/// Source: conformance rules V23, V30 and V32.
fn task_range(job: &DatasetJob, problems: &mut Problems) -> Option<(usize, usize)> {
    let n_tasks = job.workflow.task_list.len();
    if n_tasks == 0 {
        if problems.is_empty() {
            problems.add(list_location(&job.workflow), NO_TASKS);
        }
        return None;
    }
    match set_start_and_last_task_index(n_tasks, job.first_task_index, job.last_task_index) {
        Ok(range) => Some(range),
        Err(message) => {
            let location = Location::Parameter("--first-task, --last-task".to_owned());
            problems.add(location, message);
            None
        }
    }
}

fn list_location(workflow: &WorkflowDocument) -> Location {
    Location::Pointer {
        file: workflow.file.clone(),
        pointer: "/task_list".to_owned(),
    }
}

fn check_workflow_orders(workflow: &WorkflowDocument, problems: &mut Problems) {
    let entries = workflow.task_list.iter();
    let orders = entries.map(|entry| (entry.order, entry.location_of("order")));
    check_orders(orders, problems);
}

/// Warns of images that the run may skip or get by mistake.
///
/// * `details`: the tasks of the run, by their orders.
/// * `all`: the tasks of the workflow, with their orders.
fn warn_of_selection(
    job: &DatasetJob,
    specs: &[TaskSpec],
    details: &BTreeMap<u64, TaskDetails>,
    all: &[Option<(u64, TaskDetails)>],
    task_range: Option<(usize, usize)>,
    problems: &mut Problems,
) {
    let tasks = specs
        .iter()
        .map(|spec| (spec.order, spec.name.as_str(), &details[&spec.order]));
    for text in overridden_filters(&job.filters.types, tasks) {
        problems.warn(Location::Parameter("--type-filter".to_owned()), text);
    }
    let Some((index, _)) = task_range else { return };
    let Some((order, first)) = &all[index] else {
        return;
    };
    let previous = index.checked_sub(1).and_then(|index| all[index].as_ref());
    let previous = previous.map(|(order, task)| (*order, task));
    let selection = Selection {
        dataset: &job.dataset,
        statuses: &job.statuses,
        filters: &job.filters,
    };
    for text in pre_checks(&selection, (*order, first), previous) {
        problems.warn(Location::Parameter(format!("task {order}")), text);
    }
}
