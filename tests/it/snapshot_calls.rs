//! Calls from a snapshot that run one after the other in the same instance.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::project::{ISOLATIONS, Project};
use crate::snapshot::{module, with_guest};
use crate::snapshot_runs::snapshot_task;

/// A guest whose calls print their state, change all of it, and end in different ways.
///
/// The state is a byte of the image, one of a page of zeros, one of the last page, the size of the
/// memory, a global, and the number of the next file. The ways are: return, exit, grow the memory,
/// and write more than is kept.
const CHANGER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (memory (export "memory") 1600)
    (global $g (mut i32) (i32.const 1))
    (data (i32.const 64) ".")
    (func $letter (param $value i32)
        (i32.store8 (i32.const 12) (i32.add (i32.const 65) (local.get $value)))
        (i32.store (i32.const 0) (i32.const 12))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "wizer.initialize")
        (i32.store8 (i32.const 4096) (i32.const 2))
        (i32.store8 (i32.const 1000000) (i32.const 3))
        (global.set $g (i32.const 4)))
    (func (export "_start")
        (call $letter (i32.load8_u (i32.const 4096)))
        (call $letter (i32.load8_u (i32.const 500000)))
        (call $letter (i32.load8_u (i32.const 104857599)))
        (call $letter (i32.sub (memory.size) (i32.const 1600)))
        (call $letter (global.get $g))
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1)
            (i32.const 2) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16)))
        (call $letter (i32.load (i32.const 16)))
        (memory.fill (i32.const 4096) (i32.const 9) (i32.const 900000))
        (i32.store8 (i32.const 104857599) (i32.const 9))
        (global.set $g (i32.const 9))
        (drop (call $random_get (i32.const 32) (i32.const 1)))
        (if (i32.eq (i32.and (i32.load8_u (i32.const 32)) (i32.const 7)) (i32.const 0))
            (then (drop (memory.grow (i32.const 1)))))
        (if (i32.eq (i32.and (i32.load8_u (i32.const 32)) (i32.const 7)) (i32.const 1))
            (then (memory.fill (i32.const 65536) (i32.const 9) (i32.const 70000000))))
        (if (i32.gt_u (i32.load8_u (i32.const 32)) (i32.const 127))
            (then (call $proc_exit (i32.const 0))))))"#;

#[test]
fn every_call_starts_with_the_state_of_the_initialization() {
    let project = Project::new();
    project.write("guest.wasm", wat::parse_str(CHANGER).expect("valid WAT"));
    project.workflow(&[snapshot_task(Some("image"))]);
    let items: Vec<_> = (0..60).map(|index| index.to_string()).collect();
    project.write("metadata.json", json!({ "image": items }).to_string());
    for isolation in ISOLATIONS {
        let _ = std::fs::remove_dir_all(project.path("work"));
        let options = ["--metadata", "metadata.json", "--isolation", isolation];
        project
            .run(&[&options[..], &["--jobs", "1"]].concat())
            .expect(0);
        let mut printed = String::new();
        for item in &items {
            let text = project.read(&format!("work/0_t/0_par_{item}.out"));
            let _ = writeln!(printed, "{text}");
        }
        let first = printed.lines().next().expect("a line");
        assert!(first.starts_with("CAAAE"), "{first}");
        assert!(first.len() == 6 && !first.ends_with('A'), "{first}");
        assert!(printed.lines().all(|line| line == first), "{printed}");
    }
}

#[test]
fn what_the_initialization_prints_is_logged() {
    // A module of its own for each run of the test, whose snapshot is not in the cache.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let body = format!(
        r#"(memory (export "memory") 1) (data (i32.const 100) "no module\1b[31m")
        (data (i32.const 200) "{:?}")
        (func (export "wizer.initialize") (call $print (i32.const 100) (i32.const 14)))
        (func (export "_start"))"#,
        now.expect("after 1970")
    );
    let project = with_guest(module(&body));
    project.workflow(&[snapshot_task(None)]);
    project.run(&[]).expect(0);
    let log = project.read("work/workflow.log");
    let expected = "guest.wasm printed when it started for the snapshot: no module\\u{1b}[31m";
    assert!(log.contains(expected), "{log}");
}
