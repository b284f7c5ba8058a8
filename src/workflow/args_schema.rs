//! `args_schema` of a task: its defaults, and whether args fit it.

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use jsonschema::Draft;

use super::problem::{Cursor, Place, Problems};
use crate::json::{Map, Value};

/// Names that the runner fills in itself.
pub const RESERVED_ARGUMENTS: [&str; 4] = ["input_paths", "output_path", "metadata", "component"];

/// The defaults of the top-level properties; a null default counts as none.
///
/// Source: fractal-server 2.9.2, `Task.default_args_from_args_schema`.
pub fn default_args(schema: Option<&Value>) -> Map<String, Value> {
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let defaults = properties.into_iter().flatten().filter_map(|(name, property)| {
        let default = property.get("default").filter(|default| !default.is_null())?;
        Some((name.clone(), default.clone()))
    });
    defaults.collect()
}

/// Validates args against a task's schema. Names that the runner fills in are neither asked for nor refused.
///
/// * `schema`: the schema with its place, for problems of the schema itself.
/// * `args`: defaults and given args together.
/// * `args_place`: the place of a named argument, or of all args.
pub fn check_args(
    schema: &Cursor<'_>,
    args: &Map<String, Value>,
    args_place: impl Fn(&str) -> Place,
    problems: &mut Problems,
) {
    let checked: Map<_, _> = args.iter().filter(|(name, _)| !is_reserved(Some(name))).map(clone_entry).collect();
    let mut said = HashSet::new();
    for (pointer, err) in misfits(schema, Some(Value::Object(checked)), problems) {
        let place = args_place(&pointer);
        let text = format!("does not fit the task's args_schema: {err}");
        if said.insert((place.to_string(), text.clone())) {
            problems.add(place, text);
        }
    }
}

/// Checks that a schema is one, and that its own defaults fit it.
pub fn check_defaults(schema: &Cursor<'_>, problems: &mut Problems) {
    let Some(object) = schema.object(problems) else { return };
    let mut optional = object.clone();
    // What has no default is for the user to give.
    optional.shift_remove("required");
    let (file, pointer) = schema.origin();
    let optional = Value::Object(optional);
    let optional = Cursor::at(&file, pointer.clone(), &optional);
    for (at, err) in misfits(&optional, Some(Value::Object(default_args(Some(schema.value)))), problems) {
        let pointer = match at.strip_prefix('/').map(|at| at.split_once('/').unwrap_or((at, ""))) {
            None => pointer.clone(),
            Some((name, "")) => format!("{pointer}/properties/{name}/default"),
            Some((name, rest)) => format!("{pointer}/properties/{name}/default/{rest}"),
        };
        let place = Place::Pointer { file: file.clone(), pointer };
        problems.add(place, format!("the default does not fit its own schema: {err}"));
    }
}

/// Time that a schema may take. A pattern or a reference of a few characters can ask for years.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of a value does not fit a schema: JSON pointers and texts. Problems of the schema itself go to `problems`.
fn misfits(schema: &Cursor<'_>, value: Option<Value>, problems: &mut Problems) -> Vec<(String, String)> {
    let Some(object) = schema.object(problems) else { return Vec::new() };
    let relaxed = relaxed(object.clone());
    let (send, receive) = channel();
    // Nothing ends a validator: past its time its thread is left to itself.
    let thread = std::thread::Builder::new().name("mandelbox-schema".to_owned()).spawn(move || {
        // Nobody waits any more if the time is over.
        let _ = send.send(validate(relaxed, value));
    });
    let found = match thread {
        Ok(_) => receive.recv_timeout(PATIENCE),
        Err(err) => {
            problems.add(schema.place(), format!("cannot be checked: no thread can be started: {err}"));
            return Vec::new();
        }
    };
    match found {
        Ok(Ok(misfits)) => return misfits,
        Ok(Err(text)) => problems.add(schema.place(), format!("is no valid JSON Schema: {text}")),
        Err(RecvTimeoutError::Timeout) => {
            let text =
                "takes more than 10 s to check: simplify its patterns (repetitions inside repetitions) and references";
            problems.add(schema.place(), text);
        }
        Err(RecvTimeoutError::Disconnected) => {
            problems.add(schema.place(), "cannot be checked: the validator panicked")
        }
    }
    Vec::new()
}

/// The schema without what it requires of reserved names.
fn relaxed(mut schema: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !is_reserved(name.as_str()));
        if required.is_empty() {
            // Early drafts ask for one name at least.
            schema.shift_remove("required");
        }
    }
    schema
}

fn validate(schema: Map<String, Value>, value: Option<Value>) -> Result<Vec<(String, String)>, String> {
    // pydantic v1 writes draft 7 and `definitions`, pydantic v2 2020-12 and `$defs`, and neither says so.
    let draft = if schema.contains_key("$schema") || schema.contains_key("$defs") { None } else { Some(Draft::Draft7) };
    let options = jsonschema::options();
    let options = draft.map_or(options.clone(), |draft| options.with_draft(draft));
    let validator = options.build(&Value::Object(schema)).map_err(|err| err.to_string())?;
    let errors = value.iter().flat_map(|value| validator.iter_errors(value));
    Ok(errors.map(|err| (err.instance_path().to_string(), shortened(&err.to_string()))).collect())
}

/// The start of a text that tells a value of any length.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn is_reserved(name: Option<&str>) -> bool {
    name.is_some_and(|name| RESERVED_ARGUMENTS.contains(&name))
}

fn clone_entry((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}
