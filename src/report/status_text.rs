//! The text that `mandelbox status` prints.

use std::fmt::{Display, Write as _};
use std::path::Path;

use jiff::Timestamp;

use crate::event::{RunSummary, Status, TaskSummary};
use crate::model::CallFailure;
use crate::text::{duration_text, escaped};

/// Maximum number of failed calls, and of warnings, that are listed.
const MAX_FAILED: usize = 20;

/// Formats the state of a run for a person.
///
/// * `work_dir`: folder of the run, wherever it is now.
/// * `holder`: the process that runs it, if any.
/// * `now`: time to which the ages of events are computed.
pub fn status_text(
    summary: &RunSummary,
    work_dir: &Path,
    holder: Option<&dyn Display>,
    now: Timestamp,
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if let Some(run) = summary.run.as_deref() {
        let _ = writeln!(
            text,
            "workflow \"{}\", {}",
            escaped(&run.workflow),
            state(summary, holder, now)
        );
        let _ = writeln!(
            text,
            "  started {}, {} until the last event; mandelbox {}, backend {}",
            summary.started.strftime("%Y-%m-%d %H:%M:%S UTC"),
            duration_text(summary.elapsed()),
            escaped(&run.mandelbox_version),
            escaped(&run.backend)
        );
        if !run.only.is_empty() {
            let globs = escaped(&run.only.join(", "));
            let _ = writeln!(text, "  trial run: only items that match {globs}");
        }
        if let Some(last) = summary.resumed.last() {
            let times = match summary.resumed.len() {
                1 => "once,".to_owned(),
                n => format!("{n} times, last"),
            };
            let last = last.strftime("%Y-%m-%d %H:%M:%S UTC");
            let _ = writeln!(text, "  resumed {times} on {last}");
        }
    }
    if let Some(n_tasks) = summary.n_tasks() {
        let _ = writeln!(text, "tasks: {} of {n_tasks} started", summary.tasks.len());
    }
    for task in &summary.tasks {
        text.push_str(&task_lines(task, summary));
    }
    text.push_str(&failures(summary, work_dir));
    for warning in summary.warnings.iter().take(MAX_FAILED) {
        let _ = writeln!(text, "warning: {}", escaped(warning));
    }
    if summary.warnings.len() > MAX_FAILED {
        let _ = writeln!(
            text,
            "and {} more warnings in the log",
            summary.warnings.len() - MAX_FAILED
        );
    }
    let _ = writeln!(
        text,
        "log: {}",
        shown(&work_dir.join(crate::workdir::layout::LOG_FILE))
    );
    text
}

fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

fn state(summary: &RunSummary, holder: Option<&dyn Display>, now: Timestamp) -> String {
    match (summary.end, &summary.error) {
        (Some(Status::Done), _) => "succeeded".to_owned(),
        (Some(Status::Failed), error) => format!(
            "failed: {}",
            escaped(error.as_deref().unwrap_or("unknown error"))
        ),
        (None, _) => {
            let age = duration_text(crate::text::span(summary.last_event, now));
            match holder {
                Some(holder) => format!("running ({holder}); the last event was {age} ago"),
                None => format!(
                    "interrupted {age} ago (killed, or the machine was lost); continue it with \
                     `run --resume`"
                ),
            }
        }
    }
}

fn task_lines(task: &TaskSummary, summary: &RunSummary) -> String {
    let mut counts = vec![format!("{} of {} done", task.n_done(), task.n_calls)];
    counts.extend((task.n_reused > 0).then(|| format!("{} reused", task.n_reused)));
    let running = if summary.end.is_some() || task.end.is_some() {
        "unfinished"
    } else {
        "running"
    };
    let others = [
        (task.failed.len(), "failed"),
        (task.n_running(), running),
        (task.n_to_do(), "pending"),
    ];
    counts.extend(
        others
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, state)| format!("{n} {state}")),
    );
    let state = match task.end {
        Some((_, Status::Done)) => "done",
        Some((_, Status::Failed)) => "failed",
        None => "unfinished",
    };
    let mut text = format!(
        "  {} \"{}\" {state} after {}: {}",
        task.order,
        escaped(&task.name),
        duration_text(task.elapsed(summary.last_event)),
        counts.join(", ")
    );
    if !task.longest_time.is_zero() {
        let _ = write!(text, "; longest call {}", duration_text(task.longest_time));
    }
    if task.n_warnings > 0 {
        let _ = write!(text, "; {} with warnings", task.n_warnings);
    }
    if let Some(changes) = task.changes {
        let item_kind = summary.run.as_deref().map_or("item", |run| &*run.item_kind);
        let _ = write!(text, "; {}", changes.describe(item_kind));
    }
    if let Some(jobs) = &task.jobs {
        let _ = write!(text, "; jobs: {}", escaped(&jobs.describe()));
    }
    if matches!(task.end, Some((_, Status::Failed))) && task.failed.is_empty() {
        text.push_str("; it failed outside its calls");
    }
    text + "\n"
}

fn failures(summary: &RunSummary, work_dir: &Path) -> String {
    let failed = summary.tasks.iter().flat_map(|task| {
        let calls = task.failed.values();
        calls.map(move |call| (task, call))
    });
    let n_failed = failed.clone().count();
    let mut text = String::new();
    let item_kind = match &summary.run {
        Some(run) => run.item_kind.as_ref(),
        None => "item",
    };
    for (task, call) in failed.take(MAX_FAILED) {
        let failure = CallFailure {
            call_index: 0,
            item_kind: item_kind.to_owned().into(),
            item: call.item.clone(),
            outcome: call.outcome.clone(),
            // The error of a run shows the end of stderr; here its path is enough.
            stderr_tail: String::new(),
            stderr_path: call.stderr.as_ref().map(|path| work_dir.join(path)),
        };
        let name = escaped(&task.name);
        let _ = writeln!(
            text,
            "failed: task \"{name}\" (order {}): {failure}",
            task.order
        );
    }
    if n_failed > MAX_FAILED {
        let _ = writeln!(
            text,
            "and {} more failed; `--format json` lists all",
            n_failed - MAX_FAILED
        );
    }
    text
}
