//! Memory that all calls may have together, and memory that compiling may take.

use std::path::Path;
use std::time::{Duration, Instant};

use mandelbox::event::{EventKind, read_events};
use serde_json::{Value, json};

use crate::project::{ISOLATIONS, Project, module, parallel_task, task};
use crate::signals::{Running, run_command};

/// Eight calls that take so long.
fn eight_calls(project: &Project, mandelbox: Value, ms: u64) {
    project.write(
        "metadata.json",
        json!({ "c": [0, 1, 2, 3, 4, 5, 6, 7] }).to_string(),
    );
    let mut each = parallel_task(
        0,
        "each",
        &module("typed.wasm"),
        "c",
        json!({ "steps": [
        { "do": "sleep_ms", "ms": ms }
    ] }),
    );
    each["meta"] = json!({ "mandelbox": mandelbox });
    project.workflow(&[each]);
}

/// Most calls that ran at a time, and the warnings of the run.
fn most_at_a_time(project: &Project) -> (usize, Vec<String>) {
    let stored = read_events(&project.path("work/events.jsonl"), 1 << 20).expect("a log");
    let (mut n, mut most, mut warnings) = (0_usize, 0, Vec::new());
    for event in stored.events {
        match event.kind {
            EventKind::CallStarted { .. } => n += 1,
            EventKind::CallFinished { .. } => n -= 1,
            EventKind::Warning { message } => warnings.push(message),
            _ => {}
        }
        most = most.max(n);
    }
    (most, warnings)
}

const JOBS: [&str; 4] = ["--jobs", "4", "--metadata", "metadata.json"];

#[test]
fn calls_start_while_their_limits_fit_into_memory_together() {
    let policy = "[host]\nmemory = \"350MiB\"\n[maximum]\nmemory = \"4GiB\"\n";
    for (mandelbox, more, expected, text) in [
        (
            json!({}),
            ["--memory", "100MiB"].as_slice(),
            3,
            "at most 3 calls run at a time, not 4: each may have 100 MiB",
        ),
        (
            json!({ "memory": "150 MiB" }),
            &[],
            2,
            "at most 2 calls run at a time, not 4: each may have 150 MiB",
        ),
        (
            json!({ "memory": "200 MiB" }),
            &[],
            1,
            "at most 1 call runs at a time, not 4: each may have 200 MiB",
        ),
        (
            json!({ "memory": "1 GiB" }),
            &[],
            1,
            "a call may have 1 GiB of memory, more than the 350 MiB for all calls",
        ),
        (json!({}), &["--memory", "80MiB"], 4, ""),
    ] {
        for isolation in ISOLATIONS {
            let project = Project::new();
            eight_calls(&project, mandelbox.clone(), 100);
            project.write("policy.toml", policy);
            let more = [
                &JOBS[..],
                more,
                &["--policy", "policy.toml", "--isolation", isolation],
            ]
            .concat();
            let dry = project.run(&[&more[..], &["--dry-run"]].concat()).expect(0);
            let ended = project.run(&more).expect(0);
            let (most, warnings) = most_at_a_time(&project);
            assert_eq!(most, expected, "{more:?}");
            if text.is_empty() {
                assert_eq!(warnings, Vec::<String>::new());
                continue;
            }
            for printed in [&dry.stderr, &ended.stderr, &warnings.concat()] {
                assert!(printed.contains(text), "{printed}");
                assert!(printed.contains("350 MiB for all calls"), "{printed}");
                assert!(
                    printed.contains("lower the memory limit of a call, or set `memory`"),
                    "{printed}"
                );
            }
        }
    }
}

#[test]
fn calls_count_as_the_cpus_that_their_task_requests() {
    for (meta, most_allowed, text) in [
        (
            json!({ "cpus_per_task": 2 }),
            2,
            "task 0: at most 2 calls run at a time, not 4: each counts as 2 CPUs",
        ),
        (
            json!({ "cpus_per_task": 99 }),
            1,
            "task 0: at most 1 call runs at a time, not 4: each counts as 99 CPUs",
        ),
        (
            json!({ "cpus_per_task": 1, "needs_gpu": true }),
            4,
            "meta/needs_gpu: mandelbox has no GPU for tasks",
        ),
    ] {
        let project = Project::new();
        eight_calls(&project, json!({}), 20);
        let mut workflow = project.json("workflow.json");
        workflow["task_list"][0]["meta"] = meta;
        project.write("workflow.json", workflow.to_string());
        project
            .run(&[&JOBS[..], &["--dry-run"]].concat())
            .expect(0)
            .reports(&[text]);
        project.run(&JOBS).expect(0).reports(&[text]);
        let (most, _) = most_at_a_time(&project);
        assert!((1..=most_allowed).contains(&most), "{most}");
    }
    let project = Project::new();
    eight_calls(&project, json!({}), 20);
    let mut workflow = project.json("workflow.json");
    workflow["task_list"][0]["meta"] = json!({ "cpus_per_task": 0 });
    project.write("workflow.json", workflow.to_string());
    project.run(&JOBS).expect(2).reports(&[
        "workflow.json: /task_list/0/meta/cpus_per_task: must be a whole number above 0, not 0",
    ]);
}

#[test]
fn a_default_limit_delays_no_call() {
    let project = Project::new();
    eight_calls(&project, json!({}), 2000);
    let ended = project
        .run(&["--jobs", "200", "--metadata", "metadata.json"])
        .expect(0);
    assert!(!ended.stderr.contains("at a time"), "{}", ended.stderr);
    assert_eq!(most_at_a_time(&project).0, 8);
}

/// A module with one function of many instructions, for each of which the compiler keeps some
/// hundred bytes.
fn compile_bomb(n_instructions: usize) -> Vec<u8> {
    let body = "i32.const 0 i32.const 0 i32.load8_u i32.store8 ".repeat(n_instructions);
    wat::parse_str(format!(
        "(module (memory 1) (func (export \"_start\") {body}))"
    ))
    .expect("valid WAT")
}

#[test]
fn a_module_that_takes_too_much_memory_to_compile_is_refused() {
    let project = Project::new();
    project.write("bomb.wasm", compile_bomb(50_000));
    project.write("policy.toml", "[host]\ncompile_memory = \"64MiB\"\n");
    project.workflow(&[task(0, "t", "bomb.wasm", json!({}))]);
    let text = [
        "needs more memory to compile than the 64 MiB that it may have",
        "`compile_memory` in the policy's [host]",
    ];
    project
        .run(&["--policy", "policy.toml"])
        .expect(2)
        .reports(&text);
    project
        .mandelbox(&["check", "bomb.wasm", "--policy", "policy.toml"])
        .expect(2)
        .reports(&text);
    project
        .mandelbox(&[
            "exec",
            "bomb.wasm",
            "--policy",
            "policy.toml",
            "--no-cache",
            "--",
        ])
        .expect(2)
        .reports(&text);
}

/// The child processes of a process.
fn children(id: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of_task = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
    };
    tasks
        .map(of_task)
        .flat_map(|ids| {
            ids.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn nothing_compiles_on_after_the_program_has_ended() {
    let project = Project::new();
    let n = 100_000;
    let text = format!(
        "(module (func (export \"_start\") {}{}))",
        "block ".repeat(n),
        "end ".repeat(n)
    );
    project.write("nested.wasm", wat::parse_str(text).expect("valid WAT"));
    project.workflow(&[task(0, "t", "nested.wasm", json!({}))]);
    let mut running = Running::start(run_command(&project, &[]));
    let id = running.0.id();
    let mut compiling = Vec::new();
    running.wait_until("the compiler", || {
        compiling = children(id);
        !compiling.is_empty()
    });
    let [compiler] = &compiling[..] else {
        panic!("one module at a time: {compiling:?}")
    };
    std::thread::sleep(Duration::from_millis(500));
    let is_there = || Path::new("/proc").join(compiler).exists();
    assert!(is_there());
    // Without a chance to end it.
    running.0.kill().expect("there");
    running.0.wait().expect("ended");
    let started = Instant::now();
    while is_there() {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the compiler goes on"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
