//! Fields of an event, taken from a parsed line one by one.

use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use crate::json::{Entries, Map, Value, type_name};

/// The keys of an event that were not taken yet. There are so few that a linear search is faster
/// than a table.
pub(super) struct Fields<'l>(pub(super) Entries<'l>);

impl Fields<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        let index = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Takes a required value. Not for values from the user: their numbers would not keep their
    /// text.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, String> {
        let value = self
            .remove(key)
            .ok_or_else(|| format!("missing key `{key}`"))?;
        serde_json::from_value(value).map_err(|err| format!("`{key}`: {err}"))
    }

    /// Takes an optional value; null counts as a missing key.
    pub(super) fn take_optional<T: DeserializeOwned>(
        &mut self,
        key: &str,
    ) -> Result<Option<T>, String> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.take(key).map(Some),
        }
    }

    pub(super) fn take_object_or_null(
        &mut self,
        key: &str,
    ) -> Result<Option<Map<String, Value>>, String> {
        match self.remove(key) {
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(Value::Null) => Ok(None),
            Some(other) => Err(format!(
                "`{key}`: must be an object or null, not {}",
                type_name(&other)
            )),
            None => Err(format!("missing key `{key}`")),
        }
    }

    /// Reads a structure whose fields are flattened into the event.
    pub(super) fn into_all<T: DeserializeOwned>(self) -> Result<T, String> {
        let fields = MapDeserializer::<_, serde_json::Error>::new(self.0.into_iter());
        T::deserialize(fields).map_err(|err| err.to_string())
    }
}
