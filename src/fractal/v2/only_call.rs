//! A single call of a task, without a dataset: for authors of tasks.

use std::sync::Arc;

use super::calls::{Output, TaskCalls};
use super::task::{RESERVED_ARGUMENTS, Side};
use crate::fractal::dialect::{
    BatchEnd, Calls, Dialect, Preview, Record, Step, TaskEnd, TaskProblem,
};
use crate::fractal::dialect::{RECORD_INDENT, TaskTimes};
use crate::json::{Map, Value, write_json};
use crate::model::{TaskMetadata, TaskSpec};

/// The only call of a task, with all its arguments.
pub(crate) struct OnlyCall {
    args: Map<String, Value>,
    output: Output,
}

impl OnlyCall {
    /// Creates a call.
    ///
    /// * `args`: arguments of the task, and those that the runner fills in.
    /// * `is_init`: true if the call returns a parallelization list, false if it changes images;
    ///   `None` if both are possible, because the type of the task is not known.
    pub(crate) fn new(args: Map<String, Value>, is_init: Option<bool>) -> Self {
        let output = match is_init {
            Some(true) => Output::Items,
            Some(false) => Output::Changes,
            None => Output::Any,
        };
        Self { args, output }
    }

    /// Returns the kind of the call that has these arguments.
    pub(crate) fn side_of(args: &Map<String, Value>) -> Side {
        let is_parallel = ["zarr_url", "init_args"]
            .iter()
            .any(|key| args.contains_key(*key));
        if is_parallel {
            Side::Parallel
        } else {
            Side::NonParallel
        }
    }

    /// Returns the arguments that a workflow gives, without those that the runner fills in.
    pub(crate) fn own_args(args: &Map<String, Value>) -> Map<String, Value> {
        let own = args
            .iter()
            .filter(|(key, _)| !RESERVED_ARGUMENTS.contains(&key.as_str()));
        own.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Dialect for OnlyCall {
    fn item_kind(&self) -> &'static str {
        "image"
    }

    fn preview(&self, _: &TaskSpec) -> Preview {
        Preview {
            calls: "1".to_owned(),
            n_calls: Some(1),
            args: self.args.clone(),
        }
    }

    fn next(
        &mut self,
        _: &TaskSpec,
        ended: Option<BatchEnd>,
        _: bool,
    ) -> Result<Step, TaskProblem> {
        if ended.is_some() {
            return Ok(Step::Done(TaskEnd::default()));
        }
        let mut args = self.args.clone();
        let item = take_item(&mut args);
        Ok(Step::Calls(Calls {
            items: item.as_ref().map(|_| "images".to_owned()),
            list: Arc::new(TaskCalls::only(&Value::Object(args), item, self.output)),
            metadata: TaskMetadata::default(),
        }))
    }

    fn fail(&mut self, _: &TaskSpec, _: TaskTimes, _: usize) {}

    fn records(&self) -> Vec<Record<'_>> {
        Vec::new()
    }

    fn result(&self) -> Record<'_> {
        Record {
            name: "args.json",
            write: Box::new(|file| write_json(file, &self.args, RECORD_INDENT)),
        }
    }

    fn into_result(self: Box<Self>) -> Map<String, Value> {
        self.args
    }
}

/// Takes the image of a call out of its arguments, so that messages name it.
fn take_item(args: &mut Map<String, Value>) -> Option<Value> {
    if !args.get("zarr_url")?.is_string() {
        return None;
    }
    let url = args.shift_remove("zarr_url")?;
    let Some(init_args) = args.shift_remove("init_args") else {
        return Some(url);
    };
    let item = [("zarr_url", url), ("init_args", init_args)];
    let item = item.map(|(key, value)| (key.to_owned(), value));
    Some(Value::Object(Map::from_iter(item)))
}
