//! The run itself: task after task, with its records after each.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::Span;

use super::call::{Components, SeenWarnings, TaskCalls, ToDo};
use super::collected::{Collected, task_failure};
use super::metadata::update;
use super::parameters::{ArgsText, TaskParameters, visible_metadata};
use super::prepare::{PreparedRun, RunFailure, work_dir_place};
use super::resume::{EarlierRun, KeptCalls, TaskKey};
use crate::error::{Error, HostError};
use crate::event::{EndOfLog, EventKind, EventLog, FORMAT_VERSION, Kept, Recorder, RunStarted, Status};
use crate::history::{TaskRun, done_item, failed_item};
use crate::json::{Map, Value, build_json};
use crate::reporter::escape::escaped;
use crate::reporter::{LogFile, Reporter};
use crate::sandbox::{ModuleKind, TaskMetadata};
use crate::trace;
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
        let _span = trace::run(&self.plan.workflow_name, &self.work_dir).entered();
        let dataset = self.parameters.clone();
        let started = self.start(reporters);
        let (work_dir, mut recorder, earlier) =
            started.map_err(|error| Box::new(RunFailure { error, dataset: None }))?;
        let mut run = Run {
            prepared: &self,
            work_dir,
            recorder: &mut recorder,
            dataset,
            earlier,
            has_unwritten_state: false,
            seen_warnings: Arc::default(),
        };
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

    /// Makes or takes up the work directory, and the records that stay open.
    fn start(&self, reporters: Vec<Box<dyn Reporter>>) -> Result<(Arc<WorkDir>, Recorder, Option<EarlierRun>), Error> {
        // The output first: if it cannot be made, no work directory stands in the way of the next try.
        let output = &self.parameters.output_path;
        std::fs::create_dir_all(output).map_err(HostError::file("make the output folder", output))?;
        let (work_dir, earlier) = self.open_work_dir()?;
        let work_dir = Arc::new(work_dir);
        let is_resumed = earlier.as_ref().is_some_and(|earlier| earlier.run.is_some());
        // The event log before anything else: by it the folder is known to be a run's, whatever happens to the rest.
        let (log, end) = match &earlier {
            None => (EventLog::create(&self.work_dir)?, EndOfLog::default()),
            Some(EarlierRun { end, .. }) => (EventLog::reopen(&self.work_dir, end.whole_bytes)?, *end),
        };
        let log_file = match &earlier {
            None => LogFile::create(&self.work_dir, &self.logger_name)?,
            Some(_) => LogFile::reopen(&self.work_dir, &self.logger_name)?,
        };
        for task in &self.plan.tasks {
            work_dir.create_task_folder(task.order, &task.name)?;
        }
        let mut all: Vec<Box<dyn Reporter>> = vec![Box::new(log_file), Box::new(trace::RunEvents)];
        all.extend(reporters);
        let mut recorder = Recorder::resuming(log, all, end.next_seq);
        let start = if is_resumed { EventKind::RunResumed } else { EventKind::RunStarted };
        recorder.record(start(Box::new(RunStarted {
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
        Ok((work_dir, recorder, earlier))
    }

    fn open_work_dir(&self) -> Result<(WorkDir, Option<EarlierRun>), Error> {
        let wrong = |text: String| {
            let mut problems = Problems::default();
            problems.add(work_dir_place(&self.work_dir), text);
            Error::Documents(problems)
        };
        let opened =
            if self.options.resume { WorkDir::reopen(&self.work_dir) } else { WorkDir::create(&self.work_dir) };
        let work_dir = opened.map_err(|err| match err {
            WorkDirError::Host(err) => Error::Host(err),
            // What has changed since this run was prepared.
            obstacle => wrong(obstacle.to_string()),
        })?;
        if !self.options.resume {
            return Ok((work_dir, None));
        }
        let earlier = EarlierRun::read(&self.work_dir).map_err(|err| {
            let advice = "restore that file, or run without --resume in another work directory";
            wrong(format!("{}: {err}; {advice}", EventLog::NAME))
        })?;
        if let Some(run) = earlier.run.as_ref().filter(|run| run.workflow != self.plan.workflow_name) {
            let (other, this) = (escaped(&run.workflow), escaped(&self.plan.workflow_name));
            return Err(wrong(format!(
                "holds a run of the workflow \"{other}\", not of \"{this}\"; choose that run's folder, or run without \
                 --resume in a new one"
            )));
        }
        work_dir.tidy()?;
        Ok((work_dir, Some(earlier)))
    }
}

/// A run that has started.
struct Run<'r> {
    prepared: &'r PreparedRun,
    work_dir: Arc<WorkDir>,
    recorder: &'r mut Recorder,
    dataset: TaskParameters,
    /// What is not made again; `None`: this is not a run that was taken up again.
    earlier: Option<EarlierRun>,
    /// Whether a task has ended since metadata and history were written.
    has_unwritten_state: bool,
    seen_warnings: Arc<SeenWarnings>,
}

impl Run<'_> {
    fn run_tasks(&mut self) -> Result<(), Error> {
        for task in &self.prepared.plan.tasks {
            let _span = trace::task(task.order, &task.name).entered();
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
            self.has_unwritten_state = true;
            self.record_task_finished(task, Status::Done, 0)?;
        }
        Ok(())
    }

    /// Writes metadata and history, if a task has ended since. What they rest on is on disk before them.
    fn write_state(&mut self, metadata: &Map<String, Value>) -> Result<(), HostError> {
        if self.has_unwritten_state {
            self.recorder.sync()?;
            self.work_dir.write_records(&self.state(metadata))?;
            self.has_unwritten_state = false;
        }
        Ok(())
    }

    /// Runs one task and takes what it gave into the dataset and the records.
    fn run_task(&mut self, task: &PlannedTask, started: Timestamp) -> Result<(), Error> {
        let level = task.parallelization_level.as_deref();
        let reason = level.and_then(|level| component_list(&self.dataset.metadata, level).err());
        let mut calls = task_calls(self.prepared, &self.work_dir, task, &self.dataset, &self.seen_warnings);
        // The calls share it while they run.
        let metadata = Arc::new(std::mem::take(&mut self.dataset.metadata));
        calls.components =
            task.parallelization_level.clone().map(|level| Components { metadata: Arc::clone(&metadata), level });
        let made = self.make_calls(calls, &metadata, started, reason);
        self.dataset.metadata = Arc::unwrap_or_clone(metadata);
        let (collected, run) = made?;

        let components = level.and_then(|level| component_list(&self.dataset.metadata, level).ok());
        self.dataset.history.push(done_item(task, components, run));
        let metadiff = collected.into_metadiff(task, self.recorder)?;
        update(&mut self.dataset.metadata, metadiff);
        Ok(())
    }

    /// Makes those calls of a task that are still to make. All of them end well, or the task fails.
    ///
    /// * `metadata`: that of the dataset.
    /// * `started`: when the task began in this run.
    /// * `reason`: why it cannot begin.
    ///
    /// Returns what all its calls gave, those kept of an earlier run too.
    fn make_calls(
        &mut self,
        mut calls: TaskCalls,
        metadata: &Map<String, Value>,
        started: Timestamp,
        reason: Option<String>,
    ) -> Result<(Collected, TaskRun), Error> {
        let key = TaskKey::of(&calls, &self.prepared.options.backend.settings());
        let kept = self.earlier.as_mut().map(|earlier| earlier.keep(&key, &calls)).unwrap_or_default();
        let KeptCalls { calls: kept_calls, kept, started: first_started, ended, to_do, reason: made_again } = kept;
        calls.to_do = to_do;
        let task = calls.task().clone();
        let n_components = calls.components.as_ref().map_or(0, |components| components.list().len());
        // Tasks that are kept whole are passed over: the records say then how far the earlier run was.
        if calls.n_to_make() > 0 || reason.is_some() {
            self.write_state(metadata)?;
        }
        if let Some(text) = made_again {
            self.note(&task, text)?;
        }
        if kept == Kept::Listed {
            for (call, metadiff) in &kept_calls {
                self.recorder.record(EventKind::CallKept { call: call.clone(), metadiff: metadiff.clone() })?;
            }
        }
        self.recorder.record(EventKind::TaskStarted {
            task: task.order,
            name: task.name.clone(),
            n_calls: calls.len(),
            parallelization_level: task.parallelization_level.clone(),
            module_sha256: key.module_sha256,
            args_digest: key.args_digest,
            limits: key.limits,
            kept,
            n_kept: kept_calls.len(),
        })?;
        if let Some(reason) = reason {
            return Err(Error::JobExecution(task_failure(&task, n_components, Some(reason), Vec::new())));
        }
        if !kept_calls.is_empty() {
            self.note(&task, format!("{} of {} calls had ended well and are kept", kept_calls.len(), calls.len()))?;
        }
        if calls.n_to_make() > 0 && self.earlier.as_mut().is_some_and(|earlier| earlier.forget_after(task.order)) {
            self.note(&task, "its data are made anew, so the tasks after it are made again".to_owned())?;
        }
        let mut collected = Collected::of_kept(kept_calls);
        let calls = Arc::new(calls);
        collected.collect(self.prepared, &calls, self.recorder)?;
        collected.check(&calls, n_components)?;
        let started = first_started.unwrap_or(started);
        Ok((collected, TaskRun { started, ended: ended.unwrap_or_else(Timestamp::now), n_components }))
    }

    fn note(&mut self, task: &PlannedTask, text: String) -> Result<(), HostError> {
        self.recorder.record(EventKind::Note { message: format!("task {} \"{}\": {text}", task.order, task.name) })
    }

    /// The records of the dataset as it is now: metadata and history.
    fn state(&self, metadata: &Map<String, Value>) -> Vec<(&'static str, Vec<u8>)> {
        let history = build_json(&self.dataset.history, RECORD_INDENT);
        vec![(METADATA, build_json(metadata, RECORD_INDENT)), (HISTORY, history)]
    }

    fn record_task_finished(&mut self, task: &PlannedTask, status: Status, n_failed: usize) -> Result<(), HostError> {
        let name = task.name.clone();
        self.recorder.record(EventKind::TaskFinished { task: task.order, name, status, n_failed })
    }

    /// Writes the result, failed or not, and the last event.
    fn finish(&mut self, error: Option<&Error>) -> Result<(), HostError> {
        // Those of a failed run are of the last task that ended well, and were written when the next one began.
        let mut records =
            if error.is_none() && self.has_unwritten_state { self.state(&self.dataset.metadata) } else { Vec::new() };
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
    seen_warnings: &Arc<SeenWarnings>,
) -> TaskCalls {
    let options = &prepared.options;
    let metadata = match task.kind {
        ModuleKind::Typed => TaskMetadata::new(visible_metadata(task, dataset)),
        _ => TaskMetadata::default(),
    };
    let folder = work_dir.task_folder(task.order, &task.name);
    let level = task.parallelization_level.as_ref();
    // Looking for names that two components share takes as long as many short calls do, and is left where no file is made.
    let has_files = task.kind != ModuleKind::Typed || options.task_files != TaskFiles::None;
    let components = level.filter(|_| has_files).and_then(|level| component_list(&dataset.metadata, level).ok());
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
        to_do: ToDo::All,
        retries: options.retries,
        span: Span::current(),
        output: None,
        seen_warnings: Arc::clone(seen_warnings),
    }
}
