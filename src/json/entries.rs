//! Entries of an object without a table of its keys, for objects with few keys of which there are
//! very many.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{DuplicateKeys, JsonError, NUMBER_KEY, NumberOrValue, Value, ValueSeed, parse_seed};

/// Maximum number of entries of an object. Each key is compared with those before it.
const MAX_ENTRIES: usize = 64;

/// Keys and values in the order of the text, each key once.
pub(crate) type Entries<'t> = Vec<(Cow<'t, str>, Value)>;

/// Parses the entries of the object that `bytes` consists of. If it is another value, returns this
/// value (`Ok(Err(_))`). The rules are those of [`super::parse_json`], and duplicate keys are
/// refused.
///
/// # Errors
/// As for [`super::parse_json`], and for more than 64 entries.
pub(crate) fn parse_entries(
    bytes: &[u8],
    max_depth: usize,
) -> Result<Result<Entries<'_>, Value>, JsonError> {
    let n_left = Cell::new(usize::MAX);
    let inner = ValueSeed {
        depth: 0,
        max_depth,
        n_left: &n_left,
        duplicates: DuplicateKeys::Refuse,
    };
    parse_seed(bytes, EntriesSeed(inner))
}

struct EntriesSeed<'s>(ValueSeed<'s>);

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = Result<Entries<'de>, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = Result<Entries<'de>, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.0.visit_unit().map(Err)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.0.visit_bool(value).map(Err)
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

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(items).map(Err)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Entries<'de> = Vec::with_capacity(16);
        while let Some(key) = map.next_key_seed(KeySeed)? {
            // A number with its text also arrives as an object, see `ValueSeed`.
            if entries.is_empty() && key == NUMBER_KEY {
                match map.next_value_seed(NumberOrValue(self.0))? {
                    Ok(number) => return Ok(Err(Value::Number(number))),
                    Err(value) => entries.push((key, value)),
                }
                continue;
            }
            let inner = self.0.deeper()?;
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            if entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format_args!(
                    "the object has more than {MAX_ENTRIES} keys"
                )));
            }
            let value = map.next_value_seed(inner)?;
            entries.push((key, value));
        }
        self.0.deeper::<A::Error>()?;
        Ok(Ok(entries))
    }
}

/// Key, which is borrowed from the text unless it contains an escape.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::parse_within;

    /// Checks that both parsers agree.
    fn check(text: &[u8], max_depth: usize) {
        let value = parse_within(text, max_depth, usize::MAX, DuplicateKeys::Refuse);
        let object = parse_entries(text, max_depth).map(|parsed| match parsed {
            Ok(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.into_owned(), value))
                    .collect(),
            ),
            Err(other) => other,
        });
        match (&value, &object) {
            (Ok(value), Ok(object)) => assert_eq!(value.to_string(), object.to_string()),
            _ => assert_eq!(value, object, "{}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn entries_are_those_of_the_value() {
        let magic = format!("{{\"{NUMBER_KEY}\":\"1\",\"a\":2}}");
        let texts = [
            "{}",
            r#"{"a":1.50,"b":{"a":[1e2]},"c":null}"#,
            r#"{"\u0061":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            "1.50",
            "7",
            "-7",
            "null",
            "true",
            "\"x\"",
            "[1]",
            "[[1]]",
            "{\"a\":[1]}",
            "{\"a\":[[1]]}",
            "",
            "{",
            "{\"a\"",
            "{} {}",
            "{1:2}",
            &magic,
            "1e400",
            "123456789012345678901234567890",
            "{\"a\":1e400}",
            "{\"a\":NaN}",
            "\u{feff}{}",
        ];
        for text in texts {
            for max_depth in [0, 1, 2, 3, 300] {
                check(text.as_bytes(), max_depth);
            }
        }
        check(b"{\"\xff\":1}", 300);
    }

    #[test]
    fn keys_are_counted() {
        let object = |n: usize| {
            format!(
                "{{{}}}",
                (0..n)
                    .map(|i| format!("\"{i}\":0"))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        check(object(MAX_ENTRIES).as_bytes(), 1);
        let err = parse_entries(object(MAX_ENTRIES + 1).as_bytes(), 1).expect_err("too many");
        assert!(err.message.contains("more than 64 keys"), "{err}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_alike(text in r#"[\[\]{}",:0-9.eE\-a\\u ]{0,24}|\{("[ab]":([0-9]\.[0-9]{1,3}|\[\]|"[ab]"|null),?){0,4}\}"#) {
            check(text.as_bytes(), 3);
        }
    }
}
