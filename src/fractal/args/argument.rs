//! The arguments that an `args_schema` defines, for people and programs that list them.

use std::collections::HashMap;

use serde::Serialize;

use crate::json::Value;
use crate::text::wording::shortened;

/// Maximum length of a type, in characters. A schema can refer to one long type from thousands of
/// properties.
const MAX_TYPE_CHARS: usize = 200;

/// An argument of a task: a top-level property of its schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Argument {
    /// Name of the argument.
    pub name: String,
    /// Type in short form, such as `array of integer`, `string | null` or `"a" | "b"`.
    #[serde(rename = "type")]
    pub type_text: String,
    /// Default value.
    pub default: Option<Value>,
    /// True if it must be given.
    pub required: bool,
    /// True if the runner fills it in.
    pub from_runner: bool,
    /// Title in the schema.
    pub title: Option<String>,
    /// Description in the schema.
    pub description: Option<String>,
}

/// Returns the arguments in the order of the schema; none if it is not the schema of an object.
///
/// * `reserved`: names of arguments that the runner fills in.
pub fn list_arguments(schema: &Value, reserved: &[&str]) -> Vec<Argument> {
    let required: Vec<_> = array(schema, "required")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut types = Types::new(schema);
    let argument = |(name, property)| {
        let (name, property): (&String, &Value) = (name, property);
        let text = |key: &str| property.get(key).and_then(Value::as_str).map(str::to_owned);
        let from_runner = reserved.contains(&name.as_str());
        Argument {
            name: name.clone(),
            type_text: shortened(types.text(property, 0), MAX_TYPE_CHARS),
            default: property.get("default").cloned(),
            required: !from_runner && required.contains(&name.as_str()),
            from_runner,
            title: text("title"),
            description: text("description"),
        }
    };
    properties.into_iter().flatten().map(argument).collect()
}

/// The types that a schema describes, in short form.
struct Types<'s> {
    /// Schema in which references are looked up.
    root: &'s Value,
    /// Types of references, by the depth at which they occur. Many properties can refer to one long
    /// type.
    known: HashMap<(&'s str, usize), String>,
}

impl<'s> Types<'s> {
    fn new(root: &'s Value) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
    }

    fn text(&mut self, schema: &'s Value, depth: usize) -> String {
        /// Maximum depth, since a schema can refer to itself.
        const MAX_DEPTH: usize = 4;
        if depth > MAX_DEPTH {
            return "...".to_owned();
        }
        let value_text = |value: &Value| shortened(value, MAX_TYPE_CHARS);
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.text_at(reference, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return value_text(value);
        }
        for (key, separator) in [
            ("enum", " | "),
            ("anyOf", " | "),
            ("oneOf", " | "),
            ("allOf", " & "),
        ] {
            match (key, array(schema, key)) {
                (_, []) => {}
                ("enum", values) => return join(&mut values.iter().map(value_text), separator),
                (_, schemas) => {
                    return join(
                        &mut schemas.iter().map(|schema| self.text(schema, depth + 1)),
                        separator,
                    );
                }
            }
        }
        match schema.get("type") {
            Some(Value::String(name)) if name == "array" => match schema.get("items") {
                Some(items @ Value::Object(_)) => {
                    format!("array of {}", self.text(items, depth + 1))
                }
                _ => name.clone(),
            },
            Some(Value::String(name)) => shortened(name, MAX_TYPE_CHARS),
            Some(Value::Array(names)) => join(
                &mut names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|name| shortened(name, MAX_TYPE_CHARS)),
                " | ",
            ),
            _ => "any".to_owned(),
        }
    }

    fn text_at(&mut self, reference: &'s str, depth: usize) -> String {
        if let Some(text) = self.known.get(&(reference, depth)) {
            return text.clone();
        }
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer));
        let text = target.map_or_else(|| "...".to_owned(), |target| self.text(target, depth));
        self.known.insert((reference, depth), text.clone());
        text
    }
}

/// Joins texts with a separator, up to a length: nested alternatives grow exponentially.
fn join(texts: &mut dyn Iterator<Item = String>, separator: &str) -> String {
    /// Maximum number of values and alternatives that are shown.
    const SHOWN: usize = 6;
    let mut joined = String::new();
    for (index, text) in texts.enumerate() {
        if index == SHOWN || joined.len() > MAX_TYPE_CHARS {
            return joined + separator + "...";
        }
        joined = if index == 0 {
            text
        } else {
            joined + separator + &text
        };
    }
    joined
}

fn array<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_have_a_short_form() {
        let root = json!({
            "$defs": { "Mode": { "enum": ["a", "b"] }, "Tree": { "type": "array", "items": { "$ref": "#/$defs/Tree" } } },
        });
        for (schema, expected) in [
            (json!({ "type": "integer" }), "integer"),
            (json!({ "type": ["string", "null"] }), "string | null"),
            (
                json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }] }),
                "integer | null",
            ),
            (
                json!({ "allOf": [{ "$ref": "#/$defs/Mode" }], "default": "a" }),
                "\"a\" | \"b\"",
            ),
            (
                json!({ "type": "array", "items": { "$ref": "#/$defs/Mode" } }),
                "array of \"a\" | \"b\"",
            ),
            (json!({ "$ref": "#/$defs/None" }), "..."),
            (json!({ "const": 3 }), "3"),
            (
                json!({ "enum": [1, 2, 3, 4, 5, 6, 7, 8] }),
                "1 | 2 | 3 | 4 | 5 | 6 | ...",
            ),
            (json!({}), "any"),
            (json!(true), "any"),
        ] {
            assert_eq!(Types::new(&root).text(&schema, 0), expected, "{schema}");
        }
        let tree = json!({ "$ref": "#/$defs/Tree" });
        assert!(Types::new(&root).text(&tree, 0).ends_with("..."));
    }

    #[test]
    fn arguments_are_listed_in_their_order() {
        let schema = json!({
            "required": ["size", "input_paths"],
            "properties": {
                "size": { "type": "integer", "title": "Size", "description": "In pixels" },
                "input_paths": { "type": "array", "items": { "type": "string" } },
                "mode": { "default": null },
            },
        });
        let found = list_arguments(&schema, &["input_paths"]);
        let names: Vec<_> = found
            .iter()
            .map(|argument| (&*argument.name, argument.required, argument.from_runner))
            .collect();
        assert_eq!(
            names,
            [
                ("size", true, false),
                ("input_paths", false, true),
                ("mode", false, false)
            ]
        );
        assert_eq!(
            (found[0].title.as_deref(), found[0].description.as_deref()),
            (Some("Size"), Some("In pixels"))
        );
        assert_eq!(
            (&found[0].default, &found[2].default),
            (&None, &Some(Value::Null))
        );
        assert_eq!(list_arguments(&json!(true), &[]), []);
    }
}
