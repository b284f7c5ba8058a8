//! Events of calls as they come from the threads that run them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::CallEvent;
use crate::clock::RunningClock;
use crate::event::EventKind;
use crate::model::{Attempt, CancelToken};

/// Time in which events are collected. Waking a thread for each event would cost more than a short
/// call itself.
const GATHER: Duration = Duration::from_millis(1);
/// If the thread was woken less than this time ago, events arrive fast, and it waits [`GATHER`] for
/// more. Must be well above [`GATHER`], which is part of this time.
const FAST: Duration = Duration::from_millis(5);
/// Interval between two checks of the token, after which waiting events can be written to disk.
const POLL: Duration = Duration::from_millis(50);

/// Iterator over the events of a task's calls. It returns [`CallEvent::Idle`] whenever no event is
/// waiting. It ends when no thread can send events any more, or when the calls of a cancelled run
/// have had their grace period.
pub(super) struct Inbox<'a> {
    received: Receiver<CallEvent>,
    cancel: &'a CancelToken,
    /// Time that calls have to end once the run is cancelled; `None`: no limit.
    grace_period: Option<Duration>,
    deadline: Option<Instant>,
    /// Measures the wall time of calls.
    clock: &'a RunningClock,
    /// The running attempt of each call with its start.
    running: BTreeMap<usize, (Attempt, Duration)>,
    reported_idle: bool,
    woken: Instant,
}

impl<'a> Inbox<'a> {
    pub(super) fn new(
        received: Receiver<CallEvent>,
        cancel: &'a CancelToken,
        grace_period: Option<Duration>,
        clock: &'a RunningClock,
    ) -> Self {
        let (running, reported_idle, woken) = (BTreeMap::new(), false, Instant::now());
        Self {
            received,
            cancel,
            grace_period,
            deadline: None,
            clock,
            running,
            reported_idle,
            woken,
        }
    }

    /// The calls that had not ended when the events did, and how long they had run.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = (Attempt, Duration)> {
        let now = self.clock.now();
        self.running
            .values()
            .map(move |(attempt, started)| (*attempt, now - *started))
    }

    fn is_over(&mut self) -> bool {
        let Some(grace_period) = self.grace_period.filter(|_| self.cancel.is_cancelled()) else {
            return false;
        };
        let now = Instant::now();
        now >= *self.deadline.get_or_insert(now + grace_period)
    }

    /// Waits for the next event; returns [`CallEvent::Idle`] if none has come, and `None` at the
    /// end.
    fn wait(&mut self) -> Option<CallEvent> {
        match self.received.recv_timeout(POLL) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) if self.is_over() => None,
            Err(RecvTimeoutError::Timeout) => Some(CallEvent::Idle),
        }
    }

    fn note(&mut self, event: &CallEvent) {
        match event {
            CallEvent::Happened(fact) => {
                if let EventKind::CallStarted { call, .. } = fact.kind() {
                    let attempt = Attempt {
                        call_index: call.call_index,
                        number: call.attempt,
                    };
                    self.running
                        .insert(call.call_index, (attempt, self.clock.now()));
                }
            }
            CallEvent::Finished { fact, .. } => {
                if let EventKind::CallFinished { call, .. } = fact.kind() {
                    self.running.remove(&call.call_index);
                }
            }
            CallEvent::Idle => {}
        }
    }
}

impl Iterator for Inbox<'_> {
    type Item = CallEvent;

    fn next(&mut self) -> Option<CallEvent> {
        // Also where a guest that does not end goes on to report.
        if self.is_over() {
            return None;
        }
        let event = match self.received.try_recv() {
            Ok(event) => event,
            Err(_) if !self.reported_idle => {
                self.reported_idle = true;
                return Some(CallEvent::Idle);
            }
            Err(_) => {
                let event = self.wait()?;
                if matches!(event, CallEvent::Idle) {
                    return Some(event);
                }
                if self.woken.elapsed() < FAST {
                    std::thread::sleep(GATHER);
                }
                self.woken = Instant::now();
                event
            }
        };
        self.reported_idle = false;
        self.note(&event);
        Some(event)
    }
}
