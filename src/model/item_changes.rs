//! Changes that a task made to the list of items of a dataset.

use serde::{Deserialize, Serialize};

/// Changes that a task made to the list of items of a dataset.
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

impl ItemChanges {
    /// Returns the changes in words, such as `2 new, 1 removed: 12 images`.
    ///
    /// * `item_kind`: a singular noun.
    pub fn describe(&self, item_kind: &str) -> String {
        let counts = [
            (self.n_new, "new"),
            (self.n_changed, "changed"),
            (self.n_removed, "removed"),
        ];
        let counts = counts.iter().filter(|(n, _)| *n > 0);
        let counts: Vec<_> = counts.map(|(n, word)| format!("{n} {word}")).collect();
        let counts = if counts.is_empty() {
            "unchanged".to_owned()
        } else {
            counts.join(", ")
        };
        let plural = if self.n_items == 1 { "" } else { "s" };
        format!("{counts}: {} {item_kind}{plural}", self.n_items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_in_words() {
        let mut changes = ItemChanges {
            n_items: 1,
            ..ItemChanges::default()
        };
        assert_eq!(changes.describe("image"), "unchanged: 1 image");
        (changes.n_new, changes.n_removed, changes.n_items) = (2, 1, 12);
        assert_eq!(changes.describe("image"), "2 new, 1 removed: 12 images");
    }
}
