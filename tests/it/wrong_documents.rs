//! Documents that were swapped, in another format, of another version or with a common mistake:
//! the message names it and what to do. And documents of Fractal's earlier years, which run.

use serde_json::{Value, json};

use crate::documents::check_project;
use crate::project::{Ended, Project, finish, module, quoted, task};

/// A project whose folder `fractal-tasks-core` is a package with two tasks.
fn with_package() -> Project {
    let project = Project::new();
    std::fs::copy(module("swiss.wasm"), project.path("swiss.wasm")).expect("copied");
    let entry = |name: &str| {
        json!({
            "name": name, "executable": "../swiss.wasm", "input_type": "Any", "output_type": "Any",
            "default_args": { "echo": ["num_levels", "suffix"], "num_levels": 2, "suffix": "mip" },
        })
    };
    let tasks = [
        entry("Create OME-Zarr structure"),
        entry("Maximum Intensity Projection"),
    ];
    let manifest = json!({ "manifest_version": "1", "task_list": tasks });
    project.write(
        "fractal-tasks-core/__FRACTAL_MANIFEST__.json",
        manifest.to_string(),
    );
    project
}

#[test]
fn a_source_of_2023_names_a_package_and_the_name_its_task() {
    let project = with_package();
    let entry = |name: Option<&str>, args: Value| {
        let mut task = json!({ "source": "pip:fractal-tasks-core==0.9.4" });
        if let Some(name) = name {
            task["name"] = json!(name);
        }
        json!({ "order": 0, "meta": { "executor": "cpu-mid" }, "args": args, "task": task })
    };
    project.workflow(&[
        entry(
            Some("Create OME-Zarr structure"),
            json!({ "num_levels": 5 }),
        ),
        entry(Some("Maximum Intensity Projection"), Value::Null),
    ]);
    project
        .run(&["--tasks", "fractal-tasks-core"])
        .expect(0)
        .reports(
            &["the source 'pip:fractal-tasks-core==0.9.4' is resolved to \
         `fractal-tasks-core:create_ome-zarr_structure`"],
        );
    let history = project.json("work/history.json");
    let names: Vec<_> = (0..2)
        .map(|i| history[i]["workflowtask"]["task"]["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["Create OME-Zarr structure", "Maximum Intensity Projection"]
    );

    std::fs::remove_dir_all(project.path("work")).expect("removed");
    project.workflow(&[entry(Some("Illumination Correction"), json!({}))]);
    let arguments = ["--tasks", "fractal-tasks-core"];
    check_project(
        &project,
        &arguments,
        &[
            "Found 0 tasks with source='pip:fractal-tasks-core==0.9.4' and name='Illumination \
             Correction'.",
        ],
    );
    project.workflow(&[entry(None, json!({}))]);
    check_project(
        &project,
        &arguments,
        &["Found 0 tasks with source='pip:fractal-tasks-core==0.9.4'."],
    );
}

/// Fractal merged the args of a workflow task into the task's default args, before there were
/// schemas.
#[test]
fn default_args_are_filled_in() {
    let project = with_package();
    let source = "fractal-tasks-core:create_ome-zarr_structure";
    let mut full = task(0, "full", &module("swiss.wasm"), json!({ "num_levels": 5 }));
    full["task"]["default_args"] =
        json!({ "echo": ["num_levels", "suffix"], "num_levels": 2, "suffix": null });
    // A default of the schema counts less.
    full["task"]["args_schema"] =
        json!({ "properties": { "suffix": { "type": "string", "default": "x" } } });
    let check = |entry: Value, expected: Value| {
        project.workflow(&[entry]);
        project.run(&["--tasks", "fractal-tasks-core"]).expect(0);
        assert_eq!(project.json("work/metadata.json")["echo"], expected);
        let args = project.json("work/history.json")[0]["workflowtask"]["args"].clone();
        assert_eq!(
            (&args["num_levels"], &args["suffix"]),
            (&expected["num_levels"], &expected["suffix"])
        );
        std::fs::remove_dir_all(project.path("work")).expect("removed");
    };
    check(full.clone(), json!({ "num_levels": 5, "suffix": null }));
    check(
        json!({ "task": { "source": source } }),
        json!({ "num_levels": 2, "suffix": "mip" }),
    );
    check(
        json!({ "task": { "source": source }, "args": { "suffix": "b" } }),
        json!({ "num_levels": 2, "suffix": "b" }),
    );
    full["task"]["default_args"] = json!({ "suffix": 3 });
    project.workflow(&[full.clone()]);
    check_project(
        &project,
        &[],
        &["workflow.json: /task_list/0/task/default_args/suffix: does not match"],
    );
    full["task"]["default_args"] = json!([]);
    project.workflow(&[full]);
    check_project(
        &project,
        &[],
        &["/task_list/0/task/default_args: must be an object, not an array"],
    );
}

#[test]
fn a_document_of_the_other_version_is_reported_as_such() {
    let project = Project::new();
    let tasks = [json!({ "name": "X", "executable_parallel": "x.py", "type": "parallel" })];
    project.write(
        "v2/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "2", "task_list": tasks }).to_string(),
    );
    project.workflow(&[json!({ "task": { "source": "v2:x" } })]);
    check_project(
        &project,
        &["--tasks", "v2"],
        &[
            "Wrong manifest version (given 2): this is a package of Fractal v2, whose tasks a \
             workflow of version 1 cannot run; use a workflow of Fractal v2",
            "1 problem",
        ],
    );
    let tasks = [json!({ "name": "X", "executable": "x.wasm" })];
    for version in [json!("1"), json!(1)] {
        project.write(
            "v1/__FRACTAL_MANIFEST__.json",
            json!({ "manifest_version": version, "task_list": tasks }).to_string(),
        );
        project.workflow(&[json!({ "task": { "pkg_name": "v1", "name": "X" } })]);
        let run = ["run", "workflow.json", "--zarr-dir", "z", "--tasks", "v1"];
        project.mandelbox(&run).expect(2).reports(&[
            "manifest_version: this is a package of Fractal v1, whose tasks a workflow of version \
             2 cannot run; use a version of the package whose `manifest_version` is \"2\"",
            "1 problem",
        ]);
    }
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let dataset = json!({ "name": "d", "zarr_dir": "/z", "images": [] });
    project.write("dataset.json", dataset.to_string());
    let advice = "give it as `--dataset`, with a workflow of Fractal v2";
    check_project(
        &project,
        &["--metadata", "dataset.json"],
        &[
            &format!("dataset.json: is a dataset of Fractal v2, not metadata; {advice}"),
            "1 problem",
        ],
    );
    let text = format!("is a dataset of Fractal v2, not a workflow; {advice}");
    let run = ["run", "dataset.json", "--output", "out"];
    project.mandelbox(&run).expect(2).reports(&[&text]);
    // A workflow in place of a dataset.
    let entry = json!({ "task": { "pkg_name": "p", "version": "1", "name": "X" } });
    project.workflow(&[entry]);
    let run = ["run", "workflow.json", "--dataset", "workflow.json"];
    project.mandelbox(&run).expect(2).reports(&[
        "is a workflow of Fractal v2, not a dataset of Fractal v2; name it as the workflow",
    ]);
    let read = mandelbox::WorkflowDocument::read(&project.path("workflow.json"));
    let problems = read.expect_err("a workflow of version 2").to_string();
    assert!(
        problems.contains("is a workflow of Fractal v2, not one of version 1"),
        "{problems}"
    );
}

#[test]
fn a_swapped_document_is_named_by_its_kind() {
    let project = with_package();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project
        .mandelbox(&[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            "my run",
        ])
        .expect(0);
    check_project(
        &project,
        &[
            "--metadata",
            "my run/result.json",
            "--history",
            "my run/metadata.json",
        ],
        &[
            "my run/result.json: is the result of a run, with metadata and history in one, not \
             metadata; a run writes both \
             parts next to it: `--metadata 'my run/metadata.json' --history 'my run/history.json'`",
            "my run/metadata.json: must be an array, not an object",
        ],
    );
    let metadata = |file: &str, text: &str| {
        check_project(&project, &["--metadata", file], &[text, "1 problem"])
    };
    metadata(
        "my run/history.json",
        "my run/history.json: must be an object, not an array: it is a history, not metadata; \
         give it as `--history`",
    );
    metadata(
        "workflow.json",
        "workflow.json: is a workflow, not metadata; name it as the workflow of `mandelbox run`",
    );
    let manifest = "fractal-tasks-core/__FRACTAL_MANIFEST__.json";
    metadata(manifest, "is the manifest of a task package, not metadata");
    check_project(
        &project,
        &["--history", "my run/result.json"],
        &["must be an array, not an object: it is the result of a run"],
    );
    check_project(
        &project,
        &["--history", "workflow.json"],
        &["is a workflow, not a history"],
    );
    let workflow = |path: &str, texts: &[&str]| {
        project
            .mandelbox(&["run", path, "--output", "out"])
            .expect(2)
            .reports(texts)
            .reports(&["1 problem"]);
    };
    workflow(
        manifest,
        &[
            "is the manifest of a task package, not a workflow; give its folder to `mandelbox \
             run` as `--tasks fractal-tasks-core`",
        ],
    );
    workflow(
        "fractal-tasks-core",
        &[
            "is a task package, not a workflow",
            "`--tasks fractal-tasks-core`",
        ],
    );
    workflow(
        "my run/result.json",
        &["is the result of a run, with metadata and history in one, not a workflow"],
    );
    workflow(
        "my run/history.json",
        &["must be an object, not an array: it is a history, not a workflow"],
    );
    project.write(
        "list.json",
        json!([task(0, "t", &module("swiss.wasm"), json!({}))]).to_string(),
    );
    workflow(
        "list.json",
        &[
            "must be an object, not an array",
            "put the list under the key `task_list` of an object",
        ],
    );
    workflow(
        &module("swiss.wasm"),
        &["swiss.wasm:1:1: not valid JSON: it is a WebAssembly module"],
    );
    project.write("a folder/workflow.json", "{}");
    workflow(
        "a folder",
        &["a folder: is a folder; name its workflow: 'a folder/workflow.json'"],
    );
}

#[test]
fn other_formats_and_common_mistakes_are_named() {
    let project = Project::new();
    let text =
        json!({ "name": "w", "task_list": [task(0, "t", &module("swiss.wasm"), json!({}))] })
            .to_string();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_single_quotes = text.replace('"', "'");
    let cases: [(&[u8], &str); 9] = [
        (
            &[b"\xff\xfe", &*utf16].concat(),
            "workflow.json:1:1: not valid JSON: it is UTF-16 text",
        ),
        (
            b"name: w\ntask_list: []\n",
            "it is YAML; convert it to JSON",
        ),
        (b"\x1f\x8b\x08", "it is packed; unpack it"),
        (b"<!doctype html>", "it is an HTML or XML page"),
        (
            &[b"// my workflow\n", text.as_bytes()].concat(),
            "workflow.json:1:1: not valid JSON: JSON has no comments",
        ),
        (
            with_single_quotes.as_bytes(),
            "workflow.json:1:2: not valid JSON: a JSON string is in double quotes",
        ),
        (
            &text.as_bytes()[..text.len() - 5],
            "the text ends too early",
        ),
        (b"", "workflow.json:1:0: not valid JSON: it is empty"),
        (&[0; 4096], "it begins with zero bytes"),
    ];
    for (bytes, expected) in cases {
        project.write("workflow.json", bytes);
        check_project(&project, &[], &[expected, "1 problem"]);
        project
            .mandelbox(&["check", "workflow.json"])
            .expect(2)
            .reports(&[expected]);
    }
    // Line ends of Windows are no mistake.
    project.write("workflow.json", text.replace(',', ",\r\n"));
    project.run(&["--dry-run"]).expect(0);
}

#[test]
fn a_command_is_split_like_a_shell_splits_words_with_a_notice() {
    let project = Project::new();
    project.write(
        "my tasks/swiss.wasm",
        std::fs::read(module("swiss.wasm")).expect("read"),
    );
    let command =
        |command: &str| project.workflow(&[json!({ "task": { "name": "t", "command": command } })]);
    command("my tasks/swiss.wasm");
    check_project(
        &project,
        &[],
        &[
            "/task_list/0/task/command: no module at `my`",
            "write it in quotes (`'my tasks/swiss.wasm'`)",
        ],
    );
    command("my tasks\\swiss.wasm");
    check_project(
        &project,
        &[],
        &[
            "a backslash in a command quotes the next character",
            "(`my tasks/swiss.wasm`)",
        ],
    );
    command("'my tasks/swiss.wasm'");
    project.run(&["--dry-run"]).expect(0);
    // What has nothing to do with it is not mentioned.
    command("none.wasm --size 3");
    let ended = project.run(&[]).expect(2);
    assert!(!ended.stderr.contains("quot"), "{}", ended.stderr);
    project.write("p/task.py", "print(\"a task in Python\")");
    command("p/task.py");
    check_project(&project, &[], &["a Python script needs an environment"]);
    let task =
        json!({ "name": "t", "executable": "task.py", "input_type": "a", "output_type": "b" });
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": [task] }).to_string(),
    );
    project
        .mandelbox(&["check", "p"])
        .expect(2)
        .reports(&["a Python script needs an environment", "1 problem"]);
    std::fs::remove_file(project.path("p/task.py")).expect("removed");
    project
        .mandelbox(&["check", "p"])
        .expect(2)
        .reports(&["no module at `p/task.py`; a Python script needs"]);
}

#[test]
fn a_refused_package_is_not_reported_as_missing() {
    let project = Project::new();
    project.write("p/__FRACTAL_MANIFEST__.json", "{");
    project.workflow(&[json!({ "task": { "source": "p:x" } })]);
    check_project(
        &project,
        &["--tasks", "p"],
        &["__FRACTAL_MANIFEST__.json:1:1: not valid JSON", "1 problem"],
    );
    project.workflow(&[json!({ "task": { "source": "q:x" } })]);
    check_project(
        &project,
        &["--tasks", "p"],
        &[
            "Found 0 tasks with source='q:x'. (the packages have no tasks; p could not be read)",
            "2 problems",
        ],
    );
    project.write("t.wasm", "no module");
    project.workflow(&[json!({ "task": { "source": "t:x" } })]);
    check_project(
        &project,
        &["--tasks", "t.wasm"],
        &["t.wasm: ", "is not a WebAssembly module", "1 problem"],
    );
}

#[test]
fn misspelt_names_get_the_nearest_one() {
    let project = Project::new();
    let mut entry = task(0, "t", &module("swiss.wasm"), json!({ "num_level": 3 }));
    let properties =
        json!({ "num_levels": { "type": "integer" }, "overwrite": { "type": "boolean" } });
    entry["task"]["args_schema"] =
        json!({ "properties": properties, "additionalProperties": false });
    entry["meta"] = json!({ "mandelbox": { "memroy": "1G" }, "parallelisation_level": "well" });
    project.workflow(&[entry.clone()]);
    project.write("config.json", "{\"parallel_task_per_job\": 3}");
    check_project(
        &project,
        &["--local-config", "config.json"],
        &[
            "('num_level' was unexpected); did you mean `num_levels`?",
            "/task_list/0/meta/mandelbox/memroy: unknown key `memroy`; the known keys are memory, timeout, \
             sha256, metadata_keys, \
             metadata_in_args, env, mounts, snapshot; did you mean `memory`?",
            "/parallel_task_per_job: unknown key; the only key of this file is \
             `parallel_tasks_per_job`; did you mean",
            "3 problems",
        ],
    );
    // In Fractal's documents unknown keys are ignored, and a misspelt one would be too.
    entry["Args"] = json!({});
    entry["task"]["input_typ"] = json!("zarr");
    entry["args"] = json!({});
    entry["meta"] = json!({ "parallelisation_level": "well", "executor": "cpu-low" });
    project.workflow(&[entry.clone()]);
    project.run(&["--dry-run"]).expect(0).reports(&[
        "/task_list/0/meta/parallelisation_level: unknown key, which is ignored; did you mean `parallelization_level`?",
        "/task_list/0/task/input_typ: unknown key, which is ignored; did you mean \
         `input_type`?",
    ]);
    entry.as_object_mut().expect("an object").remove("args");
    project.workflow(&[entry]);
    project
        .run(&["--dry-run"])
        .expect(0)
        .reports(&["/task_list/0/Args: unknown key, which is ignored; did you mean `args`?"]);
    project.write("workflow.json", "{\"name\": \"w\", \"Task_list\": []}");
    check_project(
        &project,
        &[],
        &[
            "missing key `task_list` (the object has `name`, `Task_list`); write `task_list` \
             instead of `Task_list`",
        ],
    );
}

#[test]
fn an_empty_variable_counts_as_none() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let mut command = project.command(&["run", "workflow.json", "--output", "out", "--dry-run"]);
    command.env("FRACTAL_LOCAL_CONFIG_FILE", "");
    finish(command).expect(0);
}

/// Text that is pasted into a shell is one word there, whatever the path.
#[test]
fn advice_with_a_path_can_be_pasted() {
    let project = Project::new();
    let pasted = |ended: Ended, text: &str| ended.reports(&[text]);
    let args = json!({ "input_paths": ["/my data/it's"], "output_path": "/out $HOME" });
    project.write("args.json", args.to_string());
    let ended = project.mandelbox(&[
        "exec",
        &module("swiss.wasm"),
        "--args",
        "args.json",
        "--output",
        "out",
    ]);
    pasted(ended, "add `--input \"/my data/it's\"`").reports(&["add `--output '/out $HOME'`"]);
    project.workflow(&[
        json!({ "args": { "exit": 3 }, "task": { "name": "t", "command": quoted(&module("swiss.wasm")) } }),
    ]);
    let ended = project
        .mandelbox(&[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            "my work",
        ])
        .expect(3);
    pasted(
        ended,
        &format!(
            "--work-dir '{}' --resume",
            project.path("my work").display()
        ),
    );
    std::fs::create_dir(project.path("my folder")).expect("made");
    let reported = format!("  cd '{}'\n", project.path("my folder/my-task").display());
    pasted(
        project
            .mandelbox(&["new", "my folder/my-task", "--lang", "rust"])
            .expect(0),
        &reported,
    );
}
