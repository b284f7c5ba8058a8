//! The program is stopped (Ctrl-Z, SIGSTOP) and goes on; and readers of its output that stop.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mandelbox::event::{EventKind, read_events};
use mandelbox::model::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::project::{ISOLATIONS, Project, module, parallel_task, task};
use crate::signals::{END_TIME, Running, n_events, run_command};

/// Lets a call run, stops some processes meanwhile, and returns the exit code, stderr, and the time
/// after it went on.
fn stop_meanwhile(
    project: &Project,
    step: &Value,
    more: &[&str],
    stop: impl Fn(&Running, Signal),
) -> (i32, String, Duration) {
    project.workflow(&[task(0, "t", &module("probe.wasm"), step.clone())]);
    project
        .mandelbox(&["check", &module("probe.wasm")])
        .expect(0);
    let mut running = Running::start(run_command(project, more));
    running.wait_until("the call", || n_events(project, "\"call_started\"") == 1);
    std::thread::sleep(Duration::from_millis(500));
    stop(&running, Signal::STOP);
    std::thread::sleep(Duration::from_secs(4));
    stop(&running, Signal::CONT);
    running.end()
}

/// Sends a signal to the worker processes alone.
fn to_children(running: &Running, signal: Signal) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", running.0.id())).expect("a process");
    let children = tasks.flatten().flat_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let ids: Vec<_> = children
        .filter_map(|id| Pid::from_raw(id.parse().ok()?))
        .collect();
    assert!(!ids.is_empty(), "no worker process");
    for id in ids {
        kill_process(id, signal).expect("there");
    }
}

#[test]
fn stopped_time_does_not_count() {
    for isolation in ISOLATIONS {
        let more = ["--timeout", "3s", "--isolation", isolation, "--quiet"];
        let project = Project::new();
        let sleeps = json!({ "do": "sleep_ms", "ms": 1500 });
        let (code, stderr, _) = stop_meanwhile(&project, &sleeps, &more, Running::send);
        assert_eq!(code, 0, "{isolation}: {stderr}");

        // One that computes has its whole time, and its figure is without the stop.
        let project = Project::new();
        let (code, stderr, after) =
            stop_meanwhile(&project, &json!({ "do": "spin" }), &more, Running::send);
        assert_eq!(code, 4, "{isolation}: {stderr}");
        assert!(
            stderr.contains("time limit of 3 s"),
            "{isolation}: {stderr}"
        );
        assert!(
            after > Duration::from_millis(1500),
            "{isolation}: {after:?}"
        );
        let stored = read_events(&project.path("work/events.jsonl"), 1 << 20).expect("a log");
        let wall_time = stored.events.iter().find_map(|event| match &event.kind {
            EventKind::CallFinished {
                outcome: Outcome::TimedOut { .. },
                usage,
                ..
            } => Some(usage.wall_time),
            _ => None,
        });
        let wall_time = wall_time.expect("a call that timed out");
        assert!(
            (2.9..4.5).contains(&wall_time.as_secs_f64()),
            "{isolation}: {wall_time:?}"
        );
    }
}

#[test]
fn time_for_which_only_the_worker_processes_are_stopped_does_not_count() {
    let more = ["--timeout", "3s", "--isolation", "process", "--quiet"];
    for step in [
        json!({ "do": "sleep_ms", "ms": 1500 }),
        json!({ "do": "spin" }),
    ] {
        let project = Project::new();
        let (code, stderr, after) = stop_meanwhile(&project, &step, &more, to_children);
        if step["do"] == "spin" {
            assert_eq!(code, 4, "{stderr}");
            assert!(after > Duration::from_millis(1500), "{after:?}");
        } else {
            assert_eq!(code, 0, "{stderr}");
        }
    }
}

/// A task of calls that do nothing. The list of its components is not in the args of each of them.
fn many_calls(project: &Project, components: &[String]) -> Value {
    project.write("metadata.json", json!({ "c": components }).to_string());
    let mut many = parallel_task(
        0,
        "many",
        &module("typed.wasm"),
        "c",
        json!({ "steps": [] }),
    );
    many["meta"] = json!({ "mandelbox": { "metadata_in_args": false } });
    many
}

/// A workflow that prints more with --verbose than a pipe holds.
fn says_much(project: &Project, last: &Value) {
    let n_calls = 3000;
    let components: Vec<_> = (0..n_calls).map(|n| format!("component-{n}")).collect();
    project.workflow(&[
        many_calls(project, &components),
        task(1, "last", &module("probe.wasm"), last.clone()),
    ]);
}

const VERBOSE: [&str; 6] = [
    "--verbose",
    "--task-files",
    "none",
    "--metadata",
    "metadata.json",
    "--keep-going",
];

#[test]
fn a_reader_of_stderr_that_stops_holds_nothing_up() {
    let project = Project::new();
    says_much(&project, &json!({ "do": "clock" }));
    let mut running = Running::start(run_command(&project, &VERBOSE));
    running.wait_until("the end", || n_events(&project, "\"run_finished\"") == 1);
    let started = Instant::now();
    while running.0.try_wait().expect("waited for").is_none() {
        assert!(started.elapsed() < END_TIME, "does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running.0.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_signal_ends_a_run_whose_readers_have_stopped() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        says_much(&project, &json!({ "do": "spin" }));
        let mut running = Running::start(run_command(
            &project,
            &[&VERBOSE[..], &["--isolation", isolation]].concat(),
        ));
        running.wait_until("the last task", || {
            n_events(&project, "\"name\":\"last\"") == 1
        });
        running.send(Signal::TERM);
        let started = Instant::now();
        while running.0.try_wait().expect("waited for").is_none() {
            assert!(started.elapsed() < END_TIME, "{isolation}: does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            running.0.wait().expect("ended").code(),
            Some(143),
            "{isolation}"
        );
        assert_eq!(n_events(&project, "\"run_finished\""), 1, "{isolation}");
    }
}

#[test]
fn a_reader_that_continues_sees_what_is_missing() {
    let project = Project::new();
    let long = "x".repeat(400);
    let components: Vec<_> = (0..3000).map(|n| format!("{long}-{n}")).collect();
    let last = task(
        1,
        "last",
        &module("probe.wasm"),
        json!({ "do": "sleep_ms", "ms": 4000 }),
    );
    project.workflow(&[many_calls(&project, &components), last]);
    let mut running = Running::start(run_command(&project, &VERBOSE));
    running.wait_until("the last task", || {
        n_events(&project, "\"name\":\"last\"") == 1
    });
    // The reporter is behind the events by the time for which it waits for a reader.
    std::thread::sleep(Duration::from_secs(2));
    let (code, stderr, _) = running.end_while_reading();
    assert_eq!(code, 0, "{stderr}");
    // What waits is bounded, and every line is shown or counted.
    let shown = stderr
        .lines()
        .filter(|line| line.contains("succeeded"))
        .count();
    let note = |line: &str| {
        line.strip_prefix("[mandelbox: ")?
            .split_once(' ')?
            .0
            .parse::<usize>()
            .ok()
    };
    let missing: usize = stderr
        .lines()
        .filter(|line| line.contains("missing here"))
        .filter_map(note)
        .sum();
    assert!(
        (100..3000).contains(&shown) && shown + missing >= components.len(),
        "{shown} shown, {missing} missing"
    );
    assert!(stderr.contains("[2/2] last: finished in"), "{stderr}");
}

#[test]
fn events_wait_for_their_reader_until_the_run_is_to_end() {
    let project = Project::new();
    says_much(&project, &json!({ "do": "clock" }));
    let more = [&VERBOSE[1..], &["--quiet", "--events", "-"]].concat();
    // A slow reader gets every event.
    let mut running = Running::start(run_command(&project, &more));
    running.wait_until("the first calls", || {
        n_events(&project, "\"call_started\"") > 0
    });
    std::thread::sleep(Duration::from_millis(500));
    let mut events = String::new();
    running
        .0
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_to_string(&mut events)
        .expect("read");
    assert_eq!(running.end().0, 0);
    assert_eq!(
        events.lines().count(),
        project.read("work/events.jsonl").lines().count()
    );

    // One that has stopped holds the run up, but not its end.
    let project = Project::new();
    let components: Vec<_> = (0..20_000).map(|n| format!("component-{n}")).collect();
    project.workflow(&[many_calls(&project, &components)]);
    let mut running = Running::start(run_command(&project, &more));
    running.wait_until("the first calls", || {
        n_events(&project, "\"call_started\"") > 1000
    });
    std::thread::sleep(Duration::from_secs(1));
    running.send(Signal::TERM);
    let (code, stderr, elapsed) = running.end();
    assert_eq!(code, 143, "{stderr}");
    assert!(elapsed < END_TIME, "{elapsed:?}");
    assert_eq!(n_events(&project, "\"run_finished\""), 1, "{stderr}");
}

#[test]
fn a_command_whose_reader_has_stopped_keeps_its_time_limit() {
    for name in ["probe.wasm", "probe.p2.wasm"] {
        for isolation in ISOLATIONS {
            let project = Project::new();
            let flood = json!({ "do": "flood", "stream": "stdout", "mib": 4 });
            project.write("files/args.json", json!({ "steps": [flood] }).to_string());
            project.mandelbox(&["check", &module(name)]).expect(0);
            let start = [
                "exec",
                &module(name),
                "--mount",
                "files::/files:rw",
                "--isolation",
                isolation,
            ];
            let task = [
                "--",
                "-j",
                "/files/args.json",
                "--metadata-out",
                "/files/metadiff.json",
            ];
            // Its time is over.
            let limited = project.command(&[&start[..], &["--timeout", "1s"], &task].concat());
            let (code, stderr, elapsed) = Running::start(limited).end();
            assert_eq!(code, 134, "{name} {isolation}: {stderr}");
            assert!(
                stderr.contains("time limit of 1 s"),
                "{name} {isolation}: {stderr}"
            );
            assert!(
                elapsed < Duration::from_secs(10),
                "{name} {isolation}: {elapsed:?}"
            );
            // A reader that goes on gets all, and the guest its exit code.
            let mut running = Running::start(project.command(&[&start[..], &task].concat()));
            std::thread::sleep(Duration::from_millis(500));
            let mut bytes = Vec::new();
            running
                .0
                .stdout
                .as_mut()
                .expect("a pipe")
                .read_to_end(&mut bytes)
                .expect("read");
            assert_eq!(
                (bytes.len(), running.end().0),
                (4 << 20, 0),
                "{name} {isolation}"
            );
        }
    }
}

#[test]
fn output_of_a_command_keeps_its_order() {
    let project = Project::new();
    let body = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\02\00\00\00\20\00\00\00\02\00\00\00")
        (data (i32.const 16) "o\n") (data (i32.const 32) "e\n")
        (func (export "_start") (local $n i32)
            (loop $again
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
                (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 64)))
                (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 500)))))"#;
    project.write(
        "guest.wasm",
        wat::parse_str(format!("(module {body})")).expect("valid WAT"),
    );
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = project.command(&["exec", "guest.wasm", "--"]);
    command
        .stdout(writer.try_clone().expect("a pipe"))
        .stderr(writer)
        .stdin(Stdio::null());
    let mut child = command.spawn().expect("started");
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    assert!(child.wait().expect("ended").success(), "{text}");
    assert_eq!(text, "o\ne\n".repeat(500));
}
