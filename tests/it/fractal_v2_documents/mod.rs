//! Documents of version 2 of Fractal that are broken in many ways: nothing is run or written, and
//! the message names the file and the location in it, or the option.

mod datasets;
mod options;
mod packages;
mod workflows;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fractal_v2::package::{
    NAME, Package, empty_module, entry, manifest, swiss, text_of, write_dataset, write_workflow,
};
use crate::project::{Ended, Project, module, quoted};

const SITE: &str = "site-mandelbox-swiss-1.0.0";

const PACKAGE: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss";

const MANIFEST: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss/__FRACTAL_MANIFEST__.json";

const METADATA: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss-1.0.0.dist-info/METADATA";

/// Options of a run of the exported workflow.
const EXPORTED: [&str; 6] = [
    "workflow.json",
    "--dataset",
    "dataset.json",
    "--tasks",
    PACKAGE,
    "--local-config=local_config.json",
];

/// Options of a run of the full workflow.
const FULL: [&str; 3] = ["full.json", "--dataset", "dataset.json"];

/// One way to break a project.
enum Break {
    /// Sets the value at a JSON pointer of a file. Its last part may be a new key.
    Set(&'static str, &'static str, Value),
    /// Removes the value at a JSON pointer of a file.
    Remove(&'static str, &'static str),
    /// Replaces a text in a file.
    Replace(&'static str, &'static str, &'static str),
    /// Replaces the whole text of a file, which may be new.
    Text(&'static str, &'static str),
    /// Deletes a file.
    Delete(&'static str),
    /// Nothing: the options are wrong.
    Nothing,
}

use Break::{Delete, Nothing, Remove, Replace, Set, Text};

/// A project that can be run in both forms: three tasks, two images.
fn project() -> Project {
    let project = Project::new();
    let mut first = swiss("first", "parallel");
    first["args_schema_parallel"] = json!({
        "type": "object",
        "properties": { "zarr_url": { "type": "string" }, "threshold": { "type": "integer" } },
        "required": ["zarr_url"],
        "additionalProperties": false,
    });
    let mut second = swiss("second", "non_parallel");
    second["input_types"] = json!({ "x": false });
    let third = swiss("third", "compound");
    Package::new(manifest(&[first, second, third])).write(&project);
    write_workflow(
        &project,
        &[
            entry(
                "first",
                json!({ "args_parallel": { "threshold": 1 }, "alias": "one" }),
            ),
            entry("second", json!({ "type_filters": { "y": false } })),
            entry(
                "third",
                json!({ "meta_parallel": { "parallel_tasks_per_job": 2 } }),
            ),
        ],
    );
    write_dataset(&project, &["a", "b"]);
    project.write("local_config.json", r#"{"parallel_tasks_per_job": 2}"#);
    let command = quoted(&module("swiss.wasm"));
    let task = json!({
        "name": "t", "type": "parallel", "version": "1.0.0", "command_parallel": command,
        "input_types": {}, "output_types": {}, "meta_parallel": {},
    });
    let entry = json!({
        "id": 1, "order": 0, "task_type": "parallel", "task": task, "args_parallel": {},
        "meta_parallel": {}, "type_filters": {}, "alias": null, "description": null,
    });
    let full = json!({ "id": 1, "name": "full", "description": null, "task_list": [entry] });
    project.write("full.json", full.to_string());
    project
}

fn run(project: &Project, options: &[&str]) -> Ended {
    let more = ["--work-dir", "work", "--progress", "never"];
    project.mandelbox(&[&["run"], options, &more].concat())
}

fn apply(project: &Project, change: &Break) {
    let edit = |file: &str, pointer: &str, value: Option<&Value>| {
        let mut document: Value = project.json(file);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let zarr_dir = text_of(&project.path("zarr"));
        let value = value.map(|value| value.to_string().replace("$ZARR", &zarr_dir));
        let value = value.map(|text| serde_json::from_str::<Value>(&text).expect("JSON"));
        match (document.pointer_mut(parent).expect("there"), value) {
            (Value::Array(list), Some(value)) => {
                list[key.parse::<usize>().expect("an index")] = value;
            }
            (object, Some(value)) => object[key] = value,
            (object, None) => {
                let object = object.as_object_mut().expect("an object");
                object.shift_remove(key).expect("there");
            }
        }
        project.write(file, document.to_string());
    };
    match change {
        Set(file, pointer, value) => edit(file, pointer, Some(value)),
        Remove(file, pointer) => edit(file, pointer, None),
        Replace(file, old, new) => {
            let text = project.read(file);
            assert!(text.contains(old), "{text}");
            project.write(file, text.replacen(old, new, 1));
        }
        Text(file, text) => drop(project.write(file, text)),
        Delete(file) => std::fs::remove_file(project.path(file)).expect("removed"),
        Nothing => {}
    }
}

/// Returns what is wrong with the answer to a broken project.
fn check_answer(ended: &Ended, trees: [&[String]; 2], texts: &[&str]) -> Result<(), String> {
    let stderr = &ended.stderr;
    if ended.code != 2 {
        return Err(format!("exit code {}", ended.code));
    }
    if !ended.stdout.is_empty() {
        return Err(format!("stdout: {:?}", ended.stdout));
    }
    if trees[0] != trees[1] {
        return Err("something was written".to_owned());
    }
    if stderr.contains("panicked") || stderr.contains("bug") {
        return Err("a bug".to_owned());
    }
    if let Some(text) = texts.iter().find(|text| !stderr.contains(**text)) {
        return Err(format!("{text:?} is missing"));
    }
    let lines: Vec<_> = stderr.lines().filter(|line| !line.is_empty()).collect();
    let different: BTreeSet<_> = lines.iter().map(|line| line.trim()).collect();
    if different.len() != lines.len() {
        return Err("a line is repeated".to_owned());
    }
    if lines.is_empty()
        || different
            .iter()
            .any(|line| line.ends_with(": ") || *line == ":")
    {
        return Err("a message is empty".to_owned());
    }
    // Each problem has a location and a text.
    let problems = lines.iter().filter_map(|line| line.strip_prefix("  "));
    for problem in problems.filter(|problem| !problem.starts_with(' ')) {
        match problem.split_once(": ") {
            Some((location, text)) if !location.is_empty() && !text.trim().is_empty() => {}
            _ => {
                return Err(format!(
                    "a problem without a location or a text: {problem:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Breaks a project in each of the ways; fails with all ways that got another answer.
fn check_all(options: &[&str], rows: Vec<(Break, &[&str], &[&str])>) {
    run(&project(), options).expect(0);
    let n_rows = rows.len();
    let mut wrong = Vec::new();
    for (number, (change, more, texts)) in rows.into_iter().enumerate() {
        let project = project();
        apply(&project, &change);
        let before = project.tree();
        let ended = run(&project, &[options, more].concat());
        let trees = [before.as_slice(), &project.tree()];
        if let Err(text) = check_answer(&ended, trees, texts) {
            wrong.push(format!("{number}, {texts:?}: {text}\n{}", ended.stderr));
        }
    }
    let n_wrong = wrong.len();
    assert!(
        wrong.is_empty(),
        "{n_wrong} of {n_rows}:\n{}",
        wrong.join("\n")
    );
}
