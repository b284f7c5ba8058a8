//! The records of a run: events, result, metadata, and files of calls.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::swiss;
use crate::project::{Project, parallel_task, task};

#[test]
fn events_are_numbered_and_complete() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["A", "B", "C"] }).to_string());
    let fails = json!({ "per_component": { "B": { "exit": 3, "sleep_ms": 100 } } });
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", fails)]);
    let ended = project
        .run(&[
            "--metadata",
            "metadata.json",
            "--keep-going",
            "--events",
            "-",
            "--quiet",
        ])
        .expect(3);
    let events = project.events();
    assert_eq!(events[0]["format_version"], 3);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index);
    }
    let printed: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(printed, events, "--events - prints what the log holds");
    let ends: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "call_finished")
        .collect();
    let outcome = |component: &str| {
        let end = ends
            .iter()
            .find(|event| event["item"] == component)
            .expect("ended");
        (
            end["outcome"].as_str().expect("an outcome").to_owned(),
            end["code"].clone(),
        )
    };
    assert_eq!(outcome("A"), ("succeeded".to_owned(), Value::Null));
    assert_eq!(outcome("B"), ("exited".to_owned(), json!(3)));
    let last = events.last().expect("an event");
    assert_eq!(
        (&last["event"], &last["status"], &last["error"]),
        (
            &json!("run_finished"),
            &json!("failed"),
            &json!("TaskExecutionError")
        )
    );
}

#[test]
fn a_thousand_readers_never_see_half_a_record() {
    let project = Project::new();
    let blob = "x".repeat(5_000);
    let args = |order| json!({ "metadiff": { format!("k{order}"): blob }, "sleep_ms": 50 });
    let tasks: Vec<_> = (0..8)
        .map(|order| task(order, "t", &swiss(), args(order)))
        .collect();
    project.workflow(&tasks);
    let done = AtomicBool::new(false);
    let path = project.path("work/metadata.json");
    let read_until_done = || {
        let mut n_read = 0;
        while !done.load(Ordering::Relaxed) {
            if let Ok(text) = std::fs::read(&path) {
                serde_json::from_slice::<Value>(&text).expect("a whole file");
                n_read += 1;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        n_read
    };
    let n_read: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..1000).map(|_| scope.spawn(read_until_done)).collect();
        project.run(&[]).expect(0);
        done.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no half file"))
            .sum()
    });
    assert!(n_read > 1000, "{n_read} reads");
}

#[test]
fn task_files_are_kept_as_the_option_asks() {
    let check = |which: &str, expected: &[&str]| {
        let project = Project::new();
        project.write("metadata.json", json!({ "c": ["A", "B"] }).to_string());
        let args = json!({ "metadiff": { "v": 1 }, "stdout": "o", "per_component": { "B": { "stderr": "e", "exit": 1 } } });
        project.workflow(&[parallel_task(0, "par", &swiss(), "c", args)]);
        project
            .run(&[
                "--metadata",
                "metadata.json",
                "--keep-going",
                "--task-files",
                which,
            ])
            .expect(3);
        let files: BTreeSet<_> = project
            .tree()
            .into_iter()
            .filter_map(|path| path.strip_prefix("work/0_par/0_par_").map(str::to_owned))
            .collect();
        assert_eq!(
            files,
            expected.iter().map(|name| (*name).to_owned()).collect(),
            "{which}"
        );
        if which == "failed" {
            assert_eq!(
                (
                    project.read("work/0_par/0_par_b.out"),
                    project.read("work/0_par/0_par_b.err")
                ),
                ("o".into(), "e".into())
            );
            assert_eq!(
                project.json("work/0_par/0_par_b.args.json")["component"],
                "B"
            );
        }
    };
    let b = ["b.args.json", "b.err", "b.metadiff.json", "b.out"];
    let all = [
        &["a.args.json", "a.err", "a.metadiff.json", "a.out"][..],
        &b,
    ]
    .concat();
    check("all", &all);
    check("failed", &b);
    check("none", &[]);
}

#[test]
fn the_result_is_written_to_the_given_file() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    let ended = project.run(&["--result", "-", "--quiet"]).expect(0);
    assert_eq!(ended.stderr, "");
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(printed, project.json("work/result.json"));
    assert_eq!(printed["metadata"], json!({ "a": 1 }));

    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "exit": 1 }))]);
    project.run(&["--result", "result.json"]).expect(3);
    let result = project.json("result.json");
    assert_eq!(result["history"][0]["status"], "failed");
    assert_eq!(
        result["history"][0]["parallelization"],
        json!({ "parallelization_level": null })
    );
}

#[test]
fn the_result_can_go_to_a_special_file_or_link() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    project.run(&["--result", "/dev/null", "--quiet"]).expect(0);
    assert!(!std::fs::metadata("/dev/null").expect("there").is_file());

    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    project.write("target.json", "old");
    std::os::unix::fs::symlink("target.json", project.path("link.json")).expect("made");
    project.run(&["--result", "link.json"]).expect(0);
    assert!(project.path("link.json").is_symlink());
    assert_eq!(project.json("target.json")["metadata"], json!({ "a": 1 }));
}

#[test]
fn output_that_cannot_be_written_is_reported() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("there")
    };
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--quiet",
        "--work-dir",
    ];
    let run = |more: &[&str]| {
        let mut command = project.command(&[&arguments[..], more].concat());
        command.stdout(full()).stderr(std::process::Stdio::piped());
        let output = command
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("ended");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, stderr) = run(&["w1", "--result", "-"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("failed to write to stdout"), "{stderr}");
    run(&["w2", "--events", "-"]);
    assert!(
        project
            .read("w2/workflow.log")
            .contains("a report of this run is incomplete")
    );
}
