//! `mandelbox exec`: one call of a module, as a task or as a command with any command line.

mod as_command;
mod as_task;
pub(super) mod mounts;

use super::Answer;
use super::sandbox_options::within_memory;
use super::signals::{self, Signals};
use crate::backend::Local;
use crate::cli::author_arguments::ExecArguments;
use crate::cli::documents::{COMPILE_NOTICE_DELAY, COMPILE_TIME};
use crate::model::{HostError, Limits, ModuleFile, ModuleKind, Modules};
use crate::plan::Policy;
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

/// Module that is ready to be called.
struct Prepared {
    sha256: String,
    kind: ModuleKind,
    /// Contents of the module, unless the cache made reading it unnecessary.
    file: Option<ModuleFile>,
}

impl Prepared {
    /// Prepares the module of the call, with a notice if compiling it takes long. Problems go to
    /// `problems`.
    fn new(
        arguments: &ExecArguments,
        limits: &Limits,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = &arguments.module;
        let unchanged = if arguments.snapshot {
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
            let notice = (!arguments.quiet).then(|| Notice::after(COMPILE_NOTICE_DELAY, notice));
            let kind = if arguments.snapshot {
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
            .map_err(|text| problems.add(Location::File(path.clone()), text))
            .ok()
    }

    /// Adds the module to the cache. Called after all input was found to be valid.
    fn write_cache(&self, backend: &Local) {
        backend.write_cache();
        if let Some(file) = &self.file {
            backend.sandbox().keep_file(file);
        }
    }
}

/// Returns the answer for invalid input.
fn wrong_input(problems: &Problems) -> Answer {
    Answer::text(format!("error: {problems}\n"), exit_code::WRONG_INPUT)
}

fn host_failed(text: &str) -> Answer {
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
