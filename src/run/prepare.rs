//! Documents and paths → a run that can start, or every problem at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arg_paths::warn_of_paths;
use super::builder::default_work_dir;
use super::folders::{check_folders, holds, real_path};
use crate::backend::Backend;
use crate::fractal::dialect::Dialect;
use crate::json::{Map, Value};
use crate::model::{CancelToken, Grant, Retries, TaskFiles, TaskSpec};
use crate::plan::{Job, Policy, RunPlan};
use crate::problem::{Location, Problems};
use crate::run::Error;
use crate::trace;
use crate::workdir::WorkDir;
#[cfg(feature = "cli")]
use crate::workdir::layout::PACKAGES_DIR;

/// Settings of a run in addition to the parameters of Fractal's function.
pub struct RunOptions {
    /// Backend of the calls.
    pub backend: Arc<dyn Backend>,
    /// Limits of each call, and what packages may ask for.
    pub policy: Policy,
    /// True if all calls of a task run although one has failed. Default: false.
    pub keep_going: bool,
    /// Calls that leave their files in the work directory.
    pub task_files: TaskFiles,
    /// Token that cancels the run from another thread.
    pub cancel: CancelToken,
    /// True to resume the run in the work directory: calls that succeeded are not rerun unless
    /// something that they depend on has changed. An empty work directory starts a new run.
    /// Default: false, the work directory must be new.
    pub resume: bool,
    /// Order or name of the first task of which a resumed run reuses no result. Default: `None`,
    /// all results that count are reused.
    pub rerun_from: Option<String>,
    /// Retries of calls that end with a JobExecutionError.
    pub retries: Retries,
    /// False if there is no `workflow.log`, because the program that starts the run has a log of
    /// its own. It gets the lines from [`LogLines`](crate::report::LogLines). Default: true.
    pub log_file: bool,
    /// True if a new run may have a work directory that contains `workflow.log` and folders of
    /// tasks already. Default: false.
    pub prepared_work_dir: bool,
    /// True if an input may be inside the output. Tasks can then write to it. Default: false.
    pub input_in_output: bool,
}

impl RunOptions {
    /// The defaults, with a backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            policy: Policy::default(),
            keep_going: false,
            task_files: TaskFiles::default(),
            cancel: CancelToken::new(),
            resume: false,
            rerun_from: None,
            retries: Retries::default(),
            log_file: true,
            prepared_work_dir: false,
            input_in_output: false,
        }
    }
}

/// A run that can start: all was checked, nothing was written.
pub struct PreparedRun {
    /// Tasks and folders of the run.
    pub plan: RunPlan,
    /// The dataset at the start; taken when the run is executed.
    pub(super) dialect: Option<Box<dyn Dialect>>,
    /// Word of the users for an item of a task.
    pub(super) item_kind: &'static str,
    /// Folders that every call sees.
    pub grants: Vec<Grant>,
    /// The work directory, which [`Self::execute`] creates.
    pub work_dir: PathBuf,
    pub(super) logger_name: String,
    /// Order of the first task whose earlier results do not count.
    pub(super) rerun_from: Option<u64>,
    /// True to append a number to the name of the work directory if it exists.
    pub(super) numbers_work_dir: bool,
    /// Folders of packages, and the names of their copies in the work directory.
    pub(super) packages: Vec<(PathBuf, String)>,
    pub(super) options: RunOptions,
}

/// Reason why a run failed, and its result up to then.
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

/// Paths of the files and folders of a package that the calls of a task use.
#[cfg(feature = "cli")]
fn task_paths(task: &mut TaskSpec) -> impl Iterator<Item = &mut PathBuf> {
    let script = task.script.as_mut().map(|script| &mut script.path);
    let mounts = task.mounts.iter_mut().map(|mount| &mut mount.host_path);
    [&mut task.module.path]
        .into_iter()
        .chain(script)
        .chain(mounts)
}

/// Checks everything that can be checked before the run. Problems are added to those in `problems`;
/// the run counts only if there is none.
pub(crate) fn prepare(job: &dyn Job, options: RunOptions, problems: &mut Problems) -> PreparedRun {
    let _span = trace::prepare(job.workflow_name()).entered();
    // Of the runs that start within the same second, each gets another folder when it is created.
    let numbers_work_dir = job.work_dir().as_os_str().is_empty();
    let work_dir = if numbers_work_dir {
        default_work_dir(job.workflow_name())
    } else {
        std::path::absolute(job.work_dir()).unwrap_or_else(|_| job.work_dir().to_owned())
    };
    let backend: &dyn Backend = options.backend.as_ref();
    let (mut plan, dialect) = job.plan(&options.policy, backend, problems);
    let grants = check_folders(
        &plan.input_paths,
        (&plan.output_path, plan.output_option),
        (&work_dir, "--work-dir"),
        options.input_in_output,
        problems,
    );
    let obstacle = match (options.resume, numbers_work_dir) {
        (true, _) => WorkDir::obstacle_to_resume(&work_dir),
        (false, false) => WorkDir::obstacle_in(&work_dir, options.prepared_work_dir),
        (false, true) => None,
    };
    if let Some(obstacle) = obstacle {
        problems.add(work_dir_location(&work_dir), obstacle.to_string());
    }
    check_script_mounts(&plan, &work_dir, problems);
    check_tasks(&plan, backend, problems);
    warn_of_held_back_calls(&plan, backend, problems);
    warn_of_paths(&plan, dialect.as_ref(), &grants, problems);
    let rerun_from = options.rerun_from.as_deref();
    let rerun_from = rerun_from.and_then(|task| find_task(&plan, task, problems));
    plan.warnings = problems.warnings().to_vec();
    PreparedRun {
        plan,
        item_kind: dialect.item_kind(),
        dialect: Some(dialect),
        grants,
        work_dir,
        logger_name: job.logger_name().to_owned(),
        rerun_from,
        numbers_work_dir,
        packages: Vec::new(),
        options,
    }
}

#[cfg(feature = "cli")]
impl PreparedRun {
    /// Lets calls use copies of package folders, which the run makes in its work directory: the
    /// machines that run the calls may see no other folder.
    ///
    /// * `folders`: each folder, and a name for its copy.
    pub(crate) fn copy_packages(&mut self, folders: Vec<(PathBuf, String)>) {
        let packages = self.work_dir.join(PACKAGES_DIR);
        for (folder, name) in folders {
            let sources = [folder.clone(), real_path(&folder)];
            let copy = packages.join(&name);
            let mut is_used = false;
            for path in self.plan.tasks.iter_mut().flat_map(task_paths) {
                let rest = sources
                    .iter()
                    .find_map(|source| path.strip_prefix(source).ok());
                if let Some(rest) = rest {
                    // Without the separator at the end that an empty rest would add.
                    *path = copy.iter().chain(rest).collect();
                    is_used = true;
                }
            }
            if is_used {
                self.packages.push((folder, name));
            }
        }
    }

    /// Returns what a dry run shows of a task.
    pub(crate) fn preview(&self, task: &TaskSpec) -> crate::fractal::dialect::Preview {
        let dialect = self.dialect.as_ref().expect("a run is executed once");
        dialect.preview(task)
    }

    /// Returns what a dry run shows of how the backend runs the calls of a task.
    pub(crate) fn preview_of_backend(&self, task: &TaskSpec, n_calls: usize) -> Option<String> {
        self.options.backend.preview(task, n_calls, &self.work_dir)
    }
}

/// The order of the task that `--rerun-from` names.
///
/// * `named`: its order, or its name.
fn find_task(plan: &RunPlan, named: &str, problems: &mut Problems) -> Option<u64> {
    // Without a plan there are other problems, which matter more.
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
    let location = Location::Parameter(format!("--rerun-from {named}"));
    problems.add(
        location,
        format!("{text}; the tasks are {}", tasks.join(", ")),
    );
    None
}

/// Refuses folders of scripts that hold the work directory: their tasks could read the records of
/// the run.
fn check_script_mounts(plan: &RunPlan, work_dir: &Path, problems: &mut Problems) {
    let real_work_dir = real_path(work_dir);
    let scripts = plan.tasks.iter().filter(|task| task.script.is_some());
    let mut mounts = scripts.flat_map(|task| &task.mounts);
    let holding = mounts.find(|mount| holds(&real_path(&mount.host_path), &real_work_dir));
    if let Some(mount) = holding {
        let text = format!(
            "is in the folder `{}` of a script, which its task can read; choose another --work-dir",
            mount.host_path.display()
        );
        problems.add(work_dir_location(work_dir), text);
    }
}

/// Lets the backend check what tasks request of it.
fn check_tasks(plan: &RunPlan, backend: &dyn Backend, problems: &mut Problems) {
    for task in &plan.tasks {
        if let Err(text) = backend.check_task(task, problems) {
            problems.add(Location::Parameter(format!("task {}", task.order)), text);
        }
    }
}

/// Warns about tasks of which fewer calls run at a time, because of the memory that each may have
/// or the CPUs that it counts as.
fn warn_of_held_back_calls(plan: &RunPlan, backend: &dyn Backend, problems: &mut Problems) {
    let mut orders_by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in &plan.tasks {
        if let Some(text) = backend.concurrency_limit_reason(task) {
            orders_by_text
                .entry(text)
                .or_default()
                .push(task.order.to_string());
        }
    }
    for (text, orders) in orders_by_text {
        let location = format!(
            "task{} {}",
            if orders.len() == 1 { "" } else { "s" },
            orders.join(", ")
        );
        problems.warn(Location::Parameter(location), text);
    }
}

/// Location of problems of the work directory.
pub(super) fn work_dir_location(work_dir: &Path) -> Location {
    Location::Parameter(format!("work directory {}", work_dir.display()))
}
