//! The run itself: task after task, with its records after each.
//!
//! A task is a sequence of batches. The dialect makes each from how the calls of the one before
//! ended; this file runs it, and records what happens.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::Span;

use super::collected::{Collected, task_failure};
use super::data_state::is_empty;
use super::prepare::{PreparedRun, RunFailure};
use super::resume::{BatchId, BatchKey, EarlierRun, ReusedCalls};
use super::start::Started;
use crate::backend::{BatchCalls, OutputBudget, RunContext, SeenWarnings, Tails};
use crate::event::{EventKind, InputState, Recorder, Reporter, Reused, Status};
use crate::folder::WriteContents;
use crate::fractal::dialect::{BatchEnd, Calls, Dialect, Record, Step, TaskEnd, TaskTimes};
use crate::json::{Map, Value};
use crate::model::{Batch, FailureKind, HostError, ModuleKind, TaskFiles, TaskSpec};
use crate::run::Error;
use crate::trace;
use crate::workdir::WorkDir;

impl PreparedRun {
    /// Runs the plan and keeps its records in the work directory. Returns the result, as
    /// `result.json` has it.
    ///
    /// * `reporters`: get every event, in addition to the records in the work directory.
    ///
    /// # Errors
    /// As [`super::process_workflow`], but for problems of documents, which were checked.
    pub fn execute(
        mut self,
        reporters: Vec<Box<dyn Reporter>>,
    ) -> Result<Map<String, Value>, Box<RunFailure>> {
        let _span = trace::run(&self.plan.workflow_name, &self.work_dir).entered();
        let Started {
            work_dir,
            mut recorder,
            earlier,
            inputs,
        } = self.start(reporters)?;
        let dialect = self.dialect.take().expect("a run is executed once");
        let mut run = Execution {
            prepared: &self,
            work_dir,
            recorder: &mut recorder,
            dialect,
            earlier,
            inputs: Some(inputs),
            budget: Arc::new(OutputBudget::new(self.options.policy.outputs_bytes)),
            has_unwritten_state: false,
            seen_warnings: Arc::default(),
        };
        let result = run.run_tasks().and_then(|()| Ok(run.finish(None)?));
        let ended = result.inspect_err(|error| {
            // The first error counts; another one while it is recorded adds nothing.
            let _ = run.finish(Some(error));
        });
        let result = run.dialect.into_result();
        match ended {
            Ok(()) => Ok(result),
            Err(error) => Err(Box::new(RunFailure {
                error,
                result: Some(result),
            })),
        }
    }
}

/// A run that has started.
struct Execution<'r> {
    prepared: &'r PreparedRun,
    work_dir: Arc<WorkDir>,
    recorder: &'r mut Recorder,
    /// The dataset.
    dialect: Box<dyn Dialect>,
    /// State of the earlier run; `None` if this run is not resumed.
    earlier: Option<EarlierRun>,
    /// State of the inputs when the run started; `None` once they were compared.
    inputs: Option<Vec<InputState>>,
    /// Bound on all outputs of the run together.
    budget: Arc<OutputBudget>,
    /// True if a task has ended since the state of the dataset was written.
    has_unwritten_state: bool,
    seen_warnings: Arc<SeenWarnings>,
}

impl Execution<'_> {
    fn run_tasks(&mut self) -> Result<(), Error> {
        let prepared = self.prepared;
        for task in &prepared.plan.tasks {
            let _span = trace::task(task.order, &task.name).entered();
            let started = Timestamp::now();
            if let Err(error) = self.run_task(task, started) {
                let failure = error.task_failure();
                let n_items = failure.map_or(0, |failure| failure.n_items);
                let ended = Timestamp::now();
                self.dialect
                    .fail(task, TaskTimes { started, ended }, n_items);
                self.has_unwritten_state |= self.dialect.keeps_partial_outputs();
                // The first error counts; another one while it is recorded adds nothing.
                let n_failed = failure.map_or(0, |failure| failure.calls.len());
                let _ = self.record_task_finished(task, Status::Failed, n_failed);
                return Err(error);
            }
            self.has_unwritten_state = true;
            self.record_task_finished(task, Status::Done, 0)?;
        }
        Ok(())
    }

    /// Writes the state of the dataset, if a task has ended since. The log is synced first, since
    /// the state must not be newer than the log.
    fn write_state(&mut self) -> Result<(), HostError> {
        if self.has_unwritten_state {
            self.recorder.sync()?;
            write_records(&self.work_dir, &self.dialect.records())?;
            self.has_unwritten_state = false;
        }
        Ok(())
    }

    /// Runs one task, batch after batch.
    fn run_task(&mut self, task: &TaskSpec, started: Timestamp) -> Result<(), Error> {
        let has_files =
            task.kind != ModuleKind::Typed || self.prepared.options.task_files != TaskFiles::None;
        let mut ended = None;
        for index in 0.. {
            match self.dialect.next(task, ended.take(), has_files) {
                Err(problem) => {
                    if index == 0 {
                        self.record_refused_task(task)?;
                    }
                    let changes = TaskEnd {
                        changes: problem.changes,
                        ..TaskEnd::default()
                    };
                    self.record_changes(task, changes)?;
                    let failure = task_failure(task, 0, Some(problem.to_string()), Vec::new());
                    return Err(match problem.kind {
                        FailureKind::TaskExecution => Error::TaskExecution(failure),
                        FailureKind::JobExecution => Error::JobExecution(failure),
                    });
                }
                Ok(Step::Calls(calls)) => {
                    ended = Some(self.run_batch(task, index, calls, started)?);
                }
                Ok(Step::Done(end)) => {
                    self.record_changes(task, end)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Records the start of a task that cannot begin.
    fn record_refused_task(&mut self, task: &TaskSpec) -> Result<(), HostError> {
        self.write_state()?;
        self.recorder.record(EventKind::TaskStarted {
            task: task.order,
            batch: 0,
            name: task.name.clone(),
            n_calls: 0,
            items: None,
            module_sha256: task.module.sha256.clone(),
            script: task.script.clone().map(Box::new),
            args_digest: String::new(),
            limits: (&task.limits).into(),
            reused: Reused::None,
            n_reused: 0,
            n_available: self.dialect.n_available(),
            files: None,
        })
    }

    /// Runs those calls of a batch that have no result yet. All of them succeed, or the task fails.
    ///
    /// * `started`: when the task began in this run.
    ///
    /// Returns the outputs of all its calls, including reused ones.
    fn run_batch(
        &mut self,
        task: &TaskSpec,
        index: u32,
        calls: Calls,
        started: Timestamp,
    ) -> Result<BatchEnd, Error> {
        if !self.dialect.has_early_folders() && !calls.list.is_empty() {
            self.work_dir.create_task_folder(task.order, &task.name)?;
        }
        let items = calls.items.clone();
        let mut calls = self.batch_calls(task, index, calls);
        let id = BatchId {
            task: task.order,
            batch: index,
        };
        let n_items = if items.is_some() { calls.len() } else { 0 };
        let key = BatchKey::of(&calls, &self.prepared.options.backend.settings());
        let mut reused = match &mut self.earlier {
            None => ReusedCalls::default(),
            Some(earlier) => earlier.reuse(id, &key, &calls),
        };
        calls.set_pending(std::mem::take(&mut reused.pending));
        // Tasks whose results are all reused do not write the state: the records then show how far
        // the earlier run was.
        if calls.n_pending() > 0 {
            self.write_state()?;
        }
        self.record_batch_start(task, &calls, items, key, &reused)?;
        if calls.n_pending() > 0 {
            self.drop_outdated_results(task, id)?;
        }
        let ReusedCalls {
            calls: reused_calls,
            started: first_started,
            ended,
            ..
        } = reused;
        for output in reused_calls
            .iter()
            .filter_map(|(_, output)| output.as_ref())
        {
            self.budget.add(output);
        }
        let mut collected = Collected::of_reused(reused_calls, self.prepared.item_kind);
        let calls = Arc::new(calls);
        collected.collect(self.prepared, &calls, self.recorder)?;
        let checked = collected.check(&calls, n_items);
        let ended = BatchEnd {
            outputs: collected.into_outputs(),
            times: TaskTimes {
                started: first_started.unwrap_or(started),
                ended: ended.unwrap_or_else(Timestamp::now),
            },
        };
        match checked {
            Ok(()) => Ok(ended),
            Err(error) => {
                self.keep_partial_outputs(task, &error, ended)?;
                Err(error)
            }
        }
    }

    /// Records the start of a batch, and which of its results are reused.
    fn record_batch_start(
        &mut self,
        task: &TaskSpec,
        calls: &BatchCalls,
        items: Option<String>,
        key: BatchKey,
        reused: &ReusedCalls,
    ) -> Result<(), HostError> {
        if let Some(text) = &reused.rerun_reason {
            self.record_rerun(task, text)?;
        }
        if let Some(text) = &reused.note {
            self.record_note(task, text)?;
        }
        if reused.reused == Reused::Listed {
            for (call, output) in &reused.calls {
                let (call, output) = (call.clone(), output.clone());
                self.recorder
                    .record(EventKind::CallReused { call, output })?;
            }
        }
        let (n_reused, n_calls) = (reused.calls.len(), calls.len());
        self.recorder.record(EventKind::TaskStarted {
            task: task.order,
            batch: calls.batch().index,
            name: task.name.clone(),
            n_calls,
            items,
            module_sha256: key.module_sha256,
            script: key.script,
            args_digest: key.args_digest,
            limits: key.limits,
            reused: reused.reused,
            n_reused,
            n_available: self.dialect.n_available(),
            files: calls.form_of_files(),
        })?;
        if n_reused > 0 {
            let text =
                format!("{n_reused} of {n_calls} calls had succeeded; their results are reused");
            self.record_note(task, &text)?;
            self.compare_inputs(task, &reused.inputs)?;
        }
        Ok(())
    }

    /// Drops the results of later batches, before the calls of a batch change data. The log on disk
    /// then shows which results do not count any more.
    fn drop_outdated_results(&mut self, task: &TaskSpec, id: BatchId) -> Result<(), HostError> {
        let Some(earlier) = &mut self.earlier else {
            return Ok(());
        };
        if earlier.forget_after(id) {
            self.record_rerun(task, "its data changes, so the tasks after it are rerun")?;
        }
        self.recorder.sync()
    }

    /// Gives the dialect the outputs of a batch with failed calls, if it keeps them. Those of a
    /// cancelled run are left to the run that resumes it.
    fn keep_partial_outputs(
        &mut self,
        task: &TaskSpec,
        error: &Error,
        ended: BatchEnd,
    ) -> Result<(), HostError> {
        let (Error::TaskExecution(failure) | Error::JobExecution(failure)) = error else {
            return Ok(());
        };
        if failure.calls.is_empty() || !self.dialect.keeps_partial_outputs() {
            return Ok(());
        }
        let failed = failure.calls.iter().map(|call| call.call_index);
        let failed: Vec<_> = failed.collect();
        let end = self.dialect.end_failed(task, ended, &failed);
        self.record_changes(task, end)
    }

    fn record_changes(&mut self, task: &TaskSpec, end: TaskEnd) -> Result<(), HostError> {
        if let Some(text) = end.warning {
            let message = format!("task {} \"{}\": {text}", task.order, task.name);
            self.recorder.record(EventKind::Warning { message })?;
        }
        let task = task.order;
        if let Some(message) = end.note {
            self.recorder
                .record(EventKind::DatasetUpdated { task, message })?;
        }
        if let Some(changes) = end.changes {
            self.recorder
                .record(EventKind::ItemsChanged { task, changes })?;
        }
        Ok(())
    }

    fn batch_calls(&self, task: &TaskSpec, index: u32, calls: Calls) -> BatchCalls {
        let options = &self.prepared.options;
        let batch = Batch {
            task: self.dialect.batch_task(task, index).clone(),
            index,
            grants: self.prepared.grants.clone(),
            folder: self.work_dir.task_folder(task.order, &task.name),
            task_files: options.task_files,
            metadata: calls.metadata,
            free_space_bytes: options.policy.free_space_bytes,
            keep_going: options.keep_going || self.dialect.keeps_partial_outputs(),
            retries: options.retries,
        };
        let context = RunContext {
            work_dir: Arc::clone(&self.work_dir),
            cancel: options.cancel.clone(),
            span: Span::current(),
            session: self.recorder.session(),
            writer: None,
            tails: Tails::default(),
            budget: Arc::clone(&self.budget),
            seen_warnings: Arc::clone(&self.seen_warnings),
        };
        BatchCalls::new(batch, calls.list, context)
    }

    /// Warns if an input has changed since the first of the calls whose results a task reuses. One
    /// warning is enough.
    fn compare_inputs(&mut self, task: &TaskSpec, before: &[InputState]) -> Result<(), HostError> {
        let Some(now) = self.inputs.take() else {
            return Ok(());
        };
        match self.prepared.changed_input(before, &now) {
            (Some(text), _) => {
                let order = task.order;
                let advice = format!("`--rerun-from {order}` reruns task {order} and all after it");
                self.recorder.record(EventKind::Warning {
                    message: format!(
                        "{text} since the calls ran whose results are reused; {advice}"
                    ),
                })
            }
            (None, Some(text)) => self.recorder.record(EventKind::Note { message: text }),
            (None, None) => {
                self.inputs = Some(now);
                Ok(())
            }
        }
    }

    fn record_note(&mut self, task: &TaskSpec, text: &str) -> Result<(), HostError> {
        let message = task_message(task, text);
        self.recorder.record(EventKind::Note { message })
    }

    /// Records why calls that had succeeded run again.
    fn record_rerun(&mut self, task: &TaskSpec, text: &str) -> Result<(), HostError> {
        let message = task_message(task, text);
        self.recorder.record(EventKind::Rerun { message })
    }

    fn record_task_finished(
        &mut self,
        task: &TaskSpec,
        status: Status,
        n_failed: usize,
    ) -> Result<(), HostError> {
        let output_is_empty = is_empty(&self.prepared.plan.output_path);
        self.recorder.record(EventKind::TaskFinished {
            task: task.order,
            name: task.name.clone(),
            status,
            n_failed,
            output_is_empty,
        })
    }

    /// Writes the result, failed or not, and the last event.
    fn finish(&mut self, error: Option<&Error>) -> Result<(), HostError> {
        let mut records = Vec::new();
        // The state of a failed run is that of the last task that succeeded, which was written when
        // the next one began, unless the dialect keeps outputs of the failed task.
        let has_state = error.is_none() || self.dialect.keeps_partial_outputs();
        if has_state && self.has_unwritten_state {
            records.extend(self.dialect.records());
        }
        records.push(self.dialect.result());
        // What a record rests on is on disk before it.
        let synced = self.recorder.sync();
        let written = synced.and_then(|()| write_records(&self.work_dir, &records));
        let error = match error {
            Some(error) => Some(error_name(error)),
            None if written.is_err() => Some("unknown error"),
            None => None,
        };
        let status = match error {
            None => Status::Done,
            Some(_) => Status::Failed,
        };
        let error = error.map(Into::into);
        self.recorder
            .record(EventKind::RunFinished { status, error })?;
        self.recorder.sync()?;
        written
    }
}

fn task_message(task: &TaskSpec, text: &str) -> String {
    format!("task {} \"{}\": {text}", task.order, task.name)
}

fn write_records(work_dir: &WorkDir, records: &[Record<'_>]) -> Result<(), HostError> {
    let contents: Vec<(&str, &WriteContents<'_>)> = records
        .iter()
        .map(|record| (record.name, &*record.write))
        .collect();
    work_dir.write_records(&contents)
}

/// The error as Fractal's log calls it.
fn error_name(error: &Error) -> &'static str {
    match error {
        Error::TaskExecution(_) => "TaskExecutionError",
        Error::JobExecution(_) => "JobExecutionError",
        Error::Cancelled(_) => "cancelled",
        Error::Documents(_) | Error::Host(_) => "unknown error",
    }
}
