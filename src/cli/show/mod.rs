//! `mandelbox show`: the calls of a task, or the args, output and streams of one of them.
//!
//! The outcomes of calls come from the event log. Their args, output and streams come from their
//! files, in whatever form these are kept.

mod find;
mod parts;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::find::{CallKey, find_call, key_text};
use self::parts::{CallParts, read_parts};
use super::Answer;
use super::arguments::{ShowArguments, StreamArgument};
use super::documents::absolute;
use super::shared_arguments::FormatArgument;
use super::status::no_run;
use crate::event::{CallHistory, EventLog, KnownCall, visit_log};
use crate::json::{DuplicateKeys, build_json, parse_json};
use crate::run::exit_code;
use crate::text::{escaped, time_text};
use crate::workdir::{WorkDir, layout};

/// A task of a run with its calls.
struct ShownTask {
    work_dir: PathBuf,
    order: u64,
    calls: CallHistory,
    /// True if a process runs the run.
    is_running: bool,
}

impl ShownTask {
    fn name(&self) -> &str {
        self.calls.task_name(self.order)
    }

    /// Returns the subfolder of the task.
    fn folder(&self) -> PathBuf {
        let name = layout::task_folder_name(self.order, self.name());
        self.work_dir.join(name)
    }

    /// Returns the outcome of a call for programs: that of the log, `running` or `interrupted`.
    fn outcome(&self, call: &KnownCall) -> &'static str {
        match &call.end {
            Some(end) => end.outcome.name(),
            None if self.is_running && call.session == self.calls.session() => "running",
            None => "interrupted",
        }
    }
}

pub(super) fn show(arguments: &ShowArguments) -> Answer {
    match try_show(arguments) {
        Ok(answer) => answer,
        Err(Failure { text, exit_code }) => Answer::text(text, exit_code),
    }
}

/// Reason why nothing can be shown.
struct Failure {
    text: String,
    exit_code: u8,
}

/// Failure because something does not exist.
fn missing(location: &str, problem: impl std::fmt::Display) -> Failure {
    Failure {
        text: format!("error: {}: {problem}\n", escaped(location)),
        exit_code: exit_code::WRONG_INPUT,
    }
}

/// Failure to read a file.
fn unreadable(path: &Path, err: &io::Error) -> Failure {
    let path = escaped(&path.to_string_lossy());
    Failure {
        text: format!("error: {path}: failed to read it: {err}\n"),
        exit_code: exit_code::HOST_FAILED,
    }
}

fn try_show(arguments: &ShowArguments) -> Result<Answer, Failure> {
    let task = read_task(arguments)?;
    let Some(named) = &arguments.item else {
        return Ok(show_table(&task, arguments.format));
    };
    let key = find_call(&task.calls, named).map_err(|problem| missing(named, problem))?;
    let call = task.calls.get(key).expect("it was found");
    if call.attempt == 0 {
        let wanted = arguments.attempt.unwrap_or_default();
        let problem = format!(
            "the call has no attempt {wanted}; its last attempt is {}",
            call.last_attempt
        );
        return Err(missing(named, problem));
    }
    let parts = read_parts(&task, key, call)?;
    if let Some(stream) = arguments.stream {
        return show_stream(named, stream, parts);
    }
    Ok(match arguments.format {
        FormatArgument::Text => Answer::text(
            text::call_text(&task, key, call, &parts),
            exit_code::SUCCESS,
        ),
        FormatArgument::Json => json_answer(&call_facts(&task, key, call, &parts)),
    })
}

/// Reads the calls of the task that the user means.
fn read_task(arguments: &ShowArguments) -> Result<ShownTask, Failure> {
    let work_dir = absolute(&arguments.work_dir);
    let mut calls = CallHistory::new(&arguments.task, arguments.attempt);
    let log = work_dir.join(EventLog::NAME);
    visit_log(&log, |event, lost, line| calls.add(event, lost, line)).map_err(|err| Failure {
        text: no_run(&work_dir, &err),
        exit_code: exit_code::WRONG_INPUT,
    })?;
    let order = calls
        .find_task()
        .map_err(|problem| missing(&arguments.task, problem))?;
    Ok(ShownTask {
        order,
        calls,
        is_running: WorkDir::holder(&work_dir).is_some(),
        work_dir,
    })
}

fn show_table(task: &ShownTask, format: FormatArgument) -> Answer {
    match format {
        FormatArgument::Text => Answer::text(text::table_text(task), exit_code::SUCCESS),
        FormatArgument::Json => {
            let calls = task.calls.calls();
            let calls: Vec<_> = calls
                .map(|(key, call)| row_facts(task, *key, call))
                .collect();
            json_answer(&json!({ "task": task.order, "name": task.name(), "calls": calls }))
        }
    }
}

fn show_stream(named: &str, stream: StreamArgument, parts: CallParts) -> Result<Answer, Failure> {
    let (name, bytes) = match stream {
        StreamArgument::Args => ("args", parts.args),
        StreamArgument::Output => ("output", parts.output),
        StreamArgument::Stdout => ("stdout", parts.stdout),
        StreamArgument::Stderr if parts.has_one_log => ("stderr", parts.stdout),
        StreamArgument::Stderr => ("stderr", parts.stderr),
    };
    match (bytes, parts.not_kept) {
        (Some(stdout), _) => Ok(Answer {
            stdout,
            ..Answer::default()
        }),
        (None, Some(reason)) => Err(missing(
            named,
            format_args!("its {name} is not kept: {reason}"),
        )),
        (None, None) => Err(missing(named, format_args!("the call has left no {name}"))),
    }
}

fn json_answer(facts: &Value) -> Answer {
    let mut stdout = build_json(facts, 2);
    stdout.push(b'\n');
    Answer {
        stdout,
        ..Answer::default()
    }
}

/// Facts about a call that its events have.
fn row_facts(task: &ShownTask, key: CallKey, call: &KnownCall) -> Value {
    let end = call.end.as_ref();
    json!({
        "batch": key.0,
        "call_index": key.1,
        "item": call.item,
        "outcome": task.outcome(call),
        "message": end.map(|end| end.outcome.describe()),
        "attempt": call.attempt,
        "n_attempts": call.last_attempt,
        "started": time_text(call.started),
        "ended": end.map(|end| time_text(end.time)),
        "usage": end.map(|end| &end.usage),
    })
}

fn call_facts(task: &ShownTask, key: CallKey, call: &KnownCall, parts: &CallParts) -> Value {
    let mut facts = row_facts(task, key, call);
    let text = |bytes: &Option<Vec<u8>>| {
        let text = bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
        json!(text)
    };
    let value = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => parse_json(bytes, DuplicateKeys::LastWins)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes))),
        None => Value::Null,
    };
    let more = json!({
        "task": task.order,
        "name": task.name(),
        "files": parts.storage.name(),
        "not_kept": parts.not_kept,
        "paths": parts.paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "args": value(&parts.args),
        "output": value(&parts.output),
        "has_one_log": parts.has_one_log,
        "stdout": text(&parts.stdout),
        "stderr": text(&parts.stderr),
    });
    if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
        facts.extend(more);
    }
    facts
}

/// Describes a call for a message or a title, not escaped: `well "B03" (call 3)`.
fn title(task: &ShownTask, key: CallKey, call: &KnownCall) -> String {
    let number = key_text(&task.calls, key);
    match &call.item {
        Some(item) => format!("{} {item} (call {number})", task.calls.item_kind()),
        None => format!("call {number}"),
    }
}
