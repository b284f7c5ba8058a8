//! `--update`: what a case gave becomes what it should give.
//!
//! The folders of a case are a stranger's: all that is written or removed in them goes by
//! descriptors, and no link is followed there, nor is one that is put there meanwhile.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::case::{CALL_OUTPUT, Case, ERROR, EXPECTED, Expected, Given, OUTPUT};
use super::compare_json;
use super::tree::{self, Tree, write_whole};
use crate::folder::Folder;
use crate::json::{Value, build_json};
use crate::model::HostError;
use crate::text::escaped;

/// Writes what is not as it was, each file whole or not at all. Returns what it has changed, a line
/// each.
///
/// `None`: what the case gave is not to be accepted unseen, such as a call that failed.
pub(super) fn update(case: &Case, given: &Given) -> Result<Option<Vec<String>>, HostError> {
    match (&case.expected, &given.result) {
        (Expected::Unknown | Expected::Success { .. }, Ok(call_output)) => {
            let call_output = call_output.clone().map_or(Value::Null, Value::Object);
            let mut changes = update_call_output(case, &call_output)?;
            changes.extend(update_output(case, &given.output)?);
            Ok(Some(changes))
        }
        (Expected::Failure(_), Err(failure)) => {
            let differs = !case.differences(given)?.is_empty();
            let Expected::Failure(text) = &case.expected else {
                return Ok(None);
            };
            // A text that is empty holds for any failure, which nobody means for long.
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

fn update_call_output(case: &Case, got: &Value) -> Result<Vec<String>, HostError> {
    if let Expected::Success {
        call_output: Some(expected),
    } = &case.expected
        && compare_json::differences(expected, got).is_empty()
    {
        return Ok(Vec::new());
    }
    let mut text = build_json(got, 2);
    text.push(b'\n');
    write(case, Path::new(CALL_OUTPUT), &text)?;
    Ok(vec![CALL_OUTPUT.to_owned()])
}

fn update_output(case: &Case, got: &Tree) -> Result<Vec<String>, HostError> {
    let mut changes = Vec::new();
    for (path, _) in case.file_differences(got)? {
        let name = format!("{OUTPUT}/{}", escaped(&path.to_string_lossy()));
        let in_expected = Path::new(OUTPUT).join(&path);
        if let Some(what) = got.others.get(&path) {
            changes.push(format!("{name} {what} and was left out"));
        } else if got.files.contains(&path) {
            let mut from = got.open(&path)?;
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

/// Writes a file of what a case should give.
fn write(case: &Case, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    in_folder(case, path, "write", |expected, path| {
        write_whole(expected, path, |new| new.write_all(bytes))
    })
}

/// Does something with a file in the folder of what a case should give.
fn in_folder(
    case: &Case,
    path: &Path,
    action: &'static str,
    act: impl FnOnce(&Folder, &Path) -> io::Result<()>,
) -> Result<(), HostError> {
    let place: PathBuf = case.path().join(EXPECTED).join(path);
    let expected = case.folder()?.open_or_create_folder(EXPECTED);
    expected
        .and_then(|expected| act(&expected, path))
        .map_err(HostError::file(action, &place))
}
