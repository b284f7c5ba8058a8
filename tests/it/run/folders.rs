//! The folders of a run: work directory, grants, open files, free space.

use serde_json::json;

use super::swiss;
use crate::project::{Project, module, parallel_task, task};

#[test]
fn a_work_directory_with_a_blank_and_brackets_is_fine() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "echo": ["output_path"] }))]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "my out (1)",
        "--work-dir",
        "my work & (2)",
    ];
    project.mandelbox(&arguments).expect(0);
    let output = project.path("my out (1)");
    assert_eq!(
        project.json("my work & (2)/metadata.json")["echo"]["output_path"],
        output.to_str().expect("UTF-8")
    );
}

#[test]
fn the_default_work_directory_is_new_each_time() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    for _ in 0..3 {
        project
            .mandelbox(&["run", "workflow.json", "--output", "out"])
            .expect(0);
    }
    let runs: Vec<_> = project
        .tree()
        .into_iter()
        .filter(|path| path.starts_with("mandelbox-runs/test_") && path.ends_with("result.json"))
        .collect();
    assert_eq!(runs.len(), 3, "{runs:?}");
}

#[test]
fn folders_have_fractals_mode_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    project.workflow(&[
        task(0, "one", &swiss(), json!({ "exit": 1 })),
        task(1, "two", &swiss(), json!({})),
    ]);
    let program = env!("CARGO_BIN_EXE_mandelbox");
    let line = format!("umask 077; '{program}' run workflow.json --output out --work-dir work");
    let status = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(project.path(""))
        .output();
    assert_eq!(status.expect("a shell").status.code(), Some(3));
    for folder in ["work", "work/0_one", "work/1_two"] {
        let mode = std::fs::metadata(project.path(folder))
            .expect(folder)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}");
    }
}

#[test]
fn calls_do_not_take_each_others_files() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["a", "b", "c", "d"] }).to_string(),
    );
    let open = json!({ "do": "open_files", "path": project.write("in/a.txt", "x"), "n": 900 });
    project.workflow(&[parallel_task(
        0,
        "par",
        &module("probe.wasm"),
        "c",
        json!({ "steps": [open] }),
    )]);
    let program = env!("CARGO_BIN_EXE_mandelbox");
    let line = format!(
        "ulimit -n 256; '{program}' run workflow.json --input in --output out --work-dir work \
         --metadata metadata.json --jobs 2"
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(project.path(""))
        .output();
    let code = status.expect("a shell").status.code();
    let log = project.read("work/workflow.log");
    assert!(
        log.contains("ulimit -n: each call can open 104 files instead of 1000"),
        "{log}"
    );
    let events = project.read("work/events.jsonl");
    // Each call meets its own limit; none meets the process's.
    assert_eq!(
        events.matches("\"outcome\":\"host_failed\"").count(),
        0,
        "{events}"
    );
    assert!(matches!(code, Some(0 | 3 | 4)), "{code:?}");
}

#[test]
fn calls_start_only_while_the_disk_has_the_room_that_the_policy_asks_for() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    let run = |free_space: &str, work: &str| {
        project.write(
            "policy.toml",
            format!("[host]\nfree_space = \"{free_space}\"\n"),
        );
        project.mandelbox(&[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            work,
            "--policy",
            "policy.toml",
        ])
    };
    run("1MiB", "enough").expect(0);
    run("1000000TiB", "too-little")
        .expect(4)
        .reports(&["free space for a call in", "host.free_space is 1000000 TiB"]);
    assert_eq!(
        project.json("too-little/result.json")["history"][0]["status"],
        "failed"
    );
}

#[test]
fn paths_in_args_that_no_option_grants_are_reported() {
    let project = Project::new();
    project.write("profiles/a.txt", "x");
    let file = project.path("profiles/a.txt");
    let args = json!({ "touch": [], "profile": { "path": file }, "missing": "/no/such/file" });
    project.workflow(&[task(0, "t", &swiss(), args)]);
    let folder = file.parent().expect("a folder").display().to_string();
    let ended = project.run(&["--dry-run"]).expect(0);
    assert!(
        !ended.stderr.contains("/no/such/file` in"),
        "{}",
        ended.stderr
    );
    ended.reports(&[
        "args of task 0",
        "`/profile/path`",
        &format!("add `--read {folder}`"),
    ]);
    let ended = project.run(&["--dry-run", "--read", "profiles"]).expect(0);
    assert!(
        !ended.stderr.contains("grants no access"),
        "{}",
        ended.stderr
    );
}
