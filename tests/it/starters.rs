//! Options of `run` for programs that start mandelbox: JSON answers, log lines, prepared folders,
//! the end of the parent, and several runs that share the machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mandelbox::event::{EventKind, read_events};
use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, task};
use crate::signals::{Running, n_events, run_command};

fn answer(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|err| panic!("{err}: {}", ended.stdout))
}

/// A list of three components, then a task that runs the given steps for them.
fn project(args: Value) -> Project {
    let project = Project::new();
    let list = json!({ "metadiff": { "well": ["a", "b", "c"] } });
    let mut second = parallel_task(1, "second", &module("swiss.wasm"), "well", args);
    second["id"] = json!(17);
    project.workflow(&[task(0, "list", &module("swiss.wasm"), list), second]);
    project
}

#[test]
fn the_answer_has_the_outcome_and_the_paths() {
    let project = project(json!({}));
    let ended = project.run(&["--format", "json", "--quiet"]).expect(0);
    let work = project.path("work");
    assert_eq!(
        answer(&ended),
        json!({
            "ok": true,
            "work_dir": work.to_str(),
            "output": project.path("out").to_str(),
            "error": null,
        })
    );
}

#[test]
fn a_failed_run_answers_with_its_task_and_the_whole_stderr_of_the_first_call() {
    // More than the end that messages show, and than an answer has.
    let lines = "0123456789\n".repeat(20_000) + "the end\n";
    let project = project(json!({ "per_component": {
        "b": { "exit": 5, "stderr": lines },
        "c": { "exit": 6, "stderr": "short" },
    } }));
    let more = [
        "--format",
        "json",
        "--quiet",
        "--keep-going",
        "--task-files",
        "failed",
    ];
    let error = answer(&project.run(&more).expect(3))["error"].clone();
    assert_eq!(error["kind"], "TaskExecutionError");
    assert_eq!(
        error["task"],
        json!({ "order": 1, "id": 17, "name": "second" })
    );
    let calls = &error["calls"];
    let of = |key: &str| {
        calls.as_array().map(|calls| {
            calls
                .iter()
                .map(|call| call[key].clone())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(of("item"), Some(vec![json!("b"), json!("c")]));
    assert_eq!(of("exit_code"), Some(vec![json!(5), json!(6)]));
    assert_eq!(of("outcome"), Some(vec![json!("exited"), json!("exited")]));
    let stderr = calls[0]["stderr"].as_str().expect("text");
    assert_eq!(stderr, &lines[lines.len() - 100_000..]);
    assert_eq!(calls[1]["stderr"], "short");
    let path = calls[0]["stderr_path"].as_str().expect("a path");
    assert_eq!(std::fs::read_to_string(path).expect("read"), lines);
}

#[test]
fn a_missing_component_list_is_answered_in_fractals_words() {
    let project = Project::new();
    let other = json!({ "metadiff": { "plate": ["a"], "field": [] } });
    project.workflow(&[
        task(0, "list", &module("swiss.wasm"), other),
        parallel_task(1, "second", &module("swiss.wasm"), "well", json!({})),
    ]);
    let error = answer(&project.run(&["--format", "json", "--quiet"]).expect(4))["error"].clone();
    assert_eq!(error["kind"], "JobExecutionError");
    assert_eq!(error["calls"], json!([]));
    assert_eq!(
        error["reason"],
        "WorkflowTask parallelization_level ('well') is missing in metadata keys (['plate', 'field'])."
    );
}

#[test]
fn problems_are_answered_with_their_locations() {
    let project = Project::new();
    project.write("script.sh", "#!/bin/sh\necho hello\n");
    let script = project
        .path("script.sh")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    project.workflow(&[task(0, "script", &script, json!({}))]);
    let ended = project.run(&["--format", "json"]).expect(2);
    assert_eq!(ended.stderr, "");
    let answer = answer(&ended);
    assert_eq!(answer["error"]["kind"], "DocumentsError");
    let problem = &answer["problems"][0];
    assert_eq!(problem["pointer"], "/task_list/0/task/command");
    assert_eq!(problem["file"], "workflow.json");
    assert!(!project.path("work").exists());
    project.write("workflow.json", "{\n  x");
    let answer = self::answer(&project.run(&["--format", "json"]).expect(2));
    assert_eq!(
        (
            &answer["problems"][0]["line"],
            &answer["problems"][0]["column"]
        ),
        (&json!(2), &json!(3))
    );
}

#[test]
fn a_plan_is_answered_and_nothing_written() {
    let project = project(json!({}));
    let more = [
        "--format",
        "json",
        "--dry-run",
        "--memory",
        "1G",
        "--timeout",
        "90s",
    ];
    let plan = answer(&project.run(&more).expect(0));
    assert_eq!(plan["workflow"], "test");
    assert_eq!(plan["tasks"][1]["memory_bytes"], 1 << 30);
    assert_eq!(plan["tasks"][1]["wall_time_s"], 90.0);
    assert_eq!(plan["tasks"][1]["id"], 17);
    assert_eq!(
        plan["folders"],
        json!([
            { "path": project.path("in").to_str(), "writable": false },
            { "path": project.path("out").to_str(), "writable": true },
        ])
    );
    assert!(!project.path("work").exists());
}

#[test]
fn only_one_kind_of_data_is_written_to_stdout() {
    let project = project(json!({}));
    project
        .run(&["--log", "-", "--events", "-", "--result", "-"])
        .expect(2)
        .reports(&[
            "--events -: only one of `--result` and `--events` can go to stdout",
            "--log -: only one of `--result` and `--log` can go to stdout",
        ]);
    project.run(&["--format", "json", "--log", "-"]).expect(2);
}

#[test]
fn a_prepared_folder_keeps_its_log_and_gets_no_lines() {
    let project = project(json!({ "per_component": { "b": { "exit": 5 } } }));
    project.write("work/workflow.log", "the server's own line\n");
    project.write("work/0_list/note", "");
    project.run(&[]).expect(2).reports(&["already exists"]);
    let more = ["--prepared-work-dir", "--log", "lines", "--quiet"];
    project.run(&more).expect(3);
    assert_eq!(project.read("work/workflow.log"), "the server's own line\n");
    let lines: Vec<Value> = project
        .read("lines")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line["text"].as_str().expect("text"))
        .collect();
    assert_eq!(
        texts,
        [
            "SUBMIT 0-th task (name=\"list\")",
            "END    0-th task (name=\"list\")",
            "SUBMIT 1-th task (name=\"second\")",
            "component \"b\" exited with code 5",
        ]
    );
    assert_eq!(
        (&lines[0]["level"], &lines[3]["level"]),
        (&json!("DEBUG"), &json!("ERROR"))
    );
    // Now it contains a run.
    project.run(&more).expect(2).reports(&["already exists"]);
    // Records of every version of Fractal stay, even without a log of the run.
    for record in [
        "dataset.json",
        "status.json",
        "metadata.json",
        "result.json",
    ] {
        let folder = format!("with-{record}");
        project.write(&format!("{folder}/{record}"), "{}");
        let work_dir = ["--work-dir", &folder, "--prepared-work-dir"];
        let run = ["run", "workflow.json", "--output", "out"];
        let ended = project.mandelbox(&[&run[..], &work_dir].concat());
        ended.expect(2).reports(&["already exists"]);
        assert_eq!(project.read(&format!("{folder}/{record}")), "{}");
    }
    // With a log of its own, the run appends to the prepared one.
    project.write("other/workflow.log", "the server's own line\n");
    project
        .mandelbox(&[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            "other",
            "--prepared-work-dir",
            "--quiet",
        ])
        .expect(3);
    let log = project.read("other/workflow.log");
    assert!(
        log.starts_with("the server's own line\n") && log.contains("START workflow"),
        "{log}"
    );
}

#[test]
fn an_input_inside_the_output_is_accepted_on_request() {
    let project = Project::new();
    project.write("out/images/a.txt", "image");
    let path = project.path("out/images/new.txt");
    let step = json!({ "do": "write", "path": path.to_str(), "text": "x" });
    project.workflow(&[task(0, "t", &module("probe.wasm"), step)]);
    let arguments = [
        "run",
        "workflow.json",
        "--input",
        "out/images",
        "--output",
        "out",
        "--work-dir",
        "work",
        "--quiet",
    ];
    project
        .mandelbox(&arguments)
        .expect(2)
        .reports(&["inside the output path"]);
    let accepted: Vec<_> = arguments.into_iter().chain(["--input-in-output"]).collect();
    project.mandelbox(&accepted).expect(0);
    assert!(path.exists(), "tasks can write to it");
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test prints the reason")]
fn a_work_directory_in_a_bind_mount_of_the_output_is_refused() {
    let project = project(json!({}));
    for name in ["real", "mount"] {
        std::fs::create_dir(project.path(name)).expect("made");
    }
    let program = project.command(&[
        "run",
        "workflow.json",
        "--output",
        "mount",
        "--work-dir",
        "real/work",
    ]);
    // The mount disappears with its namespace.
    let mut mounted = Command::new("unshare");
    mounted
        .args(["-m", "sh", "-c"])
        .arg("mount --bind real mount || exit 99; exec \"$@\"")
        .arg("sh")
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(project.path(""))
        .stdin(Stdio::null());
    let output = match mounted.output() {
        Ok(output) if matches!(output.status.code(), Some(0 | 2)) => output,
        _ => {
            println!("skipped: this user cannot mount a folder");
            return;
        }
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("contains the work directory"), "{stderr}");
    assert!(!project.path("real/work").exists());
}

#[test]
fn a_run_stops_with_its_parent_and_is_resumed() {
    let project = project(json!({ "sleep_ms": 1000 }));
    let arguments = [
        "run",
        "workflow.json",
        "--input",
        "in",
        "--output",
        "out",
        "--work-dir",
        "work",
        "--jobs",
        "1",
    ];
    let mut program = project.command(&arguments);
    program.arg("--die-with-parent");
    // A shell that starts the program, and is killed. The program outlives it.
    let line: Vec<_> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_str().expect("UTF-8"))
        .collect();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "\"$@\" $$ & wait", "sh"])
        .args(&line)
        .current_dir(project.path(""))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    let mut running = Running::start(shell);
    running.wait_until("the second call", || {
        n_events(&project, "call_finished") == 2
    });
    running.0.kill().expect("killed");
    running.0.wait().expect("ended");
    let started = Instant::now();
    while n_events(&project, "run_finished") == 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let n_before = n_events(&project, "\"outcome\":\"succeeded\"");
    assert!(n_before < 4);
    // The lock is released a moment after the last event.
    std::thread::sleep(Duration::from_millis(500));
    project.run(&["--resume"]).expect(0);
    assert_eq!(n_events(&project, "\"outcome\":\"succeeded\""), 4);
    // The process that is named is not the parent: it has ended.
    let project = self::project(json!({ "sleep_ms": 60_000 }));
    project.run(&["--die-with-parent", "1"]).expect(143);
}

/// Number of calls of all runs that went on at the same time at most. The log has the times at
/// which starts and ends were recorded, so the first and the last moments of a call do not count.
fn most_at_a_time(logs: &[&Path]) -> usize {
    const RECORDING: jiff::SignedDuration = jiff::SignedDuration::from_millis(100);
    let mut changes: Vec<(jiff::Timestamp, i32)> = Vec::new();
    for log in logs {
        let events = read_events(log, 1 << 20).expect("events").events;
        let mut started = Vec::new();
        for event in &events {
            match &event.kind {
                EventKind::CallStarted { call, .. } => started.push((call.clone(), event.time)),
                EventKind::CallFinished { call, .. } => {
                    let start = started.iter().find(|(of, _)| of == call);
                    let (start, end) = (start.expect("a start").1, event.time);
                    if start + 2 * RECORDING < end {
                        changes.push((start + RECORDING, 1));
                        changes.push((end - RECORDING, -1));
                    }
                }
                _ => {}
            }
        }
    }
    changes.sort();
    let (mut n, mut most) = (0, 0);
    for (_, change) in changes {
        n += change;
        most = most.max(n);
    }
    usize::try_from(most).expect("no more ends than starts")
}

#[test]
fn runs_that_share_a_folder_share_the_machine() {
    let projects: Vec<_> = (0..3)
        .map(|_| project(json!({ "sleep_ms": 300 })))
        .collect();
    let share = Project::new();
    let folder = share.path("share").to_str().expect("UTF-8").to_owned();
    let running: Vec<_> = projects
        .iter()
        .map(|project| {
            Running::start(run_command(
                project,
                &["--jobs", "2", "--share", &folder, "--quiet"],
            ))
        })
        .collect();
    for running in running {
        let (code, stderr, _) = running.end();
        assert_eq!(code, 0, "{stderr}");
    }
    let logs: Vec<_> = projects
        .iter()
        .map(|project| project.path("work/events.jsonl"))
        .collect();
    let logs: Vec<_> = logs.iter().map(std::path::PathBuf::as_path).collect();
    let most = most_at_a_time(&logs);
    assert_eq!(most, 2);
    let left: Vec<_> = std::fs::read_dir(share.path("share"))
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn runs_that_share_a_folder_share_memory_and_outlive_a_killed_one() {
    let share = Project::new();
    let folder = share.path("share").to_str().expect("UTF-8").to_owned();
    let more = [
        "--jobs", "4", "--share", &folder, "--memory", "100M", "--quiet",
    ];
    let policy = |project: &Project| {
        project.write("policy.toml", "[host]\nmemory = \"150M\"\n");
    };
    let (killed, other) = (
        project(json!({ "sleep_ms": 60_000 })),
        project(json!({ "sleep_ms": 50 })),
    );
    policy(&killed);
    policy(&other);
    let more: Vec<_> = more
        .into_iter()
        .chain(["--policy", "policy.toml"])
        .collect();
    let mut running = Running::start(run_command(&killed, &more));
    running.wait_until("a call that sleeps", || {
        n_events(&killed, "call_started") == 2
    });
    let mut waiting = Running::start(run_command(&other, &more));
    waiting.wait_until("its start", || n_events(&other, "task_started") == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        n_events(&other, "call_started"),
        0,
        "there is memory for one call"
    );
    running.0.kill().expect("killed");
    running.0.wait().expect("ended");
    let (code, stderr, _) = waiting.end();
    assert_eq!(code, 0, "{stderr}");
}
