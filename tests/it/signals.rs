//! Signals that end the program: guests end, records are saved, and nothing is left behind.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mandelbox::event::{EventKind, Status, read_events};
use mandelbox::model::Outcome;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::confined::confined;
use crate::project::{Project, module, parallel_task, task};

/// Time in which a signal must have ended the program: far less than its guests run, and enough for
/// a disk that is busy with other things when the records are synced.
pub const END_TIME: Duration = Duration::from_secs(60);
/// Time in which a program must have got where a test waits for it.
const TIMEOUT: Duration = Duration::from_secs(100);

/// A program that runs, and all processes that it has started.
pub struct Running(pub Child);

impl Running {
    pub fn start(mut command: Command) -> Self {
        // A group of its own, as a terminal gives each job: Ctrl-C reaches all processes of it.
        let command = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().expect("started"))
    }

    pub fn send(&self, signal: Signal) {
        let id = i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("an id");
        kill_process_group(id, signal).expect("there");
    }

    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut reached: impl FnMut() -> bool) {
        let started = Instant::now();
        while !reached() {
            assert!(
                self.0.try_wait().expect("waited for").is_none(),
                "ended before {what}: {}",
                self.stderr()
            );
            assert!(started.elapsed() < TIMEOUT, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        let stderr = self.0.stderr.as_mut().expect("a pipe");
        stderr
            .read_to_string(&mut text)
            .map(|_| text)
            .expect("UTF-8")
    }

    /// Waits for the end; returns the exit code, stderr and how long it took.
    #[track_caller]
    pub fn end(mut self) -> (i32, String, Duration) {
        let started = Instant::now();
        while self.0.try_wait().expect("waited for").is_none() {
            if started.elapsed() > 2 * END_TIME {
                self.send(Signal::KILL);
                panic!("does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (code, elapsed) = (self.0.wait().expect("waited for").code(), started.elapsed());
        (
            code.expect("an exit code, no signal"),
            self.stderr(),
            elapsed,
        )
    }
}

impl Running {
    /// As [`Self::end`], but reads stderr from now on.
    #[track_caller]
    pub fn end_while_reading(mut self) -> (i32, String, Duration) {
        let started = Instant::now();
        let mut stderr = self.0.stderr.take().expect("a pipe");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            stderr
                .read_to_string(&mut text)
                .map(|_| text)
                .expect("UTF-8")
        });
        let code = self.0.wait().expect("waited for").code();
        (
            code.expect("an exit code, no signal"),
            read.join().expect("no panic"),
            started.elapsed(),
        )
    }
}

/// Number of lines with this text in the event log, which may not be there yet.
pub fn n_events(project: &Project, text: &str) -> usize {
    let log = std::fs::read_to_string(project.path("work/events.jsonl")).unwrap_or_default();
    log.lines().filter(|line| line.contains(text)).count()
}

pub fn run_command(project: &Project, more: &[&str]) -> Command {
    let mut arguments = vec![
        "run",
        "workflow.json",
        "--input",
        "in",
        "--output",
        "out",
        "--work-dir",
        "work",
    ];
    arguments.extend(more);
    project.command(&arguments)
}

/// A task whose component calls sleep, loop and write for ever, but for `a`, which ends at once.
fn endless_calls() -> Value {
    let each = |component: &str, step: Value| json!({ "do": "for", "component": component, "steps": [step] });
    let write = json!({ "do": "write", "path": "file", "text": "text" });
    json!([
        each("a", json!({ "do": "return", "text": r#"{"seen": 1}"# })),
        each("b", json!({ "do": "sleep_ms", "ms": 3_600_000 })),
        each("c", json!({ "do": "spin" })),
        each(
            "d",
            json!({ "do": "repeat", "n": 1_u64 << 60, "step": write })
        ),
    ])
}

#[test]
fn a_signal_ends_running_guests_and_saves_the_records() {
    for (isolation, more, signal, code) in [
        ("thread", ["--jobs", "4"].as_slice(), Signal::INT, 130),
        (
            "thread",
            &["--jobs", "4", "--timeout", "1h"],
            Signal::TERM,
            143,
        ),
        ("process", &["--jobs", "4"], Signal::INT, 130),
        (
            "process",
            &["--jobs", "4", "--timeout", "1h"],
            Signal::TERM,
            143,
        ),
    ] {
        let project = Project::new();
        project.workflow(&[
            task(
                0,
                "list",
                &module("swiss.wasm"),
                json!({ "metadiff": { "c": ["a", "b", "c", "d", "e"] } }),
            ),
            parallel_task(
                1,
                "each",
                &module("typed.wasm"),
                "c",
                json!({ "steps": endless_calls() }),
            ),
        ]);
        // `e` does nothing, but has to wait for its turn.
        project.write("local.json", r#"{"parallel_tasks_per_job": 3}"#);
        let result = [
            "--isolation",
            isolation,
            "--local-config",
            "local.json",
            "--result",
            "result.json",
        ];
        let mut running = Running::start(run_command(&project, &[more, &result].concat()));
        running.wait_until("all calls", || {
            n_events(&project, "\"call_started\"") == 5
                && n_events(&project, "\"call_finished\"") == 2
        });
        running.send(signal);
        let (ended, stderr, elapsed) = running.end();
        let what = format!("{isolation} {more:?}: {stderr}");
        assert_eq!(ended, code, "{what}");
        assert!(elapsed < END_TIME, "{elapsed:?} {what}");
        let name = if signal == Signal::INT {
            "SIGINT"
        } else {
            "SIGTERM"
        };
        let text = format!("stopped by {name}; 1 of 5 calls of task \"each\" had succeeded\n");
        assert!(stderr.contains(&text), "{what}");

        let stored = read_events(&project.path("work/events.jsonl"), 1 << 20).expect("a log");
        assert!(!stored.is_torn, "{what}");
        let outcomes: Vec<_> = stored
            .events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::CallFinished { call, outcome, .. } if call.task == 1 => {
                    Some((call.item.clone(), matches!(outcome, Outcome::Cancelled)))
                }
                _ => None,
            })
            .collect();
        assert_eq!(outcomes[0], (Some(json!("a")), false), "{what}");
        let mut cancelled: Vec<_> = outcomes[1..].to_vec();
        cancelled.sort_by_key(|(component, _)| component.as_ref().map(Value::to_string));
        assert_eq!(
            cancelled,
            ["b", "c", "d"].map(|component| (Some(json!(component)), true)),
            "{what}"
        );
        let last = stored.events.last().map(|event| &event.kind);
        let expected = EventKind::RunFinished {
            status: Status::Failed,
            error: Some("cancelled".into()),
        };
        assert_eq!(last, Some(&expected), "{what}");

        for result in ["work/result.json", "result.json"] {
            let result = project.json(result);
            assert_eq!(
                result["metadata"],
                json!({ "c": ["a", "b", "c", "d", "e"] }),
                "{what}"
            );
            let statuses: Vec<_> = result["history"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| &item["status"])
                .collect();
            assert_eq!(statuses, ["done", "failed"], "{what}");
        }
        assert_eq!(
            project.json("work/metadata.json"),
            json!({ "c": ["a", "b", "c", "d", "e"] }),
            "{what}"
        );
        assert!(
            project
                .read("work/workflow.log")
                .contains("failed (cancelled)"),
            "{what}"
        );
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("probe.wasm"), json!({ "do": "spin" }))]);
    let mut running = Running::start(run_command(&project, &[]));
    running.wait_until("the call", || n_events(&project, "\"call_started\"") == 1);
    running.send(Signal::INT);
    std::thread::sleep(Duration::from_millis(800));
    running.send(Signal::TERM);
    let (code, stderr, elapsed) = running.end();
    assert_eq!(code, 143, "{stderr}");
    assert!(elapsed < END_TIME, "{elapsed:?}");
    assert!(
        stderr.contains("SIGINT: stopping; a second signal ends the program at once"),
        "{stderr}"
    );
    // What a killed run leaves is whole lines.
    assert_eq!(
        read_events(&project.path("work/events.jsonl"), 1 << 20)
            .expect("a log")
            .events
            .len(),
        3
    );
}

/// Whether a scratch folder of a call is somewhere in a folder: a guest runs, or is about to.
fn has_scratch(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).any(|path| {
        path.parent()
            .is_some_and(|parent| parent.ends_with(".scratch"))
            || has_scratch(&path)
    })
}

#[test]
fn exec_and_test_leave_no_temporary_folder() {
    let write = json!({ "do": "write", "path": "file", "text": "text" });
    let write = json!({ "do": "repeat", "n": 1_u64 << 60, "step": write });
    for step in [
        json!({ "do": "sleep_ms", "ms": 3_600_000 }),
        json!({ "do": "spin" }),
        write,
    ] {
        for isolation in ["thread", "process"] {
            let project = Project::new();
            std::fs::create_dir(project.path("tmp")).expect("made");
            let args = json!({ "steps": [step] }).to_string();
            project.write("tests/one/args.json", &args);
            project.write("args.json", args);
            std::fs::copy(module("typed.wasm"), project.path("typed.wasm")).expect("copied");
            let exec = [
                "exec",
                "typed.wasm",
                "--args",
                "args.json",
                "--isolation",
                isolation,
            ];
            let test = ["test", "typed.wasm", "--isolation", isolation];
            let as_json = [test.as_slice(), &["--format", "json"]].concat();
            let n_run = "0 of 1 cases were run";
            for (arguments, text) in [
                (exec.as_slice(), "stopped by SIGINT\n"),
                (&test, n_run),
                (&as_json, n_run),
            ] {
                let mut command = project.command(arguments);
                command.env("TMPDIR", project.path("tmp"));
                let mut running = Running::start(command);
                running.wait_until("the guest", || has_scratch(&project.path("tmp")));
                std::thread::sleep(Duration::from_millis(100));
                running.send(Signal::INT);
                let (code, stderr, elapsed) = running.end();
                assert_eq!(code, 130, "{step} {arguments:?} {stderr}");
                assert!(stderr.contains(text), "{step} {arguments:?} {stderr}");
                assert!(elapsed < END_TIME, "{step} {arguments:?} {elapsed:?}");
                let left: Vec<_> = std::fs::read_dir(project.path("tmp"))
                    .expect("there")
                    .collect();
                assert!(left.is_empty(), "{step} {arguments:?} {left:?}");
            }
        }
    }
}

#[test]
fn a_command_ends_with_the_signal() {
    for (isolation, step) in [
        ("thread", json!({ "do": "spin" })),
        ("thread", json!({ "do": "sleep_ms", "ms": 3_600_000 })),
        ("process", json!({ "do": "spin" })),
    ] {
        let project = Project::new();
        let print = json!({ "do": "flood", "stream": "stdout", "mib": 1 });
        project.write("args.json", json!({ "steps": [print, step] }).to_string());
        let mount = format!("{}::/p:rw", project.path("").display());
        let module = module("probe.wasm");
        let arguments = [
            "exec",
            &module,
            "--mount",
            &mount,
            "--isolation",
            isolation,
            "--",
        ];
        let task = ["-j", "/p/args.json", "--metadata-out", "/p/metadiff.json"];
        let mut running = Running::start(project.command(&[&arguments[..], &task].concat()));
        let mut printed = vec![0; 1 << 20];
        running
            .0
            .stdout
            .as_mut()
            .expect("a pipe")
            .read_exact(&mut printed)
            .expect("the guest prints");
        std::thread::sleep(Duration::from_millis(100));
        running.send(Signal::TERM);
        let (code, stderr, elapsed) = running.end();
        assert_eq!(
            (code, stderr.as_str()),
            (143, "stopped by SIGTERM\n"),
            "{isolation} {step}"
        );
        assert!(elapsed < END_TIME, "{elapsed:?}");
    }
}

#[test]
fn signals_at_random_moments_end_the_run_and_it_resumes() {
    let n = if std::env::var_os("MANDELBOX_TEST_WHOLE").is_some() {
        50
    } else {
        6
    };
    for seed in 0..n {
        let mut random = StdRng::seed_from_u64(seed);
        let isolation = ["thread", "process"][random.random_range(0..2)];
        let project = Project::new();
        project.workflow(&[
            task(
                0,
                "list",
                &module("swiss.wasm"),
                json!({ "metadiff": { "c": ["a", "b", "c", "d"] }, "sleep_ms": 100 }),
            ),
            parallel_task(
                1,
                "each",
                &module("typed.wasm"),
                "c",
                json!({ "steps": endless_calls() }),
            ),
        ]);
        let more = ["--isolation", isolation, "--jobs", "4", "--resume"];
        let stop = |running: Running, random: &mut StdRng| {
            let (signal, code) =
                [(Signal::INT, 130), (Signal::TERM, 143)][random.random_range(0..2)];
            running.send(signal);
            let (ended, stderr, elapsed) = running.end();
            let what = format!("seed {seed}, {isolation}: {stderr}");
            assert_eq!(ended, code, "{what}");
            assert!(elapsed < END_TIME, "{elapsed:?} {what}");
            let stored = read_events(&project.path("work/events.jsonl"), 1 << 20).expect("a log");
            assert!(!stored.is_torn, "{what}");
            let expected = EventKind::RunFinished {
                status: Status::Failed,
                error: Some("cancelled".into()),
            };
            assert_eq!(
                stored.events.last().map(|event| &event.kind),
                Some(&expected),
                "{what}"
            );
            assert!(project.json("work/result.json").is_object(), "{what}");
        };
        let mut running = Running::start(run_command(&project, &more));
        running.wait_until("the run", || n_events(&project, "\"run_started\"") == 1);
        std::thread::sleep(Duration::from_millis(random.random_range(0..600)));
        stop(running, &mut random);

        let n_before = n_events(&project, "\"call_started\"");
        let had_ended = |component: &str| {
            let log = project.read("work/events.jsonl");
            let is_end =
                |line: &&str| line.contains("\"call_finished\"") && line.contains("\"succeeded\"");
            let ends = log
                .lines()
                .filter(is_end)
                .filter(|line| line.contains(&format!("\"item\":\"{component}\"")));
            ends.count()
        };
        let n_to_do = 1 + 4 - n_events(&project, "\"succeeded\"");
        let mut running = Running::start(run_command(&project, &more));
        running.wait_until("what was not done", || {
            n_events(&project, "\"call_started\"") == n_before + n_to_do && had_ended("a") == 1
        });
        stop(running, &mut random);
    }
}

/// True if this process ignores SIGHUP; the programs that it starts then ignore it too.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("a line with the ignored signals");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a hexadecimal number");
    ignored & 1 == 1
}

#[test]
#[expect(clippy::print_stdout, reason = "the test skips a signal")]
fn every_signal_that_ends_a_program_saves_the_records() {
    for (signal, name, code) in [
        (Signal::HUP, "SIGHUP", 129),
        (Signal::QUIT, "SIGQUIT", 131),
        (Signal::USR1, "SIGUSR1", 138),
        (Signal::USR2, "SIGUSR2", 140),
        (Signal::ALARM, "SIGALRM", 142),
        (
            Signal::XCPU,
            "SIGXCPU (the limit on CPU time, `ulimit -t`)",
            152,
        ),
    ] {
        if signal == Signal::HUP && ignores_hangups() {
            println!("skipped SIGHUP: the tests were started with it ignored, as by `nohup`");
            continue;
        }
        for isolation in ["thread", "process"] {
            if isolation == "process" && signal == Signal::XCPU {
                // Which is sent to one process, and not to a group as here.
                continue;
            }
            let project = Project::new();
            project.workflow(&[task(
                0,
                "t",
                &module("probe.wasm"),
                json!({ "do": "sleep_ms", "ms": 3_600_000 }),
            )]);
            let mut running = Running::start(run_command(&project, &["--isolation", isolation]));
            running.wait_until("the call", || n_events(&project, "\"call_started\"") == 1);
            running.send(signal);
            let (ended, stderr, elapsed) = running.end();
            assert_eq!(ended, code, "{name} {isolation}: {stderr}");
            assert!(elapsed < END_TIME, "{name} {isolation}: {elapsed:?}");
            let text = format!("stopped by {name}; 0 of 1 call of task \"t\" had succeeded");
            assert!(stderr.contains(&text), "{name} {isolation}: {stderr}");
            let stored = read_events(&project.path("work/events.jsonl"), 1 << 20).expect("a log");
            let expected = EventKind::RunFinished {
                status: Status::Failed,
                error: Some("cancelled".into()),
            };
            assert_eq!(
                stored.events.last().map(|event| &event.kind),
                Some(&expected),
                "{name} {isolation}"
            );
            assert!(project.json("work/result.json").is_object());
        }
    }
}

#[test]
fn nohup_lets_a_run_outlive_its_terminal() {
    let project = Project::new();
    project.workflow(&[task(
        0,
        "t",
        &module("probe.wasm"),
        json!({ "do": "sleep_ms", "ms": 3_600_000 }),
    )]);
    for isolation in ["thread", "process"] {
        let command = run_command(&project, &["--isolation", isolation, "--resume"]);
        let n_before = n_events(&project, "\"call_started\"");
        let mut running = Running::start(confined("trap '' HUP; exec \"$@\"", &command));
        running.wait_until("the call", || {
            n_events(&project, "\"call_started\"") == n_before + 1
        });
        running.send(Signal::HUP);
        std::thread::sleep(Duration::from_millis(500));
        running.send(Signal::TERM);
        let (ended, stderr, _) = running.end();
        assert_eq!(ended, 143, "{stderr}");
    }
}

#[test]
fn the_limit_on_cpu_time_saves_the_records() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("probe.wasm"), json!({ "do": "spin" }))]);
    // Both limits: at the hard one the kernel kills.
    let running = |more: &[&str]| {
        Running::start(confined(
            "ulimit -t 8; exec \"$@\"",
            &run_command(&project, more),
        ))
    };
    // Compiled before, for which less than the limit is needed.
    project.run(&["--dry-run"]).expect(0);
    project
        .mandelbox(&["check", &module("probe.wasm")])
        .expect(0);
    let (ended, stderr, _) = running(&[]).end_while_reading();
    assert_eq!(ended, 152, "{stderr}");
    assert!(
        stderr.contains("stopped by SIGXCPU (the limit on CPU time, `ulimit -t`); 0 of 1 call"),
        "{stderr}"
    );
    assert_eq!(n_events(&project, "\"run_finished\""), 1);
    // A child that computes has the limit for itself, and its parent goes on.
    let (ended, stderr, _) = running(&["--resume", "--isolation", "process"]).end_while_reading();
    assert_eq!(ended, 4, "{stderr}");
    assert!(
        stderr.contains("it reached the limit on CPU time; raise `ulimit -t`"),
        "{stderr}"
    );
}
