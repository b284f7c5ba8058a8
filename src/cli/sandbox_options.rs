//! Sandbox options shared by all commands that run guests: limits, policy, isolation, cache.

use super::arguments::{IsolationArgument, SandboxArguments};
use super::environment;
use crate::backend::{Isolation, Local, WorkerCommand};
use crate::plan::{Policy, SnapshotUse, policy_key};
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

/// Returns the command that starts this program as a worker process.
pub(super) fn worker_command() -> Result<WorkerCommand, String> {
    this_program("worker")
}

/// Applies the memory limits of the policy to a backend: `host.compile_memory` to compilation,
/// which moves to processes of this program, and `host.memory` to all running calls together. If
/// the path of this program cannot be found, as without /proc, the backend compiles in its own
/// threads.
pub(super) fn within_memory(backend: Local, policy: &Policy) -> Local {
    let backend = match this_program("compiler") {
        Ok(command) => backend.compiling_in_processes(command, policy.compile_memory_bytes),
        Err(_) => backend,
    };
    let backend = match worker_command() {
        Ok(command) => backend.starting_snapshots_in_processes(command),
        Err(_) => backend,
    };
    match policy.memory_bytes {
        Some(bytes) => backend.sharing_memory(bytes),
        None => backend,
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
