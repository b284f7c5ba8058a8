//! What the user wrote → a plan that can run.
//!
//! In passes, each with its own types: JSON text → [`document`] (shapes checked) → [`Plan`] (tasks
//! found, args filled in and validated, modules read and made ready). Every pass goes on after a
//! problem, so that all of them are reported at once; nothing here writes a file or runs a task.

pub mod args_schema;
pub mod argument;
pub mod document;
mod document_kind;
pub mod local_config;
mod misfit;
pub mod module_file;
pub mod package;
mod pattern_size;
pub mod plan;
mod planner;
mod problem;
mod requested;
mod schema_bounds;
mod schema_references;
mod task_index;

pub use args_schema::SchemaBudget;
pub use document::{WorkflowDocument, WorkflowTaskDocument};
pub use module_file::{FileIdentity, ModuleFile};
pub use package::TaskPackage;
pub use plan::{Plan, PlannedTask, Requested};
pub use planner::{PlanRequest, build_plan, component_list, set_start_and_last_task_index};
pub use problem::{Cursor, Place, Problem, Problems};
