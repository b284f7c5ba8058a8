//! Status of each image for each task.

use std::collections::BTreeMap;

use serde::Serialize;

use super::filters::Filters;
use crate::problem::{Cursor, Problems};

/// Status of an image for a task. An image that the task never got has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// The last call for the image succeeded.
    Done,
    /// The last call for the image failed.
    Failed,
}

/// Status of each image for each task, over all runs on a dataset.
///
/// Source: conformance rule V89.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Statuses(BTreeMap<u64, BTreeMap<String, ImageStatus>>);

impl Statuses {
    /// Reads an object of objects: order of the task, URL of the image, status.
    pub fn from_cursor(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let mut statuses = Self::default();
        for key in cursor.object(problems)?.keys() {
            let task = cursor.get(key).expect("the key is one of the object");
            let Ok(order) = key.parse() else {
                problems.add(task.location(), "the key must be the order of a task");
                continue;
            };
            for url in task.object(problems).into_iter().flat_map(|map| map.keys()) {
                let value = task.get(url).expect("the key is one of the object");
                let status = match value.value.as_str() {
                    Some("done") => ImageStatus::Done,
                    Some("failed") => ImageStatus::Failed,
                    _ => {
                        problems.add(value.location(), "must be `done` or `failed`");
                        continue;
                    }
                };
                statuses.set(order, url.clone(), status);
            }
        }
        Some(statuses)
    }

    /// Returns the status of an image for a task.
    pub fn get(&self, order: u64, zarr_url: &str) -> Option<ImageStatus> {
        self.0.get(&order)?.get(zarr_url).copied()
    }

    /// Sets the status of an image for a task.
    pub(super) fn set(&mut self, order: u64, zarr_url: String, status: ImageStatus) {
        self.0.entry(order).or_default().insert(zarr_url, status);
    }

    /// Removes the status of an image that a task has removed.
    pub(super) fn remove(&mut self, order: u64, zarr_url: &str) {
        if let Some(statuses) = self.0.get_mut(&order) {
            statuses.remove(zarr_url);
        }
    }

    /// Returns true if the status of an image for a task is accepted; an image without a status is
    /// `unset`.
    ///
    /// Source: conformance rule V50.
    pub(super) fn is_accepted(&self, filters: &Filters, order: u64, zarr_url: &str) -> bool {
        let status = match self.get(order, zarr_url) {
            Some(ImageStatus::Done) => "done",
            Some(ImageStatus::Failed) => "failed",
            None => "unset",
        };
        let accepted = filters.statuses.as_ref();
        accepted.is_none_or(|accepted| accepted.iter().any(|word| word == status))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_survive_json() {
        let text = json!({"0": {"/z/a": "done", "/z/b": "failed"}, "12": {}});
        let mut problems = Problems::default();
        let cursor = Cursor::new(Path::new("status.json"), &text);
        let statuses = Statuses::from_cursor(&cursor, &mut problems).expect("statuses");
        assert!(problems.is_empty());
        assert_eq!(statuses.get(0, "/z/b"), Some(ImageStatus::Failed));
        assert_eq!(
            json!(statuses),
            json!({"0": {"/z/a": "done", "/z/b": "failed"}})
        );
        let bad = json!({"x": {}, "1": {"/z/a": "submitted"}});
        Statuses::from_cursor(&Cursor::new(Path::new("status.json"), &bad), &mut problems);
        assert_eq!(problems.len(), 2);
    }
}
