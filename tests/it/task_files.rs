//! Where the files of calls go: `--task-files`.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{ISOLATIONS, Project, module, parallel_task};

/// A project with a task for each of these components, which all print and return something.
fn project(components: &[String], per_component: Value) -> Project {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": components }).to_string());
    let args = json!({
        "metadiff": { "v": 1 }, "stdout": "out\n", "stderr": "err\n", "per_component": per_component,
    });
    project.workflow(&[parallel_task(0, "par", &module("swiss.wasm"), "c", args)]);
    project
}

fn components(n: usize) -> Vec<String> {
    (0..n).map(|index| format!("c{index:04}")).collect()
}

fn run(project: &Project, more: &[&str], exit_code: i32) {
    let arguments = [&["--metadata", "metadata.json", "--keep-going"], more].concat();
    project.run(&arguments).expect(exit_code);
}

/// Names of the files in the task's subfolder.
fn files(project: &Project) -> BTreeSet<String> {
    let paths = project.tree().into_iter();
    let names = paths.filter_map(|path| path.strip_prefix("work/0_par/").map(str::to_owned));
    names.filter(|name| !name.is_empty()).collect()
}

fn names(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|name| (*name).to_owned()).collect()
}

/// Facts about a call, from `mandelbox show`.
#[track_caller]
fn shown(project: &Project, more: &[&str]) -> Value {
    let arguments = [&["show", "work", "0"], more, &["--format", "json"]].concat();
    let ended = project.mandelbox(&arguments).expect(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Checks that a call is packed, with everything that it left.
#[track_caller]
fn check_packed(project: &Project, component: &str) {
    let facts = shown(project, &[component]);
    assert_eq!(facts["files"], "packed", "{facts:#}");
    assert_eq!(facts["args"]["component"], *component);
    assert_eq!(facts["output"], json!({ "v": 1 }));
    assert_eq!(
        (&facts["stdout"], &facts["stderr"]),
        (&json!("out\n"), &json!("err\n"))
    );
}

#[test]
fn packed_calls_have_one_file_and_failed_ones_their_own_too() {
    for isolation in ISOLATIONS {
        let fails = json!({ "c0001": { "exit": 3 } });
        let project = project(&components(4), fails);
        let more = ["--task-files", "packed", "--isolation", isolation];
        run(&project, &more, 3);
        let expected = [
            "0_par_c0001.args.json",
            "0_par_c0001.err",
            "0_par_c0001.metadiff.json",
            "0_par_c0001.out",
            "calls.packed",
        ];
        assert_eq!(files(&project), names(&expected), "{isolation}");
        for component in ["c0000", "c0002", "c0003"] {
            check_packed(&project, component);
        }
        let failed = shown(&project, &["c0001"]);
        assert_eq!(
            (&failed["files"], &failed["outcome"]),
            (&json!("plain"), &json!("exited"))
        );
        assert_eq!(project.read("work/0_par/0_par_c0001.err"), "err\n");
        // The record of a failed call is in the file as well.
        for name in &expected[..4] {
            std::fs::remove_file(project.path("work/0_par").join(name)).expect("removed");
        }
        let failed = shown(&project, &["c0001"]);
        assert_eq!(
            (&failed["files"], &failed["stderr"]),
            (&json!("packed"), &json!("err\n"))
        );
    }
}

#[test]
fn long_streams_of_packed_calls_are_whole() {
    let text = "0123456789abcdef".repeat(50_000);
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write("metadata.json", json!({ "c": ["a", "b"] }).to_string());
        let args =
            json!({ "stdout": text, "stderr": text, "per_component": { "b": { "exit": 1 } } });
        project.workflow(&[parallel_task(0, "par", &module("swiss.wasm"), "c", args)]);
        run(
            &project,
            &["--task-files", "packed", "--isolation", isolation],
            3,
        );
        for stream in ["stdout", "stderr"] {
            let arguments = ["show", "work", "0", "a", "--stream", stream];
            let ended = project.mandelbox(&arguments).expect(0);
            assert!(ended.stdout == text, "{isolation}: {stream} differs");
        }
        assert!(
            project.read("work/0_par/0_par_b.out") == text,
            "{isolation}"
        );
        assert!(
            project.read("work/0_par/0_par_b.err") == text,
            "{isolation}"
        );
    }
}

/// Form of the files of a task in the log.
fn form(project: &Project) -> Value {
    let log = project.read("work/events.jsonl");
    let line = log
        .lines()
        .find(|line| line.contains("\"task_started\""))
        .expect("a start");
    let event: Value = serde_json::from_str(line).expect("JSON");
    event["files"]["kept"].clone()
}

#[test]
fn more_than_a_thousand_calls_are_packed() {
    for (n, expected) in [(1000, "all"), (1001, "packed")] {
        let project = project(&components(n), json!({}));
        run(&project, &["--isolation", "thread"], 0);
        assert_eq!(form(&project), expected);
        let n_files = files(&project).len();
        assert_eq!(n_files, if expected == "all" { 4 * n } else { 1 });
        let facts = shown(&project, &["c0999"]);
        let location = if expected == "all" { "plain" } else { "packed" };
        assert_eq!(
            (&facts["files"], &facts["call_index"]),
            (&json!(location), &json!(999))
        );
    }
}

#[test]
fn a_killed_run_keeps_its_records_and_is_resumed() {
    for isolation in ISOLATIONS {
        let waits = json!({ "c0003": { "sleep_ms": 5000 } });
        let project = project(&components(4), waits);
        let arguments = [
            "run",
            "workflow.json",
            "--input",
            "in",
            "--output",
            "out",
            "--work-dir",
            "work",
            "--metadata",
            "metadata.json",
            "--task-files",
            "packed",
            "--jobs",
            "1",
            "--isolation",
            isolation,
        ];
        let mut command = project.command(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("started");
        wait_for_calls(&project, 3);
        child.kill().expect("killed");
        child.wait().expect("ended");
        for component in ["c0000", "c0001", "c0002"] {
            check_packed(&project, component);
        }
        let facts = shown(&project, &["c0003"]);
        assert_eq!(
            (&facts["outcome"], &facts["files"]),
            (&json!("interrupted"), &json!("not_kept"))
        );

        // Part of a record, as a kill during a write leaves it.
        let path = project.path("work/0_par/calls.packed");
        let bytes = std::fs::read(&path).expect("there");
        let torn = [&bytes[..], &bytes[72..200]].concat();
        std::fs::write(&path, &torn).expect("written");
        let mut resumed = arguments.to_vec();
        resumed.push("--resume");
        project.mandelbox(&resumed).expect(0);
        let after = std::fs::read(&path).expect("there");
        assert!(after.starts_with(&torn), "{isolation}: nothing is removed");
        for component in components(4) {
            check_packed(&project, &component);
        }
        let n_attempts = |component| shown(&project, &[component])["n_attempts"].clone();
        assert_eq!(
            (n_attempts("c0002"), n_attempts("c0003")),
            (json!(1), json!(2))
        );
    }
}

/// Waits until a run has recorded the end of some calls.
fn wait_for_calls(project: &Project, n: usize) {
    let log = project.path("work/events.jsonl");
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.matches("\"call_finished\"").count() >= n {
            return;
        }
        assert!(Instant::now() < deadline, "no end of {n} calls: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_damaged_file_costs_the_damaged_records_only() {
    let project = project(&components(3), json!({}));
    run(&project, &["--task-files", "packed", "--jobs", "1"], 0);
    let path = project.path("work/0_par/calls.packed");
    let bytes = std::fs::read(&path).expect("there");
    let find = |text: &str| {
        bytes
            .windows(text.len())
            .position(|part| part == text.as_bytes())
    };
    let mut damaged = bytes.clone();
    damaged[find("\"item\":\"c0001\"").expect("in the second record")] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    check_packed(&project, "c0000");
    check_packed(&project, "c0002");
    let facts = shown(&project, &["c0001"]);
    assert_eq!(facts["files"], "not_kept");
    let reason = facts["not_kept"].as_str().expect("a reason");
    assert!(
        reason.ends_with("calls.packed has no whole record of it"),
        "{reason}"
    );
    // The log has the output, too.
    assert_eq!(facts["output"], json!({ "v": 1 }));
    project
        .mandelbox(&["show", "work", "0", "c0001", "--stream", "stdout"])
        .expect(2)
        .reports(&["c0001: its stdout is not kept:"]);
    damaged[0] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let facts = shown(&project, &["c0000"]);
    let reason = facts["not_kept"].as_str().expect("a reason");
    assert!(
        reason.contains("the start of") && reason.ends_with("is damaged"),
        "{reason}"
    );
}

#[test]
fn a_call_that_succeeds_later_has_no_files_of_its_failure() {
    let project = project(&components(2), json!({ "c0001": { "exit": 3 } }));
    run(&project, &["--task-files", "packed"], 3);
    assert_eq!(files(&project).len(), 5);
    let args = json!({ "metadiff": { "v": 1 }, "stdout": "out\n", "stderr": "err\n" });
    project.workflow(&[parallel_task(0, "par", &module("swiss.wasm"), "c", args)]);
    run(&project, &["--task-files", "packed", "--resume"], 0);
    assert_eq!(files(&project), names(&["calls.packed"]));
    check_packed(&project, "c0001");
}
