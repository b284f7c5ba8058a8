//! `exec` without `--args`: a command with any command line. Its output and exit code are passed
//! through.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::{
    Preparation, Prepared, backend, host_failed, module_path, mounts, program_of, wrong_input,
};
use crate::backend::outcome_of_end;
use crate::backend::{Local, NoSnapshot, WantedSnapshot};
use crate::cli::Answer;
use crate::cli::author_arguments::ExecArguments;
use crate::cli::documents::{COMPILE_NOTICE_DELAY, author_policy};
use crate::cli::signals::Signals;
use crate::model::{Grant, HostError, ModuleKind, ModuleRef, Outcome, Rights};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::report::{Notice, Stream, raw_stream};
use crate::run::exit_code;
use crate::sandbox::{Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation};
use crate::text::escaped;

pub(super) fn exec(arguments: &ExecArguments, signals: &Signals) -> Answer {
    let mut problems = Problems::default();
    let policy = author_policy(&arguments.sandbox, &mut problems);
    let limits = &policy.default;
    let backend = match backend(arguments, &policy, true) {
        Ok(backend) => backend,
        Err(text) => return host_failed(&text),
    };
    let mut grants = mounts::read_mounts(&arguments.mounts, &mut problems);
    let env = read_env(&arguments.env, &mut problems);
    let stdin = arguments
        .stdin
        .as_deref()
        .and_then(|path| open_stdin(path, &mut problems));
    let program = program_of(&arguments.module, &policy, &mut problems);
    let module_path = module_path(&arguments.module, program.as_ref());
    let module = Prepared::of(
        &arguments.module,
        program.as_ref(),
        &Preparation {
            limits,
            backend: &backend,
            has_snapshot: arguments.snapshot,
            quiet: arguments.quiet,
        },
        &mut problems,
    );
    if module
        .as_ref()
        .is_some_and(|module| module.kind == ModuleKind::Typed)
    {
        let text = "is a typed task, which has no command line; call it with `exec MODULE --args \
            ARGS.json`";
        problems.add(Location::File(arguments.module.clone()), text);
    }
    let Some(module) = module.filter(|_| problems.is_empty()) else {
        return wrong_input(&problems);
    };
    module.write_cache(&backend);
    let _running = signals.running_guest();

    let mut argv = vec![
        arguments
            .argv0
            .clone()
            .unwrap_or_else(|| file_name(&module_path)),
    ];
    let mut start_mounts: Option<Vec<String>> = None;
    if let Some(program) = program {
        let names = program.own_mounts().iter();
        start_mounts = Some(names.map(|mount| mount.guest_path.clone()).collect());
        argv.extend(program.args);
        // A folder that the user mounts at the same path takes precedence.
        let is_free = |mount: &Grant| {
            !grants
                .iter()
                .any(|grant| grant.guest_path == mount.guest_path)
        };
        let mounts: Vec<_> = program.mounts.into_iter().filter(is_free).collect();
        grants.extend(mounts);
    }
    argv.extend(arguments.arguments.iter().cloned());
    let snapshot = if arguments.snapshot {
        let named = ModuleRef {
            path: module_path,
            sha256: module.sha256.clone(),
        };
        let mounts = mounts_at_start(&grants, start_mounts.as_deref());
        match make_snapshot(arguments, &named, &mounts, &policy, &backend, signals) {
            Ok(key) => Some(key),
            Err(answer) => return answer,
        }
    } else {
        None
    };
    let ended = (|| -> Result<Answer, HostError> {
        if let Some(Stdin::File(file)) = &stdin {
            // A guest inherits the stdin of this process, also if it runs in a child process.
            rustix::stdio::dup2_stdin(file).map_err(HostError::setup("use the file as stdin"))?;
        }
        let output = |stream| {
            let stream =
                raw_stream(stream).map_err(HostError::setup("forward the module's output"))?;
            Ok::<_, HostError>(GuestOutput::handed_on(stream))
        };
        let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
        let shown = stderr.clone();
        let warnings = GuestWarnings::new(move |message| {
            shown.take(format!("warning: {}\n", escaped(&message)).as_bytes());
        });
        let end = backend.run_guest(&Invocation {
            module_sha256: snapshot.as_ref().unwrap_or(&module.sha256),
            entry: Entry::Command,
            argv: &argv,
            env: &env,
            grants: &grants,
            stdin: if stdin.is_some() {
                GuestInput::Inherited
            } else {
                GuestInput::Empty
            },
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            warnings,
            limits,
            seed: 0,
            cancel: signals.cancel(),
        })?;
        if let (GuestEnd::Cancelled, Some(signal)) = (&end, signals.received()) {
            return Ok(signal.answer());
        }
        if matches!(end, GuestEnd::Exited(_)) {
            stdout.deliver();
            stderr.deliver();
        }
        Ok(answer(
            &arguments.module,
            end,
            stdout.finish().or(stderr.finish()),
        ))
    })();
    ended.unwrap_or_else(Answer::from)
}

/// Returns the folders that a module can read when it starts for a snapshot: the read-only ones.
///
/// * `own`: paths of the folders of an interpreter, to which they are limited.
fn mounts_at_start(grants: &[Grant], own: Option<&[String]>) -> Vec<Grant> {
    let is_one = |grant: &&Grant| {
        grant.rights == Rights::ReadOnly && own.is_none_or(|own| own.contains(&grant.guest_path))
    };
    grants.iter().filter(is_one).cloned().collect()
}

/// Returns the key of the snapshot of the module, with a notice if making it takes long.
///
/// # Errors
/// The answer if there is no snapshot.
fn make_snapshot(
    arguments: &ExecArguments,
    module: &ModuleRef,
    mounts: &[Grant],
    policy: &Policy,
    backend: &Local,
    signals: &Signals,
) -> Result<String, Answer> {
    let name = file_name(&module.path);
    let wanted = WantedSnapshot {
        module,
        mounts,
        limits: &policy.default,
        init_time: policy.init_time,
        cancel: signals.cancel(),
    };
    let mut notice = None;
    let made = backend.snapshot(&wanted, &mut || {
        let text = format!(
            "starting {} once; later calls start from its memory ...",
            escaped(&name)
        );
        notice = (!arguments.quiet).then(|| Notice::after(COMPILE_NOTICE_DELAY, text));
    });
    drop(notice);
    made.map(|made| made.key).map_err(|no| match no {
        NoSnapshot::Cancelled => match signals.received() {
            Some(signal) => signal.answer(),
            None => host_failed("the start of the module was cancelled"),
        },
        NoSnapshot::Refused(text) => Answer::text(
            format!("error: {}\n", escaped(&text)),
            exit_code::WRONG_INPUT,
        ),
        NoSnapshot::Host(text) => host_failed(&text),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Returns the answer for a guest that ended.
///
/// * `output_error`: error of forwarding the guest's output, if any.
fn answer(module: &Path, end: GuestEnd, output_error: Option<std::io::Error>) -> Answer {
    match (end, output_error) {
        (GuestEnd::Exited(code), _) => Answer::text(String::new(), exit_code_of(code)),
        (GuestEnd::OutputFailed, Some(err)) if err.kind() == ErrorKind::BrokenPipe => {
            Answer::text(String::new(), exit_code::OUTPUT_CLOSED)
        }
        (GuestEnd::OutputFailed, Some(err)) => {
            host_failed(&format!("failed to forward the module's output: {err}"))
        }
        (end, _) => {
            let outcome = outcome_of_end(end);
            let code = match outcome {
                Outcome::Trapped { .. }
                | Outcome::TimedOut { .. }
                | Outcome::MemoryExceeded { .. } => exit_code::ENDED_BY_SANDBOX,
                _ => exit_code::HOST_FAILED,
            };
            let module = escaped(&module.to_string_lossy());
            Answer::text(
                format!("error: {module} {}\n", escaped(&outcome.describe())),
                code,
            )
        }
    }
}

/// Converts a guest's exit code to that of a process: the low 8 bits, or 255 if they would turn a
/// failure into 0.
fn exit_code_of(code: i32) -> u8 {
    match code.to_le_bytes()[0] {
        0 if code != 0 => u8::MAX,
        low => low,
    }
}

/// Source of a command's stdin.
enum Stdin {
    /// Stdin of this process.
    Inherited,
    File(File),
}

fn open_stdin(path: &Path, problems: &mut Problems) -> Option<Stdin> {
    if path == Path::new("-") {
        return Some(Stdin::Inherited);
    }
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    opened
        .map(Stdin::File)
        .map_err(|err| problems.add(stdin_location(path), format!("cannot be opened: {err}")))
        .ok()
}

fn stdin_location(path: &Path) -> Location {
    Location::Parameter(format!("--stdin {}", path.display()))
}

fn read_env(variables: &[String], problems: &mut Problems) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for variable in variables {
        let location = Location::Parameter(format!("--env {variable}"));
        match variable.split_once('=') {
            None | Some(("", _)) => problems.add(
                location,
                "must be NAME=VALUE; variables of the host are not inherited",
            ),
            Some((name, _)) if env.iter().any(|(other, _)| other == name) => {
                problems.add(location, format!("duplicate variable `{name}`"));
            }
            Some((name, value)) => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_an_exit_code_of_0() {
        for (code, expected) in [
            (0, 0),
            (1, 1),
            (126, 126),
            (255, 255),
            (256, 255),
            (257, 1),
            (-1, 255),
        ] {
            assert_eq!(exit_code_of(code), expected, "{code}");
        }
    }
}
