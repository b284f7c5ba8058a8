//! mandelbox runs Fractal workflows with each task in its own WebAssembly sandbox.
//!
//! [`Run::builder`] is the entry: documents and folders in, a result and events out.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use mandelbox::{EventKind, Run, TaskPackage, WorkflowDocument};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let workflow = WorkflowDocument::read(Path::new("workflow.json"))?;
//! let run = Run::builder(workflow)
//!     .package(TaskPackage::read(Path::new("my-tasks"))?)
//!     .input("images")
//!     .output("results")
//!     .on_event(|event| {
//!         if let EventKind::CallFinished { outcome, .. } = &event.kind {
//!             println!("{}", outcome.describe());
//!         }
//!     })
//!     .build()?;
//! let result = run.execute()?;
//! println!("{}", result["metadata"]);
//! # Ok(())
//! # }
//! ```
//!
//! [`process_workflow`] is the same with the parameters of Fractal's function of that name. The
//! types below are the library's interface; everything else can change with any version.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests create their own files")
)]

// The layers, from the top. Each depends on those below it only: `tests/it/tidy.rs` has the table.
#[doc(hidden)]
pub mod backend;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod event;
#[doc(hidden)]
pub mod fractal;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod sandbox;
#[doc(hidden)]
pub mod workdir;
// What all layers share.
mod clock;
mod folder;
#[doc(hidden)]
pub mod json;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod problem;
#[doc(hidden)]
pub mod text;
mod trace;

#[cfg(all(feature = "weakened-for-tests", not(debug_assertions)))]
compile_error!("`weakened-for-tests` turns defences off: it is for tests, and for no other build");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use backend::{Backend, Isolation, Local, WorkerCommand, serve};
pub use event::{Event, EventKind, Reporter};
pub use fractal::package::TaskPackage;
pub use fractal::v1::WorkflowDocument;
pub use model::{CancelToken, HostError, Limits, ModuleFile, Outcome, Retries, TaskFiles};
pub use plan::{Policy, ProcessWorkflow};
pub use problem::Problems;
pub use run::{
    Error, Run, RunBuilder, RunFailure, RunOptions, TaskFailure, process_workflow,
    process_workflow_async,
};
pub use sandbox::{Sandbox, SandboxOptions};

/// Documents of Fractal v2, for [`Run::dataset_builder`].
pub mod v2 {
    pub use crate::fractal::v2::{
        AttributeFilters, DatasetDocument, Filters, Image, ImageList, Manifest, Package, Statuses,
        Types, WorkflowDocument,
    };
    pub use crate::plan::DatasetJob;
}
