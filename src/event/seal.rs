//! The end of each line of `events.jsonl`: the session that wrote it, and a checksum.
//!
//! A line is `{"seq":0, ... ,"session":0,"crc":"89abcdef"}`. The checksum is the CRC-32 of the
//! line's bytes before `,"crc"`. The checksum of the first line starts from zero, and the checksums
//! of all others start from that of the first line. So a line of another log is not accepted, and
//! neither is a line with lost or replaced bytes.

use crc32fast::Hasher;

/// Text before the digits of a checksum, and after them.
const BEFORE: &[u8] = br#","crc":""#;
const BEHIND: &[u8] = br#""}"#;
/// Number of hexadecimal digits of a checksum.
const N_DIGITS: usize = 8;

/// End of the lines of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seal {
    /// Session number: 0 for the first start of the run, plus 1 for each time that the run is
    /// resumed.
    pub(super) session: u32,
    /// Checksum of the first line; `None` while there is no line.
    pub(super) first: Option<u32>,
}

impl Seal {
    /// Closes a line.
    ///
    /// * `text`: ends with the line, an object without its closing brace.
    /// * `start`: start of the line in `text`.
    pub(super) fn close(&mut self, text: &mut Vec<u8>, start: usize) {
        text.extend_from_slice(br#","session":"#);
        text.extend_from_slice(self.session.to_string().as_bytes());
        let checksum = checksum(self.first, &text[start..]);
        self.first.get_or_insert(checksum);
        text.extend_from_slice(BEFORE);
        text.extend_from_slice(&digits(checksum));
        text.extend_from_slice(BEHIND);
        text.push(b'\n');
    }
}

/// Returns the checksum of a line, if it is correct.
///
/// * `line`: without its line feed.
/// * `first`: checksum of the log's first line; `None`: this is the first line.
pub(super) fn verify(line: &[u8], first: Option<u32>) -> Option<u32> {
    let (text, stored) = split(line)?;
    let checksum = checksum(first, text);
    (stored == digits(checksum)).then_some(checksum)
}

/// Returns true if a line ends like a line of mandelbox, whatever its checksum.
pub(super) fn has_checksum(line: &[u8]) -> bool {
    split(line).is_some()
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, stored) = line.strip_suffix(BEHIND)?.split_last_chunk::<N_DIGITS>()?;
    Some((line.strip_suffix(BEFORE)?, stored))
}

fn checksum(first: Option<u32>, text: &[u8]) -> u32 {
    let mut hasher = first.map_or_else(Hasher::new, Hasher::new_with_initial);
    hasher.update(text);
    hasher.finalize()
}

fn digits(checksum: u32) -> [u8; N_DIGITS] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = checksum;
    let mut digits = [0; N_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest & 0xf) as usize];
        rest >>= 4;
    }
    digits
}

/// Closes each line of a log, for tests and tools that write a log as text.
///
/// * `lines`: one object per line, each with its `seq`, its `time` and its `event`, but without
///   `session` and `crc`.
pub fn seal_lines(lines: &[u8]) -> Vec<u8> {
    let mut seal = Seal::default();
    let mut text = Vec::with_capacity(lines.len() * 2);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let start = text.len();
        let Some(open) = line
            .strip_suffix(b"\n")
            .and_then(|line| line.strip_suffix(b"}"))
        else {
            text.extend_from_slice(line);
            continue;
        };
        let is_resumption = open.windows(RESUMED.len()).any(|part| part == RESUMED);
        seal.session += u32::from(is_resumption);
        text.extend_from_slice(open);
        seal.close(&mut text, start);
    }
    text
}

const RESUMED: &[u8] = br#""event":"run_resumed""#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_any_bit_flipped_does_not_pass() {
        let text = seal_lines(b"{\"seq\":0}\n{\"seq\":1}\n");
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .take(2)
            .map(<[u8]>::to_vec);
        let (first, second) = (lines.next().expect("two"), lines.next().expect("two"));
        let of_first = verify(&first, None).expect("whole");
        for (line, seed) in [(first, None), (second, Some(of_first))] {
            assert!(verify(&line, seed).is_some());
            assert_eq!(
                verify(&line, Some(of_first ^ 1)),
                None,
                "a line of another log"
            );
            for bit in 0..line.len() * 8 {
                let mut flipped = line.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(verify(&flipped, seed), None, "bit {bit}");
            }
        }
        assert!(!has_checksum(b"") && !has_checksum(br#"{"seq":0}"#));
    }
}
