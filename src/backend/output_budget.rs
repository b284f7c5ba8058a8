//! A bound on all outputs of a run together, whichever of its tasks they are from: they stay in
//! memory until the end.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::json::{Map, Value};

/// Least bytes that a value counts, and that an object counts in addition: in memory both take much
/// more than the two bytes of their shortest text.
const VALUE_BYTES: u64 = 64;
const OBJECT_BYTES: u64 = 512;

/// Bytes of all outputs of a run together, with their limit.
#[derive(Debug)]
pub(crate) struct OutputBudget {
    limit_bytes: u64,
    bytes: AtomicU64,
}

/// An output for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) limit_bytes: u64,
    /// Bytes of all outputs together with this one.
    pub(crate) asked_bytes: u64,
}

impl OutputBudget {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Counts an output, if there is room for it.
    ///
    /// * `text_bytes`: bytes of its text.
    pub(crate) fn take(
        &self,
        text_bytes: usize,
        output: &Map<String, Value>,
    ) -> Result<(), NoRoom> {
        self.take_bytes(object_bytes(output).max(text_bytes as u64))
    }

    /// Counts an output whose text is on another machine, if there is room for it.
    pub(crate) fn take_counted(&self, output: &Map<String, Value>) -> Result<(), NoRoom> {
        self.take_bytes(counted_bytes(output))
    }

    fn take_bytes(&self, n_bytes: u64) -> Result<(), NoRoom> {
        let has_room = |sum: &u64| *sum <= self.limit_bytes;
        let add = |sum: u64| Some(sum.saturating_add(n_bytes)).filter(has_room);
        match self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        {
            Ok(_) => Ok(()),
            Err(sum) => Err(NoRoom {
                limit_bytes: self.limit_bytes,
                asked_bytes: sum.saturating_add(n_bytes),
            }),
        }
    }

    /// Counts the output of a reused result, even if there is no room for it.
    pub(crate) fn add(&self, output: &Map<String, Value>) {
        self.bytes
            .fetch_add(counted_bytes(output), Ordering::Relaxed);
    }
}

/// Bytes of an output: those of its text, or more.
fn counted_bytes(output: &Map<String, Value>) -> u64 {
    let mut text = Length(0);
    // Nothing is written that could fail.
    let _ = serde_json::to_writer(&mut text, output);
    object_bytes(output).max(text.0)
}

fn object_bytes(map: &Map<String, Value>) -> u64 {
    OBJECT_BYTES + map.values().map(value_bytes).sum::<u64>()
}

fn value_bytes(value: &Value) -> u64 {
    VALUE_BYTES
        + match value {
            Value::Array(items) => items.iter().map(value_bytes).sum(),
            Value::Object(map) => object_bytes(map),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
}

/// The length of what is written.
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn outputs_fit_up_to_the_limit() {
        let budget = OutputBudget::new(2000);
        let short = object(json!({ "a": [0] }));
        assert_eq!(budget.take(1000, &short), Ok(()));
        assert_eq!(
            budget.take(1001, &short),
            Err(NoRoom {
                limit_bytes: 2000,
                asked_bytes: 2001
            })
        );
        // Its values count 64 bytes each, and the object 512.
        assert_eq!(budget.take(9, &short), Ok(()));
        assert_eq!(
            budget.take(9, &short),
            Err(NoRoom {
                limit_bytes: 2000,
                asked_bytes: 1000 + 2 * (512 + 2 * 64)
            })
        );
    }

    #[test]
    fn reused_outputs_count_as_new_ones() {
        for output in [
            json!({ "a": [0, 1, {}], "b": "x" }),
            json!({ "a": "x".repeat(1000) }),
        ] {
            let (new, kept) = (OutputBudget::new(10_000), OutputBudget::new(10_000));
            new.take(output.to_string().len(), &object(output.clone()))
                .expect("room");
            kept.add(&object(output));
            assert_eq!(new.bytes.into_inner(), kept.bytes.into_inner());
        }
    }
}
