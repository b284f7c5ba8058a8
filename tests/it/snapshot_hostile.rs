//! Initializations that try what they may not do.

use crate::project::{ISOLATIONS, Project};
use crate::snapshot::{exec, with_guest};

/// Imports and data that the guests share.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file"
        (func $unlink (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory"
        (func $create_directory (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename"
        (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink"
        (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_accept"
        (func $sock_accept (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_send"
        (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get"
        (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get"
        (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
"#;

/// Memory, and functions that use it. `$write` writes 64 KiB of zeros to stdout.
const MEMORY: &str = r#"
    (memory (export "memory") 4)
    (data (i32.const 1000) "new.txt")
    (data (i32.const 1010) "a.txt")
    (data (i32.const 1020) "/etc/hosts")
    (data (i32.const 1040) "../in/a.txt")
    (func $write
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func $deeper (param i32) (result i32)
        (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
"#;

/// A guest whose initialization has this body, with the other functions of the module.
fn guest(init: &str, functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {PRELUDE} {MEMORY} {functions}
        (func (export "wizer.initialize") (local $i i32) {init}))"#
    );
    wat::parse_str(text).expect("valid WAT")
}

/// Entry of a guest whose calls do nothing.
const IDLE: &str = r#"(func (export "_start"))"#;

/// Runs a guest whose initialization may take 1 s and 1 MiB.
fn start(project: &Project, isolation: &str) -> crate::project::Ended {
    project.write("policy.toml", "[host]\ncompile = \"1s\"");
    let options = ["--policy", "policy.toml", "--memory", "1M", "--mount", "in"];
    let more = ["--snapshot", "--no-cache", "--isolation", isolation];
    exec(project, &[&options[..], &more].concat())
}

#[test]
fn an_initialization_that_does_not_return_is_ended_and_named() {
    // A clock subscription of a day.
    let sleep = r#"
        (i32.store (i32.const 2016) (i32.const 1))
        (i64.store (i32.const 2024) (i64.const 86400000000000))
        (drop (call $poll_oneoff (i32.const 2000) (i32.const 2100) (i32.const 1) (i32.const 2200)))
        unreachable"#;
    let grow = r#"(loop $more
        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"#;
    // 4 MiB of output.
    let print = r#"(loop $more (call $write)
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 64)))) unreachable"#;
    let print_for_ever = "(loop $more (call $write) (br $more))";
    let cases = [
        ("(loop $more (br $more))", "it took longer than 1 s"),
        (sleep, "it took longer than 1 s"),
        (print_for_ever, "it took longer than 1 s"),
        (
            "(drop (call $deeper (i32.const 0)))",
            "call stack exhausted",
        ),
        (
            "(i32.store (i32.const -1) (i32.const 1))",
            "out of bounds memory access",
        ),
        (grow, "it needs more memory than the limit of a call, 1 MiB"),
        (print, "`unreachable`"),
    ];
    for (init, expected) in cases {
        let project = with_guest(guest(init, IDLE));
        for isolation in ISOLATIONS {
            let ended = start(&project, isolation).expect(2).reports(&[
                "no snapshot of guest.wasm can be made: `wizer.initialize`: ",
                expected,
            ]);
            // What it printed is not repeated without end.
            assert!(ended.stderr.len() < 64 << 10, "{}", ended.stderr.len());
        }
    }
}

#[test]
fn an_initialization_can_change_nothing_and_knows_nothing_of_the_call() {
    // Each attempt leaves 1 if it had an effect. Only reading the mount is allowed.
    let attempts = [
        // Create a file; open one for writing; open one outside.
        "(i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1000) (i32.const 7)
            (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1010) (i32.const 5)
            (i32.const 0) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1010) (i32.const 5)
            (i32.const 8) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1020) (i32.const 10)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1040) (i32.const 11)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))",
        // A second folder: the work folder, the scratch folder or the output of the call.
        "(i32.eqz (call $path_open (i32.const 4) (i32.const 0) (i32.const 1010) (i32.const 5)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $unlink (i32.const 3) (i32.const 1010) (i32.const 5)))",
        "(i32.eqz (call $create_directory (i32.const 3) (i32.const 1000) (i32.const 7)))",
        "(i32.eqz (call $rename (i32.const 3) (i32.const 1010) (i32.const 5)
            (i32.const 3) (i32.const 1000) (i32.const 7)))",
        "(i32.eqz (call $symlink (i32.const 1010) (i32.const 5)
            (i32.const 3) (i32.const 1000) (i32.const 7)))",
        // Sockets: of the standard streams and of the folder.
        "(i32.eqz (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 300)))",
        "(i32.eqz (call $sock_send (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)
            (i32.const 300)))",
        // Arguments of the call (one is the name), environment variables, and stdin.
        "(block (result i32) (drop (call $args_sizes_get (i32.const 304) (i32.const 308)))
            (i32.ne (i32.load (i32.const 304)) (i32.const 1)))",
        "(block (result i32) (drop (call $environ_sizes_get (i32.const 304) (i32.const 308)))
            (i32.ne (i32.load (i32.const 304)) (i32.const 0)))",
        "(block (result i32)
            (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 100))
            (i32.store (i32.const 304) (i32.const 0))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 304)))
            (i32.ne (i32.load (i32.const 304)) (i32.const 0)))",
    ];
    let init: String = (500..)
        .zip(attempts)
        .map(|(at, attempt)| {
            format!("(i32.store8 (i32.const {at}) (i32.add (i32.const 48) {attempt}))")
        })
        .collect();
    let show = format!(
        r#"(func (export "_start")
        (i32.store (i32.const 0) (i32.const 500))
        (i32.store (i32.const 4) (i32.const {}))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#,
        attempts.len()
    );
    let project = with_guest(guest(&init, &show));
    project.write("in/a.txt", "text");
    project.write("out/a.txt", "secret");
    let before = project.tree();
    for isolation in ISOLATIONS {
        let options = [
            "--mount", "in", "--mount", "out:rw", "--env", "A=b", "--stdin", "in/a.txt",
        ];
        let more = [
            "--snapshot",
            "--no-cache",
            "--isolation",
            isolation,
            "--",
            "x",
            "y",
        ];
        let ended = exec(&project, &[&options[..], &more].concat()).expect(0);
        assert_eq!(ended.stdout, "0".repeat(attempts.len()), "{isolation}");
        assert_eq!(project.tree(), before);
        assert_eq!(project.read("in/a.txt"), "text");
    }
}

#[test]
fn a_call_has_the_streams_that_the_initialization_closed() {
    let close = "(drop (call $fd_close (i32.const 0))) (drop (call $fd_close (i32.const 1)))
        (drop (call $fd_close (i32.const 2)))";
    let show = r#"(func (export "_start")
        (i32.store (i32.const 0) (i32.const 1010))
        (i32.store (i32.const 4) (i32.const 5))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#;
    let project = with_guest(guest(close, show));
    for isolation in ISOLATIONS {
        assert_eq!(start(&project, isolation).expect(0).stdout, "a.txt");
    }
}

#[test]
fn threads_and_a_memory_above_the_limit_are_refused() {
    let threads = r#"(module (import "wasi" "thread-spawn" (func (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "wizer.initialize")) (func (export "_start")))"#;
    let large = r#"(module (memory (export "memory") 1000)
        (func (export "wizer.initialize")) (func (export "_start")))"#;
    for (text, expected) in [
        (threads, "threads"),
        (large, "more memory than the limit of a call, 1 MiB"),
    ] {
        let project = with_guest(wat::parse_str(text).expect("valid WAT"));
        for isolation in ISOLATIONS {
            start(&project, isolation).expect(2).reports(&[expected]);
        }
    }
}
