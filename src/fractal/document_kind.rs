//! Kinds of Fractal documents, so that a file given in place of another is reported by its kind.

use std::path::Path;

#[cfg(feature = "cli")]
use crate::fractal::read::read_dataset;
use crate::json::{Map, Value};
use crate::model::record_names::{HISTORY_FILE, METADATA_FILE};
use crate::problem::{Cursor, Problems};
use crate::text::wording::{did_you_mean, shell_word};

/// Name of the manifest in a package's folder.
pub const MANIFEST: &str = "__FRACTAL_MANIFEST__.json";

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Workflow,
    WorkflowV2,
    TaskList,
    Manifest,
    Result,
    History,
    Dataset,
    DatasetV2,
}

impl DocumentKind {
    /// Returns the kind of a value, by the keys that no other kind has; `None` if it may be any, as
    /// metadata may.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let items_are = |is: fn(&Map<String, Value>) -> bool| {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            !items.is_empty() && items.iter().all(|item| item.as_object().is_some_and(is))
        };
        if items_are(|item| item.contains_key("workflowtask")) {
            return Some(Self::History);
        }
        if items_are(|item| item.contains_key("task")) {
            return Some(Self::TaskList);
        }
        let has = |keys: &[&str]| keys.iter().all(|key| value.get(key).is_some());
        if has(&["manifest_version"]) {
            Some(Self::Manifest)
        } else if has(&["task_list"]) && value["task_list"].is_array() {
            Some(if value_is_v2(value) {
                Self::WorkflowV2
            } else {
                Self::Workflow
            })
        } else if has(&["metadata", "history"])
            && value.as_object().is_some_and(|map| map.len() == 2)
        {
            Some(Self::Result)
        } else if has(&["zarr_dir", "images"]) || has(&["name", "zarr_dir"]) {
            Some(Self::DatasetV2)
        } else if has(&["resource_list"]) {
            Some(Self::Dataset)
        } else {
            None
        }
    }

    /// Returns the kind of a file; `None` also for one that cannot be read.
    #[cfg(feature = "cli")]
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        Self::of(&read_dataset(path, &mut Problems::default())?)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Workflow => "a workflow",
            Self::WorkflowV2 => "a workflow of Fractal v2",
            Self::TaskList => "a list of workflow tasks",
            Self::Manifest => "the manifest of a task package",
            Self::Result => "the result of a run, with metadata and history in one",
            Self::History => "a history",
            Self::Dataset => "a dataset of Fractal",
            Self::DatasetV2 => "a dataset of Fractal v2",
        }
    }

    /// Returns the reason why a document of this kind is not the expected one, and the action to
    /// take.
    fn refusal(self, expected: &str, file: &Path) -> String {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let sibling = |name: &str| shell_word(file.with_file_name(name).display());
        let advice = match self {
            Self::WorkflowV2 if expected == "a workflow" => {
                return "is a workflow of Fractal v2, not one of version 1; run it with `mandelbox \
                        run`"
                    .to_owned();
            }
            Self::Workflow | Self::WorkflowV2 => {
                "name it as the workflow of `mandelbox run`".to_owned()
            }
            Self::DatasetV2 => "give it as `--dataset`, with a workflow of Fractal v2".to_owned(),
            Self::TaskList => "put the list under the key `task_list` of an object".to_owned(),
            Self::Manifest => {
                let folder = shell_word(folder.display());
                format!(
                    "give its folder to `mandelbox run` as `--tasks {folder}`, next to a \
                    workflow"
                )
            }
            Self::Result => format!(
                "a run writes both parts next to it: `--metadata {} --history {}`",
                sibling(METADATA_FILE),
                sibling(HISTORY_FILE)
            ),
            Self::History => "give it as `--history`".to_owned(),
            Self::Dataset => {
                "give its paths as `--input` and `--output`, and its `meta` in a file as \
                 `--metadata`"
                    .to_owned()
            }
        };
        format!("is {}, not {expected}; {advice}", self.name())
    }
}

/// Returns true if a workflow has keys that exist only in Fractal v2.
fn value_is_v2(workflow: &Value) -> bool {
    const ENTRY_KEYS: [&str; 7] = [
        "args_parallel",
        "args_non_parallel",
        "meta_parallel",
        "meta_non_parallel",
        "type_filters",
        "input_filters",
        "is_legacy_task",
    ];
    const TASK_KEYS: [&str; 3] = ["pkg_name", "command_parallel", "command_non_parallel"];
    let has = |value: &Value, keys: &[&str]| keys.iter().any(|key| value.get(key).is_some());
    let entries = workflow["task_list"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let is_v2 = |entry: &Value| {
        has(entry, &ENTRY_KEYS) || entry.get("task").is_some_and(|task| has(task, &TASK_KEYS))
    };
    entries.iter().any(is_v2)
}

/// Adds a problem if a document is clearly of another kind than `expected`. Returns true if it is.
///
/// * `expected`: the accepted kinds, and the name of the expected document. The list is empty for a
///   document without keys of its own.
pub(crate) fn refuse_another(
    document: &Cursor<'_>,
    expected: (&[DocumentKind], &str),
    problems: &mut Problems,
) -> bool {
    let Some(kind) = DocumentKind::of(document.value).filter(|kind| !expected.0.contains(kind))
    else {
        return false;
    };
    let (file, _) = document.origin();
    // A value of the wrong type is also reported as such.
    let shape = match (kind, expected.1) {
        (DocumentKind::History | DocumentKind::TaskList, "a workflow" | "metadata") => {
            "must be an object, not an array: it "
        }
        (DocumentKind::TaskList, _) => "",
        (_, "a history") => "must be an array, not an object: it ",
        _ => "",
    };
    problems.add(
        document.location(),
        format!("{shape}{}", kind.refusal(expected.1, &file)),
    );
    true
}

/// Warns of unknown keys that are most likely misspellings of a missing key in `known`.
pub(crate) fn warn_of_misspelt(object: &Cursor<'_>, known: &[&str], problems: &mut Problems) {
    let Some(map) = object.value.as_object() else {
        return;
    };
    for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
        let absent = known
            .iter()
            .copied()
            .filter(|name| !map.contains_key(*name));
        let meant = did_you_mean(key, absent);
        if !meant.is_empty() {
            problems.warn(
                object.location_of(key),
                format!("unknown key, which is ignored{meant}"),
            );
        }
    }
}

/// Adds a problem if a folder is given as a workflow and its contents show which file is meant.
/// Returns true if they do.
pub(crate) fn refuse_folder(path: &Path, problems: &mut Problems) -> bool {
    let text = if path.join("workflow.json").is_file() {
        format!(
            "is a folder; name its workflow: {}",
            shell_word(path.join("workflow.json").display())
        )
    } else if path.join(MANIFEST).is_file() {
        format!(
            "is a task package, not a workflow; name a workflow and give the package as `--tasks \
             {}`",
            shell_word(path.display())
        )
    } else {
        return false;
    };
    problems.add(crate::problem::Location::File(path.to_owned()), text);
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_known_by_their_keys() {
        use DocumentKind as Kind;
        for (value, expected) in [
            (json!({ "task_list": [] }), Some(Kind::Workflow)),
            (
                json!({ "task_list": [{ "task": { "pkg_name": "p" } }] }),
                Some(Kind::WorkflowV2),
            ),
            (
                json!({ "task_list": [{ "args_parallel": null }] }),
                Some(Kind::WorkflowV2),
            ),
            (
                json!({ "manifest_version": "2", "task_list": [] }),
                Some(Kind::Manifest),
            ),
            (json!({ "metadata": {}, "history": [] }), Some(Kind::Result)),
            (json!({ "metadata": {}, "history": [], "x": 1 }), None),
            (
                json!([{ "workflowtask": {}, "status": "done" }]),
                Some(Kind::History),
            ),
            (json!([{ "task": {} }]), Some(Kind::TaskList)),
            (
                json!({ "name": "d", "zarr_dir": "/z", "images": [] }),
                Some(Kind::DatasetV2),
            ),
            (json!({ "resource_list": [] }), Some(Kind::Dataset)),
            (json!({ "plate": ["p.zarr"] }), None),
            (json!([]), None),
            (json!(3), None),
        ] {
            assert_eq!(DocumentKind::of(&value), expected, "{value}");
        }
    }
}
