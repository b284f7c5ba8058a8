//! Typed tasks, each a package of one task that describes itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::document::{TaskReference, WorkflowDocument};
use super::manifest::{Manifest, TaskDocument};
use super::packages::Package;
use super::task::{Side, TaskType};
use crate::fractal::description::{self, DESCRIPTION, describe, is_v2};
use crate::fractal::document_kind::MANIFEST;
use crate::json::{Map, Value};
use crate::model::{Limits, Modules};
use crate::problem::{Cursor, Location, Problems};

impl Package {
    /// Reads the description of a typed task, whose file is a package of one task. Adds problems to
    /// `problems`.
    ///
    /// The name and version of the package are the keys `pkg_name` and `version` of the
    /// description. Without `pkg_name`, the name is that of the file without `.wasm`.
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
        if description.is_object() && !is_v2(&description) {
            let text = "describes a task of Fractal v1, which a workflow of version 2 cannot use; \
                        use a version of the task whose `describe` returns an entry of version 2, \
                        with the key `type`";
            problems.add(description::location(path), text);
            return None;
        }
        Self::from_description(path, description, problems)
    }

    /// Creates the package of a typed task from its description, which is checked like an entry of
    /// a manifest. The module is the executable of all calls that the type of the task has.
    pub(crate) fn from_description(
        path: &Path,
        mut description: Value,
        problems: &mut Problems,
    ) -> Option<Self> {
        if let Value::Object(entry) = &mut description {
            let file_name = path.file_name().unwrap_or_default();
            add_executables(entry, &file_name.to_string_lossy());
        }
        let entry = Cursor::at(path, DESCRIPTION.to_owned(), &description);
        entry.object(problems)?;
        entry.require("type", problems)?;
        let mut text = |key| entry.get_not_null(key)?.text(problems).map(str::to_owned);
        let (pkg_name, version) = (text("pkg_name"), text("version"));
        let task = TaskDocument::read(&entry, "executable", problems)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if version.is_none() {
            let text = "the version of the package is not known: the description has no key \
                        `version`; workflows that name a version do not find the task";
            problems.warn(Location::File(path.to_owned()), text);
        }
        Some(Self {
            pkg_name: pkg_name.clone().unwrap_or_else(|| stem.into_owned()),
            version: version.clone().unwrap_or_default(),
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            manifest: Manifest {
                pkg_name,
                version,
                task_list: vec![task],
            },
            is_refused: false,
        })
    }
}

/// Sets the executables that fit the type of an entry, in place of those that it names.
fn add_executables(entry: &mut Map<String, Value>, module: &str) {
    let given = entry.get("type").and_then(Value::as_str);
    let known = TaskType::NAMES
        .iter()
        .find(|(name, _)| given == Some(*name));
    for side in Side::ALL {
        let key = format!("executable_{}", side.name());
        entry.shift_remove(&key);
        // An unknown type is reported as such, not as a lack of executables.
        let has_calls = known.is_none_or(|(_, task_type)| match side {
            Side::NonParallel => task_type.has_single_call(),
            Side::Parallel => task_type.has_parallel_calls(),
        });
        if has_calls {
            entry.insert(key, json!(module));
        }
    }
}

/// Returns the typed tasks in the folder of a workflow that it names: those of the package `count`
/// are in `count.wasm`, those of `count-cells` in `count-cells.wasm` or `count_cells.wasm`. Returns
/// none if the folder has a manifest, since then the manifest lists its tasks.
pub fn modules_next_to(workflow: &WorkflowDocument) -> Vec<PathBuf> {
    if workflow.folder.join(MANIFEST).symlink_metadata().is_ok() {
        return Vec::new();
    }
    let mut modules: Vec<PathBuf> = Vec::new();
    for entry in &workflow.task_list {
        let TaskReference::Package { pkg_name, .. } = &entry.task else {
            continue;
        };
        // A name, not a path: the user must name other modules explicitly.
        if pkg_name.is_empty() || pkg_name.contains(std::path::is_separator) {
            continue;
        }
        let names = [pkg_name.clone(), pkg_name.replace('-', "_")];
        let mut paths = names
            .map(|name| workflow.folder.join(name + ".wasm"))
            .into_iter();
        modules.extend(paths.find(|path| path.is_file()));
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(description: Value) -> Result<Package, Problems> {
        Problems::or_value(|problems| {
            Package::from_description(Path::new("/t/count-cells.wasm"), description, problems)
        })
    }

    #[test]
    fn the_module_is_the_executable_of_all_calls() {
        let check = |task_type: &str, single: bool, parallel: bool| {
            let package = read(json!({"name": "t", "type": task_type})).expect("valid");
            let task = &package.manifest.task_list[0];
            let executable = |side| task.side(side).map(|side| side.executable.as_str());
            let module = |has: bool| has.then_some("count-cells.wasm");
            assert_eq!(executable(Side::NonParallel), module(single));
            assert_eq!(executable(Side::Parallel), module(parallel));
            assert_eq!(package.folder, Path::new("/t"));
            assert_eq!((&*package.pkg_name, &*package.version), ("count-cells", ""));
        };
        check("parallel", false, true);
        check("non_parallel", true, false);
        check("compound", true, true);
        check("converter_non_parallel", true, false);
        check("converter_compound", true, true);
        let package = read(json!({
            "name": "t", "type": "parallel", "pkg_name": "p", "version": "1.2",
            "executable_non_parallel": "/bin/sh", "executable_parallel": "/bin/sh",
        }));
        let package = package.expect("valid");
        assert_eq!((&*package.pkg_name, &*package.version), ("p", "1.2"));
        let task = &package.manifest.task_list[0];
        assert!(task.non_parallel.is_none());
        assert_eq!(
            task.parallel.as_ref().map(|side| side.executable.as_str()),
            Some("count-cells.wasm")
        );
    }

    #[test]
    fn descriptions_are_checked_like_entries() {
        let check = |description: Value, expected: &str| {
            let problems = read(description.clone()).expect_err("invalid").to_string();
            assert!(problems.contains(expected), "{description}: {problems}");
        };
        check(json!([]), "describe(): must be an object");
        check(
            json!({"name": "t", "input_types": {}}),
            "missing key `type`",
        );
        check(json!({"name": "t", "type": "paralel"}), "unknown type");
        check(json!({"type": "parallel"}), "missing key `name`");
        check(
            json!({"name": "t", "type": "parallel", "version": 1}),
            "describe()/version: must be a string",
        );
        check(
            json!({"name": "t", "type": "parallel", "meta_non_parallel": {"x": 1}}),
            "must be empty without `executable_non_parallel`",
        );
    }
}
