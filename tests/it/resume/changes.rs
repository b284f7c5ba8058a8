//! The effects of changed documents, data and options on a resumed run.

use serde_json::{Value, json};

use super::{begun, has_note, n_events, of_task, tasks};
use crate::project::{Project, fractal_history, module, quoted, resealed, task};

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
    let reasons = project.events_of("rerun");
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
fn changed_tasks_and_those_after_them_are_rerun_and_the_log_has_the_reason() {
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
fn everything_that_a_task_sees_counts() {
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
    let n_notes = project
        .events_of("rerun")
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

#[test]
fn results_after_a_rerun_task_do_not_count_in_a_later_run() {
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
    assert_eq!(project.events_of("call_reused").len(), 4);
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
