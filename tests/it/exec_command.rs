//! `mandelbox exec MODULE -- ARG...`: a command with any command line and mounts.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::project::{Ended, ISOLATIONS, Project, finish, finish_with_input, module};

/// A project with a module that is written here as text, for the raw form.
fn with_guest(body: &str) -> Project {
    let project = Project::new();
    project.write(
        "guest.wasm",
        wat::parse_str(format!("(module {body})")).expect("valid WAT"),
    );
    project
}

/// Lets the probe do its steps in the raw form, with its files in the folder `files`, which it sees
/// at /files.
fn probe(project: &Project, name: &str, steps: &Value, more: &[&str]) -> (Ended, Vec<Value>) {
    project.write("files/args.json", json!({ "steps": steps }).to_string());
    let start = ["exec", &module(name), "--mount", "files::/files:rw"];
    let end = [
        "--",
        "-j",
        "/files/args.json",
        "--metadata-out",
        "/files/metadiff.json",
    ];
    let ended = project.mandelbox(&[&start, more, &end].concat());
    let results = if ended.code == 0 {
        project.json("files/metadiff.json")["probe"].clone()
    } else {
        Value::Null
    };
    (ended, results.as_array().cloned().unwrap_or_default())
}

#[test]
fn a_command_sees_its_mounts_and_nothing_else() {
    for name in ["probe.wasm", "probe.p2.wasm"] {
        for isolation in ISOLATIONS {
            let project = Project::new();
            project.write("data/a.txt", "data");
            project.write("data/deep/b.txt", "shadowed");
            project.write("other/b.txt", "other");
            let data = project.path("data");
            let steps = json!([
                { "do": "env" }, { "do": "argv" }, { "do": "stdin" },
                { "do": "read", "path": data.join("a.txt") },
                { "do": "write", "path": data.join("new.txt"), "text": "x" },
                { "do": "read", "path": "/lib/a.txt" },
                { "do": "read", "path": "/lib/deep/b.txt" },
                { "do": "write", "path": "/lib/deep/new.txt", "text": "new" },
                { "do": "read", "path": "/deep/b.txt" },
                { "do": "read", "path": "b.txt" },
                { "do": "read", "path": project.path("other/b.txt") },
            ]);
            let mounts = ["data", "data::/lib", "other::/lib/deep:rw", "data::/"]
                .map(|mount| ["--mount", mount]);
            let more = [
                mounts.as_flattened(),
                &[
                    "--isolation",
                    isolation,
                    "--argv0",
                    "prog",
                    "--env",
                    "A=b=c",
                ],
            ]
            .concat();
            let (ended, results) = probe(&project, name, &steps, &more);
            let ok = |index: usize| results[index]["ok"].clone();
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            assert_eq!(ok(0), json!({ "A": "b=c" }));
            assert_eq!(ok(1)[0], json!("prog"));
            assert_eq!(ok(2), json!(0));
            assert_eq!(ok(3), json!("data"));
            assert!(results[4].get("error").is_some(), "{}", results[4]);
            assert_eq!(
                (ok(5), ok(6), ok(8)),
                (json!("data"), json!("other"), json!("shadowed"))
            );
            assert_eq!(
                (project.read("other/new.txt"), ok(7)),
                ("new".to_owned(), Value::Null)
            );
            assert!(results[10].get("error").is_some(), "{}", results[10]);
            assert!(!project.path("data/new.txt").exists());
        }
    }
}

#[test]
fn a_folder_is_the_working_directory_only_if_it_is_mounted_as_one() {
    for name in ["probe.wasm", "probe.p2.wasm"] {
        let project = Project::new();
        project.write("data/a.txt", "data");
        let steps = json!([{ "do": "read", "path": "a.txt" }, { "do": "write", "path": "b.txt", "text": "b" }]);
        let (_, results) = probe(&project, name, &steps, &[]);
        assert!(
            results[0].get("error").is_some() && results[1].get("error").is_some(),
            "{results:?}"
        );
        let (_, results) = probe(&project, name, &steps, &["--mount", "data::.:rw"]);
        assert_eq!(
            (&results[0]["ok"], project.read("data/b.txt")),
            (&json!("data"), "b".to_owned())
        );
    }
}

#[test]
fn invalid_mounts_and_variables_are_reported_together() {
    let project = with_guest(r#"(func (export "_start"))"#);
    project.write("file", "");
    let ended = project.mandelbox(&[
        "exec",
        "guest.wasm",
        "--mount",
        "none",
        "--mount",
        "file",
        "--mount",
        "in::/x",
        "--mount",
        "out::/x/",
        "--mount",
        "in::/a/../b",
        "--env",
        "HOME",
        "--env",
        "A=1",
        "--env",
        "A=2",
        "--stdin",
        "in",
    ]);
    ended.expect(2).reports(&[
        "--mount none: the folder",
        "--mount file: is a file, but only folders can be mounted; mount ",
        "--mount out::/x/: a second folder at `/x`;",
        "--mount in::/a/../b: the path `/a/../b` in the sandbox must not contain `..`",
        "--env HOME: must be NAME=VALUE",
        "--env A=2: duplicate variable `A`",
        "--stdin in: cannot be opened",
    ]);
}

#[test]
fn exit_codes_are_passed_on_and_what_the_sandbox_ends_is_134() {
    let exit = |code: i32| {
        format!(
            r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
               (memory (export "memory") 1)
               (func (export "_start") (call $exit (i32.const {code})))"#
        )
    };
    let check = |body: &str, more: &[&str], code: i32, text: &str| {
        for isolation in ISOLATIONS {
            let project = with_guest(body);
            let ended = project
                .mandelbox(&[&["exec", "guest.wasm", "--isolation", isolation], more].concat())
                .expect(code);
            assert_eq!(ended.stdout, "");
            match text {
                "" => assert_eq!(ended.stderr, ""),
                text => drop(ended.reports(&[text])),
            }
        }
    };
    check(r#"(func (export "_start"))"#, &[], 0, "");
    check(&exit(7), &[], 7, "");
    check(&exit(134), &[], 134, "");
    check(&exit(256), &[], 255, "");
    check(
        r#"(func (export "_start") unreachable)"#,
        &[],
        134,
        "error: guest.wasm trapped: wasm trap: wasm `unreachable`",
    );
    let endless = r#"(func (export "_start") (loop $again (br $again)))"#;
    check(
        endless,
        &["--timeout", "200ms"],
        134,
        "exceeded its time limit of 0.2 s",
    );
    let large = r#"(memory 2000) (func (export "_start"))"#;
    check(
        large,
        &["--memory", "64M"],
        134,
        "exceeded its memory limit of 64 MiB",
    );
    check(large, &["--memory", "128M"], 0, "");
    // More entries than an instance of the pool can have.
    check(
        r#"(table 3000000 funcref) (func (export "_start"))"#,
        &[],
        0,
        "",
    );
    check(
        r#"(func (export "main"))"#,
        &[],
        2,
        "guest.wasm: the module has no entry",
    );
    check(
        r#"(import "env" "system" (func)) (func (export "_start"))"#,
        &[],
        2,
        "env::system",
    );
    let project = Project::new();
    let ended = project.mandelbox(&["exec", &module("typed.wasm"), "--", "x"]);
    ended
        .expect(2)
        .reports(&["is a typed task, which has no command line; call it with `exec MODULE --args"]);
}

/// The cache knows a module by its file, without reading it, and never takes another for it.
#[test]
fn a_module_that_has_changed_is_called_as_it_is_now() {
    let project = Project::new();
    let write = |code: i32, seconds_ago: u64| {
        let body = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                 (func (export "_start") (call $exit (i32.const {code}))))"#
        );
        let path = project.write("guest.wasm", wat::parse_str(body).expect("valid WAT"));
        let time = SystemTime::now() - Duration::from_secs(seconds_ago);
        std::fs::File::open(path)
            .and_then(|file| file.set_modified(time))
            .expect("changed");
    };
    for code in [7, 8, 9] {
        // The same size, and a time that was there before.
        write(code, 60);
        for _ in 0..2 {
            project.mandelbox(&["exec", "guest.wasm"]).expect(code);
        }
    }
    // From now on its file is known.
    std::thread::sleep(Duration::from_millis(2100));
    for _ in 0..2 {
        project.mandelbox(&["exec", "guest.wasm"]).expect(9);
    }
    write(7, 60);
    project.mandelbox(&["exec", "guest.wasm"]).expect(7);
}

/// A guest that copies stdin to stdout and to stderr, byte by byte as they are.
const COPY: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
      (i32.store (i32.const 0) (i32.const 65536))
      (loop $again
        (i32.store (i32.const 4) (i32.const 65536))
        (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
        (if (i32.load (i32.const 8)) (then
          (i32.store (i32.const 4) (i32.load (i32.const 8)))
          (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
          (if (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
          (br $again)))))"#;

#[test]
fn streams_are_the_guests_own() {
    for isolation in ISOLATIONS {
        let project = with_guest(COPY);
        let exec = |more: &[&str]| {
            project.command(&[&["exec", "guest.wasm", "--isolation", isolation], more].concat())
        };
        let text = "raw \u{1b}[31m\0 text\nwithout an end";
        let ended = finish_with_input(exec(&["--stdin", "-"]), text).expect(0);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), (text, text));
        let large = "0123456789abcdef".repeat(1 << 16);
        project.write("large", &large);
        let ended = finish(exec(&["--stdin", "large"])).expect(0);
        assert!(
            ended.stdout == large && ended.stderr == large,
            "{} bytes",
            ended.stdout.len()
        );
        // Without --stdin there is none, whatever the program has.
        let ended = finish_with_input(exec(&[]), text).expect(0);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    }
}

#[test]
fn output_comes_while_the_guest_runs_and_its_reader_can_go_away() {
    let flood = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "yes\n")
        (func (export "_start")
          (i32.store (i32.const 0) (i32.const 16))
          (i32.store (i32.const 4) (i32.const 4))
          (loop $again
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br $again)))"#;
    for isolation in ISOLATIONS {
        let project = with_guest(flood);
        let mut command = project.command(&["exec", "guest.wasm", "--isolation", isolation]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut start = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut start)
            .expect("read");
        assert_eq!(&start, b"yes\nyes\n");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("waited for");
        assert_eq!(
            (output.status.code(), output.stderr.as_slice()),
            (Some(141), &b""[..])
        );
    }
}
