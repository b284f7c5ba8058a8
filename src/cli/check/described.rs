//! Check of a module on its own: its contents, and the description of a typed task.

use std::path::Path;

use serde_json::{Value, json};

use super::lines::Lines;
use super::module::add_module;
use super::script::add_script;
use super::task::add_task;
use super::{Checker, Findings, v2};
use crate::fractal::command::twin_of;
use crate::fractal::package::manifest::PackageTask;
use crate::fractal::typed_package::TypedPackage;
use crate::model::ModuleKind;
use crate::plan::ScriptHome;
use crate::problem::{Location, Problems};

pub(super) fn check(
    path: &Path,
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let twin = twin_of(path).unwrap_or_else(|| path.to_owned());
    let location = Location::File(path.to_owned());
    let mut problem = |text: String| problems.add(location.clone(), text);
    let home = ScriptHome::Operator;
    let script = add_script((path, &twin), home, checker, &mut lines, &mut problem);
    let path = if twin.is_file() { &twin } else { path };
    let facts = script.unwrap_or_else(|| add_described(path, checker, &mut lines, problems));
    Findings {
        what: "module",
        lines,
        facts,
    }
}

/// Adds the contents of a module, and its description if it is a typed task. Problems go to
/// `problems`.
pub(super) fn add_described(
    path: &Path,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let location = Location::File(path.to_owned());
    let (kind, mut facts) = add_module(path, checker, lines, &mut |text| {
        problems.add(location.clone(), text)
    });
    if kind == Some(ModuleKind::Typed) {
        let package = TypedPackage::read(
            path,
            &checker.policy.default,
            checker.policy.compile_time,
            &checker.backend,
            problems,
        );
        match package {
            Some(TypedPackage::V1(package)) => {
                for PackageTask { source, task } in package.task_list {
                    let found = add_task(&source, &task, checker, lines, problems);
                    facts["source"] = json!(source);
                    facts["arguments"] = found["arguments"].clone();
                    facts["task"] = Value::Object(task.raw);
                }
            }
            Some(TypedPackage::V2(package)) => {
                facts["task"] = v2::add_typed_task(&package, checker, lines, problems);
            }
            None => {}
        }
    }
    facts
}
