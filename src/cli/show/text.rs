//! The texts of `mandelbox show` for people. Everything from guests and documents is escaped.

use std::fmt::Write as _;

use super::find::{CallKey, item_text, key_text};
use super::parts::{CallParts, Storage};
use super::{ShownTask, title};
use crate::event::KnownCall;
use crate::text::wording::shortened;
use crate::text::{bytes_text, duration_text, escaped};

/// Largest part of a stream that is shown, in bytes.
const MAX_SHOWN_BYTES: usize = 64 << 10;
/// Width of the column of items.
const MAX_ITEM_CHARS: usize = 60;

/// Formats the calls of a task as a table.
pub(super) fn table_text(task: &ShownTask) -> String {
    let mut text = format!("task {} \"{}\"\n", task.order, escaped(task.name()));
    let header = ["call", "item", "outcome", "attempts", "started", "time"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(task.calls.calls().map(|(key, call)| row(task, *key, call)));
    if rows.len() == 1 {
        text.push_str("no call has started\n");
        return text;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4, 5].map(|column| width(column).unwrap_or_default());
    for row in &rows {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(task: &ShownTask, key: CallKey, call: &KnownCall) -> [String; 6] {
    let item = item_text(call).unwrap_or_default();
    [
        key_text(&task.calls, key),
        escaped(&shortened(item, MAX_ITEM_CHARS)),
        task.outcome(call).to_owned(),
        call.last_attempt.to_string(),
        call.started.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        time_of(call),
    ]
}

/// Formats the run time of an attempt that has ended.
fn time_of(call: &KnownCall) -> String {
    let end = call.end.as_ref();
    end.map_or_else(String::new, |end| duration_text(end.usage.wall_time))
}

/// Formats one call.
pub(super) fn call_text(
    task: &ShownTask,
    key: CallKey,
    call: &KnownCall,
    parts: &CallParts,
) -> String {
    let outcome = match &call.end {
        Some(end) => format!(
            "{} after {}",
            end.outcome.describe(),
            duration_text(end.usage.wall_time)
        ),
        None => task.outcome(call).to_owned(),
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "task {} \"{}\", {}",
        task.order,
        escaped(task.name()),
        escaped(&title(task, key, call))
    );
    let _ = writeln!(
        text,
        "attempt {} of {}: {}",
        call.attempt,
        call.last_attempt,
        escaped(&outcome)
    );
    let started = call.started.strftime("%Y-%m-%d %H:%M:%S UTC");
    let _ = writeln!(text, "started {started}");
    match parts.storage {
        Storage::Plain => text.push_str("files:\n"),
        Storage::Packed => text.push_str("packed in:\n"),
        Storage::NotKept => {}
    }
    for path in &parts.paths {
        let _ = writeln!(text, "  {}", escaped(&path.to_string_lossy()));
    }
    if let Some(reason) = &parts.not_kept {
        let _ = writeln!(text, "files not kept: {}", escaped(reason));
    }
    let (stdout, stderr) = match parts.has_one_log {
        true => ("stdout and stderr", None),
        false => ("stdout", Some("stderr")),
    };
    text.push_str(&part_text("args", parts.args.as_deref(), true));
    text.push_str(&part_text("output", parts.output.as_deref(), true));
    text.push_str(&part_text(stdout, parts.stdout.as_deref(), false));
    if let Some(name) = stderr {
        text.push_str(&part_text(name, parts.stderr.as_deref(), false));
    }
    text
}

/// Formats one part: its start, or its end.
fn part_text(name: &str, bytes: Option<&[u8]>, from_start: bool) -> String {
    let bytes = match bytes {
        None => return format!("{name}: none\n"),
        Some([]) => return format!("{name}: empty\n"),
        Some(bytes) => bytes,
    };
    let size = bytes_text(bytes.len() as u64);
    let is_cut = bytes.len() > MAX_SHOWN_BYTES;
    let (shown, which) = match from_start {
        true => (&bytes[..bytes.len().min(MAX_SHOWN_BYTES)], "first"),
        false => (
            &bytes[bytes.len().saturating_sub(MAX_SHOWN_BYTES)..],
            "last",
        ),
    };
    let mut text = match is_cut {
        true => format!(
            "{name} ({size}; the {which} {}, `--stream` prints all of it):\n",
            bytes_text(MAX_SHOWN_BYTES as u64)
        ),
        false => format!("{name} ({size}):\n"),
    };
    for line in String::from_utf8_lossy(shown).lines() {
        let _ = writeln!(text, "  {}", escaped(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_escaped_and_bounded() {
        assert_eq!(part_text("args", None, true), "args: none\n");
        assert_eq!(part_text("stdout", Some(b""), false), "stdout: empty\n");
        assert_eq!(
            part_text("stdout", Some(b"a\x1b[2J\nb\n"), false),
            "stdout (8 bytes):\n  a\\u{1b}[2J\n  b\n"
        );
        let long = [b"first ".repeat(20_000), b"last".to_vec()].concat();
        let shown = part_text("stderr", Some(&long), false);
        assert!(
            shown.contains("117.2 KiB; the last 64 KiB"),
            "{}",
            &shown[..80]
        );
        assert!(shown.ends_with("first last\n") && shown.len() < 70_000);
    }
}
