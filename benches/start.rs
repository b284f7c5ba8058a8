//! What a start costs: compiling, the first and a later start of a task that does nothing, and the
//! whole program.

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
use std::process::{Command, Stdio};

use mandelbox::sandbox::{Sandbox, SandboxOptions};

use guests::{compile_time, metadata, module, run_guest, spawn_true, workflow};
use measure::{Work, compare, cost, folders, median, say, size, time_text};

fn main() {
    for name in ["kernels.wasm", "kernels.p2.wasm"] {
        starts(name);
    }
    for (place, folder) in folders() {
        for command in ["trivial_typed.wasm", "kernels.wasm nothing 1 ."] {
            let folder = tempfile::tempdir_in(&folder).expect("a folder");
            whole_program(command, place, folder.path());
        }
    }
}

/// A sandbox, the module compiled, its first and its later starts.
fn starts(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let module = module(name);
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..size(9, 1) {
        let mut sandbox = None;
        let options = SandboxOptions {
            n_workers: 1,
            ..SandboxOptions::default()
        };
        times[0].push(cost(|| sandbox = Some(Sandbox::new(&options).expect("a sandbox"))).wall_s);
        let sandbox = sandbox.expect("made");
        let prepare = || sandbox.prepare(&module, compile_time()).expect("compiled");
        times[1].push(cost(|| _ = prepare()).wall_s);
        let mut worker = sandbox.worker().expect("a worker");
        let mut start = || {
            cost(|| {
                drop(run_guest(
                    &mut worker,
                    &module,
                    &["nothing", "1", "."],
                    folder.path(),
                ))
            })
            .wall_s
        };
        times[2].push(start());
        times[3].push(median((0..size(200, 2)).map(|_| start())));
    }
    let [sandbox, compile, first, later] = times.map(|times| time_text(median(times.into_iter())));
    say(&format!(
        "{name}: sandbox made {sandbox}, compiled {compile}, first start {first}, later start \
         {later} (wall)"
    ));
}

/// `mandelbox run` of one call whose module is in the cache, against `true`.
fn whole_program(command: &str, place: &str, folder: &Path) {
    let write = |name: &str, value: serde_json::Value| {
        std::fs::write(folder.join(name), value.to_string()).expect("written");
    };
    write("workflow.json", workflow(command));
    write("metadata.json", metadata(1));
    let n = size(20, 1);
    let mut n_runs = 0;
    let program = || {
        for _ in 0..n {
            n_runs += 1;
            let mut program = Command::new(env!("CARGO_BIN_EXE_mandelbox"));
            program.args([
                "run",
                "workflow.json",
                "--metadata",
                "metadata.json",
                "--output",
                "out",
                "--quiet",
            ]);
            program
                .arg("--work-dir")
                .arg(format!("work{n_runs}"))
                .current_dir(folder);
            program
                .env("XDG_CACHE_HOME", folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            assert!(program.status().expect("started").success());
        }
    };
    let question = format!("whole program, cached, {command}, records {place}");
    compare(
        &question,
        9,
        Work::new("mandelbox", n, program),
        Work::new("`true`", n, || spawn_true(n)),
    );
}
