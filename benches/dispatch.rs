//! What a call costs: a typed task and a command that do nothing, in a run of the library, against starting `true`.

#![allow(clippy::disallowed_methods, unreachable_pub, reason = "benches read the environment and start programs")]

#[allow(dead_code, reason = "each bench uses what it needs")]
mod guests;
#[allow(dead_code, reason = "each bench uses what it needs")]
mod measure;

use std::path::Path;

use guests::{TaskRuns, spawn_true};
use mandelbox::workdir::TaskFiles;
use measure::{Work, compare, folders, settle, size};

const TYPED: &str = "trivial_typed.wasm";
const COMMAND: &str = "kernels.wasm nothing 1 .";
const ROUNDS: usize = 5;

fn main() {
    for (place, folder) in folders() {
        for (what, command, task_files, n) in [
            ("typed call", TYPED, TaskFiles::None, size(20_000, 20)),
            ("typed call with its files", TYPED, TaskFiles::All, size(1500, 10)),
            ("command call", COMMAND, TaskFiles::None, size(1500, 10)),
            ("command call with its files", COMMAND, TaskFiles::All, size(1500, 10)),
        ] {
            against_true(&format!("{what} {place}"), folder.path(), command, task_files, n);
        }
        two_threads(&format!("typed calls {place}"), folder.path(), TYPED, TaskFiles::None, size(20_000, 20));
        two_threads(&format!("command calls {place}"), folder.path(), COMMAND, TaskFiles::All, size(1500, 10));
        drop(folder);
        settle();
    }
}

/// Calls on one thread against starting `true` as one would a task.
fn against_true(question: &str, folder: &Path, command: &str, task_files: TaskFiles, n: usize) {
    let runs = TaskRuns::new(1, folder);
    let n_true = size(500, 5);
    let calls = Work::new("a call", n, || runs.run(command, n, task_files));
    compare(question, ROUNDS, calls, Work::new("`true`", n_true, || spawn_true(n_true)));
}

/// The ratio of wall times is how many times the calls a second of one thread two threads make.
fn two_threads(question: &str, folder: &Path, command: &str, task_files: TaskFiles, n: usize) {
    let [one, two] = [1, 2].map(|n_threads| TaskRuns::new(n_threads, folder));
    let one = Work::new("1 thread", n, || one.run(command, n, task_files));
    let two = Work::new("2 threads", n, || two.run(command, n, task_files));
    compare(question, ROUNDS, one, two);
}
