//! Version 2 of Fractal: image lists, filters, outputs of tasks, documents.

mod filters;
mod image;
mod image_list;
mod output;
#[cfg(test)]
mod tables;

pub use filters::{AttributeFilters, Filters, STATUS_KEY, match_types, merge_type_filters};
pub use image::{Image, ImageSource, Types, is_below, is_within, normalized_url};
pub use image_list::{ImageList, Merge, Merged};
pub use output::{CallOutput, Conflict, ParallelItem, TaskOutput, join_outputs, parse_init_output};
