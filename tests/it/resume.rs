//! Runs that are taken up again, and calls that are tried again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mandelbox::backend::Scripted;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{CallSpec, Outcome, Retries};
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{Error, ProcessWorkflow, RunOptions};
use serde_json::{Value, json};

use crate::project::{
    ISOLATIONS, Project, fractal_history, module, parallel_task, quoted, resealed, task,
};

const RESUME: [&str; 2] = ["--resume", "--keep-going"];

/// Events of a kind, in order.
fn events(project: &Project, kind: &str) -> Vec<Value> {
    let log = project.read("work/events.jsonl");
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    events.filter(|event| event["event"] == kind).collect()
}

/// Task and component of each call that was begun, from an event on.
fn begun(project: &Project, from_seq: usize) -> Vec<(u64, Value)> {
    let is_later = |event: &Value| {
        event["seq"]
            .as_u64()
            .is_some_and(|seq| seq >= from_seq as u64)
    };
    let started = events(project, "call_started").into_iter().filter(is_later);
    started
        .map(|event| {
            (
                event["task"].as_u64().expect("an order"),
                event["item"].clone(),
            )
        })
        .collect()
}

fn n_events(project: &Project) -> usize {
    project.read("work/events.jsonl").lines().count()
}

fn has_note(project: &Project, text: &str) -> bool {
    let notes = ["note", "rerun"].map(|kind| events(project, kind)).concat();
    notes.iter().any(|note| {
        note["message"]
            .as_str()
            .is_some_and(|message| message.contains(text))
    })
}

/// Components of calls of one task, or its one call.
fn of_task(order: u64, components: &[&str]) -> Vec<(u64, Value)> {
    components
        .iter()
        .map(|component| (order, json!(component)))
        .collect()
}

fn image(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/otsu/images")
        .join(name);
    std::fs::read(path).expect("an image of the examples")
}

/// What `status` says of each task.
fn status_of_tasks(project: &Project, key: &str) -> Vec<Value> {
    let status = project
        .mandelbox(&["status", "work", "--format", "json"])
        .expect(0);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    status["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(|task| task[key].clone())
        .collect()
}

#[test]
fn after_a_repair_only_the_failed_components_run() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        let images = ["a.pgm", "b.pgm", "c.pgm", "d.pgm"];
        images
            .iter()
            .for_each(|name| drop(project.write(&format!("in/{name}"), image("cells.pgm"))));
        project.write("in/b.pgm", "no image");
        project.write("metadata.json", json!({ "image": images }).to_string());
        let otsu = parallel_task(0, "otsu", &module("otsu-rust.wasm"), "image", json!({}));
        let last = task(
            1,
            "last",
            &module("swiss.wasm"),
            json!({ "echo": ["metadata"] }),
        );
        project.workflow(&[otsu, last]);
        let more = ["--metadata", "metadata.json", "--isolation", isolation];
        let run = |more_yet: &[&str]| project.run(&[&more[..], more_yet].concat());
        run(&["--keep-going"]).expect(3).says(&[
            "b.pgm",
            "resume: the same command with `--work-dir ",
            "/work --resume`",
        ]);
        let stderr_file = project.path("work/0_otsu/0_par_b_pgm.err");
        let said = std::fs::read_to_string(&stderr_file).expect("there");
        assert!(said.contains("no binary PGM image"), "{said}");

        // Nothing was repaired: the same again.
        let before = n_events(&project);
        run(&RESUME).expect(3).says(&["b.pgm"]);
        assert_eq!(begun(&project, before), of_task(0, &["b.pgm"]));
        assert_eq!(
            events(&project, "call_started").last().expect("a call")["attempt"],
            2
        );

        project.write("in/b.pgm", image("nuclei.pgm"));
        let before = n_events(&project);
        run(&RESUME)
            .expect(0)
            .says(&["[1/2] otsu: 4 calls, 3 reused\n"]);
        assert_eq!(
            begun(&project, before),
            [of_task(0, &["b.pgm"]), vec![(1, Value::Null)]].concat()
        );
        assert_eq!(
            events(&project, "call_started")
                .iter()
                .rev()
                .nth(1)
                .expect("a call")["attempt"],
            3
        );
        assert!(has_note(
            &project,
            "3 of 4 calls had succeeded; their results are reused"
        ));
        assert_eq!(std::fs::read_to_string(&stderr_file).expect("there"), "");
        let log = project.read("work/workflow.log");
        assert_eq!(
            log.matches("Start execution of workflow").count(),
            1,
            "{log}"
        );
        assert_eq!(
            log.matches("Resume execution of workflow").count(),
            2,
            "{log}"
        );

        let resumed = project.json("work/result.json");
        assert_eq!(resumed["metadata"], project.json("work/metadata.json"));
        assert_eq!(resumed["history"], project.json("work/history.json"));
        let report = project.read("work/report.html");
        for text in ["a.pgm", "b.pgm", "d.pgm"] {
            assert!(report.contains(text), "the report has no {text}");
        }
        let counts = |key: &str| status_of_tasks(&project, key);
        assert_eq!(
            (counts("n_reused"), counts("n_done")),
            (vec![json!(3), json!(0)], vec![json!(4), json!(1)])
        );

        // Reused whole, a task keeps its times.
        let before = status_of_tasks(&project, "started");
        run(&RESUME).expect(0);
        assert_eq!(status_of_tasks(&project, "started"), before);

        // An undisturbed run gives the same.
        let undisturbed = ["--work-dir", "other", "--output", "out"];
        let arguments = [
            &["run", "workflow.json", "--input", "in"],
            &more[..],
            &undisturbed,
        ]
        .concat();
        project.mandelbox(&arguments).expect(0);
        let other = project.json("other/result.json");
        assert_eq!(resumed["metadata"], other["metadata"]);
        assert_eq!(
            fractal_history(&resumed["history"]),
            fractal_history(&other["history"])
        );

        // A run that has ended well is taken up, too, and has nothing to do.
        let before = n_events(&project);
        run(&RESUME).expect(0);
        assert_eq!(begun(&project, before), []);
        let again = project.json("work/result.json");
        assert_eq!(again["metadata"], resumed["metadata"]);
        assert_eq!(
            fractal_history(&again["history"]),
            fractal_history(&resumed["history"])
        );
    }
}

/// Three tasks, of which the second one has components and does not see their list, and the last
/// sees nothing.
fn tasks() -> [Value; 3] {
    let with = |mut task: Value, options: Value| {
        task["task"]["meta"]["mandelbox"] = options;
        task
    };
    let none = json!({ "metadata_keys": [] });
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { "list": ["x", "y", "x", "z"] } }),
    );
    let each = parallel_task(
        1,
        "each",
        &module("swiss.wasm"),
        "list",
        json!({ "echo": ["component"] }),
    );
    let last = task(
        2,
        "last",
        &module("swiss.wasm"),
        json!({ "metadiff": { "done": true } }),
    );
    [
        with(list, none.clone()),
        with(each, none.clone()),
        with(last, none),
    ]
}

fn check_change(
    change: impl FnOnce(&mut [Value; 3]),
    options: &[&str],
    expected: &[(u64, Value)],
    note: &str,
) {
    let project = Project::new();
    let mut tasks = tasks();
    project.workflow(&tasks);
    project.run(&[]).expect(0);
    let before = n_events(&project);
    change(&mut tasks);
    project.workflow(&tasks);
    let ended = project
        .run(&[&["--resume", "--jobs", "1"], options].concat())
        .expect(0);
    assert_eq!(begun(&project, before), expected, "{note}");
    let reasons = events(&project, "rerun");
    assert!(has_note(&project, note), "{note}: {reasons:?}");
    for reason in &reasons {
        let message = reason["message"].as_str().expect("a text");
        assert!(ended.stderr.contains(&format!("rerun: {message}\n")));
    }
    let resumed = project.json("work/result.json");
    // From here on it is the run that it has become.
    let before = n_events(&project);
    project.run(&[&["--resume"], options].concat()).expect(0);
    assert_eq!(begun(&project, before), []);
    project
        .mandelbox(
            &[
                &["run", "workflow.json", "--input", "in", "--output", "out"],
                options,
            ]
            .concat(),
        )
        .expect(0);
    let runs = std::fs::read_dir(project.path("mandelbox-runs"))
        .expect("a folder")
        .next()
        .expect("a run")
        .expect("one");
    let other: Value =
        serde_json::from_slice(&std::fs::read(runs.path().join("result.json")).expect("there"))
            .expect("JSON");
    assert_eq!(resumed["metadata"], other["metadata"], "{note}");
    assert_eq!(
        fractal_history(&resumed["history"]),
        fractal_history(&other["history"]),
        "{note}"
    );
}

#[test]
fn what_has_changed_runs_again_with_all_that_rests_on_it_and_the_log_says_why() {
    let all_of_1 = of_task(1, &["x", "y", "x", "z"]);
    let last = vec![(2, Value::Null)];
    let args =
        |tasks: &mut [Value; 3]| tasks[1]["args"]["echo"] = json!(["component", "input_paths"]);
    check_change(
        args,
        &[],
        &[all_of_1.clone(), last.clone()].concat(),
        "task 1 \"each\": 4 calls had succeeded but are rerun: the arguments, or what else the task sees, have changed",
    );
    let module_of_last =
        |tasks: &mut [Value; 3]| tasks[2]["task"]["command"] = json!(module("swiss.p2.wasm"));
    check_change(
        module_of_last,
        &[],
        &last,
        "1 calls had succeeded but are rerun: the module has changed",
    );
    let args_of_last =
        |tasks: &mut [Value; 3]| tasks[2]["args"]["metadiff"] = json!({ "done": false });
    check_change(
        args_of_last,
        &[],
        &last,
        "the arguments, or what else the task sees, have changed",
    );
    let limit =
        |tasks: &mut [Value; 3]| tasks[1]["task"]["meta"]["mandelbox"]["timeout"] = json!("1h");
    check_change(
        limit,
        &[],
        &[all_of_1.clone(), last.clone()].concat(),
        "a limit is lower now: time 3600 s, was unlimited",
    );
    let everything = [vec![(0, Value::Null)], all_of_1, last].concat();
    check_change(
        |_| {},
        &["--memory", "1GiB"],
        &everything,
        "a limit is lower now: memory 1 GiB, was 4 GiB",
    );
    check_change(
        |_| {},
        &["--memory", "1GiB"],
        &everything,
        "its data changes, so the tasks after it are rerun",
    );
}

#[test]
fn all_that_a_task_sees_beside_its_data_counts() {
    const ARGS: &str = "the arguments, or what else the task sees, have changed";
    let project = Project::new();
    project.write(
        "policy.toml",
        format!(
            "[packages]\nenv = [\"TZ\"]\nmounts = [{:?}]\n",
            project.path("in")
        ),
    );
    project.write("metadata.json", r#"{"seen": 1}"#);
    let mut seen = task(0, "t", &module("typed.wasm"), json!({ "steps": [] }));
    seen["meta"]["mandelbox"] = json!({ "metadata_in_args": false });
    let run = |seen: &Value, more: &[&str]| {
        project.workflow(std::slice::from_ref(seen));
        let before = std::fs::read_to_string(project.path("work/events.jsonl"))
            .map_or(0, |log| log.lines().count());
        project
            .run(
                &[
                    &[
                        "--metadata",
                        "metadata.json",
                        "--policy",
                        "policy.toml",
                        "--resume",
                    ],
                    more,
                ]
                .concat(),
            )
            .expect(0);
        begun(&project, before).len()
    };
    assert_eq!(run(&seen, &[]), 1);
    type Change = fn(&Project, &mut Value);
    let changes: [(&str, Change); 6] = [
        ("fixed args", |_, task| {
            task["task"]["command"] = json!(quoted(&module("typed.wasm")) + " fixed")
        }),
        ("env", |_, task| {
            task["meta"]["mandelbox"]["env"] = json!({ "TZ": "UTC" })
        }),
        ("value in env", |_, task| {
            task["meta"]["mandelbox"]["env"]["TZ"] = json!("CET")
        }),
        ("mounts", |_, task| {
            task["meta"]["mandelbox"]["mounts"] = json!({ "/a": "in" })
        }),
        ("path of a mount", |_, task| {
            task["meta"]["mandelbox"]["mounts"] = json!({ "/b": "in" })
        }),
        ("metadata", |project, _| {
            drop(project.write("metadata.json", r#"{"seen": 2}"#))
        }),
    ];
    for (what, change) in changes {
        change(&project, &mut seen);
        assert_eq!((run(&seen, &[]), run(&seen, &[])), (1, 0), "{what}");
    }
    let n_notes = events(&project, "rerun")
        .iter()
        .filter(|note| note.to_string().contains(ARGS))
        .count();
    assert_eq!(n_notes, changes.len());
    let deterministic = ["--deterministic"];
    assert_eq!(
        (run(&seen, &deterministic), run(&seen, &deterministic)),
        (1, 0)
    );
    let version = format!("\"mandelbox_version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let log = project.read("work/events.jsonl");
    project.write(
        "work/events.jsonl",
        resealed(&log.replace(&version, "\"mandelbox_version\":\"0.0.0\"")),
    );
    assert_eq!(
        (run(&seen, &deterministic), run(&seen, &deterministic)),
        (1, 0)
    );
    assert!(has_note(
        &project,
        "the version of mandelbox has changed (it was 0.0.0)"
    ));
}

/// Resumes a run whose task 1 had one set of limits and has another now, and checks how many of its
/// calls start, and the reason for them.
fn check_limits(before: &[&str], now: &[&str], n_begun: usize, reason: Option<&str>) {
    let project = Project::new();
    project.workflow(&tasks());
    project.run(before).expect(0);
    let n_before = n_events(&project);
    let ended = project.run(&[&["--resume"], now].concat()).expect(0);
    assert_eq!(begun(&project, n_before).len(), n_begun, "{now:?}");
    match reason {
        Some(reason) => assert!(ended.stderr.contains(reason), "{}", ended.stderr),
        None => assert!(!ended.stderr.contains("rerun"), "{}", ended.stderr),
    }
}

#[test]
fn raised_limits_keep_results_and_lowered_ones_do_not() {
    let limits = ["--memory", "1GiB", "--timeout", "1h"];
    for raised in [
        &["--memory", "2GiB", "--timeout", "1h"][..],
        &["--memory", "1GiB", "--timeout", "2h"],
        &["--memory", "1GiB"],
        &limits,
    ] {
        check_limits(&limits, raised, 0, None);
    }
    let lower = "had succeeded but are rerun: a limit is lower now: ";
    check_limits(
        &limits,
        &["--memory", "2GiB", "--timeout", "59min"],
        6,
        Some(&format!("{lower}time 3540 s, was 3600 s")),
    );
    check_limits(
        &limits,
        &["--memory", "1023MiB", "--timeout", "2h"],
        6,
        Some(&format!("{lower}memory 1023 MiB, was 1 GiB")),
    );
}

/// A run that failed at a limit is resumed with a higher one: only what failed runs.
#[test]
fn calls_that_failed_at_a_limit_run_with_a_higher_one() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["small", "large"] }).to_string(),
    );
    let large = json!({ "metadiff": { "text": "x".repeat(2000) } });
    let args = json!({ "per_component": { "large": large } });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "c", args)]);
    let run = |limit: &str, more: &[&str]| {
        project.write(
            "policy.toml",
            format!("[default]\nmetadiff = \"{limit}\"\n"),
        );
        let options = ["--metadata", "metadata.json", "--policy", "policy.toml"];
        project.run(&[&options[..], &["--keep-going"], more].concat())
    };
    run("1KiB", &[])
        .expect(3)
        .says(&["component \"large\"", "larger than 1 KiB"]);
    let before = n_events(&project);
    run("1MiB", &["--resume"]).expect(0);
    assert_eq!(begun(&project, before), of_task(0, &["large"]));
    // The limit counts that the batch had last, also for the call that ran before.
    let before = n_events(&project);
    run("512KiB", &["--resume"])
        .expect(0)
        .says(&["a limit is lower now: output 512 KiB, was 1 MiB"]);
    assert_eq!(begun(&project, before).len(), 2);
}

#[test]
fn results_after_a_task_that_was_made_again_do_not_count_in_a_later_run_either() {
    let project = Project::new();
    let mut tasks = tasks();
    project.workflow(&tasks);
    project.run(&[]).expect(0);
    let n_first = n_events(&project);
    tasks[0]["args"]["metadiff"]["more"] = json!(1);
    project.workflow(&tasks);
    project.run(&["--resume"]).expect(0);
    // Killed when the first task had been made again, and no other had begun.
    let log = project.read("work/events.jsonl");
    let is_start = |line: &&str| line.contains("\"task_started\",\"task\":1");
    let n_reused = n_first
        + log
            .lines()
            .skip(n_first)
            .take_while(|line| !is_start(line))
            .count();
    project.write(
        "work/events.jsonl",
        log.lines()
            .take(n_reused)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    project.run(&["--resume", "--jobs", "1"]).expect(0);
    let expected = [of_task(1, &["x", "y", "x", "z"]), vec![(2, Value::Null)]].concat();
    assert_eq!(begun(&project, n_reused), expected);
}

#[test]
fn a_task_that_does_not_see_the_list_runs_for_what_is_new_in_it() {
    let project = Project::new();
    let [_, each, _] = tasks();
    project.workflow(&[each]);
    let list = |components: Value| {
        project.write("metadata.json", json!({ "list": components }).to_string())
    };
    let run = |more: &[&str]| {
        project
            .run(&[&["--metadata", "metadata.json"], more].concat())
            .expect(0)
    };
    list(json!(["x", "y", "x", 1.50]));
    run(&[]);
    let before = n_events(&project);
    list(json!(["new", "x", 1.50, "x", "x", "y"]));
    run(&["--resume", "--jobs", "1"]);
    assert_eq!(begun(&project, before), of_task(1, &["new", "x"]));
    assert_eq!(events(&project, "call_reused").len(), 4);
    let echoes = project.json("work/metadata.json")["echo"].clone();
    let component = |value: &str| json!({ "component": value });
    let expected = json!([component("new"), component("x"), { "component": 1.50 }, component("x"), component("x"), component("y")]);
    assert_eq!(echoes, expected);
    let before = n_events(&project);
    list(json!(["x", "y"]));
    run(&["--resume"]);
    assert_eq!(begun(&project, before), []);
    assert!(has_note(
        &project,
        "4 calls had succeeded whose items do not exist any more"
    ));
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!([component("x"), component("y")])
    );
}

#[test]
fn only_a_work_directory_of_this_workflow_is_taken_up() {
    let project = Project::new();
    project.workflow(&tasks());
    // One that is not there, or in which no run has begun, is begun.
    project.write("work/.mandelbox-lock", "");
    project.run(&["--resume"]).expect(0);
    assert_eq!(events(&project, "run_started").len(), 1);

    let refused = |project: &Project, texts: &[&str]| {
        let before = project.tree();
        project.run(&["--resume"]).expect(2).says(texts);
        assert_eq!(project.tree(), before);
    };
    let log = project.read("work/events.jsonl");
    let of_other = log.replacen("\"workflow\":\"test\"", "\"workflow\":\"other\"", 1);
    project.write("work/events.jsonl", resealed(&of_other));
    refused(
        &project,
        &["holds a run of the workflow \"other\", not of \"test\""],
    );
    let of_other_version = log.replacen("\"format_version\":3", "\"format_version\":4", 1);
    project.write("work/events.jsonl", resealed(&of_other_version));
    refused(
        &project,
        &["events.jsonl: line 1: has format version 4; this version of mandelbox reads 3"],
    );

    let project = Project::new();
    project.workflow(&tasks());
    for notes in ["notes of a meeting\n", "{}\n{}\n", "no line feed"] {
        project.write("work/events.jsonl", notes);
        refused(&project, &["events.jsonl is no event log of mandelbox"]);
        assert_eq!(project.read("work/events.jsonl"), notes);
    }

    let project = Project::new();
    project.workflow(&tasks());
    project.write("work/metadata.json", "{}");
    refused(
        &project,
        &[
            "holds files but no run of mandelbox",
            "there is no events.jsonl",
        ],
    );
    assert_eq!(project.read("work/metadata.json"), "{}");
    project
        .mandelbox(&["run", "workflow.json", "--output", "out", "--resume"])
        .expect(2)
        .says(&["--work-dir"]);
}

#[test]
fn a_log_that_is_cut_anywhere_is_taken_up() {
    let project = Project::new();
    project.workflow(&tasks());
    project.run(&["--jobs", "1"]).expect(0);
    let result = project.json("work/result.json");
    let log = project.read("work/events.jsonl").into_bytes();
    let ends: Vec<_> = (0..log.len())
        .filter(|index| log[*index] == b'\n')
        .map(|index| index + 1)
        .collect();
    let cuts = ends.iter().flat_map(|end| [*end, end.saturating_sub(7)]);
    for cut in cuts.chain([0]) {
        project.write("work/events.jsonl", &log[..cut]);
        project.write("work/.mandelbox-a1b2c3.unfinished", "{");
        project.write("work/.scratch/0/sub/left", "of a killed call");
        let n_done = log[..cut]
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| {
                let line = String::from_utf8_lossy(line);
                line.contains("\"call_finished\"") && line.ends_with('\n')
            });
        let n_done = n_done.count();
        let ended = project.run(&["--resume"]);
        let before = log[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(ended.code, 0, "cut at {cut}: {}", ended.stderr);
        assert_eq!(begun(&project, before).len(), 6 - n_done, "cut at {cut}");
        let resumed = project.json("work/result.json");
        assert_eq!(resumed["metadata"], result["metadata"], "cut at {cut}");
        assert_eq!(
            fractal_history(&resumed["history"]),
            fractal_history(&result["history"]),
            "cut at {cut}"
        );
        let left: Vec<_> = project
            .tree()
            .into_iter()
            .filter(|path| path.contains("/."))
            .collect();
        assert!(left.is_empty(), "cut at {cut}: {left:?}");
    }
}

#[test]
fn calls_that_the_sandbox_ends_are_tried_again_and_those_that_fail_by_themselves_are_not() {
    let project = Project::new();
    let own = json!({ "a": { "signal": "SEGV", "stderr": "tried" }, "b": { "exit": 3 } });
    let args = json!({ "per_component": own, "metadiff": { "n": 1 } });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "list", args)]);
    project.write("metadata.json", r#"{"list": ["a", "b", "c"]}"#);
    let ended = project.run(&[
        "--metadata",
        "metadata.json",
        "--keep-going",
        "--retries",
        "1",
        "--verbose",
    ]);
    let ended = ended.expect(4).says(&[
        "component \"a\" trapped",
        "component \"b\" exited with code 3",
        "retry in 1 s",
    ]);
    assert_eq!(
        ended.stderr.matches("component \"a\" trapped").count(),
        1,
        "{}",
        ended.stderr
    );
    let outcomes: Vec<_> = events(&project, "call_finished")
        .into_iter()
        .map(|event| {
            (
                event["item"].clone(),
                event["attempt"].clone(),
                event["retry_in_s"].clone(),
            )
        })
        .filter(|(component, _, _)| component != "c")
        .collect();
    let expected = [
        (json!("a"), json!(1), json!(1.0)),
        (json!("b"), json!(1), Value::Null),
        (json!("a"), json!(2), Value::Null),
    ];
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    assert!(
        expected.iter().all(|outcome| outcomes.contains(outcome)),
        "{outcomes:?}"
    );
    assert_eq!(events(&project, "task_finished")[0]["n_failed"], 2);
    assert_eq!(project.read("work/0_t/0_par_a.err"), "tried");
    assert!(project.read("work/workflow.log").contains("retry in 1 s"));
}

#[test]
fn a_call_that_ends_well_at_its_second_try_has_ended_well() {
    let project = Project::new();
    let path = project.workflow(&[parallel_task(
        0,
        "t",
        &module("swiss.wasm"),
        "list",
        json!({}),
    )]);
    let workflow =
        WorkflowDocument::read_into(&path, &mut Problems::default()).expect("a workflow");
    let mut arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    arguments.input_metadata = json!({ "list": ["a", "b"] })
        .as_object()
        .cloned()
        .expect("an object");
    let is_lost = |call: &CallSpec| call.item == Some(json!("a")) && call.attempt.number < 3;
    let backend = Scripted::new(move |call| match is_lost(call) {
        true => Outcome::Lost {
            message: "the power".to_owned(),
        },
        false => Outcome::Succeeded {
            output: json!({ "at": call.attempt.number }).as_object().cloned(),
        },
    });
    let options = |n_retries, resume| RunOptions {
        retries: Retries {
            n_retries,
            first_wait: Duration::from_millis(1),
        },
        resume,
        ..RunOptions::new(Arc::new(Scripted::clone(&backend)))
    };
    let failure = process_workflow(&arguments, options(1, false), Vec::new())
        .expect_err("one retry is too few");
    assert!(matches!(failure.error, Error::JobExecution(_)), "{failure}");
    let dataset =
        process_workflow(&arguments, options(0, true), Vec::new()).expect("the third try");
    assert_eq!(dataset["metadata"]["at"], json!([3, 1]));
}
