//! Places for guests that are made once and used again: a call then starts without asking the
//! system for memory.

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Instances of core modules that one call may have: a component made of linked libraries has some
/// dozens.
const CORE_INSTANCES: u32 = 200;
/// Memories that one call may have.
const MEMORIES: u32 = 4;
/// Tables that one call may have.
const TABLES: u32 = 20;
/// Entries that a table may have.
const TABLE_ENTRIES: usize = 1 << 20;
/// Bytes of the host's own data for one instance: large modules have tens of thousands of
/// functions.
const INSTANCE_BYTES: usize = 16 << 20;
/// Bytes of a memory that stay with the process between two calls, where the kernel tells which of
/// them were changed.
const SCANNED_RESIDENT_BYTES: usize = 16 << 20;
/// The same where it does not, and all of them are written over.
const WRITTEN_RESIDENT_BYTES: usize = 64 << 10;

/// Makes places for `n_workers` calls at a time.
pub(super) fn configure(config: &mut Config, n_workers: usize) {
    let n_workers = u32::try_from(n_workers).unwrap_or(u32::MAX);
    let total = |each: u32| n_workers.saturating_mul(each);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(n_workers)
        .total_core_instances(total(CORE_INSTANCES))
        .total_memories(total(MEMORIES))
        .total_tables(total(TABLES))
        .total_stacks(n_workers)
        .total_gc_heaps(n_workers)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ENTRIES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .table_keep_resident(WRITTEN_RESIDENT_BYTES);
    if scans_changed_pages() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(SCANNED_RESIDENT_BYTES);
    } else {
        pool.linear_memory_keep_resident(WRITTEN_RESIDENT_BYTES);
    }
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
}

/// Whether the kernel tells which pages of a guest were changed, and is believed.
///
/// It does not tell of pages that were swapped out, which would leave a guest's data to the next
/// one: so there must be no swap.
pub fn scans_changed_pages() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available() && has_no_swap()
}

/// Whether the machine is known to have no swap.
fn has_no_swap() -> bool {
    // A line of headings, then one for each place.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() == 1)
}
