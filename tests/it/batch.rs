//! `mandelbox batch MODULE`: a line of JSON for each call, and a line for each result.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::project::{Ended, ISOLATIONS, Project, finish, finish_with_input, module};

/// Writes the calls, and returns the command that makes them.
pub fn command(project: &Project, module: &str, calls: &str, more: &[&str]) -> Command {
    project.write("calls.jsonl", calls);
    let start = [
        "batch",
        module,
        "--calls",
        "calls.jsonl",
        "--results",
        "results.jsonl",
    ];
    project.command(&[&start, more].concat())
}

/// Makes calls and returns their results, by index.
#[track_caller]
pub fn batch(project: &Project, module: &str, calls: &str, more: &[&str]) -> Vec<Value> {
    finish(command(project, module, calls, more)).expect(0);
    results(&project.read("results.jsonl"))
}

/// The results in a text, by index. Each has a result.
#[track_caller]
pub fn results(text: &str) -> Vec<Value> {
    let mut results: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect();
    results.sort_by_key(|result| result["index"].as_u64());
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], json!(index), "{text}");
    }
    results
}

pub fn lines(calls: &[Value]) -> String {
    calls.iter().map(|call| format!("{call}\n")).collect()
}

/// A line with the steps of a typed task.
pub fn typed(steps: Value) -> Value {
    json!({ "args": { "steps": steps } })
}

/// A command that prints its arguments, each with a zero byte at its end, and then its stdin.
const ECHO: &str = r#"
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 4)
    (func (export "_start") (local $n i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 16) (i32.const 1024)))
        (i32.store (i32.const 8) (i32.const 1024))
        (i32.store (i32.const 12) (i32.load (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 512)))
        (i32.store (i32.const 8) (i32.const 65536))
        (loop $more
            (i32.store (i32.const 12) (i32.const 65536))
            (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 512)))
            (local.set $n (i32.load (i32.const 512)))
            (if (local.get $n) (then
                (i32.store (i32.const 12) (local.get $n))
                (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 512)))
                (br $more)))))
"#;

fn write_echo(project: &Project) {
    let wasm = wat::parse_str(format!("(module {ECHO})")).expect("valid WAT");
    project.write("echo.wasm", wasm);
}

#[test]
fn typed_calls_return_their_output_in_memory() {
    /// In place of an id that has a number with more digits than it needs.
    const ID: &str = "ID";
    for isolation in ISOLATIONS {
        let project = Project::new();
        let calls = lines(&[
            json!({ "args": { "steps": [{ "do": "args" }] }, "item": "B03", "id": ID }),
            typed(json!([{ "do": "print", "stream": "stdout", "text": "öut" },
                { "do": "log", "level": "warn", "message": "dark" },
                { "do": "print", "stream": "stderr", "text": "err\n" }])),
            typed(json!([{ "do": "error", "message": "no image" }])),
            typed(json!([{ "do": "none" }])),
            typed(json!([{ "do": "trap" }])),
            json!({ "args": {} }),
        ]);
        let calls = calls.replace(&json!(ID).to_string(), r#"{"a":[1.50]}"#);
        let more = ["--isolation", isolation];
        let results = batch(&project, &module("typed.wasm"), &calls, &more);
        let [named, printed, failed, none, trapped, defaults] = &results[..] else {
            panic!("{results:?}")
        };
        assert_eq!(named["item"], json!("B03"));
        let text = project.read("results.jsonl");
        assert!(text.contains(r#""id":{"a":[1.50]},"#), "{text}");
        assert_eq!(named["outcome"], json!("succeeded"));
        assert_eq!(named["exit_code"], json!(0));
        // The item is the component, and nothing else is added without an option.
        assert_eq!(
            named["output"],
            json!({ "typed": [["component", "steps"]] })
        );
        assert!(named["wall_time_s"].as_f64().expect("a time") > 0.0);
        assert!(named["peak_memory_bytes"].as_u64().expect("a size") >= 65536);
        assert_eq!(printed["stdout"], json!("öut"));
        assert_eq!(printed["stderr"], json!("warning: dark\nerr\n"));
        assert_eq!(
            (&printed["id"], &printed["item"]),
            (&json!(null), &json!(null))
        );
        assert_eq!(failed["outcome"], json!("failed"));
        assert_eq!(failed["message"], json!("no image"));
        assert_eq!(
            (&failed["exit_code"], &failed["output"]),
            (&json!(null), &json!(null))
        );
        assert_eq!(
            (&none["outcome"], &none["output"]),
            (&json!("succeeded"), &json!(null))
        );
        assert_eq!(trapped["outcome"], json!("trapped"));
        // The default of the schema.
        assert_eq!(defaults["output"], json!({ "typed": [["steps"]] }));
    }
}

#[test]
fn typed_tasks_get_the_paths_of_the_options() {
    let project = Project::new();
    let calls = lines(&[typed(
        json!([{ "do": "args" }, { "do": "list", "path": project.path("in") }]),
    )]);
    project.write("in/a", "");
    let more = ["--input", "in", "--output", "out"];
    let results = batch(&project, &module("typed.wasm"), &calls, &more);
    let keys = json!(["input_paths", "output_path", "steps"]);
    assert_eq!(results[0]["output"], json!({ "typed": [keys, ["a"]] }));
    std::fs::remove_file(project.path("results.jsonl")).expect("removed");
    let more = ["--contract", "v1"];
    let results = batch(&project, &module("typed.wasm"), &calls, &more);
    let keys = json!(["input_paths", "metadata", "output_path", "steps"]);
    assert_eq!(results[0]["output"]["typed"][0], keys);
}

#[test]
fn commands_of_version_1_are_called_as_by_run() {
    for isolation in ISOLATIONS {
        // Programs of WASI 0.2 can only exit with 0 or 1.
        for (name, code) in [("swiss.wasm", 3), ("swiss.p2.wasm", 1)] {
            let project = Project::new();
            let calls = lines(&[
                json!({ "args": { "echo": true, "stdout": "out\n", "stderr": "err\n" } }),
                json!({ "args": { "echo": ["component"] }, "item": "B/03" }),
                json!({ "args": { "exit": 3, "stderr": "broken" } }),
                json!({ "args": { "metadiff_raw": "[1]" } }),
            ]);
            let more = ["--input", "in", "--output", "out", "--isolation", isolation];
            let results = batch(&project, &module(name), &calls, &more);
            let echo = &results[0]["output"]["echo"];
            assert_eq!(echo["input_paths"], json!([project.path("in")]));
            assert_eq!(echo["output_path"], json!(project.path("out")));
            assert_eq!(echo["metadata"], json!({}));
            assert_eq!(echo.get("component"), None);
            assert_eq!(
                (&results[0]["stdout"], &results[0]["stderr"]),
                (&json!("out\n"), &json!("err\n"))
            );
            assert_eq!(results[1]["output"]["echo"], json!({ "component": "B/03" }));
            assert_eq!(
                (&results[2]["outcome"], &results[2]["exit_code"]),
                (&json!("exited"), &json!(code))
            );
            assert_eq!(
                (&results[2]["message"], &results[2]["stderr"]),
                (&json!(format!("exited with code {code}")), &json!("broken"))
            );
            assert_eq!(results[3]["outcome"], json!("bad_output"));
        }
    }
}

#[test]
fn commands_of_version_2_are_called_if_the_args_are_of_it() {
    for contract in [&[][..], &["--contract", "v2"]] {
        let project = Project::new();
        let out = json!({ "image_list_updates": [{ "zarr_url": project.path("out/a.zarr") }] });
        let calls = lines(&[
            json!({ "args": { "zarr_url": project.path("out/a.zarr"), "out": out, "stdout": "o", "stderr": "e" } }),
            json!({ "args": { "zarr_url": "/z/b", "out": { "unknown": 1 } } }),
            json!({ "args": { "zarr_urls": [], "out_raw": "null" }, "item": "all" }),
        ]);
        let more = [&["--output", "out"], contract].concat();
        let results = batch(&project, &module("swiss.wasm"), &calls, &more);
        assert_eq!(results[0]["output"], out);
        assert_eq!(
            (&results[0]["stdout"], &results[0]["stderr"]),
            (&json!("o"), &json!("e"))
        );
        assert_eq!(results[1]["outcome"], json!("bad_output"), "{}", results[1]);
        assert_eq!(
            (&results[2]["outcome"], &results[2]["item"]),
            (&json!("succeeded"), &json!("all"))
        );
    }
}

#[test]
fn commands_get_their_own_command_lines_and_stdin() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        write_echo(&project);
        let long = "é".repeat(200_000);
        let calls = lines(&[
            json!({ "argv": ["--size", "3 mm"], "stdin": "line 1\nline 2\n", "id": null }),
            json!({ "argv": [], "item": "nothing" }),
            json!({ "argv": ["x"], "stdin": long }),
        ]);
        let more = ["--isolation", isolation];
        let results = batch(&project, "echo.wasm", &calls, &more);
        assert_eq!(
            results[0]["stdout"],
            json!("echo.wasm\0--size\u{0}3 mm\0line 1\nline 2\n")
        );
        assert_eq!(
            (&results[0]["exit_code"], &results[0]["output"]),
            (&json!(0), &json!(null))
        );
        assert_eq!(
            (&results[1]["stdout"], &results[1]["item"]),
            (&json!("echo.wasm\0"), &json!("nothing"))
        );
        // The last 64 KiB, from a whole character on.
        assert_eq!(results[2]["stdout"], json!("é".repeat(32 << 10)));
    }
}

#[test]
fn streams_are_whole_up_to_64_kib() {
    let project = Project::new();
    let print = |n: usize| {
        typed(json!([{ "do": "print", "stream": "stderr", "text": "x".repeat(n - 1) + "y" }]))
    };
    let calls = lines(&[print(1 << 16), print((1 << 16) + 1)]);
    let results = batch(&project, &module("typed.wasm"), &calls, &[]);
    let text = |index: usize| {
        results[index]["stderr"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    assert_eq!(text(0), "x".repeat(65535) + "y");
    assert_eq!(text(1), "x".repeat(65535) + "y");
    let mut project = Project::new();
    let calls = lines(&[json!({ "args": { "do": "flood", "stream": "stdout", "mib": 20 } })]);
    let results = batch(
        &project,
        &module("probe.wasm"),
        &calls,
        &["--output", "out"],
    );
    assert_eq!(results[0]["stdout"].as_str().map(str::len), Some(1 << 16));
    project = Project::new();
    write_echo(&project);
    let results = batch(&project, "echo.wasm", "{\"argv\": []}\n", &[]);
    assert_eq!(results[0]["stdout"], json!("echo.wasm\0"));
}

#[test]
fn limits_are_outcomes_of_their_calls() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        let calls = lines(&[
            typed(json!([{ "do": "spin" }])),
            typed(json!([{ "do": "allocate_mib", "n": 90 }])),
            typed(json!([{ "do": "args" }])),
            typed(json!([{ "do": "sleep_ms", "ms": 60_000 }])),
        ]);
        let more = [
            "--timeout",
            "300ms",
            "--memory",
            "40MiB",
            "--isolation",
            isolation,
        ];
        let results = batch(&project, &module("typed.wasm"), &calls, &more);
        for index in [0, 3] {
            assert_eq!(results[index]["outcome"], json!("timed_out"));
            assert_eq!(results[index]["limit_s"], json!(0.3));
            assert_eq!(
                results[index]["message"],
                json!("exceeded its time limit of 0.3 s")
            );
        }
        assert_eq!(results[1]["outcome"], json!("memory_exceeded"));
        assert_eq!(results[1]["limit_bytes"], json!(40 << 20));
        assert_eq!(results[2]["outcome"], json!("succeeded"));
    }
}

#[test]
fn a_bad_line_is_refused_alone() {
    let project = Project::new();
    let calls = [
        "{\"args\": {}",
        "[]",
        "",
        "   ",
        "{\"arg\": {}, \"id\": 7, \"item\": \"x\"}",
        "{\"argv\": [\"a\"], \"id\": \"second\"}",
        "{\"args\": {}}\r",
        "\u{feff}{\"args\": {}}",
        "\u{0}",
        "{\"args\": {\"a\": 1e999}}",
        "{\"args\": {}}",
    ];
    let mut calls: String = calls.iter().map(|line| format!("{line}\n")).collect();
    let _ = write!(
        calls,
        "{{\"args\": {{\"x\": \"{}\"}}}}\n{{\"args\": {{}}}}",
        "x".repeat(17 << 20)
    );
    let results = batch(&project, &module("typed.wasm"), &calls, &["--ordered"]);
    let outcomes: Vec<_> = results
        .iter()
        .map(|result| result["outcome"].as_str())
        .collect();
    let (bad, good) = (Some("refused"), Some("succeeded"));
    assert_eq!(
        outcomes,
        [bad, bad, bad, bad, good, bad, bad, bad, good, bad, good]
    );
    let message = |index: usize| results[index]["message"].as_str().expect("a text");
    for (index, text) in [
        (0, "line 1 of the calls: is not JSON: column 1"),
        (1, "line 2 of the calls: must be an object, not an array"),
        (2, "line 5 of the calls: unknown key `arg`"),
        (
            3,
            "line 6 of the calls: has `argv`, but the calls are those of a task (contract typed)",
        ),
        (5, "byte order mark"),
        (9, "line 12 of the calls: is longer than 16 MiB"),
    ] {
        assert!(message(index).contains(text), "{}", message(index));
    }
    assert_eq!(
        (&results[2]["id"], &results[2]["item"]),
        (&json!(7), &json!("x"))
    );
    assert_eq!(results[3]["id"], json!("second"));
}

#[test]
fn args_are_checked_with_the_schema_of_the_task() {
    let project = Project::new();
    let calls = lines(&[
        json!({ "args": { "stepz": [] }, "id": "misspelt" }),
        json!({ "args": { "steps": 1 } }),
        json!({ "args": { "component": 1, "steps": [{ "do": "none" }] } }),
    ]);
    let results = batch(&project, &module("typed.wasm"), &calls, &[]);
    for (index, text) in [
        (
            0,
            "line 1 of the calls: `args`: does not match the task's `args_schema`",
        ),
        (
            1,
            "line 2 of the calls: `args`/steps: does not match the task's `args_schema`",
        ),
    ] {
        assert_eq!(results[index]["outcome"], json!("refused"));
        let message = results[index]["message"].as_str().expect("a text");
        assert!(message.starts_with(text), "{message}");
    }
    assert_eq!(results[0]["id"], json!("misspelt"));
    assert_eq!(results[2]["outcome"], json!("succeeded"));
    assert_eq!(results[2]["item"], json!(null), "only what the line has");
}

#[test]
fn ordered_results_come_in_the_order_of_their_calls() {
    let project = Project::new();
    let calls: Vec<_> = (0..40)
        .map(|n| typed(json!([{ "do": "sleep_ms", "ms": if n % 8 == 0 { 40 } else { 0 } }])))
        .collect();
    let order = |more: &[&str]| {
        let _ = std::fs::remove_file(project.path("results.jsonl"));
        finish(command(
            &project,
            &module("typed.wasm"),
            &lines(&calls),
            more,
        ))
        .expect(0);
        let text = project.read("results.jsonl");
        assert_eq!(results(&text).len(), 40);
        let index =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["index"].as_u64();
        text.lines().map(index).collect::<Vec<_>>()
    };
    let sorted: Vec<_> = (0..40).map(Some).collect();
    assert_eq!(order(&["--ordered", "--jobs", "4"]), sorted);
    assert_ne!(
        order(&["--jobs", "4"]),
        sorted,
        "those that end first come first"
    );
}

#[test]
fn what_cannot_be_used_is_refused_before_the_first_call() {
    let project = Project::new();
    project.write("other.jsonl", "{\"a\": 1}\n");
    project.write("bad.wasm", "no module");
    let call = "{\"args\": {}}\n";
    let check = |module: &str, more: &[&str], texts: &[&str]| {
        let ended = finish(command(&project, module, call, more)).expect(2);
        ended.reports(texts);
    };
    let (typed, swiss) = (module("typed.wasm"), module("swiss.wasm"));
    check("bad.wasm", &[], &["bad.wasm: "]);
    check("missing.wasm", &[], &["missing.wasm: no module at"]);
    check(
        &typed,
        &["--contract", "argv"],
        &["--contract argv: the module is a typed task"],
    );
    check(
        &swiss,
        &["--contract", "typed"],
        &["--contract typed: the module is a command"],
    );
    check(
        &swiss,
        &["--contract", "v3"],
        &["possible values: v1, v2, typed, argv"],
    );
    check(&swiss, &["--output", "calls.jsonl/x"], &["output path"]);
    assert!(!project.path("results.jsonl").exists());
    let with = |arguments: &[&str]| project.mandelbox(&[&["batch", &typed], arguments].concat());
    with(&["--calls", "missing", "--results", "-"])
        .expect(2)
        .reports(&["--calls missing: cannot be read"]);
    with(&["--calls", "calls.jsonl", "--results", "calls.jsonl"])
        .expect(2)
        .reports(&["would overwrite the calls"]);
    with(&["--calls", "calls.jsonl", "--results", "other.jsonl"])
        .expect(2)
        .reports(&["exists and is not empty", "`--resume`"]);
    with(&[
        "--calls",
        "calls.jsonl",
        "--results",
        "other.jsonl",
        "--resume",
    ])
    .expect(2)
    .reports(&["line 1: is not a result"]);
    with(&["--calls", "calls.jsonl", "--results", "-", "--resume"])
        .expect(2)
        .reports(&["results on stdout cannot be resumed"]);
    with(&[
        "--calls",
        "calls.jsonl",
        "--results",
        "out/r",
        "--output",
        "out",
    ])
    .expect(2)
    .reports(&["is inside the output path"]);
    assert_eq!(project.read("other.jsonl"), "{\"a\": 1}\n");
}

#[test]
fn no_calls_give_no_results() {
    let project = Project::new();
    assert_eq!(
        batch(&project, &module("typed.wasm"), "", &[]),
        Vec::<Value>::new()
    );
    assert_eq!(
        batch(&project, &module("typed.wasm"), "\n\n", &[]),
        Vec::<Value>::new()
    );
    let refused = batch(&project, &module("swiss.wasm"), "{\n", &[]);
    assert_eq!(refused[0]["outcome"], json!("refused"));
}

#[test]
fn calls_and_results_can_be_streams() {
    let project = Project::new();
    let arguments = [
        "batch",
        &module("typed.wasm"),
        "--calls",
        "-",
        "--results",
        "-",
    ];
    let ended = finish_with_input(project.command(&arguments), "{\"args\": {}}").expect(0);
    assert_eq!(results(&ended.stdout).len(), 1);
    ended.reports(&["1 succeeded, 0 failed in "]);
    let quiet = [&arguments[..], &["--quiet"]].concat();
    let ended = finish_with_input(project.command(&quiet), "{\"args\": {}}").expect(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn results_that_cannot_be_written_are_an_error_of_the_host() {
    let project = Project::new();
    let arguments = [
        "batch",
        &module("typed.wasm"),
        "--calls",
        "-",
        "--results",
        "/dev/full",
    ];
    let ended: Ended = finish_with_input(project.command(&arguments), "{\"args\": {}}\n");
    ended
        .expect(1)
        .reports(&["failed to write the results to /dev/full: No space left on device"]);
}

#[test]
fn deterministic_calls_repeat_their_random_numbers() {
    let project = Project::new();
    let calls = lines(&vec![
        json!({ "args": { "steps": [{ "do": "random" }, { "do": "clock" }] } });
        3
    ]);
    let run = || {
        let _ = std::fs::remove_file(project.path("results.jsonl"));
        let more = ["--deterministic", "--output", "out"];
        let results = batch(&project, &module("probe.wasm"), &calls, &more);
        let outputs: Vec<_> = results
            .iter()
            .map(|result| result["output"].clone())
            .collect();
        outputs
    };
    let first = run();
    assert_eq!(run(), first);
    assert_ne!(first[0], first[1], "calls differ");
}
