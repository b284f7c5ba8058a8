//! What a call costs: a typed task and a command that do nothing, in a run of the library, against
//! starting `true`.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "benches read the environment and start programs"
)]

#[allow(dead_code, reason = "each bench uses what it needs")]
mod guests;
#[allow(dead_code, reason = "each bench uses what it needs")]
mod measure;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use mandelbox::model::TaskFiles;

use guests::{TaskRuns, metadata, spawn_true, workflow};
use measure::{Work, compare, folders, settle, size};

const TYPED: &str = "trivial_typed.wasm";
const COMMAND: &str = "kernels.wasm nothing 1 .";
const ROUNDS: usize = 5;

fn main() {
    for (place, folder) in folders() {
        for (what, command, task_files, n) in [
            ("typed call", TYPED, TaskFiles::None, size(20_000, 20)),
            (
                "typed call with its files",
                TYPED,
                TaskFiles::All,
                size(1500, 10),
            ),
            ("command call", COMMAND, TaskFiles::None, size(1500, 10)),
            (
                "packed command call",
                COMMAND,
                TaskFiles::Packed,
                size(1500, 10),
            ),
            (
                "command call with its files",
                COMMAND,
                TaskFiles::All,
                size(1500, 10),
            ),
        ] {
            against_true(
                &format!("{what} {place}"),
                folder.path(),
                command,
                task_files,
                n,
            );
        }
        two_threads(
            &format!("typed calls {place}"),
            folder.path(),
            TYPED,
            TaskFiles::None,
            size(20_000, 20),
        );
        two_threads(
            &format!("command calls {place}"),
            folder.path(),
            COMMAND,
            TaskFiles::All,
            size(1500, 10),
        );
        two_processes(
            &format!("typed calls {place}"),
            folder.path(),
            size(100_000, 20),
        );
        drop(folder);
        settle();
    }
}

/// Calls on one thread against starting `true` as one would a task.
fn against_true(question: &str, folder: &Path, command: &str, task_files: TaskFiles, n: usize) {
    let runs = TaskRuns::new(1, folder);
    let n_true = size(500, 5);
    let calls = Work::new("a call", n, || runs.run(command, n, task_files));
    compare(
        question,
        ROUNDS,
        calls,
        Work::new("`true`", n_true, || spawn_true(n_true)),
    );
}

/// The ratio of wall times is how many times the calls a second of one thread two threads make.
fn two_threads(question: &str, folder: &Path, command: &str, task_files: TaskFiles, n: usize) {
    let [one, two] = [1, 2].map(|n_threads| TaskRuns::new(n_threads, folder));
    let one = Work::new("1 thread", n, || one.run(command, n, task_files));
    let two = Work::new("2 threads", n, || two.run(command, n, task_files));
    compare(question, ROUNDS, one, two);
}

/// What the machine allows: the program with one thread, twice side by side, which share nothing
/// but the machine. The ratio of wall times is how many times the calls a second of one the two
/// make.
fn two_processes(question: &str, folder: &Path, n: usize) {
    std::fs::write(folder.join("workflow.json"), workflow(TYPED).to_string()).expect("written");
    std::fs::write(folder.join("metadata.json"), metadata(n).to_string()).expect("written");
    let n_runs = AtomicUsize::new(0);
    let run = |n_processes: usize| {
        let start = |_| {
            let name = n_runs.fetch_add(1, Ordering::Relaxed);
            let mut program = Command::new(env!("CARGO_BIN_EXE_mandelbox"));
            program.args([
                "run",
                "workflow.json",
                "--metadata",
                "metadata.json",
                "--quiet",
                "--jobs",
                "1",
            ]);
            program.args([
                "--task-files",
                "none",
                "--output",
                &format!("out{name}"),
                "--work-dir",
                &format!("run{name}"),
            ]);
            program
                .current_dir(folder)
                .env_remove("RUST_BACKTRACE")
                .spawn()
                .expect("started")
        };
        let processes: Vec<_> = (0..n_processes).map(start).collect();
        processes
            .into_iter()
            .for_each(|mut process| assert!(process.wait().expect("ended").success()));
    };
    let one = Work::new("1 process", n, || run(1));
    let two = Work::new("2 processes", 2 * n, || run(2));
    compare(question, ROUNDS, one, two);
}
