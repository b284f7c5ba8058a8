//! `exec --args`: a module called as a task, as `run` calls it, with args from a file.

mod v1;
mod v2;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Preparation, Prepared, backend, has_snapshot, host_failed, program_of, wrong_input};
use crate::backend::Local;
use crate::cli::Answer;
use crate::cli::author_arguments::ExecArguments;
use crate::cli::documents::{absolute, author_policy};
use crate::cli::shared_arguments::FractalArgument;
use crate::cli::signals::Signals;
use crate::cli::task_call::{parse_args, version_of};
use crate::cli::temporary::TemporaryFolder;
use crate::event::{Event, EventKind, Reporter};
use crate::fractal::dialect::Dialect;
use crate::fractal::v1::normalized;
use crate::fractal::workflow::Version;
use crate::json::{Map, Value, build_json};
use crate::model::{Grant, HostError, TaskSpec};
use crate::plan::{Policy, SnapshotUse};
use crate::problem::{Location, Problems};
use crate::report::{EscapedLines, Progress, ProgressStyle};
use crate::run::folders::check_folders;
use crate::run::{Error, SingleCall};
use crate::text::unreadable;
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
    let mut policy = author_policy(&arguments.sandbox, &mut problems);
    if arguments.snapshot {
        policy.snapshots = SnapshotUse::Always;
    }
    let backend = match backend(arguments, &policy, false) {
        Ok(backend) => backend,
        Err(text) => return Ok(host_failed(&text)),
    };
    let args = read_args(args_file, &mut problems);
    let program = program_of(&arguments.module, &policy, &mut problems);
    let module = Prepared::of(
        &arguments.module,
        program.as_ref(),
        &Preparation {
            limits: &policy.default,
            backend: &backend,
            has_snapshot: has_snapshot(&policy, arguments.snapshot, program.as_ref()),
            quiet: arguments.quiet,
        },
        &mut problems,
    );
    let version = match (arguments.fractal, &args) {
        (Some(FractalArgument::V1), _) | (None, None) => Version::V1,
        (Some(FractalArgument::V2), _) => Version::V2,
        (None, Some(args)) => version_of(&arguments.module, args),
    };
    let _saving = signals.saving();
    let temporary = TemporaryFolder::new("mandelbox-exec-")?;
    let request = Request {
        arguments,
        args_file,
        args,
        module,
        policy: &policy,
        backend: &backend,
        signals,
        work_dir: temporary.path().join("work"),
        own_output: temporary.path().join("output"),
        problems,
    };
    match version {
        Version::V1 => v1::run(request),
        Version::V2 => v2::run(request),
    }
}

/// Reads the args. Problems go to `problems`.
fn read_args(file: &Path, problems: &mut Problems) -> Option<Map<String, Value>> {
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
    parse_args(file, &text, problems)
}

/// Data of a call that are known before its task is.
struct Request<'a> {
    arguments: &'a ExecArguments,
    args_file: &'a Path,
    /// Args of the call; `None` after a problem.
    args: Option<Map<String, Value>>,
    /// Module of the task; `None` after a problem.
    module: Option<Prepared>,
    policy: &'a Policy,
    backend: &'a Local,
    signals: &'a Signals,
    work_dir: PathBuf,
    /// Output folder without `--output`.
    own_output: PathBuf,
    /// Problems so far.
    problems: Problems,
}

impl Request<'_> {
    /// Returns the folders of `--read`.
    fn read_paths(&self) -> impl Iterator<Item = PathBuf> {
        let folders = self.arguments.read.iter();
        folders.map(|path| normalized(&absolute(path)))
    }

    /// Returns the grants of the call. Problems go to `problems`.
    fn grants(&self, inputs: &[PathBuf], output: &Path, problems: &mut Problems) -> Vec<Grant> {
        check_folders(
            inputs,
            (output, "--output"),
            (&self.work_dir, TEMPORARY_FOLDER_OPTION),
            false,
            problems,
        )
    }

    /// Runs the call, unless there are problems, and returns its output as the answer.
    ///
    /// * `task`: `None` if it could not be planned, which is a problem.
    fn call(
        self,
        task: Option<&TaskSpec>,
        dialect: &mut dyn Dialect,
        grants: Vec<Grant>,
        output: &Path,
        found: Problems,
    ) -> Result<Answer, HostError> {
        let mut problems = self.problems;
        problems.extend(found);
        let Some(task) = task.filter(|_| problems.is_empty()) else {
            return Ok(wrong_input(&problems));
        };
        if let Some(module) = self.module {
            module.write_cache(self.backend);
        }
        std::fs::create_dir_all(output)
            .map_err(HostError::file("create the output folder", output))?;
        let call = SingleCall {
            task,
            dialect,
            grants: &grants,
            folder: self.work_dir.join("task"),
            work_dir: Arc::new(WorkDir::create(&self.work_dir)?),
            writer: Some(Arc::new(|| Box::new(EscapedLines::default()))),
            cancel: self.signals.cancel(),
        };
        let mut observe = observer(self.arguments.quiet);
        for warning in problems.warnings() {
            observe(EventKind::Warning {
                message: warning.to_string(),
            });
        }
        if self.arguments.output.is_none() {
            let message = "without `--output`, the task writes to a temporary folder, which is \
                removed after the call";
            observe(EventKind::Warning {
                message: message.to_owned(),
            });
        }
        Ok(match call.run(self.backend, &mut observe) {
            Ok(output) => {
                let mut stdout = build_json(&output, 2);
                stdout.push(b'\n');
                Answer {
                    stdout,
                    ..Answer::default()
                }
            }
            Err(Error::Host(err)) => return Err(err),
            Err(err) => match (&err, self.signals.received()) {
                (Error::Cancelled(_), Some(signal)) => signal.answer(),
                _ => Answer::text(format!("error: {err}\n"), err.exit_code()),
            },
        })
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
