//! Entities for the input, the output and the records of a run. Pure, except for
//! [`Records::path_kind`].

use std::path::Path;

use serde_json::json;

use super::graph::{Graph, reference, references};
use super::{INPUT_ID, OUTPUT_ID, PathKind, Records};
use crate::event::EventLog;
use crate::model::record_names::{
    DATASET_FILE, HISTORY_FILE, METADATA_FILE, RESULT_FILE, STATUS_FILE,
};
use crate::text::escape::percent_encoded;
use crate::text::escaped;
use crate::workdir::layout::{LOG_FILE, REPORT_FILE};

/// Records in the work directory: name, format, description, and true if the record is a result of
/// the run.
const RECORDS: [(&str, &str, &str, bool); 8] = [
    (
        METADATA_FILE,
        "application/json",
        "The dataset's metadata after the last task that succeeded",
        true,
    ),
    (
        HISTORY_FILE,
        "application/json",
        "The dataset's history after the last task that succeeded",
        true,
    ),
    (
        RESULT_FILE,
        "application/json",
        "Result at the end of the run",
        true,
    ),
    (
        DATASET_FILE,
        "application/json",
        "The dataset with its images after the last task",
        true,
    ),
    (
        STATUS_FILE,
        "application/json",
        "The status of each image for each task",
        true,
    ),
    (
        EventLog::NAME,
        "application/jsonl",
        "Every start and end of a call, one JSON object per line",
        false,
    ),
    (
        LOG_FILE,
        "text/plain",
        "Log lines of the run, as Fractal writes them",
        false,
    ),
    (
        REPORT_FILE,
        "text/html",
        "Report of the run, for people",
        false,
    ),
];

/// Adds a formal parameter, with the files and folders that it was given.
pub(super) fn add_parameter(graph: &mut Graph, id: &str, description: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let name = id.trim_start_matches('#');
    let mut types: Vec<_> = values
        .iter()
        .map(|value| {
            if value.ends_with('/') {
                "Dataset"
            } else {
                "File"
            }
        })
        .collect();
    types.sort_unstable();
    types.dedup();
    let properties = json!({
        "name": name,
        "description": description,
        "additionalType": types,
        "multipleValues": id == INPUT_ID,
        "valueRequired": id == OUTPUT_ID,
        "workExample": references(values),
    });
    graph.add(id, &["FormalParameter"], properties);
}

/// Adds an input or output path and returns its id, which ends with a slash unless the path is a
/// file.
///
/// * `parts`: ids of the images in it.
pub(super) fn add_path(
    graph: &mut Graph,
    records: &Records<'_>,
    path: &Path,
    parameter: &str,
    parts: &[String],
) -> String {
    let found = (records.path_kind)(path);
    let slash = if matches!(found, Some(PathKind::File { .. })) {
        ""
    } else {
        "/"
    };
    let id = match path.strip_prefix(&records.run.work_dir) {
        Ok(inside) if found.is_some() => {
            format!("{}{slash}", percent_encoded(&inside.to_string_lossy()))
        }
        _ => format!("file://{}{slash}", percent_encoded(&path.to_string_lossy())),
    };
    let is_both = records.run.input_paths.contains(&records.run.output_path);
    let parameters = if is_both && *path == records.run.output_path {
        vec![INPUT_ID, OUTPUT_ID]
    } else {
        vec![parameter]
    };
    let name = path
        .file_name()
        .map_or("/".into(), |name| name.to_string_lossy());
    let missing = if found.is_none() {
        "; it did not exist when this crate was created"
    } else {
        ""
    };
    let role = if parameters.contains(&OUTPUT_ID) {
        "Output of the tasks of the run"
    } else {
        "Input of the first task"
    };
    let n_bytes = match found {
        Some(PathKind::File { n_bytes }) => Some(n_bytes.to_string()),
        _ => None,
    };
    let kind = if slash.is_empty() { "File" } else { "Dataset" };
    let properties = json!({
        "name": escaped(&name),
        "description": format!("{role}{missing}"),
        "contentSize": n_bytes,
        "exampleOfWork": references(&parameters),
        "hasPart": references(parts),
    });
    graph.add_part(&id, &[kind], properties);
    id
}

/// Adds the records that exist. Returns the ids of those that are results of the run.
///
/// * `run`: id of the run's action.
pub(super) fn add_records(graph: &mut Graph, records: &Records<'_>, run: &str) -> Vec<String> {
    let mut results = Vec::new();
    for (name, format, description, is_result) in RECORDS {
        let Some(PathKind::File { n_bytes }) = (records.path_kind)(Path::new(name)) else {
            continue;
        };
        let about = (!is_result).then(|| reference(run));
        let properties = json!({
            "name": name,
            "description": description,
            "encodingFormat": format,
            "contentSize": n_bytes.to_string(),
            "about": about,
        });
        graph.add_part(name, &["File"], properties);
        if is_result {
            results.push(name.to_owned());
        }
    }
    results
}
