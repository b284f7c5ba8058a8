//! Identity of a call in events and logs.

use serde::Serialize;

use crate::json::Value;

/// Identity of one attempt of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallRef {
    /// Order of the task.
    pub task: u64,
    /// Index of the batch in its task, from 0. Omitted from JSON if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub batch: u32,
    /// Index of the item in its list; 0 for a single call.
    pub call_index: usize,
    /// The item; `None` for a single task, whose JSON omits this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Value>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl CallRef {
    /// Returns the key that identifies the call in its task: the index of the batch, and the index
    /// of the call in the batch.
    pub fn key(&self) -> (u32, usize) {
        (self.batch, self.call_index)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
