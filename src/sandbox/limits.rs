//! Limits of one call, and the memory budget of a store.

use wasmtime::ResourceLimiter;

use crate::model::Limits;

/// Budget for all memories and tables of a store together.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    limit_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    /// Bytes of open folder listings, which the host holds for the guest.
    listing_bytes: u64,
    /// Maximum number of instances, of memories and of tables in a call.
    max_objects: usize,
}

/// Error of a guest that requested more memory than its budget; it ends the guest.
#[derive(Debug, thiserror::Error)]
#[error("more memory than the call may have")]
pub(super) struct BudgetExceeded {
    pub(super) limit_bytes: u64,
    pub(super) asked_bytes: u64,
}

/// Error of a machine that has no more memory, although the budget allows more; it ends the guest.
#[derive(Debug, thiserror::Error)]
#[error("the machine is out of memory: {0}")]
pub(super) struct MachineIsFull(String);

/// Returns true if an error comes from the machine, which lacks memory or address space. The guest
/// causes all other errors.
pub(super) fn is_machine_error(err: &wasmtime::Error) -> bool {
    machine_errno(err).is_some()
}

/// Returns [`MachineIsFull`] if a guest could not be started because the machine ran out of memory.
pub(super) fn machine_is_full(err: &wasmtime::Error) -> Option<MachineIsFull> {
    if machine_errno(err)? != rustix::io::Errno::NOMEM.raw_os_error() {
        return None;
    }
    Some(MachineIsFull(format!("{err:#}")))
}

/// Returns the error number of the system call that failed, or 0 if the error has no number.
fn machine_errno(err: &wasmtime::Error) -> Option<i32> {
    err.chain().find_map(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .map(|err| err.raw_os_error().unwrap_or(0));
        io.or_else(|| {
            cause
                .downcast_ref::<rustix::io::Errno>()
                .map(|errno| errno.raw_os_error())
        })
    })
}

/// Bytes of open listings that do not count. A guest that has used up its memory can still list an
/// ordinary folder.
const FREE_LISTING_BYTES: u64 = 1 << 20;

/// Bytes that an entry of a table max_objects: a pointer on the host.
const TABLE_ENTRY_BYTES: u64 = 8;

impl MemoryBudget {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: limits.memory_bytes,
            used_bytes: 0,
            peak_bytes: 0,
            listing_bytes: 0,
            max_objects: 100,
        }
    }

    /// Adds the memory of an instance that a call does not create.
    #[cfg(feature = "compiler")]
    pub(super) fn start_with(&mut self, bytes: u64) {
        self.used_bytes = bytes;
        self.peak_bytes = bytes;
    }

    /// Returns the memory of the instances in bytes, without listings.
    #[cfg(feature = "compiler")]
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Adds a growth to the budget. Growth past the object's own maximum fails in the guest without
    /// an error of the host.
    fn grow(
        &mut self,
        from: usize,
        to: usize,
        own_maximum: Option<usize>,
        unit: u64,
    ) -> wasmtime::Result<bool> {
        if own_maximum.is_some_and(|maximum| to > maximum) {
            return Ok(false);
        }
        let added = (to.saturating_sub(from) as u64).saturating_mul(unit);
        let asked_bytes = self
            .used_bytes
            .saturating_add(added)
            .saturating_add(self.counted_listing_bytes());
        if asked_bytes > self.limit_bytes && !crate::model::WEAKENED {
            return Err(BudgetExceeded {
                limit_bytes: self.limit_bytes,
                asked_bytes,
            }
            .into());
        }
        self.used_bytes = self.used_bytes.saturating_add(added);
        self.peak_bytes = self.peak_bytes.max(asked_bytes);
        Ok(true)
    }

    /// Adds bytes that the host holds for folder listings. Returns false if they do not fit. A
    /// guest can continue without the listing, so this is an error for the guest and does not end
    /// it.
    pub(super) fn hold(&mut self, bytes: u64) -> bool {
        let held = self.listing_bytes;
        self.listing_bytes = held.saturating_add(bytes);
        let total = self.used_bytes.saturating_add(self.counted_listing_bytes());
        if self.counted_listing_bytes() > 0 && total > self.limit_bytes && !crate::model::WEAKENED {
            self.listing_bytes = held;
            return false;
        }
        self.peak_bytes = self.peak_bytes.max(total);
        true
    }

    /// Releases bytes that [`Self::hold`] has added.
    pub(super) fn release(&mut self, bytes: u64) {
        self.listing_bytes = self.listing_bytes.saturating_sub(bytes);
    }

    fn counted_listing_bytes(&self) -> u64 {
        self.listing_bytes.saturating_sub(FREE_LISTING_BYTES)
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, 1)
    }

    fn memory_grow_failed(&mut self, err: wasmtime::Error) -> wasmtime::Result<()> {
        // If this were reported to the guest as a failed growth, the guest would end as if it had a
        // fault.
        if is_machine_error(&err) {
            Err(MachineIsFull(format!("{err:#}")).into())
        } else {
            Ok(())
        }
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, TABLE_ENTRY_BYTES)
    }

    fn instances(&self) -> usize {
        self.max_objects
    }

    fn tables(&self) -> usize {
        self.max_objects
    }

    fn memories(&self) -> usize {
        self.max_objects
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn listings_count_beyond_what_is_free() {
        let mut budget = MemoryBudget::new(&Limits {
            memory_bytes: 1000,
            ..Limits::default()
        });
        assert!(budget.memory_growing(0, 600, None).expect("fits"));
        assert!(budget.hold(FREE_LISTING_BYTES));
        assert_eq!(budget.peak_bytes(), 600);
        assert!(budget.hold(400));
        assert!(!budget.hold(1));
        assert!(budget.memory_growing(600, 601, None).is_err());
        assert_eq!(budget.peak_bytes(), 1000);
        budget.release(1);
        assert!(budget.memory_growing(600, 601, None).expect("fits"));
        assert!(!budget.hold(1));
        budget.release(FREE_LISTING_BYTES + 399);
        assert!(budget.memory_growing(601, 1000, None).expect("fits"));
        assert!(budget.hold(FREE_LISTING_BYTES));
    }

    #[test]
    fn budget_is_one_for_all_objects() {
        let mut budget = MemoryBudget::new(&Limits {
            memory_bytes: 1000,
            ..Limits::default()
        });
        assert!(budget.memory_growing(0, 600, None).expect("fits"));
        assert!(
            budget
                .table_growing(0, 50, Some(100))
                .expect("fits to the last byte")
        );
        assert!(
            !budget
                .table_growing(50, 101, Some(100))
                .expect("past its own maximum")
        );
        let err = budget
            .memory_growing(600, 601, None)
            .expect_err("one past it");
        assert!(
            err.downcast_ref::<BudgetExceeded>()
                .is_some_and(|err| err.asked_bytes == 1001)
        );
        assert_eq!(budget.peak_bytes(), 1000);
    }

    #[test]
    fn documents_ask_up_to_the_maximum() {
        let limits = Limits {
            memory_bytes: 100,
            wall_time: Some(Duration::from_secs(5)),
            ..Limits::default()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let (lower, warning) = limits.clamp_to(Some(50), seconds(1), &limits);
        assert_eq!(
            (lower.memory_bytes, lower.wall_time, warning),
            (50, seconds(1), None)
        );
        let (same, warning) = limits.clamp_to(Some(101), seconds(6), &limits);
        assert_eq!(same, limits);
        assert!(warning.is_some_and(|text| text.contains("100 bytes of memory and 5 s of time")));
        let maximum = Limits {
            memory_bytes: 200,
            wall_time: None,
            ..Limits::default()
        };
        let (more, warning) = limits.clamp_to(Some(200), seconds(500), &maximum);
        assert_eq!(
            (more.memory_bytes, more.wall_time, warning),
            (200, seconds(500), None)
        );
        assert_eq!(
            limits.clamp_to(Some(201), None, &maximum).0.memory_bytes,
            200
        );
    }
}
