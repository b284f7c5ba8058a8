//! Few addresses (`ulimit -v`): guests' memories begin small, and are moved when they grow.
#![cfg(target_os = "linux")]

use serde_json::{Value, json};

use crate::confined::{check_whole, check_works, confined, project, run};
use crate::project::{Project, finish, parallel_task, task};

#[test]
fn runs_with_little_address_space() {
    for gibibytes in [2, 4, 8, 64] {
        check_works(&format!("ulimit -v {}; exec \"$@\"", gibibytes << 20), &[]);
    }
}

#[test]
fn the_doctor_reports_how_memory_is_reserved() {
    let cases = [
        (
            "unlimited",
            "good",
            "no limit; 4 GiB of address space for each memory, without bounds checks",
        ),
        (
            "4194304",
            "missing",
            "4 GiB; 64 MiB of address space at first for each memory, with bounds checks",
        ),
    ];
    for (limit, state, value) in cases {
        let project = Project::new();
        let inner = project.command(&["doctor", "--format", "json"]);
        let ended = finish(confined(&format!("ulimit -v {limit}; exec \"$@\""), &inner)).expect(0);
        let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let findings = answer["findings"].as_array().expect("a list");
        let finding = findings
            .iter()
            .find(|finding| finding["name"] == "address space (ulimit -v)")
            .expect("there");
        assert_eq!(
            (&finding["state"], &finding["value"]),
            (&json!(state), &json!(value))
        );
    }
}

/// A guest whose memory grows to 300 MiB in small steps, with a mark in each page; exits with code
/// 9 if one is lost.
const GROWS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $page i32)
        (loop $more
            (i32.store offset=65532 (i32.shl (local.get $page) (i32.const 16)) (local.get $page))
            (local.set $page (i32.add (local.get $page) (i32.const 1)))
            (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (call $exit (i32.const 8))))
            (br_if $more (i32.lt_u (local.get $page) (i32.const 4800))))
        (loop $look
            (local.set $page (i32.sub (local.get $page) (i32.const 1)))
            (if (i32.ne (i32.load offset=65532 (i32.shl (local.get $page) (i32.const 16))) (local.get $page))
                (then (call $exit (i32.const 9))))
            (br_if $look (local.get $page)))))"#;

#[test]
fn a_memory_that_is_moved_keeps_its_contents_and_its_bounds() {
    let project = project(2);
    let past_the_end = r#"(module (memory (export "memory") 1)
        (func (export "_start") (drop (i32.load8_u (i32.const 65536)))))"#;
    for (name, text) in [("grows.wasm", GROWS), ("past.wasm", past_the_end)] {
        project.write(name, wat::parse_str(text).expect("WAT"));
    }
    let path = |name: &str| project.path(name).to_str().expect("UTF-8").to_owned();
    for (address_space, isolation) in [
        ("2097152", "thread"),
        ("2097152", "process"),
        ("unlimited", "thread"),
    ] {
        let shell = format!("ulimit -v {address_space}; exec \"$@\"");
        let _ = std::fs::remove_dir_all(project.path("work"));
        project.workflow(&[parallel_task(0, "par", &path("grows.wasm"), "c", json!({}))]);
        run(&project, &shell, &["--isolation", isolation]).expect(0);
        let _ = std::fs::remove_dir_all(project.path("work"));
        project.workflow(&[task(0, "t", &path("past.wasm"), json!({}))]);
        run(&project, &shell, &["--isolation", isolation])
            .expect(4)
            .reports(&["out of bounds memory access"]);
    }
}

#[test]
fn a_lack_of_memory_of_the_machine_is_not_a_trap() {
    let project = project(1);
    let path = project.write("grows.wasm", wat::parse_str(GROWS).expect("WAT"));
    project.workflow(&[task(0, "t", path.to_str().expect("UTF-8"), json!({}))]);
    // 560 MiB hold the program, with what its allocator reserves for each thread, but not 300 MiB
    // twice.
    let ended = run(&project, "ulimit -v 573440; exec \"$@\"", &["--jobs", "1"]);
    ended
        .expect(4)
        .reports(&["could not be run: the machine is out of memory"]);
    check_whole(&project.path("work"));
}
