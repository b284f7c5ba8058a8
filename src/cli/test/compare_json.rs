//! What two JSON values differ in, with the places of what differs.

use crate::json::{Number, Value};
use crate::text::escaped;

/// Differences that are told.
const SHOWN: usize = 20;
/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 100;

/// One line for each place in which `got` is not what it should be; none if they are the same.
/// Numbers are compared by value and objects whatever the order of their keys.
pub(super) fn differences(expected: &Value, got: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", Some(expected), Some(got), &mut lines);
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(pointer: &str, expected: Option<&Value>, got: Option<&Value>, lines: &mut Vec<String>) {
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            let added = got.keys().filter(|key| !expected.contains_key(*key));
            for key in expected.keys().chain(added) {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                compare(&pointer, expected.get(key), got.get(key), lines);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            for index in 0..expected.len().max(got.len()) {
                compare(
                    &format!("{pointer}/{index}"),
                    expected.get(index),
                    got.get(index),
                    lines,
                );
            }
        }
        (Some(Value::Number(expected)), Some(Value::Number(got))) if are_equal(expected, got) => {}
        (expected, got) if expected == got => {}
        (expected, got) => {
            let pointer = if pointer.is_empty() {
                "the whole"
            } else {
                pointer
            };
            lines.push(format!(
                "{}: expected {}, got {}",
                escaped(pointer),
                shown(expected),
                shown(got)
            ));
        }
    }
}

/// Whether two numbers have the same value; integers are compared as such, whatever their size.
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
        check("1", "\"1\"", &["the whole: expected 1, got \"1\""]);
        check("null", "{}", &["the whole: expected null, got {}"]);
    }

    #[test]
    fn differences_have_their_place() {
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
