//! `--update`: what a case gave becomes what it should give.

use std::fs;
use std::io;
use std::path::Path;

use super::case::{Case, Expected, Given};
use super::compare_files::{self, Tree};
use super::compare_json;
use crate::error::HostError;
use crate::json::{Value, build_json};
use crate::reporter::escape::escaped;
use crate::workdir::write_whole;

/// Writes what is not as it was, each file whole or not at all. Returns what it has changed, a line each.
///
/// `None`: what the case gave is not to be accepted unseen, such as a call that failed.
pub(super) fn update(case: &Case, given: &Given) -> Result<Option<Vec<String>>, HostError> {
    match (&case.expected, &given.result) {
        (Expected::Unknown | Expected::Success { .. }, Ok(metadiff)) => {
            let metadiff = metadiff.clone().map_or(Value::Null, Value::Object);
            let mut changes = update_metadiff(case, &metadiff)?;
            changes.extend(update_output(&case.output_path(), &given.output)?);
            Ok(Some(changes))
        }
        (Expected::Failure(_), Err(failure)) => {
            let differs = !case.differences(given)?.is_empty();
            let Expected::Failure(text) = &case.expected else { return Ok(None) };
            // A text that is empty holds for any failure, which nobody means for long.
            if differs || text.is_empty() {
                write_whole(&case.error_path(), format!("{}\n", failure.outcome.describe()).as_bytes())?;
                return Ok(Some(vec!["error.txt".to_owned()]));
            }
            Ok(Some(Vec::new()))
        }
        _ => Ok(None),
    }
}

fn update_metadiff(case: &Case, got: &Value) -> Result<Vec<String>, HostError> {
    if let Expected::Success { metadiff: Some(expected) } = &case.expected
        && compare_json::differences(expected, got).is_empty()
    {
        return Ok(Vec::new());
    }
    let path = case.metadiff_path();
    make_folder_of(&path)?;
    let mut text = build_json(got, 2);
    text.push(b'\n');
    write_whole(&path, &text)?;
    Ok(vec!["metadiff.json".to_owned()])
}

fn update_output(expected: &Path, got: &Path) -> Result<Vec<String>, HostError> {
    let tree = Tree::read(got)?;
    let mut changes = Vec::new();
    for (path, _) in compare_files::differences(expected, got)? {
        let (from, to) = (got.join(&path), expected.join(&path));
        let name = format!("output/{}", escaped(&path.to_string_lossy()));
        if tree.others.contains(&path) {
            changes.push(format!("{name} is a link or a special file and was left out"));
        } else if tree.files.contains(&path) {
            make_folder_of(&to)?;
            copy_whole(&from, &to).map_err(HostError::file("write", &to))?;
            changes.push(name);
        } else {
            fs::remove_file(&to).map_err(HostError::file("remove", &to))?;
            remove_empty_folders(to.parent(), expected);
            changes.push(format!("{name} (removed)"));
        }
    }
    Ok(changes)
}

fn make_folder_of(path: &Path) -> Result<(), HostError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HostError::file("make", folder))
}

/// Copies a file so that there is the whole of it or what was there before.
fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let part = tempfile::Builder::new().prefix(".mandelbox-").tempfile_in(folder)?.into_temp_path();
    fs::copy(from, &part)?;
    part.persist(to).map_err(|err| err.error)
}

/// Removes folders that have become empty, up to `root`.
fn remove_empty_folders(mut folder: Option<&Path>, root: &Path) {
    while let Some(path) = folder.filter(|path| path.starts_with(root)) {
        // One that is not empty is not removed, nor are those that it is in.
        if fs::remove_dir(path).is_err() {
            break;
        }
        folder = path.parent();
    }
}
