//! Words that all layers share: plain data without I/O.

mod call_ref;
mod cancel;
mod grant;
mod guest_report;
mod host_error;
mod limits;
mod module_file;
mod module_kind;
mod outcome;

pub use call_ref::CallRef;
pub use cancel::CancelToken;
pub use grant::{Grant, Rights};
pub use guest_report::{GuestReport, LogLevel};
pub use host_error::HostError;
pub use limits::Limits;
pub use module_file::{FileIdentity, ModuleFile};
pub use module_kind::ModuleKind;
pub use outcome::{CallFailure, Ended, FailureKind, Figures, Outcome};

/// True in builds with defences off, so that a test can show that the hostile modules notice.
pub(crate) const WEAKENED: bool = cfg!(feature = "weakened-for-tests");
