//! `mandelbox batch` over time: an input that stays open, readers that wait or go away, signals,
//! and results that are resumed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::batch::{batch, command, lines, results, typed};
use crate::project::{ISOLATIONS, Project, finish, module, peak_memory_bytes};
use crate::signals::Running;

/// A batch whose stdin stays open.
struct Open {
    child: Child,
    calls: Option<ChildStdin>,
    results: BufReader<ChildStdout>,
}

impl Open {
    fn start(project: &Project, module: &str, more: &[&str]) -> Self {
        let start = ["batch", module, "--calls", "-", "--results", "-", "--quiet"];
        let mut child = project
            .command(&[&start, more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let (calls, results) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        Self {
            child,
            calls,
            results: BufReader::new(results),
        }
    }

    fn send(&mut self, line: &Value) {
        let calls = self.calls.as_mut().expect("open");
        calls
            .write_all(format!("{line}\n").as_bytes())
            .expect("written");
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.results.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }
}

#[test]
fn an_open_stdin_is_answered_call_by_call() {
    for more in [
        &["--jobs", "4"][..],
        &["--ordered"],
        &["--isolation", "process", "--jobs", "2"],
    ] {
        let project = Project::new();
        let mut open = Open::start(&project, &module("trivial_typed.wasm"), more);
        let mut times = Vec::new();
        for n in 0..200 {
            let started = Instant::now();
            open.send(&json!({ "args": {}, "id": n }));
            let result = open.receive();
            times.push(started.elapsed());
            assert_eq!((&result["index"], &result["id"]), (&json!(n), &json!(n)));
        }
        times.sort();
        // Well below any interval at which it could look for work.
        assert!(times[100] < Duration::from_millis(15), "{:?}", times[100]);
        // A result does not wait for a call that takes long.
        drop(open.calls.take());
        assert!(open.child.wait().expect("waited for").success());
    }
}

#[test]
fn a_result_does_not_wait_for_a_call_that_runs() {
    let project = Project::new();
    let mut open = Open::start(&project, &module("typed.wasm"), &["--jobs", "1"]);
    let started = Instant::now();
    open.send(&typed(json!([{ "do": "none" }])));
    open.send(&typed(json!([{ "do": "sleep_ms", "ms": 5000 }])));
    assert_eq!(open.receive()["index"], json!(0));
    assert!(
        started.elapsed() < Duration::from_millis(4500),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(open.receive()["index"], json!(1));
    drop(open.calls.take());
    assert!(open.child.wait().expect("waited for").success());
}

#[cfg(target_os = "linux")]
#[test]
fn calls_wait_for_the_reader_of_their_results() {
    let project = Project::new();
    let mut open = Open::start(&project, &module("trivial_typed.wasm"), &[]);
    let mut calls = open.calls.take().expect("open");
    let writer = std::thread::spawn(move || {
        let mut n_written = 0;
        for n in 0..100_000 {
            calls.write_all(format!("{{\"args\": {{}}, \"id\": {n}}}\n").as_bytes())?;
            n_written += 1;
        }
        Ok::<u32, std::io::Error>(n_written)
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        !writer.is_finished(),
        "calls are read although no result is"
    );
    assert!(peak_memory_bytes(open.child.id()) < 256 << 20);
    let mut ids = vec![false; 100_000];
    for _ in 0..100_000 {
        let id = open.receive()["id"].as_u64().expect("a number");
        assert!(!std::mem::replace(
            &mut ids[usize::try_from(id).expect("small")],
            true
        ));
    }
    assert_eq!(writer.join().expect("no panic").expect("written"), 100_000);
    assert!(open.child.wait().expect("waited for").success());
}

#[test]
fn a_reader_that_closes_its_pipe_ends_the_program() {
    for is_idle in [false, true] {
        let project = Project::new();
        let mut open = Open::start(&project, &module("typed.wasm"), &[]);
        open.send(&typed(json!([{ "do": "none" }])));
        open.receive();
        if !is_idle {
            open.send(&typed(json!([{ "do": "spin" }])));
        }
        drop(open.results);
        let started = Instant::now();
        // stdin stays open.
        let ended = loop {
            if let Some(status) = open.child.try_wait().expect("waited for") {
                break status;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(ended.code(), Some(141));
    }
}

#[test]
fn resume_makes_the_calls_without_a_result() {
    let project = Project::new();
    let calls: Vec<_> = (0..20)
        .map(|n| json!({ "args": { "steps": [{ "do": "args" }] }, "id": n }))
        .collect();
    let calls = lines(&calls);
    let typed = module("typed.wasm");
    batch(&project, &typed, &calls, &["--ordered"]);
    let whole = project.read("results.jsonl");
    let kept: Vec<_> = whole
        .lines()
        .enumerate()
        .filter(|(n, _)| n % 3 != 1)
        .collect();
    let mut text: String = kept.iter().map(|(_, line)| format!("{line}\n")).collect();
    // What a batch leaves that was killed while it wrote.
    text.push_str("{\"index\":1,\"id\":1,\"item\":null,\"outc");
    project.write("results.jsonl", &text);
    let ended = finish(command(&project, &typed, &calls, &["--resume"])).expect(0);
    ended.reports(&["13 had results before, 7 succeeded, 0 failed"]);
    let resumed = project.read("results.jsonl");
    let first: String = kept.iter().map(|(_, line)| format!("{line}\n")).collect();
    assert!(
        resumed.starts_with(&first),
        "results that are there stay as they are"
    );
    let found = results(&resumed);
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|result| result["id"] == result["index"]));
    finish(command(
        &project,
        &typed,
        &calls,
        &["--resume", "--ordered"],
    ))
    .expect(0)
    .reports(&["20 had results before, 0 succeeded, 0 failed"]);
    assert_eq!(project.read("results.jsonl"), resumed);
    let new = Project::new();
    assert_eq!(batch(&new, &typed, &calls, &["--resume"]).len(), 20);
}

#[test]
fn a_batch_that_is_killed_is_resumed() {
    let project = Project::new();
    let calls: Vec<_> = (0..3000).map(|_| json!({ "args": {} })).collect();
    let calls = lines(&calls);
    let typed = module("trivial_typed.wasm");
    for at_least in [1, 700, 1900] {
        let child = command(&project, &typed, &calls, &["--resume"])
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut running = Running(child);
        let size = || {
            project
                .path("results.jsonl")
                .metadata()
                .map_or(0, |file| file.len())
        };
        while size() < at_least * 100 && running.0.try_wait().expect("waited for").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = running.0.kill();
        running.0.wait().expect("waited for");
    }
    assert_eq!(batch(&project, &typed, &calls, &["--resume"]).len(), 3000);
}

#[test]
fn a_signal_ends_the_calls_that_run_and_the_others_are_resumed() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        let mut calls = vec![typed(json!([{ "do": "none" }])); 5];
        calls.extend(vec![typed(json!([{ "do": "sleep_ms", "ms": 60_000 }])); 5]);
        let calls = lines(&calls);
        let more = ["--isolation", isolation, "--jobs", "2"];
        let name = module("typed.wasm");
        let mut running = Running::start(command(&project, &name, &calls, &more));
        let n_results = || {
            let text = std::fs::read_to_string(project.path("results.jsonl"));
            text.map_or(0, |text| text.lines().count())
        };
        running.wait_until("the first results", || n_results() == 5);
        running.send(Signal::INT);
        let (code, stderr, elapsed) = running.end();
        assert_eq!(code, 130, "{stderr}");
        assert!(
            stderr.contains("stopped by SIGINT; 5 succeeded, 0 failed"),
            "{stderr}"
        );
        assert!(
            stderr.contains("resume: the same command with `--resume`"),
            "{stderr}"
        );
        assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
        assert_eq!(results(&project.read("results.jsonl")).len(), 5);
        let more = [&more[..], &["--resume", "--timeout", "100ms"]].concat();
        let all = batch(&project, &name, &calls, &more);
        assert_eq!(
            all.iter()
                .filter(|result| result["outcome"] == json!("timed_out"))
                .count(),
            5
        );
    }
}

#[test]
fn two_batches_do_not_share_a_file_of_results() {
    let project = Project::new();
    let calls = lines(&[typed(json!([{ "do": "sleep_ms", "ms": 60_000 }]))]);
    let name = module("typed.wasm");
    let mut running = Running::start(command(&project, &name, &calls, &[]));
    running.wait_until("the file", || project.path("results.jsonl").exists());
    std::thread::sleep(Duration::from_millis(50));
    finish(command(&project, &name, &calls, &["--resume"]))
        .expect(2)
        .reports(&["is in use by another batch"]);
    running.send(Signal::TERM);
    assert_eq!(running.end().0, 143);
}
