//! What two folders of files differ in.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use similar::TextDiff;

use crate::error::HostError;
use crate::outcome::bytes_text;
use crate::reporter::escape::escaped;

/// Bytes of a text file whose lines are compared.
const MAX_TEXT_BYTES: u64 = 256 << 10;
/// Lines of a text's differences that are shown.
const SHOWN_LINES: usize = 40;

/// A tree of files; folders count only by what is in them.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Relative paths of regular files.
    pub(super) files: BTreeSet<PathBuf>,
    /// Relative paths of links and of whatever else is neither file nor folder.
    pub(super) others: BTreeSet<PathBuf>,
}

impl Tree {
    /// Lists a folder; one that is not there is empty. No link is followed.
    ///
    /// # Errors
    /// [`HostError::File`] for a folder that cannot be read.
    pub(super) fn read(root: &Path) -> Result<Self, HostError> {
        let mut tree = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let path = root.join(&folder);
            let entries = match std::fs::read_dir(&path) {
                Err(err) if err.kind() == io::ErrorKind::NotFound && folder.as_os_str().is_empty() => break,
                entries => entries.map_err(HostError::file("list", &path))?,
            };
            for entry in entries {
                let entry = entry.map_err(HostError::file("list", &path))?;
                let kind = entry.file_type().map_err(HostError::file("look at", &entry.path()))?;
                let name = folder.join(entry.file_name());
                if kind.is_dir() {
                    folders.push(name);
                } else if kind.is_file() {
                    tree.files.insert(name);
                } else {
                    tree.others.insert(name);
                }
            }
        }
        Ok(tree)
    }
}

/// What `got` has else than `expected`: the file, and how it differs.
pub(super) fn differences(expected: &Path, got: &Path) -> Result<Vec<(PathBuf, String)>, HostError> {
    let (expected_tree, got_tree) = (Tree::read(expected)?, Tree::read(got)?);
    let mut differences = Vec::new();
    for path in expected_tree.files.union(&got_tree.files) {
        let text = match (expected_tree.files.contains(path), got_tree.files.contains(path)) {
            (true, true) => compare(&expected.join(path), &got.join(path))?,
            (true, false) => Some("is missing".to_owned()),
            (false, _) => {
                let size = got.join(path).metadata().map_err(HostError::file("look at", &got.join(path)))?.len();
                Some(format!("is not expected ({})", bytes_text(size)))
            }
        };
        differences.extend(text.map(|text| (path.clone(), text)));
    }
    let others = got_tree.others.into_iter();
    differences
        .extend(others.map(|path| (path, "is a link or a special file; a case can hold plain files only".to_owned())));
    Ok(differences)
}

/// How a file differs from what it should be; `None`: not at all.
fn compare(expected: &Path, got: &Path) -> Result<Option<String>, HostError> {
    let Some(offset) = first_difference(expected, got)? else { return Ok(None) };
    if let (Some(expected), Some(got)) = (read_text(expected)?, read_text(got)?) {
        return Ok(Some(format!("differs\n{}", text_difference(&expected, &got))));
    }
    let facts = |path: &Path| -> Result<String, HostError> {
        let mut hasher = Sha256::new();
        let mut reader = open(path)?;
        let mut size = 0;
        loop {
            let bytes = reader.fill_buf().map_err(HostError::file("read", path))?;
            let n = bytes.len();
            if n == 0 {
                break;
            }
            hasher.update(bytes);
            reader.consume(n);
            size += n;
        }
        let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{size} bytes, sha256 {digest}"))
    };
    let (expected, got) = (facts(expected)?, facts(got)?);
    Ok(Some(format!("differs from byte {offset} on\n  expected {expected}\n  got      {got}")))
}

fn open(path: &Path) -> Result<BufReader<File>, HostError> {
    File::open(path).map(|file| BufReader::with_capacity(64 << 10, file)).map_err(HostError::file("open", path))
}

/// The offset of the first byte in which two files differ, or of the end of the shorter one.
fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>, HostError> {
    let (mut one_reader, mut other_reader) = (open(one)?, open(other)?);
    let mut offset = 0;
    loop {
        let one_bytes = one_reader.fill_buf().map_err(HostError::file("read", one))?;
        let other_bytes = other_reader.fill_buf().map_err(HostError::file("read", other))?;
        let n = one_bytes.len().min(other_bytes.len());
        if let Some(index) = (0..n).find(|index| one_bytes[*index] != other_bytes[*index]) {
            return Ok(Some(offset + index as u64));
        }
        if n == 0 {
            return Ok((one_bytes.len() != other_bytes.len()).then_some(offset));
        }
        offset += n as u64;
        one_reader.consume(n);
        other_reader.consume(n);
    }
}

/// The whole of a file that is text and not too long for its lines to be compared.
fn read_text(path: &Path) -> Result<Option<String>, HostError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(HostError::file("read", path))?;
    let is_text = bytes.len() as u64 <= MAX_TEXT_BYTES && !bytes.contains(&0);
    Ok(String::from_utf8(bytes).ok().filter(|_| is_text))
}

/// The lines that differ with some around them, as `diff -u` shows them.
fn text_difference(expected: &str, got: &str) -> String {
    let difference = TextDiff::from_lines(expected, got);
    let unified = difference.unified_diff().context_radius(2).header("expected", "got").to_string();
    let mut lines: Vec<_> = unified.lines().take(SHOWN_LINES).map(|line| format!("  {}", escaped(line))).collect();
    let n_more = unified.lines().count().saturating_sub(SHOWN_LINES);
    if n_more > 0 {
        lines.push(format!("  ({n_more} more lines)"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_byte_by_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |expected: &[u8], got: &[u8], text: &[&str]| {
            let (one, other) = (folder.path().join("a"), folder.path().join("b"));
            std::fs::write(&one, expected).expect("written");
            std::fs::write(&other, got).expect("written");
            let found = compare(&one, &other).expect("compared");
            match text {
                [] => assert_eq!(found, None),
                text => assert!(
                    text.iter().all(|text| found.as_ref().is_some_and(|found| found.contains(text))),
                    "{found:?}"
                ),
            }
        };
        check(b"", b"", &[]);
        check(b"same\n", b"same\n", &[]);
        check(b"one\ntwo\nthree\n", b"one\n2\nthree\n", &["differs\n  --- expected\n  +++ got\n", "\n  -two\n  +2\n"]);
        check(b"text\n", b"text", &["No newline at end of file"]);
        check(b"a\n", b"\x1b[2J\n", &["+\\u{1b}[2J"]);
        check(
            b"\0\x01\x02",
            b"\0\x01\x03",
            &["from byte 2 on\n  expected 3 bytes, sha256 ", "\n  got      3 bytes, sha256 "],
        );
        check(b"\0\x01", b"\0\x01\x03", &["from byte 2 on", "expected 2 bytes", "got      3 bytes"]);
        let long = vec![b'x'; 300 << 10];
        check(&long, &long[1..], &["from byte 307199 on"]);
    }
}
