//! Execution of calls, each in its own WebAssembly store. Only this module uses wasmtime.
//!
//! [`Sandbox`] holds the state that calls share, such as the engine and the compiled modules. A
//! [`Worker`] runs one call at a time on the calling thread. Each call gets a fresh instance that
//! sees only what its [`Invocation`] grants. Guests run asynchronously on a runtime of that thread,
//! so that a limit also ends a guest that sleeps in the host.

mod absolute_links;
mod cache;
mod compile;
mod determinism;
mod engine;
mod entry_stream;
mod errno;
mod features;
mod file_writer;
mod folders;
mod format;
mod host;
mod imports;
#[cfg(feature = "compiler")]
mod inspect;
mod invocation;
mod known_files;
mod limits;
mod linkers;
mod listing;
mod lookup;
mod module;
mod not_wasm;
mod passthrough;
mod pool;
mod precompiled;
mod private_folder;
mod read_directory;
mod reports;
mod reservation;
mod set_times;
#[cfg(feature = "compiler")]
mod snapshot;
mod special_files;
mod stdio;
mod typed;
mod warnings;
mod worker;

#[cfg(feature = "compiler")]
pub(crate) use compile::takes_too_long;
pub(crate) use compile::{CompiledModule, OpenCacheFile};
#[cfg(feature = "compiler")]
pub(crate) use engine::compile_alone;
pub use engine::{Interruption, Sandbox, SandboxOptions, capture_no_backtraces};
pub use features::MissingFeature;
pub use imports::ImportState;
#[cfg(feature = "compiler")]
pub use inspect::{
    Export, ImportedInterface, ImportedItem, Inspection, Memory, SnapshotSupport, Table,
};
#[cfg(feature = "compiler")]
pub use invocation::ImageSlot;
pub use invocation::{Entry, GuestEnd, GuestInput, Invocation, TypedCall};
pub use pool::scans_changed_pages;
pub(crate) use precompiled::ModuleForm;
#[cfg(feature = "cli")]
pub(crate) use private_folder::open_private;
pub use reports::{GuestReports, MAX_REPORT_BYTES};
pub use reservation::Reservation;
pub use stdio::GuestOutput;
pub(crate) use stdio::TAIL_BYTES;
pub use warnings::GuestWarnings;
pub use worker::Worker;
