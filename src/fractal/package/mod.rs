//! Task packages: manifests, and the lookup of the task that a workflow refers to.

pub mod manifest;
pub(crate) mod task_index;

pub use crate::fractal::document_kind::MANIFEST;
pub use manifest::TaskPackage;
