//! Check of a task: its manifest entry or description, its arguments, and its module or script.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Checker;
use super::lines::Lines;
use super::module::add_module;
use super::script::add_script;
use crate::fractal::args::argument::{Argument, list_arguments};
use crate::fractal::args::schema::check_defaults;
use crate::fractal::v1::RESERVED_ARGUMENTS;
use crate::fractal::v1::document::TaskDocument;
use crate::plan::ScriptHome;
use crate::problem::{Location, Problems};

/// Adds the contents of a task's manifest entry or description. An invalid schema and defaults that
/// do not fit it are problems, which go to `problems`.
pub(super) fn add_task(
    source: &str,
    task: &TaskDocument,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let arguments = task
        .args_schema
        .as_ref()
        .map(|schema| list_arguments(schema, &RESERVED_ARGUMENTS));
    lines.add(&format!("task \"{}\"", task.name));
    lines.indented(|lines| {
        lines.field("source", source);
        lines.field(
            "types",
            &format!("{} -> {}", task.input_type, task.output_type),
        );
        if !task.meta.is_empty() {
            lines.field(
                "meta",
                &lines.shortened(&Value::Object(task.meta.clone()).to_string()),
            );
        }
        add_arguments(arguments.as_deref(), lines);
    });
    if let Some(schema) = task.schema() {
        check_defaults(&schema, &mut checker.schemas.borrow_mut(), problems);
    }
    json!({
        "source": source,
        "name": task.name,
        "module": task.module_path().to_string_lossy(),
        "input_type": task.input_type,
        "output_type": task.output_type,
        "meta": task.meta,
        "arguments": arguments,
    })
}

/// Adds the table of a task's arguments.
///
/// * `arguments`: `None` if the task has no schema.
pub(super) fn add_arguments(arguments: Option<&[Argument]>, lines: &mut Lines) {
    match arguments {
        None => lines.field("arguments", "not described (no args_schema)"),
        Some([]) => lines.field("arguments", "none"),
        Some(arguments) => {
            lines.field("arguments", "");
            let rows: Vec<_> = arguments
                .iter()
                .map(|argument| argument_row(argument, lines))
                .collect();
            lines.indented(|lines| lines.table(&rows));
        }
    }
}

/// Adds the contents of a task's module, or of its script and what the script imports. Problems go
/// to `problems`.
///
/// * `script`: path in the document.
/// * `module`: the module that replaces it, or the same path.
/// * `location`: location in the document that names it.
/// * `advice`: end of the messages about a module.
pub(super) fn add_program(
    (script, module): &(PathBuf, PathBuf),
    home: ScriptHome<'_>,
    (location, advice): (&Location, &str),
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let mut problem = |text: String| problems.add(location.clone(), text);
    let facts = add_script((script, module), home, checker, lines, &mut problem);
    match facts {
        Some(facts) => facts,
        None => add_module_of_task(module, location, advice, checker, lines, problems),
    }
}

/// Adds the contents of a task's module. Problems go to `problems`.
///
/// * `location`: location in the document that names the module.
/// * `advice`: end of the messages.
///
/// Returns the facts about the module, with its path.
fn add_module_of_task(
    path: &Path,
    location: &Location,
    advice: &str,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let name = path.display().to_string();
    let mut problem = |text: String| {
        let text = if text.contains(&name) {
            text
        } else {
            format!("{name}: {text}")
        };
        problems.add(location.clone(), format!("{text}{advice}"));
    };
    let (_, mut facts) = add_module(path, checker, lines, &mut problem);
    if let Value::Object(facts) = &mut facts {
        facts.insert("path".to_owned(), json!(path.to_string_lossy()));
    }
    facts
}

fn argument_row(argument: &Argument, lines: &Lines) -> [String; 4] {
    let given = match (&argument.default, argument.from_runner) {
        (_, true) => "filled in by mandelbox".to_owned(),
        // As in Fractal, null means that there is no default.
        (Some(default), _) if !default.is_null() => {
            format!("default {}", lines.shortened(&default.to_string()))
        }
        _ if argument.required => "required".to_owned(),
        _ => "optional".to_owned(),
    };
    let text = argument
        .description
        .as_ref()
        .or(argument.title.as_ref())
        .map_or("", String::as_str);
    [
        argument.name.clone(),
        lines.shortened(&argument.type_text),
        given,
        lines.shortened(text),
    ]
}
