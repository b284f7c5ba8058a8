//! Snapshots: a guest is started once, and each call starts from its memory.

#![expect(clippy::print_stdout, reason = "a skipped test prints the reason")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::project::{Ended, ISOLATIONS, Project, finish};
use crate::snapshot_changes::READER;

/// Imports and functions that the guests share. `$print` writes bytes to stdout, `$digit` one
/// digit.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (func $print (param $at i32) (param $n i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $n))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func $digit (param $value i32)
        (i32.store8 (i32.const 12) (i32.add (i32.const 48) (local.get $value)))
        (call $print (i32.const 12) (i32.const 1)))
    (func $random_letters (param $at i32)
        (local $i i32)
        (drop (call $random_get (local.get $at) (i32.const 16)))
        (loop $more
            (i32.store8 (i32.add (local.get $at) (local.get $i))
                (i32.add (i32.const 97)
                    (i32.and (i32.const 15) (i32.load8_u (i32.add (local.get $at) (local.get $i))))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 16)))))
    (func $open (param $name i32) (param $length i32) (result i32)
        (drop (call $path_open (i32.const 3) (i32.const 0) (local.get $name) (local.get $length)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))
        (i32.load (i32.const 16)))
"#;

/// A guest that counts: its initialization sets a byte of the memory and globals of all types, and
/// a call prints and changes them. `run` returns 3 more than 4.
const COUNTER: &str = r#"
    (memory (export "memory") 2)
    (global $a (mut i32) (i32.const 1))
    (global $b (export "b") (mut i64) (i64.const 1))
    (global $c (mut f32) (f32.const 1))
    (global $d (mut f64) (f64.const 1))
    (global $e (mut v128) (v128.const i32x4 1 1 1 1))
    (data (i32.const 100) "\01")
    (func (export "_initialize") (global.set $a (i32.const 2)))
    (func (export "wizer.initialize")
        (i32.store8 (i32.const 100) (i32.const 5))
        (i32.store8 (i32.const 131071) (i32.const 6))
        (global.set $a (i32.add (global.get $a) (i32.const 1)))
        (global.set $b (i64.const 4))
        (global.set $c (f32.const 5))
        (global.set $d (f64.const 6))
        (global.set $e (v128.const i32x4 7 7 7 7)))
    (func $show
        (call $digit (i32.load8_u (i32.const 100)))
        (call $digit (i32.load8_u (i32.const 131071)))
        (call $digit (global.get $a))
        (call $digit (i32.wrap_i64 (global.get $b)))
        (call $digit (i32.trunc_f32_s (global.get $c)))
        (call $digit (i32.trunc_f64_s (global.get $d)))
        (call $digit (i32x4.extract_lane 3 (global.get $e)))
        (i32.store8 (i32.const 100) (i32.const 9))
        (global.set $a (i32.const 9)))
"#;

/// A guest that draws random numbers and reads the clock in its initialization and in each call.
const RANDOM: &str = r#"
    (memory (export "memory") 1)
    (func (export "wizer.initialize")
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 304)))
        (call $random_letters (i32.const 200)))
    (func (export "_start")
        (call $print (i32.const 200) (i32.const 16))
        (call $random_letters (i32.const 220))
        (call $print (i32.const 220) (i32.const 16)))
"#;

pub fn module(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {PRELUDE} {body})")).expect("valid WAT")
}

pub fn counter(entry: &str) -> Vec<u8> {
    module(&format!("{COUNTER} {entry}"))
}

pub const START: &str = r#"(func (export "_start") (call $show))"#;
const RUN: &str = r#"(func (export "run") (result i32) (call $show) (i32.const 7))"#;

pub fn with_guest(bytes: Vec<u8>) -> Project {
    let project = Project::new();
    project.write("guest.wasm", bytes);
    project
}

pub fn exec(project: &Project, options: &[&str]) -> Ended {
    project.mandelbox(&[&["exec", "guest.wasm"], options].concat())
}

#[test]
fn a_call_starts_with_the_memory_and_the_globals_of_the_initialization() {
    for (entry, code) in [(START, 0), (RUN, 7)] {
        let project = with_guest(counter(entry));
        for isolation in ISOLATIONS {
            for _ in 0..2 {
                let ended = exec(&project, &["--snapshot", "--isolation", isolation]).expect(code);
                assert_eq!(ended.stdout, "5634567", "{isolation}");
            }
        }
        let ended = exec(&project, &["--snapshot", "--no-cache"]).expect(code);
        assert_eq!(ended.stdout, "5634567");
        // With a time limit, the code checks epochs, and the guest starts in this process.
        let ended = exec(&project, &["--snapshot", "--timeout", "1min"]).expect(code);
        assert_eq!(ended.stdout, "5634567");
        let plain = if code == 0 { "1011111" } else { "1021111" };
        assert_eq!(exec(&project, &[]).expect(code).stdout, plain);
    }
}

#[test]
fn the_entry_of_wizers_header_is_preferred() {
    let resume = format!(
        r#"{START} (func (export "wizer.resume") (call $digit (i32.const 8)) (call $show))"#
    );
    let project = with_guest(counter(&resume));
    assert_eq!(exec(&project, &["--snapshot"]).expect(0).stdout, "85634567");
}

#[test]
fn modules_without_snapshots_are_refused_by_name() {
    let init = r#"(func (export "wizer.initialize"))"#;
    let start = r#"(func (export "_start"))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let table = "(table $t 2 funcref) (elem $e func 0)";
    let with = |instructions: &str| {
        format!("{memory} {init} {start} {table} (data $d \"x\") (func $setter {instructions})")
    };
    let zero = "(i32.const 0)";
    let cases = [
        (
            format!("{memory} {start}"),
            "it exports no function `wizer.initialize`",
        ),
        (
            format!(r#"{memory} {start} (func (export "wizer.initialize") (param i32))"#),
            "it exports no function `wizer.initialize` without parameters",
        ),
        (
            format!(r#"{memory} {init} {start} (func (export "_initialize") (result i32) {zero})"#),
            "its `_initialize` has parameters or results",
        ),
        (
            format!("{memory} {init}"),
            "it exports neither `_start` nor `run: () -> i32`",
        ),
        (
            format!("(memory 1) {init} {start}"),
            "it does not export its memory as `memory`",
        ),
        (
            format!("{memory} {init} {start} (func $s) (start $s)"),
            "it has a start function",
        ),
        (
            format!("{memory} {init} {start} (global (mut funcref) (ref.null func))"),
            "its mutable global 0 contains a reference",
        ),
        (
            format!(
                "{memory} {init} {start} (global $g i32 (i32.const 9)) (data (global.get $g) \"x\")"
            ),
            "the address of a data segment is not a constant",
        ),
        (
            with(&format!("(table.set $t {zero} (ref.null func))")),
            "(`setter`) has the instruction `table.set`",
        ),
        (
            with(&format!("(drop (table.grow $t (ref.null func) {zero}))")),
            "`table.grow`",
        ),
        (
            with(&format!("(table.copy $t $t {zero} {zero} {zero})")),
            "`table.copy`",
        ),
        (
            with(&format!("(table.fill $t {zero} (ref.null func) {zero})")),
            "`table.fill`",
        ),
        (
            with(&format!("(table.init $t $e {zero} {zero} {zero})")),
            "`table.init`",
        ),
        (
            with(&format!("(memory.init $d {zero} {zero} {zero})")),
            "`memory.init`",
        ),
        (with("(elem.drop $e)"), "`elem.drop`"),
        (with("(data.drop $d)"), "`data.drop`"),
    ];
    for (body, expected) in cases {
        let project = with_guest(module(&body));
        let ended = exec(&project, &["--snapshot"]).expect(2);
        assert!(
            ended.stderr.contains("a snapshot of it is not possible"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(expected),
            "{expected}: {}",
            ended.stderr
        );
    }
    let no_memory = wat::parse_str(format!("(module {init} {start})")).expect("valid WAT");
    exec(&with_guest(no_memory), &["--snapshot"])
        .expect(2)
        .reports(&["it must have one memory of its own"]);
    let component = wat::parse_str("(component)").expect("valid WAT");
    exec(&with_guest(component), &["--snapshot"])
        .expect(2)
        .reports(&["it is not a core module"]);
    // The import of the code is no way around the checks of imports.
    let foreign = r#"(module (import "mandelbox:snapshot" "memory" (memory 1))
        (export "memory" (memory 0))
        (func (export "wizer.initialize")) (func (export "_start")))"#;
    let project = with_guest(wat::parse_str(foreign).expect("valid WAT"));
    exec(&project, &["--snapshot"])
        .expect(2)
        .reports(&["it imports `memory` of `mandelbox:snapshot`"]);
    exec(&project, &[])
        .expect(2)
        .reports(&["mandelbox:snapshot"]);
}

#[test]
fn an_initialization_that_fails_is_reported() {
    let output = r#"(data (i32.const 100) "on its way") (func $say (call $print (i32.const 100) (i32.const 10)))"#;
    let cases = [
        (
            "(call $say) unreachable",
            "it trapped: wasm trap: wasm `unreachable`",
        ),
        (
            "(call $say) (call $proc_exit (i32.const 0))",
            "it exited with code 0, and must return",
        ),
        (
            "(call $say) (call $proc_exit (i32.const 3))",
            "it exited with code 3, and must return",
        ),
        (
            "(call $say) (drop (call $open (i32.const 100) (i32.const 2)))",
            "it left a file or folder open (descriptor 5)",
        ),
        (
            "(call $say) (drop (memory.grow (i32.const 100)))",
            "it needs more memory than the limit of a call, 1 MiB",
        ),
    ];
    for (init, expected) in cases {
        let body = format!(
            r#"(memory (export "memory") 1) {output}
            (func (export "wizer.initialize") {init}) (func (export "_start"))"#
        );
        let project = with_guest(module(&body));
        project.write("data/on", "text");
        for isolation in ISOLATIONS {
            let options = [
                "--snapshot",
                "--memory",
                "1M",
                "--mount",
                "data",
                "--mount",
                "in",
                "--isolation",
                isolation,
            ];
            exec(&project, &options).expect(2).reports(&[
                "no snapshot of guest.wasm can be made: `wizer.initialize`: ",
                expected,
                "(output: on its way)",
            ]);
        }
    }
}

#[test]
fn preopened_folders_may_be_closed_but_not_replaced() {
    let body = |init: &str| {
        format!(
            r#"(memory (export "memory") 1) (data (i32.const 100) "a.txt")
            (func (export "wizer.initialize") {init}) (func (export "_start") (call $digit (i32.const 1)))"#
        )
    };
    let close = "(drop (call $fd_close (i32.const 3)))";
    let open = "(drop (call $path_open (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 5)
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))";
    for (init, code) in [(close.to_owned(), 0), (format!("{close} {open}"), 2)] {
        let project = with_guest(module(&body(&init)));
        project.write("in/a.txt", "text");
        let ended = exec(&project, &["--snapshot", "--mount", "out", "--mount", "in"]).expect(code);
        assert_eq!(
            ended.stderr.contains("(descriptor 3)"),
            code == 2,
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn memory_that_the_initialization_grew_counts_from_the_start() {
    let body = r#"(memory (export "memory") 1 100)
        (func (export "wizer.initialize")
            (drop (memory.grow (i32.const 9)))
            (i32.store8 (i32.const 655359) (i32.const 1)))
        (func (export "_start")
            (call $digit (i32.sub (memory.size) (i32.const 2)))
            (call $digit (i32.load8_u (i32.const 655359)))
            (drop (memory.grow (i32.const 7)))
            (call $digit (i32.sub (memory.size) (i32.const 10))))"#;
    let project = with_guest(module(body));
    for isolation in ISOLATIONS {
        let exec = |memory| {
            exec(
                &project,
                &["--snapshot", "--isolation", isolation, "--memory", memory],
            )
        };
        assert_eq!(exec("2M").expect(0).stdout, "817");
        // The snapshot fits, but not what the call requests in addition.
        exec("1087K").expect(134).reports(&["memory"]);
        exec("640K").expect(134);
        exec("639K").expect(2).reports(&[
            "the snapshot of guest.wasm has 640 KiB of memory",
            "but the memory limit of a call is 639 KiB",
        ]);
    }
}

#[test]
fn random_numbers_are_fresh_in_each_call_and_equal_in_deterministic_ones() {
    let project = with_guest(module(RANDOM));
    let draw = |more: &[&str]| {
        let stdout = exec(&project, &[&["--snapshot"], more].concat())
            .expect(0)
            .stdout;
        let (init, call) = stdout.split_at(16);
        (init.to_owned(), call.to_owned())
    };
    let (one, other) = (draw(&[]), draw(&[]));
    assert_eq!(one.0, other.0, "the snapshot is the same");
    assert_ne!(one.1, other.1);
    assert_ne!(one.0, one.1);
    let deterministic = draw(&["--deterministic"]);
    assert_eq!(deterministic, draw(&["--deterministic"]));
    assert_eq!(deterministic, draw(&["--deterministic", "--no-cache"]));
    assert_eq!(
        deterministic,
        draw(&["--deterministic", "--isolation", "process"])
    );
    assert_eq!(
        deterministic.0, one.0,
        "the initialization always is deterministic"
    );
}

#[test]
fn outcomes_are_those_of_any_call() {
    let body = r#"(memory (export "memory") 1)
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (func (export "wizer.initialize"))
        (func (export "_start")
            (drop (call $sizes (i32.const 100) (i32.const 104)))
            (if (i32.eq (i32.load (i32.const 100)) (i32.const 2)) (then unreachable))
            (if (i32.eq (i32.load (i32.const 100)) (i32.const 3)) (then (loop $more (br $more))))
            (if (i32.eq (i32.load (i32.const 100)) (i32.const 4)) (then (call $proc_exit (i32.const 9))))
            (if (i32.eq (i32.load (i32.const 100)) (i32.const 5))
                (then (drop (memory.grow (i32.const 1000))))))"#;
    let imports_first = body.replacen(r#"(memory (export "memory") 1)"#, "", 1);
    let project = with_guest(
        wat::parse_str(format!(
            "(module {} {PRELUDE} (memory (export \"memory\") 1) {})",
            imports_first
                .lines()
                .find(|line| line.contains("args_sizes_get"))
                .expect("there"),
            imports_first
                .lines()
                .filter(|line| !line.contains("args_sizes_get"))
                .collect::<String>()
        ))
        .expect("valid WAT"),
    );
    for isolation in ISOLATIONS {
        let call = |arguments: &[&str]| {
            let options = [
                "--isolation",
                isolation,
                "--timeout",
                "1s",
                "--memory",
                "1M",
                "--",
            ];
            let plain = exec(&project, &[&options, arguments].concat());
            let started = exec(
                &project,
                &[&["--snapshot"], &options[..], arguments].concat(),
            );
            assert_eq!((started.code, &started.stderr), (plain.code, &plain.stderr));
            started.code
        };
        let codes = [
            &[][..],
            &["1"],
            &["1", "2"],
            &["1", "2", "3"],
            &["1", "2", "3", "4"],
        ]
        .map(call);
        assert_eq!(codes, [0, 134, 134, 9, 134], "{isolation}");
    }
}

#[test]
fn check_reports_what_is_possible() {
    let project = with_guest(counter(START));
    let check = |path: &str| {
        let mut command = project.command(&["check", path]);
        command.env("XDG_CACHE_HOME", project.path("cache"));
        finish(command)
    };
    check("guest.wasm")
        .expect(0)
        .reports(&["snapshot  possible; calls run `_start`"]);
    let text = r#"(memory (export "memory") 1) (func (export "_start"))
        (table $t 1 funcref) (func (export "wizer.initialize")
            (table.set $t (i32.const 0) (ref.null func)))"#;
    project.write("other.wasm", module(text));
    check("other.wasm")
        .expect(0)
        .reports(&["not possible", "`table.set`"]);
    let package = |snapshot: bool| {
        let meta = json!({ "mandelbox": { "snapshot": snapshot, "mounts": {} } });
        json!({ "manifest_version": "1", "has_args_schemas": false, "task_list": [{
            "name": "t", "executable": "guest.wasm", "input_type": "Any", "output_type": "Any",
            "meta": meta }] })
    };
    project.write("package/guest.wasm", counter(START));
    project.write(
        "package/__FRACTAL_MANIFEST__.json",
        package(true).to_string(),
    );
    check("package")
        .expect(0)
        .reports(&["made in ", "128 KiB of memory"]);
    project.write(
        "package/__FRACTAL_MANIFEST__.json",
        package(false).to_string(),
    );
    let ended = check("package").expect(0);
    assert!(!ended.stderr.contains("made in"), "{}", ended.stderr);
}

/// Checks that the whole form starts with the memory of the initialization, also plainly.
#[test]
fn the_whole_form_is_a_command_of_its_own() {
    for (entry, code, init) in [
        (START, 0, "5634567"),
        (RUN, 7, "5634567"),
        (
            r#"(func (export "_start")) (func (export "wizer.resume") (call $show))"#,
            0,
            "5634567",
        ),
    ] {
        let project = with_guest(counter(entry));
        for isolation in ISOLATIONS {
            let options = ["--output", "new.wasm", "--isolation", isolation];
            let ended = project.mandelbox(&[&["snapshot", "guest.wasm"], &options[..]].concat());
            ended.expect(0).reports(&["wrote new.wasm ("]);
            for _ in 0..2 {
                let ended = project.mandelbox(&["exec", "new.wasm"]).expect(code);
                assert_eq!(ended.stdout, init);
            }
            let checked = project.mandelbox(&["check", "new.wasm"]).expect(0);
            checked.reports(&["exports   memory, b, _start"]);
        }
    }
    let project = with_guest(module(READER));
    project.write("data/a.txt", "text");
    let mounts = ["--mount", "data", "-o", "new.wasm"];
    project
        .mandelbox(&[&["snapshot", "guest.wasm"], &mounts[..]].concat())
        .expect(0);
    let ended = project.mandelbox(&["exec", "new.wasm"]).expect(0);
    assert_eq!(ended.stdout, "text");
    let writable = ["--mount", "data:rw", "-o", "new.wasm"];
    project
        .mandelbox(&[&["snapshot", "guest.wasm"], &writable[..]].concat())
        .expect(2)
        .reports(&["leave out `:rw`"]);
}

/// Returns true if the folder contains the interpreter with its library.
fn has_interpreter(folder: &Path) -> bool {
    folder.join("python.wasm").is_file() && folder.join("lib/python315.zip").is_file()
}

/// Checks that a numpy script prints the same from a snapshot as plainly. `MANDELBOX_TEST_PYTHON`
/// names the folder `fetched` of `task-examples/unmodified-python`.
#[test]
fn python_gives_the_same_from_a_snapshot() {
    let folder = std::env::var_os("MANDELBOX_TEST_PYTHON").map(std::path::PathBuf::from);
    let Some(folder) = folder.filter(|folder| has_interpreter(folder)) else {
        println!("skipped: MANDELBOX_TEST_PYTHON names no folder with python.wasm");
        return;
    };
    let project = Project::new();
    project.write(
        "task/script.py",
        "import sys, numpy as np, json\n\
         print(sys.argv[1:], np.arange(6).reshape(2, 3).sum(axis=0).tolist())\n\
         print(json.dumps({'x': float(np.hypot(3, 4))}))\n\
         sys.exit(len(sys.argv))\n",
    );
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (module, library) = (text(&folder.join("python.wasm")), text(&folder.join("lib")));
    let library = format!("{library}::/usr/local/lib");
    let run = |more: &[&str]| {
        let start = [
            "exec",
            &module,
            "--mount",
            &library,
            "--mount",
            "task::/task",
        ];
        let end = ["--", "/task/script.py", "a", "b"];
        let command = project.command(&[&start[..], more, &end].concat());
        let ended = crate::project::finish_within(command, Duration::from_secs(900)).expect(3);
        (ended.stdout, ended.stderr)
    };
    let plain = run(&[]);
    assert!(plain.0.contains("[3, 5, 7]"), "{}", plain.0);
    for isolation in ISOLATIONS {
        assert_eq!(run(&["--snapshot", "--isolation", isolation]), plain);
    }
}
