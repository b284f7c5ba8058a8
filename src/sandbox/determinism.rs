//! Clocks and random numbers that are the same in every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// Time at which the wall clock starts: 2000-01-01, in seconds since 1970.
const START_S: u64 = 946_684_800;
/// Nanoseconds by which a clock advances at each reading. A guest that waits for a point in time
/// therefore ends.
const TICK_NS: u64 = 1_000;

/// Gives a call clocks that advance at each reading, and random numbers from a seed.
///
/// * `seed`: the same seed gives the same numbers.
pub(super) fn make_deterministic(builder: &mut WasiCtxBuilder, seed: u64) {
    builder.wall_clock(WallClock(Ticks::default()));
    builder.monotonic_clock(MonotonicClock(Ticks::default()));
    builder.secure_random(StdRng::seed_from_u64(seed));
    builder.insecure_random(StdRng::seed_from_u64(seed ^ u64::MAX));
    builder.insecure_random_seed(u128::from(seed));
}

#[derive(Default)]
struct Ticks(AtomicU64);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(TICK_NS, Ordering::Relaxed)
    }
}

struct WallClock(Ticks);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(TICK_NS)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(START_S) + Duration::from_nanos(self.0.next())
    }
}

struct MonotonicClock(Ticks);

impl HostMonotonicClock for MonotonicClock {
    fn resolution(&self) -> u64 {
        TICK_NS
    }

    fn now(&self) -> u64 {
        self.0.next()
    }
}
