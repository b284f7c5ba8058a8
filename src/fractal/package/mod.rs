//! Task packages: manifests, and the lookup of the task that a workflow refers to.

pub mod manifest;
pub(crate) mod task_index;
mod version;

pub use crate::fractal::document_kind::MANIFEST;
pub use manifest::TaskPackage;
pub(crate) use version::package_version;
