//! mandelbox runs Fractal workflows with every task in a WebAssembly sandbox of its own.
//!
//! The layers, from the top: [`run`] walks a [`plan`] and records [`event`]s; a [`backend`] runs
//! the calls, each in a [`sandbox`]; [`report`] shows the events; [`fractal`] knows what the
//! documents mean; [`workdir`] knows the files of a run. Each layer depends on those below it only.
//!
//! [`process_workflow`] runs a workflow in one function call.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests create their own files")
)]

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
pub mod event;
mod folder;
pub mod fractal;
pub mod json;
pub mod model;
pub mod plan;
pub mod problem;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod text;
mod trace;
pub mod workdir;

#[cfg(all(feature = "weakened-for-tests", not(debug_assertions)))]
compile_error!("`weakened-for-tests` turns defences off: it is for tests, and for no other build");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use model::{CancelToken, HostError, Retries};
pub use plan::Policy;
pub use run::{
    Cancelled, Error, ProcessWorkflow, RunOptions, TaskFailure, process_workflow,
    process_workflow_async,
};
