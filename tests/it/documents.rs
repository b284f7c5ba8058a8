//! Broken and hostile documents: exit code 2, every location named, nothing written.

use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task, quoted, task};

/// Runs a workflow text; it must be refused with each of the texts, and nothing must be written.
#[track_caller]
fn check_refused(workflow: impl AsRef<[u8]>, texts: &[&str]) {
    let project = Project::new();
    project.write("workflow.json", workflow);
    check_project(&project, &[], texts);
}

#[track_caller]
pub fn check_project(project: &Project, more: &[&str], texts: &[&str]) {
    let before = project.tree();
    let ended = project.run(more);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended.expect(2).reports(texts);
    assert_eq!(project.tree(), before, "something was written");
}

fn workflow(task_list: &Value) -> String {
    json!({ "name": "w", "task_list": task_list }).to_string()
}

#[test]
fn what_is_not_json() {
    check_refused("", &["workflow.json:1:0", "not valid JSON"]);
    check_refused(
        "{\"name\": \"w\",\n \"task_list\": [}",
        &["workflow.json:2:"],
    );
    check_refused("<html>", &["workflow.json:1:1"]);
    check_refused(b"{\"name\": \"\xff\"}", &["not valid JSON"]);
    check_refused("\u{feff}{}", &["byte order mark"]);
    check_refused("{} {}", &["workflow.json:1:4"]);
    check_refused("[".repeat(100_000), &["nested deeper than 256 levels"]);
    check_refused(
        format!("{{\"a\":{}", "{\"a\":".repeat(100_000)),
        &["nested deeper than 256 levels"],
    );
    check_refused(
        "{\"name\": \"w\", \"name\": \"v\", \"task_list\": []}",
        &["workflow.json:1:20", "duplicate key"],
    );
    check_refused(
        "{\"name\": \"w\", \"task_list\": [], \"x\": 1e999}",
        &["too large"],
    );
    check_refused(
        "{\"name\": \"w\", \"task_list\": [NaN]}",
        &["NaN and Infinity are not JSON"],
    );
    check_refused(
        "{\"name\": \"\\ud800\", \"task_list\": []}",
        &["not valid JSON"],
    );
}

#[test]
fn invalid_shapes_are_all_reported_at_once() {
    check_refused("[]", &["workflow.json: must be an object, not an array"]);
    check_refused(
        "{\"name\": \"w\"}",
        &["missing key `task_list` (the object has `name`)"],
    );
    check_refused(
        "{\"task_lists\": []}",
        &["missing key `task_list` (the object has `task_lists`)"],
    );
    check_refused(
        "{\"name\": 3, \"task_list\": {}}",
        &[
            "/name: must be a string",
            "/task_list: must be an array, not an object",
        ],
    );
    check_refused(
        workflow(&json!([
            7,
            { "args": [] , "meta": "m", "order": -1, "task": { "command": "", "name": " ", "meta": 1 } },
            { "task": { "command": "'open", "name": 5, "input_type": [] } },
            { "task": null },
            {},
            { "order": 1.5, "task": { "command": "m.wasm", "name": "n" } },
            { "order": "1", "task": { "command": "m.wasm", "name": "n" } },
            { "task": { "comand": "m.wasm", "name": "n" } },
        ])),
        &[
            "/task_list/0: must be an object, not a number",
            "/task_list/1/args: must be an object, not an array",
            "/task_list/1/meta: must be an object, not a string",
            "/task_list/1/order: must be an integer of 0 or more, not -1",
            "/task_list/1/task/command: must not be empty",
            "/task_list/1/task/name: must not be empty",
            "/task_list/1/task/meta: must be an object, not a number",
            "/task_list/2/task/command: must be a module's path",
            "/task_list/2/task/name: must be a string, not a number",
            "/task_list/2/task/input_type: must be a string, not an array",
            "/task_list/3/task: must be an object, not null",
            "/task_list/4: missing key `task`",
            "/task_list/5/order: must be an integer of 0 or more, not 1.5",
            "/task_list/6/order: must be an integer of 0 or more, not \"1\"",
            "/task_list/7/task: has neither `command` (the path of a module) nor `source`",
        ],
    );
}

#[test]
fn problems_of_all_documents_come_together() {
    let project = Project::new();
    project.write("metadata.json", "[]");
    project.write("history.json", "{}");
    project.write(
        "config.json",
        "{\"parallel_tasks_per_job\": 0, \"other\": 1}",
    );
    project.write(
        "package/__FRACTAL_MANIFEST__.json",
        "{\"manifest_version\": \"3\", \"task_list\": [{}]}",
    );
    project.workflow(&[json!({ "task": { "source": "nowhere:x" } })]);
    check_project(
        &project,
        &[
            "--metadata",
            "metadata.json",
            "--history",
            "history.json",
            "--local-config",
            "config.json",
            "--tasks",
            "package",
            "--tasks",
            "none",
            "--first-task",
            "3",
            "--result",
            "no/such/folder.json",
        ],
        &[
            "metadata.json: must be an object, not an array",
            "history.json: must be an array, not an object",
            "config.json: /parallel_tasks_per_job: must be an integer of 1 or more",
            "config.json: /other: unknown key",
            "Wrong manifest version (given 3)",
            "/task_list/0: missing key `name`",
            "none: no such folder or file",
            "Found 0 tasks with source='nowhere:x'.",
            "first_task_index=3 cannot be larger than last_task_index=0",
            "--result",
        ],
    );
}

#[test]
fn native_commands_are_never_run() {
    for command in [
        "touch pwned",
        "/bin/sh -c 'touch pwned'",
        "python3 -c 'open(\"pwned\",\"w\")'",
    ] {
        let project = Project::new();
        project.workflow(&[json!({ "task": { "name": "t", "command": command } })]);
        check_project(&project, &[], &["/task_list/0/task/command"]);
        assert!(!project.path("pwned").exists());
    }
}

#[test]
fn a_module_that_is_no_plain_file_is_refused_without_waiting() {
    let project = Project::new();
    let fifo = project.path("m.wasm");
    let status = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo");
    assert!(status.success());
    project.workflow(&[
        task(0, "t", "m.wasm", json!({})),
        task(1, "u", "/dev/zero", json!({})),
        task(2, "v", "in", json!({})),
    ]);
    check_project(
        &project,
        &[],
        &[
            "/task_list/0/",
            "/task_list/1/",
            "/task_list/2/",
            "not a regular file",
            "is a folder",
        ],
    );
}

#[test]
fn a_huge_module_is_refused_before_it_is_read() {
    let project = Project::new();
    let file = std::fs::File::create(project.path("m.wasm")).expect("made");
    file.set_len(2 << 30).expect("sparse");
    project.workflow(&[task(0, "t", "m.wasm", json!({}))]);
    check_project(
        &project,
        &[],
        &["the module has 2 GiB, more than the limit of 64 MiB"],
    );
}

#[test]
fn a_module_other_than_the_one_meant_is_refused() {
    let project = Project::new();
    let mut entry = task(0, "t", &module("swiss.wasm"), json!({}));
    entry["meta"] = json!({ "mandelbox": { "sha256": "00" } });
    project.workflow(&[entry]);
    check_project(
        &project,
        &[],
        &["/task_list/0/task/command", "`meta.mandelbox.sha256` is 00"],
    );
}

#[test]
fn documents_cannot_ask_for_more_than_the_operator_gives() {
    let project = Project::new();
    let mut entry = task(0, "t", &module("swiss.wasm"), json!({}));
    entry["meta"] = json!({ "mandelbox": { "env": { "A": "b" }, "mounts": { "/etc": "/etc" }, "network": true } });
    project.workflow(&[entry]);
    check_project(
        &project,
        &[],
        &[
            "/meta/mandelbox/env/A",
            "/meta/mandelbox/mounts/~1etc: the policy does not",
            "unknown key `network`",
        ],
    );

    let mut entry = task(0, "t", &module("swiss.wasm"), json!({}));
    entry["meta"] = json!({ "mandelbox": { "memory": "1T" } });
    project.workflow(&[entry]);
    project
        .run(&["--memory", "1G"])
        .expect(0)
        .reports(&["warning", "the limit stays at 1 GiB of memory"]);
}

#[test]
fn a_policy_sets_defaults_bounds_and_what_packages_may_have() {
    let project = Project::new();
    project.write("library/lib.txt", "text");
    project.write("library/deep/more.txt", "more");
    let policy = |mounts: &str| {
        format!(
            "[default]\nmemory = \"32M\"\n[maximum]\nmemory = \"128M\"\n[packages]\nenv = \
             [\"TZ\"]\nmounts = [{mounts:?}]\n"
        )
    };
    project.write(
        "policy.toml",
        policy(project.path("library").to_str().expect("UTF-8")),
    );
    let probe = |steps: Value, meta: Value| {
        let mut entry = task(0, "probe", &module("probe.wasm"), json!({ "steps": steps }));
        entry["meta"] = json!({ "mandelbox": meta });
        project.workflow(&[entry]);
        let _ = std::fs::remove_dir_all(project.path("work"));
        project.run(&["--policy", "policy.toml"])
    };
    let allocate = json!([{ "do": "allocate_mib", "n": 60 }]);
    probe(allocate.clone(), json!({}))
        .expect(4)
        .reports(&["memory limit of 32 MiB"]);
    probe(allocate, json!({ "memory": "100M" })).expect(0);
    probe(json!([]), json!({ "memory": "1G" }))
        .expect(0)
        .reports(&["the limit stays at 128 MiB"]);

    let steps = json!([
        { "do": "env" },
        { "do": "read", "path": "/usr/share/lib/lib.txt" },
        { "do": "read", "path": "/usr/share/lib/deep/more.txt" },
        { "do": "write", "path": "/usr/share/lib/new.txt", "text": "x" },
    ]);
    probe(
        steps,
        json!({ "env": { "TZ": "UTC" }, "mounts": { "/usr/share/lib": "library" } }),
    )
    .expect(0);
    let results = project.json("work/metadata.json")["probe"].clone();
    assert_eq!(results[0]["ok"], json!({ "TZ": "UTC" }));
    assert_eq!(
        (&results[1]["ok"], &results[2]["ok"]),
        (&json!("text"), &json!("more"))
    );
    assert!(results[3].get("error").is_some());

    let _ = std::fs::remove_dir_all(project.path("work"));
    check_project(
        &project,
        &["--policy", "policy.toml", "--memory", "1G"],
        &["--memory: exceeds `maximum.memory` of the policy"],
    );
    project.write("policy.toml", "[defaults]\n");
    check_project(
        &project,
        &["--policy", "policy.toml"],
        &["policy.toml:1:2: invalid policy: unknown field `defaults`"],
    );
}

#[test]
fn orders_that_would_share_files_are_refused() {
    let project = Project::new();
    let swiss = module("swiss.wasm");
    project.workflow(&[
        task(1, "a", &swiss, json!({})),
        task(1, "a", &swiss, json!({})),
    ]);
    check_project(&project, &[], &["/task_list/1/order: duplicate order 1"]);
}

#[test]
fn folders_that_would_undo_the_sandbox_are_refused() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let check = |input: &str, output: &str, work: &str, text: &str| {
        let before = project.tree();
        let arguments = [
            "run",
            "workflow.json",
            "--input",
            input,
            "--output",
            output,
            "--work-dir",
            work,
        ];
        project.mandelbox(&arguments).expect(2).reports(&[text]);
        assert_eq!(project.tree(), before);
    };
    check("in", "out", "out/work", "contains the work directory");
    check("in", ".", "work", "contains the work directory");
    check(".", "out", "work", "records no task may see");
    check(
        "workflow.json",
        "out",
        "work",
        "name the folder that holds it",
    );
    check("in", "workflow.json", "work", "is not a folder");
    check("in", "out", "in", "already exists");
}

#[test]
fn a_missing_component_list_is_found_before_the_run_where_it_can_be() {
    let project = Project::new();
    project.workflow(&[parallel_task(
        0,
        "par",
        &module("swiss.wasm"),
        "well",
        json!({}),
    )]);
    check_project(
        &project,
        &[],
        &["parallelization_level ('well') is missing in metadata keys ([])."],
    );
}

#[test]
fn unusual_names_are_only_names() {
    let project = Project::new();
    let name = "../../x\u{0}\n\u{1b}[31m{}%s";
    project.write(
        "metadata.json",
        json!({ "c": ["../../../pwned", "/etc/passwd", "a\u{0}b", "{}{0}%s%n"] }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        name,
        &module("swiss.wasm"),
        "c",
        json!({ "echo": ["component"] }),
    )]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    let inside = |path: &String| {
        ["in/", "out/", "work/", "metadata.json", "workflow.json"]
            .iter()
            .any(|start| path.starts_with(start))
    };
    assert!(project.tree().iter().all(inside), "{:?}", project.tree());
    let echoed = project.json("work/metadata.json")["echo"].clone();
    assert_eq!(echoed[0]["component"], "../../../pwned");
}

#[test]
fn invalid_usage_is_reported() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &quoted("x"), json!({}))]);
    for (arguments, text) in [
        (vec!["run"], "<WORKFLOW>"),
        (
            vec!["run", "workflow.json", "--output", "out", "--jobs", "0"],
            "--jobs",
        ),
        (
            vec![
                "run",
                "workflow.json",
                "--output",
                "out",
                "--memory",
                "lots",
            ],
            "such as",
        ),
        (
            vec!["run", "workflow.json", "--output", "out", "--memory", "500"],
            "write \"500M\" for 500 MiB",
        ),
        (
            vec![
                "run",
                "workflow.json",
                "--output",
                "out",
                "--timeout",
                "soon",
            ],
            "--timeout",
        ),
        (
            vec!["run", "workflow.json", "--output", "out", "--timeout", "0"],
            "must be longer than \"0\"",
        ),
        (
            vec!["run", "workflow.json", "--output", "out", "--timeout", "5M"],
            "write \"5min\" for minutes",
        ),
        (
            vec!["run", "none.json", "--output", "out"],
            "none.json: cannot be read",
        ),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        project.mandelbox(&arguments).expect(2).reports(&[text]);
    }
}

#[test]
fn files_that_a_task_could_replace_are_not_written_to() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    check_project(
        &project,
        &["--result", "out/result.json"],
        &["--result", "is inside the output path"],
    );
    check_project(
        &project,
        &["--events", "out/deep/../events.jsonl"],
        &["--events", "is inside the output path"],
    );
}

#[test]
fn dots_after_a_missing_folder_do_not_hide_its_target() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let before = project.tree();
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "new/..",
        "--work-dir",
        "work",
    ];
    project
        .mandelbox(&arguments)
        .expect(2)
        .reports(&["contains the work directory"]);
    assert_eq!(project.tree(), before);
}

#[test]
fn paths_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let odd = std::ffi::OsStr::from_bytes(b"o\xffdd");
    let run = |option: &str| {
        let mut command = project.command(&["run", "workflow.json", "--output", "out"]);
        command.arg(option).arg(odd);
        crate::project::finish(command)
            .expect(2)
            .reports(&["must be UTF-8"]);
    };
    run("--input");
    run("--work-dir");
    std::fs::create_dir(project.path("").join(odd)).expect("made");
    std::fs::write(project.path("").join(odd).join("m.wasm"), "x").expect("written");
    let mut command = project.command(&["check", "--format", "json"]);
    command.arg(project.path("").join(odd).join("m.wasm"));
    crate::project::finish(command).expect(2);
}

#[test]
fn problems_are_located_where_their_value_was_written() {
    let project = Project::new();
    let task = json!({
        "name": "t", "executable": "m.wasm", "input_type": "Any", "output_type": "Any",
        "meta": { "parallel_tasks_per_job": 0 },
        "args_schema": { "type": "object", "properties": { "size": { "type": "integer", "default": "big" } } },
    });
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": [task] }).to_string(),
    );
    project.workflow(&[json!({ "task": { "source": "other:t" } })]);
    check_project(
        &project,
        &["--tasks", "p", "--tasks", "./p/"],
        &[
            "__FRACTAL_MANIFEST__.json: /task_list/0/meta/parallel_tasks_per_job",
            "__FRACTAL_MANIFEST__.json: /task_list/0/args_schema/properties/size/default",
            "__FRACTAL_MANIFEST__.json: /task_list/0/executable: no module at `",
        ],
    );
}

#[test]
fn a_manifest_can_give_fixed_arguments() {
    let project = Project::new();
    for name in ["p/probe.wasm", "p/a probe.wasm"] {
        project.write(name, std::fs::read(module("probe.wasm")).expect("read"));
    }
    let task = |name: &str, executable: &str| json!({ "name": name, "executable": executable, "input_type": "Any", "output_type": "Any" });
    let tasks = [
        task("words", "probe.wasm --size 3 'a b'"),
        task("blank", "a probe.wasm"),
    ];
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": tasks }).to_string(),
    );
    let entry =
        |name: &str| json!({ "args": { "do": "argv" }, "task": { "source": format!("p:{name}") } });
    for (name, module, fixed) in [
        ("words", "probe.wasm", &["--size", "3", "a b"][..]),
        ("blank", "a probe.wasm", &[]),
    ] {
        project.workflow(&[entry(name)]);
        project.run(&["--tasks", "p"]).expect(0);
        let argv = &project.json("work/metadata.json")["probe"]["ok"];
        let argv: Vec<_> = argv
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(argv[0], module);
        assert_eq!(&argv[1..argv.len() - 4], fixed);
        let command =
            project.json("work/history.json")[0]["workflowtask"]["task"]["command"].clone();
        assert_eq!(
            command.as_str().expect("a text").ends_with("'a b'"),
            !fixed.is_empty(),
            "{command}"
        );
        std::fs::remove_dir_all(project.path("work")).expect("removed");
    }
    let unclosed = [task("words", "probe.wasm 'a")];
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": unclosed }).to_string(),
    );
    project
        .run(&["--tasks", "p"])
        .expect(2)
        .reports(&["/task_list/0/executable", "a quote is not closed"]);
}
