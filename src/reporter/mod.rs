//! Readers of events. A reporter may fail without failing the run.

pub mod escape;
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
#[cfg(feature = "cli")]
mod status_text;
#[cfg(feature = "cli")]
mod stderr;
#[cfg(feature = "cli")]
mod terminal;
mod workflow_tasks;

use std::io;

use crate::event::Event;

#[cfg(feature = "cli")]
pub use guest_output::{EscapedLines, Stream, raw_stream};
pub use html::{HtmlReport, REPORT_NAME, ReportError, write_report};
pub use json_lines::JsonLines;
pub use log_file::LogFile;
#[cfg(feature = "cli")]
pub use notice::Notice;
#[cfg(feature = "cli")]
pub use patient::PatientWriter;
#[cfg(feature = "cli")]
pub use progress::{Progress, ProgressStyle};
pub use ro_crate::{RO_CRATE_NAME, write_ro_crate};
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

/// Told of every event, in order.
pub trait Reporter: Send {
    /// Takes one event.
    ///
    /// # Errors
    /// Any; the reporter is told no more, and the run goes on.
    fn report(&mut self, event: &Event) -> io::Result<()>;

    /// [`Self::report`], for reporters that want the event as the log has it.
    ///
    /// * `line`: its line in `events.jsonl`, with its line feed.
    ///
    /// # Errors
    /// As [`Self::report`].
    fn report_line(&mut self, event: &Event, line: &[u8]) -> io::Result<()> {
        let _ = line;
        self.report(event)
    }

    /// Called when all events that it was told of are on disk. Who acts on an event, or shows it to
    /// those who do, waits for this: an event before may be lost with the machine.
    ///
    /// # Errors
    /// As [`Self::report`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
