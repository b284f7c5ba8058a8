//! Walks the plan, one workflow task after another.
//!
//! [`prepare`] checks everything and writes nothing; [`PreparedRun::execute`] runs. [`process_workflow`] is both, with
//! the parameters of Fractal's function of that name.

mod builder;
mod collected;
mod data_state;
mod error;
mod execute;
pub(crate) mod folders;
mod prepare;
mod process_workflow;
mod resume;
mod single_call;
mod start;

pub(crate) use builder::default_work_dir;
pub use builder::{Run, RunBuilder};
pub use error::{Cancelled, Error, TaskFailure, exit_code};
pub(crate) use prepare::prepare;
pub use prepare::{PreparedRun, RunFailure, RunOptions};
pub use process_workflow::{process_workflow, process_workflow_async};

pub use crate::plan::ProcessWorkflow;
pub(crate) use single_call::SingleCall;
