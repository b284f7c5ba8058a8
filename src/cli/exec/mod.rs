//! `mandelbox exec`: one call of a module, as a task or as a command with any command line.

mod as_command;
mod as_task;
pub(super) mod mounts;

use std::path::{Path, PathBuf};

use super::Answer;
use super::sandbox_options::within_memory;
use super::signals::{self, Signals};
use crate::backend::Local;
use crate::cli::author_arguments::ExecArguments;
use crate::cli::documents::{COMPILE_NOTICE_DELAY, COMPILE_TIME};
use crate::fractal::command::twin_of;
use crate::model::{HostError, Limits, ModuleFile, ModuleKind, Modules};
use crate::plan::{Policy, Program, ScriptHome, ScriptStates};
use crate::problem::{Location, Problems};
use crate::report::Notice;
use crate::run::exit_code;
use crate::sandbox::{Interruption, SandboxOptions};
use crate::text::{bytes_text, escaped};

pub(super) fn exec(arguments: &ExecArguments, signals: &Signals) -> Answer {
    match &arguments.args {
        Some(args) => as_task::exec(arguments, args, signals),
        None => as_command::exec(arguments, signals),
    }
}

/// Creates a backend for one call at a time.
///
/// * `has_one_call`: true if all calls have the default limits of the policy. If false, some calls
///   may have a time limit and others none.
fn backend(
    arguments: &ExecArguments,
    policy: &Policy,
    has_one_call: bool,
) -> Result<Local, String> {
    let interruption = match policy.default.wall_time {
        None if has_one_call => Interruption::Process,
        _ => Interruption::Epochs,
    };
    let options = SandboxOptions {
        on_demand: true,
        interruption,
        ..arguments.sandbox.options(arguments.deterministic)
    };
    let backend = Local::with_options(1, &options, arguments.sandbox.isolation()?);
    let backend = if has_one_call {
        backend
    } else {
        backend.and_then(Local::without_epochs_for_untimed_calls)
    };
    let backend = backend
        .map_err(|err| err.chain())?
        .cancel_grace_period(signals::GRACE_PERIOD);
    Ok(within_memory(backend, policy))
}

/// Returns the call of a script that the command line names in place of a module; `None` for a
/// module, and for a script that a module next to it replaces. Problems go to `problems`.
pub(super) fn program_of(path: &Path, policy: &Policy, problems: &mut Problems) -> Option<Program> {
    if twin(path).is_some() {
        return None;
    }
    let interpreter = policy.interpreter_of(path)?;
    let program = interpreter.program(path, ScriptHome::Operator, &mut ScriptStates::default());
    program
        .map_err(|text| problems.add(Location::File(path.to_owned()), text))
        .ok()
}

/// Returns the module that replaces a script: that of the same name next to it, if it exists.
fn twin(path: &Path) -> Option<PathBuf> {
    twin_of(path).filter(|twin| twin.is_file())
}

/// Returns the path of the module that runs: that of an interpreter, of the module that replaces a
/// script, or the path that the command line names.
fn module_path(path: &Path, program: Option<&Program>) -> PathBuf {
    let interpreter = program.map(|program| program.module.clone());
    interpreter
        .or_else(|| twin(path))
        .unwrap_or_else(|| path.to_owned())
}

/// Returns true if the calls of a task start from a snapshot.
///
/// * `is_requested`: true if the command line requests it.
pub(super) fn has_snapshot(policy: &Policy, is_requested: bool, program: Option<&Program>) -> bool {
    let is_wanted = program.is_some_and(|program| program.has_snapshot);
    policy
        .snapshot(is_requested || is_wanted, Vec::new)
        .is_some()
}

/// Settings for the preparation of a module.
#[derive(Clone, Copy)]
pub(super) struct Preparation<'a> {
    /// Limits of the calls.
    pub(super) limits: &'a Limits,
    pub(super) backend: &'a Local,
    /// True if the calls start from a snapshot.
    pub(super) has_snapshot: bool,
    /// True if there is no notice that compiling takes long.
    pub(super) quiet: bool,
}

/// Module that is ready to be called.
pub(super) struct Prepared {
    sha256: String,
    pub(super) kind: ModuleKind,
    /// Contents of the module, unless the cache made reading it unnecessary.
    file: Option<ModuleFile>,
}

impl Prepared {
    /// Prepares a module, or the interpreter of a script. Problems go to `problems`.
    ///
    /// * `program`: call of the script; `None` for a module.
    pub(super) fn of(
        path: &Path,
        program: Option<&Program>,
        preparation: &Preparation<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = module_path(path, program);
        if program.is_none() {
            return Self::new(&path, preparation, problems);
        }
        // The operator names the interpreter, so the limit for the modules of packages is not its.
        let limits = Limits {
            module_bytes: ModuleFile::MAX_NAMED_BYTES,
            ..preparation.limits.clone()
        };
        let preparation = Preparation {
            limits: &limits,
            ..*preparation
        };
        Self::new(&path, &preparation, problems)
    }

    fn new(path: &Path, preparation: &Preparation<'_>, problems: &mut Problems) -> Option<Self> {
        let Preparation {
            limits,
            backend,
            has_snapshot,
            quiet,
        } = *preparation;
        let unchanged = if has_snapshot {
            backend.prepare_snapshots_unchanged(path, limits)
        } else {
            backend.prepare_unchanged(path, limits)
        };
        if let Some((sha256, kind)) = unchanged {
            return Some(Self {
                sha256,
                kind,
                file: None,
            });
        }
        let prepared = ModuleFile::read(path, limits.module_bytes).and_then(|file| {
            let size = bytes_text(file.bytes.len() as u64);
            let notice = format!(
                "compiling {} ({size}) ...",
                escaped(&path.to_string_lossy())
            );
            let notice = (!quiet).then(|| Notice::after(COMPILE_NOTICE_DELAY, notice));
            let kind = if has_snapshot {
                backend.prepare_snapshots(&file, limits, COMPILE_TIME)?
            } else {
                backend.prepare(&file, limits, COMPILE_TIME)?
            };
            drop(notice);
            Ok(Self {
                sha256: file.sha256.clone(),
                kind,
                file: Some(file),
            })
        });
        prepared
            .map_err(|text| problems.add(Location::File(path.to_owned()), text))
            .ok()
    }

    /// Adds the module to the cache. Called after all input was found to be valid.
    pub(super) fn write_cache(&self, backend: &Local) {
        backend.write_cache();
        if let Some(file) = &self.file {
            backend.sandbox().keep_file(file);
        }
    }
}

/// Returns the answer for invalid input.
pub(super) fn wrong_input(problems: &Problems) -> Answer {
    Answer::text(format!("error: {problems}\n"), exit_code::WRONG_INPUT)
}

pub(super) fn host_failed(text: &str) -> Answer {
    Answer::text(
        format!("error: {}\n", escaped(text)),
        exit_code::HOST_FAILED,
    )
}

impl From<HostError> for Answer {
    fn from(err: HostError) -> Self {
        host_failed(&err.chain())
    }
}
