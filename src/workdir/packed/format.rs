//! Bytes of the file of packed calls.
//!
//! ```text
//! file   = "mandelbox calls, form 1\n" key(32) sum(16) record...
//! record = mark(8) head_bytes(u32) data_bytes(u64) sum(16) head data sum(16)
//! ```
//!
//! Numbers are little-endian. A sum is the start of a BLAKE3 hash of all bytes before it: of the
//! file for the first one, of the record for the others, which are keyed with the key of the file.
//! A guest does not know the key, so nothing that it writes can pass for a record when a reader
//! searches for the next one behind a damaged one. The first sum of a record makes this search
//! fast: a mark with a wrong one costs no more than its 36 bytes.
//!
//! The head is a JSON object ([`Head`]). The data is what the head gives lengths for: args, output,
//! stdout, stderr.

use std::io;

use serde::{Deserialize, Serialize};

use super::AttemptKey;
use crate::json::Value;

/// First bytes of the file.
const FILE_MARK: &[u8; 24] = b"mandelbox calls, form 1\n";
/// First bytes of a record.
pub(super) const RECORD_MARK: &[u8; 8] = b"\x89call\r\n\x1a";
/// Length of a checksum.
pub(super) const SUM_BYTES: usize = 16;
/// Length of the start of the file.
pub(super) const FILE_START_BYTES: usize = FILE_MARK.len() + 32 + SUM_BYTES;
/// Length of the start of a record: up to its head.
pub(super) const RECORD_START_BYTES: usize = RECORD_MARK.len() + 4 + 8 + SUM_BYTES;

/// Key of the checksums of a file.
pub(super) type Key = [u8; 32];
/// Checksum.
pub(super) type Sum = [u8; SUM_BYTES];

/// Description of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Attempt that the record belongs to.
    pub(super) call: AttemptKey,
    /// Item of the call; absent for a single call, and in pieces of streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<Value>,
    /// Common start of the names that the files of the call would have; absent in pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<String>,
    /// Length of the args; absent in pieces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<u64>,
    /// Length of the output; absent if the call left none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<u64>,
    /// Length of this piece of stdout: the last one, unless the record is only a piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stdout: Option<u64>,
    /// Length of this piece of stderr; absent if stdout contains both streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stderr: Option<u64>,
}

impl Head {
    /// Creates the head of a piece without data.
    pub(super) fn piece(call: AttemptKey) -> Self {
        Self {
            call,
            item: None,
            files: None,
            args: None,
            output: None,
            stdout: None,
            stderr: None,
        }
    }

    /// Returns true if the record is that of a call that has ended.
    pub(super) fn is_end(&self) -> bool {
        self.args.is_some()
    }

    /// Returns the lengths of the parts of the data, in their order.
    pub(super) fn lengths(&self) -> [Option<u64>; 4] {
        [self.args, self.output, self.stdout, self.stderr]
    }
}

/// Returns the start of a new file.
pub(super) fn file_start(key: &Key) -> Vec<u8> {
    let mut start = [FILE_MARK.as_slice(), key].concat();
    let sum = first_bytes(&blake3::hash(&start));
    start.extend(sum);
    start
}

/// Returns the key from the start of a file; `None` if the start is damaged.
pub(super) fn parse_file_start(start: &[u8]) -> Option<Key> {
    let key = start.get(FILE_MARK.len()..FILE_MARK.len() + 32)?;
    let key: Key = key.try_into().ok()?;
    (file_start(&key) == start).then_some(key)
}

/// Returns everything of a record before its data, and the hash to continue with the data.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the head is too long.
pub(super) fn record_start(
    key: &Key,
    head: &Head,
    data_bytes: u64,
) -> io::Result<(Vec<u8>, blake3::Hasher)> {
    let head = serde_json::to_vec(head)?;
    let head_bytes = u32::try_from(head.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut start = RECORD_MARK.to_vec();
    start.extend(head_bytes.to_le_bytes());
    start.extend(data_bytes.to_le_bytes());
    start.extend(first_bytes(&blake3::keyed_hash(key, &start)));
    start.extend(head);
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&start);
    Ok((start, hasher))
}

/// Lengths of the head and the data of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordLengths {
    pub(super) head: u32,
    pub(super) data: u64,
}

/// Parses the start of a record; `None` if it is damaged, or not the start of a record.
pub(super) fn parse_record_start(
    key: &Key,
    start: &[u8; RECORD_START_BYTES],
) -> Option<RecordLengths> {
    let (summed, sum) = start.split_at(RECORD_START_BYTES - SUM_BYTES);
    let lengths = summed.strip_prefix(RECORD_MARK)?;
    if first_bytes(&blake3::keyed_hash(key, summed)) != *sum {
        return None;
    }
    let (head, data) = lengths.split_at(4);
    Some(RecordLengths {
        head: u32::from_le_bytes(head.try_into().ok()?),
        data: u64::from_le_bytes(data.try_into().ok()?),
    })
}

/// Returns the part of a hash that is stored.
pub(super) fn first_bytes(hash: &blake3::Hash) -> Sum {
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..SUM_BYTES]);
    sum
}
