//! The run itself: task after task, with its records after each.

use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::Span;

use super::collected::{Collected, task_failure};
use super::data_state::is_empty;
use super::prepare::{PreparedRun, RunFailure};
use super::resume::{EarlierRun, KeptCalls, TaskKey};
use super::start::Started;
use crate::backend::calls::{Components, SeenWarnings, TaskCalls, ToDo};
use crate::backend::output_budget::MetadiffBudget;
use crate::event::{EventKind, InputState, Kept, Recorder, Reporter, Status};
use crate::folder::WriteContents;
use crate::fractal::v1::history::{TaskRun, done_item, failed_item};
use crate::fractal::v1::metadata::update;
use crate::fractal::v1::parameters::{ArgsText, TaskParameters, visible_metadata};
use crate::json::{Map, Value, write_json};
use crate::model::{HostError, ModuleKind};
use crate::plan::{PlannedTask, component_list};
use crate::run::Error;
use crate::sandbox::TaskMetadata;
use crate::trace;
use crate::workdir::{TaskFiles, TaskLayout, WorkDir};

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
        let Started {
            work_dir,
            mut recorder,
            earlier,
            inputs,
        } = started.map_err(|error| {
            Box::new(RunFailure {
                error,
                dataset: None,
            })
        })?;
        let mut run = Run {
            prepared: &self,
            work_dir,
            recorder: &mut recorder,
            dataset,
            earlier,
            inputs: Some(inputs),
            metadiffs: Arc::new(MetadiffBudget::new(self.options.policy.metadiffs_bytes)),
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
            Err(error) => Err(Box::new(RunFailure {
                error,
                dataset: Some(dataset),
            })),
        }
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
    /// What was in the inputs when the run started; `None` once they were compared.
    inputs: Option<Vec<InputState>>,
    /// What metadiffs of the run may have together.
    metadiffs: Arc<MetadiffBudget>,
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
                let run = TaskRun {
                    started,
                    ended: Timestamp::now(),
                    n_components,
                };
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

    /// Writes metadata and history, if a task has ended since. What they rest on is on disk before
    /// them.
    fn write_state(&mut self, metadata: &Map<String, Value>) -> Result<(), HostError> {
        if self.has_unwritten_state {
            self.recorder.sync()?;
            let history = &self.dataset.history;
            self.work_dir.write_records(&[
                (METADATA, &|file| write_json(file, metadata, RECORD_INDENT)),
                (HISTORY, &|file| write_json(file, history, RECORD_INDENT)),
            ])?;
            self.has_unwritten_state = false;
        }
        Ok(())
    }

    /// Runs one task and takes what it gave into the dataset and the records.
    fn run_task(&mut self, task: &PlannedTask, started: Timestamp) -> Result<(), Error> {
        let level = task.parallelization_level.as_deref();
        let reason = level.and_then(|level| component_list(&self.dataset.metadata, level).err());
        let mut calls = task_calls(
            self.prepared,
            &self.work_dir,
            task,
            &self.dataset,
            (&self.metadiffs, &self.seen_warnings),
        );
        // The calls share it while they run.
        let metadata = Arc::new(std::mem::take(&mut self.dataset.metadata));
        calls.components = task.parallelization_level.clone().map(|level| Components {
            metadata: Arc::clone(&metadata),
            level,
        });
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
        let kept = self
            .earlier
            .as_mut()
            .map(|earlier| earlier.keep(&key, &calls))
            .unwrap_or_default();
        let KeptCalls {
            calls: kept_calls,
            kept,
            started: first_started,
            ended,
            to_do,
            reason: made_again,
            inputs,
        } = kept;
        calls.to_do = to_do;
        let task = calls.task().clone();
        let n_components = calls
            .components
            .as_ref()
            .map_or(0, |components| components.list().len());
        // Tasks that are kept whole are passed over: the records say then how far the earlier run
        // was.
        if calls.n_to_make() > 0 || reason.is_some() {
            self.write_state(metadata)?;
        }
        if let Some(text) = made_again {
            self.note(&task, text)?;
        }
        if kept == Kept::Listed {
            for (call, metadiff) in &kept_calls {
                self.recorder.record(EventKind::CallKept {
                    call: call.clone(),
                    metadiff: metadiff.clone(),
                })?;
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
            return Err(Error::JobExecution(task_failure(
                &task,
                n_components,
                Some(reason),
                Vec::new(),
            )));
        }
        if !kept_calls.is_empty() {
            self.note(
                &task,
                format!(
                    "{} of {} calls had ended well and are kept",
                    kept_calls.len(),
                    calls.len()
                ),
            )?;
            self.compare_inputs(&task, &inputs)?;
        }
        if calls.n_to_make() > 0
            && self
                .earlier
                .as_mut()
                .is_some_and(|earlier| earlier.forget_after(task.order))
        {
            self.note(
                &task,
                "its data are made anew, so the tasks after it are made again".to_owned(),
            )?;
        }
        // Before data are changed, the log says on disk which results do not count any more.
        if calls.n_to_make() > 0 && self.earlier.is_some() {
            self.recorder.sync()?;
        }
        kept_calls
            .iter()
            .filter_map(|(_, metadiff)| metadiff.as_ref())
            .for_each(|kept| self.metadiffs.add(kept));
        let mut collected = Collected::of_kept(kept_calls);
        let calls = Arc::new(calls);
        collected.collect(self.prepared, &calls, self.recorder)?;
        collected.check(&calls, n_components)?;
        let started = first_started.unwrap_or(started);
        Ok((
            collected,
            TaskRun {
                started,
                ended: ended.unwrap_or_else(Timestamp::now),
                n_components,
            },
        ))
    }

    /// Warns if an input has changed since the first of the calls whose results a task keeps. One
    /// warning is enough.
    fn compare_inputs(
        &mut self,
        task: &PlannedTask,
        before: &[InputState],
    ) -> Result<(), HostError> {
        let Some(now) = self.inputs.take() else {
            return Ok(());
        };
        match self.prepared.changed_input(before, &now) {
            (Some(text), _) => {
                let order = task.order;
                let advice =
                    format!("`--rerun-from {order}` runs task {order} and all after it again");
                self.recorder.record(EventKind::Warning {
                    message: format!("{text} since calls ran whose results are kept; {advice}"),
                })
            }
            (None, Some(text)) => self.recorder.record(EventKind::Note { message: text }),
            (None, None) => {
                self.inputs = Some(now);
                Ok(())
            }
        }
    }

    fn note(&mut self, task: &PlannedTask, text: String) -> Result<(), HostError> {
        self.recorder.record(EventKind::Note {
            message: format!("task {} \"{}\": {text}", task.order, task.name),
        })
    }

    fn record_task_finished(
        &mut self,
        task: &PlannedTask,
        status: Status,
        n_failed: usize,
    ) -> Result<(), HostError> {
        let name = task.name.clone();
        let output_is_empty = is_empty(&self.prepared.parameters.output_path);
        self.recorder.record(EventKind::TaskFinished {
            task: task.order,
            name,
            status,
            n_failed,
            output_is_empty,
        })
    }

    /// Writes the result, failed or not, and the last event.
    fn finish(&mut self, error: Option<&Error>) -> Result<(), HostError> {
        // Texts are written as they are made: metadata can be so large that one more copy matters.
        let dataset = &self.dataset;
        let metadata = |file: &mut dyn Write| write_json(file, &dataset.metadata, RECORD_INDENT);
        let history = |file: &mut dyn Write| write_json(file, &dataset.history, RECORD_INDENT);
        let result = |file: &mut dyn Write| write_json(file, &dataset.result(), RECORD_INDENT);
        let all: [(&str, &WriteContents<'_>); 3] = [
            (METADATA, &metadata),
            (HISTORY, &history),
            (RESULT, &result),
        ];
        // Those of a failed run are of the last task that ended well, and were written when the
        // next one began.
        let records = if error.is_none() && self.has_unwritten_state {
            &all[..]
        } else {
            &all[2..]
        };
        // What a record rests on is on disk before it.
        let written = self
            .recorder
            .sync()
            .and_then(|()| self.work_dir.write_records(records));
        let error = error
            .map(error_name)
            .or(written.is_err().then_some("unknown error"));
        let status = if error.is_none() {
            Status::Done
        } else {
            Status::Failed
        };
        self.recorder.record(EventKind::RunFinished {
            status,
            error: error.map(Into::into),
        })?;
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
    (metadiffs, seen_warnings): (&Arc<MetadiffBudget>, &Arc<SeenWarnings>),
) -> TaskCalls {
    let options = &prepared.options;
    let metadata = match task.kind {
        ModuleKind::Typed => TaskMetadata::new(visible_metadata(task, dataset)),
        _ => TaskMetadata::default(),
    };
    let folder = work_dir.task_folder(task.order, &task.name);
    let level = task.parallelization_level.as_ref();
    // Looking for names that two components share takes as long as many short calls do, and is left
    // where no file is made.
    let has_files = task.kind != ModuleKind::Typed || options.task_files != TaskFiles::None;
    let components = level
        .filter(|_| has_files)
        .and_then(|level| component_list(&dataset.metadata, level).ok());
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
        metadiffs: Arc::clone(metadiffs),
        span: Span::current(),
        output: None,
        seen_warnings: Arc::clone(seen_warnings),
    }
}
