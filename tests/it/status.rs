//! `mandelbox status`.

use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, task};

/// A run of two tasks, of whose 25 components 23 fail.
fn failed_run() -> Project {
    let project = Project::new();
    let components: Vec<_> = (0..25).map(|index| format!("c{index:02}")).collect();
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { "c": components } }),
    );
    let fails = |name: &String| (name.clone(), json!({ "stderr": "no image\n", "exit": 3 }));
    let per_component: serde_json::Map<_, _> = components[2..].iter().map(fails).collect();
    let args = json!({ "per_component": per_component });
    project.workflow(&[
        list,
        parallel_task(1, "se\u{202e}g", &module("swiss.wasm"), "c", args),
    ]);
    project.run(&["--keep-going"]).expect(3);
    project
}

#[track_caller]
fn facts(project: &Project) -> Value {
    let Ended { stdout, .. } = project
        .mandelbox(&["status", "work", "--format", "json"])
        .expect(0);
    serde_json::from_str(&stdout).expect("JSON")
}

#[test]
fn a_failed_run_is_reported_with_its_components() {
    let project = failed_run();
    let ended = project.mandelbox(&["status", "work"]).expect(0).reports(&[
        "workflow \"test\", failed: TaskExecutionError",
        "tasks: 2 of 2 started",
        "0 \"list\" done after",
        ": 1 of 1 done",
        "1 \"se\\u{202e}g\" failed after",
        ": 2 of 25 done, 23 failed; longest call",
        "failed: task \"se\\u{202e}g\" (order 1): component \"c02\" exited with code 3\n    stderr: ",
        "_par_c02.err",
        "component \"c21\"",
        "and 3 more failed",
        "work/workflow.log",
    ]);
    assert!(
        !ended.stderr.contains("c22") && ended.stdout.is_empty(),
        "{}",
        ended.stderr
    );
    let facts = facts(&project);
    let task = &facts["tasks"][1];
    let count = |key: &str| task[key].as_u64().expect("a number");
    assert_eq!(
        (
            count("n_done"),
            count("n_failed"),
            count("n_running"),
            count("n_to_do")
        ),
        (2, 23, 0, 0)
    );
    assert_eq!(
        (&facts["state"], &facts["error"]),
        (&json!("failed"), &json!("TaskExecutionError"))
    );
    assert_eq!(task["failed"].as_array().map(Vec::len), Some(23));
    let last = &task["failed"][22];
    assert_eq!(
        (&last["item"], &last["message"]),
        (&json!("c24"), &json!("exited with code 3"))
    );
    assert_eq!(
        std::fs::read_to_string(last["stderr"].as_str().expect("a path")).expect("there"),
        "no image\n"
    );
}

#[test]
fn a_successful_run_is_reported_as_such() {
    let project = Project::new();
    project.workflow(&[task(0, "list", &module("swiss.wasm"), json!({}))]);
    project.run(&["--task-files", "none"]).expect(0);
    project
        .mandelbox(&["status", "work"])
        .expect(0)
        .reports(&["workflow \"test\", succeeded", "1 of 1 done"]);
    assert_eq!(facts(&project)["state"], "done");
}

#[test]
fn a_log_cut_anywhere_is_a_run_without_an_end() {
    let project = failed_run();
    let log = project.read("work/events.jsonl");
    let first = log.find('\n').expect("lines") + 1;
    for end in (first..log.len()).step_by(97) {
        project.write("work/events.jsonl", &log.as_bytes()[..end]);
        let facts = facts(&project);
        assert_eq!(
            (&facts["state"], &facts["process"]),
            (&json!("killed"), &json!(null))
        );
        for task in facts["tasks"].as_array().expect("tasks") {
            let count = |key: &str| task[key].as_u64().expect("a number");
            let sum = count("n_done") + count("n_failed") + count("n_running") + count("n_to_do");
            assert_eq!(sum, count("n_calls"), "{task}");
        }
    }
    let last_start = log.rfind("call_started").expect("calls");
    let end = last_start + log[last_start..].find('\n').expect("a line") + 5;
    project.write("work/events.jsonl", &log[..end]);
    let texts = [
        "interrupted ",
        " ago (killed, or the machine was lost); continue it with `run --resume`",
        " running",
    ];
    project
        .mandelbox(&["status", "work"])
        .expect(0)
        .reports(&texts);
}

#[test]
fn folders_that_are_no_runs_are_reported() {
    let project = Project::new();
    project
        .mandelbox(&["status", "in"])
        .expect(2)
        .reports(&["in: not the work directory of a run", "no `events.jsonl`"]);
    project.write("in/events.jsonl", "{\"torn");
    project
        .mandelbox(&["status", "in"])
        .expect(2)
        .reports(&["contains no event yet"]);
    project.write("in/events.jsonl", "{}\n{}\n");
    project
        .mandelbox(&["status", "in"])
        .expect(2)
        .reports(&["events.jsonl: its first line is damaged"]);
    project
        .mandelbox(&["status", "in/events.jsonl"])
        .expect(2)
        .reports(&["events.jsonl"]);
}
