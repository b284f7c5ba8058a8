//! Single call of a task of version 2.

use std::path::{Path, PathBuf};

use crate::fractal::command::command_words;
use crate::fractal::package::{MANIFEST, TaskPackage, package_version};
use crate::fractal::v2::{OnlyCall, Package, Side, TaskDocument, TaskSide, TaskType, Types};
use crate::fractal::workflow::Version;
use crate::json::{Map, Value};
use crate::model::{Modules, TaskSpec};
use crate::plan::{DatasetPlanner, Policy};
use crate::problem::{Cursor, Location, Problems};
use crate::run::folders::real_path;

/// A task that can be called.
#[derive(Clone, Debug)]
pub(in crate::cli) struct CallableTask {
    /// The task.
    pub(in crate::cli) task: TaskDocument,
    /// Folder that its executables are relative to.
    pub(in crate::cli) folder: PathBuf,
    /// True if the task is described by a manifest, false if only its module is known.
    pub(in crate::cli) is_described: bool,
}

/// A call that can be made.
#[derive(Clone, Debug)]
pub(in crate::cli) struct PlannedCall {
    pub(in crate::cli) spec: TaskSpec,
    pub(in crate::cli) side: Side,
    /// See [`OnlyCall::new`].
    is_init: Option<bool>,
}

impl PlannedCall {
    /// Creates the call.
    ///
    /// * `args`: all args of the call.
    /// * `zarr_dir`: added to the args of a single call, unless they have one.
    pub(in crate::cli) fn call(&self, args: Map<String, Value>, zarr_dir: &str) -> OnlyCall {
        let mut all = Map::new();
        if self.side == Side::NonParallel {
            all.insert("zarr_dir".to_owned(), zarr_dir.into());
        }
        all.extend(args);
        OnlyCall::new(all, self.is_init)
    }
}

/// Returns the task of a module, from the manifest of the package that contains it, or else only
/// with its name. Problems go to `problems`.
///
/// * `side`: kind of the call, which decides between the tasks of a module.
pub(in crate::cli) fn task_of_module(
    path: &Path,
    side: Side,
    problems: &mut Problems,
) -> Option<CallableTask> {
    let module = real_path(path);
    let mut folders = module.ancestors().skip(1);
    let folder = folders.find(|folder| TaskPackage::is_in(folder));
    let Some(folder) = folder.filter(|folder| package_version(folder) != Some(Version::V1)) else {
        return Some(task_without_manifest(&module));
    };
    let package = Package::read_all_into(folder, problems)
        .into_iter()
        .next()?;
    if package.is_refused {
        return None;
    }
    let mut tasks: Vec<_> = package
        .manifest
        .task_list
        .into_iter()
        .filter(|task| is_of_module(task, folder, &module))
        .collect();
    if tasks.len() > 1 && tasks.iter().any(|task| task.side(side).is_some()) {
        tasks.retain(|task| task.side(side).is_some());
    }
    match <[TaskDocument; 1]>::try_from(tasks) {
        Ok([task]) => Some(CallableTask {
            task,
            folder: folder.to_owned(),
            is_described: true,
        }),
        Err(tasks) => {
            if !tasks.is_empty() {
                let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
                let text = format!(
                    "is the module of several tasks ({}), so no args_schema is applied",
                    names.join(", ")
                );
                problems.warn(Location::File(path.to_owned()), text);
            }
            Some(task_without_manifest(&module))
        }
    }
}

/// Returns true if one of the executables of a task is a module.
fn is_of_module(task: &TaskDocument, folder: &Path, module: &Path) -> bool {
    let mut sides = Side::ALL.into_iter().filter_map(|side| task.side(side));
    sides.any(|side| {
        let executable = Value::from(side.executable.as_str());
        let manifest = folder.join(MANIFEST);
        let cursor = Cursor::new(&manifest, &executable);
        let command = command_words(&cursor, false, folder, &mut Problems::default());
        command.is_some_and(|command| {
            let paths = [command.named(), command.module];
            paths.iter().any(|path| real_path(path) == module)
        })
    })
}

fn task_without_manifest(module: &Path) -> CallableTask {
    let side = || TaskSide {
        executable: module.to_string_lossy().into_owned(),
        meta: Map::new(),
        args_schema: None,
    };
    let name = module.file_stem().unwrap_or_default();
    let task = TaskDocument {
        name: name.to_string_lossy().into_owned(),
        task_type: TaskType::Compound,
        non_parallel: Some(side()),
        parallel: Some(side()),
        input_types: Types::new(),
        output_types: Types::new(),
        origin: (module.to_owned(), String::new()),
    };
    CallableTask {
        task,
        folder: PathBuf::new(),
        is_described: false,
    }
}

/// Validates the args of a call, as for a run, and prepares its module. Problems go to `problems`.
///
/// * `file`: file of the args.
pub(in crate::cli) fn plan_call(
    callable: &CallableTask,
    args: &Map<String, Value>,
    file: &Path,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> Option<PlannedCall> {
    let task = &callable.task;
    let wanted = OnlyCall::side_of(args);
    let side = match (&task.non_parallel, &task.parallel) {
        (Some(_), None) => Side::NonParallel,
        (None, Some(_)) => Side::Parallel,
        _ => wanted,
    };
    check_reserved(callable, side, args, file, problems);
    let own = OnlyCall::own_args(args);
    let folder = &callable.folder;
    let spec =
        DatasetPlanner::plan_call(task, folder, side, (&own, file), policy, modules, problems)?;
    let is_init = match side {
        Side::Parallel => Some(false),
        Side::NonParallel if callable.is_described => Some(task.task_type.is_compound()),
        Side::NonParallel => None,
    };
    Some(PlannedCall {
        spec,
        side,
        is_init,
    })
}

/// Warns of args that a runner gives to no call of this kind, or to each.
fn check_reserved(
    callable: &CallableTask,
    side: Side,
    args: &Map<String, Value>,
    file: &Path,
    problems: &mut Problems,
) {
    if !callable.is_described {
        return;
    }
    let task_type = callable.task.task_type;
    let (given, missing): (&[&str], _) = match side {
        Side::Parallel if task_type.is_compound() => (
            &["zarr_url", "init_args"],
            ["zarr_url", "init_args"].as_slice(),
        ),
        Side::Parallel => (&["zarr_url"], ["zarr_url"].as_slice()),
        Side::NonParallel if task_type.is_converter() => (&["zarr_dir"], [].as_slice()),
        Side::NonParallel => (&["zarr_dir", "zarr_urls"], ["zarr_urls"].as_slice()),
    };
    let name = task_type.name();
    for key in missing.iter().filter(|key| !args.contains_key(**key)) {
        let text = format!("a task of type {name} gets `{key}` in a run; add it");
        problems.warn(Location::File(file.to_owned()), text);
    }
    for key in crate::fractal::v2::RESERVED_ARGUMENTS {
        if args.contains_key(key) && !given.contains(&key) {
            let location = Location::Pointer {
                file: file.to_owned(),
                pointer: format!("/{key}"),
            };
            let text = format!("a task of type {name} gets no `{key}` in a run; remove it");
            problems.warn(location, text);
        }
    }
}
