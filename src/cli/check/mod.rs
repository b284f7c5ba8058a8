//! `mandelbox check`: the contents and all problems of a workflow, a module, a task package or a
//! dataset.

mod described;
mod lines;
mod module;
mod package;
mod script;
mod snapshot;
mod task;
mod v2;
mod workflow;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::sandbox_options::{add_environment, within_memory};
use super::shared_arguments::FormatArgument;
use super::{Answer, environment};
use crate::backend::{Isolation, Local};
use crate::cli::author_arguments::CheckArguments;
use crate::fractal::args::SchemaBudget;
use crate::fractal::document_kind::DocumentKind;
use crate::fractal::package::manifest::modules_in;
use crate::fractal::package::{TaskPackage, package_version};
use crate::fractal::v2::Package;
use crate::fractal::workflow::Version;
use crate::json::build_json;
use crate::plan::{Policy, ScriptStates};
use crate::problem::{Location, Problem, Problems};
use crate::run::exit_code;
use crate::sandbox::SandboxOptions;
use crate::text::escaped;
use lines::Lines;

pub(super) use package::NO_PACKAGE;

/// Tools and limits of a check.
struct Checker {
    backend: Local,
    /// Policy of the operator, for the limits of modules.
    policy: Policy,
    /// States of the folders of scripts.
    states: RefCell<ScriptStates>,
    /// Remaining budget for checking the args schemas of all tasks.
    schemas: RefCell<SchemaBudget>,
}

/// Findings of a check.
struct Findings {
    /// `workflow`, `module`, `package`, `packages` or `dataset`.
    what: &'static str,
    /// Findings for people.
    lines: Lines,
    /// The same findings for programs.
    facts: Value,
}

pub(super) fn check(arguments: &CheckArguments) -> Answer {
    let sandbox = SandboxOptions {
        cache_folder: environment::cache_folder(),
        ..SandboxOptions::default()
    };
    let mut problems = Problems::default();
    let mut policy = arguments
        .policy
        .as_deref()
        .and_then(|path| Policy::read_into(path, &mut problems))
        .unwrap_or_default();
    add_environment(arguments.python.as_deref(), &mut policy, &mut problems);
    let backend = Local::with_options(1, &sandbox, Isolation::Thread)
        .and_then(Local::without_epochs_for_untimed_calls);
    let checker = match backend {
        Ok(backend) => Checker {
            backend: within_memory(backend, &policy),
            policy,
            states: RefCell::default(),
            schemas: RefCell::default(),
        },
        Err(err) => {
            return Answer::text(format!("error: {}\n", err.chain()), exit_code::HOST_FAILED);
        }
    };
    let path = &arguments.path;
    let lines = Lines::new(arguments.verbose);
    let found = if path.is_dir() && is_v2(path) {
        v2::check_packages(path, &checker, lines, &mut problems)
    } else if path.is_dir() {
        package::check(path, &checker, lines, &mut problems)
    } else if is_document(path) && DocumentKind::of_file(path) == Some(DocumentKind::DatasetV2) {
        v2::check_dataset(path, lines, &mut problems)
    } else if is_document(path) {
        workflow::check(arguments, &checker, lines, &mut problems)
    } else {
        described::check(path, &checker, lines, &mut problems)
    };
    problems.remove_repeated();
    if problems.is_empty() {
        checker.backend.write_cache();
    }
    let exit_code = if problems.is_empty() {
        exit_code::SUCCESS
    } else {
        exit_code::WRONG_INPUT
    };
    match arguments.format {
        FormatArgument::Text => Answer::text(text(path, &found, &problems), exit_code),
        FormatArgument::Json => Answer {
            stdout: json_answer(path, &found, &problems),
            stderr: String::new(),
            exit_code,
        },
    }
}

/// Returns true for a package of Fractal v2, and for a folder of installed packages.
fn is_v2(folder: &Path) -> bool {
    if TaskPackage::is_in(folder) {
        return match package_version(folder) {
            Some(Version::V2) => true,
            Some(Version::V1) | None => false,
        };
    }
    modules_in(folder).is_empty() && !Package::folders_in(folder).is_empty()
}

/// Returns true for a JSON document, by its name or its first character. Everything else is checked
/// as a module, whose check recognizes other common file types.
fn is_document(path: &Path) -> bool {
    // YAML is not JSON, but the check of a document reports this better than that of a module.
    const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];
    if path.extension().is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    }) {
        return true;
    }
    let mut start = Vec::new();
    let read = path.is_file()
        && std::fs::File::open(path)
            .is_ok_and(|file| file.take(64).read_to_end(&mut start).is_ok());
    read && start.trim_ascii_start().starts_with(b"{")
}

fn text(path: &Path, found: &Findings, problems: &Problems) -> String {
    let mut text = format!(
        "{} {}\n{}",
        found.what,
        escaped(&path.to_string_lossy()),
        found.lines
    );
    // Writing to a string cannot fail.
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

fn json_answer(path: &Path, found: &Findings, problems: &Problems) -> Vec<u8> {
    let answer = json!({
        "path": path.to_string_lossy(),
        "what": found.what,
        "ok": problems.is_empty(),
        "problems": problem_facts(problems.iter()),
        "warnings": problem_facts(problems.warnings()),
        found.what: found.facts,
    });
    let mut text = build_json(&answer, 2);
    text.push(b'\n');
    text
}

/// Returns problems or warnings as JSON for programs.
pub(in crate::cli) fn problem_facts<'a>(
    problems: impl IntoIterator<Item = &'a Problem>,
) -> Vec<Value> {
    let facts = |problem: &Problem| {
        let location = problem.location.to_string();
        let mut facts = json!({ "location": location, "message": problem.message });
        match &problem.location {
            Location::File(file) => facts["file"] = json!(file.to_string_lossy()),
            Location::Pointer { file, pointer } => {
                facts["file"] = json!(file.to_string_lossy());
                facts["pointer"] = json!(pointer);
            }
            Location::Text { file, line, column } => {
                facts["file"] = json!(file.to_string_lossy());
                facts["line"] = json!(line);
                facts["column"] = json!(column);
            }
            Location::Parameter(_) => {}
        }
        facts
    };
    problems.into_iter().map(facts).collect()
}
