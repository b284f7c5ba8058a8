//! Readers of events.

use std::io;

use super::Event;

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
