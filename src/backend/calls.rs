//! The calls of a batch with what they need on this machine.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Span;

use super::CallEvent;
use super::output_budget::OutputBudget;
use crate::event::{EventKind, Fact};
use crate::json::Value;
use crate::model::{
    Attempt, Batch, BatchFiles, CallFiles, CallList, CallRef, CallSpec, CancelToken, Ended,
    FailureKind, ModuleKind, TaskFiles,
};
use crate::sandbox::TAIL_BYTES;
use crate::trace;
use crate::workdir::layout::packed_calls_file_of;
use crate::workdir::{AttemptKey, PackedCall, PackedCalls, RecordForm, WorkDir};

/// Context of the calls of a batch: all that cannot be written down.
pub struct RunContext {
    /// Destination of the files of the calls.
    pub work_dir: Arc<WorkDir>,
    /// Ends the run when it is cancelled.
    pub cancel: CancelToken,
    /// The span of the task, in which those of calls are.
    pub span: Span,
    /// Start of the run, as its events count it: 0 for the first, one more for each resumption.
    pub session: u32,
    /// Writer of the calls' stdout and stderr, in place of their files.
    pub writer: Option<Arc<OutputWriter>>,
    /// Parts of stdout and stderr in the ends of calls.
    pub tails: Tails,
    /// Bound on all outputs of the run together.
    pub(crate) budget: Arc<OutputBudget>,
    /// Warnings that were shown already.
    pub(crate) seen_warnings: Arc<SeenWarnings>,
}

/// Creates a writer for the stdout or the stderr of a guest.
pub type OutputWriter = dyn Fn() -> Box<dyn Write + Send> + Send + Sync;

/// Parts of stdout and stderr in the end of a call, in addition to those that are written
/// elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tails {
    /// Maximum number of bytes from the end of stdout; default 0.
    pub stdout_bytes: usize,
    /// Maximum number of bytes from the end of stderr; default 4 KiB.
    pub stderr_bytes: usize,
    /// True if the log lines of a typed task are part of its stderr, and its progress is dropped.
    /// Default: false, both are events.
    pub has_log_lines: bool,
}

impl Default for Tails {
    fn default() -> Self {
        Self {
            stdout_bytes: 0,
            stderr_bytes: TAIL_BYTES,
            has_log_lines: false,
        }
    }
}

impl RunContext {
    /// A context without a bound on all outputs together.
    pub fn new(work_dir: Arc<WorkDir>, cancel: CancelToken) -> Self {
        Self {
            work_dir,
            cancel,
            span: Span::current(),
            session: 0,
            writer: None,
            tails: Tails::default(),
            budget: Arc::new(OutputBudget::unlimited()),
            seen_warnings: Arc::default(),
        }
    }
}

/// Selection of the calls that have to run.
#[derive(Clone, Debug, Default)]
pub enum Pending {
    /// All of them, for the first time.
    #[default]
    All,
    /// These indices only, each with the number of its next attempt. Files that an attempt before
    /// has left are replaced.
    Only(Vec<(usize, u32)>),
}

/// The calls of a batch. The struct owns all its parts: a thread whose guest cannot be ended may
/// outlive the run.
pub struct BatchCalls {
    batch: Batch,
    list: Arc<dyn CallList>,
    pending: Pending,
    context: RunContext,
    /// File with the records of packed calls.
    packed: Arc<PackedCalls>,
    /// True if no further call starts.
    is_stopped: AtomicBool,
}

impl BatchCalls {
    /// All calls of a list.
    pub fn new(mut batch: Batch, list: Arc<dyn CallList>, context: RunContext) -> Self {
        batch.task_files = batch.task_files.for_calls(list.len());
        let packed = Arc::new(PackedCalls::new(&batch.folder));
        Self {
            batch,
            list,
            pending: Pending::All,
            context,
            packed,
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Keeps packed records in a file of their own, for a job of a cluster.
    ///
    /// * `writer`: unique name of the job.
    pub(super) fn set_packed_name(&mut self, writer: &str) {
        let name = packed_calls_file_of(writer);
        self.packed = Arc::new(PackedCalls::named(&self.batch.folder, name));
    }

    /// Lets no further call start; those that run go on.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Leaves out calls whose results are known.
    pub fn set_pending(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// Data that the calls share.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Context of the calls on this machine.
    pub fn context(&self) -> &RunContext {
        &self.context
    }

    /// The calls.
    pub fn list(&self) -> &dyn CallList {
        self.list.as_ref()
    }

    /// Number of calls, of which some may not have to run.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there is no call.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of calls that have to run.
    pub fn n_pending(&self) -> usize {
        match &self.pending {
            Pending::All => self.len(),
            Pending::Only(calls) => calls.len(),
        }
    }

    /// A call that has to run, at its first attempt in this run.
    ///
    /// * `position`: from 0, below [`Self::n_pending`]; `None` past the last.
    pub fn attempt(&self, position: usize) -> Option<Attempt> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return None;
        }
        match &self.pending {
            Pending::All => (position < self.len()).then_some(Attempt {
                call_index: position,
                number: 1,
            }),
            Pending::Only(calls) => {
                let (call_index, number) = *calls.get(position)?;
                Some(Attempt { call_index, number })
            }
        }
    }

    /// One call.
    ///
    /// # Panics
    /// If its index is not below [`Self::len`].
    pub fn call(&self, attempt: Attempt) -> CallSpec {
        let replaces_files = attempt.number > 1 || matches!(self.pending, Pending::Only(_));
        self.list.call(&self.batch, attempt, replaces_files)
    }

    /// Form of the files that an attempt leaves.
    pub(super) fn record_form(&self, call: &CallSpec) -> RecordForm {
        match self.batch.task_files {
            // A list of calls has decided what `Auto` is.
            TaskFiles::All | TaskFiles::Auto => RecordForm::All,
            TaskFiles::Failed => RecordForm::Failed,
            TaskFiles::None => RecordForm::None,
            TaskFiles::Packed => {
                let attempt = AttemptKey {
                    session: self.context.session,
                    batch: self.batch.index,
                    call_index: call.attempt.call_index,
                    attempt: call.attempt.number,
                };
                RecordForm::Packed(PackedCall::new(&self.packed, attempt, call.item.clone()))
            }
        }
    }

    /// Form of the files of the calls, for the event log; `None` if there is no call.
    pub fn form_of_files(&self) -> Option<Box<BatchFiles>> {
        (!self.is_empty()).then(|| {
            Box::new(BatchFiles {
                kept: self.batch.task_files,
                suffixes: self.files(0).suffixes,
            })
        })
    }

    /// The files of a call.
    pub fn files(&self, call_index: usize) -> CallFiles {
        self.list.files(&self.batch, call_index)
    }

    /// Name of an attempt in events.
    pub fn call_ref(&self, attempt: Attempt) -> CallRef {
        CallRef {
            task: self.batch.task.order,
            batch: self.batch.index,
            call_index: attempt.call_index,
            item: self.item(attempt.call_index).cloned(),
            attempt: attempt.number,
        }
    }

    /// The item of a call; `None` for a single call.
    pub fn item(&self, call_index: usize) -> Option<&Value> {
        self.list.item(call_index)
    }

    /// Returns true if calls get their parameters in memory.
    pub fn is_typed(&self) -> bool {
        self.batch.task.kind == ModuleKind::Typed
    }

    /// Ends the run when it is cancelled.
    pub fn cancel(&self) -> &CancelToken {
        &self.context.cancel
    }

    /// Runs a call, and retries it as often as it may be. Returns how the last attempt failed;
    /// `None` if it succeeded.
    ///
    /// * `run`: runs one attempt.
    /// * `report`: gets what happens.
    ///
    /// # Errors
    /// Those of `report`.
    pub fn run_with_retries<E>(
        &self,
        first: Attempt,
        mut run: impl FnMut(Attempt) -> Ended,
        mut report: impl FnMut(CallEvent) -> Result<(), E>,
    ) -> Result<Option<FailureKind>, E> {
        let mut attempt = first;
        loop {
            let started = EventKind::CallStarted {
                call: self.call_ref(attempt),
                files: (self.batch.task_files != TaskFiles::None)
                    .then(|| self.files(attempt.call_index).stem),
            };
            report(CallEvent::Happened(Fact::new(started)))?;
            let span = trace::call(&self.context.span, || self.call_ref(attempt));
            let ended = span.in_scope(|| run(attempt));
            trace::call_ended(&span, &ended);
            drop(span);
            let kind = ended.outcome.failure_kind();
            let n_failed = attempt.number - first.number + 1;
            let wait = if self.cancel().is_cancelled() {
                None
            } else {
                self.batch.retries.wait(n_failed, &ended.outcome)
            };
            report(self.finished(attempt, ended, wait))?;
            match wait {
                Some(wait) if !self.cancel().wait_for(wait) => attempt.number += 1,
                _ => return Ok(kind),
            }
        }
    }

    /// The event of an attempt that has ended.
    ///
    /// * `wait`: after which another follows; `None`: it was the last.
    pub fn finished(&self, attempt: Attempt, ended: Ended, wait: Option<Duration>) -> CallEvent {
        let Ended {
            outcome,
            usage,
            stderr_tail,
            ..
        } = ended;
        let has_failed = outcome.failure_kind().is_some();
        let has_files = self.batch.task_files != TaskFiles::None && has_failed;
        let kind = EventKind::CallFinished {
            call: self.call_ref(attempt),
            outcome,
            usage,
            retry_in_s: wait.map(|wait| wait.as_secs_f64()),
            stderr: (has_files && !stderr_tail.is_empty())
                .then(|| self.stderr_file(attempt.call_index)),
            item_urls: self.list.item_urls(attempt.call_index),
        };
        CallEvent::Finished {
            fact: Fact::new(kind),
            stderr_tail,
        }
    }

    /// The file with the stderr of a call, as a path in the work directory.
    pub(super) fn stderr_file(&self, call_index: usize) -> String {
        let path = self.files(call_index).err();
        let below = path.strip_prefix(self.context.work_dir.path());
        below.unwrap_or(&path).to_string_lossy().into_owned()
    }
}

/// Warnings of calls, each only once: a thousand calls can list the same folder.
#[derive(Default)]
pub(crate) struct SeenWarnings(Mutex<BTreeSet<String>>);

/// Different warnings of all calls that are shown.
const MAX_WARNINGS: usize = 100;

impl SeenWarnings {
    /// The warning, if it is new and there are not too many already.
    pub(crate) fn first(&self, message: String) -> Option<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > MAX_WARNINGS || !seen.insert(message.clone()) {
            return None;
        }
        if seen.len() > MAX_WARNINGS {
            Some("calls gave more warnings, which are not shown".to_owned())
        } else {
            Some(message)
        }
    }
}
