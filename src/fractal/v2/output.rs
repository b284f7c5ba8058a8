//! Outputs of calls: their shape, and the outputs of a task joined.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::image::{Image, ImageSource, read_url};
use crate::json::{Map, Value, type_name};
use crate::model::WEAKENED;
use crate::problem::{Cursor, Location, Problems};
use crate::text::wording::shortened;

const UPDATES: &str = "image_list_updates";
const REMOVALS: &str = "image_list_removals";
pub(super) const ITEMS: &str = "parallelization_list";

/// Problems of an output that a message names; others are counted.
const MAX_SHOWN: usize = 5;
/// Characters of each of them.
const MAX_SHOWN_CHARS: usize = 300;

/// Output of a call: changes of the image list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskOutput {
    /// Images to add or to change.
    pub image_list_updates: Vec<Image>,
    /// URLs of images to remove.
    pub image_list_removals: Vec<String>,
}

/// Output of a call, with the index of the call.
pub type CallOutput = (usize, TaskOutput);

impl TaskOutput {
    /// Parses the output of a call that changes the image list.
    ///
    /// # Errors
    /// A text that names the problems, not escaped.
    ///
    /// Source: conformance rules V61 and V62, defects W16 and W17.
    pub fn parse(output: &Value) -> Result<Self, String> {
        checked(output, |output, problems| {
            known_keys(output, &[UPDATES, REMOVALS], problems);
            let updates = list(output, UPDATES, problems);
            let updates = updates
                .iter()
                .filter_map(|image| Image::read(image, ImageSource::Output, problems))
                .collect();
            let removals = list(output, REMOVALS, problems);
            let removals = removals.iter().filter_map(|url| read_url(url, problems));
            let removals = removals.collect();
            Self {
                image_list_updates: updates,
                image_list_removals: removals,
            }
        })
    }

    /// Returns true if this output changes nothing.
    pub fn is_empty(&self) -> bool {
        self.image_list_updates.is_empty() && self.image_list_removals.is_empty()
    }
}

/// Item of the list that the first call of a compound task returns: one call of the second batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ParallelItem {
    /// Normalized URL, which need not be that of an image.
    pub zarr_url: String,
    /// Arguments of the call.
    pub init_args: Map<String, Value>,
}

/// Parses the output of the first call of a compound task. Of equal items, the first is kept.
///
/// # Errors
/// A text that names the problems, not escaped.
///
/// Source: conformance rules V38 and V39, defect W9.
pub fn parse_init_output(output: &Value) -> Result<Vec<ParallelItem>, String> {
    let items = checked(output, |output, problems| {
        known_keys(output, &[ITEMS], problems);
        let items = list(output, ITEMS, problems);
        let items = items.iter().filter_map(|item| read_item(item, problems));
        items.collect::<Vec<_>>()
    })?;
    let is_first: Vec<_> = {
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().map(|item| seen.insert(item)).collect()
    };
    let items = items.into_iter().zip(is_first);
    Ok(items
        .filter_map(|(item, is_first)| is_first.then_some(item))
        .collect())
}

fn read_item(item: &Cursor<'_>, problems: &mut Problems) -> Option<ParallelItem> {
    item.object(problems)?;
    known_keys(item, &["zarr_url", "init_args"], problems);
    let zarr_url = item.require("zarr_url", problems)?;
    let zarr_url = read_url(&zarr_url, problems);
    let init_args = match item.get("init_args") {
        Some(args) => args.object(problems)?.clone(),
        None => Map::new(),
    };
    Some(ParallelItem {
        zarr_url: zarr_url?,
        init_args,
    })
}

fn list<'a>(output: &Cursor<'a>, key: &str, problems: &mut Problems) -> Vec<Cursor<'a>> {
    let list = output.get(key);
    list.map(|list| list.items(problems)).unwrap_or_default()
}

fn known_keys(object: &Cursor<'_>, known: &[&str], problems: &mut Problems) {
    let keys = object.value.as_object().into_iter().flat_map(Map::keys);
    for key in keys.filter(|key| !known.contains(&key.as_str())) {
        let text = format!("unknown key; known here: {}", known.join(", "));
        problems.add(object.location_of(key), text);
    }
}

/// Reads an object, and turns the problems into one text.
fn checked<T>(
    output: &Value,
    read: impl FnOnce(&Cursor<'_>, &mut Problems) -> T,
) -> Result<T, String> {
    if !output.is_object() {
        return Err(format!(
            "must be a JSON object or null, not {}",
            type_name(output)
        ));
    }
    let mut problems = Problems::default();
    let value = read(&Cursor::new(Path::new(""), output), &mut problems);
    if has_nul(output) {
        let text = "must not contain NUL, which no Fractal server can store";
        problems.add(Location::Parameter("a string".to_owned()), text);
    }
    if problems.is_empty() {
        return Ok(value);
    }
    let shown = problems.iter().take(MAX_SHOWN).map(|problem| {
        let location = match &problem.location {
            Location::Pointer { pointer, .. } if pointer.is_empty() => "the output".to_owned(),
            Location::Pointer { pointer, .. } => pointer.trim_start_matches('/').to_owned(),
            other => other.to_string(),
        };
        shortened(
            format_args!("{location} {}", problem.message),
            MAX_SHOWN_CHARS,
        )
    });
    let mut text = shown.collect::<Vec<_>>().join("; ");
    if problems.len() > MAX_SHOWN {
        text.push_str(&format!("; {} more", problems.len() - MAX_SHOWN));
    }
    Err(format!("validation of the task output failed: {text}"))
}

/// Returns true if a key or a string of a value contains NUL.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A URL that the outputs of a task name more than once, with different changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The URL.
    pub zarr_url: String,
    /// Indices of two calls that name it, which can be the same.
    pub calls: (usize, usize),
}

/// Joins the outputs of the calls of a task, in the order of the calls. Equal updates count once,
/// and so do equal removals.
///
/// # Errors
/// The first URL with two different changes.
///
/// Source: conformance rules V66 and V67, defects W9 and W22.
pub fn join_outputs(mut outputs: Vec<CallOutput>) -> Result<TaskOutput, Conflict> {
    outputs.sort_by_key(|(call_index, _)| *call_index);
    let mut joined = TaskOutput::default();
    // Of each URL: the call that names it, and the position of its update; `None`: a removal.
    let mut changes: HashMap<String, (usize, Option<usize>)> = HashMap::new();
    let mut removals = Vec::new();
    for (call_index, output) in outputs {
        for update in output.image_list_updates {
            match changes.get(&update.zarr_url) {
                Some((_, Some(position))) if joined.image_list_updates[*position] == update => {}
                Some(_) if WEAKENED => {}
                Some((other, _)) => return Err(conflict(update.zarr_url, *other, call_index)),
                None => {
                    let position = joined.image_list_updates.len();
                    changes.insert(update.zarr_url.clone(), (call_index, Some(position)));
                    joined.image_list_updates.push(update);
                }
            }
        }
        let urls = output.image_list_removals.into_iter();
        removals.extend(urls.map(|url| (call_index, url)));
    }
    for (call_index, url) in removals {
        match changes.get(&url) {
            Some((_, None)) => {}
            Some((other, Some(_))) => return Err(conflict(url, *other, call_index)),
            None => {
                changes.insert(url.clone(), (call_index, None));
                joined.image_list_removals.push(url);
            }
        }
    }
    Ok(joined)
}

fn conflict(zarr_url: String, first: usize, second: usize) -> Conflict {
    Conflict {
        zarr_url,
        calls: (first.min(second), first.max(second)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};

    // Source: conformance rule V61.
    #[test]
    fn outputs_are_fractals() {
        each_row("task_output", |row: &Row| {
            let output = TaskOutput::parse(&row["in"])
                .ok()
                .map(|output| json!(output));
            assert_eq!(output.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: conformance rules V38 and V39.
    #[test]
    fn lists_of_items_are_fractals() {
        each_row("init_task_output", |row: &Row| {
            let items = parse_init_output(&row["in"]).ok();
            let items = items.map(|items| json!({ ITEMS: items }));
            assert_eq!(items.as_ref(), row.get("ok"), "{row:?}");
        });
        each_row("dedup_init", |row: &Row| {
            let items = parse_init_output(&json!({ ITEMS: row["in"] })).ok();
            let items = items.map(|items| json!(items));
            assert_eq!(items.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: defect W9.
    #[test]
    fn items_are_compared_as_json() {
        let item = |value: Value| json!({"zarr_url": "/a", "init_args": {"x": value}});
        let list = [
            item(json!(1)),
            item(json!(1.0)),
            item(json!(true)),
            item(json!(1)),
        ];
        let items = parse_init_output(&json!({ ITEMS: list })).expect("valid");
        assert_eq!(items.len(), 3);
    }

    // Source: conformance rules V66 and V67.
    #[test]
    fn outputs_are_joined() {
        each_row("merge_outputs", |row: &Row| {
            let outputs = row["in"].as_array().expect("a list").iter().enumerate();
            let outputs = outputs.map(|(call_index, output)| {
                (call_index, TaskOutput::parse(output).expect("valid"))
            });
            let joined = join_outputs(outputs.collect()).ok().map(|mut output| {
                output.image_list_removals.sort();
                json!(output)
            });
            assert_eq!(joined.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    #[test]
    fn messages_name_the_problems_and_stay_short() {
        let images = vec![json!({"zarr_url": "a"}); 10];
        let message = TaskOutput::parse(&json!({ UPDATES: images })).expect_err("invalid");
        assert!(
            message.contains("image_list_updates/0/zarr_url must begin with `/`"),
            "{message}"
        );
        assert!(message.ends_with("; 5 more"), "{message}");
        let message = TaskOutput::parse(&json!([1])).expect_err("invalid");
        assert_eq!(message, "must be a JSON object or null, not an array");
        // Source: defect W17.
        let nul = json!({ UPDATES: [{"zarr_url": "/a", "attributes": {"k": "\0"}}] });
        assert!(TaskOutput::parse(&nul).is_err());
    }
}
