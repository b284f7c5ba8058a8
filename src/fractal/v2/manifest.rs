//! Manifests of version 2, and their tasks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::image::{Types, read_types, type_value};
use super::task::{RESERVED_ARGUMENTS, Side, TaskType};
use crate::fractal::args::schema::ArgsSchema;
use crate::fractal::read::read_package_document;
use crate::json::{Map, Value};
use crate::problem::{Cursor, Location, Problems};
use crate::text::wording::did_you_mean;

/// Tasks of a package.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Name of the package, if the manifest has it.
    pub pkg_name: Option<String>,
    /// Version of the package, if the manifest has it.
    pub version: Option<String>,
    /// The tasks; names are unique.
    pub task_list: Vec<TaskDocument>,
}

/// A task of a manifest, or of a workflow of the full form.
#[derive(Clone, Debug)]
pub struct TaskDocument {
    /// Name, without white space at both ends.
    pub name: String,
    /// Type of the task, which fits its executables.
    pub task_type: TaskType,
    /// The single call; `None` if the task has none.
    pub non_parallel: Option<TaskSide>,
    /// The calls for images or items; `None` if the task has none.
    pub parallel: Option<TaskSide>,
    /// Types of the images that the task gets.
    pub input_types: Types,
    /// Types that the task sets.
    pub output_types: Types,
    /// File that it was read from, and its JSON pointer in the file.
    pub origin: (PathBuf, String),
}

/// The part of a task for one kind of calls.
#[derive(Clone, Debug)]
pub struct TaskSide {
    /// In a manifest, a path relative to the package's folder; in a workflow, a command line.
    pub executable: String,
    /// `meta` of these calls; empty if missing.
    pub meta: Map<String, Value>,
    /// JSON Schema of the arguments of these calls, if there is one.
    pub args_schema: Option<Value>,
}

/// Names of the keys of a task for both kinds of calls.
const SIDES: [&str; 2] = ["non_parallel", "parallel"];

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| {
            let value = read_package_document(path, problems)?;
            Self::from_cursor(&Cursor::new(path, &value), problems)
        })
    }

    /// Reads a manifest. Unknown keys are ignored.
    ///
    /// Source: conformance rules V24 to V27.
    pub fn from_cursor(manifest: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        manifest.object(problems)?;
        let version = manifest.require("manifest_version", problems)?;
        if version.value == "1" || version.value == 1 {
            let text = "this is a package of Fractal v1, whose tasks a workflow of version 2 \
                        cannot run; use a version of the package whose `manifest_version` is \"2\", \
                        or a workflow of Fractal v1";
            problems.add(version.location(), text);
            return None;
        }
        if version.value != "2" {
            problems.add(version.location(), "must be \"2\", a string");
        }
        let needs_schemas = match manifest.get("has_args_schemas") {
            None => false,
            Some(flag) => type_value(flag.value).unwrap_or_else(|| {
                flag.wrong_type("true or false", problems);
                false
            }),
        };
        let tasks = manifest.require("task_list", problems)?.items(problems);
        let mut task_list = Vec::with_capacity(tasks.len());
        let mut names = HashSet::new();
        for cursor in &tasks {
            let Some(task) = TaskDocument::read(cursor, "executable", problems) else {
                continue;
            };
            if !names.insert(task.name.clone()) {
                let text = format!("duplicate name \"{}\"; names must be unique", task.name);
                problems.add(cursor.location_of("name"), text);
            }
            for (side, key) in [&task.non_parallel, &task.parallel].into_iter().zip(SIDES) {
                if needs_schemas && side.as_ref().is_some_and(|side| side.args_schema.is_none()) {
                    let text = format!(
                        "missing key `args_schema_{key}`, which `has_args_schemas` requires"
                    );
                    problems.add(cursor.location(), text);
                }
            }
            task_list.push(task);
        }
        let mut text = |key| {
            manifest
                .get_not_null(key)?
                .text(problems)
                .map(str::to_owned)
        };
        Some(Self {
            pkg_name: text("pkg_name"),
            version: text("version"),
            task_list,
        })
    }
}

impl TaskDocument {
    /// Reads a task.
    ///
    /// * `executable`: start of the keys that name what is run: `executable` in a manifest,
    ///   `command` in a workflow.
    ///
    /// Source: conformance rules V25 to V27, defect W7.
    pub(super) fn read(
        task: &Cursor<'_>,
        executable: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        task.object(problems)?;
        let n_before = problems.len();
        let name = task
            .require("name", problems)
            .and_then(|name| name.text(problems));
        let [non_parallel, parallel] =
            SIDES.map(|side| TaskSide::read(task, executable, side, problems));
        let mut types = |key| match task.get(key) {
            Some(types) => read_types(&types, problems).unwrap_or_default(),
            None => Types::new(),
        };
        let (input_types, output_types) = (types("input_types"), types("output_types"));
        check_link(task, problems);
        let given = task
            .get_not_null("type")
            .map(|given| (read_type(&given, problems), given));
        if problems.len() > n_before {
            return None;
        }
        let fitting = match (&non_parallel, &parallel) {
            (None, None) => {
                let text = format!(
                    "has neither `{executable}_non_parallel` nor `{executable}_parallel`; add one"
                );
                problems.add(task.location(), text);
                return None;
            }
            (Some(one), None) if takes_no_images(one) => TaskType::ConverterNonParallel,
            (Some(_), None) => TaskType::NonParallel,
            (None, Some(_)) => TaskType::Parallel,
            (Some(one), Some(_)) if takes_no_images(one) => TaskType::ConverterCompound,
            (Some(_), Some(_)) => TaskType::Compound,
        };
        let task_type = match given {
            None => fitting,
            Some((given, cursor)) => {
                let task_type = given?;
                let fits = task_type.has_single_call() == non_parallel.is_some()
                    && task_type.has_parallel_calls() == parallel.is_some();
                if !fits {
                    let text = format!(
                        "does not fit the executables: a task of this type has {}",
                        match (task_type.has_single_call(), task_type.has_parallel_calls()) {
                            (true, true) => "both",
                            (true, false) => "only the non-parallel one",
                            (false, _) => "only the parallel one",
                        }
                    );
                    problems.add(cursor.location(), text);
                    return None;
                }
                task_type
            }
        };
        Some(Self {
            name: name?.to_owned(),
            task_type,
            non_parallel,
            parallel,
            input_types,
            output_types,
            origin: task.origin(),
        })
    }

    /// Returns the part of the task for one kind of calls; `None` if it has no such calls.
    pub fn side(&self, side: Side) -> Option<&TaskSide> {
        match side {
            Side::NonParallel => self.non_parallel.as_ref(),
            Side::Parallel => self.parallel.as_ref(),
        }
    }

    /// Returns the schema of the arguments of one kind of calls, if there is one.
    pub(crate) fn schema(&self, side: Side) -> Option<ArgsSchema<'_>> {
        let (file, pointer) = &self.origin;
        Some(ArgsSchema {
            schema: self.side(side)?.args_schema.as_ref()?,
            task: &self.name,
            file,
            pointer: format!("{pointer}/args_schema_{}", side.name()),
            reserved: &RESERVED_ARGUMENTS,
        })
    }

    /// Returns the location of a key of this task.
    pub fn location_of(&self, key: &str) -> Location {
        let (file, pointer) = self.origin.clone();
        Location::Pointer {
            file,
            pointer: format!("{pointer}/{key}"),
        }
    }
}

/// Returns true if the schema of the single call has the argument `zarr_dir`, and no `zarr_urls`.
/// Only a converter has such a schema. Packages from before the types of converters have no other
/// sign of it.
fn takes_no_images(single: &TaskSide) -> bool {
    let schema = single.args_schema.as_ref();
    let names = schema.and_then(|schema| schema.get("properties")?.as_object());
    names.is_some_and(|names| names.contains_key("zarr_dir") && !names.contains_key("zarr_urls"))
}

impl TaskSide {
    fn read(
        task: &Cursor<'_>,
        executable: &str,
        side: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        // In a workflow of the full form, null is the same as missing.
        let is_manifest = executable == "executable";
        let meta = match task.get(&format!("meta_{side}")) {
            Some(meta) if is_manifest || !meta.value.is_null() => {
                meta.object(problems).cloned().unwrap_or_default()
            }
            _ => Map::new(),
        };
        let args_schema = task.get_not_null(&format!("args_schema_{side}"));
        if let Some(schema) = &args_schema {
            schema.object(problems);
        }
        let Some(program) = task.get_not_null(&format!("{executable}_{side}")) else {
            for (key, is_given) in [
                ("meta", !meta.is_empty()),
                ("args_schema", args_schema.is_some()),
            ] {
                if is_given {
                    let text = format!("must be empty without `{executable}_{side}`");
                    problems.add(task.location_of(&format!("{key}_{side}")), text);
                }
            }
            return None;
        };
        Some(Self {
            executable: program.text(problems)?.to_owned(),
            meta,
            args_schema: args_schema.map(|schema| schema.value.clone()),
        })
    }
}

fn read_type(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<TaskType> {
    let text = cursor.text(problems)?;
    let known = TaskType::NAMES.iter().find(|(name, _)| *name == text);
    if known.is_none() {
        let names = TaskType::NAMES.map(|(name, _)| name);
        let text = format!(
            "unknown type; known types: {}{}",
            names.join(", "),
            did_you_mean(text, names)
        );
        problems.add(cursor.location(), text);
    }
    known.map(|(_, task_type)| *task_type)
}

fn check_link(task: &Cursor<'_>, problems: &mut Problems) {
    if let Some(link) = task.get_not_null("docs_link")
        && let Some(text) = link.text(problems)
        && !text.starts_with("http://")
        && !text.starts_with("https://")
    {
        problems.add(link.location(), "must begin with `http://` or `https://`");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};

    fn read(value: &Value) -> Result<Manifest, Problems> {
        Problems::or_value(|problems| {
            Manifest::from_cursor(&Cursor::new(Path::new("m"), value), problems)
        })
    }

    // Source: conformance rules V24 to V27.
    #[test]
    fn manifests_are_fractals() {
        each_row("manifest", |row: &Row| {
            let task = &row["in"]["task_list"][0];
            // Source: defect W7. An executable without a name cannot run either.
            let is_refused = task["type"] == "compound" || task["executable_parallel"] == "";
            let manifest = read(&row["in"]);
            assert_eq!(
                manifest.is_ok(),
                row.is_accepted() && !is_refused,
                "{row:?}: {manifest:?}"
            );
            if let Ok(manifest) = manifest
                && let Some(task) = manifest.task_list.first()
            {
                let expected = &row["ok"]["task_list"][0];
                assert_eq!(json!(task.input_types), expected["input_types"], "{row:?}");
            }
        });
    }

    // Source: conformance rule V27, defect W7.
    #[test]
    fn types_follow_from_executables() {
        let check = |task: Value, expected: Option<TaskType>| {
            let manifest = json!({"manifest_version": "2", "task_list": [task]});
            let task_type = read(&manifest).ok().map(|read| read.task_list[0].task_type);
            assert_eq!(task_type, expected, "{manifest}");
        };
        let (one, other) = ("executable_parallel", "executable_non_parallel");
        check(json!({"name": "t", one: "p"}), Some(TaskType::Parallel));
        check(
            json!({"name": "t", other: "p"}),
            Some(TaskType::NonParallel),
        );
        check(
            json!({"name": "t", one: "p", other: "q"}),
            Some(TaskType::Compound),
        );
        let converter = "converter_compound";
        check(
            json!({"name": "t", one: "p", other: "q", "type": converter}),
            Some(TaskType::ConverterCompound),
        );
        check(json!({"name": "t", one: "p", "type": converter}), None);
        // A manifest without types: the schema shows a converter.
        let schema = "args_schema_non_parallel";
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| ((*name).to_owned(), json!({})));
            json!({ "properties": names.collect::<Map<String, Value>>() })
        };
        let (old, image_task) = (of(&["zarr_dir", "x"]), of(&["zarr_dir", "zarr_urls"]));
        for (document, expected) in [
            (
                json!({"name": "t", other: "q", schema: old}),
                TaskType::ConverterNonParallel,
            ),
            (
                json!({"name": "t", one: "p", other: "q", schema: old}),
                TaskType::ConverterCompound,
            ),
            (
                json!({"name": "t", other: "q", schema: image_task}),
                TaskType::NonParallel,
            ),
            (
                json!({"name": "t", other: "q", schema: old, "type": "non_parallel"}),
                TaskType::NonParallel,
            ),
            (
                json!({"name": "t", other: "q", schema: of(&[])}),
                TaskType::NonParallel,
            ),
        ] {
            check(document, Some(expected));
        }
        check(json!({"name": "t", other: "p", "type": "parallel"}), None);
    }
}
