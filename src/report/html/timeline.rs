//! The calls of a run as compact arrays, for the script that draws the timeline.

use serde::Serialize;

use super::calls::{CallState, CallTable};
use super::markup::html_start;
use crate::event::RunSummary;
use crate::text::escaped;

/// Maximum number of calls for which the page has each call's name and usage, to show at the
/// pointer.
const MAX_NAMED: usize = 20_000;
/// Number of characters kept of an item's name.
const NAME_CHARS: usize = 60;
/// Number of points in time that a drawing can distinguish when it is zoomed in.
const RESOLUTION: i64 = 10_000_000;
/// Number of colours for tasks in the style sheet.
const N_CHOSEN_COLORS: usize = 16;
/// Largest number of colours; more could not be told apart.
const N_COLORS: usize = 64;

/// Returns the number of a task's colour.
pub(super) fn color(task_index: usize) -> usize {
    task_index % N_COLORS
}

/// Returns the rules of the colours that are not in the style sheet: each further task turns the
/// hue by the golden angle, so that neighbours differ.
///
/// * `n_tasks`: number of tasks.
pub(super) fn further_colors(n_tasks: usize) -> String {
    let further = N_CHOSEN_COLORS..n_tasks.min(N_COLORS);
    if further.is_empty() {
        return String::new();
    }
    let variables = |saturation: u32, lightness: [u32; 3]| -> String {
        let variable = |index: usize| {
            let (hue, lightness) = (index * 137 % 360, lightness[index % 3]);
            format!("--c{index}: hsl({hue} {saturation}% {lightness}%); ")
        };
        further.clone().map(variable).collect()
    };
    let classes = further.clone().map(|index| {
        format!(".c{index} {{ fill: var(--c{index}); background: var(--c{index}); }}\n")
    });
    format!(
        "\n:root {{ {}}}\n@media (prefers-color-scheme: dark) {{ :root:not(.print) {{ {}}} }}\n{}",
        variables(48, [30, 44, 58]),
        variables(60, [58, 70, 82]),
        classes.collect::<String>()
    )
}

/// Data for the script. Except for the first six fields, each field has one value per call. Times
/// are in units of `unit_us` microseconds.
#[derive(Serialize)]
pub(super) struct TimelineData {
    unit_us: i64,
    span: i64,
    n_lanes: u32,
    /// Names and colours of the tasks.
    tasks: Vec<String>,
    color: Vec<usize>,
    /// Times from the end of an interrupted run to its resumption, each a start and an end.
    gaps: Vec<[i64; 2]>,
    /// Start of each call, relative to the start of the previous call.
    start: Vec<i64>,
    length: Vec<i64>,
    lane: Vec<u32>,
    task: Vec<usize>,
    state: String,
    wall_us: Option<Vec<u64>>,
    memory_kib: Option<Vec<u64>>,
    names: Option<Vec<String>>,
}

/// Converts the calls of a run to data for the script.
pub(super) fn timeline_data(summary: &RunSummary, calls: &CallTable) -> TimelineData {
    let origin = summary.started.as_microsecond();
    let end = calls
        .rows
        .iter()
        .map(|row| row.end_us)
        .max()
        .unwrap_or(origin);
    let unit = (end.saturating_sub(origin) / RESOLUTION).max(1);
    let units = |us: i64| us.saturating_sub(origin) / unit;
    let mut last = 0;
    let start: Vec<_> = calls
        .rows
        .iter()
        .map(|row| {
            let step = units(row.start_us) - last;
            last = units(row.start_us);
            step
        })
        .collect();
    let index_of = |order: u64| {
        summary
            .tasks
            .iter()
            .position(|task| task.order == order)
            .unwrap_or(0)
    };
    let state = |state| match state {
        CallState::Done => '0',
        CallState::Failed => '1',
        CallState::Open => '2',
    };
    let rows = &calls.rows;
    let named = (rows.len() <= MAX_NAMED).then_some(rows);
    TimelineData {
        unit_us: unit,
        span: units(end),
        n_lanes: calls.n_lanes,
        tasks: summary
            .tasks
            .iter()
            .map(|task| escaped(&task.name))
            .collect(),
        color: (0..summary.tasks.len()).map(color).collect(),
        gaps: calls
            .gaps
            .iter()
            .map(|(from_us, to_us)| [units(*from_us), units(*to_us)])
            .collect(),
        start,
        length: rows
            .iter()
            .map(|row| units(row.end_us) - units(row.start_us))
            .collect(),
        lane: rows.iter().map(|row| row.lane).collect(),
        task: rows.iter().map(|row| index_of(row.task)).collect(),
        state: rows.iter().map(|row| state(row.state)).collect(),
        wall_us: named.map(|rows| {
            rows.iter()
                .map(|row| row.wall_time.as_micros() as u64)
                .collect()
        }),
        memory_kib: named.map(|rows| rows.iter().map(|row| row.peak_memory_bytes >> 10).collect()),
        names: named.map(|rows| {
            rows.iter()
                .map(|row| escaped(&name_end(&row.name)))
                .collect()
        }),
    }
}

/// Returns the end of a long name, since items of one dataset differ at their ends.
pub(super) fn name_end(name: &str) -> String {
    let n_dropped = name.chars().count().saturating_sub(NAME_CHARS);
    let end: String = name.chars().skip(n_dropped).collect();
    if n_dropped > 0 {
        format!("...{end}")
    } else {
        end
    }
}

/// Returns the text above the timeline.
pub(super) fn timeline_text(calls: &CallTable) -> String {
    let lanes = match calls.n_lanes {
        1 => "one call at a time".to_owned(),
        n => format!("up to {n} calls at a time, one row for each"),
    };
    let hint = r#"<span class="hint">Drag to zoom in, double-click to show everything.</span>"#;
    format!("{} calls, {lanes}. {hint}", calls.rows.len())
}

/// Returns the legend of the colours.
pub(super) fn legend(summary: &RunSummary, calls: &CallTable) -> String {
    let item = |style: &str, text: String| format!("<span><i {style}></i>{text}</span>\n");
    let tasks = summary.tasks.iter().enumerate();
    let mut legend: String = tasks
        .map(|(index, task)| {
            item(
                &format!("class=\"c{}\"", color(index)),
                html_start(&task.name, 60),
            )
        })
        .collect();
    for (state, name, text) in [
        (CallState::Failed, "bad", "failed"),
        (CallState::Open, "open", "unfinished"),
    ] {
        if calls.rows.iter().any(|row| row.state == state) {
            legend.push_str(&item(
                &format!("style=\"background: var(--{name})\""),
                text.to_owned(),
            ));
        }
    }
    legend
}
