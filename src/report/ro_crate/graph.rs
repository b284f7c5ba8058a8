//! The entities of a crate, in RO-Crate's flat form of JSON-LD.

use std::collections::HashSet;

use serde_json::json;

use crate::json::{Map, Value};

/// Entities with unique ids.
#[derive(Default)]
pub(super) struct Graph {
    entities: Vec<Value>,
    ids: HashSet<String>,
    /// Files and folders of the dataset, for its `hasPart`.
    pub(super) parts: Vec<String>,
    /// Actions, for the `mentions` of the dataset.
    pub(super) actions: Vec<String>,
}

impl Graph {
    /// Adds an entity, unless its id exists already.
    ///
    /// * `properties`: an object. Null values and empty arrays are omitted, and an array of one
    ///   value is replaced by the value.
    pub(super) fn add(&mut self, id: &str, types: &[&str], properties: Value) {
        if self.ids.insert(id.to_owned()) {
            self.entities.push(entity(id, types, properties));
        }
    }

    /// Adds a file or folder as [`Self::add`] does.
    pub(super) fn add_part(&mut self, id: &str, types: &[&str], properties: Value) {
        if !self.ids.contains(id) {
            self.parts.push(id.to_owned());
        }
        self.add(id, types, properties);
    }

    /// Returns the crate, with these entities after `first`.
    pub(super) fn into_crate(self, first: Vec<Value>, context: Value) -> Value {
        let entities: Vec<_> = first.into_iter().chain(self.entities).collect();
        json!({ "@context": context, "@graph": entities })
    }
}

/// Returns an entity; see [`Graph::add`].
pub(super) fn entity(id: &str, types: &[&str], properties: Value) -> Value {
    let mut entity = Map::new();
    entity.insert("@id".to_owned(), id.into());
    entity.insert(
        "@type".to_owned(),
        single_or_array(types.iter().map(|name| Value::from(*name)).collect()),
    );
    if let Value::Object(properties) = properties {
        for (key, value) in properties {
            let value = match value {
                Value::Array(values) if values.is_empty() => continue,
                Value::Array(values) => single_or_array(values),
                Value::Null => continue,
                other => other,
            };
            entity.insert(key, value);
        }
    }
    Value::Object(entity)
}

fn single_or_array(mut values: Vec<Value>) -> Value {
    if values.len() == 1 {
        values.remove(0)
    } else {
        Value::Array(values)
    }
}

/// Returns a reference to an entity.
pub(super) fn reference(id: &str) -> Value {
    json!({ "@id": id })
}

/// Returns references to entities.
pub(super) fn references<T: AsRef<str>>(ids: &[T]) -> Value {
    ids.iter().map(|id| reference(id.as_ref())).collect()
}
