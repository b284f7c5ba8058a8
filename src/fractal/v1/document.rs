//! workflow.json, `__FRACTAL_MANIFEST__.json`, metadata and history, as they were written. Their
//! shape is checked, but not their meaning. Unknown keys are kept, since Fractal accepts them too.

use std::path::{Path, PathBuf};

use super::task::RESERVED_ARGUMENTS;
use crate::fractal::args::schema::ArgsSchema;
use crate::fractal::command::{drop_interpreter, twin_of};
use crate::fractal::document_kind::{
    DocumentKind, refuse_another, refuse_folder, warn_of_misspelt,
};
use crate::fractal::read::{parse_document, read_dataset, read_document, split_command};
use crate::json::{Map, Value};
use crate::problem::{Cursor, Location, Problems};
use crate::text::wording::shell_word;

/// Keys of a task in a workflow. In a manifest, `executable` replaces the first.
const TASK_KEYS: [&str; 8] = [
    "command",
    "name",
    "source",
    "input_type",
    "output_type",
    "meta",
    "default_args",
    "args_schema",
];
/// Keys of `meta` that mandelbox uses.
const META_KEYS: [&str; 4] = [
    "parallelization_level",
    "parallel_tasks_per_job",
    "mem",
    "mandelbox",
];

/// A workflow in either of Fractal's two forms.
#[derive(Clone, Debug)]
pub struct WorkflowDocument {
    /// File of the document; for a document in memory, a name for messages.
    pub file: PathBuf,
    /// Folder that module paths in `command` are relative to.
    pub folder: PathBuf,
    /// Name of the workflow; `workflow` if the document has none.
    pub name: String,
    /// The tasks, in the order of the run.
    pub task_list: Vec<WorkflowTaskDocument>,
}

/// One entry of `task_list`.
#[derive(Clone, Debug)]
pub struct WorkflowTaskDocument {
    /// Index in the document's `task_list`, from 0, for JSON pointers.
    pub position: usize,
    /// `order`, with which the names of the task's files begin.
    pub order: u64,
    /// `args` as given; `None` if null or missing.
    pub args: Option<Map<String, Value>>,
    /// File with the args, if they are not in the workflow's file. The args are its whole contents.
    pub args_file: Option<PathBuf>,
    /// `meta` as given; `None` if null or missing.
    pub meta: Option<Map<String, Value>>,
    /// The task, or the source for finding it.
    pub task: TaskReference,
    /// The entry as it was written, with unknown keys, for history items.
    pub raw: Map<String, Value>,
}

/// Reference from a workflow task to its task.
#[derive(Clone, Debug)]
pub enum TaskReference {
    /// Full form: the task is in the workflow.
    Inline(Box<TaskDocument>),
    /// Exported form: the task is in a task package.
    Source {
        /// Source of the task in the package.
        source: String,
        /// Name of the task, if the workflow gives it: exports of 2023 have one source for all
        /// tasks of a package.
        name: Option<String>,
    },
}

/// A task, from a workflow of the full form or from a manifest.
#[derive(Clone, Debug)]
pub struct TaskDocument {
    /// Name, without white space at both ends.
    pub name: String,
    /// Path of the module, followed by fixed arguments; never empty.
    pub command: Vec<String>,
    /// Folder that the module's path is relative to.
    pub folder: PathBuf,
    /// Type of the input; `Any` unless given.
    pub input_type: String,
    /// Type of the output; `Any` unless given.
    pub output_type: String,
    /// `meta`; empty if null or missing.
    pub meta: Map<String, Value>,
    /// Args that are used if neither the workflow nor the user gives others; empty if null or
    /// missing. Manifests had them before they had schemas (fractal-tasks-core up to 0.9).
    pub default_args: Map<String, Value>,
    /// JSON Schema of the args, if there is one.
    pub args_schema: Option<Value>,
    /// The task as a history item shows it. In the full form it lacks `args_schema`, which the
    /// workflow task has.
    pub raw: Map<String, Value>,
    /// File that it was read from, and its JSON pointer in the file.
    pub origin: (PathBuf, String),
}

impl WorkflowDocument {
    /// Reads a workflow file.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(path, problems))
    }

    /// Reads a workflow file for further checks. Adds problems to `problems`. The workflow that is
    /// returned may lack tasks: it must not be run unless `problems` is empty.
    pub fn read_into(path: &Path, problems: &mut Problems) -> Option<Self> {
        if path.is_dir() && refuse_folder(path, problems) {
            return None;
        }
        let value = read_document(path, problems)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::from_value(path, &folder, &value, problems)
    }

    /// Creates a workflow of one task, for a single call.
    ///
    /// * `args`: args of the task, which are the contents of `args_file`.
    pub fn of_task(task: TaskDocument, args: Map<String, Value>, args_file: PathBuf) -> Self {
        let (file, name) = (args_file.clone(), task.name.clone());
        let task_list = vec![WorkflowTaskDocument {
            position: 0,
            order: 0,
            args: Some(args),
            args_file: Some(args_file),
            meta: None,
            task: TaskReference::Inline(Box::new(task)),
            raw: Map::new(),
        }];
        Self {
            file,
            folder: PathBuf::new(),
            name,
            task_list,
        }
    }

    /// Parses a workflow from JSON text, for programs that hold it in memory. Module paths are
    /// relative to `folder`.
    pub fn parse(
        name_for_messages: &str,
        folder: &Path,
        text: &[u8],
        problems: &mut Problems,
    ) -> Option<Self> {
        let file = Path::new(name_for_messages);
        let value = parse_document(file, text, problems)?;
        Self::from_value(file, folder, &value, problems)
    }

    /// Reads a workflow from a value.
    ///
    /// * `file`: file for messages.
    /// * `folder`: folder that the paths of modules are relative to.
    pub(crate) fn from_value(
        file: &Path,
        folder: &Path,
        value: &Value,
        problems: &mut Problems,
    ) -> Option<Self> {
        let document = Cursor::new(file, value);
        if refuse_another(
            &document,
            (&[DocumentKind::Workflow], "a workflow"),
            problems,
        ) {
            return None;
        }
        document.object(problems)?;
        warn_of_misspelt(&document, &["name", "task_list"], problems);
        let name = document.get("name").and_then(|name| name.text(problems));
        let entries = document
            .require("task_list", problems)
            .map(|list| list.items(problems))
            .unwrap_or_default();
        let mut task_list: Vec<_> = entries
            .iter()
            .enumerate()
            .filter_map(|(position, entry)| {
                WorkflowTaskDocument::from_cursor(position, entry, folder, problems)
            })
            .collect();
        let exported = task_list
            .iter()
            .all(|task| matches!(task.task, TaskReference::Source { .. }));
        if exported {
            // A full workflow is often written by hand, and its name only serves people.
            document.require("name", problems);
        }
        task_list.sort_by_key(|task| task.order);
        let name = name.unwrap_or("workflow").to_owned();
        Some(Self {
            file: file.to_owned(),
            folder: folder.to_owned(),
            name,
            task_list,
        })
    }
}

impl WorkflowTaskDocument {
    fn from_cursor(
        position: usize,
        entry: &Cursor<'_>,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<Self> {
        let raw = entry.object(problems)?.clone();
        let args = entry
            .get_not_null("args")
            .and_then(|args| args.object(problems))
            .cloned();
        let meta = entry
            .get_not_null("meta")
            .and_then(|meta| meta.object(problems))
            .cloned();
        let task = entry.require("task", problems)?;
        task.object(problems)?;
        warn_of_misspelt(entry, &["args", "meta", "order", "task"], problems);
        if let Some(meta) = entry.get_not_null("meta") {
            warn_of_misspelt(&meta, &META_KEYS, problems);
        }
        warn_of_misspelt(&task, &TASK_KEYS, problems);
        let (order, task) = if task.get("command").is_some() {
            let order = read_order(position, entry, problems);
            (
                order,
                TaskReference::Inline(Box::new(TaskDocument::inline(&task, folder, problems)?)),
            )
        } else {
            // In the exported form the position counts, and `order` in the file is ignored.
            let Some(source) = task.get("source") else {
                let text = "has neither `command` (the path of a module) nor `source` (a task of \
                    a package)";
                problems.add(task.location(), text);
                return None;
            };
            let source = source.text(problems)?.to_owned();
            let name = task
                .get_not_null("name")
                .and_then(|name| name.text(problems))
                .map(str::to_owned);
            (
                Some(position as u64),
                TaskReference::Source { source, name },
            )
        };
        Some(Self {
            position,
            order: order?,
            args,
            args_file: None,
            meta,
            task,
            raw,
        })
    }
}

fn read_order(position: usize, entry: &Cursor<'_>, problems: &mut Problems) -> Option<u64> {
    match entry.get("order") {
        None => Some(position as u64),
        Some(order) if order.value.is_null() => Some(0),
        Some(order) => {
            let number = order.value.as_u64();
            if number.is_none() {
                problems.add(
                    order.location(),
                    format!("must be an integer of 0 or more, not {}", order.value),
                );
            }
            number
        }
    }
}

impl TaskDocument {
    fn inline(task: &Cursor<'_>, folder: &Path, problems: &mut Problems) -> Option<Self> {
        let mut command = task
            .get("command")
            .and_then(|command| split_command(&command, command.text(problems)?, problems));
        command.iter_mut().for_each(drop_interpreter);
        Self::read(task, command.unwrap_or_default(), folder, problems)
            .filter(|task| !task.command.is_empty())
    }

    /// Reads the keys that workflows and manifests share; the caller provides `command`.
    pub(crate) fn read(
        task: &Cursor<'_>,
        command: Vec<String>,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<Self> {
        let name = task.require("name", problems)?.text(problems);
        let text_or_any = |key, problems: &mut Problems| match task.get_not_null(key) {
            Some(value) => value.text(problems).unwrap_or("Any").to_owned(),
            None => "Any".to_owned(),
        };
        let input_type = text_or_any("input_type", problems);
        let output_type = text_or_any("output_type", problems);
        let map_or_empty = |key, problems: &mut Problems| {
            task.get_not_null(key)
                .and_then(|value| value.object(problems))
                .cloned()
                .unwrap_or_default()
        };
        let meta = map_or_empty("meta", problems);
        if let Some(meta) = task.get_not_null("meta") {
            warn_of_misspelt(&meta, &META_KEYS, problems);
        }
        let default_args = map_or_empty("default_args", problems);
        let args_schema = task
            .get_not_null("args_schema")
            .map(|schema| schema.value.clone());
        // The schema can be most of a document, and the workflow task has it too.
        let raw = task
            .object(problems)?
            .iter()
            .filter(|(key, _)| *key != "args_schema");
        let raw = raw
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let (folder, origin) = (folder.to_owned(), task.origin());
        let name = name?.to_owned();
        Some(Self {
            name,
            command,
            folder,
            input_type,
            output_type,
            meta,
            default_args,
            args_schema,
            raw,
            origin,
        })
    }
}

impl TaskDocument {
    /// Returns the path of the module. The module of the same name next to a script replaces it, if
    /// it exists.
    pub fn module_path(&self) -> PathBuf {
        let named = self.named_path();
        let twin = twin_of(&named).filter(|twin| twin.is_file());
        twin.unwrap_or(named)
    }

    /// Returns the path that the document names: that of a module, or of a script.
    pub(crate) fn named_path(&self) -> PathBuf {
        self.folder.join(&self.command[0])
    }

    /// Returns the location of a key of this task.
    pub fn location_of(&self, key: &str) -> Location {
        let (file, pointer) = self.origin.clone();
        Location::Pointer {
            file,
            pointer: format!("{pointer}/{key}"),
        }
    }

    /// Returns the schema of the args, if there is one.
    pub(crate) fn schema(&self) -> Option<ArgsSchema<'_>> {
        let (file, pointer) = &self.origin;
        Some(ArgsSchema {
            schema: self.args_schema.as_ref()?,
            task: &self.name,
            file,
            pointer: format!("{pointer}/args_schema"),
            reserved: &RESERVED_ARGUMENTS,
        })
    }

    /// Creates a cursor at a key of this task, for its value.
    pub fn cursor<'a>(&'a self, key: &str, value: &'a Value) -> Cursor<'a> {
        let (file, pointer) = &self.origin;
        Cursor::at(file, format!("{pointer}/{key}"), value)
    }
}

impl TaskDocument {
    /// Creates a task for a command of which only the module is known.
    pub fn of_module(path: &Path) -> Self {
        Self {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            command: vec![path.to_string_lossy().into_owned()],
            folder: PathBuf::new(),
            input_type: "Any".to_owned(),
            output_type: "Any".to_owned(),
            meta: Map::new(),
            default_args: Map::new(),
            args_schema: None,
            raw: Map::new(),
            origin: (path.to_owned(), String::new()),
        }
    }
}

impl TaskDocument {
    /// Returns advice on the command of a task whose module does not exist: it may have characters
    /// with a meaning to a shell.
    pub(crate) fn command_advice(&self) -> String {
        let Some(text) = self.raw.get("command").and_then(Value::as_str) else {
            return String::new();
        };
        if self.module_path().exists() {
            return String::new();
        }
        if text.contains('\\') {
            let path = text.replace('\\', "/");
            return format!(
                "; a backslash in a command quotes the next character, as in a shell: write `/` \
                 between folders (`{path}`)"
            );
        }
        // The words up to the first one that ends like a module are most likely one path.
        let end = self
            .command
            .iter()
            .position(|word| word.ends_with(".wasm"))
            .unwrap_or(self.command.len() - 1);
        let path = self.command[..=end].join(" ");
        if end == 0 {
            return String::new();
        }
        format!(
            "; a space in a command ends the path, as in a shell: if it belongs to the path, \
             write it in quotes (`{}`)",
            shell_word(path)
        )
    }
}

/// Reads the metadata of a dataset: an object.
pub fn read_metadata(path: &Path, problems: &mut Problems) -> Option<Map<String, Value>> {
    let value = read_dataset(path, problems)?;
    if refuse_another(&Cursor::new(path, &value), (&[], "metadata"), problems) {
        return None;
    }
    match value {
        Value::Object(metadata) => Some(metadata),
        other => {
            Cursor::new(path, &other).wrong_type("an object", problems);
            None
        }
    }
}

/// Reads the history of a dataset: an array of objects.
pub fn read_history(path: &Path, problems: &mut Problems) -> Option<Vec<Value>> {
    let value = read_dataset(path, problems)?;
    let items = Cursor::new(path, &value);
    if refuse_another(&items, (&[DocumentKind::History], "a history"), problems) {
        return None;
    }
    for item in items.items(problems) {
        item.object(problems);
    }
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// Reads the result of an earlier run: its metadata and history.
pub fn read_result(
    path: &Path,
    problems: &mut Problems,
) -> Option<(Map<String, Value>, Vec<Value>)> {
    let value = read_dataset(path, problems)?;
    let result = Cursor::new(path, &value);
    if refuse_another(
        &result,
        (&[DocumentKind::Result], "the result of a run"),
        problems,
    ) {
        return None;
    }
    result.object(problems)?;
    let metadata = result.require("metadata", problems)?.object(problems);
    let history = result.require("history", problems)?.items(problems);
    for item in &history {
        item.object(problems);
    }
    let history = history.iter().map(|item| item.value.clone()).collect();
    Some((metadata?.clone(), history))
}
