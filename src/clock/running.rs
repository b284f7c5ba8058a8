//! A clock that stands still while the process is stopped: by Ctrl-Z, by SIGSTOP of a scheduler, by
//! a debugger.
//!
//! The clocks of the operating system go on meanwhile, and nothing tells a process how long it was
//! stopped. So a thread ticks at short intervals, and a tick that comes much later than it should
//! was held back by a stop: of the time since the tick before, only [`LONGEST_GAP`] counts. Reading
//! the clock applies the same rule to the gap that is open, so it does not matter whether the
//! ticking thread or another one is the first to go on. The clock never goes back.
//!
//! A machine so busy that the thread is held back looks like a stop, and its guests were held back
//! as well. A stop shorter than [`LONGEST_GAP`] counts, and of a longer one that much.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Ticker;

/// Longest time between two ticks that counts as running time: far more than a busy machine holds a
/// thread back, and less than a user notices in a limit.
const LONGEST_GAP: Duration = Duration::from_millis(500);

/// The clock. Clones are the same clock.
#[derive(Clone)]
pub(crate) struct RunningClock {
    started: Instant,
    /// `None`: nothing ticks.
    last: Option<Arc<Mutex<Tick>>>,
}

#[derive(Clone, Copy, Default)]
struct Tick {
    /// When it was, since the clock was started.
    at: Duration,
    /// The running time then.
    running: Duration,
}

impl Tick {
    /// Running time at a moment after this tick.
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
    /// A clock and the thread that makes it go.
    ///
    /// * `interval`: between two ticks, well below [`LONGEST_GAP`].
    /// * `tick`: called at each of them.
    ///
    /// # Errors
    /// The operating system's, if there can be no other thread.
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
            // Before the lock, where it would be late.
            let at = started.elapsed();
            lock(&last).tick(at);
            tick();
        })?;
        Ok((clock, ticker))
    }

    /// A clock that goes on while the process is stopped, where there can be no thread for another.
    pub(crate) fn without_ticks() -> Self {
        Self {
            started: Instant::now(),
            last: None,
        }
    }

    /// Time for which the process has run since the clock was started.
    pub(crate) fn now(&self) -> Duration {
        let Some(last) = &self.last else {
            return self.started.elapsed();
        };
        let last = *lock(last);
        // The time is read last: a tick that comes meanwhile must not be later than it.
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
        // Stopped from 0.4 s to 100 s; another thread reads the clock before it ticks, and after.
        assert!((running(last, 100.0) - 0.8).abs() < 1e-9);
        last.tick(seconds(100.0));
        assert!((running(last, 100.1) - 0.9).abs() < 1e-9);
    }

    #[test]
    fn it_goes_as_other_clocks_do() {
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
