//! `mandelbox check`.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::arguments::{CheckArguments, FormatArgument};
use super::run::read_packages;
use super::{Answer, environment};
use crate::backend::{Backend, Isolation, Local};
use crate::error::exit_code;
use crate::json::build_json;
use crate::outcome::bytes_text;
use crate::policy::Policy;
use crate::reporter::escape::escaped;
use crate::sandbox::{Limits, ModuleKind, SandboxOptions};
use crate::workflow::local_config::LocalConfig;
use crate::workflow::package::{PackageTask, modules_beside};
use crate::workflow::{
    ModuleFile, Place, PlanRequest, Problem, Problems, TaskPackage, WorkflowDocument, args_schema, build_plan,
};

/// What was found out about the thing that was checked.
struct Found {
    /// `workflow`, `module` or `package`.
    what: &'static str,
    /// Lines for a person.
    lines: Vec<String>,
    /// The same for a program.
    facts: Value,
}

pub(super) fn check(arguments: &CheckArguments) -> Answer {
    let sandbox = SandboxOptions { cache_folder: environment::cache_folder(), ..SandboxOptions::default() };
    let backend = match Local::with_options(1, &sandbox, Isolation::Thread).and_then(Local::interrupting_only_limited) {
        Ok(backend) => backend,
        Err(err) => return Answer::text(format!("error: {}\n", err.chain()), exit_code::HOST_FAILED),
    };
    let mut problems = Problems::default();
    let path = &arguments.path;
    let found = if path.is_dir() {
        check_package(path, &backend, &mut problems)
    } else if is_document(path) {
        check_workflow(arguments, &backend, &mut problems)
    } else {
        check_module(path, &backend, &mut problems)
    };
    if problems.is_empty() {
        backend.keep_compiled();
    }
    let exit_code = if problems.is_empty() { exit_code::SUCCESS } else { exit_code::WRONG_INPUT };
    match arguments.format {
        FormatArgument::Text => Answer::text(text(path, &found, &problems), exit_code),
        FormatArgument::Json => {
            Answer { stdout: json_answer(path, &found, &problems), stderr: String::new(), exit_code }
        }
    }
}

/// JSON by its name or its first character; all else is taken for a module, and told what it is instead.
fn is_document(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return true;
    }
    let mut start = Vec::new();
    let read =
        path.is_file() && std::fs::File::open(path).is_ok_and(|file| file.take(64).read_to_end(&mut start).is_ok());
    read && start.trim_ascii_start().starts_with(b"{")
}

fn check_workflow(arguments: &CheckArguments, backend: &Local, problems: &mut Problems) -> Found {
    let mut found = Found { what: "workflow", lines: Vec::new(), facts: Value::Null };
    let workflow = WorkflowDocument::read(&arguments.path, problems);
    let folder = arguments.path.parent().unwrap_or(Path::new(""));
    let beside = workflow.as_ref().map(modules_beside).unwrap_or_default();
    let tasks = [arguments.tasks.as_slice(), &beside].concat();
    let packages = read_packages(&tasks, folder, &Policy::default(), backend, problems);
    let Some(workflow) = workflow else { return found };
    let plan = build_plan(
        &PlanRequest {
            workflow: &workflow,
            packages: &packages,
            metadata: None,
            first_task_index: None,
            last_task_index: None,
            input_type: None,
            output_type: None,
            local_config: LocalConfig::default(),
            policy: &Policy::default(),
            backend,
        },
        problems,
    );
    let tasks = plan.tasks.iter();
    found.lines = tasks.clone().map(|task| format!("{} \"{}\"", task.order, escaped(&task.name))).collect();
    found.facts = tasks
        .map(|task| {
            json!({
                "order": task.order,
                "name": task.name,
                "module": task.module.path.to_string_lossy(),
                "module_sha256": task.module.sha256,
                "parallelization_level": task.parallelization_level,
                "args": task.args,
            })
        })
        .collect();
    found
}

fn check_module(path: &Path, backend: &Local, problems: &mut Problems) -> Found {
    let mut found = Found { what: "module", lines: Vec::new(), facts: Value::Null };
    let module = match ModuleFile::read(path, Limits::default().module_bytes) {
        Ok(module) => module,
        Err(text) => {
            problems.add(Place::File(path.to_owned()), text);
            return found;
        }
    };
    found.lines = vec![bytes_text(module.bytes.len() as u64), format!("sha256 {}", module.sha256)];
    found.facts = json!({ "bytes": module.bytes.len(), "sha256": module.sha256 });
    match backend.prepare(&module, &Limits::default(), Policy::default().compile_time) {
        Ok(kind) => {
            found.lines.insert(0, kind.to_string());
            found.facts["kind"] = json!(kind);
            if kind == ModuleKind::Typed {
                check_description(path, backend, &mut found, problems);
            }
        }
        Err(text) => problems.add(Place::File(path.to_owned()), text),
    }
    found
}

/// Shows what a typed task says of itself.
fn check_description(path: &Path, backend: &Local, found: &mut Found, problems: &mut Problems) {
    let package = TaskPackage::read_module(path, &Policy::default(), backend, problems);
    let Some(PackageTask { source, task }) = package.and_then(|package| package.task_list.into_iter().next()) else {
        return;
    };
    let types = format!("{} -> {}", task.input_type, task.output_type);
    found.lines.push(format!(
        "task \"{}\", source {}, types {}",
        escaped(&task.name),
        escaped(&source),
        escaped(&types)
    ));
    if !task.meta.is_empty() {
        found.lines.push(format!("meta {}", escaped(&Value::Object(task.meta.clone()).to_string())));
    }
    if let Some(schema) = &task.args_schema {
        args_schema::check_schema(&task.cursor("args_schema", schema), problems);
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            found.lines.push(format!("argument {} {}", escaped(name), escaped(&property.to_string())));
        }
    }
    found.facts["source"] = json!(source);
    found.facts["task"] = Value::Object(task.raw);
}

fn check_package(folder: &Path, backend: &Local, problems: &mut Problems) -> Found {
    let mut found = Found { what: "package", lines: Vec::new(), facts: Value::Null };
    let Some(package) = TaskPackage::read(folder, problems) else { return found };
    for task in &package.task_list {
        let module = ModuleFile::read(&task.task.module_path(), Limits::default().module_bytes);
        let time = Policy::default().compile_time;
        let prepare =
            |module| backend.prepare(&module, &Limits::default(), time).map_err(|text| format!("the module {text}"));
        let ready = module.and_then(prepare);
        if let Err(text) = ready {
            problems.add(task.task.place_of("executable"), text);
        }
        if let Some(schema) = &task.task.args_schema {
            args_schema::check_schema(&task.task.cursor("args_schema", schema), problems);
        }
    }
    found.lines = package.task_list.iter().map(|task| escaped(&task.source)).collect();
    found.facts =
        package.task_list.iter().map(|task| json!({ "source": task.source, "name": task.task.name })).collect();
    found
}

fn text(path: &Path, found: &Found, problems: &Problems) -> String {
    let mut text = format!("{} {}\n", found.what, escaped(&path.to_string_lossy()));
    // Writing to a string cannot fail.
    for line in &found.lines {
        let _ = writeln!(text, "  {line}");
    }
    for warning in problems.warnings() {
        let _ = writeln!(text, "warning: {warning}");
    }
    for problem in problems.iter() {
        let _ = writeln!(text, "problem: {problem}");
    }
    let _ = match problems.len() {
        0 => writeln!(text, "no problem found"),
        1 => writeln!(text, "1 problem found"),
        n => writeln!(text, "{n} problems found"),
    };
    text
}

fn json_answer(path: &Path, found: &Found, problems: &Problems) -> Vec<u8> {
    let list = |problems: &mut dyn Iterator<Item = &Problem>| -> Vec<Value> {
        problems.map(|problem| json!({ "place": problem.place.to_string(), "message": problem.message })).collect()
    };
    let answer = json!({
        "path": path.to_string_lossy(),
        "what": found.what,
        "ok": problems.is_empty(),
        "problems": list(&mut problems.iter()),
        "warnings": list(&mut problems.warnings().iter()),
        found.what: found.facts,
    });
    let mut text = build_json(&answer, 2);
    text.push(b'\n');
    text
}
