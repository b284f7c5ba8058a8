//! Single call of a task of version 1.

use std::path::Path;

use crate::fractal::package::TaskPackage;
use crate::fractal::package::manifest::PackageTask;
use crate::fractal::v1::WorkflowDocument;
use crate::fractal::v1::document::TaskDocument;
use crate::fractal::v1::{ITEM_ARGUMENT, RESERVED_ARGUMENTS};
use crate::json::{Map, Value};
use crate::model::{ModuleKind, Modules};
use crate::plan::{PlanRequest, PlannedTask, Policy, build_plan};
use crate::problem::{Location, Problems};
use crate::run::folders::real_path;

/// Args of one call, separated by where they come from in a run.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct CallArgs {
    /// Args of the task itself.
    pub(in crate::cli) own: Map<String, Value>,
    /// Args that a runner fills in, except the item.
    pub(in crate::cli) reserved: Map<String, Value>,
    /// Item of the call.
    pub(in crate::cli) item: Option<Value>,
}

impl CallArgs {
    /// Separates args.
    pub(in crate::cli) fn new(all: Map<String, Value>) -> Self {
        let mut args = Self::default();
        for (name, value) in all {
            match name.as_str() {
                ITEM_ARGUMENT => args.item = Some(value),
                name if RESERVED_ARGUMENTS.contains(&name) => {
                    drop(args.reserved.insert(name.to_owned(), value))
                }
                _ => drop(args.own.insert(name, value)),
            }
        }
        args
    }
}

/// Returns the task of a module: from its own description if it is a typed task, else from the
/// manifest of the package that contains it, else only with its name. Problems go to `problems`.
///
/// * `kind`: kind of the module, which is prepared.
pub(in crate::cli) fn task_of_module(
    path: &Path,
    kind: ModuleKind,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> Option<TaskDocument> {
    if kind == ModuleKind::Typed {
        let package = TaskPackage::read_module(
            path,
            &policy.default,
            policy.compile_time,
            modules,
            problems,
        )?;
        return package.task_list.into_iter().next().map(|task| task.task);
    }
    let module = real_path(path);
    let Some(folder) = module
        .ancestors()
        .skip(1)
        .find(|folder| TaskPackage::is_in(folder))
    else {
        return Some(TaskDocument::of_module(&module));
    };
    let mut tasks = TaskPackage::read_into(folder, problems)?.task_list;
    tasks.retain(|task| {
        let paths = [task.task.module_path(), task.task.named_path()];
        paths.iter().any(|path| real_path(path) == module)
    });
    match <[PackageTask; 1]>::try_from(tasks) {
        Ok([task]) => Some(task.task),
        Err(tasks) => {
            if !tasks.is_empty() {
                let names: Vec<_> = tasks.iter().map(|task| task.task.name.as_str()).collect();
                let text = format!(
                    "is the module of several tasks ({}), so no args_schema is applied and no \
                     default is filled in",
                    names.join(", ")
                );
                problems.warn(Location::File(path.to_owned()), text);
            }
            Some(TaskDocument::of_module(&module))
        }
    }
}

/// Fills in missing args and validates all of them, as for a run. Problems go to `problems`.
///
/// * `file`: file of the args.
pub(in crate::cli) fn plan_call(
    task: TaskDocument,
    args: &CallArgs,
    file: &Path,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> Option<PlannedTask> {
    let workflow = WorkflowDocument::of_task(task, args.own.clone(), file.to_owned());
    let request = PlanRequest::without_data(&workflow, &[], policy, modules);
    let mut task = build_plan(&request, problems).tasks.into_iter().next()?;
    // As in a run, values in the args take precedence over those of the host.
    task.details.args.extend(args.reserved.clone());
    Some(task)
}
