//! Mismatches between a value and a schema, in sentences for the user.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;

use crate::json::Value;
use crate::problem::pointer_to;
use crate::text::wording::{did_you_mean, shortened};

/// A part of a value that does not match the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// JSON pointer of the part.
    pub(crate) pointer: String,
    /// Description of the mismatch.
    pub(crate) text: String,
    /// JSON pointer of a required member that the part lacks.
    pub(crate) missing: Option<String>,
}

impl Mismatch {
    /// Creates the mismatch that a validator has found.
    ///
    /// * `schema`: schema of the validator, for the names in it.
    pub(crate) fn new(err: &ValidationError<'_>, schema: &Value) -> Self {
        let pointer = err.instance_path().to_string();
        match err.kind() {
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                match meant(err, context) {
                    Some(inner) => Self::new(inner, schema),
                    None => Self {
                        text: alternatives_text(err, context),
                        pointer,
                        missing: None,
                    },
                }
            }
            Kind::AdditionalProperties { unexpected }
            | Kind::UnevaluatedProperties { unexpected } => {
                let known = known_names(err, schema);
                let meant = unexpected
                    .iter()
                    .map(|name| did_you_mean(name, known.iter().copied()));
                let text = sentence(err)
                    + &shortened(meant.take(MAX_NAMES).collect::<String>(), MAX_CHARS);
                Self {
                    pointer,
                    text,
                    missing: None,
                }
            }
            Kind::Required { property } => {
                let missing = property.as_str().map(|name| pointer_to(&pointer, name));
                Self {
                    text: sentence(err),
                    pointer,
                    missing,
                }
            }
            _ => Self {
                text: sentence(err),
                pointer,
                missing: None,
            },
        }
    }
}

/// Maximum length of a sentence, in characters.
const MAX_CHARS: usize = 300;
/// Maximum length of a value in a sentence, in characters. Longer values would displace the
/// problem.
const MAX_VALUE_CHARS: usize = 60;
/// Maximum number of unexpected names that are compared with the known ones.
const MAX_NAMES: usize = 20;

/// Returns the validator's own sentence, with long values shortened.
fn sentence(err: &ValidationError<'_>) -> String {
    let value = shortened(err.instance(), MAX_VALUE_CHARS);
    shortened(err.masked_with(value), MAX_CHARS)
}

/// Returns the only error to report if a value is clearly meant for one of several alternatives.
/// The other alternatives require another type of value, or another constant in it (the tag of a
/// tagged union).
fn meant<'c>(
    err: &ValidationError<'_>,
    context: &'c [Vec<ValidationError<'static>>],
) -> Option<&'c ValidationError<'static>> {
    let is_other = |inner: &ValidationError<'_>| match inner.kind() {
        Kind::Type { .. } => inner.instance_path() == err.instance_path(),
        Kind::Constant { .. } | Kind::Enum { .. } => true,
        _ => false,
    };
    let mut candidates = context.iter().filter(|branch| !branch.iter().any(is_other));
    match (candidates.next(), candidates.next()) {
        (Some(branch), None) => branch.first(),
        _ => None,
    }
}

/// Describes the mismatch with each alternative, in a sentence.
fn alternatives_text(
    err: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
) -> String {
    /// Maximum number of alternatives, and of characters for each.
    const SHOWN: usize = 6;
    const CHARS: usize = 100;
    let mut texts: Vec<String> = Vec::new();
    for inner in context.iter().filter_map(|branch| branch.first()) {
        let below = inner
            .instance_path()
            .as_str()
            .strip_prefix(err.instance_path().as_str())
            .unwrap_or_default();
        let subject = if below.is_empty() {
            "it".to_owned()
        } else {
            format!("`{below}`")
        };
        let text = shortened(inner.masked_with(subject), CHARS);
        if !texts.contains(&text) {
            texts.push(text);
        }
        if texts.len() > SHOWN {
            texts[SHOWN] = "...".to_owned();
            break;
        }
    }
    let value = shortened(err.instance(), MAX_VALUE_CHARS);
    format!(
        "{value} matches none of {} alternatives: {}",
        context.len(),
        texts.join("; ")
    )
}

/// Returns the names that the schema next to an error has, except for those that are given.
fn known_names<'s>(err: &ValidationError<'_>, schema: &'s Value) -> Vec<&'s str> {
    let schema_path = err.schema_path().as_str();
    let parent = schema_path
        .rsplit_once('/')
        .and_then(|(parent, _)| schema.pointer(parent));
    let properties = parent
        .and_then(|parent| parent.get("properties"))
        .and_then(Value::as_object);
    let names = properties
        .into_iter()
        .flat_map(|properties| properties.keys());
    names
        .filter(|name| err.instance().get(name.as_str()).is_none())
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: &Value, value: &Value, expected: &[(&str, &str)]) {
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft7)
            .build(schema)
            .expect("a schema");
        let found: Vec<_> = validator
            .iter_errors(value)
            .map(|err| Mismatch::new(&err, schema))
            .collect();
        let found: Vec<_> = found
            .iter()
            .map(|mismatch| (&*mismatch.pointer, &*mismatch.text))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn unions_list_their_alternatives() {
        let union = json!({ "properties": { "x": { "anyOf": [{ "type": "integer" }, { "type": "null" }, { "enum": ["a", "b"] }] } } });
        let text = "\"y\" matches none of 3 alternatives: it is not of type \"integer\"; it is not \
            of type \"null\"; it is not one of \"a\" or \"b\"";
        check(&union, &json!({ "x": "y" }), &[("/x", text)]);
        let long = json!({ "x": "y".repeat(10_000) });
        let validator = jsonschema::validator_for(&union).expect("a schema");
        let err = validator.iter_errors(&long).next().expect("an error");
        assert!(Mismatch::new(&err, &union).text.len() < 400);
    }

    #[test]
    fn only_the_alternative_that_is_meant_is_reported() {
        let tagged = |tag: &str| json!({ "properties": { "type": { "const": tag }, "n": { "type": "integer" } }, "required": ["type"] });
        let union = json!({ "oneOf": [tagged("a"), tagged("b")] });
        check(
            &union,
            &json!({ "type": "b", "n": "x" }),
            &[("/n", "\"x\" is not of type \"integer\"")],
        );
        let optional = json!({ "properties": { "x": { "anyOf": [{ "items": { "type": "integer" }, "type": "array" }, { "type": "null" }] } } });
        check(
            &optional,
            &json!({ "x": [1, "y"] }),
            &[("/x/1", "\"y\" is not of type \"integer\"")],
        );
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest_one() {
        let schema = json!({
            "definitions": { "Window": { "properties": { "start": {}, "end": {} }, "additionalProperties": false } },
            "properties": { "num_levels": {}, "window": { "$ref": "#/definitions/Window" } },
            "additionalProperties": false,
        });
        let text = |name: &str, more: &str| {
            format!("Additional properties are not allowed ('{name}' was unexpected){more}")
        };
        check(
            &schema,
            &json!({ "num_level": 1 }),
            &[("", &text("num_level", "; did you mean `num_levels`?"))],
        );
        check(
            &schema,
            &json!({ "executor": 1 }),
            &[("", &text("executor", ""))],
        );
        check(
            &schema,
            &json!({ "window": { "strat": 1 } }),
            &[("/window", &text("strat", "; did you mean `start`?"))],
        );
    }
}
