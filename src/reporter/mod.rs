//! Readers of events. A reporter may fail without failing the run.

pub mod escape;
mod json_lines;
mod log_file;
#[cfg(feature = "cli")]
mod progress;

use std::io;

use crate::event::Event;

pub use json_lines::JsonLines;
pub use log_file::LogFile;
#[cfg(feature = "cli")]
pub use progress::{Progress, ProgressStyle};

/// Told of every event, in order.
pub trait Reporter: Send {
    /// Takes one event.
    ///
    /// # Errors
    /// Any; the reporter is told no more, and the run goes on.
    fn report(&mut self, event: &Event) -> io::Result<()>;
}
