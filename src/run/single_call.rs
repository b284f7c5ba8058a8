//! One call of one task, without a run around it and without its records: for authors of tasks.

use std::path::PathBuf;
use std::sync::Arc;

use super::collected::task_failure;
use crate::backend::{Backend, BatchCalls, CallEvent, OutputWriter, RunContext};
use crate::event::EventKind;
use crate::fractal::dialect::{Dialect, Step};
use crate::json::{Map, Value};
use crate::model::{
    Batch, CallFailure, CancelToken, FailureKind, Grant, HostError, Outcome, Retries, TaskFiles,
    TaskSpec,
};
use crate::run::{Cancelled, Error};
use crate::workdir::WorkDir;

/// A call that can be made.
pub(crate) struct SingleCall<'a> {
    /// The task, whose first batch has one call.
    pub(crate) task: &'a TaskSpec,
    /// The dataset.
    pub(crate) dialect: &'a mut dyn Dialect,
    /// Folders that the guest sees in addition to its scratch folder.
    pub(crate) grants: &'a [Grant],
    /// Folder of the args and the output of the guest of a command: a path in the sandbox.
    pub(crate) folder: PathBuf,
    /// Parent of the scratch folder.
    pub(crate) work_dir: Arc<WorkDir>,
    /// Takes stdout and stderr; `None`: only the end of stderr is kept, for the error.
    pub(crate) writer: Option<Arc<OutputWriter>>,
    /// Ends the call from another thread.
    pub(crate) cancel: &'a CancelToken,
}

/// The output of a call that succeeded; `None`: it gave none.
pub(crate) type CallResult = Result<Option<Map<String, Value>>, Error>;

impl SingleCall<'_> {
    /// Runs the call.
    ///
    /// * `observe`: gets the call's start, what the task logs and its progress, on the calling
    ///   thread.
    ///
    /// # Errors
    /// As a run's, but for those of documents.
    pub(crate) fn run(
        self,
        backend: &dyn Backend,
        observe: &mut dyn FnMut(EventKind),
    ) -> CallResult {
        let calls = match self.dialect.next(self.task, None, true) {
            Ok(Step::Calls(calls)) => calls,
            Ok(Step::Done(_)) => return Ok(None),
            Err(problem) => {
                let failure = task_failure(self.task, 0, Some(problem.to_string()), Vec::new());
                return Err(Error::JobExecution(failure));
            }
        };
        let batch = Batch {
            task: self.task.clone(),
            index: 0,
            grants: self.grants.to_vec(),
            folder: self.folder.clone(),
            task_files: TaskFiles::None,
            metadata: calls.metadata,
            free_space_bytes: 0,
            keep_going: false,
            retries: Retries::default(),
        };
        let mut context = RunContext::new(Arc::clone(&self.work_dir), self.cancel.clone());
        context.writer.clone_from(&self.writer);
        let item = calls.list.item(0).cloned();
        let calls = Arc::new(BatchCalls::new(batch, calls.list, context));
        let mut finished = None;
        backend.run_calls(&calls, &mut |event| {
            match event {
                CallEvent::Happened(fact) => observe(fact.into_kind()),
                CallEvent::Finished { fact, stderr_tail } => {
                    if let EventKind::CallFinished { outcome, .. } = fact.into_kind() {
                        finished = Some((outcome, stderr_tail));
                    }
                }
                CallEvent::Idle => {}
            }
            Ok::<_, HostError>(())
        })?;
        let (outcome, stderr_tail) = match finished {
            Some(finished) => finished,
            None if self.cancel.is_cancelled() => (Outcome::Cancelled, String::new()),
            None => {
                let message = "the backend made no call".to_owned();
                (Outcome::HostFailed { message }, String::new())
            }
        };
        self.result(item, outcome, stderr_tail)
    }

    fn result(&self, item: Option<Value>, outcome: Outcome, stderr_tail: String) -> CallResult {
        let kind = outcome.failure_kind();
        let is_cancelled = matches!(outcome, Outcome::Cancelled);
        let outcome = match outcome {
            Outcome::Succeeded { output } => return Ok(output),
            outcome => outcome,
        };
        // Users who have seen all of stderr need no end of it.
        let stderr_tail = match self.writer {
            Some(_) => String::new(),
            None => stderr_tail,
        };
        let n_items = usize::from(item.is_some());
        let call = CallFailure {
            call_index: 0,
            item_kind: self.dialect.item_kind().into(),
            item,
            outcome,
            stderr_tail,
            stderr_path: None,
        };
        let failure = task_failure(self.task, n_items, None, vec![call]);
        Err(match kind {
            _ if is_cancelled => Error::Cancelled(Box::new(Cancelled {
                failure: *failure,
                n_calls: 1,
                n_succeeded: 0,
            })),
            Some(FailureKind::TaskExecution) => Error::TaskExecution(failure),
            _ => Error::JobExecution(failure),
        })
    }
}
