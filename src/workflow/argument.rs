//! The arguments that an `args_schema` names, for people and programs that list them.

use serde::Serialize;

use super::args_schema::RESERVED_ARGUMENTS;
use crate::json::Value;

/// An argument of a task: a top-level property of its schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its type in a few words, such as `array of integer`, `string | null` or `"a" | "b"`.
    #[serde(rename = "type")]
    pub type_text: String,
    /// What it is if it is not given.
    pub default: Option<Value>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether the runner fills it in.
    pub from_runner: bool,
    /// The schema's title of it.
    pub title: Option<String>,
    /// The schema's description of it.
    pub description: Option<String>,
}

/// The arguments in the order of the schema; none if it is no schema of an object.
pub fn list_arguments(schema: &Value) -> Vec<Argument> {
    let required: Vec<_> = array(schema, "required").iter().filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let argument = |(name, property): (&String, &Value)| {
        let text = |key: &str| property.get(key).and_then(Value::as_str).map(str::to_owned);
        let from_runner = RESERVED_ARGUMENTS.contains(&name.as_str());
        Argument {
            name: name.clone(),
            type_text: type_text(schema, property, 0),
            default: property.get("default").cloned(),
            required: !from_runner && required.contains(&name.as_str()),
            from_runner,
            title: text("title"),
            description: text("description"),
        }
    };
    properties.into_iter().flatten().map(argument).collect()
}

/// The type that a schema describes, in a few words.
///
/// * `root`: the schema that references are looked up in.
fn type_text(root: &Value, schema: &Value, depth: usize) -> String {
    /// A schema can refer to itself.
    const MAX_DEPTH: usize = 4;
    /// Values and alternatives that are told.
    const SHOWN: usize = 6;
    let any_of = |texts: &mut dyn Iterator<Item = String>| {
        let mut texts: Vec<_> = texts.take(SHOWN + 1).collect();
        if texts.len() > SHOWN {
            texts[SHOWN] = "...".to_owned();
        }
        texts.join(" | ")
    };
    let inner = |schema: &Value| type_text(root, schema, depth + 1);
    if depth > MAX_DEPTH {
        return "...".to_owned();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or_else(|| "...".to_owned(), inner);
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    for (key, separator_is_or) in [("enum", true), ("anyOf", true), ("oneOf", true), ("allOf", false)] {
        let items = array(schema, key);
        match (key, items) {
            (_, []) => {}
            ("enum", values) => return any_of(&mut values.iter().map(Value::to_string)),
            (_, schemas) if separator_is_or => return any_of(&mut schemas.iter().map(inner)),
            (_, schemas) => return schemas.iter().take(SHOWN).map(inner).collect::<Vec<_>>().join(" & "),
        }
    }
    match schema.get("type") {
        Some(Value::String(name)) if name == "array" => match schema.get("items") {
            Some(items @ Value::Object(_)) => format!("array of {}", inner(items)),
            _ => name.clone(),
        },
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => any_of(&mut names.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => "any".to_owned(),
    }
}

fn array<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_told_in_a_few_words() {
        let root = json!({
            "$defs": { "Mode": { "enum": ["a", "b"] }, "Tree": { "type": "array", "items": { "$ref": "#/$defs/Tree" } } },
        });
        for (schema, expected) in [
            (json!({ "type": "integer" }), "integer"),
            (json!({ "type": ["string", "null"] }), "string | null"),
            (json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }] }), "integer | null"),
            (json!({ "allOf": [{ "$ref": "#/$defs/Mode" }], "default": "a" }), "\"a\" | \"b\""),
            (json!({ "type": "array", "items": { "$ref": "#/$defs/Mode" } }), "array of \"a\" | \"b\""),
            (json!({ "$ref": "#/$defs/None" }), "..."),
            (json!({ "const": 3 }), "3"),
            (json!({ "enum": [1, 2, 3, 4, 5, 6, 7, 8] }), "1 | 2 | 3 | 4 | 5 | 6 | ..."),
            (json!({}), "any"),
            (json!(true), "any"),
        ] {
            assert_eq!(type_text(&root, &schema, 0), expected, "{schema}");
        }
        assert!(type_text(&root, &json!({ "$ref": "#/$defs/Tree" }), 0).ends_with("..."));
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
        let found = list_arguments(&schema);
        let names: Vec<_> =
            found.iter().map(|argument| (&*argument.name, argument.required, argument.from_runner)).collect();
        assert_eq!(names, [("size", true, false), ("input_paths", false, true), ("mode", false, false)]);
        assert_eq!((found[0].title.as_deref(), found[0].description.as_deref()), (Some("Size"), Some("In pixels")));
        assert_eq!((&found[0].default, &found[2].default), (&None, &Some(Value::Null)));
        assert_eq!(list_arguments(&json!(true)), []);
    }
}
