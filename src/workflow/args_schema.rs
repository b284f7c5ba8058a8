//! `args_schema` of a task: its defaults, and whether args fit it.

use std::collections::HashSet;

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
    let Some(validator) = check_schema(schema, problems) else { return };
    let checked: Map<_, _> = args.iter().filter(|(name, _)| !is_reserved(Some(name))).map(clone_entry).collect();
    let mut said = HashSet::new();
    for err in validator.iter_errors(&Value::Object(checked)) {
        let place = args_place(&err.instance_path().to_string());
        let text = format!("does not fit the task's args_schema: {err}");
        if said.insert((place.to_string(), text.clone())) {
            problems.add(place, text);
        }
    }
}

/// Checks that a schema is one, and makes it ready. What it requires of reserved names is taken out.
pub fn check_schema(schema: &Cursor<'_>, problems: &mut Problems) -> Option<jsonschema::Validator> {
    let mut relaxed = schema.object(problems)?.clone();
    if let Some(Value::Array(required)) = relaxed.get_mut("required") {
        required.retain(|name| !is_reserved(name.as_str()));
        if required.is_empty() {
            // Early drafts ask for one name at least.
            relaxed.shift_remove("required");
        }
    }
    // pydantic v1 writes draft 7 and `definitions`, pydantic v2 2020-12 and `$defs`, and neither says so.
    let draft =
        if relaxed.contains_key("$schema") || relaxed.contains_key("$defs") { None } else { Some(Draft::Draft7) };
    let options = jsonschema::options();
    let options = draft.map_or(options.clone(), |draft| options.with_draft(draft));
    let validator = options.build(&Value::Object(relaxed));
    validator.map_err(|err| problems.add(schema.place(), format!("is no valid JSON Schema: {err}"))).ok()
}

fn is_reserved(name: Option<&str>) -> bool {
    name.is_some_and(|name| RESERVED_ARGUMENTS.contains(&name))
}

fn clone_entry((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}
