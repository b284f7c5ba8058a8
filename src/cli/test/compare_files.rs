//! Comparison of two folders of files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use similar::TextDiff;

use super::tree::Tree;
use crate::model::HostError;
use crate::text::{bytes_text, escaped};

/// Maximum size in bytes of a text file that is compared line by line.
const MAX_TEXT_BYTES: u64 = 256 << 10;
/// Maximum size in bytes of a text file that is checked for other line ends.
const MAX_LINE_ENDS_BYTES: u64 = 64 << 20;
/// Maximum number of lines printed for the differences of a text.
const SHOWN_LINES: usize = 40;

/// Returns the differing files, each with a text about its difference.
pub(super) fn differences(
    expected: &Tree,
    actual: &Tree,
) -> Result<Vec<(PathBuf, String)>, HostError> {
    let mut differences = Vec::new();
    for path in expected.files.union(&actual.files) {
        let text = match (expected.files.contains(path), actual.files.contains(path)) {
            (true, true) => {
                let (expected, actual) = (expected.open(path)?, actual.open(path)?);
                compare(&expected, &actual).map_err(HostError::file("read", path))?
            }
            (true, false) => Some("is missing".to_owned()),
            (false, _) => {
                let size = actual
                    .open(path)?
                    .metadata()
                    .map_err(HostError::file("get the size of", path))?
                    .len();
                Some(format!("is not expected ({})", bytes_text(size)))
            }
        };
        differences.extend(text.map(|text| (path.clone(), text)));
    }
    let others = actual.others.iter();
    differences.extend(others.map(|(path, what)| {
        (
            path.clone(),
            format!("{what}, but a case can contain only regular files"),
        )
    }));
    Ok(differences)
}

/// Returns a text about the difference of two files; `None` if they are equal.
fn compare(expected: &File, actual: &File) -> std::io::Result<Option<String>> {
    let Some(offset) = first_difference(expected, actual)? else {
        return Ok(None);
    };
    if let (Some(expected), Some(actual)) = (
        read_text(expected, MAX_LINE_ENDS_BYTES)?,
        read_text(actual, MAX_LINE_ENDS_BYTES)?,
    ) && let Some(text) = line_ends_difference(&expected, &actual)
    {
        return Ok(Some(text));
    }
    if let (Some(expected), Some(actual)) = (
        read_text(expected, MAX_TEXT_BYTES)?,
        read_text(actual, MAX_TEXT_BYTES)?,
    ) {
        return Ok(Some(format!(
            "differs\n{}",
            text_difference(&expected, &actual)
        )));
    }
    let facts = |file: &File| -> std::io::Result<String> {
        let mut hasher = Sha256::new();
        let mut reader = from_start(file)?;
        let mut size = 0;
        loop {
            let bytes = reader.fill_buf()?;
            let n = bytes.len();
            if n == 0 {
                break;
            }
            hasher.update(bytes);
            reader.consume(n);
            size += n;
        }
        let digest: String = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(format!("{size} bytes, sha256 {digest}"))
    };
    let (expected, actual) = (facts(expected)?, facts(actual)?);
    Ok(Some(format!(
        "differs from byte {offset} on\n  expected {expected}\n  got      {actual}"
    )))
}

fn from_start(mut file: &File) -> std::io::Result<BufReader<&File>> {
    file.rewind()?;
    Ok(BufReader::with_capacity(64 << 10, file))
}

/// Returns the offset of the first byte in which two files differ, or the length of the shorter one
/// if it is the start of the other.
fn first_difference(one: &File, other: &File) -> std::io::Result<Option<u64>> {
    let (mut one_reader, mut other_reader) = (from_start(one)?, from_start(other)?);
    let mut offset = 0;
    loop {
        let (one_bytes, other_bytes) = (one_reader.fill_buf()?, other_reader.fill_buf()?);
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

/// Reads a file. Returns `None` if it is not text, or larger than `max_bytes`.
fn read_text(file: &File, max_bytes: u64) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from_start(file)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)?;
    let is_text = bytes.len() as u64 <= max_bytes && !bytes.contains(&0);
    Ok(String::from_utf8(bytes).ok().filter(|_| is_text))
}

/// Returns a text if two texts differ only in their line ends, as caused by `core.autocrlf` of Git.
fn line_ends_difference(expected: &str, actual: &str) -> Option<String> {
    if expected.replace("\r\n", "\n") != actual.replace("\r\n", "\n") {
        return None;
    }
    let ends = |text: &str| {
        let (n_crlf, n_lines) = (text.matches("\r\n").count(), text.matches('\n').count());
        format!(
            "{n_crlf} lines end with \\r\\n (CRLF), {} with \\n (LF)",
            n_lines - n_crlf
        )
    };
    Some(format!(
        "differs only in line ends; if Git changed them, add `* -text` to `.gitattributes`\n  \
         expected | {}\n  got      | {}",
        ends(expected),
        ends(actual)
    ))
}

/// Returns the differing lines with some context, in the format of `diff -u`.
fn text_difference(expected: &str, actual: &str) -> String {
    let difference = TextDiff::from_lines(expected, actual);
    let unified = difference
        .unified_diff()
        .context_radius(2)
        .header("expected", "got")
        .to_string();
    let mut lines: Vec<_> = unified
        .lines()
        .take(SHOWN_LINES)
        .map(|line| format!("  {}", escaped(line)))
        .collect();
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
            let open = |path| File::open(path).expect("opened");
            let found = compare(&open(&one), &open(&other)).expect("compared");
            match text {
                [] => assert_eq!(found, None),
                text => assert!(
                    text.iter()
                        .all(|text| found.as_ref().is_some_and(|found| found.contains(text))),
                    "{found:?}"
                ),
            }
        };
        check(b"", b"", &[]);
        check(b"same\n", b"same\n", &[]);
        check(
            b"one\ntwo\nthree\n",
            b"one\n2\nthree\n",
            &["differs\n  --- expected\n  +++ got\n", "\n  -two\n  +2\n"],
        );
        check(b"text\n", b"text", &["No newline at end of file"]);
        check(b"a\n", b"\x1b[2J\n", &["+\\u{1b}[2J"]);
        check(
            b"\0\x01\x02",
            b"\0\x01\x03",
            &[
                "from byte 2 on\n  expected 3 bytes, sha256 ",
                "\n  got      3 bytes, sha256 ",
            ],
        );
        check(
            b"\0\x01",
            b"\0\x01\x03",
            &["from byte 2 on", "expected 2 bytes", "got      3 bytes"],
        );
        check(
            b"a\r\nb\r\n",
            b"a\nb\n",
            &[
                "only in line ends",
                "expected | 2 lines end with \\r\\n",
                "got      | 0 lines",
            ],
        );
        check(
            b"a\nb\n",
            b"a\r\nb\n",
            &[
                "only in line ends",
                "got      | 1 lines end with \\r\\n (CRLF), 1 with",
            ],
        );
        check(b"a\r\nb\n", b"a\nc\n", &["differs\n  --- expected"]);
        let long = "line\r\n".repeat(100_000);
        check(
            long.as_bytes(),
            long.replace('\r', "").as_bytes(),
            &["only in line ends"],
        );
        let long = vec![b'x'; 300 << 10];
        check(&long, &long[1..], &["from byte 307199 on"]);
    }
}
