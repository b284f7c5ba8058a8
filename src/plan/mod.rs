//! Planning: converts documents, policy and modules to a [`RunPlan`], or reports all problems at
//! once.

mod dataset_job;
mod dataset_planner;
mod interpreter;
mod job;
mod module_loader;
mod planned;
mod planner;
mod policy;
mod process_workflow;
mod requested;
mod run_plan;
mod script_state;

pub use dataset_job::DatasetJob;
#[cfg(feature = "cli")]
pub(crate) use dataset_planner::DatasetPlanner;
pub use interpreter::{DESCRIPTION_FILE, Interpreter};
pub(crate) use interpreter::{Program, ScriptHome};
pub use job::Job;
pub use planned::{Plan, PlannedTask, Requested};
pub use planner::{PlanRequest, build_plan, set_start_and_last_task_index};
#[cfg(feature = "cli")]
pub(crate) use policy::policy_key;
pub use policy::{Policy, SnapshotUse};
pub use process_workflow::{Package, ProcessWorkflow};
#[cfg(feature = "cli")]
pub(crate) use requested::read_requested;
pub use run_plan::RunPlan;
pub(crate) use script_state::ScriptStates;
#[cfg(feature = "cli")]
pub(crate) use script_state::digest_of_file as digest_of_script;
