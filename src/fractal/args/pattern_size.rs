//! The cost of a regular expression, estimated from its text: a few characters can require
//! gigabytes and years.

use std::iter::Peekable;
use std::str::Chars;

/// Estimates the number of states of the compiled pattern: its length, with repeated parts
/// multiplied by their counts.
pub(crate) fn pattern_size(pattern: &str) -> u64 {
    // One sum for each open group, and the size of the last atom, which a repetition multiplies.
    let mut sums = vec![0_u64];
    let mut atom = 0_u64;
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let added = match c {
            '(' => {
                sums.push(1);
                continue;
            }
            '{' => {
                let bounds: String =
                    std::iter::from_fn(|| rest.next_if(|c| c.is_ascii_digit() || *c == ','))
                        .collect();
                rest.next_if_eq(&'}');
                // An empty bound counts as 1, and a bound that does not fit into 64 bits as more
                // than enough.
                let bound = |text: &str| {
                    if text.is_empty() {
                        1
                    } else {
                        text.parse::<u64>().unwrap_or(u64::MAX)
                    }
                };
                let factor = bounds.split(',').map(bound).max().unwrap_or(1).max(1);
                let single = atom;
                atom = atom.saturating_mul(factor);
                atom - single
            }
            '*' | '+' | '?' | '|' => 1,
            c => {
                atom = match c {
                    ')' if sums.len() > 1 => sums.pop().unwrap_or_default(),
                    '[' => bracket_size(&mut rest),
                    '.' => ANY,
                    '\\' => escape_size(&mut rest),
                    _ => 1,
                };
                atom
            }
        };
        if let Some(sum) = sums.last_mut() {
            *sum = sum.saturating_add(added);
        }
    }
    sums.into_iter().fold(0, u64::saturating_add)
}

/// States of `.` and of `[`, which cover the bytes of multi-byte characters.
const ANY: u64 = 10;

/// Returns the states of the sequence after a backslash: classes such as `\w` are hundreds of
/// ranges of Unicode.
fn escape_size(rest: &mut Peekable<Chars<'_>>) -> u64 {
    const CLASS: u64 = 200;
    match rest.next() {
        Some('p' | 'P') => {
            // The name of a class in braces is not a repetition.
            if rest.next_if_eq(&'{').is_some() {
                while rest.next().is_some_and(|c| c != '}') {}
            }
            CLASS
        }
        Some('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'b' | 'B') => CLASS,
        _ => 1,
    }
}

/// Returns the states of a class in brackets, and reads up to its end.
fn bracket_size(rest: &mut Peekable<Chars<'_>>) -> u64 {
    let mut size = ANY;
    let mut is_first = true;
    while let Some(c) = rest.next().filter(|c| *c != ']' || is_first) {
        size += if c == '\\' { escape_size(rest) } else { 1 };
        is_first = c == '^' && is_first;
    }
    size
}

/// Estimates the steps of matching a text.
///
/// * `backtracks`: [`backtracks`] of the pattern.
pub(crate) fn matching_steps(pattern: &str, text: &str, backtracks: bool) -> u64 {
    let length = text.len() as u64 + 1;
    let linear = length.saturating_mul(1 + pattern_size(pattern) / 100);
    let more = if backtracks { 5000 + 100 * length } else { 0 };
    linear
        .saturating_add(more)
        .saturating_add(pattern.len() as u64 / 4)
}

/// Returns true if a pattern may need an engine that backtracks: it has lookaround, back references
/// or possessive repetitions.
pub(crate) fn backtracks(pattern: &str) -> bool {
    const PARTS: [&str; 8] = ["(?=", "(?!", "(?<", "(?>", "\\k", "*+", "++", "?+"];
    let refers_back = |pair: &[u8]| pair[0] == b'\\' && pair[1].is_ascii_digit();
    PARTS.iter().any(|part| pattern.contains(part))
        || pattern.as_bytes().windows(2).any(refers_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_weighed_by_their_repetitions() {
        let sizes = [
            ("", 0),
            ("abc", 3),
            ("a{3}", 3),
            ("(ab){4}", 12),
            ("(a{10}){10}", 110),
            ("a+|b", 4),
            ("[a-c]{2}", 26),
            ("\\p{L}{3}", 600),
            ("[\\p{L}_]", 211),
        ];
        for (pattern, expected) in sizes {
            assert_eq!(pattern_size(pattern), expected, "{pattern}");
        }
        assert!((20_000..100_000).contains(&pattern_size("^[\\w-]{1,100}$")));
        assert!(pattern_size("(((((a{1000}){1000}){1000}){1000}){1000}){1000}") > 1 << 50);
        assert!(pattern_size("a{99999999999999999999}") > 1 << 60);
    }

    #[test]
    fn backtracking_costs_more() {
        for (pattern, expected) in [
            ("^(a|aa)+\\1$", true),
            ("^(?=a)b", true),
            ("^(?:a)+\\.\\w$", false),
        ] {
            assert_eq!(backtracks(pattern), expected, "{pattern}");
        }
        assert!(matching_steps("^(?=a)b", "aaa", true) > 5000);
        assert!(matching_steps("^a+$", "aaa", false) < 10);
    }
}
