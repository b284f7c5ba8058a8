//! Fractal's documents and rules. Pure, except for reading documents.

pub mod args;
pub mod dialect;
pub mod package;
pub mod v1;
pub mod v2;
