//! What a run of a hostile module leaves on disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::{COMPONENTS, SECRET, contents};
use crate::project::Project;

const MAX_STREAM_BYTES: u64 = (16 << 20) + 100;

/// How the calls of the run ended; `refused` if nothing was run.
pub(super) fn outcomes(project: &Project) -> BTreeSet<String> {
    let Ok(events) = fs::read_to_string(project.path("work/events.jsonl")) else {
        return BTreeSet::from(["refused".to_owned()]);
    };
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter_map(|event| Some(event.get("outcome")?.as_str()?.to_owned()))
        .collect()
}

/// Calls that took longer than `deadline`.
pub(super) fn late_calls(project: &Project, deadline: Duration) -> Vec<String> {
    let events = fs::read_to_string(project.path("work/events.jsonl")).unwrap_or_default();
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let times = events.filter_map(|event| event["wall_time_s"].as_f64());
    let late = times.filter(|seconds| *seconds > deadline.as_secs_f64());
    late.map(|seconds| format!("a call ended after {seconds:.2} s, not {deadline:?}"))
        .collect()
}

/// Records are whole, and hold nothing that a guest has forged.
pub(super) fn wrong_records(project: &Project) -> Vec<String> {
    let mut wrong = Vec::new();
    let events = fs::read_to_string(project.path("work/events.jsonl")).expect("events");
    let events: Vec<Option<Value>> = events
        .lines()
        .map(|line| serde_json::from_str(line).ok())
        .collect();
    let in_order = |(seq, event): (usize, &Option<Value>)| {
        event.as_ref().is_some_and(|event| event["seq"] == seq)
    };
    if !events.iter().enumerate().all(in_order) {
        wrong.push("events.jsonl is not whole".to_owned());
    }
    let n_finished = events
        .iter()
        .flatten()
        .filter(|event| event["event"] == "call_finished")
        .count();
    let last = events
        .last()
        .and_then(Option::as_ref)
        .map(|event| &event["event"]);
    if n_finished != COMPONENTS.len() || last != Some(&json!("run_finished")) {
        wrong.push(format!(
            "{n_finished} calls finished, and the last event is {last:?}"
        ));
    }
    let record = |name: &str| -> Option<Value> {
        serde_json::from_slice(&fs::read(project.path("work").join(name)).ok()?).ok()
    };
    for name in ["metadata.json", "history.json"] {
        // As in Fractal, a run whose first task fails has neither.
        if project.path("work").join(name).exists() && record(name).is_none() {
            wrong.push(format!("{name} is not whole"));
        }
    }
    let result = record("result.json").unwrap_or_default();
    let (metadata, history) = (&result["metadata"], result["history"].as_array());
    if metadata["c"] != json!(COMPONENTS) || metadata.get("forged").is_some() {
        wrong.push("the metadata is not as it must be".to_owned());
    }
    let is_true = |item: &Value| {
        ["done", "failed"]
            .iter()
            .any(|status| item["status"] == *status)
    };
    if !history.is_some_and(|items| items.len() == 1 && is_true(&items[0])) {
        wrong.push(format!("the history is {}", result["history"]));
    }
    for component in COMPONENTS {
        let args = record(&format!("0_hostile/0_par_{component}.args.json")).unwrap_or_default();
        if args["component"] != component {
            wrong.push(format!("the parameters of {component} are {args}"));
        }
    }
    wrong
}

/// Nothing secret in what the run left, no file larger than it may be, nothing of running calls.
pub(super) fn wrong_files(project: &Project) -> Vec<String> {
    let mut wrong = Vec::new();
    let scratch = project.path("work/.scratch");
    if scratch.exists() {
        wrong.push("scratch folders are left".to_owned());
        remove_deep(&scratch);
    }
    let files = ["work", "out"].map(|name| project.path(name));
    for (path, mode, size, ..) in files
        .iter()
        .filter(|path| path.exists())
        .flat_map(|path| contents(path))
    {
        let is_file = mode & 0o170_000 == 0o100_000;
        if is_file
            && size > MAX_STREAM_BYTES
            && path
                .extension()
                .is_some_and(|name| name == "out" || name == "err")
        {
            wrong.push(format!("{} has {size} bytes", path.display()));
        } else if is_file && size < 1 << 30 && holds_secret(&fs::read(&path).expect("readable")) {
            wrong.push(format!("{} holds the secret", path.display()));
        }
    }
    wrong
}

/// Removes a folder however deep it is: what is in a folder of it is moved up. The standard
/// library's way would need a stack frame and an open file for each level.
fn remove_deep(folder: &Path) {
    let mut n_moved = 0;
    let list = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let is_folder =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    loop {
        let (folders, files): (Vec<_>, Vec<_>) =
            list(folder).into_iter().partition(|path| is_folder(path));
        files
            .iter()
            .for_each(|path| fs::remove_file(path).expect("removed"));
        if folders.is_empty() {
            return fs::remove_dir(folder).expect("removed");
        }
        for inner in folders {
            for path in list(&inner) {
                n_moved += 1;
                fs::rename(path, folder.join(format!("moved{n_moved}"))).expect("moved");
            }
            fs::remove_dir(inner).expect("removed");
        }
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let starts = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == SECRET.as_bytes()[0]);
    starts
        .into_iter()
        .any(|(at, _)| bytes[at..].starts_with(SECRET.as_bytes()))
}
