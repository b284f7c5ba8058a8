//! Readers of events. A reporter may fail without failing the run.

#[cfg(feature = "cli")]
mod guest_output;
mod html;
mod json_lines;
mod log_file;
#[cfg(feature = "cli")]
mod notice;
#[cfg(feature = "cli")]
mod outlet;
#[cfg(feature = "cli")]
mod patient;
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
pub use json_lines::JsonLines;
pub use log_file::LogFile;
#[cfg(feature = "cli")]
pub use notice::Notice;
#[cfg(feature = "cli")]
pub use patient::PatientWriter;
#[cfg(feature = "cli")]
pub use progress::{Progress, ProgressStyle};
pub use ro_crate::write_ro_crate;
pub(crate) use spans::RunEvents;
#[cfg(feature = "cli")]
pub use status_text::status_text;

/// Shows lines on stderr, which may have gone away.
///
/// * `text`: safe to show, with its line ends.
#[cfg(feature = "cli")]
pub fn say(text: &str) {
    let _ = terminal::print(text, stderr::Weight::Matters);
}

/// Shows the last lines of the program on stderr, and waits until all is written, unless its reader
/// has stopped.
///
/// * `text`: as that of [`say`].
#[cfg(feature = "cli")]
pub fn say_last(text: &str) {
    let _ = stderr::write_last(text);
}

/// Waits a moment for the reader of stderr, before the program ends on the spot.
#[cfg(feature = "cli")]
pub fn drain_stderr() {
    let _ = stderr::drain();
}
