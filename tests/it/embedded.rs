//! What the library does to a process that it is a part of: nothing before it is asked, and nothing
//! that stays.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use mandelbox::backend::Local;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{ProcessWorkflow, RunOptions};
use serde_json::json;

use crate::project::{Project, finish, module, parallel_task};

/// Set in the process that a test starts to be alone in it.
const ALONE: &str = "MANDELBOX_TEST_EMBEDDED";

/// Signals, as in signal(7), on x86-64 and AArch64.
mod signal {
    pub(super) const INTERRUPT: u32 = 2;
    pub(super) const BUS: u32 = 7;
    pub(super) const SEGMENTATION_FAULT: u32 = 11;
    pub(super) const TERMINATE: u32 = 15;
    pub(super) const CHILD: u32 = 17;
}

/// Runs a test again in a process of its own; returns what it printed.
fn alone(name: &str) -> Option<String> {
    if std::env::var_os(ALONE).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args([
            "--exact",
            &format!("embedded::{name}"),
            "--nocapture",
            "--test-threads",
            "1",
        ])
        .env(ALONE, "1");
    let ended = finish(command).expect(0);
    assert!(ended.stdout.contains("1 passed"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "", "the library printed");
    Some(ended.stdout)
}

fn n_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("a folder")
        .count()
}

/// Without the one file that the WebAssembly runtime keeps for the whole process, to see which
/// pages were changed.
fn n_open_files() -> usize {
    let files = std::fs::read_dir("/proc/self/fd")
        .expect("a folder")
        .map(|file| file.expect("an entry").path());
    files
        .filter(|file| !std::fs::read_link(file).is_ok_and(|target| target.ends_with("pagemap")))
        .count()
}

/// The signals that this process handles itself, without the real-time ones, of which the C library
/// has some.
fn handled_signals() -> BTreeSet<u32> {
    let status = std::fs::read_to_string("/proc/self/status").expect("text");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    (1..32)
        .filter(|signal| mask & (1 << (signal - 1)) != 0)
        .collect()
}

#[test]
fn documents_are_checked_without_a_thread_or_a_signal_handler() {
    let Some(stdout) = alone("documents_are_checked_without_a_thread_or_a_signal_handler") else {
        let before = (n_threads(), n_open_files());
        let mut problems = Problems::default();
        let text = json!({ "name": "w", "task_list": [{ "order": "first" }] }).to_string();
        WorkflowDocument::parse("in memory", "".as_ref(), text.as_bytes(), &mut problems);
        assert!(!problems.is_empty());
        assert_eq!((n_threads(), n_open_files()), before);
        assert_eq!(before.0, 2, "the test harness's main thread and this one");
        // Those of Rust's own runtime, which report a stack overflow.
        let rusts = BTreeSet::from([signal::BUS, signal::SEGMENTATION_FAULT]);
        assert_eq!(handled_signals(), rusts);
        return;
    };
    let lines: Vec<_> = stdout.lines().filter(|line| !line.is_empty()).collect();
    // Two lines are the test harness's, and the one between them the test's.
    assert_eq!(lines.len(), 3, "the library printed: {stdout}");
}

#[test]
fn a_run_leaves_no_thread_no_file_and_the_users_signals() {
    let Some(stdout) = alone("a_run_leaves_no_thread_no_file_and_the_users_signals") else {
        let before = (n_threads(), n_open_files());
        let folder = std::env::current_dir().expect("a folder");
        let project = Project::new();
        {
            let backend = Local::new(2).expect("a backend");
            let tasks = json!([parallel_task(
                0,
                "t",
                &module("swiss.wasm"),
                "c",
                json!({ "stdout": "loud" })
            )]);
            let text = json!({ "name": "w", "task_list": tasks }).to_string();
            let workflow = WorkflowDocument::parse(
                "in memory",
                "".as_ref(),
                text.as_bytes(),
                &mut Problems::default(),
            );
            let workflow = workflow.expect("a workflow");
            let mut arguments =
                ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
            arguments.input_metadata = json!({ "c": [1, 2, 3, 4] })
                .as_object()
                .cloned()
                .expect("an object");
            let options = RunOptions::new(std::sync::Arc::new(backend));
            process_workflow(&arguments, options, Vec::new()).expect("runs");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while (n_threads(), n_open_files()) != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            (n_threads(), n_open_files()),
            before,
            "threads and open files"
        );
        assert_eq!(std::env::current_dir().expect("a folder"), folder);
        let handled = handled_signals();
        for signal in [signal::INTERRUPT, signal::TERMINATE, signal::CHILD] {
            assert!(!handled.contains(&signal), "{handled:?}");
        }
        return;
    };
    assert!(!stdout.contains("loud"), "{stdout}");
}
