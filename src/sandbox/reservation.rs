//! Address space of guest memories: large and fast, or small for a process with limited address
//! space.

use serde::{Deserialize, Serialize};
use wasmtime::Config;

/// Address space that each memory of a guest reserves. This is not the memory that it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reservation {
    /// [`Self::Small`] if the address space of this process is limited (`ulimit -v`), otherwise
    /// [`Self::Whole`].
    #[default]
    Fitting,
    /// 4 GiB, with guards of 32 MiB on both sides. This covers all addresses of a guest, so its
    /// code needs no bounds checks.
    Whole,
    /// 64 MiB, or the initial size of the memory. A memory that grows past its reservation is
    /// moved. The code checks bounds, which takes time.
    Small,
}

/// Initial size of a small reservation, and the space added after each move.
const SMALL_BYTES: u64 = 64 << 20;
/// Size of the inaccessible guard around a small reservation. Offsets below it need no bounds check
/// of their own.
const SMALL_GUARD_BYTES: u64 = 64 << 10;

impl Reservation {
    /// Returns [`Self::Whole`] or [`Self::Small`].
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
            Self::Small => "64 MiB of address space at first for each memory, with bounds checks",
            _ => "4 GiB of address space for each memory, without bounds checks",
        })
    }
}

fn addresses_are_limited() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::As)
        .current
        .is_some()
}
