//! Call of a case, of either version of Fractal.

use std::path::Path;

use super::layout::{INPUT_PATH, Layout};
use crate::backend::Local;
use crate::cli::task_call::{v1, v2};
use crate::fractal::dialect::Dialect;
use crate::fractal::v1::Dataset;
use crate::fractal::v1::document::TaskDocument;
use crate::fractal::workflow::Version;
use crate::json::{Map, Value};
use crate::model::TaskSpec;
use crate::plan::{PlannedTask, Policy};
use crate::problem::{Cursor, Location, Problems};

/// Tasks of a package.
pub(super) enum Tasks {
    V1(Vec<TaskDocument>),
    V2(Vec<v2::CallableTask>),
}

impl Tasks {
    /// Returns the names of the tasks.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::V1(tasks) => tasks.iter().map(|task| task.name.as_str()).collect(),
            Self::V2(tasks) => tasks.iter().map(|task| task.task.name.as_str()).collect(),
        }
    }

    /// Returns the names of the files of a case.
    pub(super) fn layout(&self) -> &'static Layout {
        Layout::of(match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
        })
    }
}

/// Call of a case.
pub(super) enum Call {
    V1(Box<CallV1>),
    V2 {
        planned: Box<v2::PlannedCall>,
        args: Map<String, Value>,
    },
}

/// Call of a task of version 1.
pub(super) struct CallV1 {
    task: PlannedTask,
    item: Option<Value>,
    metadata: Map<String, Value>,
}

impl Call {
    /// Plans a call. Problems go to `problems`.
    ///
    /// * `index`: index of the task.
    /// * `file`: file with the args.
    pub(super) fn plan(
        (tasks, index): (&Tasks, usize),
        args: Map<String, Value>,
        file: &Path,
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        match tasks {
            Tasks::V1(tasks) => {
                let task = tasks[index].clone();
                let call = CallV1::plan(task, args, file, policy, backend, problems)?;
                Some(Self::V1(Box::new(call)))
            }
            Tasks::V2(tasks) => {
                let planned = v2::plan_call(&tasks[index], &args, file, policy, backend, problems)?;
                Some(Self::V2 {
                    planned: Box::new(planned),
                    args,
                })
            }
        }
    }

    /// Returns the task of the call.
    pub(super) fn task(&self) -> &TaskSpec {
        match self {
            Self::V1(call) => &call.task.spec,
            Self::V2 { planned, .. } => &planned.spec,
        }
    }

    /// Creates the dataset for the call.
    pub(super) fn dialect(&self, layout: &Layout, has_input: bool) -> Box<dyn Dialect> {
        match self {
            Self::V1(call) => {
                let mut dataset = Dataset {
                    output_path: layout.output_path.into(),
                    metadata: call.metadata.clone().into(),
                    ..Dataset::default()
                };
                if has_input {
                    dataset.input_paths.push(INPUT_PATH.into());
                }
                let (task, item) = (&call.task, call.item.clone());
                dataset.set_only_call(task.spec.order, task.details.clone(), item);
                Box::new(dataset)
            }
            Self::V2 { planned, args } => Box::new(planned.call(args.clone(), layout.output_path)),
        }
    }
}

impl CallV1 {
    fn plan(
        task: TaskDocument,
        args: Map<String, Value>,
        file: &Path,
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut args = v1::CallArgs::new(args);
        let metadata = match args.reserved.shift_remove("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(other) => {
                Cursor::at(file, "/metadata".to_owned(), &other).wrong_type("an object", problems);
                return None;
            }
        };
        for name in args.reserved.keys() {
            let location = Location::Pointer {
                file: file.to_owned(),
                pointer: format!("/{name}"),
            };
            let text = format!(
                "`{name}` is filled in by mandelbox; remove it, and put files into the folders \
                 `input` and `output` of the case"
            );
            problems.add(location, text);
        }
        let task = v1::plan_call(task, &args, file, policy, backend, problems)?;
        let item = args.item;
        Some(Self {
            task,
            item,
            metadata,
        })
    }
}
