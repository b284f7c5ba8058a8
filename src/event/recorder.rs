//! Recorder of events: puts the events of many sources in one order, writes them to the log, and
//! then passes them to the reporters.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Event, EventKind, EventLog, Fact};
use crate::event::Reporter;
use crate::folder::Synced;
use crate::model::HostError;
use crate::text::time_text;

/// Time between two syncs while events arrive. The cost of a sync does not grow with the number of
/// its events, and no reader waits long for an event.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Recorder of events, the only place that gives them their number and their time.
pub struct Recorder {
    log: EventLog,
    reporters: Vec<Box<dyn Reporter>>,
    next_seq: u64,
    clock: Clock,
    synced: Instant,
    is_all_synced: bool,
    /// True if the file system turned out not to support syncing files, which is reported by one
    /// warning.
    cannot_sync: bool,
}

impl Recorder {
    /// Creates a recorder for a new log.
    ///
    /// * `log`: must accept every event, or the run ends.
    /// * `reporters`: receive each event after the log. A reporter that fails is removed, and the
    ///   run continues.
    pub fn new(log: EventLog, reporters: Vec<Box<dyn Reporter>>) -> Self {
        Self::resuming(log, reporters, 0)
    }

    /// Creates a recorder for a log that already has events.
    ///
    /// * `next_seq`: sequence number of the next event.
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

    /// Returns the number of starts of the run before this one.
    pub fn session(&self) -> u32 {
        self.log.session()
    }

    /// Records one fact.
    ///
    /// # Errors
    /// [`HostError::File`] if the log cannot be written.
    pub fn record(&mut self, kind: EventKind) -> Result<(), HostError> {
        self.record_fact(Fact::new(kind)).map(|_| ())
    }

    /// Records a fact whose text exists already. Returns the fact as an event kind.
    ///
    /// # Errors
    /// As for [`Self::record`].
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
        let lost = notify_each(&mut self.reporters, |reporter| {
            reporter.report_line(&event, line)
        });
        self.record_lost(lost)?;
        if self.log.is_full() {
            self.flush()?;
        }
        Ok(event.kind)
    }

    fn record_lost(&mut self, lost: Vec<String>) -> Result<(), HostError> {
        // Each of these warnings has removed a reporter, so the recursion ends.
        lost.into_iter()
            .try_for_each(|message| self.record(EventKind::Warning { message }))
    }

    /// Passes the recorded events to the operating system, for readers that follow the log, and at
    /// intervals to the disk.
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

    /// Waits until the recorded events are on disk. Only then do they count, and only then do
    /// reporters show them.
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
                           failure can lose recorded results; choose a `--work-dir` on a local \
                           disk if that matters";
            self.record(EventKind::Warning {
                message: message.to_owned(),
            })?;
        }
        let lost = notify_each(&mut self.reporters, |reporter| reporter.flush());
        self.record_lost(lost)?;
        // The warning about a lost reporter is an event too, which must be synced.
        self.sync()
    }
}

/// Calls `notify` for each reporter, and removes those that fail. Returns a message for each of
/// them.
fn notify_each(
    reporters: &mut Vec<Box<dyn Reporter>>,
    mut notify: impl FnMut(&mut dyn Reporter) -> std::io::Result<()>,
) -> Vec<String> {
    let mut lost = Vec::new();
    reporters.retain_mut(|reporter| match notify(reporter.as_mut()) {
        Ok(()) => true,
        Err(err) => {
            // A reader that has closed its pipe wants no further events.
            let gone = err.kind() == std::io::ErrorKind::BrokenPipe;
            lost.extend((!gone).then(|| format!("a report of this run is incomplete: {err}")));
            false
        }
    });
    lost
}

/// Returns the time in the precision of the log, so that readers of a running run see the same
/// times as readers of its log.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Formatter of times, most of which share their second with the previous time.
#[derive(Default)]
struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    /// Formats a time as [`time_text`] does.
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
