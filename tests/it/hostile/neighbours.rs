//! Effects of hostile calls on the process that they run in, and on good calls at the same time.
//!
//! Each test here runs in a process of its own, where no other test has threads and files.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mandelbox::backend::{Backend, Isolation, Local, WorkerCommand};
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{Error, ProcessWorkflow, RunOptions};
use mandelbox::sandbox::SandboxOptions;
use serde_json::{Value, json};

use super::case::{Case, cases};
use super::cases_for_more_configurations;
use super::fixture::fixture;
use crate::project::{Project, module, parallel_task};

/// Set in the process that a test starts for itself.
const ALONE: &str = "MANDELBOX_TEST_ALONE";

/// Maximum time of such a process.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Runs `body` in a process of its own: this program again, with the one test.
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args([
            "--exact",
            &format!("hostile::neighbours::{test}"),
            "--nocapture",
        ])
        .env(ALONE, "1");
    let ended = crate::project::finish_within(command, TIMEOUT).expect(0);
    assert!(ended.stdout.contains("1 passed"), "{}", ended.stdout);
}

/// Threads, open files and children of this process, without the memory images that a prepared
/// module keeps.
fn held() -> [usize; 3] {
    let is_image = |path: &Path| {
        fs::read_link(path).is_ok_and(|target| {
            target
                .to_string_lossy()
                .starts_with("/memfd:wasm-memory-image")
        })
    };
    let entries = |folder: &str| {
        let entries = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path());
        entries.filter(|path| !is_image(path)).count()
    };
    let children: usize = fs::read_dir("/proc/self/task")
        .expect("a folder")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum();
    [
        entries("/proc/self/task"),
        entries("/proc/self/fd"),
        children,
    ]
}

fn workflow(task: &Value) -> WorkflowDocument {
    let text = json!({ "name": "w", "task_list": [task] }).to_string();
    let workflow = WorkflowDocument::parse(
        "in memory",
        Path::new(""),
        text.as_bytes(),
        &mut Problems::default(),
    );
    workflow.expect("a workflow")
}

fn object(value: &Value) -> serde_json::Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[test]
fn good_calls_next_to_hostile_ones_succeed() {
    alone("good_calls_next_to_hostile_ones_succeed", || {
        check_neighbours(Isolation::Thread)
    });
}

#[test]
fn good_calls_next_to_hostile_ones_succeed_in_processes() {
    let worker = WorkerCommand {
        program: env!("CARGO_BIN_EXE_mandelbox").into(),
        arguments: vec!["worker".to_owned()],
    };
    alone(
        "good_calls_next_to_hostile_ones_succeed_in_processes",
        || check_neighbours(Isolation::Process(worker)),
    );
}

/// Runs each module at the same time as a good task, on the same two workers; nothing is held at
/// the end that was not at the start.
fn check_neighbours(isolation: Isolation) {
    let backend = Local::with_options(2, &SandboxOptions::default(), isolation).expect("a backend");
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let prelude = cases()
        .into_iter()
        .find(|case| case.name == "prelude")
        .expect("a case");
    run_next_to_good_calls(&backend, &prelude);
    let before = held();
    for case in &cases_for_more_configurations() {
        run_next_to_good_calls(&backend, case);
    }
    check_held(before);
}

/// Fails if this process goes on holding more than it did before. Threads of the host that end
/// after their work may have counted before.
fn check_held(before: [usize; 3]) {
    let started = Instant::now();
    loop {
        let now = held();
        if now.iter().zip(before).all(|(now, before)| *now <= before) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "threads, open files and children: {now:?} instead of {before:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two calls of a hostile module and eight of a good one, at the same time.
fn run_next_to_good_calls(backend: &Arc<dyn Backend>, case: &Case) {
    let project = fixture();
    let path = project.write("hostile.wasm", case.module(&project.path("")));
    let mut hostile = parallel_task(0, "hostile", path.to_str().expect("UTF-8"), "c", json!({}));
    hostile["meta"] = json!({ "mandelbox": { "timeout": "300ms", "memory": "64M" } });
    let good = parallel_task(
        0,
        "good",
        &module("swiss.wasm"),
        "c",
        json!({ "echo": ["component"] }),
    );
    let run = |task: &Value, folder: &str, n: usize| {
        let arguments = {
            let path = |name: &str| project.path(&format!("{folder}{name}"));
            let mut arguments = ProcessWorkflow::new(workflow(task), &path("out"), &path("work"));
            arguments.input_paths = vec![project.path("in")];
            arguments.input_metadata = object(&json!({ "c": (0..n).collect::<Vec<_>>() }));
            arguments
        };
        let options = RunOptions {
            keep_going: true,
            ..RunOptions::new(Arc::clone(backend))
        };
        process_workflow(&arguments, options, Vec::new())
    };
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| run(&hostile, "hostile_", 2));
        let good =
            run(&good, "good_", 8).unwrap_or_else(|err| panic!("beside {}: {err}", case.name));
        let expected: Vec<_> = (0..8).collect();
        let seen: Vec<_> = good["metadata"]["echo"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|echo| &echo["component"])
            .collect();
        assert_eq!(seen, expected, "beside {}", case.name);
        match hostile.join().expect("no panic") {
            Err(failure) if matches!(failure.error, Error::Host(_)) => {
                panic!("{}: {failure}", case.name)
            }
            _ => {}
        }
    });
}

#[test]
fn ended_guests_leave_no_thread_and_no_file() {
    alone(
        "ended_guests_leave_no_thread_and_no_file",
        hundreds_of_guests,
    );
}

/// Hundreds of guests that sleep and of those that loop, one after the other, each ended after 20
/// ms.
fn hundreds_of_guests() {
    let project = Project::new();
    let cases = cases();
    let backend: Arc<dyn Backend> = Arc::new(Local::new(1).expect("a backend"));
    let run = |name: &str, n: usize| {
        let case = cases.iter().find(|case| case.name == name).expect("a case");
        let path = project.write(&format!("{name}.wasm"), case.module(&project.path("")));
        let mut task = parallel_task(0, "t", path.to_str().expect("UTF-8"), "c", json!({}));
        task["meta"] = json!({ "mandelbox": { "timeout": "20ms" } });
        let work_dir = project.path(&format!("{name}{n}"));
        let mut arguments = ProcessWorkflow::new(workflow(&task), &project.path("out"), &work_dir);
        arguments.input_metadata = object(&json!({ "c": (0..n).collect::<Vec<_>>() }));
        let options = RunOptions {
            keep_going: true,
            ..RunOptions::new(backend.clone())
        };
        let failure = process_workflow(&arguments, options, Vec::new()).expect_err("all are ended");
        assert!(
            failure.to_string().contains("time limit of 0.02 s"),
            "{failure}"
        );
    };
    run("sleep_relative_hour", 5);
    run("loop_forever", 5);
    let before = held();
    let n = if std::env::var_os("MANDELBOX_TEST_WHOLE").is_some() {
        1000
    } else {
        100
    };
    run("sleep_relative_hour", n);
    check_held(before);
    run("loop_forever", n.min(300));
    check_held(before);
}
