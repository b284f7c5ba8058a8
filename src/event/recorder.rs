//! Many sources → one order: numbers and dates events, writes them to the log, then tells the readers.

use jiff::Timestamp;

use super::{Event, EventKind, EventLog};
use crate::error::HostError;
use crate::reporter::Reporter;

/// The one place where events get their number and their time.
pub struct Recorder {
    log: EventLog,
    reporters: Vec<Box<dyn Reporter>>,
    next_seq: u64,
}

impl Recorder {
    /// * `log`: must take every event, or the run ends.
    /// * `reporters`: told after the log; one that fails is told no more, and the run goes on.
    pub fn new(log: EventLog, reporters: Vec<Box<dyn Reporter>>) -> Self {
        Self { log, reporters, next_seq: 0 }
    }

    /// Records one fact.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn record(&mut self, kind: EventKind) -> Result<(), HostError> {
        self.record_and_return(kind).map(|_| ())
    }

    /// [`Self::record`] for a fact that is large and needed afterwards.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_and_return(&mut self, kind: EventKind) -> Result<EventKind, HostError> {
        let event = Event { seq: self.next_seq, time: Timestamp::now(), kind };
        self.next_seq += 1;
        self.log.append(&event)?;
        let mut lost = Vec::new();
        self.reporters.retain_mut(|reporter| match reporter.report(&event) {
            Ok(()) => true,
            Err(err) => {
                // A reader that has gone away wanted no more.
                let gone = err.kind() == std::io::ErrorKind::BrokenPipe;
                lost.extend((!gone).then(|| format!("a report of this run is not complete: {err}")));
                false
            }
        });
        // Each of these removes a reporter, so this ends.
        lost.into_iter().try_for_each(|message| self.record(EventKind::Warning { message }))?;
        Ok(event.kind)
    }

    /// Hands what was recorded to the operating system, for those who follow the log.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn flush(&mut self) -> Result<(), HostError> {
        self.log.flush()
    }

    /// Waits until what was recorded is on disk: only then does it count.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn sync(&mut self) -> Result<(), HostError> {
        self.log.sync()
    }
}
