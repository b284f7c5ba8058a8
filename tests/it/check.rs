//! `mandelbox check`, `run --dry-run` and the help texts.

use serde_json::{Value, json};

use crate::project::{Project, module, task};

#[test]
fn modules_are_checked() {
    let project = Project::new();
    for (name, kind) in [
        ("swiss.wasm", "command_p1"),
        ("swiss.p2.wasm", "command_p2"),
    ] {
        let ended = project
            .mandelbox(&["check", &module(name), "--format", "json"])
            .expect(0);
        let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(
            (&answer["ok"], &answer["module"]["kind"]),
            (&json!(true), &json!(kind))
        );
        project
            .mandelbox(&["check", &module(name)])
            .expect(0)
            .reports(&["sha256", "no problem found"]);
    }
    project.write("page.wasm", "<html>404</html>");
    let ended = project
        .mandelbox(&["check", "page.wasm", "--format", "json"])
        .expect(2);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(
        answer["problems"][0]["message"]
            .as_str()
            .expect("text")
            .contains("HTML page")
    );
    project
        .mandelbox(&["check", "none.wasm"])
        .expect(2)
        .reports(&["no module at `none.wasm`"]);
}

#[test]
fn workflows_are_checked_without_their_data() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project
        .mandelbox(&["check", "workflow.json"])
        .expect(0)
        .reports(&["0 \"t\"", "no problem found"]);
    project.workflow(&[
        json!({ "task": { "source": "x" } }),
        task(1, "t", "none.wasm", json!({})),
    ]);
    let ended = project.mandelbox(&["check", "workflow.json"]).expect(2);
    ended.reports(&[
        "/task_list/0/task/source",
        "/task_list/1/task/command",
        "2 problems found",
    ]);
}

#[test]
fn packages_are_checked() {
    let project = Project::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/task-examples/ome-zarr");
    project
        .mandelbox(&["check", examples])
        .expect(0)
        .reports(&["ome-zarr:list_images", "no problem found"]);
    let task = json!({ "name": "t", "executable": "none.wasm", "input_type": "Any", "output_type": "Any", "args_schema": { "type": 7 } });
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": 1, "task_list": [task] }).to_string(),
    );
    project
        .mandelbox(&["check", "p"])
        .expect(2)
        .reports(&["/task_list/0/executable", "/task_list/0/args_schema"]);
    project
        .mandelbox(&["check", "in"])
        .expect(2)
        .reports(&["in: is not a task package: it contains neither"]);
}

#[test]
fn a_folder_of_typed_tasks_is_a_package() {
    let project = Project::new();
    project.write(
        "p/count.wasm",
        std::fs::read(module("typed.wasm")).expect("read"),
    );
    let ended = project
        .mandelbox(&["check", "p", "--format", "json"])
        .expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let [found] = &answer["package"]["modules"].as_array().expect("a list")[..] else {
        panic!("{answer}")
    };
    assert!(
        found["source"]
            .as_str()
            .expect("a text")
            .starts_with("count:"),
        "{found}"
    );
    project.mandelbox(&["check", "p"]).expect(0).reports(&[
        "count.wasm",
        "typed",
        "no problem found",
    ]);
}

#[test]
fn each_module_of_a_package_is_reported_once() {
    let project = Project::new();
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    let schema = json!({
        "type": "object",
        "required": ["size"],
        "definitions": { "Mode": { "enum": ["fast", "good"] } },
        "properties": {
            "size": { "type": "integer", "title": "Size", "description": "In pixels" },
            "mode": { "allOf": [{ "$ref": "#/definitions/Mode" }], "default": "good" },
            "component": { "type": "string" },
        },
    });
    let entry = |name: &str, module: &str, schema: &Value| json!({ "name": name, "executable": module, "input_type": "a", "output_type": "b", "args_schema": schema });
    let manifest =
        |tasks: &[Value]| json!({ "manifest_version": 1, "task_list": tasks }).to_string();
    let tasks = [
        entry("one", "../m.wasm", &schema),
        entry("two", "../m.wasm", &Value::Null),
    ];
    project.write("p/__FRACTAL_MANIFEST__.json", manifest(&tasks));
    let ended = project
        .mandelbox(&["check", "p", "--format", "json"])
        .expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let package = &answer["package"];
    assert_eq!(
        (&package["name"], &package["tasks"][1]["source"]),
        (&json!("p"), &json!("p:two"))
    );
    assert_eq!(package["tasks"][1]["arguments"], Value::Null);
    let arguments = package["tasks"][0]["arguments"].as_array().expect("a list");
    let reported: Vec<_> = arguments
        .iter()
        .map(|argument| (&argument["name"], &argument["type"]))
        .collect();
    let expected = [
        ("size", "integer"),
        ("mode", "\"fast\" | \"good\""),
        ("component", "string"),
    ];
    assert_eq!(
        reported,
        expected
            .map(|(name, ty)| (json!(name), json!(ty)))
            .each_ref()
            .map(|(name, ty)| (name, ty))
    );
    assert_eq!(
        (&arguments[0]["required"], &arguments[2]["from_runner"]),
        (&json!(true), &json!(true))
    );
    let modules = package["modules"].as_array().expect("a list");
    assert_eq!(modules.len(), 1);
    assert_eq!(
        (&modules[0]["kind"], &modules[0]["wasi"]),
        (&json!("command_p1"), &json!(["preview1"]))
    );
    project.mandelbox(&["check", "p"]).expect(0).reports(&[
        "size       integer          required                In pixels",
        "mode       \"fast\" | \"good\"  default \"good\"",
        "component  string           filled in by mandelbox",
        "arguments not described (no args_schema)",
        "module ../m.wasm\n    kind      command",
    ]);
    // A module that is none is one problem, whatever number of tasks it has.
    project.write("m.wasm", "<html>");
    let ended = project.mandelbox(&["check", "p"]).expect(2);
    ended.reports(&[
        "/task_list/0/executable: p/../m.wasm: is not a WebAssembly module",
        "HTML page",
        "1 problem found",
    ]);
}

#[test]
fn defaults_must_fit_their_own_schema() {
    let project = Project::new();
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    let schema = json!({
        "type": "object",
        "required": ["given"],
        "definitions": { "Mode": { "enum": ["fast", "good"] } },
        "properties": {
            "given": { "type": "integer" },
            "size": { "type": "integer", "default": "big" },
            "mode": { "allOf": [{ "$ref": "#/definitions/Mode" }], "default": "bad" },
            "list": { "type": "array", "items": { "type": "integer" }, "default": [1, "x"] },
            "none": { "type": "integer", "default": null },
            "good": { "type": "integer", "default": 1 },
        },
    });
    let task = json!({ "name": "t", "executable": "../m.wasm", "input_type": "a", "output_type": "b", "args_schema": schema });
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": 1, "task_list": [task] }).to_string(),
    );
    let ended = project.mandelbox(&["check", "p"]).expect(2);
    ended.reports(&[
        "/task_list/0/args_schema/properties/size/default: the default does not match its own schema",
        "/task_list/0/args_schema/properties/mode/default: ",
        "/task_list/0/args_schema/properties/list/default/1: ",
        "3 problems found",
    ]);
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let project = Project::new();
    project.workflow(&[
        task(0, "first", &module("swiss.wasm"), json!({ "x": 1 })),
        task(1, "second", &module("swiss.wasm"), json!({})),
    ]);
    let before = project.tree();
    let ended = project
        .run(&["--dry-run", "--last-task", "0", "--timeout", "90s"])
        .expect(0);
    assert_eq!(project.tree(), before);
    assert_eq!(ended.stdout, "");
    assert!(!ended.stderr.contains("second"));
    ended.reports(&[
        "1 task to run",
        "0 \"first\"",
        "read-only",
        "read-write",
        "memory 4 GiB, time 1m 30s",
        "{\"x\":1}",
        "nothing was written",
    ]);
}

#[test]
fn the_doctor_reports_what_exists() {
    let project = Project::new();
    let ended = project.mandelbox(&["doctor", "--format", "json"]).expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("findings");
    let find = |name: &str| {
        findings
            .iter()
            .find(|finding| finding["name"] == name)
            .expect(name)
    };
    assert_eq!(find("a guest in a thread")["value"], "runs");
    assert!(
        find("a guest in a process")["value"]
            .as_str()
            .expect("text")
            .starts_with("runs")
    );
    let layers = answer["process_layers"].as_array().expect("a list");
    let names: Vec<_> = layers
        .iter()
        .map(|layer| layer["layer"].as_str().expect("text"))
        .collect();
    let all = [
        "files",
        "network",
        "scopes",
        "system_calls",
        "capabilities",
        "no_new_privileges",
        "memory",
    ];
    assert_eq!(names, all);
    let states = ["in_force", "partly", "missing"];
    assert!(layers.iter().all(
        |layer| states.contains(&layer["state"].as_str().expect("text"))
            && layer["detail"].is_string()
    ));
    project.mandelbox(&["doctor"]).expect(0).reports(&[
        "mandelbox 0.",
        "openat2",
        "ulimit -n",
        "cache of compiled modules",
        "cache of unpacked wheels",
        "layer: system_calls",
    ]);
}

#[test]
fn help_has_an_example_for_each_subcommand() {
    let project = Project::new();
    for subcommand in project.subcommands() {
        let text = project.mandelbox(&[&subcommand, "--help"]).expect(0).stdout;
        assert!(
            text.contains(&format!("mandelbox {subcommand} ")) && text.contains("Examples:"),
            "{text}"
        );
    }
    assert!(
        project
            .mandelbox(&["--version"])
            .expect(0)
            .stdout
            .starts_with("mandelbox ")
    );
}
