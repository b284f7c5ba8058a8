//! The file system's errors as guests see them. strace lets system calls fail where the machine has no such disk.

#![expect(clippy::print_stdout, reason = "what was not tried is said")]

use std::process::Command;

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish, module};

/// Lets the probe do one step in the folder that it sees at /files, with a system call that fails.
fn probe_failing(project: &Project, name: &str, step: &Value, call: &str, error: &str) -> (Ended, Value) {
    project.write("files/args.json", step.to_string());
    let mandelbox = project.command(&[
        "exec",
        &module(name),
        "--mount",
        "files::/files:rw",
        "--",
        "-j",
        "/files/args.json",
        "--metadata-out",
        "/files/metadiff.json",
    ]);
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:error={error}")]);
    command.arg(mandelbox.get_program()).args(mandelbox.get_args()).current_dir(project.path(""));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let ended = finish(command);
    let metadiff = std::fs::read_to_string(project.path("files/metadiff.json")).unwrap_or_default();
    (ended, serde_json::from_str(&metadiff).unwrap_or_default())
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    let can = traced.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: no program can be traced here (strace is not installed, or not allowed)");
    }
    can
}

#[test]
fn a_quota_that_is_used_up_while_writing_is_no_io_error() {
    if !can_trace() {
        return;
    }
    let step = json!({ "do": "write", "path": "/files/new.txt", "text": "text" });
    for name in ["probe.wasm", "probe.p2.wasm"] {
        let project = Project::new();
        // The metadiff cannot be written either: the message is on stderr.
        let (ended, _) = probe_failing(&project, name, &step, "pwrite64", "EDQUOT");
        assert!(ended.stderr.contains("(os error 19)"), "{name}: {}", ended.stderr);
    }
}
