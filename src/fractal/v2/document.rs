//! Workflow documents of version 2, in the exported and the full form.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::filters::merge_type_filters;
use super::image::{Types, read_types, trimmed_entries};
use super::manifest::TaskDocument;
use super::task::{RESERVED_ARGUMENTS, Side, TaskDetails};
use crate::fractal::document_kind::{DocumentKind, refuse_another};
use crate::fractal::local_config::{self, LocalConfig, merged_meta};
use crate::fractal::read::read_document;
use crate::json::{Map, Value};
use crate::model::WEAKENED;
use crate::problem::{Cursor, Location, Problems};
use crate::text::wording::did_you_mean;

/// Keys of a workflow of the exported form.
const WORKFLOW_KEYS: [&str; 3] = ["name", "description", "task_list"];
/// Keys of its entries.
const ENTRY_KEYS: [&str; 9] = [
    "task",
    "args_non_parallel",
    "args_parallel",
    "meta_non_parallel",
    "meta_parallel",
    "type_filters",
    "input_filters",
    "description",
    "alias",
];
/// Keys of the tasks of its entries.
const REFERENCE_KEYS: [&str; 3] = ["pkg_name", "version", "name"];

/// A workflow in either of Fractal's two forms.
#[derive(Clone, Debug)]
pub struct WorkflowDocument {
    /// File of the document; for a document in memory, a name for messages.
    pub file: PathBuf,
    /// Folder that the paths of modules are relative to.
    pub folder: PathBuf,
    /// Name of the workflow.
    pub name: String,
    /// The tasks, in the order of the run.
    pub task_list: Vec<WorkflowTask>,
}

/// One entry of `task_list`.
#[derive(Clone, Debug)]
pub struct WorkflowTask {
    /// Position in the order of the run, from 0.
    pub order: u64,
    /// The task, or the keys for finding it.
    pub task: TaskReference,
    /// Arguments and `meta` of the single call.
    pub non_parallel: GivenSide,
    /// Arguments and `meta` of the calls for images or items.
    pub parallel: GivenSide,
    /// Types by which the images of this task are selected, in addition to its input types.
    pub type_filters: Types,
    /// Another name of the task for users.
    pub alias: Option<String>,
    /// File that it was read from, and its JSON pointer in the file.
    pub origin: (PathBuf, String),
}

/// Arguments and `meta` that a workflow gives for one kind of calls; empty if null or missing.
#[derive(Clone, Debug, Default)]
pub struct GivenSide {
    /// The arguments.
    pub args: Map<String, Value>,
    /// `meta`, which overrides that of the task.
    pub meta: Map<String, Value>,
}

/// Reference from a workflow task to its task.
#[derive(Clone, Debug)]
pub enum TaskReference {
    /// Full form: the task is in the workflow.
    Inline(Box<TaskDocument>),
    /// Exported form: the task is in a task package.
    Package {
        /// Name of the package.
        pkg_name: String,
        /// Version of the package; some exports lack it.
        version: Option<String>,
        /// Name of the task.
        name: String,
    },
}

impl WorkflowDocument {
    /// Reads a workflow file.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| {
            let value = read_document(path, problems)?;
            let folder = path.parent().unwrap_or(Path::new(""));
            Self::from_cursor(&Cursor::new(path, &value), folder, problems)
        })
    }

    /// Reads a workflow. Adds problems to `problems`. The workflow that is returned may lack tasks:
    /// it must not be run unless `problems` is empty.
    ///
    /// Source: conformance rules V14 and V22.
    pub fn from_cursor(
        document: &Cursor<'_>,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<Self> {
        let kinds = &[DocumentKind::Workflow, DocumentKind::WorkflowV2];
        if refuse_another(document, (kinds, "a workflow"), problems) {
            return None;
        }
        document.object(problems)?;
        let entries = match document.require("task_list", problems) {
            Some(list) => list.items(problems),
            None => Vec::new(),
        };
        let is_full = entries.iter().any(is_inline);
        if !is_full {
            refuse_unknown(document, &WORKFLOW_KEYS, problems);
        }
        let name = document
            .require("name", problems)
            .and_then(|name| name.text(problems));
        optional_text(document, "description", problems);
        let mut task_list = Vec::with_capacity(entries.len());
        for (position, entry) in entries.iter().enumerate() {
            task_list.extend(WorkflowTask::from_cursor(
                position as u64,
                entry,
                is_full,
                problems,
            ));
        }
        task_list.sort_by_key(|task| task.order);
        Some(Self {
            file: document.origin().0,
            folder: folder.to_owned(),
            name: name?.to_owned(),
            task_list,
        })
    }
}

/// Returns true if an entry contains its task, and not only the keys for finding it.
fn is_inline(entry: &Cursor<'_>) -> bool {
    let task = entry.get("task");
    task.is_some_and(|task| {
        let has = |key| task.get(key).is_some();
        has("command_non_parallel") || has("command_parallel")
    })
}

impl WorkflowTask {
    fn from_cursor(
        position: u64,
        entry: &Cursor<'_>,
        is_full: bool,
        problems: &mut Problems,
    ) -> Option<Self> {
        entry.object(problems)?;
        if !is_full {
            refuse_unknown(entry, &ENTRY_KEYS, problems);
        }
        let non_parallel = GivenSide::read(entry, "non_parallel", problems);
        let parallel = GivenSide::read(entry, "parallel", problems);
        let type_filters = read_type_filters(entry, problems);
        let alias = optional_text(entry, "alias", problems);
        optional_text(entry, "description", problems);
        let task = entry.require("task", problems)?;
        let (order, task) = if is_full {
            let order = match entry.get_not_null("order") {
                None => Some(position),
                Some(order) => {
                    if order.value.as_u64().is_none() {
                        order.wrong_type("an integer of 0 or more", problems);
                    }
                    order.value.as_u64()
                }
            };
            let task = TaskDocument::read(&task, "command", problems)?;
            (order?, TaskReference::Inline(Box::new(task)))
        } else {
            (position, read_reference(&task, problems)?)
        };
        Some(Self {
            order,
            task,
            non_parallel,
            parallel,
            type_filters,
            alias: alias.map(str::to_owned),
            origin: entry.origin(),
        })
    }

    /// Creates an entry that gives a task nothing, for a call without a workflow.
    ///
    /// * `file`: file with the arguments of the call.
    #[cfg(feature = "cli")]
    pub(crate) fn of_task(task: &TaskDocument, file: &Path) -> Self {
        Self {
            order: 0,
            task: TaskReference::Package {
                pkg_name: String::new(),
                version: None,
                name: task.name.clone(),
            },
            non_parallel: GivenSide::default(),
            parallel: GivenSide::default(),
            type_filters: Types::new(),
            alias: None,
            origin: (file.to_owned(), String::new()),
        }
    }

    /// Returns what the dataset needs to know about this task. Adds a problem if this entry does
    /// not fit the task.
    ///
    /// Source: conformance rules V20 and V21, defect W6.
    pub fn details(&self, task: &TaskDocument, problems: &mut Problems) -> TaskDetails {
        for side in Side::ALL {
            let (given, name) = (self.side(side), side.name());
            for (values, kind) in [(&given.args, "args"), (&given.meta, "meta")] {
                if task.side(side).is_none() && !values.is_empty() {
                    let text = format!(
                        "the task \"{}\" has no such calls; remove this key",
                        task.name
                    );
                    problems.add(self.location_of(&format!("{kind}_{name}")), text);
                }
            }
        }
        let type_filters = match merge_type_filters(&task.input_types, &self.type_filters) {
            Ok(types) => types,
            Err(key) => {
                let text = format!(
                    "`{key}` contradicts the input types of the task \"{}\"",
                    task.name
                );
                problems.add(self.location_of("type_filters"), text);
                Types::new()
            }
        };
        TaskDetails {
            task_type: task.task_type,
            args_non_parallel: self.non_parallel.args.clone(),
            args_parallel: self.parallel.args.clone(),
            type_filters,
            output_types: task.output_types.clone(),
            compute: None,
        }
    }

    /// Returns what the workflow gives for one kind of calls.
    pub fn side(&self, side: Side) -> &GivenSide {
        match side {
            Side::NonParallel => &self.non_parallel,
            Side::Parallel => &self.parallel,
        }
    }

    /// Returns the `meta` of one kind of calls: that of the task, updated with that of the workflow
    /// task, shallowly.
    ///
    /// Source: conformance rule V17.
    pub fn merged_meta(&self, task: &TaskDocument, side: Side) -> Map<String, Value> {
        let given = &self.side(side).meta;
        match task.side(side) {
            Some(of_task) => merged_meta(&of_task.meta, Some(given)),
            None => given.clone(),
        }
    }

    /// Returns a cursor at the `meta` of one kind of calls, in the document that has the key.
    ///
    /// * `merged`: result of [`Self::merged_meta`].
    pub fn meta_cursor<'a>(
        &'a self,
        task: &'a TaskDocument,
        side: Side,
        merged: &'a Value,
        key: &str,
    ) -> Cursor<'a> {
        let is_given = self.side(side).meta.contains_key(key);
        let (file, pointer) = if is_given { &self.origin } else { &task.origin };
        Cursor::at(file, format!("{pointer}/meta_{}", side.name()), merged)
    }

    /// Returns the maximum number of parallel calls that run at the same time; `None`: no limit.
    ///
    /// Source: conformance rule V56, defect W15.
    pub fn max_parallel(
        &self,
        task: &TaskDocument,
        local_config: LocalConfig,
        problems: &mut Problems,
    ) -> Option<NonZeroUsize> {
        let meta = Value::Object(self.merged_meta(task, Side::Parallel));
        let meta = self.meta_cursor(task, Side::Parallel, &meta, local_config::KEY);
        local_config.for_task(&meta, problems)
    }

    /// Returns the location of a key of this entry.
    pub fn location_of(&self, key: &str) -> Location {
        let (file, pointer) = self.origin.clone();
        Location::Pointer {
            file,
            pointer: format!("{pointer}/{key}"),
        }
    }
}

impl GivenSide {
    /// Source: conformance rules V17 to V19.
    fn read(entry: &Cursor<'_>, side: &str, problems: &mut Problems) -> Self {
        let args = read_entries(entry, &format!("args_{side}"), problems);
        for key in args.keys() {
            if RESERVED_ARGUMENTS.contains(&key.as_str()) && !WEAKENED {
                let text = format!("`{key}` is reserved: each call gets its own; remove it");
                problems.add(entry.location_of(&format!("args_{side}")), text);
            }
        }
        let meta = read_entries(entry, &format!("meta_{side}"), problems);
        Self { args, meta }
    }
}

fn read_entries(entry: &Cursor<'_>, key: &str, problems: &mut Problems) -> Map<String, Value> {
    let given = entry.get_not_null(key);
    let entries = given.and_then(|given| trimmed_entries(&given, problems));
    let entries = entries.into_iter().flatten();
    entries
        .map(|(key, value)| (key, value.value.clone()))
        .collect()
}

/// Reads `type_filters`, or the `input_filters` of old exports.
///
/// Source: conformance rule V15, defect W31.
fn read_type_filters(entry: &Cursor<'_>, problems: &mut Problems) -> Types {
    let read = |types: Option<Cursor<'_>>, problems: &mut Problems| {
        let types = types.and_then(|types| read_types(&types, problems));
        types.unwrap_or_default()
    };
    let Some(old) = entry.get_not_null("input_filters") else {
        return read(entry.get_not_null("type_filters"), problems);
    };
    if entry.get("type_filters").is_some() {
        let text = "the same as `type_filters` in an older form; keep one of them";
        problems.add(old.location(), text);
    }
    old.object(problems);
    if let Some(attributes) = old.get("attributes")
        && attributes
            .object(problems)
            .is_some_and(|map| !map.is_empty())
    {
        let text = "must be empty: attributes can only be filtered for a whole run";
        problems.add(attributes.location(), text);
    }
    read(old.get("types"), problems)
}

fn read_reference(task: &Cursor<'_>, problems: &mut Problems) -> Option<TaskReference> {
    task.object(problems)?;
    refuse_unknown(task, &REFERENCE_KEYS, problems);
    let pkg_name = task
        .require("pkg_name", problems)
        .and_then(|name| name.text(problems));
    let version = optional_text(task, "version", problems);
    let name = task
        .require("name", problems)
        .and_then(|name| name.text(problems));
    Some(TaskReference::Package {
        pkg_name: pkg_name?.to_owned(),
        version: version.map(str::to_owned),
        name: name?.to_owned(),
    })
}

fn optional_text<'a>(object: &Cursor<'a>, key: &str, problems: &mut Problems) -> Option<&'a str> {
    object
        .get_not_null(key)
        .and_then(|text| text.text(problems))
}

fn refuse_unknown(object: &Cursor<'_>, known: &[&str], problems: &mut Problems) {
    for key in object.value.as_object().into_iter().flat_map(Map::keys) {
        if !known.contains(&key.as_str()) {
            let meant = did_you_mean(key, known.iter().copied());
            problems.add(object.location_of(key), format!("unknown key{meant}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};

    fn read(value: &Value) -> Result<WorkflowDocument, Problems> {
        Problems::or_value(|problems| {
            WorkflowDocument::from_cursor(
                &Cursor::new(Path::new("w"), value),
                Path::new(""),
                problems,
            )
        })
    }

    fn workflow(entry: Value) -> Value {
        let mut entry = entry;
        entry["task"] = json!({"pkg_name": "p", "version": "1", "name": "t"});
        json!({"name": "w", "task_list": [entry]})
    }

    // Source: conformance rules V14, V15 and V19.
    #[test]
    fn workflows_are_fractals() {
        each_row("workflow_import", |row: &Row| {
            // Source: defect W31.
            let is_taken = row["exception"] == "KeyError";
            let read = read(&row["in"]);
            assert_eq!(
                read.is_ok(),
                row.is_accepted() || is_taken,
                "{row:?}: {read:?}"
            );
            let (Ok(read), Some(expected)) = (read, row.get("ok")) else {
                return;
            };
            assert_eq!(read.name, expected["name"]);
            for (task, expected) in read
                .task_list
                .iter()
                .zip(expected["task_list"].as_array().expect("a list"))
            {
                assert_eq!(json!(task.alias), expected["alias"], "{row:?}");
                let args = Value::Object(task.parallel.args.clone());
                let expected = Some(&expected["args_parallel"]).filter(|args| !args.is_null());
                assert_eq!(&args, expected.unwrap_or(&json!({})), "{row:?}");
            }
        });
    }

    // Source: conformance rule V18, defect W5.
    #[test]
    fn reserved_arguments_are_refused() {
        each_row("workflow_task_args", |row: &Row| {
            let read = read(&workflow(json!({"args_parallel": row["in"]})));
            let args = read
                .ok()
                .map(|read| Value::Object(read.task_list[0].parallel.args.clone()));
            assert_eq!(args.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: conformance rule V56, defect W15.
    #[test]
    fn limits_of_parallel_calls_are_fractals() {
        const KEY: &str = "parallel_tasks_per_job";
        each_row("parallel_tasks_per_job", |row: &Row| {
            let meta = |value: &Value| match value.as_str() {
                Some("__none__") => json!({}),
                _ => json!({ KEY: value }),
            };
            let task = json!({
                "name": "t",
                "executable_parallel": "p",
                "meta_parallel": if row["task_meta"].is_null() {
                    json!({})
                } else {
                    json!({ KEY: row["task_meta"] })
                },
            });
            let mut problems = Problems::default();
            let task = Cursor::new(Path::new("m"), &task);
            let task = TaskDocument::read(&task, "executable", &mut problems).expect("a task");
            let entry = workflow(json!({"meta_parallel": meta(&row["workflow_task_meta"])}));
            let workflow = read(&entry).expect("a workflow");
            let resource = row["resource"][KEY].as_u64();
            let local_config = LocalConfig {
                parallel_tasks_per_job: resource
                    .and_then(|n| NonZeroUsize::new(usize::try_from(n).expect("small"))),
            };
            let n = workflow.task_list[0].max_parallel(&task, local_config, &mut problems);
            match row["ok"][KEY].as_i64() {
                Some(expected) if expected < 1 => assert!(!problems.is_empty(), "{row:?}"),
                expected => {
                    assert!(problems.is_empty(), "{row:?}");
                    let n = n.map(|n| i64::try_from(n.get()).expect("small"));
                    assert_eq!(n, expected, "{row:?}");
                }
            }
        });
    }

    // Source: conformance rules V20 and V21, defect W6.
    #[test]
    fn entries_must_fit_their_task() {
        let task = json!({"name": "t", "executable_parallel": "p", "input_types": {"x": true}});
        let mut problems = Problems::default();
        let task = Cursor::new(Path::new("m"), &task);
        let task = TaskDocument::read(&task, "executable", &mut problems).expect("a task");
        let check = |entry: Value, n_problems: usize| {
            let workflow = read(&workflow(entry)).expect("a workflow");
            let mut problems = Problems::default();
            workflow.task_list[0].details(&task, &mut problems);
            assert_eq!(problems.len(), n_problems, "{problems}");
        };
        check(json!({"type_filters": {"x": true, "y": false}}), 0);
        check(json!({"type_filters": {"x": false}}), 1);
        check(
            json!({"args_non_parallel": {"a": 1}, "meta_non_parallel": {"b": 1}}),
            2,
        );
    }

    // Source: conformance rule V22.
    #[test]
    fn the_full_form_has_the_same_tasks() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal-v2/cases");
        let mut n_read = 0;
        for entry in std::fs::read_dir(cases).expect("a folder") {
            let folder = entry.expect("an entry").path();
            let full = folder.join("workflow-full.json");
            if !full.exists() {
                continue;
            }
            // Source: defect W7.
            let Ok(full) = WorkflowDocument::read(&full) else {
                let name = folder
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                assert!(name.starts_with("a50") || name.starts_with("a51"), "{name}");
                continue;
            };
            let exported = WorkflowDocument::read(&folder.join("workflow.json")).expect("valid");
            assert_eq!(full.task_list.len(), exported.task_list.len());
            for (full, exported) in full.task_list.iter().zip(&exported.task_list) {
                assert_eq!(full.order, exported.order);
                assert_eq!(full.parallel.args.len(), exported.parallel.args.len());
                assert_eq!(full.type_filters, exported.type_filters);
                assert!(matches!(full.task, TaskReference::Inline(_)));
            }
            n_read += 1;
        }
        assert!(n_read > 40, "{n_read}");
    }
}
