//! Args and their schemas: what is filled in, what does not fit, and schemas that are no good.

use std::io::{Read, Seek};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::described::describing;
use crate::documents::check_project;
use crate::project::{Ended, Project, module, peak_memory_bytes, task};

#[test]
fn args_must_fit_the_schema() {
    let project = Project::new();
    let mut entry = task(
        0,
        "t",
        &module("swiss.wasm"),
        json!({ "size": "big", "mode": "c", "extra": 1, "component": 1 }),
    );
    entry["task"]["args_schema"] = json!({
        "type": "object", "additionalProperties": false, "required": ["input_paths", "size", "missing"],
        "properties": {
            "size": { "type": "integer" },
            "mode": { "enum": ["a", "b"] },
            "missing": { "type": "string" },
        },
    });
    let mut broken = task(1, "u", &module("swiss.wasm"), json!({}));
    broken["task"]["args_schema"] = json!({ "type": "no such type" });
    let mut reference = task(2, "v", &module("swiss.wasm"), json!({}));
    reference["task"]["args_schema"] = json!({ "$ref": "file:///etc/passwd" });
    project.workflow(&[entry, broken, reference]);
    check_project(
        &project,
        &[],
        &[
            "/task_list/0/args/size: does not match",
            "/task_list/0/args/mode: does not match",
            "\"missing\" is a required property",
            "'extra' was unexpected",
            "/task_list/1/task/args_schema: is not a valid JSON Schema",
            "/task_list/2/task/args_schema: is not a valid JSON Schema",
        ],
    );
}

#[test]
fn schemas_of_both_pydantics_are_read() {
    let project = Project::new();
    let mut v1 = task(0, "t", &module("swiss.wasm"), json!({ "range": [1, 2] }));
    v1["task"]["args_schema"] = json!({
        "type": "object",
        "properties": { "range": { "type": "array", "items": [{ "$ref": "#/definitions/N" }, { "type": "integer" }] } },
        "definitions": { "N": { "type": "integer" } },
    });
    let mut v2 = task(1, "u", &module("swiss.wasm"), json!({ "range": [1, 2] }));
    v2["task"]["args_schema"] = json!({
        "type": "object",
        "properties": { "range": { "type": "array", "prefixItems": [{ "$ref": "#/$defs/N" }] } },
        "$defs": { "N": { "type": "string" } },
    });
    project.workflow(&[v1, v2]);
    check_project(
        &project,
        &[],
        &["/task_list/1/args/range/0: does not match", "1 problem"],
    );
}

/// A null that a schema does not name counts as missing where the member is optional, and reaches
/// the task as it is.
#[test]
fn null_is_an_absent_optional_argument() {
    let project = Project::new();
    let args = json!({ "metadiff": {}, "start": null, "names": null, "window": { "end": null }, "echo": ["start", "window"] });
    let mut entry = task(0, "t", &module("swiss.wasm"), args);
    entry["task"]["args_schema"] = json!({
        "type": "object", "additionalProperties": false, "required": ["must"],
        "properties": {
            "metadiff": { "type": "object" },
            "echo": { "type": "array" },
            "start": { "type": "integer", "minimum": 0 },
            "names": { "type": "array", "items": { "type": "string" } },
            "window": { "anyOf": [{ "$ref": "#/definitions/Window" }, { "type": "string" }] },
            "must": { "type": "integer" },
        },
        "definitions": { "Window": { "type": "object", "properties": { "end": { "type": "integer" } } } },
    });
    let mut required = entry.clone();
    required["args"]["must"] = json!(null);
    project.workflow(&[required]);
    check_project(
        &project,
        &[],
        &[
            "/task_list/0/args/must: does not match the task's `args_schema`: null is not of type",
            "1 problem",
        ],
    );
    entry["args"]["must"] = json!(1);
    project.workflow(&[entry.clone()]);
    let ended = project.run(&[]).expect(0);
    ended.reports(&[
        "warning: ",
        "/task_list/0/args/names: the `args_schema` does not allow null for `names`, `start`, \
         `window/end`",
    ]);
    let echoed = project.json("work/metadata.json")["echo"].clone();
    assert_eq!(
        (&echoed["start"], &echoed["window"]),
        (&json!(null), &json!({ "end": null }))
    );
    // In a list a null is no missing member.
    entry["args"]["names"] = json!(["a", null]);
    std::fs::remove_dir_all(project.path("work")).expect("removed");
    project.workflow(&[entry]);
    check_project(
        &project,
        &[],
        &["/task_list/0/args/names/1: does not match", "1 problem"],
    );
}

/// Cellpose of fractal-tasks-core 0.14.3 has nulls inside a default of its own.
#[test]
fn null_inside_a_default_of_the_package_is_no_problem() {
    let project = Project::new();
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    let schema = json!({
        "type": "object",
        "properties": { "normalize": {
            "default": { "type": "default", "lower": null }, "allOf": [{ "$ref": "#/definitions/Normalizer" }],
        } },
        "definitions": { "Normalizer": { "type": "object", "properties": {
            "type": { "type": "string" }, "lower": { "type": "number", "minimum": 0 },
        } } },
    });
    let task = json!({ "name": "t", "executable": "../m.wasm", "input_type": "a", "output_type": "b", "args_schema": schema });
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": [task] }).to_string(),
    );
    let reported = "args_schema/properties/normalize/default/lower: the `args_schema` does not allow \
        null for `normalize/lower`";
    project
        .mandelbox(&["check", "p"])
        .expect(0)
        .reports(&["warning: ", reported]);
    project.workflow(&[json!({ "args": { "echo": ["normalize"] }, "task": { "source": "p:t" } })]);
    project
        .run(&["--tasks", "p"])
        .expect(0)
        .reports(&["warning: "]);
    let echoed = project.json("work/metadata.json")["echo"].clone();
    assert_eq!(
        echoed["normalize"],
        json!({ "type": "default", "lower": null })
    );
}

#[test]
fn the_draft_is_known_by_its_keywords() {
    let project = Project::new();
    let entry = |order: u64, schema: Value| {
        let mut entry = task(
            order,
            &format!("t{order}"),
            &module("swiss.wasm"),
            json!({ "range": [1, "x"] }),
        );
        entry["task"]["args_schema"] = schema;
        entry
    };
    let integers = json!([{ "type": "integer" }, { "type": "integer" }]);
    project.workflow(&[
        entry(0, json!({ "properties": { "range": { "prefixItems": integers } } })),
        entry(1, json!({ "properties": { "range": { "items": integers } } })),
        entry(2, json!({ "properties": { "range": { "items": integers } }, "$defs": {} })),
        entry(3, json!({ "properties": { "range": { "items": integers } }, "definitions": {} })),
        entry(4, json!({ "properties": { "range": { "contains": { "type": "string" }, "maxContains": 0 } } })),
        // A property of that name is no keyword.
        entry(5, json!({ "properties": { "prefixItems": { "items": integers } } })),
    ]);
    let places: Vec<_> = (0..4)
        .map(|i| format!("/task_list/{i}/args/range/1: does not match"))
        .collect();
    let mut texts: Vec<_> = places.iter().map(String::as_str).collect();
    texts.extend(["/task_list/4/args/range: does not match", "5 problems"]);
    check_project(&project, &[], &texts);
}

/// Schemas that ask for an endless stack, for years or for gigabytes. Each is refused, by `run` and
/// by `check`.
#[test]
fn a_schema_that_asks_for_too_much_is_refused() {
    let steps = "takes too long to check";
    let link = |i: usize| json!({ "$ref": format!("#/d/{i}") });
    let chain = |n: usize, link_to: &dyn Fn(usize) -> Value| {
        let mut links: Map<String, Value> =
            (0..n).map(|i| (i.to_string(), link_to(i + 1))).collect();
        links.insert(n.to_string(), json!({ "type": "integer" }));
        json!({ "d": links, "properties": { "x": { "$ref": "#/d/0" } } })
    };
    let both = |keyword: &'static str| move |i: usize| json!({ keyword: [link(i), link(i)] });
    let strings = |n: usize| json!(vec![1; n]);
    let big: Vec<_> = (0..2000).map(|i| json!({ "const": i })).collect();
    let cases = [
        (chain(5000, &link), json!(1), "deeper than 2000 levels"),
        (chain(12_000, &link), json!(1), steps),
        (chain(200_000, &link), json!(1), steps),
        (
            chain(3000, &|i| json!({ "allOf": [link(i)] })),
            json!(1),
            "deeper than 2000 levels",
        ),
        (chain(40, &both("allOf")), json!("no"), steps),
        (chain(40, &both("allOf")), json!(1), steps),
        (chain(40, &both("anyOf")), json!("no"), steps),
        (chain(40, &both("oneOf")), json!("no"), steps),
        (
            chain(
                40,
                &|i| json!({ "if": link(i), "then": link(i), "else": link(i) }),
            ),
            json!(1),
            steps,
        ),
        (
            chain(
                40,
                &|i| json!({ "properties": { "a": {} }, "unevaluatedProperties": link(i), "allOf": [link(i)] }),
            ),
            json!({ "b": 1 }),
            steps,
        ),
        (json!({ "$ref": "#" }), json!(1), "deeper than 2000 levels"),
        (
            json!({ "properties": { "x": { "pattern": "(((a{1000}){1000}){1000}){1000}" } } }),
            json!("a"),
            "too large to compile",
        ),
        (
            json!({ "properties": { "x": { "pattern": "^((x{0,90}){0,100}){0,10}$" } } }),
            json!("x".repeat(200_000)),
            steps,
        ),
        (
            json!({ "patternProperties": (0..3000).map(|i| (format!("^(\\p{{L}}{{50}}){i}"), json!({}))).collect::<Map<_, _>>() }),
            json!(1),
            steps,
        ),
        (
            json!({ "properties": { "x": { "items": { "type": "string", "enum": ["a".repeat(300)] } } } }),
            strings(300_000),
            "/args/x/0: does not match",
        ),
        (
            json!({ "properties": { "x": { "items": { "not": { "anyOf": big } } } } }),
            strings(20_000),
            steps,
        ),
        (
            json!({ "properties": { "x": { "items": { "anyOf": [{ "type": "string" }, { "type": "null" }] } } } }),
            strings(150_000),
            "to locate the mismatch",
        ),
        (
            json!({ "properties": { "x": { "multipleOf": 1e-300 } } }),
            json!(1e300),
            "0 problems",
        ),
        (
            json!({ "$id": "http://x/", "$defs": { "a": { "$id": "http://x/a" } } }),
            json!(1),
            "`$id` below its root",
        ),
    ];
    for (schema, x, expected) in cases {
        let project = Project::new();
        let mut entry = task(0, "bomb", &module("swiss.wasm"), json!({ "x": x }));
        let shown = schema.to_string().chars().take(100).collect::<String>();
        entry["task"]["args_schema"] = schema;
        project.workflow(&[entry]);
        if expected == "0 problems" {
            watched(project.command(&["check", "workflow.json"])).expect(0);
            continue;
        }
        for arguments in [
            &["check", "workflow.json"][..],
            &["run", "workflow.json", "--output", "out", "--dry-run"],
        ] {
            let ended = watched(project.command(arguments)).expect(2);
            assert!(
                ended.stderr.contains(expected),
                "{shown}: {expected}: {}",
                ended.stderr
            );
            assert!(ended.stderr.len() < 4000, "{shown}: {}", ended.stderr.len());
        }
    }
}

/// What a schema may take is for the whole workflow, and for a package.
#[test]
fn many_schemas_may_take_no_more_than_one() {
    let levels = |n: usize| {
        let link = |i: usize| json!({ "allOf": [{ "$ref": format!("#/d/{}", i + 1) }, { "$ref": format!("#/d/{}", i + 1) }] });
        let mut links: Map<String, Value> = (0..n).map(|i| (i.to_string(), link(i))).collect();
        links.insert(n.to_string(), json!({ "type": "integer" }));
        json!({ "d": links, "properties": { "x": { "$ref": "#/d/0", "default": 1 } } })
    };
    let project = Project::new();
    let entry = |order: u64| {
        let mut entry = task(
            order,
            &format!("t{order}"),
            &module("swiss.wasm"),
            json!({ "x": 1 }),
        );
        entry["task"]["args_schema"] = levels(13);
        entry
    };
    project.workflow(&(0..200).map(entry).collect::<Vec<_>>());
    let reported = "/task_list/199/task/args_schema: takes too long to check: ";
    watched(project.command(&["check", "workflow.json"]))
        .expect(2)
        .reports(&[reported, "(task \"t199\")"]);
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    let task = |i: usize| json!({ "name": format!("t{i}"), "executable": "../m.wasm", "input_type": "a", "output_type": "b", "args_schema": levels(13) });
    let tasks: Vec<_> = (0..200).map(task).collect();
    project.write(
        "p/__FRACTAL_MANIFEST__.json",
        json!({ "manifest_version": "1", "task_list": tasks }).to_string(),
    );
    watched(project.command(&["check", "p"]))
        .expect(2)
        .reports(&["/task_list/199/args_schema", "takes too long to check"]);
}

/// Honest schemas and args, large and recursive ones, pass.
#[test]
fn large_and_recursive_schemas_are_checked() {
    let project = Project::new();
    let tree = (0..100).fold(
        json!({ "value": 1 }),
        |tree, i| json!({ "value": i, "children": [tree, { "value": 0 }] }),
    );
    let broken = (0..100).fold(
        json!({ "value": "x" }),
        |tree, i| json!({ "value": i, "children": [tree] }),
    );
    let properties: Map<String, Value> = (0..500)
        .map(|i| {
            (
                format!("p{i}"),
                json!({ "type": "string", "pattern": "^[a-z]{1,20}_[0-9]+$", "default": "a_1" }),
            )
        })
        .collect();
    let schema = json!({
        "$defs": { "Tree": { "type": "object", "required": ["value"], "properties": {
            "value": { "type": "integer" }, "children": { "type": "array", "items": { "$ref": "#/$defs/Tree" } },
        } } },
        "properties": {
            "tree": { "anyOf": [{ "$ref": "#/$defs/Tree" }, { "type": "null" }] },
            "numbers": { "type": "array", "items": { "type": "integer" } },
            "many": { "properties": properties },
        },
    });
    let with = |tree: &Value| {
        let many: Map<String, Value> = (0..500)
            .map(|i| (format!("p{i}"), json!("abc_12")))
            .collect();
        let args = json!({ "tree": tree, "numbers": vec![7; 100_000], "many": many });
        let mut entry = task(0, "t", &module("swiss.wasm"), args);
        entry["task"]["args_schema"] = schema.clone();
        project.workflow(&[entry]);
        watched(project.command(&["run", "workflow.json", "--output", "out", "--dry-run"]))
    };
    with(&tree).expect(0);
    let location = format!(
        "/task_list/0/args/tree{}/value: ",
        "/children/0".repeat(100)
    );
    with(&broken)
        .expect(2)
        .reports(&[&location, "\"x\" is not of type \"integer\"", "1 problem"]);

    // A chain of references that is just short enough for the stack.
    let mut links: Map<String, Value> = (0..1900)
        .map(|i| (i.to_string(), json!({ "$ref": format!("#/d/{}", i + 1) })))
        .collect();
    links.insert(
        "1900".to_owned(),
        json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }] }),
    );
    for (x, code) in [(json!(1), 0), (json!("x"), 2)] {
        let mut entry = task(0, "t", &module("swiss.wasm"), json!({ "x": x }));
        entry["task"]["args_schema"] =
            json!({ "d": links, "properties": { "x": { "$ref": "#/d/0" } } });
        project.workflow(&[entry]);
        watched(project.command(&["check", "workflow.json"])).expect(code);
    }
}

/// A task that describes itself by a chain of references.
#[test]
fn a_described_schema_is_bounded_too() {
    let n = 12_000;
    let mut links: Map<String, Value> = (0..n)
        .map(|i| {
            (
                format!("{i:x}"),
                json!({ "$ref": format!("#/d/{:x}", i + 1) }),
            )
        })
        .collect();
    links.insert(format!("{n:x}"), json!({}));
    let schema = json!({ "d": links, "$ref": "#/d/0" });
    // The type of each property is a long text.
    let options: Vec<_> = (0..6)
        .map(|_| json!({ "const": "x".repeat(100_000) }))
        .collect();
    let mut many: Map<String, Value> = (0..8_000)
        .map(|i| (format!("{i:x}"), json!({ "$ref": "#/d" })))
        .collect();
    many.insert("last".to_owned(), json!({}));
    let wide = json!({ "d": { "anyOf": options }, "properties": many });
    for (schema, code) in [(schema, 2), (wide, 0)] {
        let project = Project::new();
        let text = json!({ "name": "t", "input_type": "Any", "output_type": "Any", "args_schema": schema }).to_string();
        assert!(text.len() < 1 << 20);
        project.write("t.wasm", describing("", &text));
        let ended = watched(project.command(&["check", "t.wasm"])).expect(code);
        assert_eq!(
            ended
                .stderr
                .contains("describe()/args_schema: takes too long to check: "),
            code == 2,
            "{}",
            ended.stderr
        );
    }
}

/// Runs a command, which must end with a few seconds of work and a few hundred MiB.
#[track_caller]
fn watched(mut command: Command) -> Ended {
    /// Work, and not time, which other tests take too.
    const MAX_CPU: Duration = Duration::from_secs(5);
    const MAX_BYTES: u64 = 400 << 20;
    const CLOCK_TICK: Duration = Duration::from_millis(10);
    let mut output = tempfile::tempfile().expect("a file");
    command
        .stdout(output.try_clone().expect("a file"))
        .stderr(output.try_clone().expect("a file"));
    let started = Instant::now();
    let mut child = command.spawn().expect("started");
    let id = child.id();
    let watch = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name of the program, in parentheses, is the second field, and the 14th and 15th are
        // user and system time.
        let fields = stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .skip(11)
            .take(2);
        let ticks: u32 = fields.filter_map(|field| field.parse::<u32>().ok()).sum();
        (peak_memory_bytes(id), ticks * CLOCK_TICK)
    };
    let (mut peak_bytes, mut cpu) = (0, Duration::ZERO);
    let ended = loop {
        let now: (u64, Duration) = watch();
        (peak_bytes, cpu) = (now.0.max(peak_bytes), now.1.max(cpu));
        if peak_bytes > MAX_BYTES || cpu > MAX_CPU {
            break None;
        }
        if let Some(ended) = child.try_wait().expect("waited for") {
            break Some(ended);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let Some(ended) = ended else {
        child.kill().expect("killed");
        panic!("it had {cpu:?} and {peak_bytes} bytes");
    };
    let mut text = String::new();
    output.rewind().expect("at its start");
    output.read_to_string(&mut text).expect("read");
    Ended {
        code: ended.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: text,
        elapsed: started.elapsed(),
    }
}
