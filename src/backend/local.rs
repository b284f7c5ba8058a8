//! Calls on a rayon pool of this process.

mod start;
mod stream;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::admission::Admission;
use super::describe::ask;
use super::inbox::Inbox;
use super::node::{CallRunner, EventSink, RunGuest};
use super::process::{Confinement, ProcessWorker, WorkerCommand};
use super::queue::Queue;
use super::shared::ProcessClaims;
use super::{Backend, BatchCalls, CallEvent};
use crate::model::{
    Ended, Grant, HostError, Limits, ModuleFile, ModuleKind, Modules, Outcome, TaskSpec,
};
use crate::sandbox::{GuestEnd, Interruption, Invocation, Sandbox, SandboxOptions};
use crate::text::whole_microseconds;
use crate::trace;
use crate::workdir::WorkerFolder;
use start::CallStart;

pub use stream::CallSource;

#[cfg(feature = "compiler")]
use super::process::Compiler;
#[cfg(feature = "compiler")]
use super::snapshots::FromSnapshot;

/// Stack of a pool thread. Guests have stacks of their own; this one is for the host's code.
const THREAD_STACK_BYTES: usize = 4 << 20;

/// Maximum number of events that wait to be recorded. Calls block while the queue is full, since a
/// guest can log faster than a disk writes.
const MAX_QUEUED_EVENTS: usize = 4096;

/// Separation of guests, in addition to the sandbox.
#[derive(Clone, Debug, Default)]
pub enum Isolation {
    /// None: guests run in threads of this process.
    #[default]
    Thread,
    /// Child processes that can be killed, each confined further where the kernel can, one for each
    /// thread.
    Process(WorkerCommand),
}

/// The local backend: guests on the threads of a pool, or in a child process for each thread.
///
/// Its threads are the limit over all runs that use it at the same time.
pub struct Local {
    /// For guests with a time limit; for all of them without
    /// [`Self::without_epochs_for_untimed_calls`].
    sandbox: Arc<Sandbox>,
    /// For guests without a time limit, compiled without interruption checks; see
    /// [`Self::without_epochs_for_untimed_calls`].
    without_epochs: Option<Arc<Sandbox>>,
    isolation: Isolation,
    options: SandboxOptions,
    pool: ThreadPool,
    admission: Arc<Admission>,
    /// See [`Self::sharing_memory`].
    operator_limit_bytes: Option<u64>,
    /// See [`Self::cancel_grace_period`].
    grace_period: Option<Duration>,
    /// See [`Self::compiling_in_processes`].
    #[cfg(feature = "compiler")]
    compiler: Option<Compiler>,
    /// See [`Self::starting_snapshots_in_processes`].
    #[cfg(feature = "compiler")]
    initializer: Option<WorkerCommand>,
}

impl Local {
    /// * `n_threads`: calls that run at a time at most; 0: as many as there are CPUs.
    ///
    /// # Errors
    /// [`HostError::Setup`] if the runtime or the threads cannot be created.
    pub fn new(n_threads: usize) -> Result<Self, HostError> {
        Self::with_options(n_threads, &SandboxOptions::default(), Isolation::Thread)
    }

    /// [`Self::new`] with options of the sandbox.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(
        n_threads: usize,
        options: &SandboxOptions,
        isolation: Isolation,
    ) -> Result<Self, HostError> {
        let n_threads = match n_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n_threads => n_threads,
        };
        let options = match isolation {
            // One more for a task that describes itself meanwhile.
            Isolation::Thread => SandboxOptions {
                n_workers: n_threads + 1,
                ..options.clone()
            },
            // Guests are in the processes, one in each.
            Isolation::Process(_) => SandboxOptions {
                n_workers: 1,
                interruption: Interruption::Process,
                ..options.clone()
            },
        };
        let sandbox = Arc::new(Sandbox::new(&options)?);
        let pool = ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .stack_size(THREAD_STACK_BYTES)
            .thread_name(|index| format!("mandelbox-{index}"))
            .build()
            .map_err(HostError::setup("start the threads for calls"))?;
        Ok(Self {
            sandbox,
            without_epochs: None,
            isolation,
            options,
            pool,
            admission: Arc::new(Admission::new(n_threads, None)),
            operator_limit_bytes: None,
            grace_period: None,
            #[cfg(feature = "compiler")]
            compiler: None,
            #[cfg(feature = "compiler")]
            initializer: None,
        })
    }

    /// Runs tasks without a time limit in code that has no checks for interruption, which makes
    /// tight loops faster by a third and more. For programs that exit to end a run: a cancelled
    /// token ends such a guest only where it waits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_epochs_for_untimed_calls(mut self) -> Result<Self, HostError> {
        if self.options.interruption == Interruption::Epochs {
            let options = SandboxOptions {
                interruption: Interruption::Process,
                ..self.options.clone()
            };
            self.without_epochs = Some(Arc::new(Sandbox::new(&options)?));
        }
        Ok(self)
    }

    /// Sets how long a cancelled call may take to end. After that it counts as cancelled and is not
    /// waited for, though its guest runs until the program exits. Default: no limit. For programs
    /// that exit to end a run.
    pub fn cancel_grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = Some(grace_period);
        self
    }

    /// Lets calls start only while the memory limits of all running calls fit into `bytes`
    /// together. Default: only limits that are set explicitly count, against the memory of the
    /// machine.
    pub fn sharing_memory(mut self, bytes: u64) -> Self {
        let n_threads = self.pool.current_num_threads();
        self.operator_limit_bytes = Some(bytes);
        self.admission = Arc::new(Admission::new(n_threads, Some(bytes)));
        self
    }

    /// Shares CPUs and memory with the backends of all processes that name the same folder: their
    /// calls together are no more than this backend alone lets run. Default: other processes do not
    /// count. Call this after [`Self::sharing_memory`].
    ///
    /// * `folder`: created if missing, on a file system of this machine.
    ///
    /// # Errors
    /// [`HostError::File`] if the folder cannot be created or written to.
    pub fn sharing_with_processes(mut self, folder: &Path) -> Result<Self, HostError> {
        let shared = ProcessClaims::join(folder)?;
        let n_threads = self.pool.current_num_threads();
        let admission = Admission::new(n_threads, self.operator_limit_bytes).sharing_with(shared);
        self.admission = Arc::new(admission);
        Ok(self)
    }

    /// Compiles each module in a child process, one at a time. The child is killed at its timeout,
    /// and its memory is limited. Default: threads of this process compile; the threads of a module
    /// that is refused at its timeout go on, and nothing limits their memory.
    ///
    /// * `command`: starts a program that calls `compile_for_parent`.
    /// * `memory_bytes`: memory of the child, where the kernel limits it (Linux does).
    #[cfg(feature = "compiler")]
    pub fn compiling_in_processes(mut self, command: WorkerCommand, memory_bytes: u64) -> Self {
        self.compiler = Some(Compiler::new(command, memory_bytes));
        self
    }

    /// Returns the sandbox of the guests of a batch, and what they start from.
    fn guests_with_start(
        &self,
        calls: &BatchCalls,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<Guests, HostError> {
        let guests = self.guests(&calls.batch().task.limits);
        #[cfg(feature = "compiler")]
        let guests = Guests {
            start: self.call_start(calls, observe)?,
            ..guests
        };
        #[cfg(not(feature = "compiler"))]
        let _ = observe;
        Ok(guests)
    }

    /// The sandbox for calls with these limits.
    fn sandbox_for(&self, limits: &Limits) -> &Arc<Sandbox> {
        self.without_epochs
            .as_ref()
            .filter(|_| limits.wall_time.is_none())
            .unwrap_or(&self.sandbox)
    }

    /// Writes what was compiled to the cache folder, if there is one.
    pub fn write_cache(&self) {
        self.sandbox.write_cache();
        if let Some(without_epochs) = &self.without_epochs {
            without_epochs.write_cache();
        }
    }

    /// [`Sandbox::prepare_unchanged`] in the sandbox for calls with these limits.
    pub fn prepare_unchanged(&self, path: &Path, limits: &Limits) -> Option<(String, ModuleKind)> {
        self.sandbox_for(limits)
            .prepare_unchanged(path, limits.module_bytes)
    }

    /// [`Self::prepare_unchanged`] for calls that start from a snapshot.
    #[cfg(feature = "compiler")]
    pub fn prepare_snapshots_unchanged(
        &self,
        path: &Path,
        limits: &Limits,
    ) -> Option<(String, ModuleKind)> {
        let sandbox = self.sandbox_for(limits);
        let sha256 = sandbox.known_digest(path, limits.module_bytes)?;
        let kind = sandbox.prepare_snapshots_unchanged(&sha256)?;
        Some((sha256, kind))
    }

    /// Runs one guest with any command line and any folders, on the calling thread and outside any
    /// run. Its module was prepared for its limits.
    ///
    /// # Errors
    /// [`HostError::Setup`] if the thread cannot run guests.
    pub fn run_guest(&self, invocation: &Invocation<'_>) -> Result<GuestEnd, HostError> {
        let guests = self.guests(invocation.limits);
        let mut worker = guests.worker(invocation.grants.to_vec())?;
        Ok(worker.run(invocation).0)
    }

    /// Starts a worker process that may access these folders and returns its confinement; `None`
    /// if guests run in threads.
    ///
    /// # Errors
    /// A sentence for the user if no worker can be started.
    pub fn confinement(&self, folders: &[Grant]) -> Option<Result<Confinement, String>> {
        let Isolation::Process(command) = &self.isolation else {
            return None;
        };
        Some(ProcessWorker::new(&self.sandbox, command, folders.to_vec()).confinement())
    }

    /// The sandbox that calls run in, but for those of [`Self::without_epochs_for_untimed_calls`].
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Modules for Local {
    fn prepare(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String> {
        let sandbox = self.sandbox_for(limits);
        #[cfg(feature = "compiler")]
        if let Some(compiler) = &self.compiler {
            return sandbox.prepare_with(module, || compiler.compile(sandbox, module, time));
        }
        sandbox.prepare(module, time)
    }

    fn prepare_known(
        &self,
        path: &Path,
        limits: &Limits,
        max_bytes: u64,
        has_snapshot: bool,
    ) -> Option<(String, ModuleKind)> {
        let limits = Limits {
            module_bytes: max_bytes,
            ..limits.clone()
        };
        #[cfg(feature = "compiler")]
        if has_snapshot {
            return self.prepare_snapshots_unchanged(path, &limits);
        }
        let _ = has_snapshot;
        self.prepare_unchanged(path, &limits)
    }

    #[cfg(feature = "compiler")]
    fn prepare_snapshots(
        &self,
        module: &ModuleFile,
        limits: &Limits,
        time: Duration,
    ) -> Result<ModuleKind, String> {
        let sandbox = self.sandbox_for(limits);
        sandbox.prepare_snapshots_with(module, |code| match &self.compiler {
            Some(compiler) => compiler.compile(sandbox, code, time),
            None => sandbox.compile_code(code, time),
        })
    }

    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        let _span = trace::describe(module).entered();
        let guests = self.guests(limits);
        let worker = guests.worker(Vec::new()).map_err(|err| err.chain());
        ask(
            worker?.as_mut(),
            &module.sha256,
            &module.file_name(),
            limits,
        )
    }
}

impl Backend for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn concurrency_limit_reason(&self, task: &TaskSpec) -> Option<String> {
        let window = match task.is_single {
            true => 1,
            false => task.max_parallel.map_or(usize::MAX, usize::from),
        };
        self.admission
            .concurrency_limit_reason(task, window.min(self.pool.current_num_threads()))
    }

    fn settings(&self) -> String {
        if self.options.deterministic {
            "deterministic".to_owned()
        } else {
            String::new()
        }
    }

    fn start(&self, folders: &[Grant]) -> Vec<String> {
        self.write_cache();
        let Some(confinement) = self.confinement(folders) else {
            return Vec::new();
        };
        let layers = confinement.map_or_else(|text| text, |confinement| confinement.to_string());
        vec![format!("calls run in child processes; {layers}")]
    }

    fn run_calls(
        &self,
        calls: &Arc<BatchCalls>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        if calls.cancel().is_cancelled() {
            return Ok(());
        }
        let guests = self.guests_with_start(calls, observe)?;
        if calls.cancel().is_cancelled() {
            return Ok(());
        }
        let guests = Arc::new(guests);
        let window = calls
            .batch()
            .task
            .max_parallel
            .map_or(usize::MAX, usize::from);
        let n_fitting = self.admission.n_fitting(&calls.batch().task);
        let n_loops = window
            .min(n_fitting)
            .min(self.pool.current_num_threads())
            .min(calls.n_pending());
        let (events, received) = sync_channel(MAX_QUEUED_EVENTS);
        let queue = Arc::new(Queue::starting_at(n_loops));
        for first in 0..n_loops {
            let (events, queue, calls, guests) = (
                events.clone(),
                Arc::clone(&queue),
                Arc::clone(calls),
                guests.clone(),
            );
            self.pool.spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    trace::within(&calls.context().span, || {
                        guests.run_loop(first, &calls, &queue, &events)
                    });
                }));
                queue.keep_panic(ended.err());
                // Once the last sender is gone, nothing of the task is in use any more.
                drop((calls, queue, guests));
                drop(events);
            });
        }
        drop(events);
        let mut inbox = Inbox::new(
            received,
            calls.cancel(),
            self.grace_period,
            self.sandbox.clock(),
        );
        let mut observed = Ok(());
        for event in inbox.by_ref() {
            if observed.is_ok() {
                observed = observe(event);
                if observed.is_err() {
                    queue.stop();
                }
            }
        }
        if let Some(panic) = queue.take_panic() {
            resume_unwind(panic);
        }
        for (attempt, wall_time) in inbox.abandoned() {
            let mut ended = Ended::without_guest(Outcome::Cancelled);
            ended.usage.wall_time = whole_microseconds(wall_time);
            observed = observed.and_then(|()| observe(calls.finished(attempt, ended, None)));
        }
        observed
    }
}

impl Local {
    fn guests(&self, limits: &Limits) -> Guests {
        Guests {
            sandbox: Arc::clone(self.sandbox_for(limits)),
            isolation: self.isolation.clone(),
            admission: Arc::clone(&self.admission),
            start: CallStart::Module,
        }
    }
}

/// The sandbox of the guests of one task.
struct Guests {
    sandbox: Arc<Sandbox>,
    isolation: Isolation,
    admission: Arc<Admission>,
    start: CallStart,
}

impl Guests {
    /// A worker for the guests of one thread.
    ///
    /// * `folders`: all that any of the guests may see.
    fn worker(&self, folders: Vec<Grant>) -> Result<Box<dyn RunGuest + '_>, HostError> {
        let worker: Box<dyn RunGuest + '_> = match &self.isolation {
            Isolation::Thread => Box::new(self.sandbox.worker()?),
            Isolation::Process(command) => {
                Box::new(ProcessWorker::new(&self.sandbox, command, folders))
            }
        };
        #[cfg(feature = "compiler")]
        if let CallStart::Snapshot(key) = &self.start {
            return Ok(Box::new(FromSnapshot { worker, key }));
        }
        Ok(worker)
    }

    /// Returns the outcome of all calls if they have nothing to start from.
    fn common_failure(&self) -> Option<&Outcome> {
        match &self.start {
            CallStart::Module => None,
            #[cfg(feature = "compiler")]
            CallStart::Snapshot(_) => None,
            #[cfg(feature = "compiler")]
            CallStart::Failed(outcome) => Some(outcome),
        }
    }

    /// Sets up one thread for the calls of a task.
    fn runner<'r>(
        &'r self,
        calls: &'r BatchCalls,
        events: EventSink,
    ) -> Result<CallRunner<'r>, HostError> {
        let work_dir = &calls.context().work_dir;
        let failed = HostError::file("create a scratch folder in", work_dir.path());
        // Guests without file functions get no folder.
        let has_files = self.sandbox.has_files(&calls.batch().task.module.sha256);
        let scratch = has_files
            .then(|| work_dir.create_worker_folder())
            .transpose()
            .map_err(failed)?;
        let mut folders = calls.batch().grants.to_vec();
        folders.extend(calls.batch().task.mounts.iter().cloned());
        folders.extend(scratch.as_ref().map(WorkerFolder::grant));
        Ok(CallRunner::new(
            self.worker(folders)?,
            calls,
            scratch,
            events,
            self.sandbox.clock(),
        ))
    }

    /// Runs call `first`, then one after the other of those that no loop has taken.
    fn run_loop(
        &self,
        first: usize,
        calls: &BatchCalls,
        queue: &Queue,
        events: &SyncSender<CallEvent>,
    ) {
        let sender = events.clone();
        // Sending fails only for a call that was abandoned after the grace period.
        let sink: EventSink = Arc::new(move |event| drop(sender.send(event)));
        let mut runner = self.runner(calls, sink);
        let mut run = |attempt| match self.common_failure() {
            Some(outcome) => Ended::without_guest(outcome.clone()),
            None => run_caught(&mut runner, |runner| runner.run(&calls.call(attempt))),
        };
        let share = self.admission.share(&calls.batch().task);
        let mut position = first;
        while let Some(attempt) = calls
            .attempt(position)
            .filter(|_| !calls.cancel().is_cancelled())
        {
            let gives_up = || calls.cancel().is_cancelled() || queue.is_stopped();
            let waits = |message| queue.warn(message, events);
            let Some(_admitted) = self.admission.admit(share, gives_up, waits) else {
                break;
            };
            let made = calls.run_with_retries(attempt, &mut run, |event| {
                // Stop before the failure is reported, so that no call starts after a reported
                // failure.
                if event.is_final_failure() && !calls.batch().keep_going {
                    queue.stop();
                }
                // Sending fails only for a loop that was abandoned after the grace period; its
                // events are not needed.
                let _ = events.send(event);
                Ok::<_, Infallible>(())
            });
            let Ok(_) = made;
            if queue.is_stopped() {
                break;
            }
            position = queue.next();
        }
    }
}

/// Runs one call; a panic of the host is an outcome.
fn run_caught<'r>(
    runner: &mut Result<CallRunner<'r>, HostError>,
    run: impl FnOnce(&mut CallRunner<'r>) -> Ended,
) -> Ended {
    match runner {
        Err(err) => Ended::without_guest(Outcome::HostFailed {
            message: err.chain(),
        }),
        Ok(runner) => {
            let ended = catch_unwind(AssertUnwindSafe(|| run(runner)));
            ended.unwrap_or_else(|panic| {
                Ended::without_guest(Outcome::Panicked {
                    message: panic_text(panic.as_ref()),
                })
            })
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
