//! One file for the files of all calls of a task: records of args, output, stdout and stderr.
//!
//! A million calls would otherwise leave millions of small files, which cost more than the calls.
//! Records are only appended, each with one system call, so threads and processes that write at the
//! same time do not mix. A reader scans the file from its start; there is no index.
//!
//! # Bounds
//!
//! A record is written when its call has ended. Until then the host keeps at most
//! [`MAX_BUFFERED_BYTES`] of each stream in memory: what is longer goes to the file in pieces,
//! which are records too. Args and output are in memory anyway.
//!
//! # Damage
//!
//! A record counts if it is whole: see `format.rs`. A process that is killed, or a full disk,
//! leaves part of a record behind. Readers skip it, and later records follow it. Nothing is ever
//! removed from the file, so a resumed run cannot lose a record. A file whose first bytes are
//! damaged is kept under another name, and a new one is begun.

pub(super) mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use read::{PackedRecord, find_packed, find_packed_in};
pub use write::{PackedCall, PackedCalls};

/// Largest part of a stream that is kept in memory while its call runs.
pub(super) const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// Identity of an attempt in the file. Numbers of attempts can occur again in a later session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptKey {
    /// Start of the run in which the call ran, from 0.
    pub session: u32,
    /// Index of the batch in its task.
    pub batch: u32,
    /// Index of the call in its batch, when it ran.
    pub call_index: usize,
    /// Number of the attempt.
    pub attempt: u32,
}

/// Ranges of bytes of the file that make up a stream, in order.
pub(super) type Pieces = Vec<Range<u64>>;
