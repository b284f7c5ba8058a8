//! Snapshots of the modules of tasks: made once, kept in the cache, and used by each call.

use std::time::Duration;

use super::node::RunGuest;
use super::process::{ProcessWorker, WorkerCommand};
use crate::clock::RunningClock;
use crate::model::{CancelToken, Grant, HostError, Limits, ModuleFile, ModuleRef};
use crate::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, ImageSlot, Invocation, Sandbox,
};
use crate::text::bytes_text;

/// Command line of a guest while it starts for a snapshot. It does not depend on any call.
const INIT_ARGV: &str = "init";

/// Snapshot that calls can start from.
#[derive(Clone, Debug)]
pub struct MadeSnapshot {
    /// Name of the snapshot in the sandbox, for [`Invocation::module_sha256`].
    pub key: String,
    /// Size of its memory in bytes, which counts against the limit of each call.
    pub memory_bytes: u64,
    /// Time that it took to make the snapshot; `None` if the cache contained it.
    pub init_time: Option<Duration>,
    /// End of what the module printed meanwhile; empty if the cache contained the snapshot.
    pub output: String,
}

/// Image that a module left when it started, and the end of what it printed.
struct StartedModule {
    image: Vec<u8>,
    output: String,
}

/// Reason why there is no snapshot.
#[derive(Clone, Debug)]
pub enum NoSnapshot {
    /// The run was cancelled.
    Cancelled,
    /// The module or its limits do not allow it; a sentence for the user.
    Refused(String),
    /// The host failed; a sentence for the user.
    Host(String),
}

/// Parts of a task that its snapshot depends on.
pub struct WantedSnapshot<'a> {
    /// The module, which was prepared for snapshots.
    pub module: &'a ModuleRef,
    /// Folders that the guest can read when it starts.
    pub mounts: &'a [Grant],
    /// Limits of the calls, which hold for the start too.
    pub limits: &'a Limits,
    /// Maximum time for the start.
    pub init_time: Duration,
    /// Token that ends the start.
    pub cancel: &'a CancelToken,
}

impl WantedSnapshot<'_> {
    /// Returns the snapshot, and makes it if neither the sandbox nor its cache contains it.
    ///
    /// * `command`: starts the process that the guest starts in; `None`: this thread.
    /// * `on_start`: called before the module is started.
    pub(super) fn make(
        &self,
        sandbox: &Sandbox,
        command: Option<&WorkerCommand>,
        on_start: &mut dyn FnMut(),
    ) -> Result<MadeSnapshot, NoSnapshot> {
        let sha256 = &self.module.sha256;
        let key = self.key(sandbox)?;
        if let Some(memory_bytes) = sandbox.find_snapshot(&key, sha256) {
            return self.within_limits(key, memory_bytes, None, String::new());
        }
        on_start();
        let started = sandbox.clock().now();
        let lock = sandbox.lock_snapshot(&key, || self.cancel.is_cancelled());
        if self.cancel.is_cancelled() {
            return Err(NoSnapshot::Cancelled);
        }
        // Another run may have made the snapshot while this one was waiting for the lock.
        if let Some(memory_bytes) = sandbox.find_snapshot(&key, sha256) {
            return self.within_limits(key, memory_bytes, None, String::new());
        }
        let started_module = self.initialize(sandbox, command)?;
        if self.key(sandbox)? != key {
            return Err(self.refused("a file of its mounts changed meanwhile; run again"));
        }
        let memory_bytes = sandbox
            .prepare_image(&key, sha256, started_module.image, self.limits.memory_bytes)
            .map_err(|text| NoSnapshot::Host(self.text(&text)))?;
        drop(lock);
        let init_time = elapsed(sandbox.clock(), started);
        self.within_limits(key, memory_bytes, Some(init_time), started_module.output)
    }

    /// Starts the module, and returns it as a command that starts with the memory that it left.
    #[cfg(feature = "cli")]
    pub(super) fn make_whole(
        &self,
        sandbox: &Sandbox,
        command: Option<&WorkerCommand>,
        module: &ModuleFile,
    ) -> Result<Vec<u8>, NoSnapshot> {
        let lock = sandbox.lock_snapshot(&module.sha256, || self.cancel.is_cancelled());
        let image = self.initialize(sandbox, command)?.image;
        drop(lock);
        sandbox
            .whole_module(module, &image, self.limits.memory_bytes)
            .map_err(|text| self.refused(&text))
    }

    fn key(&self, sandbox: &Sandbox) -> Result<String, NoSnapshot> {
        let key = sandbox.snapshot_key(&self.module.sha256, self.mounts);
        key.map_err(|text| self.refused(&text))
    }

    /// Starts the module, and returns the image of its memory.
    fn initialize(
        &self,
        sandbox: &Sandbox,
        command: Option<&WorkerCommand>,
    ) -> Result<StartedModule, NoSnapshot> {
        let module = ModuleFile::read(&self.module.path, u64::MAX)
            .and_then(|module| match module.sha256 == self.module.sha256 {
                true => Ok(module),
                false => Err("its file has changed since it was checked; run again".to_owned()),
            })
            .map_err(|text| NoSnapshot::Host(self.text(&text)))?;
        let initial = sandbox
            .prepare_initial_image(&module)
            .map_err(|text| self.refused(&text))?;
        drop(module);
        let image = self.run(sandbox, command, &initial);
        sandbox.forget(&initial);
        image
    }

    fn run(
        &self,
        sandbox: &Sandbox,
        command: Option<&WorkerCommand>,
        initial: &str,
    ) -> Result<StartedModule, NoSnapshot> {
        let host = |err: HostError| NoSnapshot::Host(self.text(&err.chain()));
        let mut worker: Box<dyn RunGuest + '_> = match command {
            Some(command) => Box::new(ProcessWorker::new(sandbox, command, self.mounts.to_vec())),
            None => Box::new(sandbox.worker().map_err(host)?),
        };
        let slot = ImageSlot::default();
        // Both streams have one tail, for the message if the start fails.
        let [stdout, stderr] = GuestOutput::shared(None, 0);
        let limits = Limits {
            wall_time: (self.init_time < Duration::MAX).then_some(self.init_time),
            ..self.limits.clone()
        };
        let (end, _) = worker.run(&Invocation {
            module_sha256: initial,
            entry: Entry::Initialize(&slot),
            argv: &[INIT_ARGV.to_owned()],
            env: &[],
            grants: self.mounts,
            stdin: GuestInput::Empty,
            stdout,
            stderr: stderr.clone(),
            warnings: GuestWarnings::dropped(),
            limits: &limits,
            seed: 0,
            cancel: self.cancel,
        });
        let output = stderr.tail().trim_end().to_owned();
        let why = match end {
            GuestEnd::Exited(code) => match slot.take() {
                Some(image) => return Ok(StartedModule { image, output }),
                None => format!("it exited with code {code}, and must return"),
            },
            GuestEnd::Cancelled => return Err(NoSnapshot::Cancelled),
            GuestEnd::HostFailed(text) | GuestEnd::Lost(text) => {
                return Err(NoSnapshot::Host(self.text(&text)));
            }
            GuestEnd::Failed(text) | GuestEnd::ReturnedTooMuch(text) => text,
            GuestEnd::Trapped(text) => format!("it trapped: {text}"),
            GuestEnd::TimedOut(limit) => format!(
                "it took longer than {} s; raise `compile` in the policy's [host]",
                limit.as_secs_f64()
            ),
            GuestEnd::MemoryExceeded { limit_bytes, .. } => format!(
                "it needs more memory than the limit of a call, {}",
                bytes_text(limit_bytes)
            ),
            GuestEnd::Returned(_) | GuestEnd::OutputFailed => "it was ended".to_owned(),
        };
        let output = if output.is_empty() {
            output
        } else {
            format!(" (output: {output})")
        };
        Err(self.refused(&format!("`wizer.initialize`: {why}{output}")))
    }

    /// Returns a snapshot, unless it does not fit into the memory of a call.
    fn within_limits(
        &self,
        key: String,
        memory_bytes: u64,
        init_time: Option<Duration>,
        output: String,
    ) -> Result<MadeSnapshot, NoSnapshot> {
        let limit_bytes = self.limits.memory_bytes;
        if memory_bytes > limit_bytes {
            return Err(NoSnapshot::Refused(format!(
                "the snapshot of {} has {} of memory, which each call has from its start, but the \
                 memory limit of a call is {}; raise the limit, or set `snapshot` to false",
                self.module.file_name(),
                bytes_text(memory_bytes),
                bytes_text(limit_bytes)
            )));
        }
        Ok(MadeSnapshot {
            key,
            memory_bytes,
            init_time,
            output,
        })
    }

    fn refused(&self, why: &str) -> NoSnapshot {
        let text = self.text(why);
        NoSnapshot::Refused(format!("{text}; without `snapshot`, each call starts it"))
    }

    fn text(&self, why: &str) -> String {
        let module = self.module.file_name();
        format!("no snapshot of {module} can be made: {why}")
    }
}

fn elapsed(clock: &RunningClock, started: Duration) -> Duration {
    clock.now().saturating_sub(started)
}

/// Worker whose commands start from a snapshot.
pub(super) struct FromSnapshot<'a> {
    pub(super) worker: Box<dyn RunGuest + 'a>,
    /// [`MadeSnapshot::key`].
    pub(super) key: &'a str,
}

impl RunGuest for FromSnapshot<'_> {
    fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64) {
        self.worker.run(&Invocation {
            module_sha256: self.key,
            entry: Entry::Command,
            argv: invocation.argv,
            env: invocation.env,
            grants: invocation.grants,
            stdin: invocation.stdin.clone(),
            stdout: invocation.stdout.clone(),
            stderr: invocation.stderr.clone(),
            warnings: invocation.warnings.clone(),
            limits: invocation.limits,
            seed: invocation.seed,
            cancel: invocation.cancel,
        })
    }

    fn cpu_time_elsewhere(&self) -> Duration {
        self.worker.cpu_time_elsewhere()
    }
}
