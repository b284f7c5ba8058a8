//! Validation of the args of many calls of one task.
//!
//! A validator can require any time and any stack, and cannot be interrupted. So [`check_args`]
//! runs it on a thread of its own, which costs more than a short call. Most schemas have only
//! keywords whose work is bounded by the sizes of schema and args, without references and patterns.
//! Those are compiled once, and args that match are found to do so on the calling thread.

use std::path::PathBuf;

use jsonschema::Validator;

use super::schema::{ArgsSchema, SchemaBudget, check_args, compiled};
use crate::json::{Map, Value};
use crate::problem::{Location, Problems};

/// Keywords of schemas that are checked on the calling thread. None refers to another part of the
/// schema, matches a pattern, or compares values of the args with each other.
const BOUNDED_KEYWORDS: [&str; 27] = [
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "default",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "properties",
    "required",
    "title",
    "type",
    "writeOnly",
];

/// Schema of the args of a task, for many calls.
pub(crate) struct CallCheck {
    schema: Value,
    task: String,
    file: PathBuf,
    pointer: String,
    reserved: &'static [&'static str],
    /// Validator whose work is bounded; `None`: that of the schema is not.
    validator: Option<Validator>,
}

impl CallCheck {
    /// Creates the check.
    ///
    /// * `schema`: was checked with [`super::schema::check_defaults`].
    /// * `reserved`: names of arguments that the runner fills in.
    pub(crate) fn new(schema: &ArgsSchema<'_>, reserved: &'static [&'static str]) -> Self {
        let validator = is_bounded(schema.schema).then(|| compiled(schema));
        Self {
            schema: schema.schema.clone(),
            task: schema.task.to_owned(),
            file: schema.file.to_owned(),
            pointer: schema.pointer.clone(),
            reserved,
            validator: validator.flatten(),
        }
    }

    /// Validates the args of a call like [`check_args`].
    ///
    /// # Errors
    /// A message for the user that names the first args that do not match.
    pub(crate) fn check(&self, args: &Map<String, Value>) -> Result<(), String> {
        let own = args
            .iter()
            .filter(|(name, _)| !self.reserved.contains(&name.as_str()));
        let own: Map<_, _> = own
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let own = Value::Object(own);
        if let Some(validator) = &self.validator
            && validator.is_valid(&own)
        {
            return Ok(());
        }
        let schema = ArgsSchema {
            schema: &self.schema,
            task: &self.task,
            file: &self.file,
            pointer: self.pointer.clone(),
            reserved: self.reserved,
        };
        let location = |at: &str| Location::Parameter(format!("`args`{at}"));
        let (mut budget, mut problems) = (SchemaBudget::default(), Problems::default());
        check_args(&schema, args, location, &mut budget, &mut problems);
        match problems.iter().next() {
            None => Ok(()),
            Some(problem) => Err(format!("{}: {}", problem.location, problem.message)),
        }
    }
}

/// Returns true if a schema has only keywords of [`BOUNDED_KEYWORDS`].
fn is_bounded(schema: &Value) -> bool {
    let Value::Object(keywords) = schema else {
        return schema.is_boolean();
    };
    keywords.iter().all(|(keyword, value)| {
        let is_known = BOUNDED_KEYWORDS.contains(&keyword.as_str());
        let are_inner_bounded = match (keyword.as_str(), value) {
            ("properties", Value::Object(inner)) => inner.values().all(is_bounded),
            ("allOf" | "anyOf" | "oneOf" | "items", Value::Array(inner)) => {
                inner.iter().all(is_bounded)
            }
            ("additionalProperties" | "items" | "not", inner) => is_bounded(inner),
            _ => true,
        };
        is_known && are_inner_bounded
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn check(schema: &Value, args: &Value, expected: Result<(), &str>) {
        let schema = ArgsSchema {
            schema,
            task: "t",
            file: Path::new("t.wasm"),
            pointer: String::new(),
            reserved: &["component"],
        };
        let check = CallCheck::new(&schema, &["component"]);
        let result = check.check(args.as_object().expect("an object"));
        match (result, expected) {
            (Ok(()), Ok(())) => {}
            (Err(text), Err(expected)) => assert!(text.contains(expected), "{text}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn args_of_calls_are_checked_as_those_of_a_run() {
        let number = json!({
            "type": "object",
            "properties": { "n": { "type": "integer", "minimum": 1 }, "s": { "type": "string" } },
            "required": ["n"],
            "additionalProperties": false
        });
        let mut referring = number.clone();
        referring["properties"]["n"] = json!({ "$ref": "#/definitions/n" });
        referring["definitions"] = json!({ "n": { "type": "integer", "minimum": 1 } });
        for schema in [number, referring] {
            check(&schema, &json!({ "n": 1, "component": [] }), Ok(()));
            check(&schema, &json!({ "n": 1, "s": null }), Ok(()));
            check(&schema, &json!({ "n": 0 }), Err("`args`/n: does not match"));
            check(&schema, &json!({}), Err("does not match"));
            check(&schema, &json!({ "n": 1, "m": 1 }), Err("does not match"));
        }
    }

    #[test]
    fn schemas_are_bounded_without_references_and_patterns() {
        let any_of = json!({ "anyOf": [{ "type": "null" }, { "items": { "enum": [1] } }, true] });
        assert!(is_bounded(&any_of));
        for unbounded in [
            json!({ "$ref": "#" }),
            json!({ "properties": { "a": { "pattern": "a" } } }),
            json!({ "items": { "uniqueItems": true } }),
            json!({ "anyOf": [{ "additionalProperties": { "if": true } }] }),
            json!({ "format": "regex" }),
        ] {
            assert!(!is_bounded(&unbounded), "{unbounded}");
        }
    }
}
