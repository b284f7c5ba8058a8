//! Check of a task package: each task, and each module once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::described::add_described;
use super::lines::Lines;
use super::snapshot::add_snapshot;
use super::task::{add_program, add_task};
use super::{Checker, Findings};
use crate::fractal::package::TaskPackage;
use crate::fractal::package::manifest::modules_in;
use crate::plan::ScriptHome;
use crate::problem::{Location, Problems};

/// Message for a folder that is not a package.
pub(in crate::cli) const NO_PACKAGE: &str = "is not a task package: it contains neither \
    `__FRACTAL_MANIFEST__.json` nor a typed task (.wasm); build its module first, or name another \
    folder";

pub(super) fn check(
    folder: &Path,
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    if !TaskPackage::is_in(folder) {
        let modules = modules_in(folder);
        if modules.is_empty() {
            problems.add(Location::File(folder.to_owned()), NO_PACKAGE);
        }
        return check_modules(&modules, checker, lines, problems);
    }
    let Some(package) = TaskPackage::read_into(folder, problems) else {
        return Findings {
            what: "package",
            lines,
            facts: Value::Null,
        };
    };
    let mut seen = HashSet::new();
    let (mut tasks, mut modules) = (Vec::new(), Vec::new());
    for entry in &package.task_list {
        tasks.push(add_task(
            &entry.source,
            &entry.task,
            checker,
            &mut lines,
            problems,
        ));
    }
    for entry in &package.task_list {
        let path = entry.task.module_path();
        if !seen.insert(path.clone()) {
            continue;
        }
        lines.add(&format!("module {}", entry.task.command[0]));
        lines.indented(|lines| {
            let location = entry.task.location_of("executable");
            let paths = (entry.task.named_path(), path);
            let home = ScriptHome::Package(&package.folder);
            let location = (&location, "");
            let facts = add_program(&paths, home, location, checker, lines, problems);
            if facts.is_object() {
                modules.push(facts);
            }
        });
    }
    let mut snapshots = Vec::new();
    // A snapshot is written to the cache, and nothing is written while there are problems.
    for task in package.task_list.iter().map(|entry| &entry.task) {
        if problems.is_empty() {
            let meta = Value::Object(task.meta.clone());
            snapshots.push(add_snapshot(
                &task.name,
                &task.cursor("meta", &meta),
                &task.folder,
                &task.module_path(),
                checker,
                &mut lines,
                problems,
            ));
        }
    }
    snapshots.retain(|snapshot| !snapshot.is_null());
    let mut facts = json!({ "name": package.name, "tasks": tasks, "modules": modules });
    if !snapshots.is_empty() {
        facts["snapshots"] = snapshots.into();
    }
    Findings {
        what: "package",
        lines,
        facts,
    }
}

/// Checks the modules of a folder without a manifest. Typed tasks among them describe themselves.
fn check_modules(
    modules: &[PathBuf],
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let mut facts = Vec::new();
    for path in modules {
        lines.add(&format!("module {}", path.display()));
        lines.indented(|lines| {
            let mut found = add_described(path, checker, lines, problems);
            if let Value::Object(found) = &mut found {
                found.insert("path".to_owned(), json!(path.to_string_lossy()));
            }
            facts.push(found);
        });
    }
    Findings {
        what: "package",
        lines,
        facts: json!({ "tasks": [], "modules": facts }),
    }
}
