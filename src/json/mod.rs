//! Conversion between JSON text and values. All other modules use this one.
//!
//! These rules hold for every document, output and record:
//!
//! * Numbers keep their digits, so integers of any size stay exact.
//! * A number that no `f64` can hold (`1e400`), `NaN` and `Infinity` are refused.
//! * There are at most [`MAX_DEPTH`] levels of nesting.
//! * No key has a special meaning, although the JSON library uses some internally.

mod entries;
mod mistakes;
mod read;
mod stream;

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

pub(crate) use entries::{Entries, parse_entries};
pub(crate) use read::read_json_from;
pub use read::{ReadJsonError, read_json};
pub use serde_json::{Map, Number, Value};
pub use stream::{build_json, write_json};
pub(crate) use stream::{next_value_of, read_stream};

/// Maximum number of nesting levels in text that is read.
pub const MAX_DEPTH: usize = 256;
/// Maximum number of nesting levels in metadata and history, which embed outputs of [`MAX_DEPTH`].
pub const MAX_DATASET_DEPTH: usize = 300;
/// Maximum number of values in a document that a person writes. A value of two bytes takes a
/// hundred bytes in memory, and some copies are made.
pub const MAX_DOCUMENT_VALUES: usize = 500_000;
/// Maximum number of values in text from a guest.
pub const MAX_GUEST_VALUES: usize = 1_000_000;

/// Key under which the JSON library passes a number with its text to a visitor.
const NUMBER_KEY: &str = "$serde_json::private::Number";

/// Handling of an object with duplicate keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateKeys {
    /// The last value wins, as in Python: for metadata, history and outputs.
    LastWins,
    /// An error: for documents that a person writes.
    Refuse,
}

/// Reason why a text is not JSON that mandelbox accepts, and its location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct JsonError {
    /// Line of the first invalid character, from 1.
    pub line: usize,
    /// Column in that line, in bytes, from 1.
    pub column: usize,
    /// Description of the problem.
    pub message: String,
}

/// Parses one JSON value from all of `bytes`.
///
/// # Errors
/// [`JsonError`] with line and column if the text is not UTF-8 or not JSON, if it contains more
/// than one value, more than [`MAX_DEPTH`] levels of nesting or a number beyond `f64`, or if it
/// contains a duplicate key and those are refused.
pub fn parse_json(bytes: &[u8], duplicates: DuplicateKeys) -> Result<Value, JsonError> {
    parse_within(bytes, MAX_DEPTH, usize::MAX, duplicates).map_err(|err| err.explained(bytes))
}

/// Parses text from a guest like [`parse_json`]. The last of duplicate keys wins. At most
/// [`MAX_GUEST_VALUES`] values are accepted, since a short text can contain many.
///
/// # Errors
/// As for [`parse_json`], and for too many values.
pub fn parse_guest_json(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, MAX_DEPTH, MAX_GUEST_VALUES, DuplicateKeys::LastWins)
}

/// Parses like [`parse_json`], with limits of the caller.
pub(crate) fn parse_within(
    bytes: &[u8],
    max_depth: usize,
    max_values: usize,
    duplicates: DuplicateKeys,
) -> Result<Value, JsonError> {
    let n_left = Cell::new(max_values);
    parse_seed(
        bytes,
        ValueSeed {
            depth: 0,
            max_depth,
            n_left: &n_left,
            duplicates,
        },
    )
}

fn parse_seed<'t, S: DeserializeSeed<'t>>(bytes: &'t [u8], seed: S) -> Result<S::Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|err| describe(&err, bytes))
}

/// Returns the name of a value's type for messages: `an object`, `a number`, ...
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn describe(err: &serde_json::Error, bytes: &[u8]) -> JsonError {
    let (line, column) = (err.line(), err.column());
    let text = err.to_string();
    // The library appends the location to its messages. It is returned separately here.
    let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
    let (_, rest) = split_at(bytes, line, column);
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let message = if bytes.starts_with(b"\xef\xbb\xbf") {
        "the text starts with a byte order mark; save it as plain UTF-8".to_owned()
    } else if rest.starts_with(b"NaN") || rest.starts_with(b"I") {
        "NaN and Infinity are not JSON; write null or a string instead".to_owned()
    } else {
        message
    };
    JsonError {
        line,
        column,
        message,
    }
}

/// Returns the bytes before and after a line and a column, both from 1.
fn split_at(bytes: &[u8], line: usize, column: usize) -> (&[u8], &[u8]) {
    let lines = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1));
    let offset = lines.map(<[u8]>::len).sum::<usize>() + column.saturating_sub(1);
    bytes.split_at(offset.min(bytes.len()))
}

impl JsonError {
    /// Explains this error in text that a person has written or named: adds the likely mistake and
    /// advice.
    fn explained(mut self, bytes: &[u8]) -> Self {
        let (before, rest) = split_at(bytes, self.line, self.column);
        self.message = match mistakes::other_format(bytes) {
            Some(format) => format.to_owned(),
            None => mistakes::explained(&self.message, before, rest).into_owned(),
        };
        self
    }
}

/// Seed that parses one value at a given depth.
#[derive(Clone, Copy)]
struct ValueSeed<'s> {
    depth: usize,
    max_depth: usize,
    n_left: &'s Cell<usize>,
    duplicates: DuplicateKeys,
}

impl ValueSeed<'_> {
    /// Returns the seed for the contents of an array or an object at this depth.
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > self.max_depth {
            return Err(E::custom(format_args!(
                "nested deeper than {} levels",
                self.max_depth
            )));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.n_left.get().checked_sub(1) {
            Some(n_left) => self.n_left.set(n_left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            // The library passes a number beyond 64 bits, or with a fraction, as an object with
            // this key. A document may contain such an object as well. The two differ in the value:
            // only that of a number is an owned string.
            if map.is_empty() && key == NUMBER_KEY {
                match entries.next_value_seed(NumberOrValue(self))? {
                    Ok(number) => return Ok(Value::Number(number)),
                    Err(value) => map.insert(key, value),
                };
                continue;
            }
            let inner = self.deeper()?;
            if self.duplicates == DuplicateKeys::Refuse && map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        self.deeper::<A::Error>()?;
        Ok(Value::Object(map))
    }
}

/// Seed for the value of [`NUMBER_KEY`]: the text of a number from the library (`Ok`), or any value
/// of the document (`Err`). It contains the seed of the object that has the key.
struct NumberOrValue<'s>(ValueSeed<'s>);

impl<'de> DeserializeSeed<'de> for NumberOrValue<'_> {
    type Value = Result<Number, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NumberOrValue<'_> {
    type Value = Result<Number, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Self::Value, E> {
        let is_integer = !text.contains(['.', 'e', 'E']);
        if !is_integer && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(E::custom(format_args!(
                "the number {text} is too large for a 64-bit float"
            )));
        }
        text.parse().map(Ok).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.0.visit_u64(value).map(Err)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.0.visit_i64(value).map(Err)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.0.visit_str(value).map(Err)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.0.visit_unit().map(Err)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.0.visit_bool(value).map(Err)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        self.0.deeper()?.visit_seq(items).map(Err)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        self.0.deeper()?.visit_map(entries).map(Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenient(text: &str) -> Result<Value, JsonError> {
        parse_json(text.as_bytes(), DuplicateKeys::LastWins)
    }

    fn check_round_trip(text: &str) {
        assert_eq!(lenient(text).expect("valid").to_string(), text);
    }

    #[test]
    fn numbers_keep_their_text() {
        check_round_trip(
            "[12345678901234567890123456789012345678901234567890,-0,1.50,1e+2,1.0e-7,0.1]",
        );
    }

    #[test]
    fn keys_of_the_library_have_no_meaning() {
        check_round_trip(r#"{"$serde_json::private::Number":"1"}"#);
        check_round_trip(r#"{"$serde_json::private::Number":7,"b":1}"#);
        check_round_trip(r#"{"a":{"$serde_json::private::RawValue":"[1]"}}"#);
        let escaped = lenient(r#"{"\u0024serde_json::private::Number":"1"}"#).expect("valid");
        assert!(escaped.is_object());
        let duplicated =
            lenient(r#"{"$serde_json::private::Number":"x\ty","$serde_json::private::Number":{}}"#);
        assert!(duplicated.expect("valid").is_object());
    }

    #[test]
    fn floats_beyond_f64_and_nan_are_refused() {
        assert!(
            lenient("[1e400]")
                .expect_err("too large")
                .message
                .contains("1e+400")
        );
        assert!(lenient("{\"a\": -1e999}").is_err());
        for text in ["NaN", "[Infinity]", "{\"a\": -Infinity}"] {
            assert!(
                lenient(text)
                    .expect_err(text)
                    .message
                    .contains("NaN and Infinity"),
                "{text}"
            );
        }
        assert!(lenient(&"9".repeat(400)).is_ok());
    }

    #[test]
    fn depth_is_counted() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(lenient(&nested(MAX_DEPTH)).is_ok());
        let err = lenient(&nested(MAX_DEPTH + 1)).expect_err("too deep");
        assert!(err.message.contains("256"), "{err}");
        assert!(lenient(&nested(1_000_000)).is_err());
        assert!(lenient(&"{\"a\":".repeat(100_000)).is_err());
        let magic = |n: usize| {
            format!(
                "{}1{}",
                format!("{{\"{NUMBER_KEY}\":").repeat(n),
                "}".repeat(n)
            )
        };
        assert!(lenient(&magic(MAX_DEPTH)).is_ok());
        assert!(
            lenient(&magic(MAX_DEPTH + 1))
                .expect_err("too deep")
                .message
                .contains("256")
        );
        assert!(lenient(&magic(100_000)).is_err());
        assert!(
            lenient(&format!(
                "{}1.5{}",
                "[".repeat(MAX_DEPTH),
                "]".repeat(MAX_DEPTH)
            ))
            .is_ok()
        );
    }

    #[test]
    fn values_of_a_guest_are_counted() {
        let array = |n: usize| format!("[0{}]", ",0".repeat(n - 2));
        assert!(parse_guest_json(array(MAX_GUEST_VALUES).as_bytes()).is_ok());
        let err =
            parse_guest_json(array(MAX_GUEST_VALUES + 1).as_bytes()).expect_err("one too many");
        assert!(err.message.contains("too many values"), "{err}");
        assert!(lenient(&array(MAX_GUEST_VALUES + 1)).is_ok());
    }

    #[test]
    fn duplicates_by_kind_of_document() {
        let text = "{\"a\": 1,\n \"a\": 2}";
        assert_eq!(lenient(text).expect("last wins").to_string(), r#"{"a":2}"#);
        let err = parse_json(text.as_bytes(), DuplicateKeys::Refuse).expect_err("refused");
        assert_eq!(err.line, 2);
        assert!(err.message.contains("\"a\""));
    }

    #[test]
    fn locations_are_reported() {
        let err = lenient("{\n  \"a\": nope\n}").expect_err("no JSON");
        assert_eq!((err.line, err.column), (2, 9));
        assert!(lenient("").is_err());
        assert!(lenient("{} {}").is_err());
        assert!(
            lenient("\u{feff}{}")
                .expect_err("mark")
                .message
                .contains("byte order mark")
        );
        assert!(parse_json(b"\"\xff\"", DuplicateKeys::LastWins).is_err());
    }

    #[test]
    fn layout_is_pythons() {
        let value = lenient(r#"{"a":[1,{}],"b":[]}"#).expect("valid");
        let text = String::from_utf8(build_json(&value, 2)).expect("UTF-8");
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
    }
}
