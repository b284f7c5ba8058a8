//! How a task changed the list of items of a dataset.

use serde::{Deserialize, Serialize};

/// How a task changed the list of items of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemChanges {
    /// Number of items that the task added.
    pub n_new: usize,
    /// Number of items that it changed.
    pub n_changed: usize,
    /// Number of items that it removed.
    pub n_removed: usize,
    /// Number of items after the task.
    pub n_items: usize,
}
