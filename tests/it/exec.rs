//! `mandelbox exec`: a module called as a task with args from a file, and as a command with any command line.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish, module, parallel_task, task};

const ISOLATIONS: [&str; 2] = ["thread", "process"];

/// Runs the program with a text on its stdin.
fn finish_with_input(mut command: Command, input: &str) -> Ended {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input.as_bytes()).expect("written");
    std::io::Seek::rewind(&mut file).expect("at its start");
    command.stdin(Stdio::from(file));
    finish(command)
}

fn stdout_json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|err| panic!("{err}: {}", ended.stdout))
}

/// `exec MODULE --args args.json` and more arguments.
fn exec_task(project: &Project, name: &str, args: &Value, more: &[&str]) -> Ended {
    project.write("args.json", args.to_string());
    project.mandelbox(&[&["exec", &module(name), "--args", "args.json"], more].concat())
}

/// A project with a module that is written here as text, for the raw form.
fn with_guest(body: &str) -> Project {
    let project = Project::new();
    project.write("guest.wasm", wat::parse_str(format!("(module {body})")).expect("valid WAT"));
    project
}

/// Lets the probe do its steps in the raw form, with its files in the folder `files`, which it sees at /files.
fn probe(project: &Project, name: &str, steps: &Value, more: &[&str]) -> (Ended, Vec<Value>) {
    project.write("files/args.json", json!({ "steps": steps }).to_string());
    let start = ["exec", &module(name), "--mount", "files::/files:rw"];
    let end = ["--", "-j", "/files/args.json", "--metadata-out", "/files/metadiff.json"];
    let ended = project.mandelbox(&[&start, more, &end].concat());
    let results = if ended.code == 0 { project.json("files/metadiff.json")["probe"].clone() } else { Value::Null };
    (ended, results.as_array().cloned().unwrap_or_default())
}

#[test]
fn a_task_gets_its_args_and_stdout_its_metadiff() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write("metadata.json", json!({ "plate": ["a"] }).to_string());
        let args = json!({ "echo": true, "stdout": "out\n", "stderr": "an \u{1b}[31merror" });
        let more = ["--input", "in", "--output", "out", "--metadata", "metadata.json", "--isolation", isolation];
        let ended = exec_task(&project, "swiss.wasm", &args, &more).expect(0);
        let echo = &stdout_json(&ended)["echo"];
        let path = |name: &str| json!(project.path(name));
        assert_eq!((&echo["input_paths"], &echo["output_path"]), (&json!([path("in")]), &path("out")));
        assert_eq!(echo["metadata"], json!({ "plate": ["a"] }));
        assert_eq!(echo.get("component"), None);
        ended.says(&["out\n", "an \\u{1b}[31merror\n"]);
    }
}

#[test]
fn a_component_makes_the_call_one_of_a_parallel_task() {
    let project = Project::new();
    project.write("metadata.json", json!({ "image": ["i"], "well": ["B/03"] }).to_string());
    let more = ["--component", "B/03", "--metadata", "metadata.json"];
    let ended = exec_task(&project, "swiss.wasm", &json!({ "echo": true }), &more).expect(0);
    let echo = &stdout_json(&ended)["echo"];
    assert_eq!((&echo["component"], &echo["metadata"]), (&json!("B/03"), &json!({ "well": ["B/03"] })));
    ended.says(&["without --output, the task's output folder is a temporary one"]);
}

#[test]
fn args_come_from_stdin_too() {
    let project = Project::new();
    let command = project.command(&["exec", &module("typed.wasm"), "--args", "-", "--quiet"]);
    let ended = finish_with_input(command, r#"{"steps": [{"do": "none"}]}"#).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("null\n", ""));
}

#[test]
fn a_typed_task_logs_and_reports_on_stderr() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        project.write("metadata.json", json!({ "a": 7 }).to_string());
        let steps = json!([
            { "do": "log", "level": "info", "message": "so far \u{1b} so good" },
            { "do": "progress", "fraction": 0.5, "message": "half" },
            { "do": "metadata", "key": "a" },
            { "do": "print", "stream": "stdout", "text": "printed\n" },
        ]);
        let more = ["--metadata", "metadata.json", "--isolation", isolation];
        let ended = exec_task(&project, "typed.wasm", &json!({ "steps": steps }), &more).expect(0);
        assert_eq!(stdout_json(&ended)["typed"][2], json!(7), "{}", ended.stdout);
        ended.says(&["info: so far \\u{1b} so good", "50 % half", "printed"]);
    }
}

#[test]
fn failures_have_the_exit_codes_and_words_of_a_run() {
    let check = |name: &str, args: Value, more: &[&str], code: i32, texts: &[&str]| {
        for isolation in ISOLATIONS {
            let project = Project::new();
            let ended = exec_task(&project, name, &args, &[more, &["--isolation", isolation]].concat());
            assert_eq!(ended.stdout, "");
            ended.expect(code).says(texts);
        }
    };
    let typed = |step: Value| json!({ "steps": [step] });
    check(
        "swiss.wasm",
        json!({ "exit": 3, "stderr": "broken" }),
        &[],
        3,
        &["broken\n", "error: TaskExecutionError: task \"swiss\" (order 0) failed\n  call exited with code 3"],
    );
    check("swiss.wasm", json!({ "metadiff_raw": "[1]" }), &[], 3, &["bad metadiff", "must be a JSON object or null"]);
    check("swiss.wasm", json!({ "signal": "SEGV" }), &[], 4, &["JobExecutionError", "trapped"]);
    check("swiss.wasm", json!({ "sleep_ms": 60_000 }), &["--timeout", "200ms"], 4, &["its time limit of 0.2 s"]);
    check("typed.wasm", typed(json!({ "do": "error", "message": "no image" })), &[], 3, &["failed: no image"]);
    check("typed.wasm", typed(json!({ "do": "allocate_mib", "n": 70 })), &["--memory", "64M"], 4, &["limit of 64 MiB"]);
}

#[test]
fn wrong_input_is_told_with_its_place_and_nothing_runs() {
    let check = |args: &str, module: &str, more: &[&str], text: &str| {
        let project = Project::new();
        project.write("args.json", args);
        project.write("page.wasm", "<!doctype html>");
        let ended = project.mandelbox(&[&["exec", module, "--args", "args.json"], more].concat());
        ended.expect(2).says(&[text]);
        assert_eq!(project.tree(), ["args.json", "in/", "out/", "page.wasm"]);
    };
    let (swiss, typed) = (module("swiss.wasm"), module("typed.wasm"));
    check("{", &swiss, &[], "args.json:1:1: not valid JSON");
    check("[]", &swiss, &[], "args.json: must be an object, not an array");
    check(r#"{"a": 1, "a": 2}"#, &swiss, &[], "a second time");
    check("{}", "page.wasm", &[], "page.wasm: is not a WebAssembly module: it is an HTML page");
    check("{}", "none.wasm", &[], "there is no module at none.wasm");
    check(r#"{"steps": 7}"#, &typed, &[], "args.json: /steps: does not fit the task's args_schema");
    check("{}", &swiss, &["--mount", "in"], "cannot be used with");
    check("{}", &swiss, &["--metadata", "args.jso"], "args.jso: cannot be read");
    let project = Project::new();
    project.mandelbox(&["exec", &swiss, "--component", "x"]).expect(2).says(&["--args"]);
}

#[test]
fn a_manifest_above_a_module_gives_its_schema() {
    let project = Project::new();
    std::fs::create_dir_all(project.path("package/bin")).expect("made");
    std::fs::copy(module("swiss.wasm"), project.path("package/bin/swiss.wasm")).expect("copied");
    let task = |name: &str, executable: &str| {
        json!({
            "name": name, "executable": executable, "input_type": "Any", "output_type": "Any",
            "args_schema": { "type": "object", "properties": {
                "echo": { "default": true }, "n": { "type": "integer", "default": 5 } } }
        })
    };
    let manifest = |tasks: &[Value]| {
        let manifest = json!({ "manifest_version": "1", "task_list": tasks });
        project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    };
    let exec = |args: &Value| {
        project.write("args.json", args.to_string());
        project.mandelbox(&["exec", "package/bin/swiss.wasm", "--args", "args.json"])
    };
    manifest(&[task("One", "bin/swiss.wasm"), task("Other", "bin/other.wasm")]);
    assert_eq!(stdout_json(&exec(&json!({})).expect(0))["echo"]["n"], 5);
    exec(&json!({ "n": "x" })).expect(2).says(&["args.json: /n: does not fit the task's args_schema"]);
    manifest(&[task("One", "bin/swiss.wasm"), task("Two", "bin/swiss.wasm")]);
    assert_eq!(exec(&json!({ "n": "x" })).expect(0).says(&["the module of several tasks (One, Two)"]).stdout, "null\n");
}

/// An author takes the args.json of a call that failed and makes the call again.
#[test]
fn a_recorded_call_is_replayed_from_its_args() {
    for name in ["swiss.wasm", "typed.wasm"] {
        let project = Project::new();
        project.write("in/a.txt", "input");
        project.write("metadata.json", json!({ "well": ["B/03"], "k": 1 }).to_string());
        let steps = json!([{ "do": "list", "path": project.path("in") }, { "do": "metadata", "key": "k" }]);
        let args = if name == "typed.wasm" { json!({ "steps": steps }) } else { json!({ "echo": true }) };
        project.workflow(&[parallel_task(0, "t", &module(name), "well", args)]);
        project.run(&["--metadata", "metadata.json"]).expect(0);
        let recorded = project.json("work/metadata.json");
        let replay = |more: &[&str]| {
            project.mandelbox(&[&["exec", &module(name), "--args", "work/0_t/0_par_b_03.args.json"], more].concat())
        };
        let ended = replay(&["--input", "in", "--output", "out"]).expect(0);
        for (key, value) in stdout_json(&ended).as_object().expect("an object") {
            assert_eq!(json!([value]), recorded[key], "{key}");
        }
        assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);

        // Without rights from the command line there are none.
        let ended = replay(&["--component", "C"]);
        let (input, output) = (project.path("in"), project.path("out"));
        ended.says(&[
            &format!(
                "/input_paths/0: the task does not see {0}, as a path in args gives no right: add --input {0}",
                input.display()
            ),
            &format!("add --output {}", output.display()),
            "--component: the args have another component, which counts",
        ]);
    }
}

#[test]
fn a_temporary_output_folder_is_gone_afterwards() {
    let project = Project::new();
    let temporary = project.path("tmp");
    std::fs::create_dir(&temporary).expect("made");
    project.write("args.json", json!({ "echo": ["output_path"] }).to_string());
    let mut command = project.command(&["exec", &module("swiss.wasm"), "--args", "args.json"]);
    command.env("TMPDIR", &temporary);
    let output = stdout_json(&finish(command).expect(0))["echo"]["output_path"].clone();
    assert!(output.as_str().is_some_and(|path| path.starts_with(temporary.to_str().expect("UTF-8"))), "{output}");
    assert_eq!(std::fs::read_dir(&temporary).expect("a folder").count(), 0);

    // A task that could reach the folder of its own call from outside could change what the host takes out of it.
    let mut command = project.command(&["exec", &module("swiss.wasm"), "--args", "args.json", "--output", "tmp"]);
    command.env("TMPDIR", &temporary);
    finish(command).expect(2).says(&["choose another TMPDIR or --output"]);
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
            let mounts = ["data", "data::/lib", "other::/lib/deep:rw", "data::/"].map(|mount| ["--mount", mount]);
            let more =
                [mounts.as_flattened(), &["--isolation", isolation, "--argv0", "prog", "--env", "A=b=c"]].concat();
            let (ended, results) = probe(&project, name, &steps, &more);
            let ok = |index: usize| results[index]["ok"].clone();
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            assert_eq!(ok(0), json!({ "A": "b=c" }));
            assert_eq!(ok(1)[0], json!("prog"));
            assert_eq!(ok(2), json!(0));
            assert_eq!(ok(3), json!("data"));
            assert!(results[4].get("error").is_some(), "{}", results[4]);
            assert_eq!((ok(5), ok(6), ok(8)), (json!("data"), json!("other"), json!("shadowed")));
            assert_eq!((project.read("other/new.txt"), ok(7)), ("new".to_owned(), Value::Null));
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
        assert!(results[0].get("error").is_some() && results[1].get("error").is_some(), "{results:?}");
        let (_, results) = probe(&project, name, &steps, &["--mount", "data::.:rw"]);
        assert_eq!((&results[0]["ok"], project.read("data/b.txt")), (&json!("data"), "b".to_owned()));
    }
}

#[test]
fn wrong_mounts_and_variables_are_told_together() {
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
    ended.expect(2).says(&[
        "--mount none: the folder",
        "--mount file: is a file, and folders alone can be mounted; mount ",
        "--mount out::/x/: a second folder at /x;",
        "--mount in::/a/../b: the path /a/../b in the sandbox must not hold `..`",
        "--env HOME: must be NAME=VALUE",
        "--env A=2: a second value for A",
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
            let ended =
                project.mandelbox(&[&["exec", "guest.wasm", "--isolation", isolation], more].concat()).expect(code);
            assert_eq!(ended.stdout, "");
            match text {
                "" => assert_eq!(ended.stderr, ""),
                text => drop(ended.says(&[text])),
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
    check(endless, &["--timeout", "200ms"], 134, "was ended after its time limit of 0.2 s");
    let large = r#"(memory 2000) (func (export "_start"))"#;
    check(large, &["--memory", "64M"], 134, "was ended at its memory limit of 64 MiB");
    check(large, &["--memory", "128M"], 0, "");
    // More entries than a place of the pool has.
    check(r#"(table 3000000 funcref) (func (export "_start"))"#, &[], 0, "");
    check(r#"(func (export "main"))"#, &[], 2, "guest.wasm: the module has no entry");
    check(r#"(import "env" "system" (func)) (func (export "_start"))"#, &[], 2, "env::system");
    let project = Project::new();
    let ended = project.mandelbox(&["exec", &module("typed.wasm"), "--", "x"]);
    ended.expect(2).says(&["is a typed task, which has no command line; call it with its args: exec MODULE --args"]);
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
        std::fs::File::open(path).and_then(|file| file.set_modified(time)).expect("changed");
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
        let exec = |more: &[&str]| project.command(&[&["exec", "guest.wasm", "--isolation", isolation], more].concat());
        let text = "raw \u{1b}[31m\0 text\nwithout an end";
        let ended = finish_with_input(exec(&["--stdin", "-"]), text).expect(0);
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), (text, text));
        let large = "0123456789abcdef".repeat(1 << 16);
        project.write("large", &large);
        let ended = finish(exec(&["--stdin", "large"])).expect(0);
        assert!(ended.stdout == large && ended.stderr == large, "{} bytes", ended.stdout.len());
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
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let mut start = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut start).expect("read");
        assert_eq!(&start, b"yes\nyes\n");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("waited for");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
    }
}

#[test]
fn only_one_call_is_made_and_no_record_is_kept() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let before = project.tree();
    exec_task(&project, "swiss.wasm", &json!({ "metadiff": { "a": 1 } }), &["--output", "new"]).expect(0);
    let mut expected = before;
    expected.extend(["args.json".to_owned(), "new/".to_owned()]);
    expected.sort();
    assert_eq!(project.tree(), expected);
}
