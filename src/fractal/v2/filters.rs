//! Selection of the images that a task gets: by types, attributes and statuses.

use std::collections::BTreeMap;

use super::image::{Image, Types, read_types, trimmed_entries};
use crate::json::{Number, Value};
use crate::model::WEAKENED;
use crate::problem::{Cursor, Problems};

/// Key in attribute filters that selects by status instead.
///
/// Source: conformance rule V50.
pub const STATUS_KEY: &str = "__wftask_dataset_image_status__";

/// Filters of a run, which hold for all tasks that get images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Types at the start of the run. Tasks change them.
    pub types: Types,
    /// Accepted values of each attribute.
    pub attributes: AttributeFilters,
    /// Accepted statuses for the first task that gets images; `None`: all.
    pub statuses: Option<Vec<String>>,
}

impl Filters {
    /// Reads `type_filters` and `attribute_filters`.
    ///
    /// Source: conformance rules V30, V31 and V50.
    pub fn read(
        types: Option<&Cursor<'_>>,
        attributes: Option<&Cursor<'_>>,
        problems: &mut Problems,
    ) -> Self {
        let types = types
            .and_then(|types| read_types(types, problems))
            .unwrap_or_default();
        let mut attributes = attributes
            .and_then(|filters| AttributeFilters::read(filters, problems))
            .unwrap_or_default();
        let statuses = attributes.0.remove(STATUS_KEY).map(|statuses| {
            let texts = statuses.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        });
        Self {
            types,
            attributes,
            statuses,
        }
    }
}

/// Accepted values of attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeFilters(pub BTreeMap<String, Vec<Value>>);

impl AttributeFilters {
    /// Reads filters: a list of values of one kind for each attribute.
    ///
    /// Source: conformance rule V31.
    pub fn read(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let mut filters = BTreeMap::new();
        for (key, list) in trimmed_entries(cursor, problems)? {
            let values = list.items(problems);
            if list.value.as_array().is_some_and(Vec::is_empty) {
                problems.add(list.location(), "must list one value or more");
            }
            let first = values.first().map(|value| value_kind(value.value));
            for value in &values {
                match value_kind(value.value) {
                    None => value.wrong_type("a number, a string or a boolean", problems),
                    kind if Some(kind) != first => {
                        let text = "must be of the same kind as the first value (`1` and `1.0` \
                                    are two kinds)";
                        problems.add(value.location(), text);
                    }
                    Some(_) => {}
                }
            }
            let values = values.into_iter().map(|value| value.value.clone());
            filters.insert(key, values.collect());
        }
        Some(Self(filters))
    }

    /// Returns true if an image has each of the attributes, with an accepted value.
    ///
    /// Source: conformance rule V46.
    pub fn match_image(&self, image: &Image) -> bool {
        WEAKENED
            || self.0.iter().all(|(key, accepted)| {
                let value = image.attributes.get(key);
                value.is_some_and(|value| accepted.iter().any(|other| are_equal(value, other)))
            })
    }
}

/// Returns true if an image has the types; one that it lacks counts as false.
///
/// Source: conformance rule V45.
pub fn match_types(filters: &Types, image: &Image) -> bool {
    let has = |key| image.types.get(key).copied().unwrap_or(false);
    WEAKENED || filters.iter().all(|(key, is_set)| has(key) == *is_set)
}

/// Merges the input types of a task with the type filters of a workflow task.
///
/// # Errors
/// The first key with two values.
///
/// Source: conformance rule V20.
pub fn merge_type_filters(input_types: &Types, type_filters: &Types) -> Result<Types, String> {
    let mut merged = input_types.clone();
    for (key, is_set) in type_filters {
        if *merged.entry(key.clone()).or_insert(*is_set) != *is_set {
            return Err(key.clone());
        }
    }
    Ok(merged)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    Integer,
    Float,
    Text,
    Bool,
}

fn value_kind(value: &Value) -> Option<ValueKind> {
    match value {
        Value::Number(number) if is_integer(number) => Some(ValueKind::Integer),
        Value::Number(_) => Some(ValueKind::Float),
        Value::String(_) => Some(ValueKind::Text),
        Value::Bool(_) => Some(ValueKind::Bool),
        _ => None,
    }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

/// Compares two values as Python does: `1`, `1.0` and `true` are equal.
fn are_equal(a: &Value, b: &Value) -> bool {
    let as_number = |value: &Value| match value {
        Value::Bool(is_set) => Some(Number::from(u8::from(*is_set))),
        Value::Number(number) => Some(number.clone()),
        _ => None,
    };
    match (as_number(a), as_number(b)) {
        (Some(a), Some(b)) if a == b => true,
        // Two large integers can be different, and the same as floats.
        (Some(a), Some(b)) if is_integer(&a) && is_integer(&b) => {
            a.as_i128().is_some() && a.as_i128() == b.as_i128()
        }
        (Some(a), Some(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::fractal::v2::image::ImageSource;
    use crate::fractal::v2::tables::{Row, each_row};

    fn read<T>(value: &Value, read: impl FnOnce(&Cursor<'_>, &mut Problems) -> T) -> Option<T> {
        let mut problems = Problems::default();
        let value = read(&Cursor::new(Path::new(""), value), &mut problems);
        problems.is_empty().then_some(value)
    }

    fn types(value: &Value) -> Types {
        read(value, read_types).flatten().expect("types")
    }

    // Source: conformance rule V31.
    #[test]
    fn attribute_filters_are_checked() {
        each_row("attribute_filters", |row: &Row| {
            let filters = read(&row["in"], AttributeFilters::read).flatten();
            let filters = filters.map(|filters| json!(filters.0));
            assert_eq!(filters.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: conformance rules V45 and V46.
    #[test]
    fn images_match_filters() {
        each_row("match_filter", |row: &Row| {
            let image = read(&row["image"], |cursor, problems| {
                Image::read(cursor, ImageSource::Dataset, problems)
            });
            let image = image.flatten().expect("an image");
            let filters = read(&row["attribute_filters"], AttributeFilters::read);
            let filters = filters.flatten().expect("filters");
            let is_match =
                match_types(&types(&row["type_filters"]), &image) && filters.match_image(&image);
            assert_eq!(Some(is_match), row["ok"].as_bool(), "{row:?}");
        });
    }

    // Source: conformance rule V20.
    #[test]
    fn type_filters_may_not_contradict_input_types() {
        each_row("merge_type_filters", |row: &Row| {
            let merged =
                merge_type_filters(&types(&row["input_types"]), &types(&row["type_filters"]));
            let merged = merged.ok().map(|types| json!(types));
            assert_eq!(merged.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: conformance rule V30.
    #[test]
    fn filters_of_jobs_are_checked() {
        each_row("job_create", |row: &Row| {
            let value = &row["in"];
            if value.get("type_filters").is_none() && value.get("attribute_filters").is_none() {
                return;
            }
            let filters = read(value, |cursor, problems| {
                let types = cursor.get("type_filters");
                let attributes = cursor.get("attribute_filters");
                Filters::read(types.as_ref(), attributes.as_ref(), problems)
            });
            let types = filters.map(|filters| json!(filters.types));
            let expected = row.get("ok").map(|ok| ok["type_filters"].clone());
            assert_eq!(types, expected, "{row:?}");
        });
    }
}
