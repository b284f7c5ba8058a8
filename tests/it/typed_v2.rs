//! Typed tasks in workflows of version 2. A copy of `task-examples/test-guests/typed` that is
//! called `v2_TYPE.wasm` describes a task of that type.

use std::fs;

use serde_json::{Value, json};

use crate::described::describing;
use crate::project::{Ended, ISOLATIONS, Project, module};

/// A project with a workflow of version 2.
fn project(task_list: &[Value]) -> Project {
    let project = Project::new();
    project.workflow(task_list);
    project
}

/// Copies the test guest under the name that makes it a task of version 2 of this type.
fn typed(project: &Project, task_type: &str) -> String {
    let name = format!("v2_{task_type}.wasm");
    fs::copy(module("typed.wasm"), project.path(&name)).expect("copied");
    name
}

/// An entry of a workflow with arguments for both kinds of calls.
fn entry(task_type: &str, single: Option<Value>, parallel: Option<Value>) -> Value {
    let args = |steps: Option<Value>| steps.map(|steps| json!({ "steps": steps }));
    json!({
        "task": { "pkg_name": "typed-v2", "version": "1.2.0", "name": task_type },
        "args_non_parallel": args(single),
        "args_parallel": args(parallel),
    })
}

fn run(project: &Project, more: &[&str]) -> Ended {
    let arguments = [
        "run",
        "workflow.json",
        "--zarr-dir",
        "zarr",
        "--work-dir",
        "work",
    ];
    project.mandelbox(&[&arguments, more].concat())
}

#[test]
fn one_component_serves_both_sides_of_a_compound_task() {
    for isolation in ISOLATIONS {
        let images = json!([{ "do": "images", "names": ["a", "b"] }]);
        let project = project(&[
            entry(
                "converter_compound",
                Some(images.clone()),
                Some(images.clone()),
            ),
            entry("parallel", None, Some(images)),
        ]);
        let (compound, parallel) = (
            typed(&project, "converter_compound"),
            typed(&project, "parallel"),
        );
        let more = [
            "--tasks",
            &compound,
            "--tasks",
            &parallel,
            "--isolation",
            isolation,
        ];
        run(&project, &more).expect(0);
        let zarr = project.path("zarr");
        let images = project.json("work/dataset.json")["images"].clone();
        let expected = ["a", "b"].map(|name| {
            json!({
                "zarr_url": zarr.join(name),
                "attributes": { "from": name, "seen": true },
                "types": { "typed": true },
            })
        });
        let images = images.as_array().expect("an array").iter().map(|image| {
            json!({
                "zarr_url": image["zarr_url"],
                "attributes": image["attributes"],
                "types": image["types"],
            })
        });
        assert_eq!(images.collect::<Vec<_>>(), expected);
        // Their arguments are kept as those of commands.
        let args = project.json("work/0_converter_compound/non_par--args.json");
        assert_eq!(args["zarr_dir"], json!(zarr));
        assert!(args.get("zarr_url").is_none());
        let args = project.json("work/0_converter_compound/par-000000-0000001-args.json");
        assert_eq!(args["zarr_url"], json!(zarr.join("b")));
        assert_eq!(args["init_args"], json!({ "from": "b" }));
    }
}

#[test]
fn every_type_of_task_can_be_typed() {
    let keys = |task_type: &str, side: &str| {
        let steps = Some(json!([{ "do": "none" }]));
        let (single, parallel) = match side {
            "non_parallel" => (steps, None),
            _ => (None, steps),
        };
        let project = project(&[entry(task_type, single, parallel)]);
        let image = json!({ "zarr_url": project.path("zarr/a") });
        let dataset = json!({ "name": "d", "zarr_dir": project.path("zarr"), "images": [image] });
        project.write("dataset.json", dataset.to_string());
        let task = typed(&project, task_type);
        let arguments = [
            "run",
            "workflow.json",
            "--dataset",
            "dataset.json",
            "--work-dir",
            "work",
            "--tasks",
            &task,
        ];
        project.mandelbox(&arguments).expect(0);
        let stem = match side {
            "non_parallel" => "non_par-",
            _ => "par-000000-0000000",
        };
        let args = project.json(&format!("work/0_{task_type}/{stem}-args.json"));
        let args = args.as_object().expect("an object");
        let mut keys: Vec<_> = args.keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("parallel", "parallel"), ["steps", "zarr_url"]);
    assert_eq!(
        keys("non_parallel", "non_parallel"),
        ["steps", "zarr_dir", "zarr_urls"]
    );
    assert_eq!(
        keys("converter_non_parallel", "non_parallel"),
        ["steps", "zarr_dir"]
    );
}

#[test]
fn outputs_arguments_and_limits_are_those_of_version_2() {
    let check = |steps: Value, code: i32, texts: &[&str]| {
        let project = project(&[entry("converter_non_parallel", Some(steps), None)]);
        let task = typed(&project, "converter_non_parallel");
        run(&project, &["--tasks", &task])
            .expect(code)
            .reports(texts);
        project
    };
    let returned = |value: Value| json!([{ "do": "return", "text": value.to_string() }]);
    let images = json!({ "image_list_updates": [{ "zarr_url": 7 }] });
    check(returned(images), 3, &["invalid output"]);
    check(returned(json!({ "typed": [] })), 3, &["invalid output"]);
    check(
        json!([{ "do": "error", "message": "no plate" }]),
        3,
        &["failed: no plate"],
    );
    check(
        json!([{ "do": "allocate_mib", "n": 70 }]),
        4,
        &["memory limit of 64 MiB"],
    );
    let project = check(json!(7), 2, &["/task_list/0/args_non_parallel/steps"]);
    assert!(!project.path("work").exists());
    // There is no metadata to ask for, and log lines work as in version 1.
    let steps = json!([
        { "do": "log", "level": "warn", "message": "one plane is empty" },
        { "do": "metadata", "key": "plate" },
        { "do": "none" },
    ]);
    check(steps, 0, &["one plane is empty"]);
}

/// A typed task of version 2 that describes itself with this text and returns nothing.
fn single(more: &str) -> Vec<u8> {
    let text = format!(r#"{{"name": "t", "type": "converter_non_parallel"{more}}}"#);
    describing("", &text)
}

#[test]
fn a_module_next_to_the_workflow_is_found_by_the_name_of_its_package() {
    let task = |pkg_name: &str| json!({ "task": { "pkg_name": pkg_name, "name": "t" } });
    for (pkg_name, file) in [
        ("count", "count.wasm"),
        ("count-cells", "count-cells.wasm"),
        ("count-cells", "count_cells.wasm"),
    ] {
        let project = project(&[task(pkg_name)]);
        run(&project, &[])
            .expect(2)
            .reports(&["no task package was given"]);
        project.write(file, single(""));
        run(&project, &[]).expect(0);
    }
    let project = project(&[task("../count")]);
    project.write("in/count.wasm", single(""));
    run(&project, &[])
        .expect(2)
        .reports(&["no task package was given"]);
}

#[test]
fn versions_are_found_from_the_keys_of_descriptions() {
    let v2 = json!({ "task": { "pkg_name": "p", "version": "1", "name": "t" } });
    let v1 = json!({ "args": {}, "meta": null, "task": { "source": "t:t" } });
    let check = |description: &str, in_v1: Option<&str>, in_v2: Option<&str>| {
        let project = Project::new();
        project.write("t.wasm", describing("", description));
        let refused = |ended: Ended, text: Option<&str>| match text {
            None => drop(ended.expect(0)),
            Some(text) => {
                drop(ended.expect(2).reports(&["t.wasm: describe()", text]));
                assert!(!project.path("work").exists());
            }
        };
        project.workflow(std::slice::from_ref(&v1));
        refused(project.run(&["--tasks", "t.wasm"]), in_v1);
        if project.path("work").exists() {
            fs::remove_dir_all(project.path("work")).expect("removed");
        }
        project.workflow(std::slice::from_ref(&v2));
        refused(run(&project, &["--tasks", "t.wasm"]), in_v2);
    };
    let of_v1 = r#""input_type": "Any", "output_type": "Any""#;
    let of_v2 = r#""type": "converter_non_parallel", "pkg_name": "p", "version": "1""#;
    let entry = |keys: &str| format!(r#"{{"name": "t", {keys}}}"#);
    check(&entry(of_v1), None, Some("describes a task of Fractal v1"));
    check(&entry(of_v2), Some("describes a task of Fractal v2"), None);
    check(&entry(&format!("{of_v1}, {of_v2}")), None, None);
    let unknown = entry(r#""type": "converter""#);
    check(
        &unknown,
        Some("describes a task of Fractal v2"),
        Some("unknown type"),
    );
    check(
        "{}",
        Some("missing key `name`"),
        Some("describes a task of Fractal v1"),
    );
    check("[]", Some("must be an object"), Some("must be an object"));
}

#[test]
fn a_typed_task_of_version_2_is_checked_and_tested() {
    let project = Project::new();
    let module = typed(&project, "parallel");
    project
        .mandelbox(&["check", &module])
        .expect(0)
        .reports(&["task \"parallel\"", "no problem found"]);
    let args = json!({ "zarr_url": "/zarr_dir/a", "steps": [{ "do": "images", "names": ["b"] }] });
    project.write("tests/one/args.json", args.to_string());
    project
        .mandelbox(&["test", &module])
        .expect(3)
        .reports(&["one"]);
    project.mandelbox(&["test", &module, "--update"]).expect(0);
    let output = project.json("tests/one/expected/output.json");
    assert_eq!(
        output["image_list_updates"][0]["zarr_url"],
        json!("/zarr_dir/a"),
        "{output}"
    );
    project.mandelbox(&["test", &module]).expect(0);
    // A folder of typed tasks needs no manifest.
    project.mandelbox(&["test", "."]).expect(0);
    fs::copy(
        crate::project::module("trivial_typed.wasm"),
        project.path("v1.wasm"),
    )
    .expect("copied");
    project
        .mandelbox(&["test", "."])
        .expect(2)
        .reports(&["contains tasks of versions 1 and 2 of Fractal"]);
}
