//! Metadiffs → the new metadata; pure.

use crate::json::{Map, Value};

/// Updates metadata with a single task's metadiff, shallowly: a key is replaced whole, nothing is
/// ever removed.
///
/// Source: conformance rule 49, from fractal-server's `call_single_task`.
pub(crate) fn update(metadata: &mut Map<String, Value>, metadiff: Map<String, Value>) {
    metadata.extend(metadiff);
}

/// Metadiffs of a parallel task, put together as they come.
///
/// For each key the list of its values in component order, whatever the order in which calls ended;
/// a call without a metadiff adds nothing.
///
/// Source: conformance rule 57, from fractal-server's `call_parallel_task`.
#[derive(Debug, Default)]
pub(crate) struct Aggregation {
    metadiffs: Vec<(usize, Map<String, Value>)>,
}

impl Aggregation {
    /// Adds the metadiff of one call.
    pub(crate) fn add(&mut self, call_index: usize, metadiff: Map<String, Value>) {
        if !metadiff.is_empty() {
            self.metadiffs.push((call_index, metadiff));
        }
    }

    /// The metadiff of a single task's one call.
    pub(crate) fn into_single(self) -> Option<Map<String, Value>> {
        self.metadiffs
            .into_iter()
            .next()
            .map(|(_, metadiff)| metadiff)
    }

    /// The metadiff of a whole parallel task.
    pub(crate) fn finish(mut self) -> Map<String, Value> {
        self.metadiffs.sort_by_key(|(call_index, _)| *call_index);
        let mut lists: Map<String, Value> = Map::new();
        for (key, value) in self
            .metadiffs
            .into_iter()
            .flat_map(|(_, metadiff)| metadiff)
        {
            match lists.get_mut(&key) {
                Some(Value::Array(list)) => list.push(value),
                _ => {
                    lists.insert(key, Value::Array(vec![value]));
                }
            }
        }
        lists
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn lists_are_in_component_order() {
        let mut aggregation = Aggregation::default();
        aggregation.add(2, object(json!({"v": 2, "w": null})));
        aggregation.add(0, object(json!({"v": 0})));
        aggregation.add(1, Map::new());
        assert_eq!(
            Value::Object(aggregation.finish()),
            json!({"v": [0, 2], "w": [null]})
        );
    }

    #[test]
    fn updates_are_shallow() {
        let mut metadata = object(json!({"a": {"x": 1}, "b": 1}));
        update(
            &mut metadata,
            object(json!({"a": {"y": 2}, "b": null, "c": []})),
        );
        assert_eq!(
            Value::Object(metadata),
            json!({"a": {"y": 2}, "b": null, "c": []})
        );
    }

    proptest! {
        #[test]
        fn order_of_completion_does_not_matter(values in proptest::collection::vec(0_u8..4, 0..20), seed in any::<u64>()) {
            let metadiff = |value: u8| object(json!({ format!("k{}", value % 3): value }));
            let together = |order: &[usize]| {
                let mut aggregation = Aggregation::default();
                for index in order {
                    aggregation.add(*index, metadiff(values[*index]));
                }
                aggregation.finish()
            };
            let in_order: Vec<_> = (0..values.len()).collect();
            let mut shuffled = in_order.clone();
            shuffled.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(together(&in_order), together(&shuffled));
        }
    }
}
