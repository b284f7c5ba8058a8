//! `--result` and `--events`: nothing that the user has is overwritten, and what a resumed run
//! reports goes on.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::project::{Project, module, task};

fn project(args: Value) -> Project {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), args)]);
    project
}

#[test]
fn documents_and_records_are_not_overwritten() {
    let project = project(json!({}));
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    project.workflow(&[task(0, "t", "m.wasm", json!({}))]);
    project.write("metadata.json", "{}");
    project.write("history.json", "[]");
    project.write("policy.toml", "");
    project.write("local.json", "{}");
    let manifest = json!({ "manifest_version": "1", "has_args_schemas": false,
        "task_list": [{ "name": "other", "executable": "other.wasm", "input_type": "Any", "output_type": "Any", "meta": {} }] });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    std::fs::copy(module("swiss.wasm"), project.path("package/other.wasm")).expect("copied");
    std::fs::hard_link(project.path("workflow.json"), project.path("hard")).expect("made");
    symlink("workflow.json", project.path("soft")).expect("made");
    symlink("out/new.json", project.path("into-output")).expect("made");
    let documents = [
        "--metadata",
        "metadata.json",
        "--history",
        "history.json",
        "--policy",
        "policy.toml",
    ];
    let more = ["--local-config", "local.json", "--tasks", "package"];
    let run = |option: &str, file: &str| {
        project.run(&[&documents[..], &more, &[option, file, "--dry-run"]].concat())
    };
    for option in ["--result", "--events"] {
        for (file, what) in [
            ("workflow.json", "would overwrite the workflow; choose"),
            ("hard", "would overwrite the workflow"),
            ("soft", "would overwrite the workflow"),
            ("./in/../workflow.json", "would overwrite the workflow"),
            ("metadata.json", "would overwrite the file of `--metadata`"),
            ("history.json", "would overwrite the file of `--history`"),
            ("policy.toml", "would overwrite the policy"),
            (
                "local.json",
                "would overwrite the local backend's configuration",
            ),
            ("m.wasm", "would overwrite the module of a task"),
            ("package/other.wasm", "would overwrite the module of a task"),
            (
                "package/__FRACTAL_MANIFEST__.json",
                "would overwrite the manifest of a package",
            ),
            ("work/events.jsonl", "is inside the work directory"),
            ("work/0_t/0.args.json", "is inside the work directory"),
            ("into-output", "is inside the output path"),
            ("in", "is a folder; name a file"),
            ("none/x", "its folder does not exist; create it first"),
        ] {
            run(option, file).expect(2).reports(&[option, what]);
        }
        run(option, "new.json").expect(0);
        run(option, "/dev/null").expect(0);
    }
    project
        .run(&["--result", "same", "--events", "same"])
        .expect(2)
        .reports(&["is also the file of `--result`"]);
    project.write("there", "kept");
    symlink("there", project.path("link")).expect("made");
    project
        .run(&["--result", "there", "--events", "link"])
        .expect(2)
        .reports(&["is also the file of `--result`"]);
    project
        .run(&["--result", "-", "--events", "/dev/stdout"])
        .expect(2)
        .reports(&["can go to stdout"]);
    assert_eq!(project.read("there"), "kept");
    assert!(!project.path("work").exists());
    // A resumed run reports its own records first.
    project
        .run(&["--result", "/dev/null", "--events", "/dev/null"])
        .expect(0);
    project
        .run(&["--resume", "--result", "work/metadata.json"])
        .expect(2)
        .reports(&["is inside the work directory"]);
}

#[test]
fn a_result_keeps_the_access_of_the_file_that_it_replaces() {
    let project = project(json!({ "metadiff": { "a": 1 } }));
    project.write("result.json", "old");
    std::fs::set_permissions(
        project.path("result.json"),
        std::fs::Permissions::from_mode(0o600),
    )
    .expect("changed");
    symlink("new.json", project.path("link.json")).expect("made");
    project.run(&["--result", "result.json"]).expect(0);
    assert_eq!(
        project
            .path("result.json")
            .metadata()
            .expect("there")
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(project.json("result.json")["metadata"], json!({ "a": 1 }));
    // A link to what is not there yet leads to the result.
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "w2",
        "--result",
        "link.json",
    ];
    project.mandelbox(&arguments).expect(0);
    assert!(project.path("link.json").is_symlink());
    assert_eq!(project.json("new.json")["metadata"], json!({ "a": 1 }));
}

#[test]
fn other_data_in_the_file_of_stdout_stays() {
    let project = project(json!({ "metadiff": { "a": 1 } }));
    let script = r#"{ echo before; "$0" run workflow.json --output out --work-dir w --result /dev/stdout --quiet; echo after; } > all"#;
    let program = project.command(&[]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script])
        .arg(program.get_program())
        .current_dir(project.path(""));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    crate::project::finish(command).expect(0);
    let all = project.read("all");
    let result = all
        .strip_prefix("before\n")
        .and_then(|rest| rest.strip_suffix("after\n"))
        .expect(&all);
    assert_eq!(
        serde_json::from_str::<Value>(result).expect("JSON")["metadata"],
        json!({ "a": 1 })
    );
}

#[test]
fn events_of_a_resumed_run_go_on_in_their_file() {
    let project = project(json!({ "exit": 1 }));
    let seqs = |name: &str| -> Vec<u64> {
        let events = project.read(name);
        let event = |line| {
            serde_json::from_str::<Value>(line).expect("JSON")["seq"]
                .as_u64()
                .expect("a number")
        };
        events.lines().map(event).collect()
    };
    let n_logged = || project.read("work/events.jsonl").lines().count() as u64;
    project.run(&["--events", "events"]).expect(3);
    assert_eq!(seqs("events"), Vec::from_iter(0..n_logged()));
    project.run(&["--events", "events", "--resume"]).expect(3);
    assert_eq!(seqs("events"), Vec::from_iter(0..n_logged()));
    // A run without the option, and a line that was torn: what is missing is added.
    project.run(&["--resume"]).expect(3);
    let events = project.read("events");
    project.write("events", events + "{\"seq\":99,");
    project.run(&["--events", "events", "--resume"]).expect(3);
    assert_eq!(seqs("events"), Vec::from_iter(0..n_logged()));
    // A new file has the events from its start on.
    let before = n_logged();
    project.run(&["--events", "second", "--resume"]).expect(3);
    assert_eq!(seqs("second"), Vec::from_iter(before..n_logged()));

    let n_before = n_logged();
    project.write("other", "something else\n");
    project
        .run(&["--events", "other", "--resume"])
        .expect(2)
        .reports(&["--events", "contains other data than events of the run"]);
    assert_eq!(
        (project.read("other").as_str(), n_logged()),
        ("something else\n", n_before)
    );
    // A new run writes over what an earlier one has left.
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "w2",
        "--events",
        "events",
    ];
    project.mandelbox(&arguments).expect(3);
    assert_eq!(project.read("events"), project.read("w2/events.jsonl"));
}
