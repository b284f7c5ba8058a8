//! Fractal's documents and rules. Pure but for reading documents.

pub mod args;
pub mod dialect;
pub mod package;
pub mod v1;
