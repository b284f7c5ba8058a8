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
pub mod v1;
pub mod v2;
pub mod workflow;

pub use item_filter::ItemFilter;

/// Name of the file with the output of a call, in records and in test cases.
pub(crate) const OUTPUT_FILE: &str = "metadiff.json";
