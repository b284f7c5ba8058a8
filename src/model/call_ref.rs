//! Identity of a call in events and logs.

use serde::Serialize;

use crate::json::Value;

/// Which call an event is of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallRef {
    /// Order of its task.
    pub task: u64,
    /// Position in the component list; 0 for a single task.
    pub call_index: usize,
    /// The component; `None` for a single task, whose line is then without this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<Value>,
    /// Which try this is, from 1.
    pub attempt: u32,
}
