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
pub use policy::Policy;
#[cfg(feature = "cli")]
pub(crate) use policy::policy_key;
pub use process_workflow::{Package, ProcessWorkflow};
pub use run_plan::RunPlan;
pub(crate) use script_state::ScriptStates;
