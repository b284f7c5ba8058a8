//! Recorded tables of fractal-server: inputs and outputs of its pure functions.

use std::ops::Index;
use std::path::Path;

use crate::json::{DuplicateKeys, Map, Value, parse_json};

/// A row of a table.
#[derive(Debug)]
pub(super) struct Row(Map<String, Value>);

impl Row {
    /// Returns the value of a key that is a string.
    pub(super) fn text(&self, key: &str) -> &str {
        self[key].as_str().expect("a string")
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Returns true if fractal-server gave a result.
    pub(super) fn is_accepted(&self) -> bool {
        self.0.contains_key("ok")
    }
}

impl Index<&str> for Row {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }
}

/// Calls `check` with each row of a table. Panics if there is none.
pub(super) fn each_row(table: &str, mut check: impl FnMut(&Row)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal-v2/tables");
    let text = std::fs::read(folder.join(table).with_extension("json")).expect("a table");
    let rows = parse_json(&text, DuplicateKeys::LastWins).expect("JSON");
    let rows = rows.as_array().expect("an array");
    assert!(!rows.is_empty());
    for row in rows {
        check(&Row(row.as_object().expect("an object").clone()));
    }
}
