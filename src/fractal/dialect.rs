//! The interface to a version of Fractal. It decides which calls a task has, and how their outputs
//! change the dataset.
//!
//! A task is a sequence of batches of calls. The dialect owns the state of the dataset; the engine
//! only knows items, outputs and calls.

use std::sync::Arc;

use jiff::Timestamp;

use crate::folder::WriteContents;
use crate::json::{Map, Value};
use crate::model::{CallList, FailureKind, ItemChanges, TaskMetadata, TaskSpec};

/// Indentation of records, as in Fractal.
pub(crate) const RECORD_INDENT: usize = 2;

/// A version of Fractal, with the dataset of one run.
pub trait Dialect: Send {
    /// Returns the name of an item of a task for users of this version: a singular noun.
    fn item_kind(&self) -> &'static str;

    /// Returns the facts about a task for a dry run, before the first task has run.
    fn preview(&self, task: &TaskSpec) -> Preview;

    /// Returns a workflow task for the event log, with its args; `None` if the records of the
    /// dataset have it.
    fn workflow_task(&self, task: &TaskSpec) -> Option<Map<String, Value>> {
        let _ = task;
        None
    }

    /// Returns the next calls of a task, or its end.
    ///
    /// * `ended`: the previous batch, whose calls all succeeded; `None` before the first.
    /// * `has_files`: true if calls may leave files; computing their names takes time.
    ///
    /// # Errors
    /// [`TaskProblem`] if the task cannot continue. The engine then calls [`Self::fail`].
    fn next(
        &mut self,
        task: &TaskSpec,
        ended: Option<BatchEnd>,
        has_files: bool,
    ) -> Result<Step, TaskProblem>;

    /// Returns the task that the calls of a batch run. Batches can differ in their module and kind,
    /// but not in their order and name.
    ///
    /// * `batch`: index of the batch in its task, from 0.
    fn batch_task<'t>(&'t self, task: &'t TaskSpec, batch: u32) -> &'t TaskSpec {
        let _ = batch;
        task
    }

    /// Returns true if a failed call never stops the other calls of its batch, and the outputs of
    /// those that succeeded are kept. The engine then calls [`Self::end_failed`], and writes the
    /// records of a failed task too.
    fn keeps_partial_outputs(&self) -> bool {
        false
    }

    /// Returns true if all tasks have their folders in the work directory from the start of the
    /// run, and not only from their first calls.
    fn has_early_folders(&self) -> bool {
        true
    }

    /// Returns the number of items of the dataset that the task that runs could get; `None` for a
    /// dialect that does not count them.
    fn n_available(&self) -> Option<usize> {
        None
    }

    /// Merges the outputs of a batch with failed calls. The engine then calls [`Self::fail`].
    ///
    /// * `ended`: outputs of the calls that succeeded.
    /// * `failed`: indices of the calls that failed.
    fn end_failed(&mut self, task: &TaskSpec, ended: BatchEnd, failed: &[usize]) -> TaskEnd {
        let _ = (task, ended, failed);
        TaskEnd::default()
    }

    /// Records that a task failed.
    ///
    /// * `n_items`: length of its list of items, 0 if it has none.
    fn fail(&mut self, task: &TaskSpec, times: TaskTimes, n_items: usize);

    /// Returns the files that hold the state of the dataset.
    fn records(&self) -> Vec<Record<'_>>;

    /// Returns the file with the result of the run, whether it succeeded or failed.
    fn result(&self) -> Record<'_>;

    /// Returns the contents of [`Self::result`].
    fn into_result(self: Box<Self>) -> Map<String, Value>;
}

/// Facts about a task for a dry run.
pub struct Preview {
    /// Number of calls: a text for the user, not escaped.
    pub calls: String,
    /// Number of calls of the first batch; `None` if it is not known before the task starts.
    pub n_calls: Option<usize>,
    /// Arguments of the task.
    pub args: Map<String, Value>,
}

/// Next step of a task.
pub enum Step {
    /// Calls to run.
    Calls(Calls),
    /// The task is done.
    Done(TaskEnd),
}

/// Effects of a task on the dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEnd {
    /// A text for the log.
    pub note: Option<String>,
    /// A text for the user.
    pub warning: Option<String>,
    /// Changes of the list of items; `None` for a dialect without one.
    pub changes: Option<ItemChanges>,
}

/// The calls of a batch.
pub struct Calls {
    /// The calls.
    pub list: Arc<dyn CallList>,
    /// Name of the list of items; `None` for a single call.
    pub items: Option<String>,
    /// The metadata that a typed task may fetch.
    pub metadata: TaskMetadata,
}

/// A batch whose calls have all ended.
pub struct BatchEnd {
    /// Outputs of the calls, each with the index of its call. Calls without an output are omitted.
    pub outputs: Vec<(usize, Map<String, Value>)>,
    /// Start and end of the task.
    pub times: TaskTimes,
}

/// Start and end of a task.
#[derive(Clone, Copy, Debug)]
pub struct TaskTimes {
    /// Start of the task.
    pub started: Timestamp,
    /// End of the task.
    pub ended: Timestamp,
}

/// Reason why a task cannot continue: a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TaskProblem {
    /// The sentence.
    pub message: String,
    /// Class of the failure.
    pub kind: FailureKind,
    /// Changes that the task made to the list of items all the same; `None` if it made none.
    pub changes: Option<ItemChanges>,
}

impl TaskProblem {
    /// Creates the problem of a task that cannot run: a JobExecutionError.
    pub fn of_job(message: String) -> Self {
        Self {
            message,
            kind: FailureKind::JobExecution,
            changes: None,
        }
    }

    /// Creates the problem of an output that cannot be used: a TaskExecutionError.
    pub fn of_output(message: String) -> Self {
        Self {
            message,
            kind: FailureKind::TaskExecution,
            changes: None,
        }
    }
}

/// A file that holds part of the state of the dataset.
pub struct Record<'d> {
    /// Name of the file in the work directory.
    pub name: &'static str,
    /// Function that writes the contents. They can be so large that one more copy matters.
    pub write: Box<WriteContents<'d>>,
}
