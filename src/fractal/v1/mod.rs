//! Version 1 of Fractal: documents, component lists, metadiffs → metadata, history.

pub mod document;
pub(crate) mod document_kind;
pub mod history;
pub mod local_config;
pub(crate) mod metadata;
pub(crate) mod parameters;

pub use document::{WorkflowDocument, WorkflowTaskDocument};
pub use parameters::{DEFAULT_TASKS_INCLUDE_IMAGE, TaskParameters};
