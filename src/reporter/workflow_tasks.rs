//! The workflow tasks of a run as its history has them: with their args, which no event holds.

use std::path::Path;

use jiff::Timestamp;

use crate::event::{RunSummary, TaskSummary};
use crate::folder::open_plain_file;
use crate::json::{DuplicateKeys, MAX_DATASET_DEPTH, Map, Value, read_json_from};

/// Bytes of a record that is read for them.
const MAX_BYTES: u64 = 1 << 30;

/// The workflow task of each task of `summary`, in its order, as the run's last records have it; `None` for a task that
/// has no history item, as the one that a killed run ended in.
pub(super) fn read_workflow_tasks(work_dir: &Path, summary: &RunSummary) -> Vec<Option<Map<String, Value>>> {
    let read = |name| {
        let file = open_plain_file(&work_dir.join(name)).ok()?;
        read_json_from(file, MAX_BYTES, MAX_DATASET_DEPTH, DuplicateKeys::LastWins).ok()
    };
    // A failed task is in the result only; a killed run has none.
    let history = match (read("result.json"), summary.end) {
        (Some(Value::Object(mut result)), Some(_)) => result.remove("history"),
        _ => read("history.json"),
    };
    let Some(Value::Array(mut items)) = history else { return vec![None; summary.tasks.len()] };
    let take = |task: &TaskSummary| {
        let item = items.iter_mut().rev().find(|item| is_of(item, task, summary.started))?;
        match item["workflowtask"].take() {
            Value::Object(workflow_task) => Some(workflow_task),
            _ => None,
        }
    };
    summary.tasks.iter().map(take).collect()
}

/// Whether a history item is that of a task in a run that began then: items of earlier runs may stand before.
fn is_of(item: &Value, task: &TaskSummary, run_started: Timestamp) -> bool {
    let started = item["mandelbox"]["started"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    item["workflowtask"]["order"].as_u64() == Some(task.order)
        && item["mandelbox"]["module_sha256"].as_str() == Some(&task.module_sha256)
        && started.is_some_and(|started| started >= run_started)
}
