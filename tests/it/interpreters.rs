//! Scripts that an interpreter runs: `--python ENV` and `[interpreters]` of a policy. The
//! interpreter of these tests is the probe, which does the steps in its args and shows its command
//! line, or a module that is written here as text.

use serde_json::{Value, json};

use crate::project::{Ended, ISOLATIONS, Project, module};

/// A project with an environment in `env` and a package of Fractal v1 in `package`, whose task is a
/// script in a folder.
fn with_script() -> Project {
    let project = Project::new();
    write_environment(&project, &json!({}));
    std::fs::copy(module("probe.wasm"), project.path("env/probe.wasm")).expect("copied");
    project.write("env/lib/boot", "boot");
    project.write("env/site/imported.scr", "imported");
    project.write("package/tasks/task.scr", "a script");
    project.write("package/data.txt", "data");
    let task = json!({
        "name": "Script", "executable": "tasks/task.scr", "input_type": "Any",
        "output_type": "Any",
    });
    let manifest = json!({ "manifest_version": "1", "task_list": [task] });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    exported(&project, &json!([]));
    project
}

/// Writes the description of the environment, with more keys.
fn write_environment(project: &Project, more: &Value) {
    let mut description = json!({
        "suffix": ".scr", "module": "probe.wasm",
        "mounts": { "/lib": "lib", "/site": "site" }, "args": ["--boot", "/lib/boot"],
    });
    for (key, value) in more.as_object().expect("an object") {
        description[key] = value.clone();
    }
    project.write("env/interpreter.json", description.to_string());
}

/// Writes a workflow with the task of the package.
fn exported(project: &Project, steps: &Value) {
    project.workflow(&[json!({
        "args": { "steps": steps }, "task": { "source": "package:script" },
    })]);
}

fn run(project: &Project, more: &[&str]) -> Ended {
    project.run(&[&["--tasks", "package", "--python", "env"], more].concat())
}

/// Results of the steps of the call.
fn results(project: &Project) -> Value {
    let metadata = project.json("work/metadata.json");
    let results = metadata["probe"].as_array().expect("results").iter();
    let value = |result: &Value| result.get("ok").unwrap_or(&result["error"]).clone();
    results.map(value).collect()
}

#[test]
fn a_script_runs_with_its_package_and_the_environment_read_only() {
    for isolation in ISOLATIONS {
        let project = with_script();
        let script = project.path("package/tasks/task.scr");
        let steps = json!([
            { "do": "argv" },
            { "do": "read", "path": script },
            { "do": "read", "path": project.path("package/data.txt") },
            { "do": "read", "path": "/site/imported.scr" },
            { "do": "write", "path": script, "text": "x" },
            { "do": "write", "path": "/site/new", "text": "x" },
            { "do": "read", "path": project.path("workflow.json") },
        ]);
        exported(&project, &steps);
        run(&project, &["--isolation", isolation]).expect(0);
        let results = results(&project);
        let argv = results[0].as_array().expect("argv");
        assert_eq!(
            argv[..3],
            [json!("probe.wasm"), json!("--boot"), json!("/lib/boot")]
        );
        assert_eq!(argv[3], json!(script));
        assert_eq!(argv[4], "-j");
        assert!(results[1].to_string().contains("a script"), "{results}");
        assert!(results[2].to_string().contains("data"), "{results}");
        assert!(results[3].to_string().contains("imported"), "{results}");
        for refused in [4, 5, 6] {
            assert!(results[refused].is_string(), "{results}");
        }
        assert_eq!(project.read("package/tasks/task.scr"), "a script");
        let started = &project.events_of("task_started")[0];
        assert_eq!(started["script"]["path"], json!(script));
        let digest = "82d91bef0a42b0a0fee8bd64c95bfa9f87b09b36984f266cb601ce2806276c1c";
        assert_eq!(started["script"]["sha256"], digest);
        let report = project.read("work/report.html");
        assert!(report.contains("script task.scr"), "{report}");
    }
}

#[test]
fn a_dry_run_shows_the_script_and_what_it_reads() {
    let project = with_script();
    let ended = run(&project, &["--dry-run"]).expect(0);
    for text in [
        "script   ",
        "package/tasks/task.scr (sha256 ",
        "as /site",
        "as /lib",
    ] {
        assert!(
            ended.stdout.contains(text) || ended.stderr.contains(text),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_policy_names_interpreters_too() {
    let project = with_script();
    project.write(
        "policy.toml",
        "[interpreters.probe]\nsuffix = \".scr\"\nmodule = \"env/probe.wasm\"\nargs = [\"-b\"]\n",
    );
    exported(&project, &json!([{ "do": "argv" }]));
    let policy = ["--tasks", "package", "--policy", "policy.toml"];
    project.run(&policy).expect(0);
    let argv = results(&project)[0].clone();
    assert_eq!(argv[1], "-b");
    assert_eq!(argv[2], json!(project.path("package/tasks/task.scr")));

    project.write(
        "policy.toml",
        "[interpreters.probe]\nsuffix = \"scr\"\nmodule = \"no.wasm\"\n",
    );
    project
        .run(&[&policy[..], &["--dry-run"]].concat())
        .expect(2)
        .reports(&[
            "interpreters.probe.suffix: must be the end of a file name",
            "interpreters.probe.module: no module at",
        ]);
}

#[test]
fn the_module_next_to_a_script_replaces_it() {
    let project = with_script();
    write_environment(&project, &json!({ "suffix": ".py" }));
    let manifest = project.read("package/__FRACTAL_MANIFEST__.json");
    project.write("package/tasks/task.py", "a script");
    project.write(
        "package/__FRACTAL_MANIFEST__.json",
        manifest.replace(".scr", ".py"),
    );
    std::fs::copy(
        module("probe.wasm"),
        project.path("package/tasks/task.wasm"),
    )
    .expect("copied");
    exported(&project, &json!([{ "do": "argv" }]));
    run(&project, &[]).expect(0);
    let argv = results(&project)[0].clone();
    assert_eq!((&argv[0], &argv[1]), (&json!("task.wasm"), &json!("-j")));
    assert_eq!(project.events_of("task_started")[0].get("script"), None);
}

#[test]
fn a_changed_script_or_environment_is_rerun() {
    let project = with_script();
    run(&project, &[]).expect(0);
    let resume = |expected: &str| {
        let ended = run(&project, &["--resume"]).expect(0);
        assert!(
            ended.stderr.contains(expected),
            "{expected}: {}",
            ended.stderr
        );
    };
    resume("1 call, 1 reused");
    project.write("package/results.txt", "not a script");
    resume("1 call, 1 reused");
    project.write("package/tasks/task.scr", "another script");
    resume("the script has changed");
    project.write("package/helper.scr", "imported by the script");
    resume("the environment of the script, or another script of its package, has changed");
    project.write("env/site/imported.scr", "changed");
    resume("the environment of the script, or another script of its package, has changed");
    resume("1 call, 1 reused");
}

#[test]
fn packages_of_version_2_have_scripts_too() {
    let project = with_script();
    let task = json!({
        "name": "Script", "type": "converter_non_parallel",
        "executable_non_parallel": "tasks/task.scr",
    });
    let manifest = json!({
        "manifest_version": "2", "pkg_name": "package", "version": "1.0", "task_list": [task],
    });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    project.workflow(&[json!({
        "args_non_parallel": { "do": "argv" },
        "task": { "pkg_name": "package", "version": "1.0", "name": "Script" },
    })]);
    let ended = project.mandelbox(&[
        "run",
        "workflow.json",
        "--zarr-dir",
        "out",
        "--tasks",
        "package",
        "--python",
        "env",
        "--work-dir",
        "work",
    ]);
    // The output of the probe is not one of version 2; the call itself was made.
    let started = &project.events_of("task_started")[0];
    assert_eq!(
        started["script"]["path"],
        json!(project.path("package/tasks/task.scr"))
    );
    assert!(
        ended.stderr.contains("probe") || ended.code == 0,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_script_is_called_alone() {
    let project = with_script();
    project.write("args.json", r#"{"steps": [{"do": "argv"}]}"#);
    let script = "package/tasks/task.scr";
    let ended = project.mandelbox(&["exec", script, "--python", "env", "--args", "args.json"]);
    let ended = ended.expect(0);
    let output: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(output["probe"][0]["ok"][3], json!(project.path(script)));

    let mount = ["--mount", "in::/in:rw"];
    project.write("in/args.json", r#"{"steps": [{"do": "argv"}]}"#);
    let call = [
        "--",
        "-j",
        "/in/args.json",
        "--metadata-out",
        "/in/out.json",
    ];
    let start = ["exec", script, "--python", "env"];
    project
        .mandelbox(&[&start[..], &mount, &call].concat())
        .expect(0);
    assert_eq!(
        project.json("in/out.json")["probe"][0]["ok"][3],
        json!(project.path(script))
    );

    project.write(
        "package/tests/case/args.json",
        r#"{"steps": [{"do": "exit", "code": 3}]}"#,
    );
    project.write(
        "package/tests/case/expected/error.txt",
        "exited with code 3",
    );
    project
        .mandelbox(&["test", "package", "--python", "env"])
        .expect(0)
        .reports(&["1 passed, 0 failed"]);
}

#[test]
fn documents_reach_no_script_outside_of_their_folder() {
    let project = with_script();
    project.write("secret/task.scr", "a script");
    let inline = |command: &str| {
        project.workflow(&[json!({
            "order": 0, "args": { "steps": [] }, "meta": {},
            "task": { "name": "Script", "command": command, "meta": {} },
        })]);
    };
    let outside = project.path("secret/task.scr").display().to_string();
    std::fs::create_dir(project.path("wf")).expect("created");
    inline(&outside);
    std::fs::rename(
        project.path("workflow.json"),
        project.path("wf/workflow.json"),
    )
    .expect("moved");
    let run = |more: &[&str]| {
        let start = [
            "run",
            "wf/workflow.json",
            "--output",
            "out",
            "--work-dir",
            "work",
        ];
        project.mandelbox(&[&start[..], &["--python", "env"], more].concat())
    };
    run(&[])
        .expect(2)
        .reports(&["is neither in the folder of the workflow nor in the environment"]);
    let secret = project.path("secret").display().to_string();
    project.write(
        "policy.toml",
        format!("[packages]\nmounts = [{secret:?}]\n"),
    );
    run(&["--policy", "policy.toml"]).expect(0);

    let link = project.path("package/tasks/linked.scr");
    std::os::unix::fs::symlink(project.path("secret/task.scr"), link).expect("linked");
    let manifest = project.read("package/__FRACTAL_MANIFEST__.json");
    project.write(
        "package/__FRACTAL_MANIFEST__.json",
        manifest.replace("task.scr", "linked.scr"),
    );
    exported(&project, &json!([]));
    let ended = project.run(&["--tasks", "package", "--python", "env", "--dry-run"]);
    ended
        .expect(2)
        .reports(&["linked.scr` is outside of its package"]);
}

#[test]
fn a_script_does_not_see_the_records_of_its_run() {
    let project = with_script();
    let start = [
        "run",
        "workflow.json",
        "--tasks",
        "package",
        "--python",
        "env",
        "--output",
    ];
    project
        .mandelbox(&[&start[..], &["out", "--work-dir", "package/work"]].concat())
        .expect(2)
        .reports(&["of a script, which its task can read; choose another --work-dir"]);
}

#[test]
fn wrong_environments_are_reported() {
    let project = with_script();
    let ended = project.run(&["--tasks", "package", "--python", "package", "--dry-run"]);
    ended
        .expect(2)
        .reports(&["is not an environment: it has no `interpreter.json`"]);
    write_environment(&project, &json!({ "mount": {} }));
    run(&project, &["--dry-run"])
        .expect(2)
        .reports(&["unknown field `mount`"]);
    write_environment(&project, &json!({ "mounts": { "/lib": "none" } }));
    run(&project, &["--dry-run"])
        .expect(2)
        .reports(&["/mounts/~1lib: no folder at"]);
    write_environment(&project, &json!({ "module": "lib/boot" }));
    run(&project, &["--dry-run"])
        .expect(2)
        .reports(&["is not a WebAssembly module"]);
    write_environment(&project, &json!({}));
    std::fs::copy(module("typed.wasm"), project.path("env/probe.wasm")).expect("copied");
    run(&project, &["--dry-run"])
        .expect(2)
        .reports(&["must be a command"]);
}

/// A command that prints a text and exits with a code.
fn printing(text: &str, code: u32) -> Vec<u8> {
    let data = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let wat = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 64) "{data}")
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 64))
                (i32.store (i32.const 4) (i32.const {len}))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (call $exit (i32.const {code}))))"#,
        len = text.len(),
    );
    wat::parse_str(wat).expect("valid WAT")
}

#[test]
fn check_reports_what_the_environment_lacks() {
    let project = with_script();
    let check = |path: &str, code: i32| {
        let tasks = ["--tasks", "package"];
        let more: &[&str] = if path.ends_with(".json") { &tasks } else { &[] };
        project
            .mandelbox(&[&["check", path, "--python", "env"], more].concat())
            .expect(code)
    };
    check("package", 0).reports(&["kind      script", "imports   not checked"]);
    write_environment(&project, &json!({ "check": ["--check"] }));
    project.write(
        "env/probe.wasm",
        printing(r#"["no module torch", "no module zarr"]"#, 0),
    );
    for path in ["package", "package/tasks/task.scr", "workflow.json"] {
        check(path, 2).reports(&[
            "imports   2 missing (see the problems below)",
            "no module torch",
            "no module zarr",
            "2 problems found",
        ]);
    }
    project.write("env/probe.wasm", printing("[]", 0));
    check("package", 0).reports(&["imports   all found", "no problem found"]);
    project.write("env/probe.wasm", printing("{}", 0));
    check("package", 2).reports(&["it did not print a JSON array of strings"]);
    project.write("env/probe.wasm", printing("[]", 7));
    check("package", 2).reports(&["the check of the environment", "failed: exited with code 7"]);
}

#[test]
fn a_batch_calls_a_script() {
    let project = with_script();
    let script = "package/tasks/task.scr";
    project.write(
        "calls.jsonl",
        "{\"args\": {\"steps\": [{\"do\": \"argv\"}]}}\n".repeat(3),
    );
    let batch = [
        "batch",
        script,
        "--python",
        "env",
        "--calls",
        "calls.jsonl",
        "--results",
        "-",
    ];
    let ended = project.mandelbox(&batch).expect(0);
    let results = ended.stdout.lines();
    let results: Vec<Value> = results
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(results.len(), 3);
    for result in results {
        let argv = &result["output"]["probe"][0]["ok"];
        assert_eq!(
            (&argv[1], &argv[3]),
            (&json!("--boot"), &json!(project.path(script)))
        );
    }
}

#[test]
fn a_script_starts_from_a_snapshot_of_its_interpreter() {
    let project = with_script();
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "wizer.initialize") (i32.store (i32.const 0) (i32.const 41)))
        (func (export "_start") (call $exit (i32.load (i32.const 0)))))"#;
    let module = wat::parse_str(text).expect("a module");
    project.write("env/probe.wasm", module);
    write_environment(&project, &json!({ "snapshot": true }));
    let call = ["exec", "package/tasks/task.scr", "--python", "env"];
    project.mandelbox(&call).expect(0);
    let started = [&call[..], &["--snapshot"]].concat();
    project.mandelbox(&started).expect(41);
}
