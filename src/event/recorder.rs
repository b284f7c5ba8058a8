//! Many sources → one order: numbers and dates events, writes them to the log, then tells the
//! readers.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Event, EventKind, EventLog, Fact};
use crate::event::Reporter;
use crate::folder::Synced;
use crate::model::HostError;
use crate::text::time_text;

/// Time between two waits for the disk while events come. What one of them costs does not grow with
/// the events that it is for, and nobody waits long to see one.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// The one place where events get their number and their time.
pub struct Recorder {
    log: EventLog,
    reporters: Vec<Box<dyn Reporter>>,
    next_seq: u64,
    clock: Clock,
    synced: Instant,
    is_all_synced: bool,
    /// Whether the file system turned out not to sync files, which gets one warning.
    cannot_sync: bool,
}

impl Recorder {
    /// * `log`: must take every event, or the run ends.
    /// * `reporters`: told after the log; one that fails is told no more, and the run goes on.
    pub fn new(log: EventLog, reporters: Vec<Box<dyn Reporter>>) -> Self {
        Self::resuming(log, reporters, 0)
    }

    /// [`Self::new`] for a log with events in it.
    ///
    /// * `next_seq`: number of the next event.
    pub fn resuming(log: EventLog, reporters: Vec<Box<dyn Reporter>>, next_seq: u64) -> Self {
        let (clock, synced, is_all_synced) = (Clock::default(), Instant::now(), true);
        Self {
            log,
            reporters,
            next_seq,
            clock,
            synced,
            is_all_synced,
            cannot_sync: false,
        }
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
        let line = self.log.append(seq, self.clock.text(time), &fact);
        self.is_all_synced = false;
        let event = Event {
            seq,
            time,
            kind: fact.kind,
        };
        let lost = tell_each(&mut self.reporters, |reporter| {
            reporter.report_line(&event, line)
        });
        self.record_lost(lost)?;
        if self.log.is_full() {
            self.flush()?;
        }
        Ok(event.kind)
    }

    fn record_lost(&mut self, lost: Vec<String>) -> Result<(), HostError> {
        // Each of these has removed a reporter, so this ends.
        lost.into_iter()
            .try_for_each(|message| self.record(EventKind::Warning { message }))
    }

    /// Hands what was recorded to the operating system, for those who follow the log, and from time
    /// to time to the disk.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn flush(&mut self) -> Result<(), HostError> {
        if self.is_all_synced {
            return Ok(());
        }
        if self.synced.elapsed() < SYNC_INTERVAL {
            self.log.flush()
        } else {
            self.sync()
        }
    }

    /// Waits until what was recorded is on disk: only then does it count, and only then do
    /// reporters show it.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn sync(&mut self) -> Result<(), HostError> {
        if self.is_all_synced {
            return Ok(());
        }
        let synced = self.log.sync()?;
        (self.synced, self.is_all_synced) = (Instant::now(), true);
        if synced == Synced::Unsupported && !std::mem::replace(&mut self.cannot_sync, true) {
            let message = "the file system of the work directory cannot sync files: a power \
                failure can lose results that \
                           were recorded; choose a --work-dir on a local disk where that matters";
            self.record(EventKind::Warning {
                message: message.to_owned(),
            })?;
        }
        let lost = tell_each(&mut self.reporters, |reporter| reporter.flush());
        self.record_lost(lost)?;
        // A reporter that is lost is an event of its own.
        self.sync()
    }
}

/// Does without reporters that fail from now on. Returns a text for each that fails.
fn tell_each(
    reporters: &mut Vec<Box<dyn Reporter>>,
    mut tell: impl FnMut(&mut dyn Reporter) -> std::io::Result<()>,
) -> Vec<String> {
    let mut lost = Vec::new();
    reporters.retain_mut(|reporter| match tell(reporter.as_mut()) {
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
            let mut rest = time.subsec_nanosecond().unsigned_abs() / 1000;
            let mut digits = [b'0'; MICROSECONDS.end - MICROSECONDS.start];
            for digit in digits.iter_mut().rev() {
                *digit += (rest % 10) as u8;
                rest /= 10;
            }
            self.text.truncate(MICROSECONDS.start);
            self.text.extend(digits.map(char::from));
            self.text.push('Z');
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
        for (second, nanosecond) in [
            (0, 0),
            (0, 1),
            (0, 999_999_999),
            (1, 5_000),
            (1, 999),
            (9_999_999_999, 123_456_789),
        ] {
            let time = Timestamp::new(second, nanosecond).expect("a time");
            assert_eq!(clock.text(time), time_text(time));
        }
    }
}
