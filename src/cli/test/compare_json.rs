//! Comparison of two JSON values, with the location of each difference.

use crate::json::{Number, Value};
use crate::text::escaped;

/// Maximum number of printed differences.
const SHOWN: usize = 20;
/// Maximum number of printed characters of a value.
const SHOWN_CHARS: usize = 100;

/// Returns one line for each location in which the values differ. Numbers are compared by value,
/// and objects without regard to the order of their keys.
pub(super) fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", Some(expected), Some(actual), &mut lines);
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(
    pointer: &str,
    expected: Option<&Value>,
    actual: Option<&Value>,
    lines: &mut Vec<String>,
) {
    match (expected, actual) {
        (Some(Value::Object(expected)), Some(Value::Object(actual))) => {
            let added = actual.keys().filter(|key| !expected.contains_key(*key));
            for key in expected.keys().chain(added) {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                compare(&pointer, expected.get(key), actual.get(key), lines);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(actual))) => {
            for index in 0..expected.len().max(actual.len()) {
                compare(
                    &format!("{pointer}/{index}"),
                    expected.get(index),
                    actual.get(index),
                    lines,
                );
            }
        }
        (Some(Value::Number(expected)), Some(Value::Number(actual)))
            if are_equal(expected, actual) => {}
        (expected, actual) if expected == actual => {}
        (expected, actual) => {
            let pointer = if pointer.is_empty() {
                "the whole value"
            } else {
                pointer
            };
            lines.push(format!(
                "{}: expected {}, got {}",
                escaped(pointer),
                shown(expected),
                shown(actual)
            ));
        }
    }
}

/// Returns true if two numbers have the same value. Integers of any size are compared exactly.
fn are_equal(one: &Number, other: &Number) -> bool {
    let is_integer = |number: &Number| !number.to_string().contains(['.', 'e', 'E']);
    if one.to_string() == other.to_string() {
        return true;
    }
    match (
        is_integer(one) && is_integer(other),
        one.as_f64(),
        other.as_f64(),
    ) {
        // -0 and 0 are the only integers with two texts.
        (true, one, other) => one == Some(0.0) && other == Some(0.0),
        (false, Some(one), Some(other)) => one == other,
        (false, ..) => false,
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "nothing".to_owned();
    };
    let text = escaped(&value.to_string());
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{DuplicateKeys, parse_json};

    fn check(expected: &str, got: &str, lines: &[&str]) {
        let parse = |text: &str| parse_json(text.as_bytes(), DuplicateKeys::Refuse).expect("JSON");
        assert_eq!(
            differences(&parse(expected), &parse(got)),
            lines,
            "{expected} {got}"
        );
    }

    #[test]
    fn values_are_compared_and_not_texts() {
        check(r#"{"a": 1, "b": [1.0, 2]}"#, r#"{"b":[1,2e0],"a":1}"#, &[]);
        check("[0.1, -0, 1e2]", "[0.10, 0, 100]", &[]);
        check(
            "[9007199254740993]",
            "[9007199254740992]",
            &["/0: expected 9007199254740993, got 9007199254740992"],
        );
        check("1", "\"1\"", &["the whole value: expected 1, got \"1\""]);
        check("null", "{}", &["the whole value: expected null, got {}"]);
    }

    #[test]
    fn differences_have_their_location() {
        check(
            r#"{"counts": {"nuclei": 3}, "a/b": [1, 2], "gone": true}"#,
            r#"{"counts": {"nuclei": 4}, "a/b": [1], "new": "\u001b"}"#,
            &[
                "/counts/nuclei: expected 3, got 4",
                "/a~1b/1: expected 2, got nothing",
                "/gone: expected true, got nothing",
                "/new: expected nothing, got \"\\u001b\"",
            ],
        );
        let long = format!("[{}0]", "1,".repeat(99));
        let differences = differences(
            &Value::Array(Vec::new()),
            &parse_json(long.as_bytes(), DuplicateKeys::Refuse).expect("JSON"),
        );
        assert_eq!(
            (differences.len(), differences[20].as_str()),
            (21, "and 80 more")
        );
    }
}
