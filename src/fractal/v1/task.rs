//! The part of a planned task that only version 1 has.

use super::document::TaskDocument;
use crate::json::{Map, Value, type_name};
use crate::problem::{Cursor, Problems};

/// Names of arguments that the runner fills in.
pub const RESERVED_ARGUMENTS: [&str; 4] = ["input_paths", "output_path", "metadata", ITEM_ARGUMENT];

/// Name of the argument with the component of a call.
pub(crate) const ITEM_ARGUMENT: &str = "component";

/// Returns the effect of a reserved argument that the documents give, as the end of a sentence.
pub(crate) fn reserved_advice(name: &str) -> &'static str {
    match name {
        ITEM_ARGUMENT => ", where the real component takes precedence",
        _ => ", but no other task",
    }
}

/// Arguments of a task, and the list that its calls are for.
#[derive(Clone, Debug, Default)]
pub struct TaskDetails {
    /// Defaults of the schema, overridden by the args that are given.
    pub args: Map<String, Value>,
    /// Key of the metadata that holds the component list; `None`: a single task.
    pub level: Option<String>,
    /// The only metadata keys that the task can see; `None`: all.
    pub metadata_keys: Option<Vec<String>>,
    /// True if args contain the metadata that the task can see. Otherwise a typed task fetches what
    /// it needs.
    pub metadata_in_args: bool,
    /// The workflow task as history items show it, with the args and meta that apply.
    pub workflowtask: Map<String, Value>,
}

/// Returns the facts about a task for a JSON list of tasks.
#[cfg(feature = "cli")]
pub(crate) fn task_facts(task: &crate::model::TaskSpec, details: &TaskDetails) -> Value {
    serde_json::json!({
        "order": task.order,
        "name": task.name,
        "module": task.module.path.to_string_lossy(),
        "module_sha256": task.module.sha256,
        "script": task.script,
        "parallelization_level": details.level,
        "args": details.args,
    })
}

/// Returns the component list of a parallel task.
///
/// # Errors
/// A sentence for the user: the level is not a key of the metadata, or its value is not an array.
pub fn component_list<'a>(
    metadata: &'a Map<String, Value>,
    level: &str,
) -> Result<&'a [Value], String> {
    match metadata.get(level) {
        Some(Value::Array(components)) => Ok(components),
        Some(other) => Err(format!(
            "the component list metadata[\"{level}\"] must be an array, not {}",
            type_name(other)
        )),
        None => {
            let keys: Vec<_> = metadata.keys().map(|key| format!("'{key}'")).collect();
            Err(format!(
                "WorkflowTask parallelization_level ('{level}') is missing in metadata keys ([{}]).",
                keys.join(", ")
            ))
        }
    }
}

/// Checks the list of a task before the run.
///
/// # Errors
/// As for [`component_list`].
pub(crate) fn check_list(metadata: &Map<String, Value>, level: &str) -> Result<(), String> {
    component_list(metadata, level).map(|_| ())
}

/// Returns the workflow task with the args and meta that apply, as in the history.
pub(crate) fn shown_workflow_task(
    raw: &Map<String, Value>,
    order: u64,
    args: &Map<String, Value>,
    meta: &Map<String, Value>,
    from_package: Option<&TaskDocument>,
) -> Map<String, Value> {
    let mut shown = raw.clone();
    if let Some(task) = from_package {
        shown.insert("order".to_owned(), order.into());
        shown.insert("task".to_owned(), Value::Object(task.raw.clone()));
    }
    for (key, value) in [("args", args), ("meta", meta)] {
        // In the full form an empty value is kept as it was written: null, an empty object or
        // missing.
        if !value.is_empty() {
            shown.insert(key.to_owned(), Value::Object(value.clone()));
        } else if from_package.is_some() {
            shown.insert(key.to_owned(), Value::Null);
        }
    }
    shown
}

/// Returns the key of the task's list: the value of `parallelization_level` in the *task's* meta,
/// if Python treats it as true.
///
/// Source: fractal-server 2.9.2, `Task.is_parallel`.
pub(crate) fn list_key(task_meta: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let level = task_meta.get("parallelization_level")?;
    match level.value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(map) if map.is_empty() => None,
        _ => {
            level.wrong_type("a string", problems);
            None
        }
    }
}
