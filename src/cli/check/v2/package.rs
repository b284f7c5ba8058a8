//! Check of a task package of version 2, or of all packages in a folder.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use super::{input_text, types_text};
use crate::cli::check::lines::Lines;
use crate::cli::check::snapshot::add_snapshot;
use crate::cli::check::task::{add_arguments, add_program};
use crate::cli::check::{Checker, Findings};
use crate::fractal::args::argument::list_arguments;
use crate::fractal::args::schema::check_defaults;
use crate::fractal::command::{Command, command_words};
use crate::fractal::package::TaskPackage;
use crate::fractal::v2::{Package, RESERVED_ARGUMENTS, Side, TaskDocument, TaskSide};
use crate::plan::ScriptHome;
use crate::problem::{Cursor, Location, Problems};

/// Checks the package in a folder, or all packages directly below it.
pub(in crate::cli::check) fn check(
    folder: &Path,
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let packages = Package::read_all_into(folder, problems);
    if TaskPackage::is_in(folder) {
        let facts = packages.first().map_or(Value::Null, |package| {
            add_package(package, checker, &mut lines, problems)
        });
        return Findings {
            what: "package",
            lines,
            facts,
        };
    }
    let mut facts = Vec::new();
    for package in &packages {
        let version = &package.version;
        lines.add(&format!("package {} {version}", package.pkg_name));
        lines.indented(|lines| facts.push(add_package(package, checker, lines, problems)));
    }
    Findings {
        what: "packages",
        lines,
        facts: facts.into(),
    }
}

/// A module of a task, and where it is named.
struct NamedModule {
    command: Command,
    executable: String,
    location: Location,
}

/// Adds the tasks of a package, and each of its modules once.
fn add_package(
    package: &Package,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let (mut named, mut seen) = (Vec::new(), HashSet::new());
    let (mut tasks, mut modules) = (Vec::new(), Vec::new());
    for task in &package.manifest.task_list {
        tasks.push(add_task(
            package, task, checker, lines, &mut named, problems,
        ));
    }
    for module in &named {
        let path = &module.command.module;
        if !seen.insert(path) {
            continue;
        }
        lines.add(&format!("module {}", module_text(package, module, checker)));
        lines.indented(|lines| {
            let advice = module.command.advice();
            let location = &module.location;
            let paths = (module.command.named(), path.clone());
            let home = ScriptHome::Package(&package.folder);
            let location = (location, advice.as_str());
            let facts = add_program(&paths, home, location, checker, lines, problems);
            if facts.is_object() {
                modules.push(facts);
            }
        });
    }
    let mut facts = json!({
        "name": package.pkg_name,
        "version": package.version,
        "folder": package.folder.to_string_lossy(),
        "tasks": tasks,
        "modules": modules,
    });
    let snapshots = add_snapshots(package, checker, lines, problems);
    if !snapshots.is_empty() {
        facts["snapshots"] = snapshots.into();
    }
    facts
}

/// Makes the snapshots of the tasks that request one. A snapshot is written to the cache, and
/// nothing is written while there are problems.
fn add_snapshots(
    package: &Package,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Vec<Value> {
    let mut snapshots = Vec::new();
    for task in &package.manifest.task_list {
        for side in Side::ALL {
            let Some(given) = task.side(side).filter(|_| problems.is_empty()) else {
                continue;
            };
            let Some(module) = named_module(package, task, side, given, problems) else {
                continue;
            };
            let meta = Value::Object(given.meta.clone());
            let (file, pointer) = &task.origin;
            let pointer = format!("{pointer}/meta_{}", side.name());
            snapshots.push(add_snapshot(
                &task.name,
                &Cursor::at(file, pointer, &meta),
                &package.folder,
                &module.command.module,
                checker,
                lines,
                problems,
            ));
        }
    }
    snapshots.retain(|snapshot| !snapshot.is_null());
    snapshots
}

/// Returns the name of a module in its package. A script is named after the module that replaces
/// it.
fn module_text(package: &Package, module: &NamedModule, checker: &Checker) -> String {
    let is_run = checker
        .policy
        .interpreter_of(&module.command.named())
        .is_some();
    if is_run && !module.command.module.is_file() {
        return module.executable.clone();
    }
    let path = &module.command.module;
    let name = path.strip_prefix(&package.folder).unwrap_or(path).display();
    if module.command.is_twin {
        format!("{name} (in place of {})", module.executable)
    } else {
        name.to_string()
    }
}

/// Adds the task of a typed module, without the contents of the module.
pub(in crate::cli::check) fn add_typed_task(
    package: &Package,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    package
        .manifest
        .task_list
        .first()
        .map_or(Value::Null, |task| {
            add_task(package, task, checker, lines, &mut Vec::new(), problems)
        })
}

fn add_task(
    package: &Package,
    task: &TaskDocument,
    checker: &Checker,
    lines: &mut Lines,
    named: &mut Vec<NamedModule>,
    problems: &mut Problems,
) -> Value {
    let mut facts = json!({
        "name": task.name,
        "type": task.task_type.name(),
        "input_types": task.input_types,
        "output_types": task.output_types,
    });
    lines.add(&format!("task \"{}\"", task.name));
    lines.indented(|lines| {
        lines.field("type", task.task_type.name());
        let input = input_text(task.task_type.is_converter(), &task.input_types);
        lines.field("input", &input);
        if !task.output_types.is_empty() {
            lines.field("sets", &types_text(&task.output_types));
        }
        for side in Side::ALL {
            let Some(given) = task.side(side) else {
                facts[side.name()] = Value::Null;
                continue;
            };
            if let Some(schema) = task.schema(side) {
                check_defaults(&schema, &mut checker.schemas.borrow_mut(), problems);
            }
            let module = named_module(package, task, side, given, problems);
            lines.add(side.name());
            lines.indented(|lines| {
                facts[side.name()] = add_side(package, given, module.as_ref(), checker, lines);
            });
            named.extend(module);
        }
    });
    facts
}

fn add_side(
    package: &Package,
    side: &TaskSide,
    module: Option<&NamedModule>,
    checker: &Checker,
    lines: &mut Lines,
) -> Value {
    let arguments = side
        .args_schema
        .as_ref()
        .map(|schema| list_arguments(schema, &RESERVED_ARGUMENTS));
    if let Some(module) = module {
        lines.field("module", &module_text(package, module, checker));
    }
    if !side.meta.is_empty() {
        let meta = Value::Object(side.meta.clone()).to_string();
        lines.field("meta", &lines.shortened(&meta));
    }
    add_arguments(arguments.as_deref(), lines);
    json!({
        "executable": side.executable,
        "module": module.map(|module| module.command.module.to_string_lossy()),
        "meta": side.meta,
        "arguments": arguments,
    })
}

fn named_module(
    package: &Package,
    task: &TaskDocument,
    side: Side,
    given: &TaskSide,
    problems: &mut Problems,
) -> Option<NamedModule> {
    let key = format!("executable_{}", side.name());
    let (file, pointer) = &task.origin;
    let executable = Value::String(given.executable.clone());
    let cursor = Cursor::at(file, format!("{pointer}/{key}"), &executable);
    Some(NamedModule {
        command: command_words(&cursor, false, &package.folder, problems)?,
        executable: given.executable.clone(),
        location: cursor.location(),
    })
}
