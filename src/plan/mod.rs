//! Documents, policy and modules → a [`Plan`], or every problem at once.

pub(crate) mod planned;
mod planner;
mod policy;
mod requested;

pub use planned::{Plan, PlannedTask, Requested};
pub use planner::{PlanRequest, build_plan, component_list, set_start_and_last_task_index};
pub use policy::Policy;
