//! A task of a run as entities: the tool, the step, its args, and one action for all its calls.
//! Pure, except for [`Records::path_kind`].

use std::path::Path;

use serde_json::json;

use super::graph::{Graph, reference, references};
use super::run::with_end;
use super::{PathKind, Records};
use crate::event::{Status, TaskSummary};
use crate::json::{Map, Value};
use crate::model::CallFailure;
use crate::text::escape::percent_encoded;
use crate::text::escaped;
use crate::workdir::layout::task_folder_name;

/// Maximum number of failed calls in the error of an action.
const MAX_REPORTED: usize = 3;

/// Ids of a task's entities.
pub(super) struct TaskEntities {
    /// Id of the tool that ran, which several tasks may share.
    pub(super) tool: String,
    /// Id of the step in the workflow.
    pub(super) step: String,
    /// Id of the action for the host's work on the step.
    pub(super) control: String,
}

/// Adds a task of the run.
///
/// * `inputs`, `output`: ids of the data that its calls read and wrote.
pub(super) fn add_task(
    graph: &mut Graph,
    records: &Records<'_>,
    index: usize,
    inputs: &[String],
    output: &str,
) -> TaskEntities {
    let tasks = &records.summary.tasks;
    let task = &tasks[index];
    let is_same_tool = |other: &TaskSummary| {
        (&other.name, &other.module_sha256, &other.script)
            == (&task.name, &task.module_sha256, &task.script)
    };
    let first = tasks
        .iter()
        .find(|other| is_same_tool(other))
        .unwrap_or(task);
    let ids = TaskEntities {
        tool: format!("#tool-{}", first.order),
        step: format!("#step-{}", task.order),
        control: format!("#control-{}", task.order),
    };
    let uses: Vec<_> = tasks
        .iter()
        .zip(records.workflow_tasks)
        .filter(|(other, _)| is_same_tool(other))
        .collect();
    add_tool(graph, &ids.tool, task, &uses);
    let name = escaped(&task.name);
    let step = json!({ "name": name, "position": task.order.to_string(), "workExample": reference(&ids.tool) });
    graph.add(&ids.step, &["HowToStep"], step);

    let mut objects = inputs.to_vec();
    for (name, value) in args(records.workflow_tasks[index].as_ref()) {
        let id = arg_id(task.order, name);
        let properties = json!({
            "name": escaped(name),
            "value": value_text(value),
            "exampleOfWork": reference(&parameter_id(&ids.tool, name)),
        });
        graph.add(&id, &["PropertyValue"], properties);
        objects.push(id);
    }
    let mut results = vec![output.to_owned()];
    results.extend(add_folder(graph, records, task));
    let action = format!("#task-{}", task.order);
    let usage = add_usage(graph, task);
    let (status, error) = end(records, task);
    let ended = task
        .end
        .map_or(records.summary.last_event, |(time, _)| time);
    let properties = json!({
        "name": format!("Task {} of the run: {name}", task.order),
        "description": description(task, &records.run.item_kind),
        "instrument": reference(&ids.tool),
        "object": references(&objects),
        "result": references(&results),
        "resourceUsage": references(&usage),
    });
    graph.add(
        &action,
        &["CreateAction"],
        with_end(properties, task.started, ended, status, error.as_deref()),
    );
    let control = json!({
        "name": format!("Step {}: {name}", task.order),
        "instrument": reference(&ids.step),
        "object": reference(&action),
    });
    graph.add(
        &ids.control,
        &["ControlAction"],
        with_end(control, task.started, ended, status, error.as_deref()),
    );
    graph.actions.push(action);
    ids
}

/// Adds the tool of a task, with the arguments that it was given anywhere in the run.
fn add_tool(
    graph: &mut Graph,
    id: &str,
    task: &TaskSummary,
    uses: &[(&TaskSummary, &Option<Map<String, Value>>)],
) {
    let mut parameters: Map<String, Value> = Map::new();
    for (name, value) in uses
        .iter()
        .flat_map(|(_, workflow_task)| args(workflow_task.as_ref()))
    {
        let types = parameters.entry(name.clone()).or_insert_with(|| json!([]));
        if let Value::Array(types) = types
            && !types.contains(&type_of(value).into())
        {
            types.push(type_of(value).into());
        }
    }
    let document = uses
        .iter()
        .find_map(|(_, workflow_task)| workflow_task.as_ref()?.get("task"));
    let mut inputs = Vec::new();
    for (name, types) in parameters {
        let schema = document.map_or(&Value::Null, |task| {
            &task["args_schema"]["properties"][&name]
        });
        let is_json = types == json!(["PropertyValue"]);
        let given = uses
            .iter()
            .filter(|(_, known)| args(known.as_ref()).any(|(given, _)| *given == name));
        let values: Vec<_> = given.map(|(task, _)| arg_id(task.order, &name)).collect();
        let parameter = parameter_id(id, &name);
        let properties = json!({
            "name": escaped(&name),
            "description": schema["description"].as_str().map(escaped),
            "additionalType": types,
            "encodingFormat": is_json.then_some("application/json"),
            "workExample": references(&values),
        });
        graph.add(&parameter, &["FormalParameter"], properties);
        inputs.push(parameter);
    }
    let command = document.and_then(|task| task["command"].as_str());
    let command = command.map_or(String::new(), |command| {
        format!(" It was called as {}", escaped(command))
    });
    let (description, sha256, interpreter) = match &task.script {
        None => (
            "A WebAssembly module, identified by its SHA-256.",
            &task.module_sha256,
            None,
        ),
        Some(script) => (
            "A script, identified by its SHA-256, that a WebAssembly module interprets.",
            &script.sha256,
            Some(add_interpreter(
                graph,
                &task.module_sha256,
                &script.environment,
            )),
        ),
    };
    let properties = json!({
        "name": escaped(&task.name),
        "description": format!("{description}{command}"),
        "softwareVersion": format!("sha256:{sha256}"),
        "sha256": sha256,
        "softwareRequirements": interpreter.map(|id| reference(&id)),
        "input": references(&inputs),
    });
    graph.add(id, &["SoftwareApplication"], properties);
}

/// Adds the interpreter of scripts with its environment. Returns its id.
fn add_interpreter(graph: &mut Graph, sha256: &str, environment: &str) -> String {
    let id = format!(
        "#interpreter-{}-{}",
        &sha256[..12.min(sha256.len())],
        environment
    );
    let properties = json!({
        "name": "Interpreter of scripts",
        "description": "A WebAssembly module, identified by its SHA-256, with the folders that it \
                        reads, whose state has a BLAKE3 digest.",
        "softwareVersion": format!("sha256:{sha256}"),
        "sha256": sha256,
        "identifier": format!("blake3:{environment}"),
    });
    graph.add(&id, &["SoftwareApplication"], properties);
    id
}

/// Returns the args of a workflow task.
fn args(workflow_task: Option<&Map<String, Value>>) -> impl Iterator<Item = (&String, &Value)> {
    workflow_task
        .and_then(|task| task.get("args")?.as_object())
        .into_iter()
        .flatten()
}

fn arg_id(order: u64, name: &str) -> String {
    format!("#task-{order}/args/{}", percent_encoded(name))
}

fn parameter_id(tool: &str, name: &str) -> String {
    format!("{tool}/args/{}", percent_encoded(name))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "Boolean",
        Value::Number(number) if number.to_string().contains(['.', 'e', 'E']) => "Float",
        Value::Number(_) => "Integer",
        Value::String(_) => "Text",
        Value::Null | Value::Array(_) | Value::Object(_) => "PropertyValue",
    }
}

/// Converts a value for JSON-LD. Values that JSON-LD would split (or omit, as null) become JSON
/// text.
fn value_text(value: &Value) -> Value {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => value.to_string().into(),
        plain => plain.clone(),
    }
}

/// Adds the folder with the files of the task's calls, if it exists.
fn add_folder(graph: &mut Graph, records: &Records<'_>, task: &TaskSummary) -> Option<String> {
    let name = task_folder_name(task.order, &task.name);
    (records.path_kind)(Path::new(&name)).filter(|found| *found == PathKind::Folder)?;
    let id = format!("{}/", percent_encoded(&name));
    let properties = json!({
        "name": name,
        "description": "Arguments, output and streams of each call of the task, as far as they \
            were kept",
    });
    graph.add_part(&id, &["Dataset"], properties);
    Some(id)
}

/// Adds the number of a task's calls, and their resource usage.
fn add_usage(graph: &mut Graph, task: &TaskSummary) -> Vec<String> {
    let unit = |name: &str| format!("https://qudt.org/vocab/unit/{name}");
    let usage = [
        ("n_calls", json!(task.n_calls), "NUM"),
        ("n_done", json!(task.n_done()), "NUM"),
        ("n_failed", json!(task.failed.len()), "NUM"),
        (
            "total_call_time_s",
            json!(task.total_time.as_secs_f64()),
            "SEC",
        ),
        (
            "longest_call_s",
            json!(task.longest_time.as_secs_f64()),
            "SEC",
        ),
        ("peak_memory_bytes", json!(task.peak_memory_bytes), "BYTE"),
    ];
    let add = |(name, value, unit_name): (&str, Value, &str)| {
        let id = format!("#task-{}/usage/{name}", task.order);
        let properties = json!({ "name": name, "propertyID": name, "value": value, "unitCode": unit(unit_name) });
        graph.add(&id, &["PropertyValue"], properties);
        id
    };
    usage.into_iter().map(add).collect()
}

fn description(task: &TaskSummary, item_kind: &str) -> String {
    let kind = match &task.items {
        None => "One call".to_owned(),
        Some(level) => format!(
            "{} calls, one for each {item_kind} in {}",
            task.n_calls,
            escaped(level)
        ),
    };
    let (n_done, n_failed) = (task.n_done(), task.failed.len());
    let n_open = task.n_calls.saturating_sub(n_done + n_failed);
    let rest = if n_open > 0 {
        format!(", {n_open} unfinished")
    } else {
        String::new()
    };
    format!("{kind}: {n_done} succeeded, {n_failed} failed{rest}.")
}

/// Returns the status of the task, and its error.
fn end(records: &Records<'_>, task: &TaskSummary) -> (Status, Option<String>) {
    match task.end {
        Some((_, Status::Done)) => (Status::Done, None),
        _ if !task.failed.is_empty() => {
            (Status::Failed, Some(failures(task, &records.run.item_kind)))
        }
        None if records.summary.end.is_none() => (
            Status::Failed,
            Some("the run was killed during this task".to_owned()),
        ),
        _ => (
            Status::Failed,
            Some("the task failed outside its calls".to_owned()),
        ),
    }
}

/// Describes the first failed calls, and the number of all.
fn failures(task: &TaskSummary, item_kind: &str) -> String {
    let reported = task.failed.values().take(MAX_REPORTED).map(|failed| {
        let failure = CallFailure {
            call_index: 0,
            item_kind: item_kind.to_owned().into(),
            item: failed.item.clone(),
            outcome: failed.outcome.clone(),
            stderr_tail: String::new(),
            stderr_path: None,
        };
        failure.to_string()
    });
    let reported = reported.collect::<Vec<_>>().join("; ");
    let (n_failed, n_calls) = (task.failed.len(), task.n_calls);
    let more = if n_failed > MAX_REPORTED { "; ..." } else { "" };
    format!("{n_failed} of {n_calls} calls failed: {reported}{more}")
}
