//! Fractal's documents and rules. Pure, except for reading documents.

pub mod args;
pub(crate) mod command;
pub(crate) mod description;
pub mod dialect;
pub(crate) mod document_kind;
mod item_filter;
pub mod local_config;
pub mod package;
pub(crate) mod read;
#[cfg(feature = "cli")]
pub(crate) mod typed_package;
pub mod v1;
pub mod v2;
pub mod workflow;

pub use item_filter::ItemFilter;

#[cfg(feature = "cli")]
use crate::json::{Map, Value};

/// Check of the output of a call.
#[cfg(feature = "cli")]
pub(crate) type OutputCheck = fn(Value) -> Result<Option<Map<String, Value>>, String>;

/// Finds the check of outputs that a list of calls names; `None` if the name is unknown.
#[cfg(feature = "cli")]
pub(crate) fn output_check(name: &str) -> Option<OutputCheck> {
    Some(match name {
        v1::METADIFF_CHECK => v1::check_metadiff,
        v2::CHANGES_CHECK => v2::check_changes,
        v2::ITEMS_CHECK => v2::check_items,
        _ => return None,
    })
}

/// Name of the file with the output of a call, in records and in test cases.
pub(crate) const OUTPUT_FILE: &str = "metadiff.json";
