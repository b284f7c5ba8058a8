//! The new metadata, built from metadiffs. Pure.

use crate::json::{Map, Value};

/// Updates metadata with a single task's metadiff, shallowly: a key is replaced as a whole, and
/// none is ever removed.
///
/// Source: conformance rule 49, from fractal-server's `call_single_task`.
pub(super) fn update(metadata: &mut Map<String, Value>, metadiff: Map<String, Value>) {
    metadata.extend(metadiff);
}

/// Merges the metadiffs of a parallel task: each key gets the list of its values in component
/// order, regardless of the order in which calls ended. A call without a metadiff adds nothing.
///
/// * `metadiffs`: each with the index of its call.
///
/// Source: conformance rule 57, from fractal-server's `call_parallel_task`.
pub(super) fn aggregate(mut metadiffs: Vec<(usize, Map<String, Value>)>) -> Map<String, Value> {
    metadiffs.sort_by_key(|(call_index, _)| *call_index);
    let mut lists: Map<String, Value> = Map::new();
    for (key, value) in metadiffs.into_iter().flat_map(|(_, metadiff)| metadiff) {
        match lists.get_mut(&key) {
            Some(Value::Array(list)) => list.push(value),
            _ => {
                lists.insert(key, Value::Array(vec![value]));
            }
        }
    }
    lists
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
        let metadiffs = vec![
            (2, object(json!({"v": 2, "w": null}))),
            (0, object(json!({"v": 0}))),
            (1, Map::new()),
        ];
        assert_eq!(
            Value::Object(aggregate(metadiffs)),
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
                let metadiffs = order.iter().map(|index| (*index, metadiff(values[*index])));
                aggregate(metadiffs.collect())
            };
            let in_order: Vec<_> = (0..values.len()).collect();
            let mut shuffled = in_order.clone();
            shuffled.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(together(&in_order), together(&shuffled));
        }
    }
}
