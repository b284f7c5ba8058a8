//! Snapshots of the tasks of a run.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{ISOLATIONS, Project, finish, parallel_task, task};
use crate::snapshot::{START, counter, module, with_guest};
use crate::snapshot_changes::compiled_files;

/// A workflow with one task whose package requests a snapshot.
pub fn snapshot_task(level: Option<&str>) -> Value {
    let mut task = match level {
        Some(level) => parallel_task(0, "t", "guest.wasm", level, json!({})),
        None => task(0, "t", "guest.wasm", json!({})),
    };
    task["task"]["meta"]["mandelbox"] = json!({ "snapshot": true });
    task
}

fn events(project: &Project, work: &str, name: &str) -> Vec<Value> {
    let log = project.read(&format!("{work}/events.jsonl"));
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["event"] == name).collect()
}

#[test]
fn a_run_makes_the_snapshot_once_and_reports_it() {
    let project = with_guest(counter(START));
    project.workflow(&[snapshot_task(Some("image"))]);
    project.write(
        "metadata.json",
        json!({ "image": ["a", "b", "c", "d"] }).to_string(),
    );
    for (index, isolation) in ISOLATIONS.iter().enumerate() {
        let work = format!("work{index}");
        let run = |work: &str, more: &[&str]| {
            let mut command = project.command(
                &[
                    &[
                        "run",
                        "workflow.json",
                        "--input",
                        "in",
                        "--output",
                        "out",
                        "--metadata",
                        "metadata.json",
                        "--isolation",
                        isolation,
                        "--work-dir",
                        work,
                    ][..],
                    more,
                ]
                .concat(),
            );
            command.env("XDG_CACHE_HOME", project.path(&format!("cache{index}")));
            finish(command).expect(0)
        };
        run(&work, &["--jobs", "2"]).reports(&[
            "starting guest.wasm once; the calls start from its memory ...",
            "snapshot made in ",
            ": 128 KiB of memory",
        ]);
        for item in ["a", "b", "c", "d"] {
            assert_eq!(
                project.read(&format!("{work}/0_t/0_par_{item}.out")),
                "5634567"
            );
        }
        assert_eq!(events(&project, &work, "snapshot_started").len(), 1);
        assert_eq!(
            events(&project, &work, "snapshot_made")[0]["memory_bytes"],
            131_072
        );
        let again = run(&format!("again{index}"), &[]);
        assert!(!again.stderr.contains("starting"), "{}", again.stderr);
        run(&format!("plain{index}"), &["--no-snapshots"]);
        assert_eq!(
            project.read(&format!("plain{index}/0_t/0_par_a.out")),
            "1011111"
        );
        let policy = project.write("policy.toml", "[packages]\nsnapshots = false");
        run(
            &format!("policy{index}"),
            &["--policy", policy.to_str().expect("UTF-8")],
        );
        assert_eq!(
            project.read(&format!("policy{index}/0_t/0_par_a.out")),
            "1011111"
        );
    }
}

#[test]
fn of_runs_at_the_same_time_one_makes_the_snapshot() {
    // A start that takes a while.
    let slow = r#"(memory (export "memory") 1) (global $n (mut i64) (i64.const 0))
        (func (export "wizer.initialize")
            (loop $more
                (global.set $n (i64.add (global.get $n) (i64.const 1)))
                (br_if $more (i64.lt_u (global.get $n) (i64.const 500000000)))))
        (func (export "_start") (call $digit (i32.const 1)))"#;
    let project = with_guest(module(slow));
    project.workflow(&[snapshot_task(None)]);
    let works = ["one", "two", "three"];
    let children = works.map(|work| {
        let mut command = project.command(&[
            "run",
            "workflow.json",
            "--input",
            "in",
            "--output",
            "out",
            "--work-dir",
            work,
        ]);
        command.env("XDG_CACHE_HOME", project.path("cache"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started")
    });
    for child in children {
        let output = child.wait_with_output().expect("waited for");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let made = |work: &&str| events(&project, work, "snapshot_made").len();
    assert_eq!(works.iter().map(made).sum::<usize>(), 1);
    assert_eq!(compiled_files(&project).len(), 2);
}

#[test]
fn an_endless_initialization_ends_at_the_limit_for_compiling() {
    let project = with_guest(module(
        r#"(memory (export "memory") 1) (func (export "_start"))
        (func (export "wizer.initialize") (loop $more (br $more)))"#,
    ));
    project.workflow(&[snapshot_task(None)]);
    project.write("policy.toml", "[host]\ncompile = \"1s\"");
    let cases = [
        &["--isolation", "thread"][..],
        &["--isolation", "process"],
        &["--timeout", "5s"],
    ];
    for options in cases {
        let started = Instant::now();
        let _ = std::fs::remove_dir_all(project.path("work"));
        project
            .run(&[&["--policy", "policy.toml"], options].concat())
            .expect(4)
            .reports(&["was not started: no snapshot of guest.wasm can be made: `wizer.initialize`: it took longer than 1 s"]);
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_package_whose_module_has_no_snapshots_is_a_problem_of_the_documents() {
    let project = with_guest(module(
        r#"(memory (export "memory") 1) (func (export "_start"))"#,
    ));
    project.workflow(&[snapshot_task(None)]);
    project
        .run(&[])
        .expect(2)
        .reports(&["a snapshot of it is not possible", "`wizer.initialize`"]);
    project.run(&["--no-snapshots"]).expect(0);
}

#[test]
fn nothing_of_a_call_is_left_for_the_next_guest() {
    // Fills its memory and its table-free state with bytes that nobody else may see.
    let dirty = r#"(memory (export "memory") 40)
        (func (export "wizer.initialize")
            (memory.fill (i32.const 65536) (i32.const 0xaa) (i32.const 1000000)))
        (func (export "_start")
            (if (i32.ne (i32.load8_u (i32.const 2000000)) (i32.const 0)) (then unreachable))
            (memory.fill (i32.const 65536) (i32.const 0xbb) (i32.const 2500000))
            (drop (memory.grow (i32.const 10))))"#;
    // Has no data, and looks for any byte in its memory.
    let clean = r#"(memory (export "memory") 60) (func (export "_start")
        (local $i i32)
        (loop $more
            (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then unreachable))
            (local.set $i (i32.add (local.get $i) (i32.const 8)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 3932160)))))"#;
    let project = with_guest(module(dirty));
    let bare = format!("(module {clean})");
    project.write("clean.wasm", wat::parse_str(bare).expect("valid WAT"));
    let with_snapshot = |order: u64| {
        let mut task = snapshot_task(Some("image"));
        task["order"] = json!(order);
        task
    };
    let tasks = [
        with_snapshot(0),
        parallel_task(1, "clean", "clean.wasm", "image", json!({})),
        with_snapshot(2),
        parallel_task(3, "clean", "clean.wasm", "image", json!({})),
    ];
    project.workflow(&tasks);
    project.write(
        "metadata.json",
        json!({ "image": ["a", "b", "c"] }).to_string(),
    );
    for isolation in ISOLATIONS {
        let _ = std::fs::remove_dir_all(project.path("work"));
        let options = [
            "--metadata",
            "metadata.json",
            "--jobs",
            "1",
            "--isolation",
            isolation,
        ];
        project.run(&options).expect(0);
    }
}

#[test]
fn a_large_image_is_mapped_and_not_copied() {
    // 200 MiB of data, with a gap that the runtime would not map by itself.
    let body = r#"(memory (export "memory") 8000)
        (func (export "wizer.initialize")
            (memory.fill (i32.const 1048576) (i32.const 1) (i32.const 104857600))
            (memory.fill (i32.const 314572800) (i32.const 2) (i32.const 52428800)))
        (func (export "_start") (i32.store8 (i32.const 2000000) (i32.const 3)))"#;
    let project = with_guest(module(body));
    project.workflow(&[snapshot_task(Some("image"))]);
    let items: Vec<_> = (0..10).map(|index| index.to_string()).collect();
    project.write("metadata.json", json!({ "image": items }).to_string());
    for options in [&["--no-cache"][..], &[]] {
        let _ = std::fs::remove_dir_all(project.path("work"));
        let shared = [
            "--metadata",
            "metadata.json",
            "--jobs",
            "1",
            "--task-files",
            "none",
        ];
        let mut command = project.command(
            &[
                &[
                    "run",
                    "workflow.json",
                    "--input",
                    "in",
                    "--output",
                    "out",
                    "--work-dir",
                    "work",
                ],
                &shared[..],
                options,
            ]
            .concat(),
        );
        command.env("XDG_CACHE_HOME", project.path("cache"));
        finish(command).expect(0);
        let calls = events(&project, "work", "call_finished");
        let times = calls
            .iter()
            .map(|call| call["wall_time_s"].as_f64().expect("a number"));
        let best = times.fold(f64::MAX, f64::min);
        // Copying takes 20 ms and more.
        assert!(best < 0.003, "{best} s, {options:?}");
    }
}
