//! Files that are no task: each is refused in one paragraph that states what is wrong and what to do,
//! the same from every command.

use mandelbox::model::ModuleFile;
use mandelbox::plan::Policy;
use mandelbox::sandbox::{Sandbox, SandboxOptions};
use serde_json::{Value, json};

use crate::project::{Project, module, task};

/// Fails unless `check`, `run` and `exec` refuse a module for the same reason, which holds each of
/// the texts.
#[track_caller]
fn check(bytes: &[u8], expected: &[&str]) {
    let project = Project::new();
    project.write("m.wasm", bytes);
    let ended = project
        .mandelbox(&["check", "m.wasm", "--format", "json"])
        .expect(2);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let problems = answer["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 1, "{problems:?}");
    let message = problems[0]["message"].as_str().expect("a text");
    assert!(!message.contains('\n') && message.len() < 700, "{message}");
    for text in expected {
        assert!(message.contains(text), "{text:?} is not in: {message}");
    }
    project.workflow(&[task(0, "t", "m.wasm", json!({}))]);
    let ended = project.run(&[]).expect(2);
    ended.reports(&["/task_list/0/task/command", message]);
    assert!(!project.path("work").exists());
    project
        .mandelbox(&["exec", "m.wasm", "--", "x"])
        .expect(2)
        .reports(&[message]);
}

#[track_caller]
fn check_wat(text: &str, expected: &[&str]) {
    check(&wat::parse_str(text).expect("valid WAT"), expected);
}

/// A core module with an entry, and imports of functions without parameters.
#[track_caller]
fn check_imports(imports: &[(&str, &str)], expected: &[&str]) {
    let imports: String = imports
        .iter()
        .map(|(module, name)| format!("(import {module:?} {name:?} (func))"))
        .collect();
    check_wat(
        &format!(r#"(module {imports} (func (export "_start")))"#),
        expected,
    );
}

/// A WASM component with these imports, that exports a core function under these names and types.
#[track_caller]
fn check_component(imports: &str, exports: &[(&str, &str)], expected: &[&str]) {
    let export = |(index, (name, ty)): (usize, &(&str, &str))| {
        let function = format!(
            r#"(func $f{index} {ty} (canon lift (core func $i "f{}")))"#,
            ty.contains("result") as u8
        );
        match name.contains('/') {
            false => format!(r#"{function} (export "{name}" (func $f{index}))"#),
            true => format!(
                r#"{function} (instance $i{index} (export "run" (func $f{index}))) (export "{name}" (instance $i{index}))"#
            ),
        }
    };
    let exports: String = exports.iter().enumerate().map(export).collect();
    check_wat(
        &format!(
            r#"(component {imports}
              (core module $m (func (export "f0")) (func (export "f1") (result i32) (i32.const 0)))
              (core instance $i (instantiate $m)) {exports})"#
        ),
        expected,
    );
}

#[test]
fn files_of_other_kinds() {
    check(
        b"",
        &[
            "is not a WebAssembly module: it is empty",
            "download it again",
        ],
    );
    check(
        &std::fs::read("/bin/sh").expect("a program"),
        &["native program", "build the program for WASI"],
    );
    check(
        b"#!/usr/bin/env python3\nprint(1)\n",
        &["it is a script", "interpreter built for WASI"],
    );
    check(b"import sys\n", &["it is a script"]);
    check(
        b"(module (func (export \"_start\")))",
        &["WebAssembly text (WAT)", "wasm-tools parse"],
    );
    check(
        b"\n<!DOCTYPE html><p>404",
        &["HTML page", "a download that failed"],
    );
    check(b"\x1f\x8b\x08\0", &["it is packed; unpack it"]);
    check(b"PK\x03\x04", &["it is packed; unpack it"]);
    check(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        &["Git LFS", "git lfs pull"],
    );
    check(b"!<arch>\n", &["library of object files", "link it"]);
    check(
        b"some text",
        &[
            "its first bytes are not those of a module",
            "name a .wasm file",
        ],
    );
}

#[test]
fn modules_that_are_broken() {
    let whole = std::fs::read(module("swiss.wasm")).expect("a module");
    check(b"\0asm\x01", &["truncated", "download it again"]);
    check(
        &whole[..5000],
        &[
            "not a valid WebAssembly module: it is truncated",
            "download it again",
        ],
    );
    check(
        &std::fs::read(module("typed.wasm")).expect("a module")[..5000],
        &["it is truncated"],
    );
    check(
        b"\0asm\x09\0\0\0",
        &["its version of the binary format is unknown"],
    );
    check(
        b"\0asm\x01\0\0\0\xff\x01\0",
        &[
            "not a valid WebAssembly module",
            "at offset",
            "wasm-tools validate",
        ],
    );
}

#[test]
fn precompiled_code() {
    let sandbox = Sandbox::new(&SandboxOptions::default()).expect("a sandbox");
    let bytes = std::fs::read(module("swiss.wasm")).expect("a module");
    let module = ModuleFile::from_bytes("m.wasm".into(), bytes);
    let code = sandbox
        .precompile(&module, Policy::default().compile_time)
        .expect("compiles");
    check(
        &code,
        &[
            "precompiled native code",
            "name the .wasm file that it was compiled from",
        ],
    );
}

#[test]
fn a_folder_in_the_place_of_a_module() {
    let project = Project::new();
    project.workflow(&[task(0, "t", "in", json!({}))]);
    project
        .run(&[])
        .expect(2)
        .reports(&["in` is a folder; name the .wasm file of the module"]);
}

#[test]
fn features_that_are_off() {
    let start = r#"(func (export "_start"))"#;
    check_wat(
        &format!("(module (memory 1 1 shared) {start})"),
        &["disabled here, `threads`", "-matomics", "-pthread"],
    );
    check_wat(
        &format!("(module (memory i64 1) {start})"),
        &["`memory64`", "wasm32"],
    );
    check_wat(
        &format!("(module (memory 1) (memory 1) {start})"),
        &["`multi-memory`"],
    );
    check_wat(
        &format!("(module (type (struct)) {start})"),
        &["`gc`", "WasmGC"],
    );
    check_wat(
        &format!("(module (func try catch_all end) {start})"),
        &["`legacy-exceptions`", "use-legacy-eh=false"],
    );
    check_wat(
        "(component (type (stream u8)))",
        &["`component-model-async`", "WASI 0.2"],
    );
}

#[test]
fn core_modules_for_other_hosts() {
    check_imports(
        &[("host", "call")],
        &["the sandbox does not provide: host::call", "wasm32-wasip1"],
    );
    check_imports(
        &[("wasi_unstable", "fd_write")],
        &["wasi_unstable::fd_write", "preview 0", "current toolchain"],
    );
    check_imports(
        &[("env", "emscripten_resize_heap"), ("env", "exit")],
        &["env::exit", "Emscripten", "wasi-sdk"],
    );
    check_imports(
        &[("env", "dgemm_")],
        &["env::dgemm_", "link the library", "--allow-undefined"],
    );
    check_imports(
        &[("wbg", "__wbg_new_1")],
        &["wasm-bindgen", "wasm32-wasip1"],
    );
    check_imports(&[("./x_bg.js", "f")], &["./x_bg.js::f", "wasm-bindgen"]);
    check_imports(
        &[("gojs", "runtime.wasmExit")],
        &["Go program for JavaScript", "GOOS=wasip1 GOARCH=wasm"],
    );
    check_imports(
        &[("wasi", "thread-spawn")],
        &["threads", "wasm32-wasip1-threads"],
    );
    check_imports(&[("extism:host/env", "length")], &["Extism"]);
    check_imports(&[("env", "__linear_memory")], &["object file", "link it"]);
    check_imports(
        &[("mandelbox:task/host@0.1.0", "log")],
        &["wasm-tools component new"],
    );
    check_imports(
        &[("wasi_snapshot_preview1", "fork")],
        &["wasi_snapshot_preview1::fork (preview 1 has no such function)"],
    );
    check_imports(
        &[("wasi_snapshot_preview1", "sched_yield")],
        &[
            "wasi_snapshot_preview1::sched_yield (here () -> (), in preview 1 () -> (i32))",
            "libc",
        ],
    );
    let many: Vec<_> = (0..30).map(|index| format!("f{index}")).collect();
    check_imports(
        &many.iter().map(|name| ("x", &**name)).collect::<Vec<_>>(),
        &["x::f9 and 20 more"],
    );
}

#[test]
fn core_modules_without_a_right_entry() {
    check_wat("(module)", &["no entry", "build it as a command"]);
    check_wat(
        r#"(module (func (export "_initialize")) (func (export "f")))"#,
        &["no entry", "reactor"],
    );
    check_wat(
        r#"(module (func (export "run")) (func (export "describe")))"#,
        &["no entry", "wasm-tools component new"],
    );
    check_wat(
        r#"(module (func (export "_start") (param i32)))"#,
        &["without parameters and results"],
    );
    check_wat(
        r#"(module (func (export "_start") (result i32) (i32.const 0)))"#,
        &["without parameters and results"],
    );
    // AssemblyScript without its shim: an author learns both at once.
    check_wat(
        r#"(module (import "env" "abort" (func (param i32 i32 i32 i32))) (func (export "add")))"#,
        &[
            "env::abort",
            "AssemblyScript",
            "wasi-shim",
            "In addition, the module has no entry",
        ],
    );
}

#[test]
fn wasm_components_of_other_worlds() {
    check_component("", &[], &["exports nothing", "wit/task.wit"]);
    check_component("", &[("f", "")], &["nothing to run; it exports f"]);
    check_component(
        "",
        &[("wasi:cli/run@0.3.0", "")],
        &["command of WASI 0.3", "build it for WASI 0.2"],
    );
    check_component(
        "",
        &[("wasi:http/incoming-handler@0.2.3", "")],
        &["answers HTTP requests"],
    );
    check_component(
        "",
        &[("wasi:cli/run@0.2.0", "")],
        &["a function `run` without parameters that returns a `result`"],
    );
    let run = [("wasi:cli/run@0.2.0", "(result (result))")];
    check_component(
        r#"(import "a:b/c@1.0.0" (instance))"#,
        &run,
        &["the sandbox does not provide: a:b/c@1.0.0", "wac plug"],
    );
    check_component(
        r#"(import "wasi:http/types@0.2.3" (instance))"#,
        &run,
        &["wasi:http/types@0.2.3", "no network"],
    );
    check_component(
        r#"(import "wasi:cli/stdin@0.3.0" (instance))"#,
        &run,
        &["wasi:cli/stdin@0.3.0", "WASI 0.3"],
    );
    check_component(
        r#"(import "wasi:keyvalue/store@0.2.0" (instance))"#,
        &run,
        &["wasi:keyvalue/store@0.2.0"],
    );
    check_component(
        r#"(import "fermyon:spin/llm@2.0.0" (instance))"#,
        &run,
        &["built for Spin"],
    );
}

#[test]
fn typed_tasks_of_another_world() {
    let other = r#"(import "mandelbox:task/host@0.9.0" (instance))"#;
    let expected = [
        "mandelbox:task/host@0.9.0",
        "another version of mandelbox's world",
        "this program provides `mandelbox:task/host@0.1.0`",
        "wit/task.wit of this version",
    ];
    check_component(other, &[], &expected);
    // The version comes first, and what does not fit it after that.
    check_component(
        other,
        &[("run", "")],
        &[&expected[..], &["In addition", "export `run` is `func()`"]].concat(),
    );
    check_component(
        "",
        &[("run", ""), ("describe", "")],
        &[
            "export `run` is `func()`",
            "func(args: string)",
            "In addition",
            "export `describe` is `func()`",
        ],
    );
    check_component(
        "",
        &[("describe", "")],
        &["has no function `run: func(args: string)"],
    );
}

/// The message about a refused module is complete: all problems, and the contents.
#[test]
fn all_problems_are_reported_at_once() {
    let project = Project::new();
    let text = r#"(module
        (import "env" "memory" (memory 2 16 shared))
        (import "wasi" "thread-spawn" (func (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (func (export "wasi_thread_start") (param i32 i32)))"#;
    project.write("m.wasm", wat::parse_str(text).expect("valid WAT"));
    let ended = project
        .mandelbox(&["check", "m.wasm", "--format", "json"])
        .expect(2);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let messages: Vec<_> = answer["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|problem| problem["message"].to_string())
        .collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    for (message, text) in
        messages
            .iter()
            .zip(["`threads`", "env::memory, wasi::thread-spawn", "no entry"])
    {
        assert!(message.contains(text), "{message}");
    }
    let found = &answer["module"];
    assert_eq!(
        (&found["kind"], &found["is_component"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(found["missing_features"][0]["name"], "threads");
    let memory = json!({ "initial_bytes": 131072, "maximum_bytes": 1048576, "shared": true, "memory64": false });
    assert_eq!(
        (&found["memories"], &found["wasi"]),
        (&json!([memory]), &json!(["preview1"]))
    );
    assert_eq!(
        found["exports"],
        json!([{ "name": "wasi_thread_start", "kind": "function", "type": "(i32, i32) -> ()" }])
    );
    let state = |interface: usize| {
        (
            &found["imports"][interface]["name"],
            &found["imports"][interface]["state"],
        )
    };
    assert_eq!(state(0), (&json!("env"), &json!("refused")));
    assert_eq!(
        state(2),
        (&json!("wasi_snapshot_preview1"), &json!("linked"))
    );
    let items = &found["imports"][2]["items"];
    assert_eq!(
        (&items[0]["state"], &items[1]["state"]),
        (&json!("inert"), &json!("linked"))
    );
    project.mandelbox(&["check", "m.wasm"]).expect(2).reports(&[
        "core module, refused",
        "memory    128 KiB to 1 MiB, shared",
        "needs     threads (off)",
        "imports   4 in 3 interfaces",
        "REFUSED: not part of WASI preview 1",
        "sock_accept",
        "a guest has no socket",
        "3 problems found",
    ]);
    project
        .mandelbox(&["check", "m.wasm", "--verbose"])
        .expect(2)
        .reports(&["wasi_thread_start (i32, i32) -> ()", "sched_yield"]);
}

#[test]
fn names_in_a_module_are_escaped() {
    let project = Project::new();
    let text = r#"(module (import "a\1b[2J" "b\0ac" (func)) (func (export "\1b]0;x") (param i32)) (func (export "_start")))"#;
    project.write("m.wasm", wat::parse_str(text).expect("valid WAT"));
    for verbose in [&["check", "m.wasm"][..], &["check", "m.wasm", "--verbose"]] {
        let ended = project.mandelbox(verbose).expect(2);
        assert!(
            ended.stderr.chars().all(|c| c == '\n' || !c.is_control()),
            "{:?}",
            ended.stderr
        );
    }
}
