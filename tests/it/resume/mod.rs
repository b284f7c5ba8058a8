//! `run --resume`: the calls that it reuses, and those that it reruns.

mod changes;
mod disk;
mod failures;
mod limits;
mod log;

use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task, task};

fn n_events(project: &Project) -> usize {
    project.read("work/events.jsonl").lines().count()
}

/// Task and component of each call that was begun, from an event on.
fn begun(project: &Project, from_seq: usize) -> Vec<(u64, Value)> {
    let is_later = |event: &Value| {
        event["seq"]
            .as_u64()
            .is_some_and(|seq| seq >= from_seq as u64)
    };
    let started = project
        .events_of("call_started")
        .into_iter()
        .filter(is_later);
    started
        .map(|event| {
            (
                event["task"].as_u64().expect("an order"),
                event["item"].clone(),
            )
        })
        .collect()
}

fn has_note(project: &Project, text: &str) -> bool {
    let notes = ["note", "rerun"]
        .map(|kind| project.events_of(kind))
        .concat();
    notes.iter().any(|note| {
        note["message"]
            .as_str()
            .is_some_and(|message| message.contains(text))
    })
}

/// Components of calls of one task, or its one call.
fn of_task(order: u64, components: &[&str]) -> Vec<(u64, Value)> {
    components
        .iter()
        .map(|component| (order, json!(component)))
        .collect()
}

/// Three tasks, of which the second one has components and does not see their list, and the last
/// sees nothing.
fn tasks() -> [Value; 3] {
    let with = |mut task: Value, options: Value| {
        task["task"]["meta"]["mandelbox"] = options;
        task
    };
    let none = json!({ "metadata_keys": [] });
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { "list": ["x", "y", "x", "z"] } }),
    );
    let each = parallel_task(
        1,
        "each",
        &module("swiss.wasm"),
        "list",
        json!({ "echo": ["component"] }),
    );
    let last = task(
        2,
        "last",
        &module("swiss.wasm"),
        json!({ "metadiff": { "done": true } }),
    );
    [
        with(list, none.clone()),
        with(each, none.clone()),
        with(last, none),
    ]
}
