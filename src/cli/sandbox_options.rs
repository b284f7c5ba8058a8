//! Sandbox options shared by all commands that run guests: limits, policy, isolation, cache.

use std::path::Path;

use super::shared_arguments::{IsolationArgument, ProcessArguments, SandboxArguments};
use super::{environment, open_files, signals};
use crate::backend::{Isolation, Local, WorkerCommand};
use crate::model::HostError;
use crate::plan::{Interpreter, Policy, SnapshotUse, policy_key};
use crate::problem::{Location, Problems};
use crate::sandbox::SandboxOptions;

impl SandboxArguments {
    /// Builds the options of the sandbox.
    ///
    /// * `deterministic`: true for fixed clocks and random numbers.
    pub(super) fn options(&self, deterministic: bool) -> SandboxOptions {
        let cache_folder = if self.no_cache {
            None
        } else {
            environment::cache_folder()
        };
        SandboxOptions {
            cache_folder,
            deterministic,
            ..SandboxOptions::default()
        }
    }

    /// Returns the isolation of calls.
    ///
    /// # Errors
    /// A message for the user if the path of this program cannot be found.
    pub(super) fn isolation(&self) -> Result<Isolation, String> {
        match self.isolation {
            IsolationArgument::Thread => Ok(Isolation::Thread),
            IsolationArgument::Process => worker_command().map(Isolation::Process),
        }
    }

    /// Reads the policy. Limits of the command line replace its defaults and its upper bounds, so
    /// that no document can ask for more. Problems go to `problems`.
    ///
    /// * `open_files`: number of files that each call can open on this machine.
    pub(super) fn policy(&self, open_files: usize, problems: &mut Problems) -> Policy {
        let read = self
            .policy
            .as_deref()
            .and_then(|path| Policy::read_into(path, problems));
        let mut policy = read.unwrap_or_default();
        add_environment(self.python.as_deref(), &mut policy, problems);
        let mut default = policy.default.clone();
        default.memory_bytes = self.memory.unwrap_or(default.memory_bytes);
        default.wall_time = self.timeout.or(default.wall_time);
        if self.policy.is_some() {
            for key in default.above(&policy.maximum).into_iter().map(policy_key) {
                let location = Location::Parameter(format!("--{key}"));
                let text = format!("exceeds `maximum.{key}` of the policy; choose a lower value");
                problems.add(location, text);
            }
        }
        if self.no_snapshots {
            policy.snapshots = SnapshotUse::Never;
        }
        policy.reserves_memory |= self.memory.is_some();
        policy.maximum.memory_bytes = self.memory.unwrap_or(policy.maximum.memory_bytes);
        policy.maximum.wall_time = self.timeout.or(policy.maximum.wall_time);
        policy.default = default;
        if policy.default.open_files > open_files {
            let location = Location::Parameter("ulimit -n".to_owned());
            let text = format!(
                "each call can open {open_files} files instead of {}; raise the limit",
                policy.default.open_files
            );
            problems.warn(location, text);
            policy.default.open_files = open_files;
        }
        policy
    }
}

/// Adds the interpreter of the environment of `--python` to the policy. Problems go to `problems`.
pub(super) fn add_environment(folder: Option<&Path>, policy: &mut Policy, problems: &mut Problems) {
    let interpreter = folder.and_then(|folder| Interpreter::read_environment(folder, problems));
    if let Some(interpreter) = interpreter {
        policy.add_interpreter(interpreter);
    }
}

/// Backend for many calls at a time, and the policy for them.
pub(super) struct CallsBackend {
    pub(super) backend: Local,
    pub(super) policy: Policy,
}

/// Creates the backend of a command that makes many calls. Problems go to `problems`.
///
/// * `deterministic`: true for fixed clocks and random numbers.
/// * `jobs`: number of calls that run at a time; `None`: the number of CPUs.
/// * `runs_here`: true if the calls run on this machine, so that its limit of open files counts.
///
/// # Errors
/// [`HostError`] if the host cannot run calls.
pub(super) fn backend_for_calls(
    arguments: &SandboxArguments,
    deterministic: bool,
    jobs: Option<u16>,
    runs_here: bool,
    process: &ProcessArguments,
    problems: &mut Problems,
) -> Result<CallsBackend, HostError> {
    let sandbox = arguments.options(deterministic);
    let isolation = arguments.isolation();
    let isolation = isolation.map_err(HostError::setup("start worker processes"))?;
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = open_files::raise_limit().filter(|_| runs_here);
    let n_threads = jobs.map_or_else(|| n_cpus.min(open_files::most_calls(limit)), usize::from);
    let open_files = open_files::of_a_call(limit, n_threads, "--jobs").unwrap_or_else(|text| {
        problems.add(Location::Parameter("ulimit -n".to_owned()), text);
        usize::MAX
    });
    if jobs.is_none() && n_threads < n_cpus {
        let text = format!(
            "limits the run to {n_threads} calls at a time on {n_cpus} CPUs; raise the limit"
        );
        problems.warn(Location::Parameter("ulimit -n".to_owned()), text);
    }
    let policy = arguments.policy(open_files, problems);
    let backend = Local::with_options(n_threads, &sandbox, isolation);
    let backend = backend.and_then(|backend| match policy.interrupts_all {
        true => Ok(backend),
        false => backend.without_epochs_for_untimed_calls(),
    });
    let backend = within_memory(backend?, &policy).cancel_grace_period(signals::GRACE_PERIOD);
    let backend = match &process.share {
        Some(folder) => backend.sharing_with_processes(folder)?,
        None => backend,
    };
    Ok(CallsBackend { backend, policy })
}

/// Returns the command that starts this program as a worker process.
pub(super) fn worker_command() -> Result<WorkerCommand, String> {
    this_program("worker")
}

/// Applies the memory limits of the policy to a backend: `host.compile_memory` to compilation,
/// which moves to processes of this program, and `host.memory` to all running calls together. If
/// the path of this program cannot be found, as without /proc, the backend compiles in its own
/// threads.
pub(super) fn within_memory(backend: Local, policy: &Policy) -> Local {
    let backend = compiling_in_processes(backend, policy.compile_memory_bytes);
    let backend = match worker_command() {
        Ok(command) => backend.starting_snapshots_in_processes(command),
        Err(_) => backend,
    };
    match policy.memory_bytes {
        Some(bytes) => backend.sharing_memory(bytes),
        None => backend,
    }
}

/// Moves compilation to processes of this program, if its path can be found.
///
/// * `memory_bytes`: memory of such a process.
pub(super) fn compiling_in_processes(backend: Local, memory_bytes: u64) -> Local {
    match this_program("compiler") {
        Ok(command) => backend.compiling_in_processes(command, memory_bytes),
        Err(_) => backend,
    }
}

fn this_program(command: &str) -> Result<WorkerCommand, String> {
    let program =
        std::env::current_exe().map_err(|err| format!("failed to find this program: {err}"))?;
    Ok(WorkerCommand {
        program,
        arguments: vec![command.to_owned()],
    })
}
