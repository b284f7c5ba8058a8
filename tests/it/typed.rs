//! Typed tasks: their parameters, what they return and report. The guest is
//! `task-examples/test-guests/typed`, which does the steps in its parameters.

use serde_json::{Value, json};

use crate::project::{Ended, Project, fractal_history, module, parallel_task, task};

/// Runs steps as a single task, in a thread and in a process, and hands the project to `check`.
fn both(steps: &Value, more: &[&str], check: impl Fn(&Project, Ended)) {
    for isolation in ["thread", "process"] {
        let project = Project::new();
        project.write(
            "metadata.json",
            json!({ "a": [1, "ü"], "b": { "c": null } }).to_string(),
        );
        project.workflow(&[task(
            0,
            "t",
            &module("typed.wasm"),
            json!({ "steps": steps }),
        )]);
        let ended = project.run(
            &[
                &["--metadata", "metadata.json", "--isolation", isolation],
                more,
            ]
            .concat(),
        );
        check(&project, ended);
    }
}

pub fn results(project: &Project) -> Value {
    project.json("work/metadata.json")["typed"].clone()
}

#[test]
fn a_typed_task_runs_where_a_command_does() {
    let both_kinds = |name: &str, single: Value, parallel: Value| {
        let project = Project::new();
        let module = module(name);
        project.workflow(&[
            task(0, "one", &module, single),
            parallel_task(1, "two", &module, "well", parallel),
        ]);
        project.run(&[]).expect(0);
        (
            project.json("work/metadata.json"),
            fractal_history(&project.json("work/history.json")),
        )
    };
    let metadiff = json!({ "well": ["A", "B"] });
    let returns = |value: &Value| json!([{ "do": "return", "text": value.to_string() }]);
    let single = json!({ "steps": returns(&metadiff), "metadiff": metadiff });
    let parallel = json!({
        "steps": [{ "do": "for", "component": "A", "steps": returns(&json!({ "of": "A" })) }, { "do": "none" }],
        "per_component": { "A": { "metadiff": { "of": "A" } } }
    });
    let (typed, command) = (
        both_kinds("typed.wasm", single.clone(), parallel.clone()),
        both_kinds("swiss.wasm", single, parallel),
    );
    assert_eq!(typed.0, json!({ "well": ["A", "B"], "of": ["A"] }));
    assert_eq!(typed.0, command.0);
    let without_command = |mut history: Vec<Value>| {
        for item in &mut history {
            item["workflowtask"]["task"]["command"] = Value::Null;
        }
        history
    };
    assert_eq!(without_command(typed.1), without_command(command.1));
}

#[test]
fn parameters_pass_in_memory_and_the_files_of_a_call_are_kept() {
    both(
        &json!([{ "do": "args" }, { "do": "argv" }, { "do": "env" }, { "do": "list", "path": "." },
            { "do": "write", "path": "scratch.txt", "text": "x" }, { "do": "list", "path": "." },
            { "do": "print", "stream": "stdout", "text": "out" }, { "do": "print", "stream": "stderr", "text": "err" }]),
        &[],
        |project, ended| {
            ended.expect(0);
            let results = results(project);
            assert_eq!(
                results[0],
                json!(["input_paths", "metadata", "output_path", "steps"])
            );
            assert_eq!(results[1], json!(["typed.wasm"]));
            assert_eq!(results[2], json!([]));
            assert_eq!(
                (&results[3], &results[5]),
                (&json!([]), &json!(["scratch.txt"]))
            );
            let files = ["args.json", "err", "metadiff.json", "out"]
                .map(|name| format!("work/0_t/0.{name}"));
            let found: Vec<_> = project
                .tree()
                .into_iter()
                .filter(|path| path.starts_with("work/0_t/0"))
                .collect();
            assert_eq!(found, files);
            assert_eq!(
                project.json("work/0_t/0.args.json")["metadata"],
                json!({ "a": [1, "ü"], "b": { "c": null } })
            );
            assert_eq!(project.json("work/0_t/0.metadiff.json")["typed"], results);
            assert_eq!(
                (
                    project.read("work/0_t/0.out"),
                    project.read("work/0_t/0.err")
                ),
                ("out".into(), "err".into())
            );
        },
    );
}

#[test]
fn only_the_files_that_were_asked_for_are_written() {
    let files = |project: &Project| -> Vec<String> {
        project
            .tree()
            .into_iter()
            .filter(|path| path.starts_with("work/0_t/0"))
            .collect()
    };
    both(&json!([]), &["--task-files", "none"], |project, ended| {
        ended.expect(0);
        assert!(files(project).is_empty());
    });
    both(&json!([]), &["--task-files", "failed"], |project, ended| {
        ended.expect(0);
        assert!(files(project).is_empty());
    });
    both(
        &json!([{ "do": "return", "text": "7" }]),
        &["--task-files", "failed"],
        |project, ended| {
            ended.expect(3);
            assert_eq!(files(project).len(), 4);
            assert_eq!(project.read("work/0_t/0.metadiff.json"), "7");
        },
    );
}

#[test]
fn an_error_is_a_task_execution_error_with_its_message() {
    both(
        &json!([{ "do": "error", "message": "no image in \u{1b}[31mA/1" }]),
        &[],
        |project, ended| {
            ended.expect(3).reports(&[
                "task \"t\" (order 0) failed",
                "failed: no image in \\u{1b}[31mA/1",
            ]);
            let finished = &project.events_of("call_finished")[0];
            assert_eq!(
                (&finished["outcome"], &finished["message"]),
                (&json!("failed"), &json!("no image in \u{1b}[31mA/1"))
            );
            assert!(
                project
                    .read("work/workflow.log")
                    .contains("ERROR - failed: no image in")
            );
            let history = project.json("work/result.json")["history"].clone();
            assert_eq!(history[0]["status"], "failed");
        },
    );
    both(
        &json!([{ "do": "error", "message": "x", "times": 5000 }]),
        &[],
        |project, ended| {
            ended.expect(3).reports(&[" [cut]"]);
            assert_eq!(
                project.events_of("call_finished")[0]["message"]
                    .as_str()
                    .map(str::len),
                Some(4096)
            );
        },
    );
}

#[test]
fn what_a_typed_task_returns_is_checked() {
    let check = |steps: Value, code: i32, text: &'static str| {
        both(&steps, &[], |_, ended| {
            drop(ended.expect(code).reports(&[text]))
        });
    };
    check(
        json!([{ "do": "return", "text": "[]" }]),
        3,
        "what `run` returned: must be a JSON object or null, not an array",
    );
    check(
        json!([{ "do": "return", "text": "{\"a\": NaN}" }]),
        3,
        "returned an invalid output: what `run` returned:",
    );
    check(
        json!([{ "do": "return", "text": "null" }]),
        0,
        "finished in",
    );
    check(json!([{ "do": "none" }]), 0, "finished in");
    // The largest text, which is no JSON, and one past it, which is not even looked at.
    check(
        json!([{ "do": "return_letters", "n": 16 << 20 }]),
        3,
        "invalid output: what `run` returned:",
    );
    check(
        json!([{ "do": "return_letters", "n": (16 << 20) + 1 }]),
        3,
        "invalid output: it returned a text larger than 16 MiB",
    );
}

#[test]
fn limits_hold_for_typed_tasks() {
    let check = |steps: Value, more: &[&str], code: i32, text: &'static str| {
        both(&steps, more, |_, ended| {
            drop(ended.expect(code).reports(&[text]))
        });
    };
    check(
        json!([{ "do": "spin" }]),
        &["--timeout", "300ms"],
        4,
        "exceeded its time limit of 0.3 s",
    );
    check(
        json!([{ "do": "sleep_ms", "ms": 60_000 }]),
        &["--timeout", "300ms"],
        4,
        "exceeded its time limit of 0.3 s",
    );
    check(
        json!([{ "do": "allocate_mib", "n": 40 }]),
        &["--memory", "64M"],
        0,
        "finished in",
    );
    check(
        json!([{ "do": "allocate_mib", "n": 70 }]),
        &["--memory", "64M"],
        4,
        "memory limit of 64 MiB",
    );
    check(
        json!([{ "do": "trap" }]),
        &[],
        4,
        "trapped: wasm trap: wasm `unreachable` instruction executed",
    );
    check(
        json!([{ "do": "panic" }]),
        &[],
        4,
        "the task was told to panic",
    );
    check(
        json!([{ "do": "exit", "code": 1 }]),
        &[],
        3,
        "exited with code 1",
    );
    check(json!([{ "do": "exit", "code": 0 }]), &[], 0, "finished in");
}

#[test]
fn log_lines_become_events_and_reach_the_reader() {
    let steps = json!([
        { "do": "log", "level": "debug", "message": "looked" },
        { "do": "log", "level": "info", "message": "reading\u{1b}[2J\nforged" },
        { "do": "log", "level": "warn", "message": "one plane is empty" },
    ]);
    both(&steps, &[], |project, ended| {
        let ended = ended.expect(0).reports(&["  warning: one plane is empty"]);
        assert!(!ended.stderr.contains("reading"));
        let logged: Vec<_> = project
            .events_of("call_logged")
            .iter()
            .map(|event| {
                assert_eq!(
                    (&event["task"], &event["call_index"], &event["attempt"]),
                    (&json!(0), &json!(0), &json!(1))
                );
                (event["level"].clone(), event["message"].clone())
            })
            .collect();
        let expected = [
            ("debug", "looked"),
            ("info", "reading\u{1b}[2J\nforged"),
            ("warn", "one plane is empty"),
        ];
        assert_eq!(
            logged,
            expected.map(|(level, message)| (json!(level), json!(message)))
        );
        let log = project.read("work/workflow.log");
        assert!(
            log.contains("INFO - reading\\u{1b}[2J\\nforged\n")
                && log.contains("WARNING - one plane is empty\n")
        );
    });
    both(&steps, &["--verbose"], |_, ended| {
        ended
            .expect(0)
            .reports(&["  debug: looked", "  info: reading\\u{1b}[2J\\nforged"]);
    });
}

#[test]
fn lines_of_a_component_name_it() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["a", "b"] }).to_string());
    let steps = json!([{ "do": "for", "component": "b", "steps": [{ "do": "log", "level": "error", "message": "odd" }] }]);
    project.workflow(&[parallel_task(
        0,
        "t",
        &module("typed.wasm"),
        "c",
        json!({ "steps": steps }),
    )]);
    project
        .run(&["--metadata", "metadata.json"])
        .expect(0)
        .reports(&["  \"b\" error: odd"]);
    assert_eq!(project.events_of("call_logged")[0]["item"], "b");
    assert!(
        project
            .read("work/workflow.log")
            .contains("ERROR - component \"b\": odd\n")
    );
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let line = json!({ "do": "log", "level": "info", "message": "0123456789abcdef", "times": 64 });
    both(
        &json!([{ "do": "repeat", "n": 2000, "step": line }]),
        &[],
        |project, ended| {
            ended
                .expect(0)
                .reports(&["more log lines were dropped; a call may log 1 MiB]"]);
            let logged = project.events_of("call_logged");
            // 1 MiB holds 856 lines of 1,024 bytes, with 200 for each event.
            assert_eq!(logged.len(), 857);
            let last = logged.last().expect("an event");
            assert_eq!(
                last["message"],
                "[mandelbox: 1144 more log lines were dropped; a call may log 1 MiB]"
            );
            assert!(
                project
                    .path("work/events.jsonl")
                    .metadata()
                    .expect("there")
                    .len()
                    < 2 << 20
            );
        },
    );
}

#[test]
fn progress_becomes_events_ten_times_a_second_at_most() {
    let steps = json!([
        { "do": "progress", "fraction": 0.25, "message": "reading" },
        { "do": "repeat", "n": 20_000, "step": { "do": "progress", "fraction": 0.5, "message": "writing" } },
        { "do": "sleep_ms", "ms": 150 },
        { "do": "progress", "fraction": "nan", "message": "" },
    ]);
    both(&steps, &["--verbose"], |project, ended| {
        let ended = ended.expect(0).reports(&["  25 % reading", "  0 %"]);
        let seen: Vec<_> = project
            .events_of("call_progress")
            .iter()
            .map(|event| (event["permille"].clone(), event["message"].clone()))
            .collect();
        assert_eq!(seen.first(), Some(&(json!(250), json!("reading"))));
        assert_eq!(seen.last(), Some(&(json!(0), json!(""))));
        let most = ended.elapsed.as_millis() / 100 + 2;
        assert!(
            (seen.len() as u128) <= most,
            "{} reports in {:?}",
            seen.len(),
            ended.elapsed
        );
    });
}

#[test]
fn metadata_can_be_fetched_as_far_as_the_task_may_see_it() {
    let steps = json!([
        { "do": "metadata", "key": "a" }, { "do": "metadata", "key": "b" }, { "do": "metadata", "key": "none" }
    ]);
    let check = |own_meta: Value, in_args: Value, fetched: Value| {
        for isolation in ["thread", "process"] {
            let project = Project::new();
            project.write(
                "metadata.json",
                json!({ "a": [1, "ü"], "b": { "c": null } }).to_string(),
            );
            let mut task = task(0, "t", &module("typed.wasm"), json!({ "steps": steps }));
            task["meta"] = json!({ "mandelbox": own_meta });
            project.workflow(&[task]);
            project
                .run(&["--metadata", "metadata.json", "--isolation", isolation])
                .expect(0);
            assert_eq!(
                project.json("work/0_t/0.args.json")["metadata"],
                in_args,
                "{own_meta}"
            );
            assert_eq!(results(&project), fetched, "{own_meta}");
        }
    };
    let (a, b) = (json!([1, "ü"]), json!({ "c": null }));
    check(json!({}), json!({ "a": a, "b": b }), json!([a, b, null]));
    check(
        json!({ "metadata_keys": ["b"] }),
        json!({ "b": b }),
        json!([null, b, null]),
    );
    check(
        json!({ "metadata_keys": [] }),
        json!({}),
        json!([null, null, null]),
    );
    check(
        json!({ "metadata_in_args": false }),
        json!({}),
        json!([a, b, null]),
    );
    check(
        json!({ "metadata_in_args": false, "metadata_keys": ["a"] }),
        json!({}),
        json!([a, null, null]),
    );
}

#[test]
fn a_task_fetches_what_the_tasks_before_it_gave() {
    for isolation in ["thread", "process"] {
        let project = Project::new();
        let module = module("typed.wasm");
        let gives = json!([{ "do": "return", "text": "{\"c\": [1, 2], \"image\": [\"i\"]}" }]);
        let fetches =
            json!([{ "do": "metadata", "key": "image" }, { "do": "metadata", "key": "c" }]);
        project.workflow(&[
            task(0, "one", &module, json!({ "steps": gives })),
            parallel_task(1, "two", &module, "c", json!({ "steps": fetches })),
        ]);
        project.run(&["--isolation", isolation]).expect(0);
        let expected = json!([["i"], [1, 2]]);
        assert_eq!(results(&project), json!([expected, expected]));
        // As in Fractal, the long list is not in the parameters of a component.
        assert_eq!(
            project.json("work/1_two/1_par_1.args.json")["metadata"],
            json!({ "c": [1, 2] })
        );
    }
}

#[test]
fn a_command_cannot_fetch_metadata() {
    let project = Project::new();
    let mut task = task(0, "t", &module("swiss.wasm"), json!({}));
    task["meta"] = json!({ "mandelbox": { "metadata_in_args": false } });
    project.workflow(&[task]);
    project
        .run(&[])
        .expect(2)
        .reports(&["/task_list/0/meta", "only a typed task can fetch metadata"]);
}
