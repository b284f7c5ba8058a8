//! Clock that stops while the process is stopped: by Ctrl-Z, by SIGSTOP from a scheduler, or by a
//! debugger.
//!
//! The clocks of the operating system continue meanwhile, and a process cannot ask how long it was
//! stopped. So a thread ticks at short intervals. A tick that comes much later than it should was
//! delayed by a stop, and only [`LONGEST_GAP`] of the time since the previous tick counts. Reading
//! the clock applies the same rule to the time since the last tick. So it does not matter whether
//! the ticking thread or another one continues first. The clock never goes back.
//!
//! A stop shorter than [`LONGEST_GAP`] counts in full, and a longer one counts as [`LONGEST_GAP`].
//! If the machine is so busy that the thread is delayed, this looks like a stop. The guests were
//! delayed as well in that case.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Ticker;

/// Longest time between two ticks that counts as running time. This is much longer than a busy
/// machine delays a thread, and shorter than a user notices in a time limit.
const LONGEST_GAP: Duration = Duration::from_millis(500);

/// Clock of running time. Clones share it.
#[derive(Clone)]
pub(crate) struct RunningClock {
    started: Instant,
    /// Last tick; `None` if nothing ticks.
    last: Option<Arc<Mutex<Tick>>>,
}

#[derive(Clone, Copy, Default)]
struct Tick {
    /// Time of the tick, since the clock was started.
    at: Duration,
    /// Running time at the tick.
    running: Duration,
}

impl Tick {
    /// Returns the running time at a moment after this tick.
    fn running_at(self, at: Duration) -> Duration {
        self.running + at.saturating_sub(self.at).min(LONGEST_GAP)
    }

    fn tick(&mut self, at: Duration) {
        *self = Self {
            at,
            running: self.running_at(at),
        };
    }
}

impl RunningClock {
    /// Starts a clock and the thread that drives it.
    ///
    /// * `interval`: interval between two ticks, well below [`LONGEST_GAP`].
    /// * `tick`: called at each tick.
    ///
    /// # Errors
    /// The operating system's error, if no thread can be started.
    pub(crate) fn start(
        name: &str,
        interval: Duration,
        mut tick: impl FnMut() + Send + 'static,
    ) -> io::Result<(Self, Ticker)> {
        let (started, last) = (Instant::now(), Arc::<Mutex<Tick>>::default());
        let clock = Self {
            started,
            last: Some(Arc::clone(&last)),
        };
        let ticker = Ticker::start(name, interval, move || {
            // Read the time before waiting for the lock.
            let at = started.elapsed();
            lock(&last).tick(at);
            tick();
        })?;
        Ok((clock, ticker))
    }

    /// Creates a clock that continues while the process is stopped, for a process that cannot start
    /// a thread.
    pub(crate) fn without_ticks() -> Self {
        Self {
            started: Instant::now(),
            last: None,
        }
    }

    /// Returns the time for which the process has run since the clock was started.
    pub(crate) fn now(&self) -> Duration {
        let Some(last) = &self.last else {
            return self.started.elapsed();
        };
        let last = *lock(last);
        // Read the time last, so that it is not earlier than the tick.
        last.running_at(self.started.elapsed())
    }
}

fn lock(last: &Mutex<Tick>) -> MutexGuard<'_, Tick> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_for_no_more_than_the_longest_gap() {
        let seconds = Duration::from_secs_f64;
        let mut last = Tick::default();
        let running = |last: Tick, at: f64| last.running_at(seconds(at)).as_secs_f64();
        for at in [0.1, 0.2, 0.3] {
            last.tick(seconds(at));
        }
        assert!((running(last, 0.4) - 0.4).abs() < 1e-9);
        // Stopped from 0.4 s to 100 s. Another thread reads the clock before the next tick, and
        // after it.
        assert!((running(last, 100.0) - 0.8).abs() < 1e-9);
        last.tick(seconds(100.0));
        assert!((running(last, 100.1) - 0.9).abs() < 1e-9);
    }

    #[test]
    fn it_advances_as_other_clocks_do() {
        let (clock, _ticker) =
            RunningClock::start("test", Duration::from_millis(5), || {}).expect("a thread");
        let (before, started) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(700));
        let (running, elapsed) = (clock.now() - before, started.elapsed());
        assert!(
            running.abs_diff(elapsed) < Duration::from_millis(300),
            "{running:?} {elapsed:?}"
        );
    }
}
