//! Limits of a call, at what they let through and past it, in a thread and in a process.

use std::time::Duration;

use mandelbox::model::Limits;
use serde_json::{Value, json};

use crate::project::{Ended, ISOLATIONS, Project, module, task};
use crate::sandbox::probe;

/// Runs a module that is written here as text, in a thread and in a process.
fn run_text(body: &str, more: &[&str], check: impl Fn(&Project, Ended)) {
    for isolation in ["thread", "process"] {
        let project = Project::new();
        project.write(
            "guest.wasm",
            wat::parse_str(format!("(module {body})")).expect("valid WAT"),
        );
        project.workflow(&[task(0, "t", "guest.wasm", json!({}))]);
        let ended = project.run(&[&["--isolation", isolation], more].concat());
        check(&project, ended);
    }
}

#[test]
fn memory_has_a_budget() {
    let allocate = |n: usize| json!([{ "do": "allocate_mib", "n": n }]);
    probe(
        |_| {},
        &allocate(50),
        &["--memory", "64M"],
        |_, ended, results| {
            assert!(
                results
                    .first()
                    .is_some_and(|result| result.get("ok").is_some()),
                "{}",
                ended.stderr
            );
        },
    );
    probe(
        |_| {},
        &allocate(70),
        &["--memory", "64M"],
        |_, ended, _| {
            assert_eq!(ended.code, 4);
            assert!(
                ended.stderr.contains("memory limit of 64 MiB"),
                "{}",
                ended.stderr
            );
        },
    );
    let project = Project::new();
    let mut lower = task(
        0,
        "probe",
        &module("probe.wasm"),
        json!({ "do": "allocate_mib", "n": 50 }),
    );
    lower["meta"] = json!({ "mandelbox": { "memory": "32 MiB" } });
    project.workflow(&[lower]);
    project
        .run(&[])
        .expect(4)
        .reports(&["memory limit of 32 MiB"]);
}

#[test]
fn time_limits_end_guests_that_compute_and_guests_that_sleep() {
    for step in [
        json!({ "do": "spin" }),
        json!({ "do": "sleep_ms", "ms": 3_600_000 }),
    ] {
        probe(
            |_| {},
            &json!([step]),
            &["--timeout", "300ms"],
            |_, ended, _| {
                assert_eq!(ended.code, 4);
                assert!(
                    ended.stderr.contains("time limit of 0.3 s"),
                    "{}",
                    ended.stderr
                );
                assert!(
                    ended.elapsed < Duration::from_secs(8),
                    "{:?}",
                    ended.elapsed
                );
            },
        );
    }
    probe(
        |_| {},
        &json!([{ "do": "sleep_ms", "ms": 100 }]),
        &["--timeout", "5s"],
        |_, ended, results| {
            assert!(results[0].get("ok").is_some(), "{}", ended.stderr);
        },
    );
}

#[test]
fn output_is_cut_at_16_mib() {
    for (stream, file) in [("stdout", "out"), ("stderr", "err")] {
        let flood = json!([{ "do": "flood", "stream": stream, "mib": 20 }]);
        probe(
            |_| {},
            &flood,
            &[],
            |project, ended, _| {
                assert_eq!(ended.code, 0, "{}", ended.stderr);
                let bytes =
                    std::fs::read(project.path(&format!("work/0_probe/0.{file}"))).expect("kept");
                let note = b"\n[mandelbox: cut after 16 MiB]\n";
                assert_eq!(bytes.len(), (16 << 20) + note.len());
                assert!(bytes.ends_with(note));
            },
        );
    }
}

#[test]
fn files_open_at_a_time_are_limited() {
    // The adapter in the WASI 0.2 probe has a smaller limit of its own.
    let open = |n: usize, isolation: &str| {
        let project = Project::new();
        let path = project.write("in/a.txt", "input");
        let step = json!({ "do": "open_files", "path": path, "n": n });
        project.workflow(&[task(0, "probe", &module("probe.wasm"), step)]);
        let code = project.run(&["--isolation", isolation]).code;
        code == 0 && project.json("work/metadata.json")["probe"]["ok"] == json!(n)
    };
    // Of 1,000 the streams and the folders take some.
    for isolation in ["thread", "process"] {
        assert!(open(985, isolation));
        assert!(!open(1000, isolation));
    }
}

/// Pollables count as files and streams do, each as two.
#[test]
fn handles_of_components_have_the_limit_of_open_files() {
    let component = r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll
          (export "pollable" (type (sub resource)))
          (export "[method]pollable.block" (func (param "self" (borrow 0))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
          (alias outer 1 $pollable (type $outer))
          (export "pollable" (type $p (eq $outer)))
          (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core module $guest
          (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
          (func (export "run") (result i32) (local $n i32)
            (loop $again
              (drop (call $subscribe (i64.const 1)))
              (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $n) (i32.const 1500))))
            (i32.const 0)))
        (core instance $guest (instantiate $guest (with "host" (instance
          (export "subscribe" (func $subscribe))))))
        (func $run (result (result)) (canon lift (core func $guest "run")))
        (instance $cli_run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli_run)))"#;
    for (open_files, code) in [(1000, 4), (4000, 0)] {
        let project = Project::new();
        project.write("guest.wasm", wat::parse_str(component).expect("valid WAT"));
        project.write(
            "policy.toml",
            format!("[default]\nopen_files = {open_files}\n"),
        );
        project.workflow(&[task(0, "t", "guest.wasm", json!({}))]);
        let ended = project.run(&["--policy", "policy.toml"]).expect(code);
        if code != 0 {
            ended.reports(&["open at a time", "`open_files` in the policy"]);
        }
    }
}

/// 100,000 calls of a function inside another fit on the stack; without end they do not.
#[test]
fn the_stack_has_room_for_deep_recursion_and_an_end() {
    let recurse = |depth: u64| {
        format!(
            r#"(func $down (param i64) (result i64)
                 (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 0))
                   (else (i64.add (i64.const 1) (call $down (i64.sub (local.get 0) (i64.const 1)))))))
               (func (export "_start") (drop (call $down (i64.const {depth}))))"#
        )
    };
    run_text(&recurse(100_000), &[], |_, ended| drop(ended.expect(0)));
    run_text(&recurse(1 << 40), &[], |_, ended| {
        drop(ended.expect(4).reports(&["call stack exhausted"]))
    });
}

/// What the host copies in one call has the memory limit as its own: an imaging task writes an
/// array at once.
#[test]
fn one_write_can_be_as_large_as_the_memory_and_no_larger() {
    // Writes `n` buffers, each the same 160 MiB, to stdout in one call, and exits with the error of
    // that call.
    let write = |n: usize| {
        format!(
            r#"(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
               (import "wasi_snapshot_preview1" "path_open"
                 (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
               (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
               (memory (export "memory") 2600)
               (data (i32.const 64) "large")
               (func (export "_start") (local $at i32)
                 (loop $again
                   (i32.store (i32.add (i32.const 1024) (i32.shl (local.get $at) (i32.const 3))) (i32.const 65536))
                   (i32.store (i32.add (i32.const 1028) (i32.shl (local.get $at) (i32.const 3))) (i32.const 167772160))
                   (local.set $at (i32.add (local.get $at) (i32.const 1)))
                   (br_if $again (i32.lt_u (local.get $at) (i32.const {n}))))
                 (call $proc_exit
                   (i32.or
                     (call $path_open (i32.const 7) (i32.const 0) (i32.const 64) (i32.const 5) (i32.const 9)
                       (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 16))
                     (call $fd_write (i32.load (i32.const 16)) (i32.const 1024) (i32.const {n}) (i32.const 32)))))"#
        )
    };
    run_text(&write(1), &["--memory", "200M"], |project, ended| {
        ended.expect(0);
        assert_eq!(
            project.path("out/large").metadata().expect("there").len(),
            160 << 20
        );
    });
    // Twice as much in one call is more than its memory: an error for the guest, and the host
    // copies nothing.
    run_text(&write(2), &["--memory", "200M"], |project, ended| {
        let written = project
            .path("out/large")
            .metadata()
            .map_or(0, |metadata| metadata.len());
        assert!(
            ended.code != 0 || written <= 200 << 20,
            "{written} bytes: {}",
            ended.stderr
        );
    });
}

/// A limit by its name in a policy, what a guest does, and the message if the limit is exceeded.
type Case<'a> = (&'a str, String, Value, &'a str);

/// Each limit lets through and stops the same in a thread and in a process.
#[test]
fn every_limit_holds_in_both_isolations() {
    // A limit that is not in the list of cases does not get past this line.
    let Limits {
        memory_bytes,
        wall_time: _,
        output_bytes: _,
        call_output_bytes: _,
        open_files: _,
        module_bytes: _,
    } = Limits::default();
    assert!(memory_bytes > 64 << 20);
    let allocates = json!({ "do": "allocate_mib", "n": 50 });
    let opens = json!({ "do": "open_files", "path": "@/in/a.txt", "n": 40 });
    let floods = json!({ "do": "flood", "stream": "stdout", "mib": 2 });
    let size = std::fs::metadata(module("probe.wasm"))
        .expect("there")
        .len();
    let cases: [(Case<'_>, &str); 6] = [
        (
            (
                "memory",
                "\"40MiB\"".to_owned(),
                allocates,
                "memory limit of 40 MiB",
            ),
            "\"100MiB\"",
        ),
        (
            (
                "timeout",
                "\"1s\"".to_owned(),
                json!({ "do": "sleep_ms", "ms": 2500 }),
                "time limit of 1 s",
            ),
            "\"60s\"",
        ),
        (
            ("output", "\"1MiB\"".to_owned(), floods, "cut after 1 MiB"),
            "\"4MiB\"",
        ),
        (
            (
                "metadiff",
                "\"10\"".to_owned(),
                json!({ "do": "env" }),
                "larger than 10 bytes",
            ),
            "\"1MiB\"",
        ),
        (
            ("open_files", "30".to_owned(), opens, "open at a time"),
            "100",
        ),
        (
            (
                "module",
                format!("\"{}\"", size - 1),
                json!({ "do": "env" }),
                "more than the limit of",
            ),
            "\"1MiB\"",
        ),
    ];
    for ((name, limit, step, message), enough) in cases {
        let run = |limit: &str, isolation: &str| {
            let project = Project::new();
            let path = project.write("in/a.txt", "input");
            let root = path
                .ancestors()
                .nth(2)
                .expect("a folder")
                .display()
                .to_string();
            let step = serde_json::from_str(&step.to_string().replace('@', &root)).expect("JSON");
            project.write("policy.toml", format!("[default]\n{name} = {limit}\n"));
            project.workflow(&[task(0, "probe", &module("probe.wasm"), step)]);
            let ended = project.run(&["--isolation", isolation, "--policy", "policy.toml"]);
            let read = |name: &str| std::fs::read_to_string(project.path(name)).unwrap_or_default();
            let tail: String = read("work/0_probe/0.out").chars().rev().take(100).collect();
            let tail: String = tail.chars().rev().collect();
            (
                ended.code,
                format!(
                    "{}{}{tail}",
                    ended.stderr,
                    read("work/0_probe/0.metadiff.json")
                ),
            )
        };
        let over = ISOLATIONS.map(|isolation| run(&limit, isolation));
        assert_eq!(over[0].0, over[1].0, "{name}: {over:?}");
        assert!(
            over.iter().all(|(_, text)| text.contains(message)),
            "{name}: {over:?}"
        );
        let within = ISOLATIONS.map(|isolation| run(enough, isolation));
        assert!(
            within
                .iter()
                .all(|(code, text)| *code == 0 && !text.contains(message)),
            "{name}: {within:?}"
        );
    }
}
