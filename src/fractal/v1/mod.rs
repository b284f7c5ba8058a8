//! Version 1 of Fractal: documents, component lists, updates of the metadata, history.

mod args_text;
mod calls;
mod dataset;
pub mod document;
pub(crate) mod document_kind;
pub mod file_names;
mod history;
pub mod local_config;
mod metadata;
mod path;
mod task;

pub use dataset::{DEFAULT_TASKS_INCLUDE_IMAGE, Dataset};
pub use document::{WorkflowDocument, WorkflowTaskDocument};
pub(crate) use path::normalized;
#[cfg(feature = "cli")]
pub(crate) use task::{ITEM_ARGUMENT, task_facts};
pub use task::{RESERVED_ARGUMENTS, TaskDetails, component_list};
pub(crate) use task::{check_list, reserved_advice, shown_workflow_task};

/// Name of the file with the output of a call in a test case.
pub(crate) const CASE_OUTPUT_FILE: &str = "metadiff.json";
