//! Small arrays of Zarr version 2 whose values belong to a table: numbers and texts, one chunk, not
//! compressed.

use crate::codec::Codec;
use crate::group::{read_json, write_json};
use fractal_task::TaskError;
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::Path;

/// The largest chunk that is read, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// The values of an array, row after row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Numbers.
    Floats(Vec<f64>),
    /// Whole numbers.
    Integers(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Writes an array into a folder of its own.
///
/// # Errors
/// If a file cannot be written.
///
/// Source: Zarr 2 specification, and the codec `vlen-utf8` of numcodecs for texts.
pub fn write(
    folder: &Path,
    shape: &[usize],
    values: &Values,
    attributes: &Map<String, Value>,
) -> Result<(), TaskError> {
    fs::create_dir_all(folder)
        .map_err(|err| TaskError::about("cannot make the folder", folder, err))?;
    let (dtype, fill_value, filters, bytes) = match values {
        Values::Floats(values) => (
            "<f8",
            json!(0.0),
            Value::Null,
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ),
        Values::Integers(values) => (
            "<i8",
            json!(0),
            Value::Null,
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ),
        Values::Texts(values) => (
            "|O",
            json!(""),
            json!([{"id": "vlen-utf8"}]),
            text_bytes(values),
        ),
    };
    let chunks: Vec<usize> = shape.iter().map(|n| (*n).max(1)).collect();
    let metadata = json!({
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": dtype,
        "compressor": null,
        "fill_value": fill_value,
        "order": "C",
        "filters": filters,
    });
    write_json(&folder.join(".zarray"), &metadata)?;
    write_json(&folder.join(".zattrs"), attributes)?;
    if shape.contains(&0) {
        return Ok(());
    }
    let path = folder.join(vec!["0"; shape.len()].join("."));
    fs::write(&path, bytes).map_err(|err| TaskError::about("cannot write", &path, err))
}

fn text_bytes(values: &[String]) -> Vec<u8> {
    let mut bytes = (values.len() as u32).to_le_bytes().to_vec();
    for value in values {
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes
}

/// Reads an array that [`write()`] or Python's anndata wrote.
///
/// # Errors
/// If a file cannot be read, or the array has several chunks or values of another type.
pub fn read(folder: &Path) -> Result<(Vec<usize>, Values), TaskError> {
    let path = folder.join(".zarray");
    let metadata: Value = read_json(&path)?;
    let unsupported =
        |what: &str| TaskError::about("cannot use", &path, format!("{what} is not supported"));
    let sizes = |key: &str| serde_json::from_value::<Vec<usize>>(metadata[key].clone()).ok();
    let (Some(shape), Some(chunks)) = (sizes("shape"), sizes("chunks")) else {
        return Err(unsupported("an array without shape and chunks"));
    };
    let n_values = |sizes: &[usize]| {
        sizes
            .iter()
            .try_fold(1_usize, |n, size| n.checked_mul(*size))
    };
    let n = n_values(&chunks)
        .filter(|n| *n <= MAX_BYTES / 8)
        .ok_or_else(|| unsupported("an array of this size"))?;
    if chunks.len() != shape.len() || chunks.iter().zip(&shape).any(|(chunk, n)| *chunk < *n) {
        return Err(unsupported("an array of several chunks"));
    }
    let codec =
        Codec::parse(&metadata["compressor"]).ok_or_else(|| unsupported("the compressor"))?;
    let dtype = metadata["dtype"].as_str().unwrap_or_default();
    let is_text = dtype == "|O" && metadata["filters"][0]["id"] == "vlen-utf8";
    let is_empty = shape.contains(&0);
    let separator = metadata["dimension_separator"].as_str().unwrap_or(".");
    let path = folder.join(vec!["0"; shape.len()].join(separator));
    let read = |n_bytes: Option<usize>| {
        let bytes = fs::read(&path).and_then(|bytes| match n_bytes {
            Some(n_bytes) => codec.decode(bytes, n_bytes),
            None => codec.decode_any(bytes, MAX_BYTES),
        });
        bytes.map_err(|err| TaskError::about("cannot read", &path, err))
    };
    let n_shape = n_values(&shape).unwrap_or(0);
    let values = match (dtype, is_text) {
        _ if is_empty && is_text => Values::Texts(Vec::new()),
        _ if is_empty => Values::Floats(Vec::new()),
        (_, true) => {
            let texts = read_texts(&read(None)?)
                .map_err(|err| TaskError::about("cannot read", &path, err))?;
            Values::Texts(texts)
        }
        ("<f8", _) => Values::Floats(numbers(&read(Some(8 * n))?, f64::from_le_bytes)),
        ("<f4", _) => Values::Floats(
            numbers(&read(Some(4 * n))?, f32::from_le_bytes)
                .into_iter()
                .map(f64::from)
                .collect(),
        ),
        ("<i8", _) => Values::Integers(numbers(&read(Some(8 * n))?, i64::from_le_bytes)),
        ("<i4", _) => Values::Integers(
            numbers(&read(Some(4 * n))?, i32::from_le_bytes)
                .into_iter()
                .map(i64::from)
                .collect(),
        ),
        _ => return Err(unsupported(&format!("the type {dtype}"))),
    };
    let found = match &values {
        Values::Floats(values) => values.len(),
        Values::Integers(values) => values.len(),
        Values::Texts(values) => values.len(),
    };
    if chunks != shape && !is_empty || found != n_shape {
        return Err(unsupported("an array that does not fill its chunk"));
    }
    Ok((shape, values))
}

fn numbers<const N: usize, T>(bytes: &[u8], parse: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|bytes| parse(*bytes))
        .collect()
}

fn read_texts(bytes: &[u8]) -> io::Result<Vec<String>> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut rest = bytes;
    let mut take = |n: usize| {
        let (taken, left) = rest.split_at_checked(n).ok_or_else(cut)?;
        rest = left;
        Ok::<_, io::Error>(taken)
    };
    let length = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| cut());
    let n = length(take(4)?)?;
    let mut texts = Vec::new();
    for _ in 0..n {
        let n_bytes = length(take(4)?)?;
        let text = String::from_utf8(take(n_bytes as usize)?.to_vec());
        texts.push(text.map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = std::env::temp_dir().join(format!("ome-zarr-values-{}", std::process::id()));
        for (name, shape, values) in [
            (
                "floats",
                vec![2, 3],
                Values::Floats(vec![0.1, 2.0, f64::MAX, -1.0, 0.0, 5.5]),
            ),
            ("integers", vec![2], Values::Integers(vec![1, -2])),
            (
                "texts",
                vec![3],
                Values::Texts(vec!["FOV_1".to_owned(), String::new(), "µ".to_owned()]),
            ),
            ("none", vec![0], Values::Texts(Vec::new())),
        ] {
            let folder = folder.join(name);
            write(&folder, &shape, &values, &Map::new()).unwrap();
            assert_eq!(read(&folder).unwrap(), (shape, values));
        }
        let cut = folder.join("texts/0");
        let bytes = fs::read(&cut).unwrap();
        for length in 0..bytes.len() {
            fs::write(&cut, &bytes[..length]).unwrap();
            assert!(read(&folder.join("texts")).is_err(), "cut at {length}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
