//! Arguments of tasks: schemas, defaults, reserved names.

pub mod argument;
#[cfg(feature = "cli")]
pub(crate) mod call_check;
mod mismatch;
mod pattern_size;
pub mod schema;
mod schema_bounds;
mod schema_references;

pub use schema::SchemaBudget;
