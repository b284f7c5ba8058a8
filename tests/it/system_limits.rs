//! Limits of the system that the user has set with `ulimit`.

use mandelbox::event::read_events;
use serde_json::json;

use crate::confined::confined;
use crate::project::{Ended, ISOLATIONS, Project, finish, module, parallel_task, task};

/// Runs workflow.json with a limit on the size of files, in bytes.
fn run_with_file_size(project: &Project, bytes: u64, more: &[&str]) -> Ended {
    let command = project.command(
        &[
            &["run", "workflow.json", "--input", "in", "--output", "out"],
            more,
        ]
        .concat(),
    );
    finish(confined(
        &format!("exec prlimit --fsize={bytes} \"$@\""),
        &command,
    ))
}

/// A guest that makes a file of 1 TiB in three ways, and exits with the error numbers of the last
/// ones.
const MAKES_LARGE_FILES: &str = r#"
    (import "wasi_snapshot_preview1" "path_open" (func $path_open
        (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
    (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "f")
    (data (i32.const 0) "\40\00\00\00\01\00\00\00")
    (func $fails_with_too_large (param $error i32)
        ;; 22 is `fbig`, and WASI 0.1 has it as such.
        (if (i32.ne (local.get $error) (i32.const 22)) (then (call $exit (local.get $error)))))
    (func (export "_start") (local $fd i32)
        ;; In the first folder that can be written to.
        (local.set $fd (i32.const 3))
        (loop $next
            (if (i32.gt_u (local.get $fd) (i32.const 10)) (then (call $exit (i32.const 101))))
            (if (call $path_open (local.get $fd) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 1)
                    (i64.const 0x400044) (i64.const 0x400044) (i32.const 0) (i32.const 16))
                (then
                    (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                    (br $next))))
        (local.set $fd (i32.load (i32.const 16)))
        (call $fails_with_too_large (call $set_size (local.get $fd) (i64.const 0x10000000000)))
        (call $fails_with_too_large
            (call $pwrite (local.get $fd) (i32.const 0) (i32.const 1) (i64.const 0x10000000000) (i32.const 32)))
        (call $exit (i32.const 77)))
"#;

#[test]
fn a_file_above_the_limit_is_an_error_of_the_guest_alone() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write(
            "guest.wasm",
            wat::parse_str(format!("(module {MAKES_LARGE_FILES})")).expect("valid WAT"),
        );
        project.workflow(&[
            task(0, "t", "guest.wasm", json!({})),
            task(1, "next", &module("swiss.wasm"), json!({ "metadiff": {} })),
        ]);
        let ended = run_with_file_size(
            &project,
            1 << 20,
            &["--work-dir", "work", "--isolation", isolation],
        );
        ended.expect(3).reports(&["exited with code 77"]);
        assert!(project.read("work/events.jsonl").contains("run_finished"));
    }
}

#[test]
fn a_record_above_the_limit_is_an_error_that_names_it() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": (0..3000).collect::<Vec<_>>() }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        "t",
        &module("typed.wasm"),
        "c",
        json!({ "steps": [] }),
    )]);
    let more = [
        "--work-dir",
        "work",
        "--metadata",
        "metadata.json",
        "--task-files",
        "none",
    ];
    let ended = run_with_file_size(&project, 100_000, &more);
    ended.expect(1).reports(&[
        "failed to write to",
        "events.jsonl",
        "raise the limit on file sizes (`ulimit -f`)",
    ]);
    // The lines that are there are whole.
    assert!(
        read_events(&project.path("work/events.jsonl"), 1 << 20)
            .expect("a log")
            .events
            .len()
            > 100
    );
}
