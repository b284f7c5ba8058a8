//! Runs that are killed at any moment, and disks that fail: nothing that was reported is lost or made
//! again.
//!
//! Few moments are tried where `MANDELBOX_TEST_WHOLE` is not set; with it all that are named here.

#![expect(
    clippy::print_stdout,
    reason = "prints what was skipped, and how much was tried"
)]

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::project::{Ended, Project, copy_env, finish, fractal_history, module, parallel_task};
use crate::strace::{can_trace, traced};

const N_COMPONENTS: usize = 60;
/// System calls with which records and the files of calls are written.
const WRITES: &str =
    "write,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,mkdir,ftruncate";

/// Returns true if all moments are tried.
fn is_whole() -> bool {
    std::env::var_os("MANDELBOX_TEST_WHOLE").is_some()
}

/// Every `part`-th of these moments, or all.
fn moments(all: std::ops::Range<usize>, part: usize) -> impl Iterator<Item = usize> {
    all.step_by(if is_whole() { 1 } else { part })
}

/// Three tasks of 60 components: commands with files and typed tasks, each with a metadiff.
fn project() -> Project {
    let project = Project::new();
    let command = json!({ "echo": ["component"], "stdout": "said", "sleep_ms": 2 });
    let steps = json!([{ "do": "log", "level": "info", "message": "logged" }, { "do": "sleep_ms", "ms": 2 }, { "do": "args" }]);
    project.workflow(&[
        parallel_task(0, "first", &module("swiss.wasm"), "list", command.clone()),
        parallel_task(
            1,
            "typed",
            &module("typed.wasm"),
            "list",
            json!({ "steps": steps }),
        ),
        parallel_task(2, "last", &module("swiss.wasm"), "list", command),
    ]);
    let list: Vec<_> = (0..N_COMPONENTS)
        .map(|index| format!("B/{:02}/{index}", index % 12))
        .collect();
    project.write("metadata.json", json!({ "list": list }).to_string());
    project
}

const RUN: [&str; 13] = [
    "run",
    "workflow.json",
    "--input",
    "in",
    "--output",
    "out",
    "--work-dir",
    "work",
    "--metadata",
    "metadata.json",
    "--resume",
    "--events",
    "-",
];

/// What an undisturbed run gives, but for times.
fn undisturbed() -> (Value, Vec<Value>) {
    let project = project();
    finish(project.command(&RUN)).expect(0);
    result(&project)
}

fn result(project: &Project) -> (Value, Vec<Value>) {
    let result = project.json("work/result.json");
    assert_eq!(result["metadata"], project.json("work/metadata.json"));
    assert_eq!(result["history"], project.json("work/history.json"));
    (
        result["metadata"].clone(),
        fractal_history(&result["history"]),
    )
}

/// Task and position of a call, and its event's number.
type CallEvent = (u64, u64, u64);

/// Calls in whole lines of a log: those that began, and those that succeeded.
fn calls(log: &str) -> (Vec<CallEvent>, Vec<CallEvent>) {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let (mut began, mut done) = (Vec::new(), Vec::new());
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
        let number = |key: &str| event[key].as_u64().expect("a number");
        match event["event"].as_str() {
            Some("call_started") => {
                began.push((number("task"), number("call_index"), number("seq")))
            }
            Some("call_finished") if event["outcome"] == "succeeded" => {
                done.push((number("task"), number("call_index"), number("seq")));
            }
            _ => {}
        }
    }
    (began, done)
}

/// A run in a work directory that is disturbed again and again.
struct Disturbed {
    project: Project,
    /// Calls that a reader of events has seen to succeed.
    reported: Vec<CallEvent>,
    /// Runs that did not come to their end.
    n_cut_short: usize,
}

/// What an undisturbed run gives, and the runs that were compared with it: it fails a test whose
/// disturbances did not disturb, or that came before anything could be lost.
struct Tally {
    expected: (Value, Vec<Value>),
    n_moments: usize,
    n_cut_short: usize,
    n_reported_in_part: usize,
}

impl Tally {
    fn new() -> Self {
        Self {
            expected: undisturbed(),
            n_moments: 0,
            n_cut_short: 0,
            n_reported_in_part: 0,
        }
    }

    fn check(&self) {
        let n_moments = self.n_moments;
        println!(
            "{n_moments} work directories, {} runs cut short, {} of them between calls that were \
             reported",
            self.n_cut_short, self.n_reported_in_part
        );
        assert!(
            self.n_cut_short * 2 >= n_moments,
            "only {} of {n_moments} were cut short",
            self.n_cut_short
        );
        assert!(
            self.n_reported_in_part * 4 >= n_moments,
            "only {} of {n_moments} had reported a call",
            self.n_reported_in_part
        );
    }
}

impl Disturbed {
    fn new() -> Self {
        Self {
            project: project(),
            reported: Vec::new(),
            n_cut_short: 0,
        }
    }

    /// Runs a command whose stdout takes events, and keeps the events; `end` may end it.
    fn run(&mut self, mut command: Command, end: impl FnOnce(&mut std::process::Child)) -> Ended {
        let (events, stderr) = (self.project.path("events"), self.project.path("stderr"));
        let started = Instant::now();
        let stdout = Stdio::from(File::create(&events).expect("made"));
        let mut child = command
            .stdout(stdout)
            .stderr(File::create(&stderr).expect("made"))
            .spawn()
            .expect("started");
        end(&mut child);
        let status = child.wait().expect("ended");
        self.reported.extend(calls(&self.project.read("events")).1);
        self.n_cut_short += usize::from(!status.success());
        let stderr = String::from_utf8_lossy(&std::fs::read(stderr).expect("there")).into_owned();
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr,
            elapsed: started.elapsed(),
        }
    }

    /// Takes the run up undisturbed, and checks that it has become what it would have been.
    fn finish(mut self, what: &str, tally: &mut Tally) {
        tally.n_moments += 1;
        tally.n_cut_short += self.n_cut_short;
        tally.n_reported_in_part +=
            usize::from((1..3 * N_COMPONENTS).contains(&self.reported.len()));
        let command = self.project.command(&RUN);
        let ended = self.run(command, |_| {});
        assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        let log = self.project.read("work/events.jsonl");
        let (began, done) = calls(&log);
        for (task, call, seq) in &self.reported {
            assert!(
                done.contains(&(*task, *call, *seq)),
                "{what}: call {call} of task {task} is lost"
            );
            let again = began
                .iter()
                .any(|other| (other.0, other.1) == (*task, *call) && other.2 > *seq);
            assert!(!again, "{what}: call {call} of task {task} is made again");
        }
        let ended_well: Vec<_> = done.iter().map(|(task, call, _)| (*task, *call)).collect();
        let different: BTreeSet<_> = ended_well.iter().collect();
        assert_eq!(
            (ended_well.len(), different.len()),
            (3 * N_COMPONENTS, 3 * N_COMPONENTS),
            "{what}"
        );
        assert_eq!(result(&self.project), tally.expected, "{what}");
        for path in self.project.tree() {
            assert!(!path.contains("/."), "{what}: {path} is left");
            let is_json = path.starts_with("work/") && path.ends_with(".json");
            assert!(
                !is_json || self.project.json(&path) != Value::Null,
                "{what}: {path}"
            );
        }
        for task in ["0_first", "2_last"] {
            let files = std::fs::read_dir(self.project.path("work").join(task))
                .expect("a folder")
                .count();
            assert_eq!(files, 4 * N_COMPONENTS, "{what}: files of {task}");
        }
    }
}

fn kill(child: &mut std::process::Child) {
    child.kill().expect("killed");
}

#[test]
fn kills_at_random_moments_lose_nothing() {
    let mut tally = Tally::new();
    for seed in moments(0..200, 20) {
        let mut random = StdRng::seed_from_u64(seed as u64);
        let mut disturbed = Disturbed::new();
        // Up to three in one work directory.
        for _ in 0..random.random_range(1..=3) {
            let wait = Duration::from_millis(random.random_range(5..400));
            let command = disturbed.project.command(&RUN);
            disturbed.run(command, |child| {
                std::thread::sleep(wait);
                kill(child);
            });
        }
        disturbed.finish(&format!("seed {seed}"), &mut tally);
    }
    tally.check();
}

/// The program under a tracer that does something at the n-th of some system calls, in each thread.
fn disturbing(project: &Project, calls: &str, action: &str, n: usize) -> Command {
    let options = [
        "-e",
        &format!("trace={calls}"),
        "-e",
        &format!("inject={calls}:{action}:when={n}"),
    ];
    traced(&project.command(&RUN), "trace", &options)
}

#[test]
fn a_kill_at_every_write_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut tally = Tally::new();
    for n in moments(1..150, 15) {
        let mut disturbed = Disturbed::new();
        for n in [n, n / 2 + 1] {
            let command = disturbing(&disturbed.project, WRITES, "signal=KILL", n);
            disturbed.run(command, |_| {});
        }
        disturbed.finish(&format!("killed at write {n}"), &mut tally);
    }
    tally.check();
}

#[test]
fn a_disk_that_fails_at_any_write_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut tally = Tally::new();
    for (index, n) in moments(1..101, 10).enumerate() {
        // Each error at each moment, or one after the other where few moments are tried.
        let errors = ["ENOSPC", "EIO"];
        let tried = if is_whole() {
            &errors[..]
        } else {
            &errors[index % 2..][..1]
        };
        for error in tried {
            let mut disturbed = Disturbed::new();
            let command = disturbing(&disturbed.project, WRITES, &format!("error={error}"), n);
            let ended = disturbed.run(command, |_| {});
            let what = format!("{error} at write {n}: {}", ended.stderr);
            assert!(
                [0, 1, 3, 4].contains(&ended.code),
                "exit code {}, {what}",
                ended.code
            );
            assert!(
                !ended.stderr.contains("panicked") && !ended.stderr.contains("bug of mandelbox"),
                "{what}"
            );
            disturbed.finish(&what, &mut tally);
        }
    }
    tally.check();
}

/// The starts (`false`) and ends (`true`) of the system calls of a trace, in order.
fn steps(trace: &str) -> Vec<(bool, &str)> {
    let mut open = HashMap::new();
    let mut steps = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').expect("a thread and its call");
        let call = call.trim_start();
        if call.ends_with("<unfinished ...>") {
            open.insert(thread, call);
            steps.push((false, call));
        } else if call.starts_with("<... ") {
            steps.push((true, open.remove(thread).expect("a call that has begun")));
        } else {
            steps.extend([(false, call), (true, call)]);
        }
    }
    steps
}

#[test]
fn reports_and_replaced_records_are_on_disk_before() {
    if !can_trace() {
        return;
    }
    let project = project();
    // Texts are left out, files are named: `write(1</work/events.jsonl>, ""..., 234) = 234`.
    let calls = "trace=write,fsync,fdatasync,rename,renameat,renameat2";
    let options = ["-e", calls, "-y", "-s", "0"];
    let mut command = traced(&project.command(&RUN), "trace", &options);
    command
        .stdout(File::create(project.path("events")).expect("made"))
        .stderr(Stdio::null());
    assert!(command.status().expect("started").success());
    let path = |name: &str| project.path(name).to_str().expect("UTF-8").to_owned();
    let (work, log, reported) = (path("work"), path("work/events.jsonl"), path("events"));
    let records =
        ["metadata.json", "history.json", "result.json"].map(|name| path("work") + "/" + name);
    let (mut n_written, mut n_synced, mut n_reported, mut n_records) = (0, 0, 0, 0);
    let mut synced = BTreeSet::new();
    let mut is_rename_synced = true;
    for (has_ended, call) in steps(&project.read("trace")) {
        let file = call.split(['<', '>']).nth(1).unwrap_or_default();
        let n_bytes = call
            .rsplit("..., ")
            .next()
            .and_then(|rest| rest.split([')', ' ']).next()?.parse::<usize>().ok());
        let quoted: Vec<_> = call.split('"').skip(1).step_by(2).collect();
        match (call.split('(').next().expect("a name"), has_ended) {
            ("write", false) if file == reported => {
                n_reported += n_bytes.expect("a length");
                assert!(
                    n_reported <= n_synced,
                    "{n_reported} bytes were reported and {n_synced} are on disk: {call}"
                );
                assert!(
                    synced.contains(work.as_str()),
                    "the log's name is not on disk: {call}"
                );
            }
            ("write", false) if file == log => {
                assert!(
                    is_rename_synced,
                    "a record that has taken its place may not be on disk: {call}"
                );
            }
            ("write", true) if file == log => n_written += n_bytes.expect("a length"),
            ("fdatasync", true) if file == log => n_synced = n_written,
            ("fsync", true) => {
                synced.insert(file);
                is_rename_synced |= file == work;
            }
            (name, false)
                if name.starts_with("rename")
                    && records.iter().any(|record| quoted[1] == record) =>
            {
                assert!(
                    synced.contains(quoted[0]),
                    "a record is renamed before it is on disk: {call}"
                );
                is_rename_synced = false;
                n_records += 1;
            }
            _ => {}
        }
    }
    assert_eq!(project.read("events"), project.read("work/events.jsonl"));
    assert_eq!(
        (n_reported, n_records),
        (project.read("events").len(), 3 * 2 + 1),
        "not all was in the trace"
    );
}

#[test]
fn a_file_system_that_fills_up_loses_nothing() {
    let project = Project::new();
    let mounted = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(project.path("in"))
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    // 60 calls print 24 MiB in all, and 14 are free.
    let args = json!({ "stdout": "x".repeat(400 << 10), "echo": ["component"] });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "list", args)]);
    project.write(
        "metadata.json",
        json!({ "list": (0..N_COMPONENTS).collect::<Vec<_>>() }).to_string(),
    );
    let script = r#"
        mkdir small && mount -t tmpfs -o size=64m tmpfs small && head -c 50M /dev/zero > small/ballast
        run() { "$0" run workflow.json --output out --work-dir small/work --metadata metadata.json --keep-going "$@"; }
        run 2> first; echo $? >> codes
        grep -c '"outcome":"succeeded"' small/work/events.jsonl > n_done
        cp small/work/events.jsonl full.jsonl
        rm small/ballast
        run --resume 2> second; echo $? >> codes
        cp -r small/work work
    "#;
    let program = project.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(program.get_program())
        .current_dir(project.path(""));
    copy_env(&program, &mut command);
    finish(command);
    let (first, codes) = (project.read("first"), project.read("codes"));
    let codes: Vec<_> = codes.lines().collect();
    assert!(codes[0] == "4" || codes[0] == "1", "{codes:?} {first}");
    assert!(first.contains("No space left on device"), "{first}");
    assert_eq!(codes[1], "0", "{}", project.read("second"));
    let n_done: usize = project.read("n_done").trim().parse().expect("a number");
    assert!(
        (1..N_COMPONENTS).contains(&n_done),
        "{n_done} calls had ended well"
    );
    let (began, done) = calls(&project.read("work/events.jsonl"));
    let n_before = calls(&project.read("full.jsonl")).0.len();
    assert_eq!(
        (done.len(), began.len() - n_before),
        (N_COMPONENTS, N_COMPONENTS - n_done)
    );
    let echoes = project.json("work/result.json")["metadata"]["echo"]
        .as_array()
        .expect("a list")
        .len();
    assert_eq!(echoes, N_COMPONENTS);
}
