//! What all commands that run guests let them have: limits, policy, isolation, cache.

use super::arguments::{IsolationArgument, SandboxArguments};
use super::environment;
use crate::backend::{Isolation, Local, WorkerCommand};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::sandbox::SandboxOptions;

impl SandboxArguments {
    /// How the sandbox is set up.
    ///
    /// * `deterministic`: whether clocks and random numbers are fixed.
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

    /// What is between guests; the error is a sentence for the user.
    pub(super) fn isolation(&self) -> Result<Isolation, String> {
        match self.isolation {
            IsolationArgument::Thread => Ok(Isolation::Thread),
            IsolationArgument::Process => worker_command().map(Isolation::Process),
        }
    }

    /// The policy, with the limits of the command line in place of its own: for documents too they
    /// are the most.
    ///
    /// * `open_files`: what each call can have open on this machine.
    pub(super) fn policy(&self, open_files: usize, problems: &mut Problems) -> Policy {
        let read = self
            .policy
            .as_deref()
            .and_then(|path| Policy::read_into(path, problems));
        let mut policy = read.unwrap_or_default();
        let mut asked = policy.default.clone();
        asked.memory_bytes = self.memory.unwrap_or(asked.memory_bytes);
        asked.wall_time = self.timeout.or(asked.wall_time);
        if self.policy.is_some() {
            for key in asked.above(&policy.maximum) {
                let place = Location::Parameter(format!("--{key}"));
                problems.add(place, format!("is more than the policy's maximum.{key}"));
            }
        }
        policy.reserves_memory |= self.memory.is_some();
        policy.maximum.memory_bytes = self.memory.unwrap_or(policy.maximum.memory_bytes);
        policy.maximum.wall_time = self.timeout.or(policy.maximum.wall_time);
        policy.default = asked;
        if policy.default.open_files > open_files {
            let place = Location::Parameter("ulimit -n".to_owned());
            let text = format!(
                "a call can have {open_files} files open, not {}: raise it",
                policy.default.open_files
            );
            problems.warn(place, text);
            policy.default.open_files = open_files;
        }
        policy
    }
}

/// This program as a worker process.
pub(super) fn worker_command() -> Result<WorkerCommand, String> {
    this_program("worker")
}

/// A backend that compiles in processes of this program, within the memory that the policy gives
/// them, and whose calls share the memory that it gives. Where this program cannot be found, as
/// without /proc, its own threads compile.
pub(super) fn within_memory(backend: Local, policy: &Policy) -> Local {
    let backend = match this_program("compiler") {
        Ok(command) => backend.compiling_in_processes(command, policy.compile_memory_bytes),
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
