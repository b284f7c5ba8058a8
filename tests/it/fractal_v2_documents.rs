//! Documents of version 2 of Fractal that are broken in many ways: nothing is run or written, and
//! the message names the file and the location in it, or the option.

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

#[test]
fn broken_workflows_are_refused() {
    const FILE: &str = "workflow.json";
    let set = |pointer, value| Set(FILE, pointer, value);
    check_all(
        &EXPORTED,
        vec![
            (
                set("/filters", json!({})),
                &[],
                &["workflow.json: /filters: unknown key"],
            ),
            (
                Remove(FILE, "/name"),
                &[],
                &["workflow.json: missing key `name`"],
            ),
            (
                set("/name", json!(" ")),
                &[],
                &["workflow.json: /name: must not be empty"],
            ),
            (
                set("/task_list", json!({})),
                &[],
                &["workflow.json: /task_list: must be an array"],
            ),
            (set("/task_list", json!([])), &[], &["workflow.json"]),
            (
                set("/task_list/0/executor", json!("gpu")),
                &[],
                &["/task_list/0/executor: unknown"],
            ),
            (
                set("/task_list/0/task/source", json!("x")),
                &[],
                &["/task_list/0/task/source"],
            ),
            (
                Remove(FILE, "/task_list/0/task/pkg_name"),
                &[],
                &["workflow.json: /task_list/0/task: missing key `pkg_name`"],
            ),
            (
                set("/task_list/0/task/pkg_name", json!("fractal-other")),
                &[],
                &["workflow.json: /task_list/0/task", "fractal-other"],
            ),
            (
                set("/task_list/0/task/version", json!("2.0.0")),
                &[],
                &["workflow.json: /task_list/0/task", "2.0.0", "1.0.0"],
            ),
            (
                set("/task_list/2/task/name", json!("fourth")),
                &[],
                &["workflow.json: /task_list/2/task", "fourth"],
            ),
            (
                set("/task_list/2/args_parallel", json!({ "zarr_url": 1 })),
                &[],
                &[
                    "workflow.json: /task_list/2/args_parallel",
                    "zarr_url",
                    "reserved",
                ],
            ),
            (
                set("/task_list/2/args_parallel", json!([])),
                &[],
                &["workflow.json: /task_list/2/args_parallel: must be an object"],
            ),
            (
                set("/task_list/2/args_non_parallel", json!({ "": 1 })),
                &[],
                &["workflow.json: /task_list/2/args_non_parallel"],
            ),
            (
                set("/task_list/0/args_parallel/threshold", json!("high")),
                &[],
                &["workflow.json: /task_list/0/args_parallel", "threshold"],
            ),
            (
                set("/task_list/0/args_non_parallel", json!({ "a": 1 })),
                &[],
                &["workflow.json: /task_list/0/args_non_parallel"],
            ),
            (
                set("/task_list/1/type_filters", json!({ "x": true })),
                &[],
                &["workflow.json: /task_list/1/type_filters", "`x`"],
            ),
            (
                set("/task_list/1/type_filters/y", json!("maybe")),
                &[],
                &["workflow.json: /task_list/1/type_filters/y"],
            ),
            (
                set(
                    "/task_list/1/input_filters",
                    json!({ "attributes": {}, "types": {} }),
                ),
                &[],
                &["workflow.json: /task_list/1/input_filters"],
            ),
            (
                set(
                    "/task_list/0/input_filters",
                    json!({ "attributes": { "w": "A" } }),
                ),
                &[],
                &["workflow.json: /task_list/0/input_filters/attributes"],
            ),
            (
                set(
                    "/task_list/2/meta_parallel/parallel_tasks_per_job",
                    json!(0),
                ),
                &[],
                &["workflow.json: /task_list/2/meta_parallel/parallel_tasks_per_job"],
            ),
            (
                set("/task_list/0/alias", json!(1)),
                &[],
                &["workflow.json: /task_list/0/alias"],
            ),
            (
                Replace(FILE, "{", "{,"),
                &[],
                &["workflow.json:1:", "not valid JSON"],
            ),
            (
                Replace(FILE, "{", r#"{"name": "x","#),
                &[],
                &["workflow.json:1:", "duplicate key"],
            ),
            (Text(FILE, "[]"), &[], &["workflow.json: must be an object"]),
            (Delete(FILE), &[], &["workflow.json", "cannot be read"]),
        ],
    );
}

#[test]
fn broken_datasets_are_refused() {
    const FILE: &str = "dataset.json";
    let set = |pointer, value| Set(FILE, pointer, value);
    let image = |value| set("/images/1", value);
    check_all(
        &EXPORTED,
        vec![
            (
                Remove(FILE, "/zarr_dir"),
                &[],
                &["dataset.json: missing key `zarr_dir`"],
            ),
            (
                set("/zarr_dir", json!("zarr")),
                &[],
                &["dataset.json: /zarr_dir"],
            ),
            (
                set("/zarr_dir", json!("$ZARR/../zarr")),
                &[],
                &["dataset.json: /zarr_dir"],
            ),
            (set("/name", json!("a/b")), &[], &["dataset.json: /name"]),
            (set("/images", Value::Null), &[], &["dataset.json: /images"]),
            (
                image(json!({})),
                &[],
                &["dataset.json: /images/1: missing key `zarr_url`"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR" })),
                &[],
                &["dataset.json: /images/1/zarr_url"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR2/a" })),
                &[],
                &["dataset.json: /images/1/zarr_url"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/a/" })),
                &[],
                &["dataset.json: /images", "two images", "/zarr/a"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "attributes": { "w": [1] } })),
                &[],
                &["dataset.json: /images/1/attributes/w"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "attributes": { "w": null } })),
                &[],
                &["dataset.json: /images/1/attributes/w"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "types": { "3d": 2 } })),
                &[],
                &["dataset.json: /images/1/types/3d"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "types": { "a": true, " a": true } })),
                &[],
                &["dataset.json: /images/1/types"],
            ),
            (Text(FILE, r#"{"name": NaN}"#), &[], &["dataset.json:1:"]),
            (Delete(FILE), &[], &["dataset.json", "cannot be read"]),
            (
                Text("status.json", r#"{"0": {"/z/a": "submitted"}}"#),
                &[],
                &["status.json: /0/~1z~1a"],
            ),
        ],
    );
}

#[test]
fn broken_packages_are_refused() {
    let set = |pointer, value| Set(MANIFEST, pointer, value);
    let at = |pointer: &str| format!("__FRACTAL_MANIFEST__.json: {pointer}");
    let [version, name, kind, meta, types] = [
        "/manifest_version",
        "/task_list/1/name",
        "/task_list/0/type",
        "/task_list/0/meta_non_parallel",
        "/task_list/1/input_types",
    ]
    .map(at);
    const MODULE: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss/swiss.wasm";
    check_all(
        &EXPORTED,
        vec![
            (set("/manifest_version", json!(2)), &[], &[&version]),
            (
                set("/task_list/1/name", json!("first")),
                &[],
                &[&name, "first"],
            ),
            (
                set("/task_list/0/type", json!("non_parallel")),
                &[],
                &[&kind],
            ),
            (
                set("/task_list/0/type", json!("paralel")),
                &[],
                &[&kind, "parallel"],
            ),
            (
                set("/task_list/0/meta_non_parallel", json!({ "mem": 1 })),
                &[],
                &[&meta],
            ),
            (set("/task_list/1/input_types", json!([])), &[], &[&types]),
            (
                Remove(MANIFEST, "/task_list/0/executable_parallel"),
                &[],
                &["__FRACTAL_MANIFEST__.json: /task_list/0", "executable"],
            ),
            (
                set("/has_args_schemas", json!(true)),
                &[],
                &[
                    "__FRACTAL_MANIFEST__.json: /task_list/1",
                    "args_schema_non_parallel",
                ],
            ),
            (
                set("/task_list/0/docs_link", json!("x")),
                &[],
                &["/task_list/0/docs_link"],
            ),
            (Delete(MANIFEST), &[], &["mandelbox_swiss"]),
            (Delete(MODULE), &[], &["executable_parallel", "swiss.wasm"]),
            (Text(MODULE, "#!/bin/sh\n"), &[], &["swiss.wasm"]),
            (
                Replace(METADATA, "\nVersion: 1.0.0", ""),
                &[],
                &["METADATA", "Version"],
            ),
            (Delete(METADATA), &[], &["mandelbox_swiss"]),
            (Nothing, &["--tasks", "none"], &["none"]),
        ],
    );
}

#[test]
fn broken_full_workflows_are_refused() {
    let set = |pointer, value| Set("full.json", pointer, value);
    check_all(
        &FULL,
        vec![
            (
                set("/task_list/0/order", json!(-1)),
                &[],
                &["full.json: /task_list/0/order"],
            ),
            (
                set("/task_list/0/task/command_parallel", json!("no/such.wasm")),
                &[],
                &[
                    "full.json: /task_list/0/task/command_parallel",
                    "no/such.wasm",
                ],
            ),
            (
                set("/task_list/0/task/command_parallel", json!("a.wasm 'b")),
                &[],
                &["full.json: /task_list/0/task/command_parallel"],
            ),
            (
                set("/task_list/0/task/type", json!("compound")),
                &[],
                &["full.json: /task_list/0/task/type"],
            ),
            (
                set("/task_list/0/args_parallel/init_args", json!({})),
                &[],
                &["full.json: /task_list/0/args_parallel", "init_args"],
            ),
            (
                Remove("full.json", "/task_list/0/task"),
                &[],
                &["full.json: /task_list/0"],
            ),
            (
                Remove("full.json", "/task_list/0/task/name"),
                &[],
                &["full.json: /task_list/0/task: missing key `name`"],
            ),
        ],
    );
}

#[test]
fn wrong_options_are_refused() {
    check_all(
        &EXPORTED,
        vec![
            (Nothing, &["--type-filter", "x"], &["--type-filter"]),
            (
                Nothing,
                &["--type-filter", "x=maybe"],
                &["--type-filter", "maybe"],
            ),
            (Nothing, &["--type-filter", "=true"], &["--type-filter"]),
            (
                Nothing,
                &["--attribute-filter", "w"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=A,1"],
                &["--attribute-filter", "same kind"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=[]"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=null"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=[[1]]"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--status-filter", "finished"],
                &["--status-filter", "finished"],
            ),
            (Nothing, &["--first-task", "3"], &["--first-task"]),
            (
                Nothing,
                &["--first-task", "2", "--last-task", "1"],
                &["-task"],
            ),
            (
                Nothing,
                &["--zarr-dir", "zarr"],
                &["--zarr-dir", "--dataset"],
            ),
            (Nothing, &["--metadata", "dataset.json"], &["--metadata"]),
            (
                Text("local_config.json", r#"{"parallel_tasks_per_job": 0}"#),
                &[],
                &["local_config.json: /parallel_tasks_per_job"],
            ),
            (
                Text("local_config.json", r#"{"partition": "gpu"}"#),
                &[],
                &["local_config.json: /partition: unknown key"],
            ),
            (
                Text("local_config.json", "{"),
                &[],
                &["local_config.json:1:", "not valid JSON"],
            ),
            (
                Delete("local_config.json"),
                &[],
                &["local_config.json", "cannot be read"],
            ),
        ],
    );
    let project = project();
    let before = project.tree();
    let ended = run(&project, &["workflow.json", "--tasks", PACKAGE]);
    let trees = [before.as_slice(), &project.tree()];
    let checked = check_answer(&ended, trees, &["--zarr-dir", "--dataset"]);
    assert_eq!(checked, Ok(()), "{}", ended.stderr);
}

/// Problems of all documents are found in one go, each once.
#[test]
fn problems_of_all_documents_are_found_together() {
    let project = project();
    for change in [
        Set("workflow.json", "/task_list/0/executor", json!("gpu")),
        Set("workflow.json", "/task_list/2/task/version", json!("3.1")),
        Set("dataset.json", "/images/0/zarr_url", json!("/elsewhere/a")),
        Text("local_config.json", r#"{"partition": "gpu"}"#),
    ] {
        apply(&project, &change);
    }
    let before = project.tree();
    let ended = run(
        &project,
        &[&EXPORTED[..], &["--attribute-filter", "w=[]"]].concat(),
    );
    let texts = [
        "5 problems",
        "workflow.json: /task_list/0/executor",
        "workflow.json: /task_list/2/task",
        "dataset.json: /images/0/zarr_url",
        "local_config.json: /partition",
        "--attribute-filter",
    ];
    let checked = check_answer(&ended, [&before, &project.tree()], &texts);
    assert_eq!(checked, Ok(()), "{}", ended.stderr);
}

/// Keys of the manifest stand for metadata that is not there, and only then.
#[test]
fn a_package_has_its_name_from_its_metadata_or_its_manifest() {
    let project = project();
    std::fs::remove_file(project.path(METADATA)).expect("removed");
    std::fs::remove_dir_all(project.path(&format!("{SITE}/mandelbox_swiss-1.0.0.dist-info")))
        .expect("removed");
    apply(&project, &Set(MANIFEST, "/pkg_name", json!(NAME)));
    apply(&project, &Set(MANIFEST, "/version", json!("1.0.0")));
    project.write(&format!("{PACKAGE}/unused.wasm"), empty_module());
    run(&project, &EXPORTED).expect(0);
    std::fs::remove_dir_all(project.path("work")).expect("removed");
    apply(&project, &Set(MANIFEST, "/version", json!("1.0.1")));
    run(&project, &EXPORTED)
        .expect(2)
        .says(&["workflow.json: /task_list/0/task", "1.0.1"]);
}
