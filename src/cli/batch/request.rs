//! Line of `--calls` → a requested call.

use crate::json::{
    DuplicateKeys, MAX_DEPTH, MAX_GUEST_VALUES, Map, Value, parse_within, type_name,
};

/// Maximum size of a line in bytes, without its end.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;

/// A call that a line requests.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    /// The call, or a message for the user if the line requests none.
    pub(super) call: Result<RequestedCall, String>,
    /// The values that the result repeats.
    pub(super) label: Label,
}

/// Values of a line that its result repeats.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Label {
    pub(super) id: Option<Value>,
    pub(super) item: Option<Value>,
}

/// Input of a call.
#[derive(Debug, PartialEq)]
pub(super) enum RequestedCall {
    /// Args of a task.
    Args(Map<String, Value>),
    /// A command line without the program's name.
    Argv {
        argv: Vec<String>,
        stdin: Option<String>,
    },
}

impl Request {
    /// Returns the request of a line that is too long.
    pub(super) fn too_long() -> Self {
        Self::refused(
            Label::default(),
            format!("is longer than {} MiB", MAX_LINE_BYTES >> 20),
        )
    }

    /// Parses a line.
    pub(super) fn parse(line: &[u8]) -> Self {
        let parsed = parse_within(line, MAX_DEPTH, MAX_GUEST_VALUES, DuplicateKeys::Refuse);
        let object = match parsed {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                let text = format!("must be an object, not {}", type_name(&other));
                return Self::refused(Label::default(), text);
            }
            Err(err) => {
                let text = format!("is not JSON: column {}: {}", err.column, err.message);
                return Self::refused(Label::default(), text);
            }
        };
        let (mut label, mut parts, mut unknown) = (Label::default(), Parts::default(), None);
        for (key, value) in object {
            match key.as_str() {
                "id" => label.id = Some(value),
                "item" => label.item = Some(value),
                "args" => parts.args = Some(value),
                "argv" => parts.argv = Some(value),
                "stdin" => parts.stdin = Some(value),
                _ => unknown = Some(key),
            }
        }
        let call = match unknown {
            Some(key) => Err(format!(
                "unknown key `{key}`; a call has `args`, or `argv` and `stdin`, and `item` and `id`"
            )),
            None => parts.call(),
        };
        Self { call, label }
    }

    fn refused(label: Label, message: String) -> Self {
        Self {
            call: Err(message),
            label,
        }
    }
}

/// Values of a line that make up its call.
#[derive(Default)]
struct Parts {
    args: Option<Value>,
    argv: Option<Value>,
    stdin: Option<Value>,
}

impl Parts {
    fn call(self) -> Result<RequestedCall, String> {
        match (self.args, self.argv) {
            (Some(_), Some(_)) => Err("has both `args` and `argv`; remove one".to_owned()),
            (None, None) => Err("has neither `args` nor `argv`; add one".to_owned()),
            (Some(_), None) if self.stdin.is_some() => {
                Err("`stdin` belongs to calls with `argv`; remove it".to_owned())
            }
            (Some(Value::Object(args)), None) => Ok(RequestedCall::Args(args)),
            (Some(other), None) => Err(format!(
                "`args` must be an object, not {}",
                type_name(&other)
            )),
            (None, Some(argv)) => Ok(RequestedCall::Argv {
                argv: strings(argv)?,
                stdin: self.stdin.map(stdin).transpose()?,
            }),
        }
    }
}

fn strings(argv: Value) -> Result<Vec<String>, String> {
    let Value::Array(entries) = argv else {
        return Err(format!(
            "`argv` must be an array of strings, not {}",
            type_name(&argv)
        ));
    };
    let entries = entries.into_iter().map(|entry| match entry {
        Value::String(text) if text.contains('\0') => {
            Err("a string in `argv` contains a zero byte, which no argument can".to_owned())
        }
        Value::String(text) => Ok(text),
        other => Err(format!(
            "`argv` must be an array of strings, but contains {}",
            type_name(&other)
        )),
    });
    entries.collect()
}

fn stdin(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!(
            "`stdin` must be a string, not {}",
            type_name(&other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(line: &str) -> Request {
        Request::parse(line.as_bytes())
    }

    fn check_refused(line: &str, expected: &str) {
        let message = parsed(line).call.expect_err(line);
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn lines_are_calls() {
        let request = parsed(r#"{"args": {"a": 1.50}, "item": "B03", "id": [1e+2, null]}"#);
        assert_eq!(request.label.item, Some(json!("B03")));
        let id = request.label.id.expect("an id");
        assert_eq!(id.to_string(), "[1e+2,null]");
        let Ok(RequestedCall::Args(args)) = request.call else {
            panic!("no args")
        };
        assert_eq!(args["a"].to_string(), "1.50");
        let expected = RequestedCall::Argv {
            argv: vec!["-x".to_owned(), String::new()],
            stdin: Some("text".to_owned()),
        };
        let request = parsed(r#"{"argv": ["-x", ""], "stdin": "text"}"#);
        assert_eq!(request.call, Ok(expected));
        assert_eq!(request.label, Label::default());
        assert_eq!(
            parsed(r#"{"argv": [], "id": null}"#).label.id,
            Some(json!(null))
        );
    }

    #[test]
    fn other_lines_are_refused_with_their_labels() {
        check_refused("{", "is not JSON: column 1");
        check_refused("[1]", "must be an object, not an array");
        check_refused("\u{feff}{}", "byte order mark");
        check_refused(r#"{"args": {}, "args": {}}"#, "duplicate key");
        check_refused(r#"{"args": {}, "argv": []}"#, "both");
        check_refused(r#"{}"#, "neither `args` nor `argv`");
        check_refused(r#"{"args": []}"#, "`args` must be an object, not an array");
        check_refused(
            r#"{"args": {}, "stdin": ""}"#,
            "`stdin` belongs to calls with `argv`",
        );
        check_refused(
            r#"{"argv": "x"}"#,
            "must be an array of strings, not a string",
        );
        check_refused(r#"{"argv": [1]}"#, "but contains a number");
        check_refused(r#"{"argv": ["a\u0000"]}"#, "zero byte");
        check_refused(r#"{"argv": [], "stdin": 1}"#, "`stdin` must be a string");
        let request = parsed(r#"{"id": 7, "arg": {}, "item": "a"}"#);
        assert!(
            request
                .call
                .expect_err("unknown")
                .contains("unknown key `arg`")
        );
        assert_eq!(
            (request.label.id, request.label.item),
            (Some(json!(7)), Some(json!("a")))
        );
    }
}
