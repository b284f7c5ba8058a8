//! Metadata of a dataset that a typed task can fetch.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::Value;

/// The part of a dataset's metadata that a task may see: the JSON text of each key's value. Clones
/// share the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskMetadata(Arc<HashMap<String, Arc<str>>>);

impl TaskMetadata {
    /// Creates the metadata with these keys and values.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Self {
        let entries = entries.into_iter();
        Self::from_texts(entries.map(|(key, value)| (key.clone(), value.to_string())))
    }

    /// Creates the metadata with these keys and the JSON texts of their values.
    pub(crate) fn from_texts(entries: impl IntoIterator<Item = (String, String)>) -> Self {
        let entries = entries.into_iter();
        Self(Arc::new(
            entries.map(|(key, text)| (key, text.into())).collect(),
        ))
    }

    /// Returns the JSON text of a value.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<str>> {
        self.0.get(key).map(Arc::clone)
    }

    /// Returns the keys and the JSON texts of their values.
    pub(crate) fn texts(&self) -> HashMap<&str, &str> {
        let entries = self.0.iter();
        entries
            .map(|(key, text)| (key.as_str(), text.as_ref()))
            .collect()
    }

    /// Returns true if both share the same data, and are not only equal.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Serialize for TaskMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.texts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HashMap::<String, String>::deserialize(deserializer).map(Self::from_texts)
    }
}
