//! Texts and JSON of a list of runs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::entry::{Facts, RunEntry, RunState};
use crate::text::wording::shortened;
use crate::text::{bytes_text, duration_text, escaped, span, time_text};

/// Maximum number of characters of a workflow's name in a table.
const MAX_NAME_CHARS: usize = 40;

/// Formats a list of runs for a person.
///
/// * `folder`: folder that contains them.
/// * `now`: time to which the duration of a run in progress is computed.
pub(super) fn text(entries: &[RunEntry], folder: &Path, now: Timestamp) -> String {
    let shown = escaped(&folder.to_string_lossy());
    if entries.is_empty() {
        return format!("no runs in {shown}\n");
    }
    let n = entries.len();
    let mut text = format!(
        "{n} run{} in {shown}, {}\n",
        if n == 1 { "" } else { "s" },
        size_text(entries)
    );
    let header = [
        "STARTED (UTC)",
        "STATE",
        "DURATION",
        "CALLS",
        "SIZE",
        "WORKFLOW",
        "FOLDER",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| row(entry, folder, now)));
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.width() + 2);
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell}{padding}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for entry in entries {
        if let Some(damage) = &entry.damage {
            let _ = writeln!(text, "{}: {}", shown_path(entry, folder), escaped(damage));
        }
    }
    text
}

fn row(entry: &RunEntry, folder: &Path, now: Timestamp) -> [String; 7] {
    let state = match (entry.state, &entry.error) {
        (RunState::PartlyRemoved, _) => "removed in part".to_owned(),
        (state, Some(error)) => format!("{}: {}", state.name(), escaped(error)),
        (state, None) => state.name().to_owned(),
    };
    let path = shown_path(entry, folder);
    let size = size_text([entry]);
    let none = || "-".to_owned();
    let Some(facts) = &entry.facts else {
        return [none(), state, none(), none(), size, none(), path];
    };
    let calls = match facts.n_failed {
        0 => format!("{} done", facts.n_done),
        n_failed => format!("{} done, {n_failed} failed", facts.n_done),
    };
    [
        facts.started.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        state,
        duration_text(duration(entry, facts, now)),
        calls,
        size,
        escaped(&shortened(&facts.workflow, MAX_NAME_CHARS)),
        path,
    ]
}

/// Returns the path of a run relative to the folder of the list.
pub(super) fn shown_path(entry: &RunEntry, folder: &Path) -> String {
    match entry.path.strip_prefix(folder) {
        Ok(path) if !path.as_os_str().is_empty() => escaped(&path.to_string_lossy()),
        _ => escaped(&entry.path.to_string_lossy()),
    }
}

/// Returns the size on disk of runs.
pub(super) fn size_text<'e>(entries: impl IntoIterator<Item = &'e RunEntry>) -> String {
    let (mut bytes, mut is_whole) = (0_u64, true);
    for entry in entries {
        bytes = bytes.saturating_add(entry.contents.disk_bytes);
        is_whole &= entry.contents.is_whole;
    }
    let more = if is_whole { "" } else { "> " };
    format!("{more}{}", bytes_text(bytes))
}

/// Returns the time from the first event to the last, or to now in a run in progress.
fn duration(entry: &RunEntry, facts: &Facts, now: Timestamp) -> Duration {
    let end = match entry.state {
        RunState::Running => now,
        _ => facts.last_event,
    };
    span(facts.started, end)
}

/// Returns the facts of a run as JSON.
pub(super) fn facts(entry: &RunEntry, now: Timestamp) -> Value {
    let facts = entry.facts.as_ref();
    json!({
        "work_dir": entry.path.to_string_lossy(),
        "state": entry.state.name(),
        "error": entry.error,
        "workflow": facts.map(|facts| &facts.workflow),
        "started": facts.map(|facts| time_text(facts.started)),
        "last_event": facts.map(|facts| time_text(facts.last_event)),
        "duration_s": facts.map(|facts| duration(entry, facts, now).as_secs_f64()),
        "n_calls": facts.map(|facts| facts.n_calls),
        "n_done": facts.map(|facts| facts.n_done),
        "n_failed": facts.map(|facts| facts.n_failed),
        "disk_bytes": entry.contents.disk_bytes,
        "disk_bytes_is_complete": entry.contents.is_whole,
        "damage": entry.damage,
        "kept_because": entry.obstacle(),
    })
}
