//! The starting point of the calls of a task: the module, or a snapshot.

#[cfg(feature = "compiler")]
use super::Isolation;
#[cfg(feature = "compiler")]
use crate::backend::snapshots::{MadeSnapshot, NoSnapshot, WantedSnapshot};
#[cfg(feature = "compiler")]
use crate::backend::{BatchCalls, CallEvent, Local, WorkerCommand};
#[cfg(feature = "compiler")]
use crate::event::{EventKind, Fact};
#[cfg(feature = "compiler")]
use crate::model::{HostError, Outcome};
#[cfg(feature = "compiler")]
use crate::sandbox::{Interruption, Sandbox};
#[cfg(feature = "compiler")]
use crate::text::whole_microseconds;

/// The starting point of the calls of a task.
pub(super) enum CallStart {
    /// The module.
    Module,
    /// The snapshot with this key.
    #[cfg(feature = "compiler")]
    Snapshot(String),
    /// Nothing: each call has this outcome.
    #[cfg(feature = "compiler")]
    Failed(Outcome),
}

#[cfg(feature = "compiler")]
impl Local {
    /// Starts modules for snapshots in a child process if their code cannot be interrupted.
    /// Default: they start in threads of this process, where nothing ends one that runs forever.
    ///
    /// * `command`: starts a program that calls [`serve`](crate::backend::serve).
    pub fn starting_snapshots_in_processes(mut self, command: WorkerCommand) -> Self {
        self.initializer = Some(command);
        self
    }

    /// Returns a snapshot of a module that was prepared for snapshots, and makes it if it does not
    /// exist.
    ///
    /// * `on_start`: called before the module is started.
    ///
    /// # Errors
    /// The reason why there is no snapshot.
    pub fn snapshot(
        &self,
        wanted: &WantedSnapshot<'_>,
        on_start: &mut dyn FnMut(),
    ) -> Result<MadeSnapshot, NoSnapshot> {
        let sandbox = self.sandbox_for(wanted.limits);
        wanted.make(sandbox, self.initializer_of(sandbox), on_start)
    }

    /// Starts a module that was prepared for snapshots, and returns it as a command that starts
    /// with the memory that it left.
    ///
    /// # Errors
    /// The reason why this is not possible.
    #[cfg(feature = "cli")]
    pub(crate) fn whole_snapshot(
        &self,
        wanted: &WantedSnapshot<'_>,
        module: &crate::model::ModuleFile,
    ) -> Result<Vec<u8>, NoSnapshot> {
        let sandbox = self.sandbox_for(wanted.limits);
        wanted.make_whole(sandbox, self.initializer_of(sandbox), module)
    }

    /// Returns the command of the process in which modules start; `None`: in a thread.
    fn initializer_of(&self, sandbox: &Sandbox) -> Option<&WorkerCommand> {
        match &self.isolation {
            Isolation::Process(command) => Some(command),
            Isolation::Thread => self
                .initializer
                .as_ref()
                .filter(|_| sandbox.interruption() == Interruption::Process),
        }
    }

    /// Returns what the calls of a task start from.
    pub(super) fn call_start(
        &self,
        calls: &BatchCalls,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<CallStart, HostError> {
        let task = &calls.batch().task;
        let Some(spec) = &task.snapshot else {
            return Ok(CallStart::Module);
        };
        let wanted = WantedSnapshot {
            module: &task.module,
            mounts: &spec.mounts,
            limits: &task.limits,
            init_time: spec.init_time,
            cancel: calls.cancel(),
        };
        let happened = |kind| CallEvent::Happened(Fact::new(kind));
        let mut observed = Ok(());
        let made = self.snapshot(&wanted, &mut || {
            let started = happened(EventKind::SnapshotStarted {
                task: task.order,
                module: task.module.file_name(),
            });
            // Nothing else happens until the snapshot is made.
            observed = observe(started).and_then(|()| observe(CallEvent::Idle));
        });
        observed?;
        Ok(match made {
            Ok(made) => {
                if let Some(init_time) = made.init_time {
                    observe(happened(EventKind::SnapshotMade {
                        task: task.order,
                        init_time_s: whole_microseconds(init_time).as_secs_f64(),
                        memory_bytes: made.memory_bytes,
                    }))?;
                    if !made.output.is_empty() {
                        let module = task.module.file_name();
                        let message = format!(
                            "{module} printed when it started for the snapshot: {}",
                            made.output
                        );
                        observe(happened(EventKind::Note { message }))?;
                    }
                }
                CallStart::Snapshot(made.key)
            }
            Err(NoSnapshot::Cancelled) => CallStart::Module,
            Err(NoSnapshot::Refused(message)) => CallStart::Failed(Outcome::Refused { message }),
            Err(NoSnapshot::Host(message)) => CallStart::Failed(Outcome::HostFailed { message }),
        })
    }
}
