//! Readers of events.

use std::io;

use super::Event;

/// Receiver of all events, in order.
pub trait Reporter: Send {
    /// Processes one event.
    ///
    /// # Errors
    /// Any error. The reporter then receives no further events, and the run continues.
    fn report(&mut self, event: &Event) -> io::Result<()>;

    /// Processes one event together with its line in the log. Reporters override it if they need
    /// the line.
    ///
    /// * `line`: the event's line in `events.jsonl`, with its line feed.
    ///
    /// # Errors
    /// As for [`Self::report`].
    fn report_line(&mut self, event: &Event, line: &[u8]) -> io::Result<()> {
        let _ = line;
        self.report(event)
    }

    /// Handles the notice that all events passed to the reporter are on disk. A reporter that acts
    /// on an event, or shows it to a user, must wait for this call: events that are not on disk can
    /// be lost with the machine.
    ///
    /// # Errors
    /// As for [`Self::report`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
