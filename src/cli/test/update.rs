//! `--update`: the actual results of a case become its expected results.
//!
//! A package is untrusted. Files in the folders of a case are written and removed by descriptors,
//! so no link is followed, not even one that is created at the same time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::case::{Actual, Case, Expected};
use super::compare_json;
use super::layout::{ERROR, EXPECTED};
use super::tree::{self, Tree, write_whole};
use crate::folder::Folder;
use crate::json::{Value, build_json};
use crate::model::HostError;
use crate::text::escaped;

/// Writes the expected results that differ, each file atomically. Returns the changes, one line
/// each.
///
/// Returns `None` if the actual results must not be accepted without review, such as those of a
/// call that failed.
pub(super) fn update(case: &Case, actual: &Actual) -> Result<Option<Vec<String>>, HostError> {
    match (&case.expected, &actual.result) {
        (Expected::Unknown | Expected::Success { .. }, Ok(call_output)) => {
            let call_output = call_output.clone().map_or(Value::Null, Value::Object);
            let mut changes = update_call_output(case, &call_output)?;
            changes.extend(update_output(case, &actual.output)?);
            Ok(Some(changes))
        }
        (Expected::Failure(_), Err(failure)) => {
            let differs = !case.differences(actual)?.is_empty();
            let Expected::Failure(text) = &case.expected else {
                return Ok(None);
            };
            // An empty text matches any failure. It is a placeholder, so replace it too.
            if differs || text.is_empty() {
                write(
                    case,
                    Path::new(ERROR),
                    format!("{}\n", failure.outcome.describe()).as_bytes(),
                )?;
                return Ok(Some(vec![ERROR.to_owned()]));
            }
            Ok(Some(Vec::new()))
        }
        _ => Ok(None),
    }
}

fn update_call_output(case: &Case, actual: &Value) -> Result<Vec<String>, HostError> {
    if let Expected::Success {
        call_output: Some(expected),
    } = &case.expected
        && compare_json::differences(expected, actual).is_empty()
    {
        return Ok(Vec::new());
    }
    let mut text = build_json(actual, 2);
    text.push(b'\n');
    let name = case.layout.call_output;
    write(case, Path::new(name), &text)?;
    Ok(vec![name.to_owned()])
}

fn update_output(case: &Case, actual: &Tree) -> Result<Vec<String>, HostError> {
    let mut changes = Vec::new();
    for (path, _) in case.file_differences(actual)? {
        let output = case.layout.output;
        let name = format!("{output}/{}", escaped(&path.to_string_lossy()));
        let in_expected = Path::new(output).join(&path);
        if let Some(what) = actual.others.get(&path) {
            changes.push(format!("{name} {what} and was left out"));
        } else if actual.files.contains(&path) {
            let mut from = actual.open(&path)?;
            in_folder(case, &in_expected, "write", |expected, path| {
                write_whole(expected, path, |new| io::copy(&mut from, new).map(drop))
            })?;
            changes.push(name);
        } else {
            in_folder(case, &in_expected, "remove", tree::remove)?;
            changes.push(format!("{name} (removed)"));
        }
    }
    Ok(changes)
}

/// Writes a file of the expected results.
fn write(case: &Case, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    in_folder(case, path, "write", |expected, path| {
        write_whole(expected, path, |new| new.write_all(bytes))
    })
}

/// Calls `act` with the folder of the expected results, which is created if missing.
fn in_folder(
    case: &Case,
    path: &Path,
    action: &'static str,
    act: impl FnOnce(&Folder, &Path) -> io::Result<()>,
) -> Result<(), HostError> {
    let full_path: PathBuf = case.path().join(EXPECTED).join(path);
    let expected = case.folder()?.open_or_create_folder(EXPECTED);
    expected
        .and_then(|expected| act(&expected, path))
        .map_err(HostError::file(action, &full_path))
}
