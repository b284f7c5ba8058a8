//! The parts of the page that are text, tables and bars.

use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::calls::{CallRow, CallState, CallTable, item_text};
use super::charts::LogAxis;
use super::markup::{href, html, html_start};
use super::timeline::{color, name_end};
use crate::event::{RunSummary, Status, TaskSummary};
use crate::model::record_names::{
    DATASET_FILE, HISTORY_FILE, METADATA_FILE, RESULT_FILE, STATUS_FILE,
};
use crate::text::escape::percent_encoded;
use crate::text::{bytes_text, duration_text};
use crate::workdir::layout::{EVENT_LOG_FILE, LOG_FILE};

/// Number of failed calls that are visible without unfolding.
const MAX_UNFOLDED: usize = 5;
/// Number of failed calls that are shown with their outcome and the end of their stderr.
const MAX_IN_FULL: usize = 50;
/// Number of further failed calls that are only named.
const MAX_NAMED: usize = 1000;
const N_SLOWEST: usize = 20;
const MAX_WARNINGS: usize = 100;
/// Bytes shown of the end of stderr.
const TAIL_BYTES: u64 = 2 << 10;
/// Maximum number of characters of a message, and of a name.
const TEXT_CHARS: usize = 2000;
const NAME_CHARS: usize = 200;
/// Text for an empty list.
const NONE: &str = "none";

/// Returns the state of the run in words, and its CSS class.
pub(super) fn state(summary: &RunSummary) -> (String, &'static str) {
    match summary.end {
        Some(Status::Done) => ("succeeded".to_owned(), "good"),
        Some(Status::Failed) => (
            format!(
                "failed: {}",
                summary.error.as_deref().unwrap_or("unknown error")
            ),
            "bad",
        ),
        None => ("unfinished: still running, or killed".to_owned(), "open"),
    }
}

pub(super) fn subtitle(summary: &RunSummary) -> String {
    let Some(run) = summary.run.as_deref() else {
        return String::new();
    };
    format!(
        "{} to {} &middot; mandelbox {} &middot; backend {}",
        summary.started.strftime("%Y-%m-%d %H:%M:%S"),
        summary.last_event.strftime("%Y-%m-%d %H:%M:%S UTC"),
        html(&run.mandelbox_version),
        html(&run.backend)
    ) + &trial_run(&run.only)
}

/// Returns the end of the subtitle of a trial run; nothing for another run.
fn trial_run(only: &[String]) -> String {
    match only {
        [] => String::new(),
        globs => format!(
            " &middot; trial run: only items that match {}",
            html(&globs.join(", "))
        ),
    }
}

pub(super) fn cards(summary: &RunSummary, calls: &CallTable) -> String {
    let card = |value: String, text: String| {
        format!("<div class=\"card\"><b>{value}</b><span>{text}</span></div>\n")
    };
    let sum = |count: fn(&TaskSummary) -> usize| summary.tasks.iter().map(count).sum::<usize>();
    let (n_done, n_failed) = (sum(TaskSummary::n_done), sum(|task| task.failed.len()));
    let total = summary.tasks.iter().fold(Duration::ZERO, |total, task| {
        total.saturating_add(task.total_time)
    });
    let n_tasks = summary
        .n_tasks()
        .map_or(String::new(), |n| format!(" of {n}"));
    let mut cards = card(duration_text(summary.elapsed()), "elapsed time".to_owned());
    cards += &card(
        format!("{}{n_tasks}", summary.tasks.len()),
        "tasks started".to_owned(),
    );
    cards += &card(n_done.to_string(), "calls succeeded".to_owned());
    let class = if n_failed > 0 { "bad" } else { "quiet" };
    cards += &card(
        format!("<em class=\"{class}\" style=\"font-style:normal\">{n_failed}</em>"),
        "calls failed".to_owned(),
    );
    cards += &card(duration_text(total), "run time of all calls".to_owned());
    let cpu_time = summary.tasks.iter().fold(Duration::ZERO, |total, task| {
        total.saturating_add(task.total_cpu_time)
    });
    cards += &card(
        duration_text(cpu_time),
        "CPU time of calls of 1 ms or more".to_owned(),
    );
    if let Some(row) = calls.rows.iter().max_by_key(|row| row.wall_time) {
        let name = if row.name.is_empty() {
            task_name(summary, row.task)
        } else {
            html(&name_end(&row.name))
        };
        cards += &card(
            duration_text(row.wall_time),
            format!("slowest call: {name}"),
        );
    }
    if let Some(row) = calls.rows.iter().max_by_key(|row| row.peak_memory_bytes) {
        cards += &card(
            bytes_text(row.peak_memory_bytes),
            "peak memory of a call".to_owned(),
        );
    }
    cards
}

/// Returns the name of a task, safe in HTML.
fn task_name(summary: &RunSummary, order: u64) -> String {
    let task = summary.tasks.iter().find(|task| task.order == order);
    task.map_or(String::new(), |task| html_start(&task.name, NAME_CHARS))
}

pub(super) fn graph(summary: &RunSummary) -> String {
    let mut graph: String = summary
        .tasks
        .iter()
        .map(|task| graph_box(task, summary))
        .collect();
    let n_later = summary
        .n_tasks()
        .unwrap_or(0)
        .saturating_sub(summary.tasks.len());
    if n_later > 0 {
        let noun = if n_later == 1 { "task" } else { "tasks" };
        let _ = writeln!(
            graph,
            "<li class=\"later\"><strong>{n_later} more {noun}</strong>not started</li>"
        );
    }
    graph
}

fn graph_box(task: &TaskSummary, summary: &RunSummary) -> String {
    let n_all = task.n_calls.max(1) as f64;
    let kinds = [
        (task.n_done(), "good", "done"),
        (task.failed.len(), "bad", "failed"),
        (task.n_running(), "open", "unfinished"),
        (task.n_to_do(), "wait", "not started"),
    ];
    let mut bars = String::new();
    let mut counts = Vec::new();
    for (n, class, word) in kinds.into_iter().filter(|(n, ..)| *n > 0) {
        if class != "wait" {
            let _ = write!(
                bars,
                "<i class=\"{class}\" style=\"width:{:.2}%\"></i>",
                n as f64 / n_all * 100.0
            );
        }
        let class = if class == "wait" { "quiet" } else { class };
        counts.push(format!("<span class=\"{class}\">{n} {word}</span>"));
    }
    if counts.is_empty() {
        counts.push("no items".to_owned());
    }
    let kind = match &task.items {
        // A task can list further calls in its first one.
        None if task.n_calls > 1 => format!("one call, which listed {} more", task.n_calls - 1),
        None => "one call".to_owned(),
        Some(level) => format!("one call for each {}", html_start(level, NAME_CHARS)),
    };
    let whole = matches!(task.end, Some((_, Status::Failed))) && task.failed.is_empty();
    let whole = if whole {
        "<br><span class=\"bad\">failed outside its calls</span>"
    } else {
        ""
    };
    let changes = changes(task, summary);
    format!(
        "<li><span class=\"quiet\">{} &middot; {}</span><strong>{}</strong><div \
         class=\"bar\">{bars}</div>{}{whole}<br><span \
         class=\"quiet\">{kind}{changes}</span></li>\n",
        task.order,
        duration_text(task.elapsed(summary.last_event)),
        html_start(&task.name, NAME_CHARS),
        counts.join(", ")
    )
}

/// Returns how a task changed the list of items, and the number of its calls with warnings; empty
/// if there is nothing to show.
fn changes(task: &TaskSummary, summary: &RunSummary) -> String {
    let mut text = String::new();
    if let Some(jobs) = &task.jobs {
        let _ = write!(text, "<br>jobs: {}", html(&jobs.describe()));
    }
    if task.n_warnings > 0 {
        let _ = write!(text, "<br>{} with warnings", task.n_warnings);
    }
    if let Some(changes) = task.changes {
        let item_kind = summary.run.as_deref().map_or("item", |run| &*run.item_kind);
        let _ = write!(text, "<br>{}", html(&changes.describe(item_kind)));
    }
    text
}

/// Returns the section of failed calls; empty if there are none.
pub(super) fn failed(summary: &RunSummary, work_dir: &Path) -> String {
    let failed: Vec<_> = summary
        .tasks
        .iter()
        .flat_map(|task| task.failed.values().map(move |call| (task, call)))
        .collect();
    if failed.is_empty() {
        return String::new();
    }
    let mut text = format!("<section>\n<h2>Failed calls ({})</h2>\n", failed.len());
    for (position, (task, call)) in failed.iter().take(MAX_IN_FULL).enumerate() {
        if position == MAX_UNFOLDED {
            let n_folded = failed.len().min(MAX_IN_FULL) - MAX_UNFOLDED;
            let _ = writeln!(
                text,
                "<details><summary>{n_folded} more with details</summary>"
            );
        }
        let stderr = call.stderr.as_ref();
        let name = item_text(call.item.as_ref());
        let name = if name.is_empty() {
            "the call".to_owned()
        } else {
            html_start(&name, NAME_CHARS)
        };
        let _ = writeln!(
            text,
            "<div class=\"failure\"><strong>{name}</strong> <span class=\"quiet\">of {} \
             {}</span><br>{}",
            task.order,
            html_start(&task.name, NAME_CHARS),
            html_start(&call.outcome.describe(), TEXT_CHARS)
        );
        if let Some(relative) = stderr {
            let tail = stderr_tail(&work_dir.join(relative));
            if !tail.trim().is_empty() {
                let lines: Vec<_> = tail.trim_end().lines().map(html).collect();
                let _ = writeln!(text, "<pre>{}</pre>", lines.join("\n"));
            }
            let _ = writeln!(
                text,
                "<span class=\"quiet\">stderr: <a href=\"{}\">{}</a></span>",
                href(relative),
                html(relative)
            );
        }
        text.push_str("</div>\n");
    }
    if failed.len() > MAX_IN_FULL {
        let names = failed.iter().skip(MAX_IN_FULL).take(MAX_NAMED);
        let names: Vec<_> = names
            .map(|(_, call)| html_start(&item_text(call.item.as_ref()), 60))
            .collect();
        let n_more = failed.len().saturating_sub(MAX_IN_FULL + MAX_NAMED);
        let more = if n_more > 0 {
            format!(", and {n_more} more")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "<p>Also failed: {}{more}; <code>mandelbox status --format json</code> shows the \
             reasons.</p>",
            names.join(", ")
        );
    }
    if failed.len() > MAX_UNFOLDED {
        text.push_str("</details>\n");
    }
    text + "</section>"
}

/// Returns the last bytes of a file as text; empty if it cannot be read.
fn stderr_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = crate::folder::open_plain_file(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

pub(super) fn distributions(summary: &RunSummary, calls: &CallTable) -> String {
    let ended = || calls.rows.iter().filter(|row| row.state != CallState::Open);
    let micros = |row: &&CallRow| row.wall_time.as_micros() as f64;
    let bytes = |row: &&CallRow| row.peak_memory_bytes as f64;
    let time_axis = LogAxis::new(ended().map(|row| micros(&row)), 10.0, 10.0);
    let memory_axis = LogAxis::new(ended().map(|row| bytes(&row)), 1024.0, 4.0);
    let mut table = format!(
        "<thead><tr><th>task</th><th class=\"n\">calls</th><th>run time of a call{}</th><th \
         class=\"n\">median</th><th class=\"n\">95 %</th><th class=\"n\">longest</th><th>peak \
         memory of a call{}</th><th class=\"n\">median</th><th \
         class=\"n\">largest</th></tr></thead>\n<tbody>",
        time_axis.labels(1.0, |us| duration_text(Duration::from_micros(us as u64))
            .replace(".0 ", " ")
            .replace(".00 ", " ")),
        memory_axis.labels(1024.0, |bytes| bytes_text(bytes as u64)),
    );
    for (index, task) in summary.tasks.iter().enumerate() {
        let rows: Vec<_> = ended().filter(|row| row.task == task.order).collect();
        let mut times: Vec<_> = rows.iter().map(|row| row.wall_time).collect();
        let mut memories: Vec<_> = rows.iter().map(|row| row.peak_memory_bytes).collect();
        times.sort_unstable();
        memories.sort_unstable();
        let name = html_start(&task.name, NAME_CHARS);
        let class = format!("c{}", color(index));
        let time = |part| quantile(&times, part).map_or(String::new(), duration_text);
        let memory = |part| quantile(&memories, part).map_or(String::new(), bytes_text);
        let _ = writeln!(
            table,
            "<tr><td class=\"name\">{name}</td><td class=\"n\">{}</td><td>{}</td><td \
             class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td \
             class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            rows.len(),
            time_axis.histogram(
                rows.iter().map(micros),
                &class,
                &format!("run times of {name}")
            ),
            time(0.5),
            time(0.95),
            time(1.0),
            memory_axis.histogram(
                rows.iter().map(bytes),
                &class,
                &format!("peak memory of {name}")
            ),
            memory(0.5),
            memory(1.0),
        );
    }
    table + "</tbody>"
}

/// Returns the smallest value that at least this part of the sorted values does not exceed.
fn quantile<T: Copy>(sorted: &[T], part: f64) -> Option<T> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

pub(super) fn slowest(summary: &RunSummary, calls: &CallTable) -> String {
    let mut rows: Vec<_> = calls.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.wall_time));
    let origin = summary.started.as_microsecond();
    let item_kind = match &summary.run {
        Some(run) => html(&run.item_kind),
        None => "item".to_owned(),
    };
    // Short calls have no CPU time.
    let has_cpu_time = rows.iter().any(|row| row.cpu_time.is_some());
    let cpu_title = if has_cpu_time {
        "<th class=\"n\">CPU time</th>"
    } else {
        ""
    };
    let mut table = format!(
        "<thead><tr><th class=\"n\">run time</th>{cpu_title}<th>{item_kind}</th><th>task</th>\
         <th class=\"n\">started after</th><th class=\"n\">peak memory</th>\
         <th>outcome</th></tr></thead>\n<tbody>"
    );
    for row in rows.into_iter().take(N_SLOWEST) {
        let (class, outcome) = match row.state {
            CallState::Done => ("good", "done"),
            CallState::Failed => ("bad", "failed"),
            CallState::Open => ("open", "unfinished"),
        };
        let started =
            Duration::from_micros(row.start_us.saturating_sub(origin).try_into().unwrap_or(0));
        let cpu_time = match row.cpu_time {
            _ if !has_cpu_time => String::new(),
            Some(time) => format!("<td class=\"n\">{}</td>", duration_text(time)),
            None => "<td></td>".to_owned(),
        };
        let _ = writeln!(
            table,
            "<tr><td class=\"n\">{}</td>{cpu_time}<td class=\"name\">{}</td><td class=\"name\">{} \
             {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
             class=\"{class}\">{outcome}</td></tr>",
            duration_text(row.wall_time),
            html_start(&row.name, NAME_CHARS),
            row.task,
            task_name(summary, row.task),
            duration_text(started),
            bytes_text(row.peak_memory_bytes)
        );
    }
    table + "</tbody>"
}

/// Returns the section of warnings; empty if there are none.
pub(super) fn warnings(summary: &RunSummary) -> String {
    if summary.warnings.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "<section>\n<h2>Warnings ({})</h2>\n<ul>\n",
        summary.warnings.len()
    );
    for warning in summary.warnings.iter().take(MAX_WARNINGS) {
        let _ = writeln!(text, "<li>{}</li>", html_start(warning, TEXT_CHARS));
    }
    text + "</ul>\n</section>"
}

/// Returns a link to a file or folder of this machine, with its path as the text.
fn path_link(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!(
        "<a href=\"file://{}\"><code>{}</code></a>",
        percent_encoded(&text),
        html(&text)
    )
}

/// Returns links to the pictures directly in the output, such as contact sheets.
fn pictures(output: &Path) -> Vec<String> {
    const MAX_PICTURES: usize = 20;
    let is_picture = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        let extensions = ["png", "jpg", "jpeg", "svg"];
        extensions
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    };
    let entries = std::fs::read_dir(output).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(is_picture)
        .collect();
    found.sort_unstable();
    found
        .iter()
        .take(MAX_PICTURES)
        .map(|path| path_link(path))
        .collect()
}

pub(super) fn facts(summary: &RunSummary, work_dir: &Path) -> String {
    let Some(run) = summary.run.as_deref() else {
        return String::new();
    };
    let code = |text: &str| format!("<code>{}</code>", html(text));
    let list = |items: Vec<String>| match items.len() {
        0 => NONE.to_owned(),
        _ => format!(
            "<ul>{}</ul>",
            items
                .iter()
                .map(|item| format!("<li>{item}</li>"))
                .collect::<String>()
        ),
    };
    let index = |index: Option<usize>| index.map_or(NONE.to_owned(), |index| index.to_string());
    let digest = |task: &TaskSummary| {
        let script = task.script.as_ref().map_or(String::new(), |script| {
            let name = script.path.file_name().unwrap_or_default();
            let name = html_start(&name.to_string_lossy(), NAME_CHARS);
            format!(", script {name}: {}", code(&script.sha256))
        });
        format!(
            "{} {}: {}{script}",
            task.order,
            html_start(&task.name, NAME_CHARS),
            code(&task.module_sha256)
        )
    };
    let paths = run.input_paths.iter().map(|path| path_link(path));
    const METADATA_KEYS: &str = "metadata keys at the start";
    const PICTURES: &str = "pictures in the output";
    /// Rows that not all runs have.
    const OPTIONAL: [&str; 2] = [METADATA_KEYS, PICTURES];
    const FILES: [&str; 7] = [
        LOG_FILE,
        EVENT_LOG_FILE,
        METADATA_FILE,
        HISTORY_FILE,
        DATASET_FILE,
        STATUS_FILE,
        RESULT_FILE,
    ];
    let files = FILES.iter().filter(|file| work_dir.join(file).is_file());
    let rows = [
        ("mandelbox", html(&run.mandelbox_version)),
        ("backend", html(&run.backend)),
        ("event log, format version", run.format_version.to_string()),
        (
            "modules, SHA-256",
            list(summary.tasks.iter().map(digest).collect()),
        ),
        ("input paths", list(paths.collect())),
        ("output path", path_link(&run.output_path)),
        (PICTURES, list(pictures(&run.output_path))),
        ("work directory", path_link(&run.work_dir)),
        (
            METADATA_KEYS,
            list(
                run.input_metadata_keys
                    .iter()
                    .map(|key| code(key))
                    .collect(),
            ),
        ),
        (
            "first and last task (index)",
            format!(
                "{} and {}",
                index(run.first_task_index),
                index(run.last_task_index)
            ),
        ),
        (
            "files of the run",
            list(
                files
                    .map(|file| format!("<a href=\"{}\">{file}</a>", href(file)))
                    .collect(),
            ),
        ),
    ];
    let is_known = |(name, value): &&(&str, String)| !OPTIONAL.contains(name) || value != NONE;
    rows.iter()
        .filter(is_known)
        .map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>\n"))
        .collect()
}
