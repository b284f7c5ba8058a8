//! `mandelbox exec MODULE --args FILE`: a module called as a task.

use serde_json::{Value, json};

use crate::project::{
    Ended, ISOLATIONS, Project, finish, finish_with_input, module, parallel_task, task,
};

fn stdout_json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|err| panic!("{err}: {}", ended.stdout))
}

/// `exec MODULE --args args.json` and more arguments.
fn exec_task(project: &Project, name: &str, args: &Value, more: &[&str]) -> Ended {
    project.write("args.json", args.to_string());
    project.mandelbox(&[&["exec", &module(name), "--args", "args.json"], more].concat())
}

#[test]
fn a_task_gets_its_args_and_stdout_its_metadiff() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write("metadata.json", json!({ "plate": ["a"] }).to_string());
        let args = json!({ "echo": true, "stdout": "out\n", "stderr": "an \u{1b}[31merror" });
        let more = [
            "--input",
            "in",
            "--output",
            "out",
            "--metadata",
            "metadata.json",
            "--isolation",
            isolation,
        ];
        let ended = exec_task(&project, "swiss.wasm", &args, &more).expect(0);
        let echo = &stdout_json(&ended)["echo"];
        let path = |name: &str| json!(project.path(name));
        assert_eq!(
            (&echo["input_paths"], &echo["output_path"]),
            (&json!([path("in")]), &path("out"))
        );
        assert_eq!(echo["metadata"], json!({ "plate": ["a"] }));
        assert_eq!(echo.get("component"), None);
        ended.reports(&["out\n", "an \\u{1b}[31merror\n"]);
    }
}

#[test]
fn a_component_makes_the_call_one_of_a_parallel_task() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "image": ["i"], "well": ["B/03"] }).to_string(),
    );
    let more = ["--component", "B/03", "--metadata", "metadata.json"];
    let ended = exec_task(&project, "swiss.wasm", &json!({ "echo": true }), &more).expect(0);
    let echo = &stdout_json(&ended)["echo"];
    assert_eq!(
        (&echo["component"], &echo["metadata"]),
        (&json!("B/03"), &json!({ "well": ["B/03"] }))
    );
    ended.reports(&["without `--output`, the task writes to a temporary folder"]);
}

#[test]
fn args_come_from_stdin_too() {
    let project = Project::new();
    let command = project.command(&["exec", &module("typed.wasm"), "--args", "-", "--quiet"]);
    let ended = finish_with_input(command, r#"{"steps": [{"do": "none"}]}"#).expect(0);
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("null\n", "")
    );
}

#[test]
fn a_typed_task_logs_and_reports_on_stderr() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write("metadata.json", json!({ "a": 7 }).to_string());
        let steps = json!([
            { "do": "log", "level": "info", "message": "so far \u{1b} so good" },
            { "do": "progress", "fraction": 0.5, "message": "half" },
            { "do": "metadata", "key": "a" },
            { "do": "print", "stream": "stdout", "text": "printed\n" },
        ]);
        let more = ["--metadata", "metadata.json", "--isolation", isolation];
        let ended = exec_task(&project, "typed.wasm", &json!({ "steps": steps }), &more).expect(0);
        assert_eq!(
            stdout_json(&ended)["typed"][2],
            json!(7),
            "{}",
            ended.stdout
        );
        ended.reports(&["info: so far \\u{1b} so good", "50 % half", "printed"]);
    }
}

#[test]
fn failures_have_the_exit_codes_and_words_of_a_run() {
    let check = |name: &str, args: Value, more: &[&str], code: i32, texts: &[&str]| {
        for isolation in ISOLATIONS {
            let project = Project::new();
            let ended = exec_task(
                &project,
                name,
                &args,
                &[more, &["--isolation", isolation]].concat(),
            );
            assert_eq!(ended.stdout, "");
            ended.expect(code).reports(texts);
        }
    };
    let typed = |step: Value| json!({ "steps": [step] });
    check(
        "swiss.wasm",
        json!({ "exit": 3, "stderr": "broken" }),
        &[],
        3,
        &[
            "broken\n",
            "error: TaskExecutionError: task \"swiss\" (order 0) failed\n  call exited with code 3",
        ],
    );
    check(
        "swiss.wasm",
        json!({ "metadiff_raw": "[1]" }),
        &[],
        3,
        &["invalid output", "must be a JSON object or null"],
    );
    check(
        "swiss.wasm",
        json!({ "signal": "SEGV" }),
        &[],
        4,
        &["JobExecutionError", "trapped"],
    );
    check(
        "swiss.wasm",
        json!({ "sleep_ms": 60_000 }),
        &["--timeout", "200ms"],
        4,
        &["its time limit of 0.2 s"],
    );
    check(
        "typed.wasm",
        typed(json!({ "do": "error", "message": "no image" })),
        &[],
        3,
        &["failed: no image"],
    );
    check(
        "typed.wasm",
        typed(json!({ "do": "allocate_mib", "n": 70 })),
        &["--memory", "64M"],
        4,
        &["limit of 64 MiB"],
    );
}

#[test]
fn invalid_input_is_reported_with_its_location_and_nothing_runs() {
    let check = |args: &str, module: &str, more: &[&str], text: &str| {
        let project = Project::new();
        project.write("args.json", args);
        project.write("page.wasm", "<!doctype html>");
        let ended = project.mandelbox(&[&["exec", module, "--args", "args.json"], more].concat());
        ended.expect(2).reports(&[text]);
        assert_eq!(project.tree(), ["args.json", "in/", "out/", "page.wasm"]);
    };
    let (swiss, typed) = (module("swiss.wasm"), module("typed.wasm"));
    check("{", &swiss, &[], "args.json:1:1: not valid JSON");
    check(
        "[]",
        &swiss,
        &[],
        "args.json: must be an object, not an array",
    );
    check(r#"{"a": 1, "a": 2}"#, &swiss, &[], "duplicate key");
    check(
        "{}",
        "page.wasm",
        &[],
        "page.wasm: is not a WebAssembly module: it is an HTML page",
    );
    check("{}", "none.wasm", &[], "no module at `none.wasm`");
    check(
        r#"{"steps": 7}"#,
        &typed,
        &[],
        "args.json: /steps: does not match the task's `args_schema`",
    );
    check("{}", &swiss, &["--mount", "in"], "cannot be used with");
    check(
        "{}",
        &swiss,
        &["--metadata", "args.jso"],
        "args.jso: cannot be read",
    );
    let project = Project::new();
    project
        .mandelbox(&["exec", &swiss, "--component", "x"])
        .expect(2)
        .reports(&["--args"]);
}

#[test]
fn a_manifest_above_a_module_gives_its_schema() {
    let project = Project::new();
    std::fs::create_dir_all(project.path("package/bin")).expect("made");
    std::fs::copy(module("swiss.wasm"), project.path("package/bin/swiss.wasm")).expect("copied");
    let task = |name: &str, executable: &str| {
        json!({
            "name": name, "executable": executable, "input_type": "Any", "output_type": "Any",
            "args_schema": { "type": "object", "properties": {
                "echo": { "default": true }, "n": { "type": "integer", "default": 5 } } }
        })
    };
    let manifest = |tasks: &[Value]| {
        let manifest = json!({ "manifest_version": "1", "task_list": tasks });
        project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    };
    let exec = |args: &Value| {
        project.write("args.json", args.to_string());
        project.mandelbox(&["exec", "package/bin/swiss.wasm", "--args", "args.json"])
    };
    manifest(&[
        task("One", "bin/swiss.wasm"),
        task("Other", "bin/other.wasm"),
    ]);
    assert_eq!(stdout_json(&exec(&json!({})).expect(0))["echo"]["n"], 5);
    exec(&json!({ "n": "x" }))
        .expect(2)
        .reports(&["args.json: /n: does not match the task's `args_schema`"]);
    manifest(&[task("One", "bin/swiss.wasm"), task("Two", "bin/swiss.wasm")]);
    assert_eq!(
        exec(&json!({ "n": "x" }))
            .expect(0)
            .reports(&["the module of several tasks (One, Two)"])
            .stdout,
        "null\n"
    );
}

/// An author takes the args.json of a call that failed and makes the call again.
#[test]
fn a_recorded_call_is_replayed_from_its_args() {
    for name in ["swiss.wasm", "typed.wasm"] {
        let project = Project::new();
        project.write("in/a.txt", "input");
        project.write(
            "metadata.json",
            json!({ "well": ["B/03"], "k": 1 }).to_string(),
        );
        let steps =
            json!([{ "do": "list", "path": project.path("in") }, { "do": "metadata", "key": "k" }]);
        let args = if name == "typed.wasm" {
            json!({ "steps": steps })
        } else {
            json!({ "echo": true })
        };
        project.workflow(&[parallel_task(0, "t", &module(name), "well", args)]);
        project.run(&["--metadata", "metadata.json"]).expect(0);
        let recorded = project.json("work/metadata.json");
        let replay = |more: &[&str]| {
            project.mandelbox(
                &[
                    &[
                        "exec",
                        &module(name),
                        "--args",
                        "work/0_t/0_par_b_03.args.json",
                    ],
                    more,
                ]
                .concat(),
            )
        };
        let ended = replay(&["--input", "in", "--output", "out"]).expect(0);
        for (key, value) in stdout_json(&ended).as_object().expect("an object") {
            assert_eq!(json!([value]), recorded[key], "{key}");
        }
        assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);

        // Without rights from the command line there are none.
        let ended = replay(&["--component", "C"]);
        let (input, output) = (project.path("in"), project.path("out"));
        ended.reports(&[
            &format!(
                "/input_paths/0: the task cannot access `{0}`: a path in args grants no access; \
                 add `--input {0}`",
                input.display()
            ),
            &format!("add `--output {}`", output.display()),
            "--component: ignored, because the args have another value",
        ]);
    }
}

#[test]
fn a_temporary_output_folder_is_gone_afterwards() {
    let project = Project::new();
    let temporary = project.path("tmp");
    std::fs::create_dir(&temporary).expect("made");
    project.write("args.json", json!({ "echo": ["output_path"] }).to_string());
    let mut command = project.command(&["exec", &module("swiss.wasm"), "--args", "args.json"]);
    command.env("TMPDIR", &temporary);
    let output = stdout_json(&finish(command).expect(0))["echo"]["output_path"].clone();
    assert!(
        output
            .as_str()
            .is_some_and(|path| path.starts_with(temporary.to_str().expect("UTF-8"))),
        "{output}"
    );
    assert_eq!(std::fs::read_dir(&temporary).expect("a folder").count(), 0);

    // A task that could reach the folder of its own call from outside could change what the host
    // takes out of it.
    let mut command = project.command(&[
        "exec",
        &module("swiss.wasm"),
        "--args",
        "args.json",
        "--output",
        "tmp",
    ]);
    command.env("TMPDIR", &temporary);
    finish(command)
        .expect(2)
        .reports(&["choose another TMPDIR or --output"]);
}

#[test]
fn only_one_call_runs_and_no_record_is_kept() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let before = project.tree();
    exec_task(
        &project,
        "swiss.wasm",
        &json!({ "metadiff": { "a": 1 } }),
        &["--output", "new"],
    )
    .expect(0);
    let mut expected = before;
    expected.extend(["args.json".to_owned(), "new/".to_owned()]);
    expected.sort();
    assert_eq!(project.tree(), expected);
}
