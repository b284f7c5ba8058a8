//! Reading of JSON files that the user names.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{DuplicateKeys, JsonError, MAX_DOCUMENT_VALUES, Value, parse_within};
use crate::text::unreadable;

/// Error of [`read_json`].
#[derive(Debug, thiserror::Error)]
pub enum ReadJsonError {
    /// The file cannot be opened or read.
    #[error("{}", unreadable(.0))]
    Io(#[from] io::Error),
    /// The file is larger than this limit in bytes.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// The text is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Reads a whole file of at most `max_bytes` and parses it. If duplicate keys are refused, a person
/// has written the document, and it may have at most [`MAX_DOCUMENT_VALUES`].
///
/// # Errors
/// [`ReadJsonError`] if the file cannot be read, is too large or is not JSON. The message explains
/// the mistake and gives advice.
pub fn read_json(
    path: &Path,
    max_bytes: u64,
    max_depth: usize,
    duplicates: DuplicateKeys,
) -> Result<Value, ReadJsonError> {
    read_json_from(File::open(path)?, max_bytes, max_depth, duplicates)
}

/// Reads an open file like [`read_json`].
///
/// # Errors
/// As for [`read_json`].
pub(crate) fn read_json_from(
    file: impl Read,
    max_bytes: u64,
    max_depth: usize,
    duplicates: DuplicateKeys,
) -> Result<Value, ReadJsonError> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadJsonError::TooLarge(max_bytes));
    }
    let max_values = match duplicates {
        DuplicateKeys::LastWins => usize::MAX,
        DuplicateKeys::Refuse => MAX_DOCUMENT_VALUES,
    };
    Ok(parse_within(&bytes, max_depth, max_values, duplicates)
        .map_err(|err| err.explained(&bytes))?)
}
