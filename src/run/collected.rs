//! What the calls of a task give, put together.

use std::sync::Arc;

use super::prepare::PreparedRun;
use crate::backend::CallEvent;
use crate::backend::calls::TaskCalls;
use crate::event::{EventKind, Recorder};
use crate::fractal::v1::metadata::Aggregation;
use crate::json::{Map, Value};
use crate::model::{CallFailure, CallRef, FailureKind, HostError, Outcome};
use crate::plan::PlannedTask;
use crate::run::{Cancelled, Error, TaskFailure};
use crate::workdir::TaskFiles;

/// What the calls of a task gave.
#[derive(Default)]
pub(super) struct Collected {
    aggregation: Aggregation,
    failures: Failures,
    n_finished: usize,
}

/// Failed calls that are kept with the end of their stderr and all of their message: those first in
/// the component list. There can be a million others, of which less is kept.
const MAX_IN_FULL: usize = 100;
/// Characters of the messages of the others.
const MAX_MESSAGE_CHARS: usize = 200;

/// The calls of a task that failed.
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
    /// What is kept of an earlier run.
    pub(super) fn of_kept(kept: Vec<(CallRef, Option<Map<String, Value>>)>) -> Self {
        let mut collected = Self {
            n_finished: kept.len(),
            ..Self::default()
        };
        for (call, metadiff) in kept {
            collected
                .aggregation
                .add(call.call_index, metadiff.unwrap_or_default());
        }
        collected
    }

    /// Makes the calls of a task that are to be made, and records each start and end.
    pub(super) fn collect(
        &mut self,
        prepared: &PreparedRun,
        calls: &Arc<TaskCalls>,
        recorder: &mut Recorder,
    ) -> Result<(), HostError> {
        prepared
            .options
            .backend
            .run_calls(calls, &mut |event| match event {
                CallEvent::Happened(fact) => recorder.record_fact(fact).map(|_| ()),
                CallEvent::Idle => recorder.flush(),
                CallEvent::Finished { fact, stderr_tail } => {
                    let kind = recorder.record_fact(fact)?;
                    if let EventKind::CallFinished {
                        call,
                        outcome,
                        retry_in_s: None,
                        ..
                    } = kind
                    {
                        self.add(calls, call, outcome, stderr_tail);
                    }
                    Ok(())
                }
            })
    }

    fn add(
        &mut self,
        calls: &TaskCalls,
        CallRef {
            call_index,
            component,
            ..
        }: CallRef,
        outcome: Outcome,
        stderr_tail: String,
    ) {
        self.n_finished += 1;
        match outcome {
            Outcome::Succeeded { metadiff: None } => {}
            Outcome::Succeeded {
                metadiff: Some(metadiff),
            } => self.aggregation.add(call_index, metadiff),
            outcome => {
                let keeps_stderr = calls.task_files() != TaskFiles::None && !stderr_tail.is_empty();
                let stderr_path = keeps_stderr.then(|| calls.files(call_index).err());
                self.failures.add(CallFailure {
                    call_index,
                    component,
                    outcome,
                    stderr_tail,
                    stderr_path,
                });
            }
        }
    }

    /// Returns an error that names every failed call, if there is one; its kind is that of the
    /// first one in the component list.
    pub(super) fn check(&mut self, calls: &TaskCalls, n_components: usize) -> Result<(), Error> {
        let mut failures = std::mem::take(&mut self.failures.calls);
        failures.sort_by_key(|failure| failure.call_index);
        let kind = failures
            .first()
            .and_then(|failure| failure.outcome.failure_kind());
        let n_ended_well = self.n_finished - failures.len();
        let is_cut_short = self.n_finished < calls.len()
            || failures
                .iter()
                .any(|failure| matches!(failure.outcome, Outcome::Cancelled));
        match kind {
            _ if calls.cancel().is_cancelled() && is_cut_short => {
                let failure = task_failure(calls.task(), n_components, None, failures);
                Err(Error::Cancelled(Box::new(Cancelled {
                    failure: *failure,
                    n_calls: calls.len(),
                    n_ended_well,
                })))
            }
            Some(FailureKind::TaskExecution) => Err(Error::TaskExecution(task_failure(
                calls.task(),
                n_components,
                None,
                failures,
            ))),
            Some(FailureKind::JobExecution) => Err(Error::JobExecution(task_failure(
                calls.task(),
                n_components,
                None,
                failures,
            ))),
            None if self.n_finished < calls.len() => {
                let reason = "the backend did not make all calls".to_owned();
                Err(Error::JobExecution(task_failure(
                    calls.task(),
                    n_components,
                    Some(reason),
                    Vec::new(),
                )))
            }
            None => Ok(()),
        }
    }

    /// What the task adds to the metadata; says so where Fractal does.
    pub(super) fn into_metadiff(
        self,
        task: &PlannedTask,
        recorder: &mut Recorder,
    ) -> Result<Map<String, Value>, HostError> {
        let order = task.order;
        if task.parallelization_level.is_none() {
            let metadiff = self.aggregation.into_single();
            if metadiff.is_none() {
                recorder.record(EventKind::MetadataUnchanged { task: order })?;
            }
            return Ok(metadiff.unwrap_or_default());
        }
        let metadiff = self.aggregation.finish();
        if !metadiff.is_empty() {
            let keys = metadiff.keys().cloned().collect();
            recorder.record(EventKind::MetadataAggregated { task: order, keys })?;
        }
        Ok(metadiff)
    }
}

pub(super) fn task_failure(
    task: &PlannedTask,
    n_components: usize,
    reason: Option<String>,
    calls: Vec<CallFailure>,
) -> Box<TaskFailure> {
    Box::new(TaskFailure {
        task_name: task.name.clone(),
        workflow_task_order: task.order,
        workflow_task_id: task.workflow_task_id().cloned(),
        n_components,
        reason,
        calls,
    })
}
