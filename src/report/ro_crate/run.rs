//! The crate as a whole, and the run in it. Pure.

use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::dataset::{add_parameter, add_path, add_records};
use super::graph::{Graph, entity, reference, references};
use super::images::add_images;
use super::task::{TaskEntities, add_task};
use super::{INPUT_ID, OUTPUT_ID, Records};
use crate::event::{RunSummary, Status};
use crate::json::{Map, Value};
use crate::text::escaped;
use crate::workdir::layout::{RO_CRATE_FILE, RO_CRATE_WORKFLOW_FILE};

/// Id of the run's action.
const RUN_ID: &str = "#run";
/// Id of the program that ran the workflow.
const ENGINE_ID: &str = "#mandelbox";
const ENGINE_ACTION_ID: &str = "#run-of-mandelbox";
const LANGUAGE_ID: &str = "https://fractal-analytics-platform.github.io";
/// Text for a license that nobody has given. The profiles require a license.
const NO_LICENSE: &str =
    "No license was given when this crate was created: ask its author before you use it.";

const CRATE_PROFILE: &str = "https://w3id.org/ro/crate/1.1";
const WORKFLOW_PROFILE: (&str, &str, &str) = (
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    "Workflow RO-Crate",
    "1.0",
);
/// Profiles of a run.
const RUN_PROFILES: [(&str, &str, &str); 3] = [
    (
        "https://w3id.org/ro/wfrun/process/0.5",
        "Process Run Crate",
        "0.5",
    ),
    (
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "Workflow Run Crate",
        "0.5",
    ),
    (
        "https://w3id.org/ro/wfrun/provenance/0.5",
        "Provenance Run Crate",
        "0.5",
    ),
];

/// Terms that RO-Crate 1.1 lacks. They are written out, so that readers need not fetch another
/// context.
const TERMS: [&str; 2] = ["resourceUsage", "sha256"];

/// Builds the whole `ro-crate-metadata.json`.
///
/// * `workflow`: contents of the workflow's file.
pub(super) fn build_crate(records: &Records<'_>, workflow: &[u8]) -> Value {
    let (summary, run) = (records.summary, records.run);
    let mut graph = Graph::default();
    graph.actions.push(RUN_ID.to_owned());
    let inputs: Vec<_> = run
        .input_paths
        .iter()
        .map(|path| add_path(&mut graph, records, path, INPUT_ID, &[]))
        .collect();
    let images = add_images(&mut graph, records.images);
    let output = add_path(&mut graph, records, &run.output_path, OUTPUT_ID, &images);
    let mut results = vec![output.clone()];
    results.extend(add_records(&mut graph, records, RUN_ID));
    let add = |index: usize| {
        let inputs = if index == 0 {
            &inputs[..]
        } else {
            std::slice::from_ref(&output)
        };
        add_task(&mut graph, records, index, inputs, &output)
    };
    let tasks: Vec<_> = (0..summary.tasks.len()).map(add).collect();
    add_workflow(&mut graph, records, workflow, &tasks);
    add_parameter(
        &mut graph,
        INPUT_ID,
        "Folders and files that the first task reads",
        &inputs,
    );
    let description = "Folder that tasks write to, and that every task but the first reads";
    add_parameter(&mut graph, OUTPUT_ID, description, &[output]);
    add_run(&mut graph, records, &inputs, &results, &tasks);
    let root = root(&mut graph, records);
    let about = json!({ "about": reference("./"), "conformsTo": references(&[CRATE_PROFILE, WORKFLOW_PROFILE.0]) });
    let first = vec![
        entity(RO_CRATE_FILE, &["CreativeWork"], about),
        entity("./", &["Dataset"], root),
    ];
    let term = |term: &&str| {
        (
            (*term).to_owned(),
            format!("https://w3id.org/ro/terms/workflow-run#{term}").into(),
        )
    };
    let terms: Map<_, _> = TERMS.iter().map(term).collect();
    graph.into_crate(
        first,
        json!(["https://w3id.org/ro/crate/1.1/context", terms]),
    )
}

/// Adds the workflow, the main entity of the crate.
fn add_workflow(graph: &mut Graph, records: &Records<'_>, workflow: &[u8], tasks: &[TaskEntities]) {
    let mut tools: Vec<_> = tasks.iter().map(|task| &task.tool).collect();
    tools.sort_unstable();
    tools.dedup();
    let mut types = vec!["File", "SoftwareSourceCode", "ComputationalWorkflow"];
    types.extend((!tasks.is_empty()).then_some("HowTo"));
    let digest: String = Sha256::digest(workflow)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let has_inputs = !records.run.input_paths.is_empty();
    let properties = json!({
        "name": escaped(&records.run.workflow),
        "description": "The workflow as the records of the run have it: the tasks that started, \
            with the args and the modules that were used",
        "version": format!("sha256:{digest}"),
        "encodingFormat": "application/json",
        "contentSize": workflow.len().to_string(),
        "programmingLanguage": reference(LANGUAGE_ID),
        "input": has_inputs.then(|| reference(INPUT_ID)),
        "output": reference(OUTPUT_ID),
        "hasPart": references(&tools),
        "step": references(&tasks.iter().map(|task| &task.step).collect::<Vec<_>>()),
    });
    graph.add_part(RO_CRATE_WORKFLOW_FILE, &types, properties);
    let properties = json!({
        "name": "Fractal workflow",
        "description": "Workflows of fractal-server",
        "url": reference(LANGUAGE_ID),
    });
    graph.add(LANGUAGE_ID, &["ComputerLanguage"], properties);
}

/// Adds the run, and the program that executed it.
fn add_run(
    graph: &mut Graph,
    records: &Records<'_>,
    inputs: &[String],
    results: &[String],
    tasks: &[TaskEntities],
) {
    let summary = records.summary;
    let version = escaped(&records.run.mandelbox_version);
    let (status, error) = end_of_run(summary);
    let times = |properties: Value| {
        with_end(
            properties,
            summary.started,
            summary.last_event,
            status,
            error.as_deref(),
        )
    };
    let action = json!({
        "name": title(records),
        "description": description(records),
        "instrument": reference(RO_CRATE_WORKFLOW_FILE),
        "object": references(inputs),
        "result": references(results),
    });
    graph.add(RUN_ID, &["CreateAction"], times(action));
    let engine = json!({
        "name": format!("mandelbox {version}"),
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "softwareVersion": version,
    });
    graph.add(ENGINE_ID, &["SoftwareApplication"], engine);
    if !tasks.is_empty() {
        let engine_action = json!({
            "name": format!("Run of mandelbox {version}"),
            "instrument": reference(ENGINE_ID),
            "object": references(&tasks.iter().map(|task| &task.control).collect::<Vec<_>>()),
            "result": reference(RUN_ID),
        });
        graph.add(ENGINE_ACTION_ID, &["OrganizeAction"], times(engine_action));
    }
}

/// Returns the properties of the dataset, which is the work directory.
fn root(graph: &mut Graph, records: &Records<'_>) -> Value {
    // A run without tasks does not meet the requirements of the last profile.
    let n_run_profiles = if records.summary.tasks.is_empty() {
        2
    } else {
        3
    };
    let profiles = [&RUN_PROFILES[..n_run_profiles], &[WORKFLOW_PROFILE]].concat();
    for (id, name, version) in &profiles {
        graph.add(
            id,
            &["CreativeWork"],
            json!({ "name": name, "version": version }),
        );
    }
    let license = match records.license {
        Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
            let description =
                "The license of this dataset, as it was given when the crate was created";
            graph.add(
                url,
                &["CreativeWork"],
                json!({ "name": url, "description": description }),
            );
            reference(url)
        }
        text => text.unwrap_or(NO_LICENSE).into(),
    };
    json!({
        "name": title(records),
        "description": description(records),
        "datePublished": time_text(records.summary.last_event),
        "license": license,
        "conformsTo": references(&profiles.iter().map(|profile| profile.0).collect::<Vec<_>>()),
        "mainEntity": reference(RO_CRATE_WORKFLOW_FILE),
        "hasPart": references(&graph.parts),
        "mentions": references(&graph.actions),
    })
}

fn title(records: &Records<'_>) -> String {
    format!("Run of the workflow {}", escaped(&records.run.workflow))
}

/// Describes how the run ended, in a sentence.
fn description(records: &Records<'_>) -> String {
    let (summary, run) = (records.summary, records.run);
    let n_tasks = summary
        .n_tasks()
        .map_or(String::new(), |n| format!(" of {n}"));
    let n_done = summary
        .tasks
        .iter()
        .filter(|task| matches!(task.end, Some((_, Status::Done))))
        .count();
    let end = match summary.end {
        Some(Status::Done) => "the run succeeded".to_owned(),
        Some(Status::Failed) => format!(
            "the run failed: {}",
            escaped(summary.error.as_deref().unwrap_or("unknown error"))
        ),
        None => "the run is unfinished, since it was killed".to_owned(),
    };
    let (started, backend) = (summary.tasks.len(), escaped(&run.backend));
    format!(
        "{started}{n_tasks} tasks of the workflow started and {n_done} succeeded, on the backend \
         {backend}; {end}."
    )
}

/// Returns the status of the run, and its error.
fn end_of_run(summary: &RunSummary) -> (Status, Option<String>) {
    match summary.end {
        Some(Status::Done) => (Status::Done, None),
        Some(Status::Failed) => (
            Status::Failed,
            Some(escaped(summary.error.as_deref().unwrap_or("unknown error"))),
        ),
        None => (Status::Failed, Some("the run was killed".to_owned())),
    }
}

/// Adds times, status and error to the properties of an action.
pub(super) fn with_end(
    mut properties: Value,
    started: Timestamp,
    ended: Timestamp,
    status: Status,
    error: Option<&str>,
) -> Value {
    properties["startTime"] = time_text(started).into();
    properties["endTime"] = time_text(ended.max(started)).into();
    properties["actionStatus"] = match status {
        Status::Done => "http://schema.org/CompletedActionStatus".into(),
        Status::Failed => "http://schema.org/FailedActionStatus".into(),
    };
    properties["error"] = error.into();
    properties
}

/// Formats a time in the only form of ISO 8601 that the profiles' validator accepts.
fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00").to_string()
}
