//! Version 2 of Fractal: image lists, filters, outputs of tasks, documents.

mod calls;
mod dataset;
mod dataset_document;
mod document;
mod filters;
mod image;
mod image_list;
mod manifest;
#[cfg(feature = "cli")]
mod only_call;
mod output;
mod package_folder;
mod packages;
mod pre_checks;
#[cfg(test)]
mod replay;
mod running;
mod select;
mod status;
#[cfg(test)]
mod tables;
mod task;
mod typed_package;

#[cfg(feature = "cli")]
pub(crate) use calls::{CHANGES_CHECK, ITEMS_CHECK, check_changes, check_items};
pub use dataset::Dataset;
pub use dataset_document::{DatasetDocument, TrialRun};
pub use document::{GivenSide, TaskReference, WorkflowDocument, WorkflowTask};
pub use filters::{AttributeFilters, Filters, STATUS_KEY, match_types, merge_type_filters};
pub use image::{Image, ImageSource, Types, is_below, is_within, normalized_url};
pub use image_list::{ImageList, Merge, Merged};
pub use manifest::{Manifest, TaskDocument, TaskSide};
#[cfg(feature = "cli")]
pub(crate) use only_call::OnlyCall;
pub use output::{CallOutput, Conflict, ParallelItem, TaskOutput, join_outputs, parse_init_output};
pub use packages::{FoundTask, Package, find_task};
pub(crate) use pre_checks::{Selection, overridden_filters, pre_checks};
pub use status::{ImageStatus, Statuses};
pub use task::{RESERVED_ARGUMENTS, Side, TaskDetails, TaskType};
pub use typed_package::modules_next_to;
