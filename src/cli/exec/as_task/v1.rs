//! A call of a task of version 1.

use std::path::{Path, PathBuf};

use super::Request;
use crate::backend::Local;
use crate::cli::author_arguments::{ExecArguments, ITEM_OPTION};
use crate::cli::documents::absolute;
use crate::cli::task_call::v1::{CallArgs, plan_call, task_of_module};
use crate::cli::{Answer, environment};
use crate::fractal::v1::document::read_metadata;
use crate::fractal::v1::{Dataset, normalized};
use crate::json::{Map, Value};
use crate::model::{Grant, HostError, ModuleKind};
use crate::plan::{PlannedTask, Policy};
use crate::problem::{Location, Problems};
use crate::text::wording::shell_word;

pub(super) fn run(request: Request<'_>) -> Result<Answer, HostError> {
    let arguments = request.arguments;
    let args_file = request.args_file;
    let mut problems = Problems::default();
    let args = request
        .args
        .as_ref()
        .map(|args| call_args(arguments, args, &mut problems));
    let module = request.module.as_ref();
    let task = args.as_ref().zip(module).and_then(|(args, module)| {
        plan(
            arguments,
            args_file,
            args,
            module.kind,
            request.policy,
            request.backend,
            &mut problems,
        )
    });
    let mut dataset = dataset(
        arguments,
        args.as_ref(),
        request.own_output.clone(),
        &mut problems,
    );
    let inputs = dataset.input_paths.iter().cloned();
    let folders: Vec<_> = inputs.chain(request.read_paths()).collect();
    let grants = request.grants(&folders, &dataset.output_path, &mut problems);
    if let Some(args) = &args {
        warn_of_paths(args_file, args, &grants, &mut problems);
    }
    let call = args.zip(task).map(|(args, task)| {
        dataset.set_only_call(task.spec.order, task.details, args.item);
        task.spec
    });
    let output = dataset.output_path.clone();
    request.call(call.as_ref(), &mut dataset, grants, &output, problems)
}

/// Separates the args, and adds the item given on the command line. Problems go to `problems`.
fn call_args(
    arguments: &ExecArguments,
    args: &Map<String, Value>,
    problems: &mut Problems,
) -> CallArgs {
    let mut args = CallArgs::new(args.clone());
    if let Some(item) = &arguments.item {
        let item = Value::from(item.as_str());
        if args.item.as_ref().is_some_and(|held| *held != item) {
            problems.warn(
                Location::Parameter(ITEM_OPTION.to_owned()),
                "ignored, because the args have another value; remove it from the args",
            );
        }
        args.item.get_or_insert(item);
    }
    args
}

fn plan(
    arguments: &ExecArguments,
    args_file: &Path,
    args: &CallArgs,
    kind: ModuleKind,
    policy: &Policy,
    backend: &Local,
    problems: &mut Problems,
) -> Option<PlannedTask> {
    let task = task_of_module(&arguments.module, kind, policy, backend, problems)?;
    let task = plan_call(task, args, args_file, policy, backend, problems)?;
    if let Some(level) = task.details.level.as_ref().filter(|_| args.item.is_none()) {
        let text = format!(
            "the task runs once for each entry of metadata[\"{level}\"]; name one with \
             `{ITEM_OPTION}`"
        );
        problems.warn(Location::File(arguments.module.clone()), text);
    }
    Some(task)
}

/// Returns the dataset of the call.
///
/// * `own_output`: output folder without `--output`.
fn dataset(
    arguments: &ExecArguments,
    args: Option<&CallArgs>,
    own_output: PathBuf,
    problems: &mut Problems,
) -> Dataset {
    let metadata = match &arguments.metadata {
        Some(path) => read_metadata(path, problems),
        // A typed task fetches metadata from the host. Take that of the recorded call.
        None => args.and_then(|args| args.reserved.get("metadata")?.as_object().cloned()),
    };
    let output = arguments
        .output
        .as_ref()
        .map_or(own_output, |path| absolute(path));
    Dataset {
        input_paths: arguments
            .inputs
            .iter()
            .map(|path| normalized(&absolute(path)))
            .collect(),
        output_path: normalized(&output),
        metadata: metadata.unwrap_or_default().into(),
        tasks_include_image: environment::tasks_include_image(),
        ..Dataset::default()
    }
}

/// Warns of paths in the args that the task cannot access: access is granted only by the command
/// line.
fn warn_of_paths(file: &Path, args: &CallArgs, grants: &[Grant], problems: &mut Problems) {
    let inputs = args
        .reserved
        .get("input_paths")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let inputs = inputs
        .enumerate()
        .map(|(index, path)| (format!("/input_paths/{index}"), path, "--input"));
    let output = args
        .reserved
        .get("output_path")
        .map(|path| ("/output_path".to_owned(), path, "--output"));
    for (pointer, path, option) in inputs.chain(output) {
        let Some(path) = path.as_str() else { continue };
        if !grants
            .iter()
            .any(|grant| Path::new(path).starts_with(&grant.guest_path))
        {
            let location = Location::Pointer {
                file: file.to_owned(),
                pointer,
            };
            problems.warn(
                location,
                format!(
                    "the task cannot access `{path}`: a path in args grants no access; add \
                     `{option} {}`",
                    shell_word(path)
                ),
            );
        }
    }
}
