//! Version 1 of Fractal: documents, component lists, updates of the metadata, history.

mod args_text;
mod calls;
mod dataset;
pub mod document;
pub mod file_names;
mod history;
mod metadata;
mod path;
mod task;

#[cfg(feature = "cli")]
pub(crate) use calls::{METADIFF_CHECK, check_metadiff};
pub use dataset::{DEFAULT_TASKS_INCLUDE_IMAGE, Dataset};
pub use document::{WorkflowDocument, WorkflowTaskDocument};
pub(crate) use path::normalized;
#[cfg(feature = "cli")]
pub(crate) use task::{ITEM_ARGUMENT, task_facts};
pub use task::{RESERVED_ARGUMENTS, TaskDetails, component_list};
pub(crate) use task::{check_list, list_key, reserved_advice, shown_workflow_task};
