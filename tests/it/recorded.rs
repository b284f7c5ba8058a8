//! Values of recorded cases: read and compared.

use mandelbox::json::{DuplicateKeys, parse_json};
use serde_json::Value;

/// Integers exactly, other numbers as 64-bit floats, keys in any order.
#[track_caller]
pub fn assert_same(here: &Value, recorded: &Value, what: &str) {
    assert!(
        same(here, recorded),
        "{what} differs\n   here: {here}\nfractal: {recorded}"
    );
}

/// True if two values are the same; integers are compared exactly.
pub fn same(here: &Value, recorded: &Value) -> bool {
    match (here, recorded) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.to_string(), b.to_string());
            let is_integer = |text: &str| !text.contains(['.', 'e', 'E']);
            a == b
                || (!(is_integer(&a) && is_integer(&b))
                    && a.parse::<f64>().ok() == b.parse::<f64>().ok())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => here == recorded,
    }
}

pub fn parse(text: &str) -> Value {
    parse_json(text.as_bytes(), DuplicateKeys::LastWins).expect("JSON")
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text
        .chars()
        .map(|c| c.to_digit(16).expect("a digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
