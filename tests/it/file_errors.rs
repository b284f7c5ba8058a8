//! The file system's errors as guests see them. strace lets system calls fail where the machine has
//! no such disk.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::path::Path;

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish, module};
use crate::strace::{can_trace, traced};

/// Lets the probe do one step in the folder that it sees at /files, with a system call that fails.
fn probe_failing(
    project: &Project,
    name: &str,
    step: &Value,
    call: &str,
    error: &str,
) -> (Ended, Value) {
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
    let options = [
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:error={error}"),
    ];
    let ended = finish(traced(&mandelbox, "/dev/null", &options));
    let metadiff = std::fs::read_to_string(project.path("files/metadiff.json")).unwrap_or_default();
    (ended, serde_json::from_str(&metadiff).unwrap_or_default())
}

#[test]
fn errors_of_the_file_system_have_their_own_numbers() {
    if !can_trace() {
        return;
    }
    // WASI's numbers; those that WASI 0.2 has none for are its I/O error, 29, and a warning.
    let errors = [
        ("EDQUOT", 19, 19),
        ("EROFS", 69, 69),
        ("EXDEV", 75, 75),
        ("ETXTBSY", 74, 74),
        ("EMFILE", 33, 29),
        ("ENFILE", 41, 29),
        ("ESTALE", 72, 29),
        ("ETIMEDOUT", 73, 29),
        ("EIO", 29, 29),
        ("ENOSPC", 51, 51),
        ("ENAMETOOLONG", 37, 37),
        ("ELOOP", 32, 32),
    ];
    let step = json!({ "do": "symlink", "from": "a", "to": "/files/link" });
    for (error, of_preview1, of_wasi02) in errors {
        for (name, number) in [("probe.wasm", of_preview1), ("probe.p2.wasm", of_wasi02)] {
            let project = Project::new();
            let (ended, metadiff) = probe_failing(&project, name, &step, "symlinkat", error);
            let text = metadiff["probe"]["error"].as_str().unwrap_or_default();
            assert!(
                text.contains(&format!("(os error {number})")),
                "{error} in {name}: {metadiff} {}",
                ended.stderr
            );
            assert_eq!(
                ended.stderr.contains("has no such error"),
                of_preview1 != number,
                "{}",
                ended.stderr
            );
        }
    }
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
        assert!(
            ended.stderr.contains("(os error 19)"),
            "{name}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_rename_across_file_systems_has_an_error_of_its_own() {
    let project = Project::new();
    let device =
        |path: &Path| std::os::unix::fs::MetadataExt::dev(&path.metadata().expect("there"));
    let is_elsewhere =
        |folder: &tempfile::TempDir| device(folder.path()) != device(&project.path(""));
    let mut folders = ["/dev/shm", env!("CARGO_TARGET_TMPDIR")]
        .into_iter()
        .filter_map(|folder| tempfile::tempdir_in(folder).ok());
    let Some(elsewhere) = folders.find(is_elsewhere) else {
        println!("skipped: all folders are on one file system");
        return;
    };
    let steps = json!({ "steps": [
        { "do": "write", "path": "/files/a", "text": "a" },
        { "do": "rename", "from": "/files/a", "to": "/elsewhere/a" },
        { "do": "hard_link", "from": "/files/a", "to": "/elsewhere/a" },
    ] });
    project.write("files/args.json", steps.to_string());
    let mount = format!("{}::/elsewhere:rw", elsewhere.path().display());
    for name in ["probe.wasm", "probe.p2.wasm"] {
        let options = ["--mount", "files::/files:rw", "--mount", &mount, "--"];
        let arguments = [
            "-j",
            "/files/args.json",
            "--metadata-out",
            "/files/metadiff.json",
        ];
        project
            .mandelbox(&[&["exec", &module(name)], &options[..], &arguments].concat())
            .expect(0);
        let results = &project.json("files/metadiff.json")["probe"];
        for index in [1, 2] {
            assert!(
                results[index]["error"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("(os error 75)"),
                "{results}"
            );
        }
    }
}
