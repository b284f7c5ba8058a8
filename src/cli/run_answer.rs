//! Answers of `run --format json`: a plan, problems of documents, or the outcome of a run.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Answer;
use super::check::problem_facts;
use crate::json::build_json;
use crate::model::{CallFailure, HostError, Outcome, Rights, TaskSpec};
use crate::problem::Problems;
use crate::run::{Error, PreparedRun, TaskFailure, exit_code};

/// Bytes at the end of the stderr of the first failed call that an answer contains.
const STDERR_BYTES: u64 = 100_000;

/// Returns the answer for documents with problems.
pub(super) fn problems_answer(problems: &Problems) -> Answer {
    let error = json!({ "kind": "DocumentsError", "message": problems.to_string() });
    let facts = json!({
        "ok": false,
        "error": error,
        "problems": problem_facts(problems.iter()),
        "warnings": problem_facts(problems.warnings()),
    });
    answer(&facts, exit_code::WRONG_INPUT)
}

/// Returns the answer of a dry run.
pub(super) fn plan_answer(run: &PreparedRun) -> Answer {
    let grant = |grant: &crate::model::Grant| {
        json!({
            "path": grant.host_path.to_string_lossy(),
            "writable": grant.rights == Rights::ReadWrite,
        })
    };
    let facts = json!({
        "ok": true,
        "workflow": run.plan.workflow_name,
        "work_dir": run.work_dir.to_string_lossy(),
        "output": run.plan.output_path.to_string_lossy(),
        "folders": run.grants.iter().map(grant).collect::<Vec<_>>(),
        "tasks": run.plan.tasks.iter().map(|task| task_facts(task, run)).collect::<Vec<_>>(),
        "warnings": problem_facts(&run.plan.warnings),
    });
    answer(&facts, exit_code::SUCCESS)
}

fn task_facts(task: &TaskSpec, run: &PreparedRun) -> Value {
    let preview = run.preview(task);
    json!({
        "order": task.order,
        "id": task.id,
        "name": task.name,
        "module": task.module.path.to_string_lossy(),
        "sha256": task.module.sha256,
        "calls": preview.calls,
        "max_parallel": task.max_parallel,
        "memory_bytes": task.limits.memory_bytes,
        "wall_time_s": task.limits.wall_time.map(|time| time.as_secs_f64()),
        "args": preview.args,
    })
}

/// Returns the object for a run that has ended.
///
/// * `error`: `None` if the run succeeded.
pub(super) fn outcome_facts(work_dir: &Path, output: &Path, error: Option<&Error>) -> Value {
    let mut facts = json!({
        "ok": error.is_none(),
        "work_dir": work_dir.to_string_lossy(),
        "output": output.to_string_lossy(),
        "error": error.map(error_facts),
    });
    if let Some(Error::Documents(problems)) = error {
        facts["problems"] = Value::Array(problem_facts(problems.iter()));
    }
    facts
}

/// Returns the answer for a failure of the host.
pub(super) fn host_answer(err: &HostError) -> Answer {
    let facts = json!({ "ok": false, "error": host_facts(err) });
    answer(&facts, exit_code::HOST_FAILED)
}

fn error_facts(error: &Error) -> Value {
    let kind = match error {
        Error::Documents(_) => "DocumentsError",
        Error::TaskExecution(_) => "TaskExecutionError",
        Error::JobExecution(_) => "JobExecutionError",
        Error::Cancelled(_) => "cancelled",
        Error::Host(err) => return host_facts(err),
    };
    let mut facts = json!({ "kind": kind, "message": error.to_string() });
    if let Some(failure) = error.task_failure() {
        facts["task"] = json!({
            "order": failure.workflow_task_order,
            "id": failure.workflow_task_id,
            "name": failure.task_name,
        });
        facts["reason"] = json!(failure.reason);
        facts["calls"] = Value::Array(calls_facts(failure));
    }
    facts
}

fn calls_facts(failure: &TaskFailure) -> Vec<Value> {
    let call = |(index, call): (usize, &CallFailure)| {
        let mut facts = Map::new();
        let mut add = |key: &str, value: Value| facts.insert(key.to_owned(), value);
        add("call_index", json!(call.call_index));
        add("item", json!(call.item));
        add("message", json!(call.outcome.describe()));
        let outcome = serde_json::to_value(&call.outcome).unwrap_or_default();
        add("outcome", outcome["outcome"].clone());
        if let Outcome::Exited { code } = call.outcome {
            add("exit_code", json!(code));
        }
        let path = call.stderr_path.as_deref();
        let whole = path.filter(|_| index == 0).and_then(end_of_file);
        let stderr = whole.unwrap_or_else(|| call.stderr_tail.clone());
        add("stderr", json!(stderr));
        add("stderr_path", json!(path.map(Path::to_string_lossy)));
        Value::Object(facts)
    };
    failure.calls.iter().enumerate().map(call).collect()
}

/// Reads the end of a file as text; `None` if it cannot be read.
fn end_of_file(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok().filter(|facts| facts.is_file())?.len();
    let start = length.saturating_sub(STDERR_BYTES);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(STDERR_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn host_facts(err: &HostError) -> Value {
    let mut facts = json!({ "kind": "HostError", "message": err.chain() });
    if let HostError::File { path, source, .. } = err {
        facts["errno"] = json!(source.raw_os_error());
        facts["path"] = json!(path.to_string_lossy());
    }
    facts
}

/// Returns a JSON object as the bytes for stdout.
pub(super) fn line(facts: &Value) -> Vec<u8> {
    let mut text = build_json(facts, 2);
    text.push(b'\n');
    text
}

fn answer(facts: &Value, exit_code: u8) -> Answer {
    Answer {
        stdout: line(facts),
        exit_code,
        ..Answer::default()
    }
}
