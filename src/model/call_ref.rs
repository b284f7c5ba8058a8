//! Identity of a call in events and logs.

use serde::Serialize;

use crate::json::Value;

/// Which call an event is of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallRef {
    /// Order of its task.
    pub task: u64,
    /// Index of its batch in the task, from 0. A task of one batch has no such key.
    #[serde(skip_serializing_if = "is_zero")]
    pub batch: u32,
    /// Index of its item in the list; 0 for a single call.
    pub call_index: usize,
    /// The item; `None` for a single task, whose line is then without this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Value>,
    /// Which try this is, from 1.
    pub attempt: u32,
}

impl CallRef {
    /// What no two calls of a task share: the index of the batch, and that of the call in it.
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
