//! CPU time of a thread.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shortest lap that is measured. Asking for the CPU time takes a system call, up to some
/// microseconds, and the shortest calls take 30.
const SHORTEST: Duration = Duration::from_millis(1);

/// Measures the CPU time of the thread that uses it, in laps. A lap costs one system call, since it
/// begins where the one before ended.
pub(crate) struct CpuLaps {
    last: Duration,
    /// Time of the laps since then that were too short.
    short: Duration,
}

impl CpuLaps {
    /// Begins the first lap.
    pub(crate) fn start() -> Self {
        Self {
            last: now(),
            short: Duration::ZERO,
        }
    }

    /// Returns the CPU time of this lap, and begins the next one. `None` for a short lap, which
    /// counts as computing all the time.
    ///
    /// * `took`: time of the lap.
    pub(crate) fn lap(&mut self, took: Duration) -> Option<Duration> {
        if took < SHORTEST {
            self.short += took;
            return None;
        }
        let now = now();
        let short = std::mem::take(&mut self.short);
        let lap = now.saturating_sub(self.last).saturating_sub(short);
        self.last = now;
        Some(lap)
    }
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part is negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn only_computing_takes_cpu_time() {
        let mut laps = CpuLaps::start();
        std::thread::sleep(Duration::from_millis(300));
        let slept = laps.lap(Duration::from_millis(300)).expect("a long lap");
        assert!(slept < Duration::from_millis(100));
        let started = Instant::now();
        let mut sum = 0_u64;
        let computed = loop {
            sum = std::hint::black_box(sum.wrapping_add(1));
            if sum.is_multiple_of(1 << 20) {
                let used = now().saturating_sub(laps.last);
                if used >= Duration::from_millis(20) {
                    break used;
                }
                assert!(started.elapsed() < Duration::from_secs(60), "no CPU time");
            }
        };
        assert_eq!(laps.lap(Duration::from_micros(999)), None);
        let lap = laps.lap(SHORTEST).expect("a long lap");
        assert!(lap + Duration::from_micros(999) >= computed);
        assert!(laps.lap(SHORTEST).expect("a long lap") < Duration::from_millis(20));
    }
}
