//! From documents and paths to a run that can start, with every problem told first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::check_folders;
use super::process_workflow::ProcessWorkflow;
use crate::backend::Backend;
use crate::backend::calls::Retries;
use crate::fractal::package::TaskPackage;
use crate::fractal::v1::local_config::LocalConfig;
use crate::fractal::v1::parameters::{DEFAULT_TASKS_INCLUDE_IMAGE, TaskParameters};
use crate::json::{Map, Value};
use crate::model::{CancelToken, Grant};
use crate::plan::planned::normalized;
use crate::plan::{Plan, PlanRequest, PlannedTask, Policy, build_plan};
use crate::problem::{Place, Problems};
use crate::run::Error;
use crate::trace;
use crate::workdir::{TaskFiles, WorkDir};

/// What mandelbox has beside the parameters of Fractal's function.
pub struct RunOptions {
    /// Where calls run.
    pub backend: Arc<dyn Backend>,
    /// Packages that the workflow's sources are looked up in.
    pub packages: Vec<TaskPackage>,
    /// The local backend's configuration.
    pub local_config: LocalConfig,
    /// What the operator allows: limits of each call, and what packages may have beside them.
    pub policy: Policy,
    /// Type of the input dataset; `None`: not checked.
    pub input_type: Option<String>,
    /// Type of the output dataset; `None`: not checked.
    pub output_type: Option<String>,
    /// Names of tasks whose component calls get `metadata["image"]`.
    pub tasks_include_image: Vec<String>,
    /// Whether all components of a task run although one has failed.
    pub keep_going: bool,
    /// Which calls leave their files in the work directory.
    pub task_files: TaskFiles,
    /// Ends the run from another thread.
    pub cancel: CancelToken,
    /// Whether the work directory may hold an earlier run of the workflow, whose calls that ended
    /// well are not made again unless something has changed that they depend on. One that holds
    /// nothing is begun; any other is refused.
    pub resume: bool,
    /// Whether the work directory gets a number behind its name where there is one already:
    /// [`WorkDir::make_new`] makes it before the run, and [`PreparedRun::work_dir`] is set to it.
    pub numbers_work_dir: bool,
    /// Order or name of the task from which on no result of the earlier run is kept; `None`: all
    /// that count are.
    pub rerun_from: Option<String>,
    /// Whether calls that end with a JobExecutionError are tried again.
    pub retries: Retries,
}

impl RunOptions {
    /// The defaults, with a backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            packages: Vec::new(),
            local_config: LocalConfig::default(),
            policy: Policy::default(),
            input_type: None,
            output_type: None,
            tasks_include_image: DEFAULT_TASKS_INCLUDE_IMAGE.map(str::to_owned).to_vec(),
            keep_going: false,
            task_files: TaskFiles::All,
            cancel: CancelToken::new(),
            resume: false,
            numbers_work_dir: false,
            rerun_from: None,
            retries: Retries::default(),
        }
    }
}

/// A run that can start: all was checked, nothing was written.
pub struct PreparedRun {
    /// What will run.
    pub plan: Plan,
    /// What the first task gets.
    pub parameters: TaskParameters,
    /// Folders that every call sees.
    pub grants: Vec<Grant>,
    /// The work directory, which [`Self::run`] makes.
    pub work_dir: PathBuf,
    pub(super) logger_name: String,
    /// Order of the first task whose earlier results do not count.
    pub(super) rerun_from: Option<u64>,
    pub(super) options: RunOptions,
}

/// Why a run ended badly, and the dataset as it is then.
pub struct RunFailure {
    /// The error.
    pub error: Error,
    /// Metadata after the last task that ended well; its history ends with the failed task's item.
    /// `None` if the run did not start.
    pub dataset: Option<TaskParameters>,
}

impl From<Error> for RunFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            dataset: None,
        }
    }
}

impl std::fmt::Display for RunFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.error, f)
    }
}

impl std::fmt::Debug for RunFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.error, f)
    }
}

impl std::error::Error for RunFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Checks everything that can be checked before the run. Problems are added to those in `problems`;
/// the run counts only if there is none.
pub fn prepare(
    arguments: &ProcessWorkflow,
    options: RunOptions,
    problems: &mut Problems,
) -> PreparedRun {
    let _span = trace::prepare(&arguments.workflow.name).entered();
    let input_paths: Vec<_> = arguments
        .input_paths
        .iter()
        .map(|path| normalized(path))
        .collect();
    let output_path = normalized(&arguments.output_path);
    let work_dir = std::path::absolute(&arguments.workflow_dir_local)
        .unwrap_or_else(|_| arguments.workflow_dir_local.clone());
    let plan = build_plan(
        &PlanRequest {
            workflow: &arguments.workflow,
            packages: &options.packages,
            metadata: Some(&arguments.input_metadata),
            first_task_index: arguments.first_task_index,
            last_task_index: arguments.last_task_index,
            input_type: options.input_type.as_deref(),
            output_type: options.output_type.as_deref(),
            local_config: options.local_config,
            policy: &options.policy,
            backend: options.backend.as_ref(),
        },
        problems,
    );
    let grants = check_folders(
        &input_paths,
        &output_path,
        &work_dir,
        "--work-dir",
        problems,
    );
    let obstacle = match (options.resume, options.numbers_work_dir) {
        (true, _) => WorkDir::obstacle_to_resume(&work_dir),
        (false, false) => WorkDir::obstacle(&work_dir),
        (false, true) => None,
    };
    if let Some(obstacle) = obstacle {
        problems.add(work_dir_place(&work_dir), obstacle.to_string());
    }
    warn_of_memory(&plan, options.backend.as_ref(), problems);
    let parameters = TaskParameters {
        input_paths,
        output_path,
        metadata: arguments.input_metadata.clone(),
        history: arguments.input_history.clone(),
    };
    let rerun_from = options
        .rerun_from
        .as_deref()
        .and_then(|task| find_task(&plan, task, problems));
    let plan = Plan {
        warnings: problems.warnings().to_vec(),
        ..plan
    };
    let logger_name = arguments.logger_name.clone();
    PreparedRun {
        plan,
        parameters,
        grants,
        work_dir,
        logger_name,
        rerun_from,
        options,
    }
}

/// The order of the task that `--rerun-from` names.
///
/// * `named`: its order, or its name.
fn find_task(plan: &Plan, named: &str, problems: &mut Problems) -> Option<u64> {
    // Without a plan there are other problems to tell.
    if plan.tasks.is_empty() {
        return None;
    }
    let orders = |is_meant: &dyn Fn(&PlannedTask) -> bool| -> Vec<u64> {
        plan.tasks
            .iter()
            .filter(|task| is_meant(task))
            .map(|task| task.order)
            .collect()
    };
    let mut found = orders(&|task| named.parse() == Ok(task.order));
    if found.is_empty() {
        found = orders(&|task| task.name == named);
    }
    if let [order] = found[..] {
        return Some(order);
    }
    let tasks: Vec<_> = plan
        .tasks
        .iter()
        .map(|task| format!("{} \"{}\"", task.order, task.name))
        .collect();
    let text = match found.len() {
        0 => "no task that runs has this order or name",
        _ => "more than one task has this name; give its order",
    };
    let place = Place::Parameter(format!("--rerun-from {named}"));
    problems.add(place, format!("{text}; the tasks are {}", tasks.join(", ")));
    None
}

/// Says of which tasks fewer calls run at a time, for the memory that each may have.
fn warn_of_memory(plan: &Plan, backend: &dyn Backend, problems: &mut Problems) {
    let mut orders_by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in &plan.tasks {
        if let Some(text) = backend.holds_back(task) {
            orders_by_text
                .entry(text)
                .or_default()
                .push(task.order.to_string());
        }
    }
    for (text, orders) in orders_by_text {
        let place = format!(
            "task{} {}",
            if orders.len() == 1 { "" } else { "s" },
            orders.join(", ")
        );
        problems.warn(Place::Parameter(place), text);
    }
}

/// Where problems of the work directory stand.
pub(super) fn work_dir_place(work_dir: &Path) -> Place {
    Place::Parameter(format!("work directory {}", work_dir.display()))
}

impl TaskParameters {
    /// What a run gives back, to be written as JSON: metadata and history.
    pub fn result(&self) -> impl serde::Serialize {
        #[derive(serde::Serialize)]
        struct RunResult<'a> {
            metadata: &'a Map<String, Value>,
            history: &'a [Value],
        }
        RunResult {
            metadata: &self.metadata,
            history: &self.history,
        }
    }
}
