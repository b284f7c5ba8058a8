//! Settings of wasmtime's pooling allocator.
//!
//! The pool reserves address space for the memories, tables and stacks of all concurrent calls in
//! advance. A call then starts without requesting memory from the system. In exchange, the sizes
//! and counts here are limits of a call in addition to its own limits.
//!
//! Between two calls, the memory of a guest is reset. Pages that stay resident must be overwritten,
//! and all others are returned to the system and must be faulted in again. Where the kernel reports
//! which pages were changed, only those are overwritten, so many pages can stay resident. Elsewhere
//! all resident pages are overwritten, so only a few stay.

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Maximum number of core module instances in a call. A component of linked libraries has some
/// dozens.
const CORE_INSTANCES: u32 = 200;
/// Maximum number of memories in a call.
const MEMORIES: u32 = 4;
/// Maximum number of tables in a call.
const TABLES: u32 = 20;
/// Maximum number of entries in a table.
const TABLE_ENTRIES: usize = 1 << 20;
/// Maximum size of the host's own data for an instance. Large modules have tens of thousands of
/// functions.
const INSTANCE_BYTES: usize = 16 << 20;
/// Bytes of a memory that stay resident between two calls if the kernel reports changed pages.
const SCANNED_RESIDENT_BYTES: usize = 16 << 20;
/// Bytes that stay resident if it does not, so that all of them are overwritten.
const WRITTEN_RESIDENT_BYTES: usize = 64 << 10;

/// Configures a pool for `n_workers` concurrent calls.
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

/// Returns true if the kernel reports which pages of a guest were changed, and this report is
/// reliable.
///
/// The report omits pages that were swapped out, which would leave the data of a guest to the next
/// one. So the machine must have no swap.
pub fn scans_changed_pages() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available() && has_no_swap()
}

/// Returns true if the machine is known to have no swap.
fn has_no_swap() -> bool {
    // The file has one header line, and one line for each swap area.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() == 1)
}
