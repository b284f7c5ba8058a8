//! Outcomes of the calls of a batch, collected.

use std::sync::Arc;

use super::prepare::PreparedRun;
use crate::backend::{BatchCalls, CallEvent};
use crate::event::{EventKind, Recorder};
use crate::json::{Map, Value};
use crate::model::{CallFailure, CallRef, FailureKind, HostError, Outcome, TaskSpec};
use crate::run::{Cancelled, Error, TaskFailure};

/// Outcomes of the calls of a batch.
#[derive(Default)]
pub(super) struct Collected {
    outputs: Vec<(usize, Map<String, Value>)>,
    failures: Failures,
    n_finished: usize,
    /// Word of the users for an item of a task.
    item_kind: &'static str,
}

/// Failed calls that are kept with the end of their stderr and all of their message: those first in
/// the list of items. There can be a million others, of which less is kept.
const MAX_IN_FULL: usize = 100;
/// Characters of the messages of the others.
const MAX_MESSAGE_CHARS: usize = 200;

/// The calls of a batch that failed.
#[derive(Default)]
struct Failures {
    calls: Vec<CallFailure>,
    n_in_full: usize,
}

impl Failures {
    fn add(&mut self, failure: CallFailure) {
        self.calls.push(failure);
        self.n_in_full += 1;
        // Not with each one, so that sorting costs little.
        if self.n_in_full == 2 * MAX_IN_FULL {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        self.calls.sort_by_key(|failure| failure.call_index);
        for failure in self.calls.iter_mut().skip(MAX_IN_FULL) {
            failure.outcome.shorten(MAX_MESSAGE_CHARS);
            (failure.stderr_tail, failure.stderr_path) = (String::new(), None);
        }
        self.n_in_full = MAX_IN_FULL;
    }
}

impl Collected {
    /// Results of an earlier run.
    pub(super) fn of_reused(
        reused: Vec<(CallRef, Option<Map<String, Value>>)>,
        item_kind: &'static str,
    ) -> Self {
        let mut collected = Self {
            item_kind,
            n_finished: reused.len(),
            ..Self::default()
        };
        for (call, output) in reused {
            collected.add_output(call.call_index, output);
        }
        collected
    }

    /// Runs the calls that have no result yet, and records each start and end.
    pub(super) fn collect(
        &mut self,
        prepared: &PreparedRun,
        calls: &Arc<BatchCalls>,
        recorder: &mut Recorder,
    ) -> Result<(), HostError> {
        let backend = &prepared.options.backend;
        backend.run_calls(calls, &mut |event| match event {
            CallEvent::Happened(fact) => recorder.record_fact(fact).map(|_| ()),
            CallEvent::Idle => recorder.flush(),
            CallEvent::Finished { fact, stderr_tail } => {
                let kind = recorder.record_fact(fact)?;
                self.add(calls, kind, stderr_tail);
                Ok(())
            }
        })
    }

    /// Takes the end of a call, unless it is retried.
    fn add(&mut self, calls: &BatchCalls, finished: EventKind, stderr_tail: String) {
        let EventKind::CallFinished {
            call,
            outcome,
            retry_in_s: None,
            stderr,
            ..
        } = finished
        else {
            return;
        };
        self.n_finished += 1;
        match outcome {
            Outcome::Succeeded { output } => self.add_output(call.call_index, output),
            outcome => self.failures.add(CallFailure {
                call_index: call.call_index,
                item_kind: self.item_kind.into(),
                item: call.item,
                outcome,
                stderr_tail,
                stderr_path: stderr.map(|path| calls.context().work_dir.path().join(path)),
            }),
        }
    }

    fn add_output(&mut self, call_index: usize, output: Option<Map<String, Value>>) {
        if let Some(output) = output.filter(|output| !output.is_empty()) {
            self.outputs.push((call_index, output));
        }
    }

    /// Returns an error that names every failed call, if there is one; its kind is that of the
    /// first one in the list of items.
    pub(super) fn check(&mut self, calls: &BatchCalls, n_items: usize) -> Result<(), Error> {
        let mut failures = std::mem::take(&mut self.failures.calls);
        failures.sort_by_key(|failure| failure.call_index);
        let first = failures.first();
        let kind = first.and_then(|failure| failure.outcome.failure_kind());
        let n_succeeded = self.n_finished - failures.len();
        let is_cancelled = |failure: &CallFailure| matches!(failure.outcome, Outcome::Cancelled);
        let is_cut_short = self.n_finished < calls.len() || failures.iter().any(is_cancelled);
        let failure = |reason, failures| {
            let task = &calls.batch().task;
            task_failure(task, n_items, reason, failures)
        };
        if calls.cancel().is_cancelled() && is_cut_short {
            return Err(Error::Cancelled(Box::new(Cancelled {
                failure: *failure(None, failures),
                n_calls: calls.len(),
                n_succeeded,
            })));
        }
        match kind {
            Some(FailureKind::TaskExecution) => Err(Error::TaskExecution(failure(None, failures))),
            Some(FailureKind::JobExecution) => Err(Error::JobExecution(failure(None, failures))),
            None if self.n_finished < calls.len() => {
                let reason = "the backend did not run all calls".to_owned();
                Err(Error::JobExecution(failure(Some(reason), Vec::new())))
            }
            None => Ok(()),
        }
    }

    /// The outputs, each with the index of its call.
    pub(super) fn into_outputs(self) -> Vec<(usize, Map<String, Value>)> {
        self.outputs
    }
}

pub(super) fn task_failure(
    task: &TaskSpec,
    n_items: usize,
    reason: Option<String>,
    calls: Vec<CallFailure>,
) -> Box<TaskFailure> {
    Box::new(TaskFailure {
        task_name: task.name.clone(),
        workflow_task_order: task.order,
        workflow_task_id: task.id.clone(),
        n_items,
        reason,
        calls,
    })
}
