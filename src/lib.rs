//! mandelbox runs Fractal workflows with every task in a WebAssembly sandbox of its own.
//!
//! The modules stand in the order in which data passes them: documents become a [`workflow::Plan`];
//! the [`runner`] walks it and makes calls; a [`backend`] runs them, each in a [`sandbox`]; their
//! [`outcome`]s become [`event`]s,
//! [`history`] and files in the work directory ([`workdir`]), and [`reporter`]s tell of them.
//!
//! [`process_workflow`] is the whole road in one function.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests make their own files")
)]

pub mod backend;
pub mod cancel;
#[cfg(feature = "cli")]
pub mod cli;
pub mod error;
pub mod event;
mod folder;
pub mod history;
pub mod json;
pub mod outcome;
pub mod policy;
pub mod reporter;
pub mod runner;
mod running_clock;
pub mod sandbox;
mod ticker;
mod trace;
pub mod units;
mod wording;
pub mod workdir;
pub mod workflow;

#[cfg(all(feature = "weakened-for-tests", not(debug_assertions)))]
compile_error!("`weakened-for-tests` turns defences off: it is for tests, and for no other build");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use cancel::CancelToken;
pub use error::{Cancelled, Error, HostError, TaskFailure};
pub use policy::Policy;
pub use runner::{ProcessWorkflow, Retries, RunOptions, process_workflow, process_workflow_async};
