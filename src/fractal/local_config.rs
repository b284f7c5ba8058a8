//! `parallel_tasks_per_job`: from a workflow task's meta, otherwise from the local backend's
//! configuration file.

use std::num::NonZeroUsize;
use std::path::Path;

use super::read::read_document;
use crate::json::{Map, Value};
use crate::problem::{Cursor, Problems};
use crate::text::wording::did_you_mean;

/// The key in meta and in the configuration file.
pub const KEY: &str = "parallel_tasks_per_job";

/// Contents of the configuration file; the default if there is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalConfig {
    /// Maximum number of calls of one task that run at the same time; `None`: as many as there are
    /// threads.
    pub parallel_tasks_per_job: Option<NonZeroUsize>,
}

impl LocalConfig {
    /// Reads the configuration of Fractal's local backend.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(path, problems))
    }

    /// Reads the configuration file: a JSON object without any key other than [`KEY`].
    pub fn read_into(path: &Path, problems: &mut Problems) -> Option<Self> {
        let value = read_document(path, problems)?;
        let document = Cursor::new(path, &value);
        for key in document.object(problems)?.keys().filter(|key| *key != KEY) {
            problems.add(
                document.location_of(key),
                format!(
                    "unknown key; the only key of this file is `{KEY}`{}",
                    did_you_mean(key, [KEY])
                ),
            );
        }
        let parallel_tasks_per_job = document
            .get(KEY)
            .and_then(|value| read_count(&value, problems));
        Some(Self {
            parallel_tasks_per_job,
        })
    }

    /// Returns the value for one workflow task: that of its own meta if the key exists, even if
    /// null, otherwise that of this file.
    pub fn for_task(self, meta: &Cursor<'_>, problems: &mut Problems) -> Option<NonZeroUsize> {
        match meta.get(KEY) {
            Some(value) => read_count(&value, problems),
            None => self.parallel_tasks_per_job,
        }
    }
}

/// Reads an integer of 1 or more, also as text; null is `None`.
fn read_count(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<NonZeroUsize> {
    let count = match cursor.value {
        Value::Null => return None,
        Value::Number(number) => number.as_u64().and_then(|n| usize::try_from(n).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let count = count.and_then(NonZeroUsize::new);
    if count.is_none() {
        let text = format!(
            "must be an integer of 1 or more, or null for no limit, not {}",
            cursor.value
        );
        problems.add(cursor.location(), text);
    }
    count
}

/// Updates task meta with the workflow task's meta, shallowly, as Fractal does at insertion.
pub fn merged_meta(
    task_meta: &Map<String, Value>,
    given: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut merged = task_meta.clone();
    for (key, value) in given.into_iter().flatten() {
        merged.insert(key.clone(), value.clone());
    }
    merged
}
