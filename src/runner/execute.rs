//! The run itself: task after task, with its records after each.

use std::sync::Arc;

use jiff::Timestamp;

use super::call::{Components, TaskCalls};
use super::metadata::{Aggregation, update};
use super::parameters::{ArgsText, TaskParameters, visible_metadata};
use super::prepare::{PreparedRun, RunFailure, work_dir_place};
use crate::backend::CallEvent;
use crate::error::{Cancelled, Error, HostError, TaskFailure};
use crate::event::{CallRef, EventKind, EventLog, FORMAT_VERSION, Recorder, RunStarted, Status};
use crate::history::{TaskRun, done_item, failed_item};
use crate::json::{Map, Value, build_json};
use crate::outcome::{CallFailure, FailureKind, Outcome};
use crate::reporter::{LogFile, Reporter};
use crate::sandbox::{ModuleKind, TaskMetadata};
use crate::workdir::{TaskFiles, TaskLayout, WorkDir, WorkDirError};
use crate::workflow::{PlannedTask, Problems, component_list};

/// Names of the records of a dataset. The result is both others in one, of a failed run too.
const METADATA: &str = "metadata.json";
const HISTORY: &str = "history.json";
const RESULT: &str = "result.json";
/// Indentation of records, as Fractal's.
const RECORD_INDENT: usize = 2;

impl PreparedRun {
    /// Runs the plan and keeps its records in the work directory.
    ///
    /// # Errors
    /// As [`super::process_workflow`], but for problems of documents, which were checked.
    pub fn run(self, reporters: Vec<Box<dyn Reporter>>) -> Result<TaskParameters, Box<RunFailure>> {
        let dataset = self.parameters.clone();
        let started = self.start(reporters);
        let (work_dir, mut recorder) = started.map_err(|error| Box::new(RunFailure { error, dataset: None }))?;
        let mut run = Run { prepared: &self, work_dir, recorder: &mut recorder, dataset };
        let result = run.run_tasks().and_then(|()| Ok(run.finish(None)?));
        let ended = result.inspect_err(|error| {
            // The first error is the one to tell; one more while it is recorded adds nothing.
            let _ = run.finish(Some(error));
        });
        let dataset = run.dataset;
        match ended {
            Ok(()) => Ok(dataset),
            Err(error) => Err(Box::new(RunFailure { error, dataset: Some(dataset) })),
        }
    }

    /// Makes the work directory and the records that stay open.
    fn start(&self, reporters: Vec<Box<dyn Reporter>>) -> Result<(Arc<WorkDir>, Recorder), Error> {
        // The output first: if it cannot be made, no work directory stands in the way of the next try.
        let output = &self.parameters.output_path;
        std::fs::create_dir_all(output).map_err(HostError::file("make the output folder", output))?;
        let work_dir = WorkDir::create(&self.work_dir).map_err(|err| match err {
            WorkDirError::Host(err) => Error::Host(err),
            // A run that has started since this one was prepared.
            obstacle => {
                let mut problems = Problems::default();
                problems.add(work_dir_place(&self.work_dir), obstacle.to_string());
                Error::Documents(problems)
            }
        })?;
        let work_dir = Arc::new(work_dir);
        for task in &self.plan.tasks {
            work_dir.create_task_folder(task.order, &task.name)?;
        }
        let mut all: Vec<Box<dyn Reporter>> = vec![Box::new(LogFile::create(&self.work_dir, &self.logger_name)?)];
        all.extend(reporters);
        let mut recorder = Recorder::new(EventLog::create(&self.work_dir)?, all);
        recorder.record(EventKind::RunStarted(Box::new(RunStarted {
            format_version: FORMAT_VERSION,
            mandelbox_version: env!("CARGO_PKG_VERSION").into(),
            backend: self.options.backend.name().into(),
            workflow: self.plan.workflow_name.clone(),
            logger_name: self.logger_name.clone(),
            work_dir: self.work_dir.clone(),
            input_paths: self.parameters.input_paths.clone(),
            output_path: output.clone(),
            input_metadata_keys: self.parameters.metadata.keys().cloned().collect(),
            first_task_index: self.plan.task_range.map(|(first, _)| first),
            last_task_index: self.plan.task_range.map(|(_, last)| last),
        })))?;
        for warning in &self.plan.warnings {
            recorder.record(EventKind::Warning { message: warning.to_string() })?;
        }
        for message in self.options.backend.start(&self.grants) {
            recorder.record(EventKind::Note { message })?;
        }
        recorder.flush()?;
        Ok((work_dir, recorder))
    }
}

/// A run that has started.
struct Run<'r> {
    prepared: &'r PreparedRun,
    work_dir: Arc<WorkDir>,
    recorder: &'r mut Recorder,
    dataset: TaskParameters,
}

impl Run<'_> {
    fn run_tasks(&mut self) -> Result<(), Error> {
        let tasks = &self.prepared.plan.tasks;
        for (index, task) in tasks.iter().enumerate() {
            let started = Timestamp::now();
            if let Err(error) = self.run_task(task, started) {
                let failure = error.task_failure();
                let n_components = failure.map_or(0, |failure| failure.n_components);
                let run = TaskRun { started, ended: Timestamp::now(), n_components };
                self.dataset.history.push(failed_item(task, run));
                // The first error is the one to tell; one more while it is recorded adds nothing.
                let n_failed = failure.map_or(0, |failure| failure.calls.len());
                let _ = self.record_task_finished(task, Status::Failed, n_failed);
                return Err(error);
            }
            self.dataset.input_paths = vec![self.dataset.output_path.clone()];
            // After the last task they are written with the result.
            if index + 1 < tasks.len() {
                self.recorder.sync()?;
                self.work_dir.write_records(&self.state())?;
            }
            self.record_task_finished(task, Status::Done, 0)?;
        }
        Ok(())
    }

    /// Runs one task and takes what it gave into the dataset and the records.
    fn run_task(&mut self, task: &PlannedTask, started: Timestamp) -> Result<(), Error> {
        let level = task.parallelization_level.as_deref();
        let components = level.map(|level| component_list(&self.dataset.metadata, level)).transpose();
        let n_components = components.as_ref().ok().copied().flatten().map_or(0, <[Value]>::len);
        self.recorder.record(EventKind::TaskStarted {
            task: task.order,
            name: task.name.clone(),
            n_calls: if level.is_some() { n_components } else { 1 },
            parallelization_level: task.parallelization_level.clone(),
            module_sha256: task.module.sha256.clone(),
        })?;
        components.map_err(|reason| Error::JobExecution(task_failure(task, n_components, Some(reason), Vec::new())))?;
        let collected = self.run_calls(task, n_components)?;

        let run = TaskRun { started, ended: Timestamp::now(), n_components };
        let components = level.and_then(|level| component_list(&self.dataset.metadata, level).ok());
        self.dataset.history.push(done_item(task, components, run));
        let metadiff = collected.into_metadiff(task, self.recorder)?;
        update(&mut self.dataset.metadata, metadiff);
        Ok(())
    }

    /// Makes the calls of a task, which all end well, or the task fails.
    fn run_calls(&mut self, task: &PlannedTask, n_components: usize) -> Result<Collected, Error> {
        let mut calls = task_calls(self.prepared, &self.work_dir, task, &self.dataset);
        // The calls share it while they run.
        let metadata = Arc::new(std::mem::take(&mut self.dataset.metadata));
        calls.components =
            task.parallelization_level.clone().map(|level| Components { metadata: Arc::clone(&metadata), level });
        let calls = Arc::new(calls);
        let collected = collect(self.prepared, &calls, self.recorder)
            .map_err(Error::from)
            .and_then(|collected| collected.check(&calls, n_components).map(|()| collected));
        drop(calls);
        self.dataset.metadata = Arc::unwrap_or_clone(metadata);
        collected
    }

    /// The records of the dataset as it is now: metadata and history.
    fn state(&self) -> Vec<(&'static str, Vec<u8>)> {
        let TaskParameters { metadata, history, .. } = &self.dataset;
        vec![(METADATA, build_json(metadata, RECORD_INDENT)), (HISTORY, build_json(history, RECORD_INDENT))]
    }

    fn record_task_finished(&mut self, task: &PlannedTask, status: Status, n_failed: usize) -> Result<(), HostError> {
        let name = task.name.clone();
        self.recorder.record(EventKind::TaskFinished { task: task.order, name, status, n_failed })
    }

    /// Writes the result, failed or not, and the last event.
    fn finish(&mut self, error: Option<&Error>) -> Result<(), HostError> {
        // Those of a failed run are of the last task that ended well, and were written then; one without tasks has none.
        let has_state = error.is_none() && !self.prepared.plan.tasks.is_empty();
        let mut records = if has_state { self.state() } else { Vec::new() };
        records.push((RESULT, build_json(&self.dataset.result(), RECORD_INDENT)));
        // What a record rests on is on disk before it.
        let written = self.recorder.sync().and_then(|()| self.work_dir.write_records(&records));
        let error = error.map(error_name).or(written.is_err().then_some("unknown error"));
        let status = if error.is_none() { Status::Done } else { Status::Failed };
        self.recorder.record(EventKind::RunFinished { status, error: error.map(Into::into) })?;
        self.recorder.sync()?;
        written
    }
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

/// The calls of a task, without their components.
fn task_calls(
    prepared: &PreparedRun,
    work_dir: &Arc<WorkDir>,
    task: &PlannedTask,
    dataset: &TaskParameters,
) -> TaskCalls {
    let options = &prepared.options;
    let metadata = match task.kind {
        ModuleKind::Typed => TaskMetadata::new(visible_metadata(task, dataset)),
        _ => TaskMetadata::default(),
    };
    let folder = work_dir.task_folder(task.order, &task.name);
    let level = task.parallelization_level.as_ref();
    let components = level.and_then(|level| component_list(&dataset.metadata, level).ok());
    TaskCalls {
        task: task.clone(),
        components: None,
        args: ArgsText::new(task, dataset, &options.tasks_include_image),
        metadata,
        layout: TaskLayout::new(folder, task.order, components),
        work_dir: Arc::clone(work_dir),
        grants: prepared.grants.clone(),
        task_files: options.task_files,
        keep_going: options.keep_going,
        cancel: options.cancel.clone(),
        free_space_bytes: options.policy.free_space_bytes,
        output: None,
    }
}

/// What the calls of a task gave.
#[derive(Default)]
struct Collected {
    aggregation: Aggregation,
    failures: Vec<CallFailure>,
    n_finished: usize,
}

/// Runs the calls of a task and records each start and end.
fn collect(prepared: &PreparedRun, calls: &Arc<TaskCalls>, recorder: &mut Recorder) -> Result<Collected, HostError> {
    let mut collected = Collected::default();
    prepared.options.backend.run_calls(calls, &mut |event| match event {
        CallEvent::Happened(fact) => recorder.record_fact(fact).map(|_| ()),
        CallEvent::Idle => recorder.flush(),
        CallEvent::Finished { fact, stderr_tail } => {
            if let EventKind::CallFinished { call, outcome, .. } = recorder.record_fact(fact)? {
                collected.add(calls, call, outcome, stderr_tail);
            }
            Ok(())
        }
    })?;
    Ok(collected)
}

impl Collected {
    fn add(
        &mut self,
        calls: &TaskCalls,
        CallRef { call_index, component, .. }: CallRef,
        outcome: Outcome,
        stderr_tail: String,
    ) {
        self.n_finished += 1;
        match outcome {
            Outcome::Succeeded { metadiff: None } => {}
            Outcome::Succeeded { metadiff: Some(metadiff) } => self.aggregation.add(call_index, metadiff),
            outcome => {
                let keeps_stderr = calls.task_files() != TaskFiles::None && !stderr_tail.is_empty();
                let stderr_path = keeps_stderr.then(|| calls.call(call_index).files.err());
                self.failures.push(CallFailure { call_index, component, outcome, stderr_tail, stderr_path });
            }
        }
    }

    /// An error that names every failed call; its kind is that of the first one in the component list.
    fn check(&self, calls: &TaskCalls, n_components: usize) -> Result<(), Error> {
        let mut failures = self.failures.clone();
        failures.sort_by_key(|failure| failure.call_index);
        let kind = failures.first().and_then(|failure| failure.outcome.failure_kind());
        let n_ended_well = self.n_finished - failures.len();
        let is_cut_short = self.n_finished < calls.len()
            || failures.iter().any(|failure| matches!(failure.outcome, Outcome::Cancelled));
        match kind {
            _ if calls.cancel().is_cancelled() && is_cut_short => {
                let failure = task_failure(calls.task(), n_components, None, failures);
                Err(Error::Cancelled(Box::new(Cancelled { failure: *failure, n_calls: calls.len(), n_ended_well })))
            }
            Some(FailureKind::TaskExecution) => {
                Err(Error::TaskExecution(task_failure(calls.task(), n_components, None, failures)))
            }
            Some(FailureKind::JobExecution) => {
                Err(Error::JobExecution(task_failure(calls.task(), n_components, None, failures)))
            }
            None if self.n_finished < calls.len() => {
                let reason = "the backend did not make all calls".to_owned();
                Err(Error::JobExecution(task_failure(calls.task(), n_components, Some(reason), Vec::new())))
            }
            None => Ok(()),
        }
    }

    /// What the task adds to the metadata; says so where Fractal does.
    fn into_metadiff(self, task: &PlannedTask, recorder: &mut Recorder) -> Result<Map<String, Value>, HostError> {
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
