//! Task packages: folders with a `__FRACTAL_MANIFEST__.json`, and typed tasks that describe
//! themselves.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::version::version_text;
use crate::fractal::command::drop_interpreter;
use crate::fractal::description::{self, DESCRIPTION, describe, is_only_v2};
use crate::fractal::document_kind::{MANIFEST, warn_of_misspelt};
use crate::fractal::read::{read_package_document, split_command};
use crate::fractal::v1::document::{
    TaskDocument, TaskReference, WorkflowDocument, WorkflowTaskDocument,
};
use crate::json::Value;
use crate::model::{Limits, Modules};
use crate::problem::{Cursor, Location, Problems};

/// A task package.
#[derive(Clone, Debug)]
pub struct TaskPackage {
    /// Folder of the package; for a module that describes itself, the folder that contains it.
    pub folder: PathBuf,
    /// Name of the folder, or of the module without `.wasm`. The sources of the tasks begin with
    /// it.
    pub name: String,
    /// Tasks of the package.
    pub task_list: Vec<PackageTask>,
    /// True if the package could not be read. Its problem was added, and its tasks are not known.
    pub is_refused: bool,
}

/// A task of a package.
#[derive(Clone, Debug)]
pub struct PackageTask {
    /// `PACKAGE:slug_of_the_name`.
    pub source: String,
    /// The task. Its command is the module's path below the package's folder.
    pub task: TaskDocument,
}

/// Converts the name of a task to the part of its source: lower case, with `_` for spaces.
///
/// Source: fractal-server 2.9.2, `slugify_task_name_for_source_v1`.
pub fn slugify_task_name(name: &str) -> String {
    name.replace(' ', "_").to_lowercase()
}

impl TaskPackage {
    /// Reads the manifest of a package.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(folder: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(folder, problems))
    }

    /// Reads the manifest in `folder`. Adds problems to `problems`, and returns the tasks that
    /// could be read.
    pub fn read_into(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let file = folder.join(MANIFEST);
        if file.symlink_metadata().is_err() {
            let text = if folder.exists() {
                format!(
                    "is not a task package: it has no {MANIFEST}; name the folder of a package, \
                     or a typed task (.wasm)"
                )
            } else {
                "no such folder or file; correct the path".to_owned()
            };
            problems.add(Location::File(folder.to_owned()), text);
            return None;
        }
        let value = read_package_document(&file, problems)?;
        let manifest = Cursor::new(&file, &value);
        manifest.object(problems)?;
        if !check_version(&manifest, problems) {
            return None;
        }
        let schemas_promised = match manifest.get_not_null("has_args_schemas") {
            None => false,
            Some(promise) => promise.value.as_bool().unwrap_or_else(|| {
                promise.wrong_type("a boolean", problems);
                false
            }),
        };
        let name = folder_name(folder);
        let entries = manifest
            .require("task_list", problems)
            .map(|list| list.items(problems))
            .unwrap_or_default();
        let mut sources = HashSet::new();
        let mut task_list: Vec<PackageTask> = Vec::new();
        for entry in &entries {
            let Some(task) = read_task(folder, &name, entry, problems) else {
                continue;
            };
            if schemas_promised && task.task.args_schema.is_none() {
                let text = format!(
                    "has_args_schemas=True but task \"{}\" has args_schema=None.",
                    task.task.name
                );
                problems.add(entry.location(), text);
            }
            if !sources.insert(task.source.clone()) {
                problems.add(
                    entry.location_of("name"),
                    format!(
                        "duplicate source `{}`; rename one of the tasks",
                        task.source
                    ),
                );
            }
            task_list.push(task);
        }
        Some(Self {
            folder: folder.to_owned(),
            name,
            task_list,
            is_refused: false,
        })
    }

    /// Reads the description of a typed task, whose file is a package of one task. Adds problems to
    /// `problems`.
    ///
    /// * `limits`: limits of calls, which also apply to the description.
    /// * `compile_time`: longest time for compiling the module.
    /// * `modules`: prepares the module, and runs it for its description.
    pub fn read_module(
        path: &Path,
        limits: &Limits,
        compile_time: Duration,
        modules: &dyn Modules,
        problems: &mut Problems,
    ) -> Option<Self> {
        let description = describe(path, limits, compile_time, modules, problems)?;
        if is_only_v2(&description) {
            let text = "describes a task of Fractal v2, which cannot be used here; use it in a \
                        workflow of version 2";
            problems.add(description::location(path), text);
            return None;
        }
        Self::from_description(path, description, problems)
    }

    /// Creates the package of a typed task from its description, which is checked like an entry of
    /// a manifest.
    pub(crate) fn from_description(
        path: &Path,
        mut value: Value,
        problems: &mut Problems,
    ) -> Option<Self> {
        let file_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Value::Object(entry) = &mut value {
            entry.insert("executable".to_owned(), Value::String(file_name));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let entry = Cursor::at(path, DESCRIPTION.to_owned(), &value);
        let task = read_task(folder, &name, &entry, problems)?;
        Some(Self {
            folder: folder.to_owned(),
            name,
            task_list: vec![task],
            is_refused: false,
        })
    }

    /// Creates a placeholder for a package that could not be read, so that its tasks are not
    /// reported as missing too.
    ///
    /// * `path`: its folder or module.
    pub fn refused(path: &Path) -> Self {
        let is_module = path
            .extension()
            .is_some_and(|extension| extension == "wasm");
        let name = folder_name(&if is_module {
            path.with_extension("")
        } else {
            path.to_owned()
        });
        Self {
            folder: path.to_owned(),
            name,
            task_list: Vec::new(),
            is_refused: true,
        }
    }

    /// Returns true if a folder has a manifest, or anything else of that name.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).symlink_metadata().is_ok()
    }
}

/// Returns the typed tasks in the folder of a workflow that its sources name: the source
/// `count:count_entries` is in `count.wasm`. Returns none if the folder has a manifest, since then
/// the manifest lists its tasks.
pub fn modules_next_to(workflow: &WorkflowDocument) -> Vec<PathBuf> {
    if TaskPackage::is_in(&workflow.folder) {
        return Vec::new();
    }
    let named = |task: &WorkflowTaskDocument| {
        let TaskReference::Source { source, .. } = &task.task else {
            return None;
        };
        let (name, _) = source.split_once(':')?;
        // A name, not a path: the user must name other modules explicitly.
        let is_name = !name.is_empty() && !name.contains(std::path::is_separator);
        Some(workflow.folder.join(format!("{name}.wasm"))).filter(|path| is_name && path.is_file())
    };
    workflow.task_list.iter().filter_map(named).collect()
}

/// Returns the task packages that are directly in a folder, such as that of an unpacked wheel.
pub fn packages_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| TaskPackage::is_in(path))
        .collect();
    folders.sort();
    folders
}

/// Returns the modules that are directly in a folder.
pub fn modules_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let is_module = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "wasm")
            && path.is_file()
    };
    let mut modules: Vec<_> = entries.filter(is_module).collect();
    modules.sort();
    modules
}

fn folder_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute
        .iter()
        .next_back()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Adds a problem if the version of the manifest is not 1. Returns false if its tasks have another
/// format.
fn check_version(manifest: &Cursor<'_>, problems: &mut Problems) -> bool {
    let Some(version) = manifest.require("manifest_version", problems) else {
        return true;
    };
    let text = version_text(version.value);
    let is_v2 = text == "2";
    if is_v2 {
        let text = "Wrong manifest version (given 2): this is a package of Fractal v2, whose tasks \
                    a workflow of version 1 cannot run; use a workflow of Fractal v2, or a version \
                    of the package whose `manifest_version` is 1";
        problems.add(version.location(), text);
    } else if text != "1" {
        problems.add(
            version.location(),
            format!("Wrong manifest version (given {text}); the version must be 1"),
        );
    }
    !is_v2
}

fn read_task(
    folder: &Path,
    package: &str,
    entry: &Cursor<'_>,
    problems: &mut Problems,
) -> Option<PackageTask> {
    entry.object(problems)?;
    const KEYS: [&str; 7] = [
        "name",
        "executable",
        "input_type",
        "output_type",
        "meta",
        "default_args",
        "args_schema",
    ];
    warn_of_misspelt(entry, &KEYS, problems);
    for key in ["input_type", "output_type"] {
        entry.require(key, problems);
    }
    if let Some(link) = entry.get_not_null("docs_link") {
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        if !link.text(problems).is_none_or(is_url) {
            problems.add(link.location(), "must be an http or https URL");
        }
    }
    let command = entry
        .require("executable", problems)
        .and_then(|executable| {
            let text = executable.text(problems)?;
            // In Fractal this is one path, including its spaces; an interpreter is followed by its
            // script.
            let is_path = folder.join(text).exists() || !text.contains(char::is_whitespace);
            if is_path {
                return Some(vec![text.to_owned()]);
            }
            let mut words = split_command(&executable, text, problems)?;
            drop_interpreter(&mut words);
            Some(words)
        });
    let has_command = command.is_some();
    let mut task = TaskDocument::read(entry, command.unwrap_or_default(), folder, problems)?;
    if !has_command {
        return None;
    }
    let source = format!("{package}:{}", slugify_task_name(&task.name));
    let optional = |key: &str| {
        entry
            .get(key)
            .map_or(Value::Null, |cursor| cursor.value.clone())
    };
    let raw = json!({
        "name": task.name,
        "command": command_text(&task),
        "source": source,
        "input_type": task.input_type,
        "output_type": task.output_type,
        "meta": task.meta,
        "args_schema": task.args_schema,
        "docs_info": optional("docs_info"),
        "docs_link": optional("docs_link"),
    });
    if let Value::Object(raw) = raw {
        task.raw = raw;
    }
    Some(PackageTask { source, task })
}

/// Returns the command of a task as a workflow has it. A path alone is not quoted, as in Fractal.
fn command_text(task: &TaskDocument) -> String {
    let path = task.module_path().to_string_lossy().into_owned();
    match task.command.get(1..) {
        None | Some([]) => path,
        Some(fixed) => {
            let words = std::iter::once(&path).chain(fixed).map(String::as_str);
            shlex::try_join(words).unwrap_or(path.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_fractals() {
        assert_eq!(
            slugify_task_name("Cellpose Segmentation"),
            "cellpose_segmentation"
        );
        assert_eq!(slugify_task_name("a/b C.d"), "a/b_c.d");
        assert_eq!(slugify_task_name("É x"), "é_x");
    }
}
