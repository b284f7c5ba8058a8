//! Results that an earlier batch has left: which calls have one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Set of indices, as ranges: results come nearly in the order of their calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Indices {
    /// Start and end of each range, without their ends; no two of them meet.
    ranges: BTreeMap<u64, u64>,
}

impl Indices {
    /// Adds an index.
    fn insert(&mut self, index: u64) {
        let (mut start, mut end) = (index, index.saturating_add(1));
        if let Some((before, its_end)) = self.ranges.range(..=index).next_back()
            && *its_end >= index
        {
            (start, end) = (*before, end.max(*its_end));
        }
        if let Some(its_end) = self.ranges.remove(&end) {
            end = its_end;
        }
        self.ranges.insert(start, end);
    }

    /// Returns true if the index was added.
    pub(super) fn contains(&self, index: u64) -> bool {
        let before = self.ranges.range(..=index).next_back();
        before.is_some_and(|(_, end)| index < *end)
    }

    /// Returns the number of indices.
    pub(super) fn len(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }
}

/// Reason why results cannot be continued.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoneError {
    /// A line is not a result.
    #[error("line {line}: {problem}")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// Description of the problem.
        problem: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the results of an earlier batch. Returns the indices of their calls, and the size of the
/// complete lines in bytes: a batch that was killed can leave an incomplete one at the end.
///
/// # Errors
/// [`DoneError::Line`] if a complete line is not a result.
pub(super) fn read_done(results: &File) -> Result<(Indices, u64), DoneError> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, results);
    let (mut done, mut size, mut line) = (Indices::default(), 0, Vec::new());
    for number in 1.. {
        line.clear();
        let n_bytes = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let index = index_of(&line).map_err(|problem| DoneError::Line {
            line: number,
            problem,
        })?;
        done.insert(index);
        size += n_bytes as u64;
    }
    Ok((done, size))
}

/// Parts of a result that identify its call.
#[derive(Deserialize)]
struct Identified {
    index: u64,
    #[serde(rename = "outcome")]
    _outcome: IgnoredAny,
}

/// Returns the index of the call that a line is the result of.
fn index_of(line: &[u8]) -> Result<u64, String> {
    // A line as it was written starts with its index. This is much faster than parsing the line.
    let rest = line.strip_prefix(br#"{"index":"#);
    let digits = rest.and_then(|rest| rest.split(|byte| *byte == b',').next());
    let index = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    if let Some(index) = index.filter(|_| line.ends_with(b"}\n")) {
        return Ok(index);
    }
    match serde_json::from_slice::<Identified>(line) {
        Ok(result) => Ok(result.index),
        Err(_) => Err(
            "is not a result of `mandelbox batch`; name the file with the results to \
                       continue, or a new one"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;

    fn done(text: &str) -> Result<(Indices, u64), DoneError> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.rewind().expect("at its start");
        read_done(&file)
    }

    #[test]
    fn complete_lines_are_results() {
        let first = "{\"index\":0,\"outcome\":\"succeeded\"}\n";
        let edited = "{\"id\": 1, \"index\": 12, \"outcome\": \"trapped\"}\n";
        let (found, size) = done(&format!("{first}{edited}{{\"index\":3,")).expect("results");
        assert_eq!(size, (first.len() + edited.len()) as u64);
        assert_eq!(found.len(), 2);
        assert!(found.contains(0) && found.contains(12) && !found.contains(3));
        assert_eq!(done("").expect("empty").1, 0);
        assert_eq!(done("{\"index\":3}").expect("incomplete").1, 0);
        for other in [
            "{}\n",
            "\n",
            "index,outcome\n",
            "{\"index\":-1,\"outcome\":1}\n",
        ] {
            let err = done(&format!("{first}{other}"))
                .expect_err(other)
                .to_string();
            assert!(err.starts_with("line 2: is not a result"), "{err}");
        }
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(indices in proptest::collection::vec(0..40_u64, 0..60)) {
            let mut ranges = Indices::default();
            for index in &indices {
                ranges.insert(*index);
            }
            let set: std::collections::BTreeSet<_> = indices.iter().copied().collect();
            prop_assert!((0..41).all(|index| ranges.contains(index) == set.contains(&index)));
            prop_assert_eq!(ranges.len(), set.len() as u64);
            let ends: Vec<_> = ranges.ranges.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
