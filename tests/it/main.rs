//! The one test binary: every test here runs the real program or the library's public functions.

mod check;
mod documents;
mod fractal;
mod fractal_tables;
mod library;
mod project;
mod run;
mod sandbox;
mod tidy;
