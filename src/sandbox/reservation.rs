//! Addresses for guests' memories: many and fast, or few where a process may not have many.

use serde::{Deserialize, Serialize};
use wasmtime::Config;

/// Addresses that each memory of a guest gets, which is not memory that it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reservation {
    /// [`Self::Whole`], unless this process may only have so many addresses (`ulimit -v`): then [`Self::Small`].
    #[default]
    Fitting,
    /// 4 GiB and guards of 32 MiB on both sides: all that a guest can address, so that its code
    /// checks no bounds.
    Whole,
    /// 64 MiB, or what the memory begins with; one that grows past it is moved. Code checks bounds,
    /// which costs time.
    Small,
}

/// Bytes that a small reservation has at first, and past its size after each move.
const SMALL_BYTES: u64 = 64 << 20;
/// Bytes without access around a small one: offsets below this need no check of their own.
const SMALL_GUARD_BYTES: u64 = 64 << 10;

impl Reservation {
    /// [`Self::Whole`] or [`Self::Small`].
    pub fn resolve(self) -> Self {
        match self {
            Self::Fitting if addresses_are_limited() => Self::Small,
            Self::Fitting => Self::Whole,
            chosen => chosen,
        }
    }

    pub(super) fn configure(self, config: &mut Config) {
        if self.resolve() == Self::Small {
            config.memory_reservation(SMALL_BYTES);
            config.memory_reservation_for_growth(SMALL_BYTES);
            config.memory_guard_size(SMALL_GUARD_BYTES);
        }
    }
}

impl std::fmt::Display for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.resolve() {
            Self::Small => "64 MiB of addresses at first for each memory, and checks of bounds",
            _ => "4 GiB of addresses for each memory, and no checks of bounds",
        })
    }
}

#[cfg(unix)]
fn addresses_are_limited() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::As)
        .current
        .is_some()
}

#[cfg(not(unix))]
fn addresses_are_limited() -> bool {
    false
}
