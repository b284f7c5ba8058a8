//! `exec --args`: a module called as a task, as `run` calls it, with args from a file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Prepared, backend, host_failed, wrong_input};
use crate::backend::Local;
use crate::cli::author_arguments::{ExecArguments, ITEM_OPTION};
use crate::cli::documents::absolute;
use crate::cli::documents::author_policy;
use crate::cli::signals::Signals;
use crate::cli::task_call::{CallArgs, plan_call, task_of_module};
use crate::cli::temporary::TemporaryFolder;
use crate::cli::{Answer, environment};
use crate::event::{Event, EventKind, Reporter};
use crate::fractal::v1::document::read_metadata;
use crate::fractal::v1::{Dataset, normalized};
use crate::json::{Value, build_json};
use crate::model::{Grant, HostError, ModuleKind};
use crate::plan::{PlannedTask, Policy};
use crate::problem::{Location, Problems};
use crate::report::{EscapedLines, Progress, ProgressStyle};
use crate::run::folders::check_folders;
use crate::run::{Error, SingleCall};
use crate::text::unreadable;
use crate::text::wording::shell_word;
use crate::workdir::WorkDir;

/// Environment variable that sets the location of the temporary folder.
const TEMPORARY_FOLDER_OPTION: &str = "TMPDIR";
/// Maximum size of the args in bytes.
const MAX_ARGS_BYTES: u64 = 64 << 20;

pub(super) fn exec(arguments: &ExecArguments, args_file: &Path, signals: &Signals) -> Answer {
    run(arguments, args_file, signals).unwrap_or_else(Answer::from)
}

fn run(
    arguments: &ExecArguments,
    args_file: &Path,
    signals: &Signals,
) -> Result<Answer, HostError> {
    let mut problems = Problems::default();
    let policy = author_policy(&arguments.sandbox, &mut problems);
    let backend = match backend(arguments, &policy, false) {
        Ok(backend) => backend,
        Err(text) => return Ok(host_failed(&text)),
    };
    let args = read_args(arguments, args_file, &mut problems);
    let module = Prepared::new(
        &arguments.module,
        &policy.default,
        &backend,
        arguments.quiet,
        &mut problems,
    );
    let task = args
        .as_ref()
        .zip(module.as_ref())
        .and_then(|(args, module)| {
            plan(
                arguments,
                args_file,
                args,
                module.kind,
                &policy,
                &backend,
                &mut problems,
            )
        });

    let _saving = signals.saving();
    let temporary = TemporaryFolder::new("mandelbox-exec-")?;
    let (work_dir, own_output) = (
        temporary.path().join("work"),
        temporary.path().join("output"),
    );
    let mut dataset = dataset(arguments, args.as_ref(), own_output, &mut problems);
    let output = dataset.output_path.clone();
    let grants = check_folders(
        &dataset.input_paths,
        (&output, "--output"),
        (&work_dir, TEMPORARY_FOLDER_OPTION),
        &mut problems,
    );
    let Some((args, task)) = args.zip(task).filter(|_| problems.is_empty()) else {
        return Ok(wrong_input(&problems));
    };
    warn_of_paths(args_file, &args, &grants, &mut problems);

    if let Some(module) = module {
        module.write_cache(&backend);
    }
    std::fs::create_dir_all(&output)
        .map_err(HostError::file("create the output folder", &output))?;
    dataset.set_only_call(task.spec.order, task.details, args.item);
    let call = SingleCall {
        task: &task.spec,
        dialect: &mut dataset,
        grants: &grants,
        folder: work_dir.join("task"),
        work_dir: Arc::new(WorkDir::create(&work_dir)?),
        writer: Some(Arc::new(|| Box::new(EscapedLines::default()))),
        cancel: signals.cancel(),
    };
    let mut observe = observer(arguments.quiet);
    for warning in problems.warnings() {
        observe(EventKind::Warning {
            message: warning.to_string(),
        });
    }
    if arguments.output.is_none() {
        let message = "without `--output`, the task writes to a temporary folder, which is removed \
            after the call";
        observe(EventKind::Warning {
            message: message.to_owned(),
        });
    }
    Ok(match call.run(&backend, &mut observe) {
        Ok(output) => {
            let mut stdout = build_json(&output, 2);
            stdout.push(b'\n');
            Answer {
                stdout,
                ..Answer::default()
            }
        }
        Err(Error::Host(err)) => return Err(err),
        Err(err) => match (&err, signals.received()) {
            (Error::Cancelled(_), Some(signal)) => signal.answer(),
            _ => Answer::text(format!("error: {err}\n"), err.exit_code()),
        },
    })
}

/// Reads the args, and adds the item given on the command line. Problems go to `problems`.
fn read_args(arguments: &ExecArguments, file: &Path, problems: &mut Problems) -> Option<CallArgs> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(MAX_ARGS_BYTES + 1)
            .read_to_end(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(MAX_ARGS_BYTES + 1).read_to_end(&mut text))
    };
    if let Err(err) = read {
        problems.add(Location::File(file.to_owned()), unreadable(&err));
        return None;
    }
    if text.len() as u64 > MAX_ARGS_BYTES {
        problems.add(
            Location::File(file.to_owned()),
            format!("is larger than {MAX_ARGS_BYTES} bytes"),
        );
        return None;
    }
    let mut args = CallArgs::parse(file, &text, problems)?;
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
    Some(args)
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

/// Returns a callback that prints the events of the call to stderr.
fn observer(quiet: bool) -> impl FnMut(EventKind) {
    let mut progress = Progress::new(ProgressStyle::Lines, 1, true);
    let mut seq = 0;
    move |kind| {
        if quiet {
            return;
        }
        // A terminal that cannot be written to must not end the call.
        let _ = progress.report(&Event {
            seq,
            time: Timestamp::now(),
            kind,
        });
        seq += 1;
    }
}
