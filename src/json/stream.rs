//! JSON text to and from streams, without the whole text in memory.

use std::cell::Cell;
use std::io;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::ser::PrettyFormatter;

use super::{DuplicateKeys, MAX_DATASET_DEPTH, Value, ValueSeed};

/// Parses one JSON value from a stream with a seed of the caller, which can skip what should not be
/// in memory.
///
/// # Errors
/// As for [`super::parse_json`], and the errors of the stream. They have no location.
pub(crate) fn read_stream<S: for<'t> DeserializeSeed<'t, Value = T>, T>(
    source: impl io::Read,
    seed: S,
) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_reader(source);
    deserializer.disable_recursion_limit();
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
}

/// Parses the next value of an object, with the rules for the records of a dataset.
pub(crate) fn next_value_of<'de, A: MapAccess<'de>>(entries: &mut A) -> Result<Value, A::Error> {
    let n_left = Cell::new(usize::MAX);
    let duplicates = DuplicateKeys::LastWins;
    entries.next_value_seed(ValueSeed {
        depth: 0,
        max_depth: MAX_DATASET_DEPTH,
        n_left: &n_left,
        duplicates,
    })
}

/// Returns `value` as text with `indent` spaces per level, in the layout of Python's
/// `json.dump(indent=...)`.
pub fn build_json(value: &impl serde::Serialize, indent: usize) -> Vec<u8> {
    let mut text = Vec::new();
    write_json(&mut text, value, indent).expect("memory takes every write");
    text
}

/// Writes text like [`build_json`] to a writer, for values whose text should not be in memory.
///
/// # Errors
/// The errors of the writer.
pub fn write_json(
    writer: impl io::Write,
    value: &impl serde::Serialize,
    indent: usize,
) -> io::Result<()> {
    let blanks = vec![b' '; indent];
    let mut serializer =
        serde_json::Serializer::with_formatter(writer, PrettyFormatter::with_indent(&blanks));
    match value.serialize(&mut serializer) {
        Err(err) if !err.is_io() => panic!("a JSON value has string keys only: {err}"),
        written => written.map_err(io::Error::from),
    }
}
