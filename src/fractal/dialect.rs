//! What a version of Fractal decides: which calls a task has, and what becomes of their outputs.
//!
//! A task is a sequence of batches of calls. The dialect owns the state of the dataset; the engine
//! only knows items, outputs and calls.

use std::io::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;

use crate::json::{Map, Value};
use crate::model::{CallList, TaskMetadata, TaskSpec};

/// Indentation of records, as Fractal's.
pub(crate) const RECORD_INDENT: usize = 2;

/// A version of Fractal, with the dataset of one run.
pub trait Dialect: Send {
    /// What users of this version call an item of a task: a singular noun.
    fn item_kind(&self) -> &'static str;

    /// What a dry run shows of a task, before the first task has run.
    fn preview(&self, task: &TaskSpec) -> Preview;

    /// The next calls of a task, or what the task has left behind.
    ///
    /// * `ended`: the batch before, all of whose calls succeeded; `None` before the first.
    /// * `has_files`: true if calls may leave files; making their names takes time.
    ///
    /// # Errors
    /// [`TaskProblem`] if the task cannot go on. The engine then calls [`Self::fail`].
    fn next(
        &mut self,
        task: &TaskSpec,
        ended: Option<BatchEnd>,
        has_files: bool,
    ) -> Result<Step, TaskProblem>;

    /// Records that a task failed.
    ///
    /// * `n_items`: length of its list of items, 0 without one.
    fn fail(&mut self, task: &TaskSpec, times: TaskTimes, n_items: usize);

    /// The files that hold the state of the dataset.
    fn records(&self) -> Vec<Record<'_>>;

    /// The file with the result of the run, failed or not.
    fn result(&self) -> Record<'_>;

    /// The contents of [`Self::result`].
    fn into_result(self: Box<Self>) -> Map<String, Value>;
}

/// What a dry run shows of a task.
pub struct Preview {
    /// How often it is called: a text for the user, not escaped.
    pub calls: String,
    /// Its arguments.
    pub args: Map<String, Value>,
}

/// What a dialect wants of the engine.
pub enum Step {
    /// Calls to run.
    Calls(Calls),
    /// The task is done.
    Done {
        /// A text for the log.
        note: Option<String>,
    },
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

/// A batch whose calls have all succeeded.
pub struct BatchEnd {
    /// The outputs, each with the index of its call; calls without one are missing.
    pub outputs: Vec<(usize, Map<String, Value>)>,
    /// When the task ran.
    pub times: TaskTimes,
}

/// When a task ran.
#[derive(Clone, Copy, Debug)]
pub struct TaskTimes {
    /// Its start.
    pub started: Timestamp,
    /// Its end.
    pub ended: Timestamp,
}

/// Why a task cannot go on: a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TaskProblem(pub String);

/// A file with a part of the state of the dataset.
pub struct Record<'d> {
    /// Its name in the work directory.
    pub name: &'static str,
    /// Writes its contents. They can be so large that one more copy matters.
    pub write: Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'd>,
}
