//! `mandelbox status`: the state of a run, read from its event log.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Answer;
use super::arguments::StatusArguments;
use super::documents::absolute;
use super::shared_arguments::FormatArgument;
use crate::event::{
    EndOfLog, EventLog, FailedCall, JobSummary, ReadEventsError, RunSummary, Status, TaskSummary,
    visit_events,
};
use crate::json::build_json;
use crate::report::status_text;
use crate::run::exit_code;
use crate::text::{escaped, time_text};
use crate::workdir::{LockHolder, WorkDir};

pub(super) fn status(arguments: &StatusArguments) -> Answer {
    let work_dir = absolute(&arguments.work_dir);
    let mut summary = RunSummary::default();
    let read = visit_events(&work_dir.join(EventLog::NAME), |event| summary.add(&event));
    let read = read.map_err(|err| no_run(&work_dir, &err));
    match read.and_then(|end| check_begun(&work_dir, &summary, &end).map(|()| end)) {
        Ok(end) => summary.note_damage(&end),
        Err(text) => return Answer::text(text, exit_code::WRONG_INPUT),
    }
    let holder = WorkDir::holder(&work_dir);
    match arguments.format {
        FormatArgument::Text => Answer::text(
            status_text(
                &summary,
                &work_dir,
                holder.as_ref().map(|holder| holder as _),
                Timestamp::now(),
            ),
            exit_code::SUCCESS,
        ),
        FormatArgument::Json => {
            let mut stdout = build_json(&facts(&summary, &work_dir, holder.as_ref()), 2);
            stdout.push(b'\n');
            Answer {
                stdout,
                ..Answer::default()
            }
        }
    }
}

/// Returns the message for a work directory whose event log cannot be read.
pub(super) fn no_run(work_dir: &Path, err: &ReadEventsError) -> String {
    let path = escaped(&work_dir.join(EventLog::NAME).to_string_lossy());
    match err {
        ReadEventsError::Io(err) if err.kind() == std::io::ErrorKind::NotFound => {
            let folder = escaped(&work_dir.to_string_lossy());
            format!(
                "error: {folder}: not the work directory of a run, because it contains no `{}`; \
                 name the folder of `--work-dir`, or one in `mandelbox-runs`\n",
                EventLog::NAME
            )
        }
        ReadEventsError::Io(err) if err.kind() == std::io::ErrorKind::NotADirectory => {
            let folder = escaped(&work_dir.to_string_lossy());
            format!("error: {folder}: is not a folder; name the work directory of a run\n")
        }
        ReadEventsError::Line(err) => {
            format!("error: {path}: {err}; use the version of mandelbox that wrote it\n")
        }
        err => format!("error: {path}: {err}\n"),
    }
}

fn check_begun(work_dir: &Path, summary: &RunSummary, end: &EndOfLog) -> Result<(), String> {
    if summary.run.is_some() {
        return Ok(());
    }
    let path = escaped(&work_dir.join(EventLog::NAME).to_string_lossy());
    if end.is_headless {
        let text = "its first line is damaged, so no other line can be used; `run --resume` starts \
            from scratch";
        return Err(format!("error: {path}: {text}\n"));
    }
    Err(format!(
        "error: {path}: contains no event yet, because the run has just started or was killed at \
         its start\n"
    ))
}

fn facts(summary: &RunSummary, work_dir: &Path, holder: Option<&LockHolder>) -> Value {
    let run = summary.run.as_deref();
    json!({
        "work_dir": work_dir.to_string_lossy(),
        "workflow": run.map(|run| &run.workflow),
        "mandelbox_version": run.map(|run| &run.mandelbox_version),
        "backend": run.map(|run| &run.backend),
        "state": match (summary.end, holder) {
            (Some(Status::Done), _) => "done",
            (Some(Status::Failed), _) => "failed",
            (None, Some(_)) => "running",
            (None, None) => "killed",
        },
        "process": holder,
        "error": summary.error,
        "started": time_text(summary.started),
        "last_event": time_text(summary.last_event),
        "resumed": summary.resumed.iter().map(|time| time_text(*time)).collect::<Vec<_>>(),
        "n_tasks": summary.n_tasks(),
        "tasks": summary.tasks.iter().map(|task| task_facts(task, work_dir)).collect::<Vec<_>>(),
        "warnings": summary.warnings,
    })
}

fn job_facts(jobs: &JobSummary) -> Value {
    json!({
        "n_queued": jobs.n_queued,
        "n_running": jobs.n_running,
        "n_ended": jobs.n_ended,
        "reason": jobs.reason,
        "total_queue_time_s": jobs.queued_s.0,
        "total_run_time_s": jobs.ran_s.0,
    })
}

fn task_facts(task: &TaskSummary, work_dir: &Path) -> Value {
    let failed = |((_, index), call): (&(u32, usize), &FailedCall)| {
        json!({
            "call_index": index,
            "item": call.item,
            "attempt": call.attempt,
            "outcome": call.outcome,
            "message": call.outcome.describe(),
            "usage": call.usage,
            "stderr": call.stderr.as_ref().map(|path| work_dir.join(path)),
        })
    };
    json!({
        "task": task.order,
        "name": task.name,
        "state": match task.end {
            Some((_, Status::Done)) => "done",
            Some((_, Status::Failed)) => "failed",
            None => "no_end",
        },
        "items": task.items,
        "module_sha256": task.module_sha256,
        "started": time_text(task.started),
        "ended": task.end.map(|(time, _)| time_text(time)),
        "n_calls": task.n_calls,
        "n_reused": task.n_reused,
        "n_done": task.n_done(),
        "n_failed": task.failed.len(),
        "n_running": task.n_running(),
        "n_to_do": task.n_to_do(),
        "longest_call_s": task.longest_time.as_secs_f64(),
        "peak_memory_bytes": task.peak_memory_bytes,
        "n_warnings": task.n_warnings,
        "item_changes": task.changes,
        "jobs": task.jobs.as_ref().map(job_facts),
        "failed": task.failed.iter().map(failed).collect::<Vec<_>>(),
    })
}
