//! `mandelbox check`, `run --dry-run` and the help texts.

use serde_json::{Value, json};

use crate::project::{Project, module, task};

#[test]
fn modules_are_checked() {
    let project = Project::new();
    for (name, kind) in [("swiss.wasm", "command_p1"), ("swiss.p2.wasm", "command_p2")] {
        let ended = project.mandelbox(&["check", &module(name), "--format", "json"]).expect(0);
        let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!((&answer["ok"], &answer["module"]["kind"]), (&json!(true), &json!(kind)));
        project.mandelbox(&["check", &module(name)]).expect(0).says(&["sha256", "no problem found"]);
    }
    project.write("page.wasm", "<html>404</html>");
    let ended = project.mandelbox(&["check", "page.wasm", "--format", "json"]).expect(2);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(answer["problems"][0]["message"].as_str().expect("text").contains("HTML page"));
    project.mandelbox(&["check", "none.wasm"]).expect(2).says(&["there is no module at none.wasm"]);
}

#[test]
fn workflows_are_checked_without_their_data() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project.mandelbox(&["check", "workflow.json"]).expect(0).says(&["0 \"t\"", "no problem found"]);
    project.workflow(&[json!({ "task": { "source": "x" } }), task(1, "t", "none.wasm", json!({}))]);
    let ended = project.mandelbox(&["check", "workflow.json"]).expect(2);
    ended.says(&["/task_list/0/task/source", "/task_list/1/task/command", "2 problems found"]);
}

#[test]
fn packages_are_checked() {
    let project = Project::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/task-examples/ome-zarr");
    project.mandelbox(&["check", examples]).expect(0).says(&["ome-zarr:list_images", "no problem found"]);
    let task = json!({ "name": "t", "executable": "none.wasm", "input_type": "Any", "output_type": "Any", "args_schema": { "type": 7 } });
    project.write("p/__FRACTAL_MANIFEST__.json", json!({ "manifest_version": 1, "task_list": [task] }).to_string());
    project.mandelbox(&["check", "p"]).expect(2).says(&["/task_list/0/executable", "/task_list/0/args_schema"]);
    project.mandelbox(&["check", "in"]).expect(2).says(&["__FRACTAL_MANIFEST__.json: cannot be read"]);
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let project = Project::new();
    project.workflow(&[
        task(0, "first", &module("swiss.wasm"), json!({ "x": 1 })),
        task(1, "second", &module("swiss.wasm"), json!({})),
    ]);
    let before = project.tree();
    let ended = project.run(&["--dry-run", "--last-task", "0", "--timeout", "90s"]).expect(0);
    assert_eq!(project.tree(), before);
    assert_eq!(ended.stdout, "");
    assert!(!ended.stderr.contains("second"));
    ended.says(&[
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
fn the_doctor_says_what_is_there() {
    let project = Project::new();
    let ended = project.mandelbox(&["doctor", "--format", "json"]).expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("findings");
    let find = |name: &str| findings.iter().find(|finding| finding["name"] == name).expect(name);
    assert_eq!(find("a guest in a thread")["value"], "runs");
    assert!(find("a guest in a process")["value"].as_str().expect("text").contains("child processes"));
    project.mandelbox(&["doctor"]).expect(0).says(&[
        "mandelbox 0.",
        "openat2",
        "ulimit -n",
        "cache of compiled modules",
    ]);
}

#[test]
fn help_has_an_example_for_each_subcommand() {
    let project = Project::new();
    let help = project.mandelbox(&["--help"]).expect(0).stdout;
    for subcommand in ["run", "check", "doctor", "completions", "man"] {
        assert!(help.contains(subcommand));
        let text = project.mandelbox(&[subcommand, "--help"]).expect(0).stdout;
        assert!(text.contains(&format!("mandelbox {subcommand} ")) && text.contains("Examples:"), "{text}");
    }
    assert!(project.mandelbox(&["--version"]).expect(0).stdout.starts_with("mandelbox "));
}
