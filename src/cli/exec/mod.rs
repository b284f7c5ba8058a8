//! `mandelbox exec`: one call of one module, as a task or as a command with any command line.

mod as_command;
mod as_task;
mod mounts;

use std::path::Path;
use std::time::Duration;

use super::sandbox_options::within_memory;
use super::signals::{self, Signals};
use super::{Answer, open_files};
use crate::backend::{Backend, Local};
use crate::cli::author_arguments::ExecArguments;
use crate::model::{HostError, Limits, ModuleFile, ModuleKind};
use crate::plan::Policy;
use crate::problem::{Place, Problems};
use crate::report::Notice;
use crate::run::exit_code;
use crate::sandbox::{Interruption, SandboxOptions};
use crate::text::{bytes_text, escaped};

/// Bytes of a module whose caller named it and set no policy: interpreters with their libraries
/// have 100 MiB and more.
const MAX_MODULE_BYTES: u64 = 2 << 30;
/// Whoever started the program sees that it compiles, and can end it.
pub(super) const COMPILE_TIME: Duration = Duration::MAX;
/// Time after which it is said what takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn exec(arguments: &ExecArguments, signals: &Signals) -> Answer {
    match &arguments.args {
        Some(args) => as_task::exec(arguments, args, signals),
        None => as_command::exec(arguments, signals),
    }
}

/// The policy for a module that the operator has named.
pub(super) fn policy(
    arguments: &super::arguments::SandboxArguments,
    problems: &mut Problems,
) -> Policy {
    let open_files = open_files::of_a_call(open_files::raise_limit(), 1).unwrap_or_else(|text| {
        problems.add(Place::Parameter("ulimit -n".to_owned()), text);
        usize::MAX
    });
    let mut policy = arguments.policy(open_files, problems);
    policy.compile_time = COMPILE_TIME;
    if arguments.policy.is_none() {
        policy.default.module_bytes = MAX_MODULE_BYTES;
        policy.maximum.module_bytes = MAX_MODULE_BYTES;
    }
    policy
}

/// A backend for one call at a time.
///
/// * `has_one_call`: whether the policy's own limits are those of all calls; if not, some calls may
///   have a time limit and others none.
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
        backend.and_then(Local::interrupting_only_limited)
    };
    let backend = backend
        .map_err(|err| err.chain())?
        .abandoning_cancelled(signals::PATIENCE);
    Ok(within_memory(backend, policy))
}

/// A module that is ready to be called.
struct Prepared {
    sha256: String,
    kind: ModuleKind,
    /// The module, if it had to be read.
    file: Option<ModuleFile>,
}

impl Prepared {
    /// Makes a module ready; says so if that takes long. Problems go to `problems`.
    fn new(
        path: &Path,
        limits: &Limits,
        backend: &Local,
        quiet: bool,
        problems: &mut Problems,
    ) -> Option<Self> {
        if let Some((sha256, kind)) = backend.prepare_unchanged(path, limits) {
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
            let notice = (!quiet).then(|| Notice::after(PATIENCE, notice));
            let kind = backend.prepare(&file, limits, COMPILE_TIME)?;
            drop(notice);
            Ok(Self {
                sha256: file.sha256.clone(),
                kind,
                file: Some(file),
            })
        });
        prepared
            .map_err(|text| problems.add(Place::File(path.to_owned()), text))
            .ok()
    }

    /// Keeps in the cache what was found out: once all input was found good.
    fn keep(&self, backend: &Local) {
        backend.keep_compiled();
        if let Some(file) = &self.file {
            backend.sandbox().keep_file(file);
        }
    }
}

/// The answer for input that is wrong.
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
