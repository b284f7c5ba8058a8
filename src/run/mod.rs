//! Walks the plan, one task after another.
//!
//! [`Run::builder`] checks everything and writes nothing; [`Run::execute`] runs the workflow.
//! [`process_workflow`] does both, with the parameters of Fractal's function of that name.

mod arg_paths;
mod builder;
mod collected;
mod data_state;
mod error;
mod execute;
pub(crate) mod folders;
mod prepare;
mod process_workflow;
mod resume;
#[cfg(feature = "cli")]
mod single_call;
mod start;

pub use builder::{Run, RunBuilder};
pub use error::{Cancelled, Error, TaskFailure, exit_code};
#[cfg(feature = "cli")]
pub(crate) use prepare::prepare;
pub use prepare::{PreparedRun, RunFailure, RunOptions};
pub use process_workflow::{process_workflow, process_workflow_async};

pub use crate::plan::ProcessWorkflow;
#[cfg(feature = "cli")]
pub(crate) use single_call::SingleCall;
