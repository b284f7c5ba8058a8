//! `mandelbox runs`: the runs below a folder, and their removal.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, resealed, task};

/// Runs the project's workflow in a work directory in `runs`.
#[track_caller]
fn run_in(project: &Project, name: &str, code: i32) {
    let work_dir = format!("runs/{name}");
    let arguments = ["--input", "in", "--output", "out", "--work-dir", &work_dir];
    project
        .mandelbox(&[&["run", "workflow.json", "--keep-going"], &arguments[..]].concat())
        .expect(code);
}

/// Cuts the log of a run, as if it had been killed before its end.
fn cut_log(project: &Project, name: &str) {
    let path = format!("runs/{name}/events.jsonl");
    let log = project.read(&path);
    let last_line = log.trim_end().rfind('\n').expect("lines") + 1;
    project.write(&path, &log[..last_line]);
}

/// A project with a finished, a failed and a killed run, in this order.
fn three_runs() -> Project {
    let project = Project::new();
    project.write("out/data.zarr/image", "pixels");
    project.workflow(&[task(0, "list", &module("swiss.wasm"), json!({}))]);
    run_in(&project, "finished", 0);
    let list = json!({ "metadiff": { "c": ["a", "b"] } });
    let each = json!({ "per_component": { "b": { "exit": 3 } } });
    project.workflow(&[
        task(0, "list", &module("swiss.wasm"), list),
        parallel_task(1, "each", &module("swiss.wasm"), "c", each),
    ]);
    run_in(&project, "failed", 3);
    project.workflow(&[task(0, "list", &module("swiss.wasm"), json!({}))]);
    run_in(&project, "plate/killed", 0);
    cut_log(&project, "plate/killed");
    project
}

#[track_caller]
fn runs(project: &Project, more: &[&str]) -> Ended {
    project.mandelbox(&[&["runs", "runs"], more].concat())
}

/// The facts of a list, by the name of the run.
#[track_caller]
fn facts(project: &Project, more: &[&str], code: i32) -> Vec<(String, Value)> {
    let ended = runs(project, &[&["--format", "json"], more].concat()).expect(code);
    let facts: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
    let name = |run: &Value| {
        let path = Path::new(run["work_dir"].as_str().expect("a path"));
        let name = path.strip_prefix(project.path("runs"));
        name.expect("inside").to_string_lossy().into_owned()
    };
    facts.into_iter().map(|run| (name(&run), run)).collect()
}

fn names(facts: &[(String, Value)]) -> Vec<&str> {
    facts.iter().map(|(name, _)| name.as_str()).collect()
}

/// Starts a run that ends only if it is killed, and waits until it has begun.
fn running(project: &Project, name: &str) -> Child {
    let sleeps = json!({ "sleep_ms": 600_000 });
    project.workflow(&[task(0, "t", &module("swiss.wasm"), sleeps)]);
    let work_dir = format!("runs/{name}");
    let arguments = ["--input", "in", "--output", "out", "--work-dir", &work_dir];
    let child = project
        .command(&[&["run", "workflow.json"], &arguments[..]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let log = project.path(&format!("{work_dir}/events.jsonl"));
    let started = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|log| log.contains("call_started")) {
        assert!(
            started.elapsed() < Duration::from_secs(100),
            "does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn runs_are_listed_with_their_states_the_newest_first() {
    let project = three_runs();
    let mut child = running(&project, "running");
    let ended = runs(&project, &[]).expect(0).reports(&[
        "4 runs in ",
        "finished ",
        "failed: TaskExecutionError ",
        "stopped: killed ",
        "running ",
        "2 done, 1 failed",
        "plate/killed\n",
    ]);
    let listed = facts(&project, &[], 0);
    child.kill().expect("killed");
    child.wait().expect("ended");
    let order = ["running", "plate/killed", "failed", "finished"];
    assert_eq!(names(&listed), order);
    let lines: Vec<_> = ended.stderr.lines().skip(2).collect();
    for (line, name) in lines.iter().zip(order) {
        assert!(line.ends_with(name), "{line}");
    }
    assert!(ended.stdout.is_empty());
    let of = |name: &str| &listed.iter().find(|run| run.0 == name).expect("listed").1;
    let states = [
        ("running", "running", json!(null)),
        ("plate/killed", "stopped", json!("killed")),
        ("failed", "failed", json!("TaskExecutionError")),
        ("finished", "finished", json!(null)),
    ];
    for (name, state, error) in states {
        let run = of(name);
        assert_eq!((&run["state"], &run["error"]), (&json!(state), &error));
        assert_eq!(run["workflow"], "test");
        assert!(run["disk_bytes"].as_u64().is_some_and(|bytes| bytes > 4096));
        let started = run["started"].as_str().expect("a time");
        assert!(started.ends_with('Z'), "{started}");
        assert!(run["duration_s"].as_f64().is_some_and(|time| time >= 0.0));
    }
    let counts = |name: &str| ["n_calls", "n_done", "n_failed"].map(|key| of(name)[key].clone());
    assert_eq!(counts("failed"), [3, 2, 1].map(Value::from));
    assert_eq!(counts("finished"), [1, 1, 0].map(Value::from));
    assert_eq!(counts("running"), [1, 0, 0].map(Value::from));
    assert_eq!(of("running")["kept_because"], "a run is in progress");
    assert_eq!(of("failed")["kept_because"], Value::Null);
    // A work directory alone, and the folder in which runs are by default.
    project
        .mandelbox(&["runs", "runs/failed"])
        .expect(0)
        .reports(&["1 run in ", "failed: TaskExecutionError"]);
    fs::rename(project.path("runs"), project.path("mandelbox-runs")).expect("moved");
    project
        .mandelbox(&["runs"])
        .expect(0)
        .reports(&["4 runs in "]);
    assert!(names(&facts_of_default(&project)).contains(&"failed"));
}

fn facts_of_default(project: &Project) -> Vec<(String, Value)> {
    let ended = project.mandelbox(&["runs", "--format", "json"]).expect(0);
    let facts: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
    let name = |run: &Value| {
        let path = Path::new(run["work_dir"].as_str().expect("a path"));
        path.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    facts.into_iter().map(|run| (name(&run), run)).collect()
}

#[test]
fn options_select_runs() {
    let project = three_runs();
    let selected = |more: &[&str]| facts(&project, more, 0);
    assert_eq!(names(&selected(&["--state", "failed"])), ["failed"]);
    assert_eq!(
        names(&selected(&["--state", "finished", "--state", "stopped"])),
        ["plate/killed", "finished"]
    );
    assert_eq!(names(&selected(&["--older-than", "1us"])).len(), 3);
    assert_eq!(names(&selected(&["--older-than", "1d"])), [""; 0]);
    runs(&project, &["--older-than", "1d"])
        .expect(0)
        .reports(&["no runs in "]);
    runs(&project, &["--older-than", "5M"])
        .expect(2)
        .reports(&["write \"5min\""]);
    runs(&project, &["--yes"]).expect(2).reports(&["--clean"]);
    // A run that a signal has stopped.
    let log = project.read("runs/failed/events.jsonl");
    let stopped = log.replace(
        "\"error\":\"TaskExecutionError\"",
        "\"error\":\"cancelled\"",
    );
    project.write("runs/failed/events.jsonl", resealed(&stopped));
    assert_eq!(names(&selected(&["--state", "failed"])), [""; 0]);
    let stopped = selected(&["--state", "stopped"]);
    assert_eq!(names(&stopped), ["plate/killed", "failed"]);
    assert_eq!(stopped[1].1["error"], "cancelled");
}

#[test]
fn what_cannot_be_read_is_listed_with_a_reason_and_kept() {
    let project = three_runs();
    let log = project.read("runs/finished/events.jsonl");
    project.write("runs/headless/events.jsonl", &log[10..]);
    project.write("runs/empty/events.jsonl", "");
    project.write("runs/foreign/events.jsonl", "{\"event\":\"mine\"}\n");
    let older = log.replacen("\"format_version\":3", "\"format_version\":2", 1);
    project.write("runs/older/events.jsonl", resealed(&older));
    fs::create_dir_all(project.path("runs/folder/events.jsonl")).expect("made");
    fs::create_dir(project.path("runs/link")).expect("made");
    symlink(
        project.path("runs/finished/events.jsonl"),
        project.path("runs/link/events.jsonl"),
    )
    .expect("made");
    // Neither a link to a run nor a folder without one is listed.
    symlink(project.path("runs/finished"), project.path("runs/alias")).expect("made");
    project.write("runs/notes/todo.txt", "x");
    fs::create_dir(project.path("runs/closed")).expect("made");
    let closed = fs::Permissions::from_mode(0o000);
    fs::set_permissions(project.path("runs/closed"), closed).expect("changed");
    // Root can read any folder.
    let is_closed = fs::read_dir(project.path("runs/closed")).is_err();
    let before = project.tree();
    let listed = facts(&project, &[], 0);
    let mut unreadable: Vec<_> = listed
        .iter()
        .filter(|(_, run)| run["state"] == "unreadable")
        .map(|(name, run)| (name.as_str(), run["damage"].as_str().expect("a reason")))
        .collect();
    unreadable.sort_unstable();
    unreadable.retain(|(name, _)| is_closed || *name != "closed");
    let expected = [
        ("closed", "ermission denied"),
        ("empty", "contains no event"),
        ("folder", "it is a folder"),
        ("foreign", "its first line is damaged"),
        ("headless", "its first line is damaged"),
        ("link", "it is a symbolic link"),
        ("older", "format version 2"),
    ];
    let expected = &expected[usize::from(!is_closed)..];
    assert_eq!(unreadable.len(), expected.len(), "{unreadable:?}");
    for ((name, reason), (expected_name, part)) in unreadable.iter().zip(expected) {
        assert_eq!(name, expected_name);
        assert!(reason.contains(part), "{name}: {reason}");
    }
    assert!(!names(&listed).contains(&"alias") && !names(&listed).contains(&"notes"));
    // A damaged line in the middle is noted, and the run is one of its state.
    let damaged = log.replacen("task_started", "task_begun!!", 1);
    project.write("runs/finished/events.jsonl", damaged);
    let of_finished = facts(&project, &["--state", "finished"], 0);
    assert_eq!(names(&of_finished), ["finished"]);
    assert!(
        of_finished[0].1["damage"]
            .to_string()
            .contains("is damaged")
    );
    project.write("runs/finished/events.jsonl", log);
    let ended = runs(&project, &["--clean", "--yes"]).expect(0);
    assert!(ended.stderr.contains("removed 3 runs"), "{}", ended.stderr);
    let kept: Vec<_> = before
        .into_iter()
        .filter(|path| {
            !["runs/finished", "runs/failed", "runs/plate/killed"]
                .iter()
                .any(|removed| path.starts_with(removed))
        })
        .collect();
    assert_eq!(project.tree(), kept);
    let open = fs::Permissions::from_mode(0o700);
    fs::set_permissions(project.path("runs/closed"), open).expect("changed");
}

#[test]
fn without_a_folder_nothing_is_listed() {
    let project = Project::new();
    project
        .mandelbox(&["runs"])
        .expect(2)
        .reports(&["mandelbox-runs: there is no such folder"]);
    project.write("file", "x");
    project
        .mandelbox(&["runs", "file"])
        .expect(2)
        .reports(&["file: is not a folder"]);
    project
        .mandelbox(&["runs", "in"])
        .expect(0)
        .reports(&["no runs in "]);
    project
        .mandelbox(&["runs", "in", "--clean"])
        .expect(0)
        .reports(&["nothing was removed"]);
}

#[test]
fn nothing_is_removed_without_a_confirmation() {
    let project = three_runs();
    let before = project.tree();
    let ended = runs(&project, &["--clean", "--state", "failed"])
        .expect(2)
        .reports(&[
            "to remove: 1 run in ",
            "failed: TaskExecutionError",
            "add --yes",
            "Nothing was removed",
        ]);
    assert!(!ended.stderr.contains("killed"), "{}", ended.stderr);
    let listed = facts(&project, &["--clean"], 2);
    assert_eq!(names(&listed).len(), 3);
    assert!(listed.iter().all(|(_, run)| run["removed"] == false));
    assert_eq!(project.tree(), before);
}

#[test]
fn chosen_runs_are_removed_and_nothing_else() {
    let project = three_runs();
    let mut child = running(&project, "running");
    let with_notes = project.write("runs/failed/notes.txt", "mine");
    let outside = project.write("elsewhere/kept", "x");
    runs(&project, &["--clean", "--yes", "--older-than", "1d"])
        .expect(0)
        .reports(&["nothing was removed"]);
    let ended = runs(&project, &["--clean", "--yes"]).expect(0).reports(&[
        "to remove: 2 runs in ",
        "kept: running: a run is in progress",
        "kept: failed: contains `notes.txt`, which is not a record of its run; move it elsewhere",
        "removed 2 runs, freed ",
    ]);
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
    let left = facts(&project, &[], 0);
    assert_eq!(names(&left), ["running", "failed"]);
    assert!(project.path("runs/plate").is_dir(), "its parent stays");
    // A link to another folder is no record either.
    fs::remove_file(with_notes).expect("removed");
    symlink(
        project.path("elsewhere"),
        project.path("runs/failed/7_link"),
    )
    .expect("made");
    runs(&project, &["--clean", "--yes"])
        .expect(0)
        .reports(&["kept: failed: contains `7_link`"]);
    fs::remove_file(project.path("runs/failed/7_link")).expect("removed");
    // In a task's folder, links are removed and not followed.
    let link = project.path("runs/failed/0_list/link");
    symlink(project.path("elsewhere"), link).expect("made");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let removed = facts(&project, &["--clean", "--yes"], 0);
    assert_eq!(names(&removed), ["running", "failed"]);
    assert!(removed.iter().all(|(_, run)| run["removed"] == true));
    let tree = project.tree();
    let tree: Vec<_> = tree.iter().filter(|it| it.starts_with("runs")).collect();
    assert_eq!(tree, ["runs/", "runs/plate/"]);
    assert!(outside.is_file());
    assert_eq!(project.read("out/data.zarr/image"), "pixels");
}

#[test]
fn data_in_a_work_directory_are_kept() {
    let project = Project::new();
    project.workflow(&[task(0, "list", &module("swiss.wasm"), json!({}))]);
    let run = |work_dir: &str, output: &str| {
        let arguments = ["--input", "in", "--output", output, "--work-dir", work_dir];
        project
            .mandelbox(&[&["run", "workflow.json"], &arguments[..]].concat())
            .expect(0);
    };
    // The name of the output is like that of a task's folder.
    run("runs/own", "runs/own/9_output");
    run("runs/other", "out");
    run("runs/third", "runs/other/9_output");
    fs::rename(project.path("runs/own"), project.path("runs/moved")).expect("moved");
    runs(&project, &["--clean", "--yes"]).expect(0).reports(&[
        "kept: moved: contains the input or output folder ",
        "kept: other: contains the input or output folder ",
        "removed 1 run,",
    ]);
    for kept in ["moved/9_output", "moved/events.jsonl", "other/9_output"] {
        assert!(project.path("runs").join(kept).exists(), "{kept}");
    }
    assert!(!project.path("runs/third").exists());
    // A run in the folder of another one.
    run("runs/nested", "out");
    run("runs/nested/1_inner", "out");
    runs(&project, &["--clean", "--yes"])
        .expect(0)
        .reports(&["kept: nested: another run is in its folder `1_inner`"]);
    assert!(project.path("runs/nested/1_inner/events.jsonl").exists());
}

#[test]
fn an_interrupted_removal_is_completed() {
    let project = three_runs();
    // What is left when the program is killed after any of its steps.
    let rest = "runs/.mandelbox-removed-0123456789abcdef";
    fs::rename(project.path("runs/failed"), project.path(rest)).expect("moved");
    fs::remove_file(project.path(rest).join("events.jsonl")).expect("removed");
    let pile = project.path(rest).join(".removed-0123456789abcdef/1");
    fs::create_dir_all(pile.join("deep")).expect("made");
    runs(&project, &[])
        .expect(0)
        .reports(&["3 runs in ", "removed in part"]);
    let before = project.tree();
    runs(&project, &["--clean", "--state", "failed"]).expect(2);
    assert_eq!(project.tree(), before);
    // A file, a link and another name are not taken for one.
    let other = "runs/.mandelbox-removed-0123456789abcdeg";
    fs::create_dir(project.path(other)).expect("made");
    let link = "runs/.mandelbox-removed-0000000000000000";
    symlink(project.path("out"), project.path(link)).expect("made");
    runs(&project, &["--clean", "--yes", "--state", "failed"])
        .expect(0)
        .reports(&["removed 1 run,"]);
    assert!(!project.path(rest).exists());
    assert!(project.path(other).exists() && project.path(link).exists());
    assert_eq!(project.read("out/data.zarr/image"), "pixels");
    assert_eq!(
        names(&facts(&project, &[], 0)),
        ["plate/killed", "finished"]
    );
    // A work directory that is named itself.
    project
        .mandelbox(&["runs", "runs/finished", "--clean", "--yes"])
        .expect(0)
        .reports(&["removed 1 run,"]);
    assert_eq!(names(&facts(&project, &[], 0)), ["plate/killed"]);
}
