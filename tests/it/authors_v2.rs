//! The commands for authors of tasks, with documents, packages and calls of Fractal v2.

use serde_json::{Value, json};

use crate::project::{Ended, Project, module};

/// A project with a package of Fractal v2 whose module is `swiss.wasm`: the tasks `Compound` and
/// `Parallel`.
fn with_package() -> Project {
    let project = Project::new();
    std::fs::copy(module("swiss.wasm"), project.path("swiss.wasm")).expect("copied");
    std::fs::create_dir(project.path("tasks")).expect("created");
    std::fs::copy(module("swiss.wasm"), project.path("tasks/one.wasm")).expect("copied");
    let schema = json!({
        "type": "object",
        "required": ["size"],
        "properties": {
            "zarr_url": { "type": "string" },
            "size": { "type": "integer", "description": "In pixels" },
        },
    });
    let tasks = [
        json!({
            "name": "Compound", "executable_non_parallel": "one.py",
            "executable_parallel": "../swiss.wasm", "meta_non_parallel": { "mem": 100 },
            "input_types": { "flat": false }, "output_types": { "flat": true },
        }),
        json!({
            "name": "Parallel", "executable_parallel": "../swiss.wasm",
            "args_schema_parallel": schema,
        }),
    ];
    write_package(&project, "tasks", "1.0", &tasks);
    project
}

fn write_package(project: &Project, folder: &str, version: &str, tasks: &[Value]) {
    let manifest = json!({
        "manifest_version": "2", "pkg_name": "my-tasks", "version": version, "task_list": tasks,
    });
    let file = format!("{folder}/__FRACTAL_MANIFEST__.json");
    project.write(&file, manifest.to_string());
}

fn entry(name: &str, version: &str) -> Value {
    json!({ "task": { "pkg_name": "my-tasks", "version": version, "name": name } })
}

/// Runs the program, which prints one JSON object.
#[track_caller]
fn json_of(project: &Project, arguments: &[&str], code: i32) -> Value {
    let ended = project.mandelbox(arguments).expect(code);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Returns how often a text is in stderr.
fn count(ended: &Ended, text: &str) -> usize {
    ended.stderr.matches(text).count()
}

#[test]
fn a_workflow_is_checked_without_a_dataset() {
    let project = with_package();
    let mut compound = entry("Compound", "1.0");
    compound["args_non_parallel"] = json!({ "a": 1 });
    let mut parallel = entry("Parallel", "1.0");
    parallel["args_parallel"] = json!({ "size": 3 });
    project.workflow(&[compound, parallel.clone()]);
    let check = ["check", "workflow.json", "--tasks", "tasks"];
    project.mandelbox(&check).expect(0).reports(&[
        "0 \"Compound\" (compound)",
        "images with flat=false",
        "sets      flat=true",
        "1 \"Parallel\" (parallel)",
        "no problem found",
    ]);
    let answer = json_of(&project, &[&check[..], &["--format", "json"]].concat(), 0);
    let tasks = &answer["workflow"];
    assert_eq!(tasks[0]["type"], "compound");
    assert_eq!(tasks[0]["non_parallel"]["args"], json!({ "a": 1 }));
    for (side, name) in [("non_parallel", "one.wasm"), ("parallel", "swiss.wasm")] {
        let path = tasks[0][side]["module"].as_str().expect("a path");
        assert!(path.ends_with(name), "{path}");
    }
    assert_eq!(tasks[0]["input_types"], json!({ "flat": false }));
    assert_eq!(tasks[1]["non_parallel"], Value::Null);
    assert_eq!(tasks[1]["parallel"]["args"], json!({ "size": 3 }));

    parallel["args_parallel"] = json!({ "size": "big" });
    parallel["args_non_parallel"] = json!({ "x": 1 });
    project.workflow(&[entry("Compount", "1.0"), parallel]);
    project.mandelbox(&check).expect(2).reports(&[
        "/task_list/0/task: the package my-tasks 1.0 has no task \"Compount\"",
        "did you mean `Compound`?",
        "/task_list/1/args_parallel/size: does not match",
        "/task_list/1/args_non_parallel: the task \"Parallel\" has no such calls",
        "3 problems found",
    ]);
    project.write(
        "workflow.json",
        r#"{"name": "w", "task_list": [{"task": {"pkg_name": "p"}}]}"#,
    );
    let ended = project.mandelbox(&check).expect(2);
    ended.reports(&["missing key `name`", "1 problem found"]);
}

#[test]
fn each_thing_that_is_missing_is_named_once() {
    let project = with_package();
    project.workflow(&[entry("Compound", "1.0"), entry("Parallel", "1.0")]);
    let ended = project.mandelbox(&["check", "workflow.json"]).expect(2);
    let ended = ended.reports(&[
        "the package my-tasks is missing: no task package was given; name its folder with \
         `--tasks`",
        "1 problem found",
    ]);
    assert_eq!(count(&ended, "my-tasks"), 1);
    let run = ["run", "workflow.json", "--zarr-dir", "zarr"];
    project
        .mandelbox(&run)
        .expect(2)
        .reports(&["the package my-tasks is missing", "1 problem"]);

    let with_tasks = |more: &[&str]| {
        let arguments = [&["check", "workflow.json", "--tasks", "tasks"], more].concat();
        project.mandelbox(&arguments)
    };
    project.workflow(&[entry("Compound", "2.0"), entry("Parallel", "2.0")]);
    with_tasks(&[]).expect(2).reports(&[
        "the package my-tasks is not there in version 2.0, only in 1.0",
        "1 problem found",
    ]);
    // One module of three calls.
    std::fs::remove_file(project.path("swiss.wasm")).expect("removed");
    let again = entry("Compound", "1.0");
    project.workflow(&[again.clone(), again, entry("Parallel", "1.0")]);
    let ended = with_tasks(&[]).expect(2);
    assert_eq!(count(&ended, "no module at"), 1, "{}", ended.stderr);
    std::fs::remove_file(project.path("tasks/one.wasm")).expect("removed");
    with_tasks(&[]).expect(2).reports(&[
        "mandelbox runs this module in place of `one.py`",
        "3 problems found",
    ]);
    // A package that cannot be read is one problem too.
    project.write(
        "tasks/__FRACTAL_MANIFEST__.json",
        r#"{"manifest_version": "2"}"#,
    );
    with_tasks(&[])
        .expect(2)
        .reports(&["missing key `task_list`", "1 problem found"]);
}

#[test]
fn a_package_is_checked_with_both_sides_of_its_tasks() {
    let project = with_package();
    project.mandelbox(&["check", "tasks"]).expect(0).reports(&[
        "task \"Compound\"\n    type      compound\n    input     images with flat=false",
        "    non_parallel\n      module    one.wasm (in place of one.py)\n      meta      \
         {\"mem\":100}\n      arguments not described",
        "size      integer  required                In pixels",
        "zarr_url  string   filled in by mandelbox",
        "module one.wasm (in place of one.py)\n    kind      command",
        "module ../swiss.wasm\n",
        "no problem found",
    ]);
    let answer = json_of(&project, &["check", "tasks", "--format", "json"], 0);
    let package = &answer["package"];
    assert_eq!(
        (&package["name"], &package["version"]),
        (&json!("my-tasks"), &json!("1.0"))
    );
    let modules = package["modules"].as_array().expect("a list");
    assert_eq!(modules.len(), 2);
    assert_eq!(modules[0]["kind"], "command_p1");
    let tasks = package["tasks"].as_array().expect("a list");
    assert_eq!(tasks[0]["type"], "compound");
    assert_eq!(tasks[0]["non_parallel"]["executable"], "one.py");
    assert_eq!(tasks[0]["parallel"]["arguments"], Value::Null);
    assert_eq!(tasks[1]["non_parallel"], Value::Null);
    assert_eq!(tasks[1]["parallel"]["arguments"][0]["from_runner"], true);

    let task = json!({
        "name": "t", "executable_non_parallel": "none.py", "executable_parallel": "none.py",
        "args_schema_parallel": { "type": "object", "properties": {
            "size": { "type": "integer", "default": "big" },
        } },
    });
    write_package(&project, "tasks", "1.0", &[task]);
    project.mandelbox(&["check", "tasks"]).expect(2).reports(&[
        "/task_list/0/args_schema_parallel/properties/size/default: the default does not match",
        "/task_list/0/executable_non_parallel: no module at",
        "2 problems found",
    ]);
}

#[test]
fn a_folder_of_installed_packages_is_checked_as_a_whole() {
    let project = Project::new();
    let task = json!({ "name": "t", "executable_parallel": "x.wasm" });
    for folder in ["site/one", "site/two"] {
        std::fs::create_dir_all(project.path(folder)).expect("created");
        let to = project.path(&format!("{folder}/x.wasm"));
        std::fs::copy(module("swiss.wasm"), to).expect("copied");
        write_package(&project, folder, "3.1", std::slice::from_ref(&task));
    }
    project.write(
        "site/two-7.0.dist-info/METADATA",
        "Name: two\nVersion: 7.0\n",
    );
    project.mandelbox(&["check", "site"]).expect(0).reports(&[
        "package my-tasks 3.1",
        "package two 7.0",
        "no problem found",
    ]);
    let old = json!({ "manifest_version": "1", "task_list": [] });
    project.write("site/old/__FRACTAL_MANIFEST__.json", old.to_string());
    let answer = json_of(&project, &["check", "site", "--format", "json"], 0);
    assert_eq!(answer["packages"].as_array().map(Vec::len), Some(2));
    let warning = answer["warnings"][0]["message"].as_str().expect("a text");
    assert!(warning.contains("is a package of Fractal v1"), "{warning}");
}

#[test]
fn a_dataset_is_checked() {
    let project = Project::new();
    let image = |n: usize| {
        json!({
            "zarr_url": format!("/z/{n}"),
            "attributes": { "well": format!("B{n:02}"), "plate": "p" },
            "types": { "flat": n.is_multiple_of(2) },
        })
    };
    let images: Vec<_> = (0..15).map(image).collect();
    let dataset = json!({ "name": "d", "zarr_dir": "/z", "images": images });
    project.write("dataset.json", dataset.to_string());
    project
        .mandelbox(&["check", "dataset.json"])
        .expect(0)
        .reports(&[
            "images    15",
            "plate  \"p\"",
            "\"B11\" and 3 more",
            "flat  true: 8, false: 7",
            "no problem found",
        ]);
    let answer = json_of(&project, &["check", "dataset.json", "--format", "json"], 0);
    let facts = &answer["dataset"];
    assert_eq!(facts["n_images"], 15);
    assert_eq!(facts["attributes"]["well"]["n_values"], 15);
    assert_eq!(facts["attributes"]["plate"]["values"], json!(["p"]));
    assert_eq!(facts["types"]["flat"], json!({ "true": 8, "false": 7 }));
    let images = [
        json!({ "zarr_url": "/elsewhere/a" }),
        json!({ "zarr_url": "/z/b", "attributes": { "x": [] } }),
    ];
    let dataset = json!({ "name": "d", "zarr_dir": "/z", "images": images });
    project.write("dataset.json", dataset.to_string());
    project
        .mandelbox(&["check", "dataset.json"])
        .expect(2)
        .reports(&[
            "/images/0/zarr_url: must lie in `zarr_dir`",
            "/images/1/attributes/x: must be a number, a string or a boolean",
            "2 problems found",
        ]);
}

#[test]
fn a_call_runs_as_in_a_run() {
    let project = with_package();
    project.write("zarr/a/x", "");
    let url = project.path("zarr/a").to_str().expect("UTF-8").to_owned();
    let update = json!({ "zarr_url": url, "attributes": { "n": 1 } });
    let args = json!({
        "zarr_url": url, "size": 3, "out": { "image_list_updates": [update] },
        "touch": [format!("{url}/touched")], "stderr": "hello\n",
    });
    project.write("args.json", args.to_string());
    let exec = [
        "exec",
        "swiss.wasm",
        "--args",
        "args.json",
        "--output",
        "zarr",
    ];
    let answer = json_of(&project, &exec, 0);
    assert_eq!(answer["image_list_updates"][0]["attributes"]["n"], 1);
    assert!(project.path("zarr/a/touched").is_file());

    // Without the output, its folder can be read, and the image is the item of messages.
    let read_only = [
        "exec",
        "swiss.wasm",
        "--args",
        "args.json",
        "--read",
        "zarr",
    ];
    let ended = project.mandelbox(&read_only).expect(3);
    ended.reports(&["cannot append to", "TaskExecutionError", &url]);
    let alone = ["exec", "swiss.wasm", "--args", "args.json"];
    // Below `/tmp`, the task writes to its scratch folder.
    project
        .mandelbox(&alone)
        .reports(&["/zarr_url: the task cannot access", "add `--read "]);
}

#[test]
fn the_output_of_a_call_is_checked() {
    let project = with_package();
    let exec = |args: &Value, module: &str, more: &[&str], code: i32| {
        project.write("args.json", args.to_string());
        let arguments = ["exec", module, "--args", "args.json", "--output", "zarr"];
        project
            .mandelbox(&[&arguments[..], more].concat())
            .expect(code)
    };
    let bad = json!({ "zarr_url": "/z/a", "size": 1, "out": { "image_list_update": [] } });
    exec(&bad, "swiss.wasm", &[], 3).reports(&["TaskExecutionError", "image_list_update"]);
    // The first call of a compound task, which the manifest describes.
    let list = json!({ "parallelization_list": [{ "zarr_url": "/z/a", "init_args": {} }] });
    let init = json!({ "zarr_urls": ["/z/a"], "out": list });
    let ended = exec(&init, "tasks/one.wasm", &[], 0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(answer, list);
    let changes = json!({ "zarr_urls": [], "out": { "image_list_removals": ["/z/a"] } });
    exec(&changes, "tasks/one.wasm", &[], 3).reports(&["image_list_removals"]);
    // Without reserved keys and without a manifest, the option decides.
    let own = json!({ "out": { "image_list_removals": ["/z/a"] } });
    let ended = exec(&own, "swiss.wasm", &["--fractal", "2"], 0);
    assert!(ended.stdout.contains("/z/a"), "{}", ended.stdout);
    let ended = exec(&json!({ "metadiff": { "a": 1 } }), "swiss.wasm", &[], 0);
    assert!(ended.stdout.contains("\"a\": 1"), "{}", ended.stdout);
    let image = json!({ "zarr_url": "/z/a" });
    exec(&image, "swiss.wasm", &["--component", "a"], 2).reports(&[
        "--component: is an option for tasks of Fractal v1; put `zarr_url` into the args",
    ]);
}

#[test]
fn the_args_of_a_call_fit_their_schema() {
    let project = with_package();
    let schema = json!({ "type": "object", "properties": { "size": { "type": "integer" } } });
    let mut task = json!({
        "name": "t", "executable_parallel": "one.wasm", "args_schema_parallel": schema,
    });
    write_package(&project, "tasks", "1.0", &[task.clone()]);
    let exec = [
        "exec",
        "tasks/one.wasm",
        "--args",
        "args.json",
        "--output",
        "zarr",
    ];
    project.write("args.json", r#"{"zarr_url": "/z/a", "size": "big"}"#);
    project
        .mandelbox(&exec)
        .expect(2)
        .reports(&["args.json: /size: does not match"]);
    // The manifest has version 2, so the call is one of version 2, whatever the args.
    project.write(
        "args.json",
        r#"{"size": 1, "out": {"image_list_updates": []}}"#,
    );
    let ended = project.mandelbox(&exec).expect(0);
    assert!(
        ended.stdout.contains("image_list_updates"),
        "{}",
        ended.stdout
    );
    ended.reports(&["a task of type parallel gets `zarr_url` in a run; add it"]);
    let first = task.clone();
    task["name"] = json!("u");
    write_package(&project, "tasks", "1.0", &[first, task]);
    project.write("args.json", r#"{"zarr_url": "/z/a", "size": "big"}"#);
    project
        .mandelbox(&exec)
        .expect(0)
        .reports(&["is the module of several tasks (t, u), so no args_schema is applied"]);
}

/// A project whose package `tasks` has a parallel task and a compound task, and a case for each
/// kind of calls.
fn with_cases() -> Project {
    let project = with_package();
    let case = |name: &str, task: &str, args: Value| {
        let settings = json!({ "task": task });
        project.write(
            &format!("tasks/tests/{name}/case.json"),
            settings.to_string(),
        );
        project.write(&format!("tasks/tests/{name}/args.json"), args.to_string());
    };
    let update = json!({ "zarr_url": "{zarr_url}", "attributes": { "n": 1 } });
    let parallel = json!({
        "zarr_url": "/zarr_dir/a", "size": 1, "touch": ["/zarr_dir/a/touched"],
        "out": { "image_list_updates": [update] },
    });
    case("parallel", "Parallel", parallel);
    project.write("tasks/tests/parallel/zarr_dir/a/x", "before");
    let item = json!({ "zarr_url": "{zarr_dir}/b", "init_args": {} });
    let init = json!({ "zarr_urls": [], "out": { "parallelization_list": [item] } });
    case("init", "Compound", init);
    let mut fails = json!({ "zarr_url": "/zarr_dir/a", "init_args": {}, "exit": 1 });
    fails["stderr"] = json!("no such well");
    case("fails", "Compound", fails);
    project.write("tasks/tests/fails/expected/error.txt", "no such well");
    project
}

#[test]
fn cases_of_a_package_are_run_and_updated() {
    let project = with_cases();
    project.mandelbox(&["test", "tasks"]).expect(3).reports(&[
        "ok       fails",
        "FAILED   init",
        "has no `expected/`; write it with `--update`",
        "1 passed, 2 failed",
    ]);
    let update = ["test", "tasks", "--update"];
    project
        .mandelbox(&update)
        .expect(0)
        .reports(&["output.json", "zarr_dir/a/touched"]);
    let expected = "tasks/tests/parallel/expected";
    let output = project.json(&format!("{expected}/output.json"));
    assert_eq!(output["image_list_updates"][0]["zarr_url"], "/zarr_dir/a");
    assert_eq!(project.read(&format!("{expected}/zarr_dir/a/x")), "before");
    let output = project.json("tasks/tests/init/expected/output.json");
    assert_eq!(output["parallelization_list"][0]["zarr_url"], "/zarr_dir/b");
    project
        .mandelbox(&["test", "tasks"])
        .expect(0)
        .reports(&["3 passed, 0 failed"]);

    project.write(
        &format!("{expected}/output.json"),
        r#"{"image_list_updates": []}"#,
    );
    project.write(&format!("{expected}/zarr_dir/a/x"), "after");
    let answer = json_of(&project, &["test", "tasks", "--format", "json"], 3);
    let differences = answer["cases"][2]["differences"]
        .as_array()
        .expect("a list");
    let locations: Vec<_> = differences.iter().map(|it| &it["location"]).collect();
    assert_eq!(locations, ["output.json", "zarr_dir/a/x"]);
}

#[test]
fn a_case_that_does_not_fit_its_task_is_refused() {
    let project = with_cases();
    project.write(
        "tasks/tests/parallel/args.json",
        r#"{"zarr_url": "/zarr_dir/a", "size": "big"}"#,
    );
    project.write("tasks/tests/init/case.json", r#"{"task": "Compount"}"#);
    project.write("tasks/tests/fails/expected/output.json", "null");
    project.mandelbox(&["test", "tasks"]).expect(2).reports(&[
        "tests/parallel/args.json: /size: does not match",
        "tests/init/case.json: /task: no task \"Compount\"; the package has: Compound, Parallel",
        "is next to `output.json` or `zarr_dir/`",
        "3 problems",
    ]);
}
