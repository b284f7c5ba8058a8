//! `--isolation process`: what its child processes give up, and what happens to the run when the
//! files that it began with change.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::confined::confined;
use crate::hostile::no_openat2::refuse_calls;
use crate::project::{Project, finish, module, task};

/// Maximum time until an expected state is reached.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Nanoseconds that a guest sleeps.
const SLEEP_NS: u64 = 3_000_000_000;

/// A run, or another command, that goes on while the test looks at it; ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is there.
#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder in `/proc` of a child process that runs a guest.
fn worker_of(parent: u32) -> Option<PathBuf> {
    let is_child = |folder: &Path| {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        read("cmdline").contains("\0worker\0")
            && read("status").contains(&format!("\nPPid:\t{parent}\n"))
    };
    let folders = fs::read_dir("/proc")
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path());
    folders.into_iter().find(|folder| is_child(folder))
}

fn doctor(command: Command) -> Value {
    serde_json::from_str(&finish(command).expect(0).stdout).expect("JSON")
}

/// A project with tasks that sleep, one after the other, run in processes. Their module is so large
/// that its code in the cache is mapped and not read.
fn sleeping(n_tasks: u64) -> (Project, Command) {
    let project = Project::new();
    let data = "x".repeat(2 << 20);
    let text = format!(
        r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
             (memory (export "memory") 40)
             (data (i32.const 65536) "{data}")
             (func (export "_start")
               (i32.store (i32.const 16) (i32.const 1))
               (i64.store (i32.const 24) (i64.const {SLEEP_NS}))
               (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#
    );
    project.write("sleeps.wasm", wat::parse_str(text).expect("WAT"));
    let tasks: Vec<_> = (0..n_tasks)
        .map(|order| task(order, "sleeps", "sleeps.wasm", json!({})))
        .collect();
    project.workflow(&tasks);
    let mut command = project.command(&[
        "run",
        "workflow.json",
        "--input",
        "in",
        "--output",
        "out",
        "--quiet",
    ]);
    command.args([
        "--work-dir",
        "work",
        "--isolation",
        "process",
        "--jobs",
        "1",
    ]);
    command
        .env("XDG_CACHE_HOME", project.path("cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    (project, command)
}

/// Starts the command once to fill the cache, and then again; returns it while its first task
/// sleeps.
fn start_with_cache(project: &Project, command: &mut Command) -> Running {
    let done = command.output().expect("run");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    fs::remove_dir_all(project.path("work")).expect("removed");
    let running = Running(command.spawn().expect("started"));
    wait_for("a guest that runs", || worker_of(running.0.id()));
    wait_for("a call that has started", || {
        fs::read_to_string(project.path("work/events.jsonl"))
            .ok()
            .filter(|log| log.contains("call_started"))
    });
    running
}

#[track_caller]
fn check_succeeds(mut running: Running) {
    let status = wait_for("the end", || running.0.try_wait().expect("waited for"));
    let mut stderr = String::new();
    std::io::Read::read_to_string(running.0.stderr.as_mut().expect("a pipe"), &mut stderr)
        .expect("text");
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn a_child_gives_up_what_it_does_not_need() {
    let (project, mut command) = sleeping(1);
    // A file that a shell has left open, as it may have a socket.
    let secret = project.write("secret", "x");
    let shell = format!("exec 9<{}; exec \"$@\"", secret.display());
    command = confined(&shell, &command);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let running = Running(command.spawn().expect("started"));
    let folder = wait_for("a guest that runs", || {
        worker_of(running.0.id()).filter(|folder| {
            let log = fs::read_to_string(project.path("work/events.jsonl"));
            log.is_ok_and(|log| log.contains("call_started"))
                && fs::read_to_string(folder.join("status"))
                    .is_ok_and(|status| status.contains("NoNewPrivs:\t1"))
        })
    });
    // It may be at it still.
    std::thread::sleep(Duration::from_millis(500));
    let status = fs::read_to_string(folder.join("status")).expect("there");
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name)
            .trim()
    };
    assert_eq!(
        [line("CapEff:"), line("CapPrm:"), line("CapInh:")],
        ["0000000000000000"; 3]
    );
    let layers = doctor(project.command(&["doctor", "--format", "json"]))["process_layers"].clone();
    let layers = layers.as_array().expect("a list").clone();
    let state = |name: &str| {
        &layers
            .iter()
            .find(|layer| layer["layer"] == name)
            .expect(name)["state"]
    };
    if state("system_calls") == "in_force" {
        assert_eq!(line("Seccomp:"), "2");
    }
    let limits = fs::read_to_string(folder.join("limits")).expect("there");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a line");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let files = fs::read_dir(folder.join("fd")).expect("a folder").flatten();
    let open: Vec<_> = files
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    assert!(
        !open.contains(&secret.canonicalize().expect("there")),
        "{open:?}"
    );
    // One folder of its own, not those of all calls.
    let scratch = project.path("work/.scratch");
    assert!(open.iter().all(|path| *path != scratch), "{open:?}");
    check_succeeds(running);

    // The log reports the same for each layer.
    assert_eq!(layers.len(), 7);
    let log = project.read("work/workflow.log");
    for layer in &layers {
        let text = |key: &str| layer[key].as_str().expect("text");
        let text = format!(
            "{}: {} ({})",
            text("layer"),
            text("state").replace('_', " "),
            text("detail")
        );
        assert!(log.contains(&text), "{text:?} is not in: {log}");
    }
}

#[test]
fn a_child_maps_the_code_that_its_parent_has_mapped() {
    let (project, mut command) = sleeping(1);
    let running = start_with_cache(&project, &mut command);
    let cache = project.path("cache").canonicalize().expect("there");
    let cache = cache.to_str().expect("UTF-8");
    let mapped = wait_for("code from the cache", || {
        let maps = fs::read_to_string(worker_of(running.0.id())?.join("maps")).ok()?;
        let lines = maps.lines().filter(|line| line.contains(cache));
        let mapped: Vec<_> = lines.map(str::to_owned).collect();
        (!mapped.is_empty()).then_some(mapped)
    });
    // Copies on write: nothing that the process does changes the file.
    let is_private = |line: &String| {
        line.split(' ')
            .nth(1)
            .is_some_and(|rights| rights.ends_with('p'))
    };
    assert!(mapped.iter().all(is_private), "{mapped:?}");
    check_succeeds(running);
}

/// In an outer sandbox that refuses what confines, calls run all the same, with a warning.
#[test]
fn a_missing_layer_is_reported() {
    const LANDLOCK_CREATE_RULESET: u32 = 444;
    #[cfg(target_arch = "x86_64")]
    const SECCOMP: u32 = 317;
    #[cfg(not(target_arch = "x86_64"))]
    const SECCOMP: u32 = 277;
    const EPERM: u32 = 1;
    const ENOSYS: u32 = 38;
    for (number, errno, layers) in [
        (
            LANDLOCK_CREATE_RULESET,
            ENOSYS,
            &["files", "network", "scopes"][..],
        ),
        (
            LANDLOCK_CREATE_RULESET,
            EPERM,
            &["files", "network", "scopes"],
        ),
        (SECCOMP, EPERM, &["system_calls"]),
        (SECCOMP, ENOSYS, &["system_calls"]),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                refuse_calls(&[number], errno);
                let project = Project::new();
                let answer = doctor(project.command(&["doctor", "--format", "json"]));
                for layer in answer["process_layers"].as_array().expect("a list") {
                    let is_missing = layer["state"] == "missing";
                    let expected = layers.contains(&layer["layer"].as_str().expect("text"));
                    assert!(is_missing || !expected, "{answer}");
                }
                let steps = json!([{ "do": "env" }]);
                project.workflow(&[task(
                    0,
                    "probe",
                    &module("probe.wasm"),
                    json!({ "steps": steps }),
                )]);
                project.run(&["--isolation", "process"]).expect(0);
                assert!(
                    project
                        .read("work/workflow.log")
                        .contains(&format!("{}: missing (", layers[0]))
                );
            });
        });
    }
}

#[test]
fn a_cache_that_is_emptied_during_a_run_ends_no_call() {
    let (project, mut command) = sleeping(2);
    let running = start_with_cache(&project, &mut command);
    fs::remove_dir_all(project.path("cache")).expect("removed");
    check_succeeds(running);
}

#[test]
fn an_entry_of_the_cache_that_is_replaced_during_a_run_ends_no_call() {
    let (project, mut command) = sleeping(2);
    let running = start_with_cache(&project, &mut command);
    for entry in entries(&project.path("cache")) {
        let other = entry.with_extension("other");
        fs::write(&other, "no code").expect("written");
        fs::rename(other, entry).expect("replaced");
    }
    check_succeeds(running);
}

/// All files below a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                entries(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_module_that_is_removed_during_a_run_ends_no_call() {
    let (project, mut command) = sleeping(2);
    let running = start_with_cache(&project, &mut command);
    fs::remove_file(project.path("sleeps.wasm")).expect("removed");
    check_succeeds(running);
}
