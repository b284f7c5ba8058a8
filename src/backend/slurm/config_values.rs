//! Values of the configuration: counts, sizes, times and texts, as SLURM and Fractal write them.

use crate::json::Value;
use crate::problem::{Cursor, Problems};

/// Largest number of CPUs, MB or jobs.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// Reads a text that is part of one line of the script.
pub(super) fn read_text(value: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = value.text(problems)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        problems.add(
            value.location(),
            "must be a text without control characters, and not empty",
        );
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn read_text_or_count(value: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    match value.value {
        Value::Number(_) => read_count(value, problems).map(|count| count.to_string()),
        _ => read_text(value, problems),
    }
}

pub(super) fn read_lines(value: &Cursor<'_>, problems: &mut Problems) -> Vec<String> {
    let items = value.items(problems);
    items
        .iter()
        .filter_map(|item| read_text(item, problems))
        .collect()
}

/// Reads a whole number of 1 or more, also as text.
pub(super) fn read_count(value: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    let count = match value.value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let count = count.filter(|count| (1..=MAX_COUNT).contains(count));
    if count.is_none() {
        let text = format!("must be a whole number of 1 or more, not {}", value.value);
        problems.add(value.location(), text);
    }
    count
}

/// A job is one process, so it has one node.
pub(super) fn check_nodes(value: &Cursor<'_>, problems: &mut Problems) {
    if read_count(value, problems).is_some_and(|n_nodes| n_nodes != 1) {
        let text = "must be 1: a job runs its calls in one process; raise `max_num_jobs` to use \
                    more nodes";
        problems.add(value.location(), text);
    }
}

/// Reads a size in MB: a number, or a text such as `93`, `71M`, `3G` (3000 MB) or `1T`.
pub(super) fn read_mem(value: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    let mem_mb = match value.value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_mem(text),
        _ => None,
    };
    let mem_mb = mem_mb.filter(|mem_mb| (1..=MAX_COUNT).contains(mem_mb));
    if mem_mb.is_none() {
        let text = format!(
            "must be a size in MB, or a text such as `71M`, `3G` (3000 MB) or `1T`, not {}",
            value.value
        );
        problems.add(value.location(), text);
    }
    mem_mb
}

fn parse_mem(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = match text.chars().last()? {
        'M' => (&text[..text.len() - 1], 1),
        'G' => (&text[..text.len() - 1], 1000),
        'T' => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a time limit in SLURM's format. Returns seconds; `None` for no limit.
pub(super) fn read_time(value: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    let text = match value.value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => String::new(),
    };
    if ["UNLIMITED", "INFINITE"].contains(&text.to_uppercase().as_str()) {
        return None;
    }
    let time_s = parse_time(&text).filter(|time_s| *time_s > 0);
    if time_s.is_none() {
        let text = format!(
            "must be a time of SLURM, such as `90` (minutes), `1:30:00` or `2-12:00:00`, not {}",
            value.value
        );
        problems.add(value.location(), text);
    }
    time_s
}

/// Parses `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` and `D-H:M:S`.
fn parse_time(text: &str) -> Option<u64> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n <= 1_000_000);
    let parts = |text: &str| text.split(':').map(number).collect::<Option<Vec<_>>>();
    let seconds = match text.split_once('-') {
        Some((days, rest)) => {
            let days = number(days)? * 86_400;
            days + match parts(rest)?[..] {
                [h] => h * 3600,
                [h, m] => h * 3600 + m * 60,
                [h, m, s] => h * 3600 + m * 60 + s,
                _ => return None,
            }
        }
        None => match parts(text)?[..] {
            [m] => m * 60,
            [m, s] => m * 60 + s,
            [h, m, s] => h * 3600 + m * 60 + s,
            _ => return None,
        },
    };
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_slurm() {
        for (text, seconds) in [
            ("90", Some(5400)),
            ("1:30", Some(90)),
            ("1:30:00", Some(5400)),
            ("2-12", Some(216_000)),
            ("2-12:30", Some(217_800)),
            ("2-12:30:01", Some(217_801)),
            ("", None),
            ("1:2:3:4", None),
            ("-1", None),
            ("9999999999999999999", None),
        ] {
            assert_eq!(parse_time(text), seconds, "{text}");
        }
    }
}
