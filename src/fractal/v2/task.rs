//! The part of a planned task that only version 2 has.

use super::image::Types;
use crate::json::{Map, Value};
use crate::model::TaskSpec;

/// Names of arguments that the runner fills in.
///
/// Source: conformance rule V18.
pub const RESERVED_ARGUMENTS: [&str; 4] = ["zarr_dir", "zarr_url", "zarr_urls", "init_args"];

/// Type of a task, which determines its calls.
///
/// Source: conformance rule V27 and part C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskType {
    /// One call for each image.
    Parallel,
    /// One call for all images.
    NonParallel,
    /// One call for all images, then one for each item of the list that it returned.
    Compound,
    /// One call, which gets no images.
    ConverterNonParallel,
    /// As [`Self::Compound`], but the first call gets no images.
    ConverterCompound,
}

impl TaskType {
    /// All types, with their names in documents.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("parallel", Self::Parallel),
        ("non_parallel", Self::NonParallel),
        ("compound", Self::Compound),
        ("converter_non_parallel", Self::ConverterNonParallel),
        ("converter_compound", Self::ConverterCompound),
    ];

    /// Returns the name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::NonParallel => "non_parallel",
            Self::Compound => "compound",
            Self::ConverterNonParallel => "converter_non_parallel",
            Self::ConverterCompound => "converter_compound",
        }
    }

    /// Returns true if the task gets no images.
    pub fn is_converter(self) -> bool {
        matches!(self, Self::ConverterNonParallel | Self::ConverterCompound)
    }

    /// Returns true if the task has a call for all images, or for none.
    pub fn has_single_call(self) -> bool {
        self != Self::Parallel
    }

    /// Returns true if the task has a call for each image or item.
    pub fn has_parallel_calls(self) -> bool {
        matches!(
            self,
            Self::Parallel | Self::Compound | Self::ConverterCompound
        )
    }

    /// Returns true if the task has both kinds of calls.
    pub fn is_compound(self) -> bool {
        self.has_single_call() && self.has_parallel_calls()
    }
}

/// One of the two kinds of calls that a task can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The single call.
    NonParallel,
    /// The calls for images or items.
    Parallel,
}

impl Side {
    /// Both sides, in the order of their calls.
    pub const ALL: [Self; 2] = [Self::NonParallel, Self::Parallel];

    /// Returns the end of the keys of this side in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::NonParallel => "non_parallel",
            Self::Parallel => "parallel",
        }
    }
}

/// Arguments of a task, the images that it gets, and the types that it sets.
#[derive(Clone, Debug)]
pub struct TaskDetails {
    /// Type of the task.
    pub task_type: TaskType,
    /// Arguments of the single call.
    pub args_non_parallel: Map<String, Value>,
    /// Arguments of the calls for images or items.
    pub args_parallel: Map<String, Value>,
    /// Type filters of this task only: its input types, with the filters of the workflow task.
    pub type_filters: Types,
    /// Types that the task sets on images that it changes, and that later tasks then select by.
    pub output_types: Types,
    /// The task that runs the second batch of a compound task; `None`: the same as the first.
    pub compute: Option<TaskSpec>,
}

impl TaskDetails {
    /// Returns the arguments of the kinds of calls that the task has, by their keys in documents.
    pub fn args(&self) -> Map<String, Value> {
        let mut args = Map::new();
        for (key, side, is_used) in [
            (
                "args_non_parallel",
                &self.args_non_parallel,
                self.task_type.has_single_call(),
            ),
            (
                "args_parallel",
                &self.args_parallel,
                self.task_type.has_parallel_calls(),
            ),
        ] {
            if is_used {
                args.insert(key.to_owned(), Value::Object(side.clone()));
            }
        }
        args
    }
}
