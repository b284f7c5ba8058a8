//! Reporters of events. A reporter may fail without failing the run.

#[cfg(feature = "cli")]
mod guest_output;
mod html;
#[cfg(feature = "cli")]
mod interruptible_writer;
mod json_lines;
mod log_file;
mod log_lines;
#[cfg(feature = "cli")]
mod notice;
#[cfg(feature = "cli")]
mod outlet;
#[cfg(feature = "cli")]
mod progress;
mod ro_crate;
mod spans;
#[cfg(feature = "cli")]
mod status_text;
#[cfg(feature = "cli")]
mod stderr;
#[cfg(feature = "cli")]
mod terminal;
mod workflow_tasks;

#[cfg(feature = "cli")]
pub use guest_output::{EscapedLines, Stream, raw_stream};
pub use html::{HtmlReport, ReportError, write_report};
#[cfg(feature = "cli")]
pub use interruptible_writer::InterruptibleWriter;
pub use json_lines::JsonLines;
pub use log_file::LogFile;
pub use log_lines::LogLines;
#[cfg(feature = "cli")]
pub use notice::Notice;
#[cfg(feature = "cli")]
pub use progress::{Progress, ProgressStyle};
pub use ro_crate::write_ro_crate;
pub(crate) use spans::RunEvents;
#[cfg(feature = "cli")]
pub use status_text::status_text;

/// Prints lines on stderr. Ignores errors, since the reader of stderr may be gone.
///
/// * `text`: safe to show, with its line ends.
#[cfg(feature = "cli")]
pub fn print_text(text: &str) {
    let _ = terminal::print(text, stderr::Weight::Important);
}

/// Prints the last lines of the program on stderr, and waits until everything is written, unless
/// the reader of stderr has stopped.
///
/// * `text`: safe to show, with its line ends.
#[cfg(feature = "cli")]
pub fn print_last(text: &str) {
    let _ = stderr::write_last(text);
}

/// Waits a moment for the reader of stderr, before the program exits immediately.
#[cfg(feature = "cli")]
pub fn drain_stderr() {
    let _ = stderr::drain();
}
