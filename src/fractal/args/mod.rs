//! Arguments of tasks: schemas, defaults, reserved names.

pub mod argument;
mod mismatch;
mod pattern_size;
pub mod schema;
mod schema_bounds;
mod schema_references;

pub use schema::SchemaBudget;
