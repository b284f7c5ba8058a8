//! `mandelbox show`.

use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task, task};

const FORMS: [&str; 4] = ["all", "failed", "packed", "none"];

/// A run of a task that lists three images, and of one for each of them, of which the last fails.
fn run(task_files: &str) -> Project {
    let project = Project::new();
    let swiss = module("swiss.wasm");
    let images = json!(["p.zarr/B/03/0", "p.zarr/B/04/0", "p.zarr/C/05/1"]);
    let list = task(0, "list", &swiss, json!({ "metadiff": { "c": images } }));
    let per_component = json!({ "p.zarr/C/05/1": { "exit": 3, "stderr": "no image\n" } });
    let args = json!({
        "stdout": "a\u{1b}[2J\n", "metadiff": { "n": 12345678901234567890_u64 },
        "per_component": per_component,
    });
    project.workflow(&[list, parallel_task(1, "Seg", &swiss, "c", args)]);
    project
        .run(&["--keep-going", "--task-files", task_files])
        .expect(3);
    project
}

#[track_caller]
fn facts(project: &Project, arguments: &[&str]) -> Value {
    let arguments = [&["show", "work"], arguments, &["--format", "json"]].concat();
    let ended = project.mandelbox(&arguments).expect(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn a_task_is_shown_as_a_table_of_its_calls() {
    let project = run("packed");
    for named in ["1", "Seg"] {
        let ended = project.mandelbox(&["show", "work", named]).expect(0);
        assert_eq!(ended.stdout, "");
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines[0], "task 1 \"Seg\"");
        let words = |line: &str| -> Vec<String> {
            line.split_whitespace().take(4).map(str::to_owned).collect()
        };
        assert_eq!(words(lines[1]), ["call", "item", "outcome", "attempts"]);
        assert_eq!(words(lines[2]), ["0", "p.zarr/B/03/0", "succeeded", "1"]);
        assert_eq!(words(lines[4]), ["2", "p.zarr/C/05/1", "exited", "1"]);
        assert_eq!(lines.len(), 5);
    }
    let facts = facts(&project, &["1"]);
    let calls = facts["calls"].as_array().expect("an array");
    let call = |index: usize| {
        let call = &calls[index];
        (
            call["call_index"].clone(),
            call["outcome"].clone(),
            call["message"].clone(),
        )
    };
    assert_eq!(call(0), (json!(0), json!("succeeded"), json!("succeeded")));
    assert_eq!(
        call(2),
        (json!(2), json!("exited"), json!("exited with code 3"))
    );
    assert!(calls[0]["usage"]["wall_time_s"].is_number());
}

#[test]
fn a_call_is_shown_whatever_the_form_of_its_files() {
    for form in FORMS {
        let project = run(form);
        let failed = facts(&project, &["1", "p.zarr/C/05/1"]);
        let succeeded = facts(&project, &["1", "p.zarr/B/04/0"]);
        let (of_failed, of_succeeded) = match form {
            "all" => ("plain", "plain"),
            "failed" => ("plain", "not_kept"),
            "packed" => ("plain", "packed"),
            _ => ("not_kept", "not_kept"),
        };
        assert_eq!(
            (&failed["files"], &succeeded["files"]),
            (&json!(of_failed), &json!(of_succeeded))
        );
        let parts = |facts: &Value| {
            let component = facts["args"]["component"].clone();
            (component, facts["stdout"].clone(), facts["stderr"].clone())
        };
        let kept = |location: &str, component: &str, stderr: &str| match location {
            "not_kept" => (Value::Null, Value::Null, Value::Null),
            _ => (json!(component), json!("a\u{1b}[2J\n"), json!(stderr)),
        };
        assert_eq!(
            parts(&failed),
            kept(of_failed, "p.zarr/C/05/1", "no image\n"),
            "{form}"
        );
        assert_eq!(
            parts(&succeeded),
            kept(of_succeeded, "p.zarr/B/04/0", ""),
            "{form}"
        );
        assert_eq!(
            succeeded["output"],
            json!({ "n": 12345678901234567890_u64 }),
            "{form}: the log has it anyway"
        );
    }
}

#[test]
fn calls_are_found_by_item_index_and_the_end_of_a_path() {
    let project = run("packed");
    for named in ["p.zarr/B/04/0", "\"p.zarr/B/04/0\"", "1", "04/0", "B/04/0/"] {
        // The index 1 comes before the end of a path.
        assert_eq!(facts(&project, &["1", named])["call_index"], 1, "{named}");
    }
    for (arguments, text) in [
        (
            ["1", "zarr"],
            "zarr: no call that has started has this item or index",
        ),
        (["1", "p.zarr/B/04/1"], "did you mean `p.zarr/B/04/0`?"),
        (
            ["1", "7"],
            "7: no call that has started has this item or index",
        ),
        (
            ["seg", "0"],
            "seg: no task of the run has this order or name; the tasks are 0 \"list\", 1 \"Seg\"",
        ),
    ] {
        let arguments = [&["show", "work"], &arguments[..]].concat();
        let ended = project.mandelbox(&arguments).expect(2).reports(&[text]);
        assert_eq!(ended.stdout, "");
    }
    project
        .mandelbox(&["show", "in", "0"])
        .expect(2)
        .reports(&["in: not the work directory of a run"]);
}

#[test]
fn the_end_of_a_path_must_be_unique() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["x/a", "y/a", "z/a", "z/b"] }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        "par",
        &module("swiss.wasm"),
        "c",
        json!({}),
    )]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    project
        .mandelbox(&["show", "work", "0", "a"])
        .expect(2)
        .reports(&["a: more than one call matches; name one by its index: 0, 1, 2"]);
    assert_eq!(facts(&project, &["0", "b"])["call_index"], 3);
}

#[test]
fn a_stream_is_printed_as_it_is() {
    let project = run("packed");
    let stream = |item: &str, stream: &str| {
        project.mandelbox(&["show", "work", "1", item, "--stream", stream])
    };
    for (item, name, expected) in [
        ("0", "stdout", "a\u{1b}[2J\n"),
        ("0", "stderr", ""),
        ("2", "stderr", "no image\n"),
        ("0", "output", "{\"n\":12345678901234567890}"),
    ] {
        let ended = stream(item, name).expect(0);
        assert_eq!(
            (ended.stdout.trim_end_matches('\n'), ended.stderr.as_str()),
            (expected.trim_end_matches('\n'), "")
        );
    }
    let args: Value = serde_json::from_str(&stream("0", "args").expect(0).stdout).expect("JSON");
    assert_eq!(args["component"], "p.zarr/B/03/0");
    // What a person reads is escaped.
    let ended = project.mandelbox(&["show", "work", "1", "0"]).expect(0).reports(&[
        "task 1 \"Seg\", component \"p.zarr/B/03/0\" (call 0)\nattempt 1 of 1: succeeded after ",
        "packed in:\n  ",
        "\nstdout (6 bytes):\n  a\\u{1b}[2J\nstderr: empty\n",
    ]);
    assert_eq!(ended.stdout, "");
    let none = run("none");
    none.mandelbox(&["show", "work", "1", "0", "--stream", "stdout"])
        .expect(2)
        .reports(&["its stdout is not kept: the run has `--task-files none`"]);
}

#[test]
fn attempts_can_be_chosen() {
    for form in ["packed", "all"] {
        let project = run(form);
        let swiss = module("swiss.wasm");
        let images = json!(["p.zarr/B/03/0", "p.zarr/B/04/0", "p.zarr/C/05/1"]);
        let list = task(0, "list", &swiss, json!({ "metadiff": { "c": images } }));
        let per_component = json!({ "p.zarr/C/05/1": { "exit": 3, "stderr": "no image\n" } });
        let args = json!({
            "stdout": "a\u{1b}[2J\n", "metadiff": { "n": 12345678901234567890_u64 },
            "per_component": per_component,
        });
        project.workflow(&[list, parallel_task(1, "Seg", &swiss, "c", args)]);
        project
            .run(&["--keep-going", "--task-files", form, "--resume"])
            .expect(3);
        let last = facts(&project, &["1", "2"]);
        assert_eq!(
            (&last["attempt"], &last["n_attempts"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(
            (&last["files"], &last["stderr"]),
            (&json!("plain"), &json!("no image\n"))
        );
        let first = facts(&project, &["1", "2", "--attempt", "1"]);
        assert_eq!(
            (&first["attempt"], &first["outcome"]),
            (&json!(1), &json!("exited"))
        );
        match form {
            "packed" => assert_eq!(first["stderr"], "no image\n"),
            _ => assert_eq!(
                first["not_kept"],
                "its files were replaced by those of attempt 2"
            ),
        }
        // A call that did not run again has the files of the first session.
        let reused = facts(&project, &["1", "0"]);
        assert_eq!(reused["args"]["component"], "p.zarr/B/03/0");
        project
            .mandelbox(&["show", "work", "1", "2", "--attempt", "3"])
            .expect(2)
            .reports(&["2: the call has no attempt 3; its last attempt is 2"]);
    }
}
