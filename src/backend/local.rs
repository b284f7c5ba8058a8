//! Calls on a rayon pool of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::describe::ask;
use super::one_call::{RunGuest, run_one_call};
use super::process::{ProcessWorker, WorkerCommand};
use super::{Backend, CallEvent};
use crate::error::HostError;
use crate::outcome::{Ended, Outcome};
use crate::runner::TaskCalls;
use crate::sandbox::{Grant, Limits, ModuleKind, Sandbox, SandboxOptions};
use crate::workflow::ModuleFile;

/// Stack of a pool thread. Guests have stacks of their own; this one is for the host's code.
const THREAD_STACK_BYTES: usize = 4 << 20;

/// What is between guests beside the sandbox.
#[derive(Clone, Debug, Default)]
pub enum Isolation {
    /// Nothing: guests run in threads of this process.
    #[default]
    Thread,
    /// Child processes that can be killed, each confined further where the kernel can, one for each thread.
    Process(WorkerCommand),
}

/// The local backend: guests on the threads of a pool, or in a child process for each thread.
///
/// Its threads are the limit over all runs that use it at the same time.
pub struct Local {
    sandbox: Sandbox,
    isolation: Isolation,
    pool: ThreadPool,
}

impl Local {
    /// * `n_threads`: calls that run at a time at most; 0: as many as there are CPUs.
    ///
    /// # Errors
    /// [`HostError::Setup`] if the runtime or the threads cannot be made.
    pub fn new(n_threads: usize) -> Result<Self, HostError> {
        Self::with_options(n_threads, &SandboxOptions::default(), Isolation::Thread)
    }

    /// [`Self::new`] with a sandbox of one's own setting.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(n_threads: usize, options: &SandboxOptions, isolation: Isolation) -> Result<Self, HostError> {
        let sandbox = Sandbox::new(options)?;
        let n_threads = match n_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n_threads => n_threads,
        };
        let pool = ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .stack_size(THREAD_STACK_BYTES)
            .thread_name(|index| format!("mandelbox-{index}"))
            .build()
            .map_err(HostError::setup("start the threads for calls"))?;
        Ok(Self { sandbox, isolation, pool })
    }

    /// The sandbox that calls run in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Backend for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn prepare(&self, module: &ModuleFile, time: Duration) -> Result<ModuleKind, String> {
        self.sandbox.prepare(module, time)
    }

    fn describe(&self, module: &ModuleFile, limits: &Limits) -> Result<String, String> {
        let worker = self.worker(Vec::new()).map_err(|err| err.chain());
        ask(worker?.as_mut(), &module.sha256, &module.file_name(), limits)
    }

    fn start(&self, folders: &[Grant]) -> Vec<String> {
        self.sandbox.keep_compiled();
        let Isolation::Process(command) = &self.isolation else { return Vec::new() };
        let confinement = ProcessWorker::new(&self.sandbox, command, folders.to_vec()).confinement();
        vec![format!("calls run in child processes; {}", confinement.unwrap_or_else(|text| text))]
    }

    fn run_calls(
        &self,
        calls: &TaskCalls<'_>,
        observe: &mut dyn FnMut(CallEvent) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let window = calls.window().map_or(usize::MAX, usize::from);
        let n_loops = window.min(self.pool.current_num_threads()).min(calls.len());
        let (events, received) = channel();
        let queue = Queue { next: AtomicUsize::new(n_loops), stopped: AtomicBool::new(false) };
        let mut observed = Ok(());
        self.pool.in_place_scope(|scope| {
            for first in 0..n_loops {
                let (events, queue) = (events.clone(), &queue);
                scope.spawn(move |_| self.run_loop(first, calls, queue, &events));
            }
            drop(events);
            for event in received {
                if observed.is_ok() {
                    observed = observe(event);
                    if observed.is_err() {
                        queue.stopped.store(true, Ordering::SeqCst);
                    }
                }
            }
        });
        observed
    }
}

/// Which call is next; every loop of a task takes its calls here.
struct Queue {
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl Local {
    /// What runs the guests of one thread.
    ///
    /// * `folders`: all that any of the guests may see.
    fn worker(&self, folders: Vec<Grant>) -> Result<Box<dyn RunGuest + '_>, HostError> {
        Ok(match &self.isolation {
            Isolation::Thread => Box::new(self.sandbox.worker()?),
            Isolation::Process(command) => Box::new(ProcessWorker::new(&self.sandbox, command, folders)),
        })
    }

    /// Runs call `first`, then one after the other of those that no loop has taken.
    fn run_loop(&self, first: usize, calls: &TaskCalls<'_>, queue: &Queue, events: &Sender<CallEvent>) {
        let mut folders = calls.grants().to_vec();
        folders.extend(calls.task().mounts.iter().cloned());
        folders.push(calls.work_dir().scratch_grant());
        let mut worker = self.worker(folders);
        let mut call_index = first;
        while call_index < calls.len() && !calls.cancel().is_cancelled() {
            // The receiver outlives all loops, so sending cannot fail.
            let _ = events.send(CallEvent::Started { call_index });
            let ended = match &mut worker {
                Err(err) => Ended::without_guest(Outcome::HostFailed { message: err.chain() }),
                Ok(worker) => {
                    let call =
                        AssertUnwindSafe(|| run_one_call(worker.as_mut(), calls, &calls.call(call_index), events));
                    catch_unwind(call).unwrap_or_else(|panic| {
                        Ended::without_guest(Outcome::Panicked { message: panic_text(panic.as_ref()) })
                    })
                }
            };
            if ended.outcome.failure_kind().is_some() && !calls.keeps_going() {
                queue.stopped.store(true, Ordering::SeqCst);
            }
            let _ = events.send(CallEvent::Finished { call_index, ended });
            if queue.stopped.load(Ordering::SeqCst) {
                break;
            }
            call_index = queue.next.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
