//! Typed tasks that describe themselves: files that are whole packages, and what they say, which
//! nobody trusts.

use serde_json::{Value, json};

use crate::project::{Project, module};
use crate::typed::results;

/// A workflow that names the task by its source, as it was exported.
fn exported(project: &Project, source: &str, args: &Value) {
    project.workflow(&[json!({ "args": args, "meta": null, "task": { "source": source } })]);
}

#[test]
fn a_file_is_a_whole_package() {
    for isolation in ["thread", "process"] {
        let project = Project::new();
        let file = module("typed.wasm");
        exported(&project, "typed:typed_test", &json!({}));
        project
            .run(&["--tasks", &file, "--isolation", isolation])
            .expect(0);
        // The default of the args schema.
        assert_eq!(
            results(&project),
            json!([["input_paths", "metadata", "output_path", "steps"]])
        );
        let shown = &project.json("work/history.json")[0]["workflowtask"]["task"];
        assert_eq!(
            (&shown["name"], &shown["source"]),
            (&json!("Typed test"), &json!("typed:typed_test"))
        );
    }
    let project = Project::new();
    let file = module("typed.wasm");
    // Its meta asks for 64 MiB.
    exported(
        &project,
        "typed:typed_test",
        &json!({ "steps": [{ "do": "allocate_mib", "n": 70 }] }),
    );
    project
        .run(&["--tasks", &file])
        .expect(4)
        .reports(&["memory limit of 64 MiB"]);
    exported(
        &project,
        "typed:typed_test",
        &json!({ "steps": 1, "other": 2 }),
    );
    let ended = project
        .mandelbox(&["check", "workflow.json", "--tasks", &file])
        .expect(2);
    ended.reports(&[
        "/task_list/0/args/steps: does not match the task's `args_schema`",
        "other",
        "2 problems found",
    ]);
}

#[test]
fn check_shows_the_description_of_a_task() {
    let project = Project::new();
    let ended = project
        .mandelbox(&["check", &module("typed.wasm")])
        .expect(0);
    ended.reports(&[
        "kind      typed task",
        "task \"Typed test\"",
        "source    typed:typed_test",
        "types     Any -> Any",
        "meta      {\"mandelbox\":{\"memory\":\"64MiB\"}}",
        "steps  array of object  default [{\"do\":\"args\"}]",
        "mandelbox:task/host@0.1.0           3   linked",
        "no problem found",
    ]);
    let ended = project
        .mandelbox(&["check", &module("typed.wasm"), "--format", "json"])
        .expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let argument = &answer["module"]["arguments"][0];
    assert_eq!(argument["name"], "steps");
    assert_eq!(
        (&argument["type"], &argument["required"]),
        (&json!("array of object"), &json!(false))
    );
    assert_eq!(argument["default"], json!([{ "do": "args" }]));
    let ended = project
        .mandelbox(&["check", &module("trivial_typed.wasm"), "--format", "json"])
        .expect(0);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let found = &answer["module"];
    assert_eq!(
        (&found["kind"], &found["source"]),
        (&json!("typed"), &json!("trivial_typed:trivial"))
    );
    assert_eq!(found["task"]["input_type"], "Any");
}

#[test]
fn a_command_is_no_package_by_itself() {
    let project = Project::new();
    exported(&project, "swiss:swiss", &json!({}));
    let ended = project.run(&["--tasks", &module("swiss.wasm")]).expect(2);
    ended.reports(&[
        "swiss.wasm: this is a command",
        "cannot describe itself; name the folder of its package",
    ]);
    assert!(!project.path("work").exists());
}

/// A typed task whose `describe` has this body, with `text` at 1024 in its memory.
pub fn describing(body: &str, text: &str) -> Vec<u8> {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let length: String = (text.len() as u32)
        .to_le_bytes()
        .iter()
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let options =
        r#"(memory (core memory $guest "memory")) (realloc (core func $guest "realloc"))"#;
    let component = format!(
        r#"(component
          (core module $guest
            (memory (export "memory") 64)
            (data (i32.const 16) "\00\04\00\00{length}")
            (data (i32.const 1024) "{escaped}")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func (export "run") (param i32 i32) (result i32) (i32.const 64))
            (func (export "describe") (result i32) {body} (i32.const 16)))
          (core instance $guest (instantiate $guest))
          (func $run (param "args" string) (result (result (option string) (error string)))
            (canon lift (core func $guest "run") {options}))
          (func $describe (result string) (canon lift (core func $guest "describe") {options}))
          (export "run" (func $run)) (export "describe" (func $describe)))"#
    );
    wat::parse_str(component).expect("valid WAT")
}

#[test]
fn the_description_of_a_task_is_not_trusted() {
    let check = |body: &str, text: &str, expected: &[&str]| {
        let project = Project::new();
        project.write("t.wasm", describing(body, text));
        project
            .mandelbox(&["check", "t.wasm"])
            .expect(2)
            .reports(expected);
        exported(&project, "t:t", &json!({}));
        project
            .run(&["--tasks", "t.wasm"])
            .expect(2)
            .reports(expected);
        assert!(!project.path("work").exists());
    };
    let project_check = |text: &str, expected: &str| {
        let project = Project::new();
        project.write("t.wasm", describing("", text));
        project
            .mandelbox(&["check", "t.wasm"])
            .expect(2)
            .reports(&[expected]);
    };
    let good = r#"{"name": "t", "input_type": "Any", "output_type": "Any"}"#;
    check("", "{}", &["t.wasm: describe(): missing key `name`"]);
    check(
        "",
        "[]",
        &["t.wasm: describe(): must be an object, not an array"],
    );
    check(
        "",
        "hello",
        &["t.wasm: describe(): the task's description of itself is not valid JSON"],
    );
    check(
        "",
        &good.replace("\"Any\"", "7"),
        &["describe()/input_type: must be a string"],
    );
    check(
        "",
        &good.replace("\"t\"", "\"t\", \"meta\": []"),
        &["describe()/meta: must be an object"],
    );
    let deep = good.replace(
        "\"t\"",
        &format!("\"t\", \"meta\": {}1{}", "[".repeat(300), "]".repeat(300)),
    );
    check("", &deep, &["nested deeper than 256 levels"]);
    let schema = json!({ "properties": { "n": { "type": "integer", "default": "x" } } });
    let with_schema = good.replace("\"t\"", &format!("\"t\", \"args_schema\": {schema}"));
    project_check(
        &with_schema,
        "describe()/args_schema/properties/n/default: the default does not match",
    );
    check(
        "(unreachable)",
        good,
        &["does not describe itself: it trapped"],
    );
    check(
        "(i32.store (i32.const 20) (i32.const 1048577))",
        good,
        &["it returned a text larger than 1 MiB"],
    );
    check(
        "(i32.store (i32.const 20) (i32.const 1048576))",
        good,
        &["is not valid JSON"],
    );
    check(
        "(i32.store (i32.const 16) (i32.const -4))",
        good,
        &["does not describe itself: it trapped"],
    );
    // Another module than in its file, and a folder that nobody allowed.
    let asks = |own: Value| {
        good.replace(
            "\"t\"",
            &format!("\"t\", \"meta\": {}", json!({ "mandelbox": own })),
        )
    };
    let project = Project::new();
    project.write(
        "t.wasm",
        describing(
            "",
            &asks(json!({ "mounts": { "/etc": "/etc" }, "env": { "HOME": "x" } })),
        ),
    );
    exported(&project, "t:t", &json!({}));
    let ended = project.run(&["--tasks", "t.wasm"]).expect(2);
    ended.reports(&[
        "policy does not allow a package to mount `/etc`",
        "policy does not allow a package to set the variable `HOME`",
    ]);
    // Another executable than the file itself.
    project.write(
        "t.wasm",
        describing(
            "",
            &good.replace("\"t\"", "\"t\", \"executable\": \"/bin/sh\""),
        ),
    );
    project.run(&["--tasks", "t.wasm"]).expect(0);
}

#[test]
fn a_task_that_never_describes_itself_is_ended() {
    let project = Project::new();
    let body = "(loop $again (br $again))";
    project.write("t.wasm", describing(body, "{}"));
    project.write("policy.toml", "[default]\ntimeout = \"1s\"\n");
    let arguments = ["check", "t.wasm", "--policy", "policy.toml"];
    let ended = project.mandelbox(&arguments).expect(2);
    ended.reports(&["the task does not describe itself: it took longer than 1 s"]);
}
