//! Many sources → one order: numbers and dates events, writes them to the log, then tells the readers.

use jiff::Timestamp;

use super::{Event, EventKind, EventLog, Fact, time_text};
use crate::error::HostError;
use crate::reporter::Reporter;

/// The one place where events get their number and their time.
pub struct Recorder {
    log: EventLog,
    reporters: Vec<Box<dyn Reporter>>,
    next_seq: u64,
    clock: Clock,
}

impl Recorder {
    /// * `log`: must take every event, or the run ends.
    /// * `reporters`: told after the log; one that fails is told no more, and the run goes on.
    pub fn new(log: EventLog, reporters: Vec<Box<dyn Reporter>>) -> Self {
        Self { log, reporters, next_seq: 0, clock: Clock::default() }
    }

    /// Records one fact.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn record(&mut self, kind: EventKind) -> Result<(), HostError> {
        self.record_fact(Fact::new(kind)).map(|_| ())
    }

    /// [`Self::record`] for a fact whose text is there; gives back what happened.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_fact(&mut self, fact: Fact) -> Result<EventKind, HostError> {
        let (seq, time) = (self.next_seq, now());
        self.next_seq += 1;
        self.log.append(seq, self.clock.text(time), &fact)?;
        let event = Event { seq, time, kind: fact.kind };
        // Each of these removes a reporter, so this ends.
        self.tell_reporters(&event).into_iter().try_for_each(|message| self.record(EventKind::Warning { message }))?;
        Ok(event.kind)
    }

    /// Returns what is to be said of reporters that failed, and does without them from now on.
    fn tell_reporters(&mut self, event: &Event) -> Vec<String> {
        let mut lost = Vec::new();
        self.reporters.retain_mut(|reporter| match reporter.report(event) {
            Ok(()) => true,
            Err(err) => {
                // A reader that has gone away wanted no more.
                let gone = err.kind() == std::io::ErrorKind::BrokenPipe;
                lost.extend((!gone).then(|| format!("a report of this run is not complete: {err}")));
                false
            }
        });
        lost
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

/// The time as the log has it: readers of a running run see what readers of its log see.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Makes the texts of times, most of which share their second with the one before.
#[derive(Default)]
struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    /// As [`time_text`].
    fn text(&mut self, time: Timestamp) -> &str {
        const MICROSECONDS: std::ops::Range<usize> = 20..26;
        if self.text.is_empty() || time.as_second() != self.second || time.as_second() < 0 {
            (self.second, self.text) = (time.as_second(), time_text(time));
        } else {
            let microseconds = format!("{:06}", time.subsec_nanosecond() / 1000);
            self.text.replace_range(MICROSECONDS, &microseconds);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_times_are_those_of_each_alone() {
        let mut clock = Clock::default();
        for (second, nanosecond) in
            [(0, 0), (0, 1), (0, 999_999_999), (1, 5_000), (1, 999), (9_999_999_999, 123_456_789)]
        {
            let time = Timestamp::new(second, nanosecond).expect("a time");
            assert_eq!(clock.text(time), time_text(time));
        }
    }
}
