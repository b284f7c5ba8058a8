//! From documents and paths to a run that can start, with every problem told first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::check_folders;
use crate::backend::Backend;
use crate::fractal::dialect::{Dialect, Preview};
use crate::json::{Map, Value};
use crate::model::{CancelToken, Grant, Retries, TaskFiles, TaskSpec};
use crate::plan::{Policy, ProcessWorkflow, RunPlan, plan_run};
use crate::problem::{Location, Problems};
use crate::run::Error;
use crate::trace;
use crate::workdir::WorkDir;

/// What mandelbox has beside the parameters of Fractal's function.
pub struct RunOptions {
    /// Where calls run.
    pub backend: Arc<dyn Backend>,
    /// What the operator allows: limits of each call, and what packages may have beside them.
    pub policy: Policy,
    /// Whether all items of a task run although one has failed.
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
            policy: Policy::default(),
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
    pub plan: RunPlan,
    /// The dataset at the start; taken when the run is executed.
    pub(super) dialect: Option<Box<dyn Dialect>>,
    /// What users call an item of a task.
    pub(super) item_kind: &'static str,
    /// Folders that every call sees.
    pub grants: Vec<Grant>,
    /// The work directory, which [`Self::execute`] creates.
    pub work_dir: PathBuf,
    pub(super) logger_name: String,
    /// Order of the first task whose earlier results do not count.
    pub(super) rerun_from: Option<u64>,
    pub(super) options: RunOptions,
}

/// Why a run failed, and its result as far as it came.
#[non_exhaustive]
pub struct RunFailure {
    /// The error.
    pub error: Error,
    /// The result, as `result.json` has it. It is that of the last task that succeeded, and its
    /// history ends with the failed task. `None` if the run did not start.
    pub result: Option<Map<String, Value>>,
}

impl From<Error> for Box<RunFailure> {
    fn from(error: Error) -> Self {
        Self::new(RunFailure {
            error,
            result: None,
        })
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
pub(crate) fn prepare(
    arguments: &ProcessWorkflow,
    options: RunOptions,
    problems: &mut Problems,
) -> PreparedRun {
    let _span = trace::prepare(&arguments.workflow.name).entered();
    let work_dir = std::path::absolute(&arguments.workflow_dir_local)
        .unwrap_or_else(|_| arguments.workflow_dir_local.clone());
    let backend: &dyn Backend = options.backend.as_ref();
    let (mut plan, dialect) = plan_run(arguments, &options.policy, backend, problems);
    let grants = check_folders(
        &plan.input_paths,
        &plan.output_path,
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
    warn_of_memory(&plan, backend, problems);
    let rerun_from = options.rerun_from.as_deref();
    let rerun_from = rerun_from.and_then(|task| find_task(&plan, task, problems));
    plan.warnings = problems.warnings().to_vec();
    PreparedRun {
        plan,
        item_kind: dialect.item_kind(),
        dialect: Some(dialect),
        grants,
        work_dir,
        logger_name: arguments.logger_name.clone(),
        rerun_from,
        options,
    }
}

impl PreparedRun {
    /// What a dry run shows of a task.
    pub(crate) fn preview(&self, task: &TaskSpec) -> Preview {
        let dialect = self.dialect.as_ref().expect("a run is executed once");
        dialect.preview(task)
    }
}

/// The order of the task that `--rerun-from` names.
///
/// * `named`: its order, or its name.
fn find_task(plan: &RunPlan, named: &str, problems: &mut Problems) -> Option<u64> {
    // Without a plan there are other problems to tell.
    if plan.tasks.is_empty() {
        return None;
    }
    let orders = |is_meant: &dyn Fn(&TaskSpec) -> bool| -> Vec<u64> {
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
    let place = Location::Parameter(format!("--rerun-from {named}"));
    problems.add(place, format!("{text}; the tasks are {}", tasks.join(", ")));
    None
}

/// Says of which tasks fewer calls run at a time, for the memory that each may have.
fn warn_of_memory(plan: &RunPlan, backend: &dyn Backend, problems: &mut Problems) {
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
        problems.warn(Location::Parameter(place), text);
    }
}

/// Where problems of the work directory stand.
pub(super) fn work_dir_place(work_dir: &Path) -> Location {
    Location::Parameter(format!("work directory {}", work_dir.display()))
}
