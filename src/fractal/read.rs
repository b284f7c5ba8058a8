//! Reading of documents: JSON files within bounds, whose problems have locations.

use std::path::Path;

use crate::folder::open_plain_file;
use crate::json::{
    DuplicateKeys, MAX_DATASET_DEPTH, MAX_DEPTH, ReadJsonError, Value, parse_json, read_json,
    read_json_from,
};
use crate::problem::{Cursor, Location, Problems};

/// Maximum size of a workflow or a manifest, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;
/// Maximum size of a dataset, in bytes. A million long names need far
/// less.
const MAX_DATASET_BYTES: u64 = 1 << 30;

/// Reads a document that a person writes: duplicate keys are refused.
pub(crate) fn read_document(path: &Path, problems: &mut Problems) -> Option<Value> {
    read_or_add(
        path,
        MAX_DOCUMENT_BYTES,
        MAX_DEPTH,
        DuplicateKeys::Refuse,
        problems,
    )
}

/// Reads a document of an untrusted package as [`read_document`] does: a plain file in its folder,
/// not a link to another.
pub(crate) fn read_package_document(path: &Path, problems: &mut Problems) -> Option<Value> {
    let read = open_plain_file(path).map_err(ReadJsonError::from);
    let read = read.and_then(|file| {
        read_json_from(file, MAX_DOCUMENT_BYTES, MAX_DEPTH, DuplicateKeys::Refuse)
    });
    read.map_err(|err| add_read_problem(path, err, problems))
        .ok()
}

/// Parses a document that a person writes, as [`read_document`] does.
///
/// * `name`: name for messages.
pub(crate) fn parse_document(name: &Path, text: &[u8], problems: &mut Problems) -> Option<Value> {
    parse_json(text, DuplicateKeys::Refuse)
        .map_err(|err| add_read_problem(name, err.into(), problems))
        .ok()
}

/// Reads a document of a dataset, which can be large: the last of duplicate keys wins.
pub(crate) fn read_dataset(path: &Path, problems: &mut Problems) -> Option<Value> {
    read_or_add(
        path,
        MAX_DATASET_BYTES,
        MAX_DATASET_DEPTH,
        DuplicateKeys::LastWins,
        problems,
    )
}

/// Splits a module's path and fixed arguments into words, as a shell does.
pub(crate) fn split_command(
    command: &Cursor<'_>,
    text: &str,
    problems: &mut Problems,
) -> Option<Vec<String>> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    if words.is_none() {
        problems.add(
            command.location(),
            "must be a module's path and fixed arguments: a quote is not closed; close it",
        );
    }
    words
}

fn read_or_add(
    path: &Path,
    max_bytes: u64,
    max_depth: usize,
    duplicates: DuplicateKeys,
    problems: &mut Problems,
) -> Option<Value> {
    read_json(path, max_bytes, max_depth, duplicates)
        .map_err(|err| add_read_problem(path, err, problems))
        .ok()
}

fn add_read_problem(path: &Path, err: ReadJsonError, problems: &mut Problems) {
    match err {
        ReadJsonError::Json(err) => {
            let location = Location::Text {
                file: path.to_owned(),
                line: err.line,
                column: err.column,
            };
            problems.add(location, format!("not valid JSON: {}", err.message));
        }
        other => problems.add(Location::File(path.to_owned()), other.to_string()),
    }
}
