//! One run at a time in a work directory.

use std::process::Stdio;
use std::time::{Duration, Instant};

use mandelbox::workdir::{WorkDir, WorkDirError};
use serde_json::json;

use crate::project::{Ended, Project, finish, module, task};

const RUN: [&str; 8] = [
    "run",
    "workflow.json",
    "--input",
    "in",
    "--output",
    "out",
    "--work-dir",
    "work",
];
const LOCK: &str = "work/.mandelbox-lock";

fn project(args: &serde_json::Value) -> Project {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), args.clone())]);
    project
}

#[test]
fn a_second_run_is_refused_and_the_owner_of_the_work_directory_is_named() {
    for isolation in ["thread", "process"] {
        let project = project(&json!({ "sleep_ms": 60_000 }));
        let mut command = project.command(&[&RUN[..], &["--isolation", isolation]].concat());
        let mut first = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let started = Instant::now();
        let has_started = || {
            std::fs::read_to_string(project.path("work/events.jsonl"))
                .is_ok_and(|log| log.contains("call_started"))
        };
        while !has_started() {
            assert!(
                started.elapsed() < Duration::from_secs(100),
                "does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let events = project.read("work/events.jsonl");
        let holder = format!("is in use by a run (process {} on ", first.id());
        let process = format!("running (process {} on ", first.id());
        project
            .mandelbox(&["status", "work"])
            .expect(0)
            .reports(&[&process]);
        project
            .run(&[])
            .expect(2)
            .reports(&[&holder, " since 20", "wait for its end"]);
        assert_eq!(project.read("work/events.jsonl"), events);
        // Killed with no time to say anything: the lock is gone with it, its records are not.
        first.kill().expect("killed");
        first.wait().expect("ended");
        let refused = project
            .run(&[])
            .expect(2)
            .reports(&["holds the records of a run"]);
        assert!(!refused.stderr.contains("in use"), "{}", refused.stderr);
    }
}

#[test]
fn of_runs_that_start_together_one_runs() {
    for _ in 0..20 {
        let project = project(&json!({ "metadiff": { "a": 1 } }));
        let run = || finish(project.command(&RUN));
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let threads = [scope.spawn(run), scope.spawn(run)];
            threads
                .into_iter()
                .map(|thread| thread.join().expect("ended"))
                .collect()
        });
        let mut codes: Vec<_> = ended.iter().map(|ended| ended.code).collect();
        codes.sort_unstable();
        let reported = ended
            .iter()
            .map(|ended| ended.stderr.as_str())
            .collect::<String>();
        assert_eq!(codes, [0, 2], "{reported}");
        assert!(reported.contains("Workflow dir"), "{reported}");
        assert_eq!(
            project.json("work/result.json")["metadata"],
            json!({ "a": 1 })
        );
        assert!(!project.path(LOCK).exists());
    }
}

#[test]
fn a_work_directory_in_which_no_run_has_begun_is_locked_too() {
    let project = Project::new();
    let path = project.path("work");
    let first = WorkDir::create(&path).expect("made");
    let this = std::process::id();
    for open in [WorkDir::create, WorkDir::reopen] {
        let err = open(&path).expect_err("in use");
        assert!(
            matches!(&err, WorkDirError::InUse { holder: Some(holder), .. } if holder.pid == this),
            "{err}"
        );
    }
    drop(first);
    WorkDir::create(&path).expect("free again");
}
