//! A call of a task of version 2.

use std::path::Path;

use super::Request;
use crate::cli::Answer;
use crate::cli::author_arguments::{ExecArguments, ITEM_OPTION};
use crate::cli::documents::absolute;
use crate::cli::task_call::v2::{PlannedCall, plan_call, task_of_module};
use crate::fractal::v1::normalized;
use crate::fractal::v2::OnlyCall;
use crate::json::{Map, Value};
use crate::model::{Grant, HostError};
use crate::problem::{Location, Problems};
use crate::text::wording::shell_word;

/// Maximum number of paths that a warning names.
const MAX_SHOWN: usize = 3;

pub(super) fn run(request: Request<'_>) -> Result<Answer, HostError> {
    let arguments = request.arguments;
    let mut problems = Problems::default();
    refuse_options(arguments, &mut problems);
    let planned = match (&request.args, &request.module) {
        (Some(args), Some(_)) => plan(&request, args, &mut problems),
        _ => None,
    };
    let output = arguments.output.as_deref().map(absolute);
    let output = normalized(&output.unwrap_or_else(|| request.own_output.clone()));
    let inputs = arguments.inputs.iter();
    let inputs = inputs.map(|path| normalized(&absolute(path)));
    let folders: Vec<_> = inputs.chain(request.read_paths()).collect();
    let grants = request.grants(&folders, &output, &mut problems);
    let args = request.args.clone().unwrap_or_default();
    warn_of_paths(request.args_file, &args, &grants, &mut problems);
    let mut call = match &planned {
        Some(planned) => planned.call(args, &output.to_string_lossy()),
        None => OnlyCall::new(args, None),
    };
    let spec = planned.map(|planned| planned.spec);
    request.call(spec.as_ref(), &mut call, grants, &output, problems)
}

fn plan(
    request: &Request<'_>,
    args: &Map<String, Value>,
    problems: &mut Problems,
) -> Option<PlannedCall> {
    let side = OnlyCall::side_of(args);
    let task = task_of_module(&request.arguments.module, side, problems)?;
    let (policy, backend) = (request.policy, request.backend);
    plan_call(&task, args, request.args_file, policy, backend, problems)
}

/// Refuses options that only version 1 has.
fn refuse_options(arguments: &ExecArguments, problems: &mut Problems) {
    for (option, is_given, advice) in [
        (
            ITEM_OPTION,
            arguments.item.is_some(),
            "put `zarr_url` into the args",
        ),
        (
            "--metadata",
            arguments.metadata.is_some(),
            "tasks of version 2 have no metadata",
        ),
    ] {
        if is_given {
            let text = format!("is an option for tasks of Fractal v1; {advice}");
            problems.add(Location::Parameter(option.to_owned()), text);
        }
    }
}

/// Warns of paths in the args that the task cannot access: access is granted only by the command
/// line.
fn warn_of_paths(
    file: &Path,
    args: &Map<String, Value>,
    grants: &[Grant],
    problems: &mut Problems,
) {
    let text = |key: &str| args.get(key).and_then(Value::as_str);
    let urls = args.get("zarr_urls").and_then(Value::as_array);
    let urls = urls.into_iter().flatten().filter_map(Value::as_str);
    let urls = urls
        .enumerate()
        .map(|(index, path)| (format!("/zarr_urls/{index}"), path));
    let url = text("zarr_url").map(|path| ("/zarr_url".to_owned(), path));
    let images = urls.chain(url).map(|(pointer, path)| {
        let folder = Path::new(path).parent().unwrap_or(Path::new(path));
        let advice = format!(
            "`--read {0}` or `--output {0}`",
            shell_word(folder.display())
        );
        (pointer, path, advice)
    });
    let zarr_dir = text("zarr_dir").map(|path| {
        let advice = format!("`--output {}`", shell_word(path));
        ("/zarr_dir".to_owned(), path, advice)
    });
    let is_granted = |path: &str| {
        let mut grants = grants.iter();
        grants.any(|grant| Path::new(path).starts_with(&grant.guest_path))
    };
    let missing = zarr_dir
        .into_iter()
        .chain(images)
        .filter(|(_, path, _)| !is_granted(path));
    for (pointer, path, advice) in missing.take(MAX_SHOWN) {
        let location = Location::Pointer {
            file: file.to_owned(),
            pointer,
        };
        let text = format!(
            "the task cannot access `{path}`: a path in args grants no access; add {advice}"
        );
        problems.warn(location, text);
    }
}
