//! Types that all layers share: plain data without I/O.

mod batch;
mod call_ref;
mod cancel;
mod grant;
mod guest_report;
mod host_error;
mod item_changes;
mod limits;
mod module_file;
mod module_kind;
mod modules;
mod outcome;
pub(crate) mod record_names;
mod task;
mod task_metadata;

pub use batch::{
    Attempt, Batch, BatchFiles, CallFiles, CallList, CallSpec, FileSuffixes, Retries, TaskFiles,
};
pub use call_ref::CallRef;
pub use cancel::CancelToken;
pub use grant::{Grant, Rights};
pub use guest_report::{GuestReport, LogLevel};
pub use host_error::HostError;
pub use item_changes::ItemChanges;
pub use limits::Limits;
pub use module_file::{FileIdentity, ModuleFile};
pub use module_kind::ModuleKind;
pub use modules::Modules;
pub use outcome::{CallFailure, Ended, FailureKind, Outcome, Usage};
pub use task::{ModuleRef, RequestedResource, ScriptRef, SnapshotSpec, TaskSpec};
pub use task_metadata::TaskMetadata;

/// True in builds without defences, which show that the tests with hostile modules fail without
/// them.
pub(crate) const WEAKENED: bool = cfg!(feature = "weakened-for-tests");
