//! The calls of a run: which ones there are, their order, and their data.

use serde_json::{Value, json};

use super::swiss;
use crate::project::{Project, module, parallel_task, task};

#[test]
fn a_component_is_called_like_a_core_module() {
    let project = Project::new();
    let metadiff = json!({ "metadiff": { "well": ["A", "B"] } });
    project.workflow(&[
        task(0, "one", &module("swiss.p2.wasm"), metadiff),
        parallel_task(
            1,
            "two",
            &module("swiss.p2.wasm"),
            "well",
            json!({ "echo": ["component"] }),
        ),
    ]);
    project.run(&[]).expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!([{ "component": "A" }, { "component": "B" }])
    );
}

#[test]
fn a_component_that_fails_has_exit_code_1() {
    let project = Project::new();
    project.workflow(&[task(
        0,
        "one",
        &module("swiss.p2.wasm"),
        json!({ "stderr": "why\n", "exit": 7 }),
    )]);
    project
        .run(&[])
        .expect(3)
        .reports(&["exited with code 1", "| why"]);
}

#[test]
fn colliding_components_are_called_once_each() {
    let project = Project::new();
    let names = ["a/b", "a b", "A.B"];
    let components: Vec<_> = (0..1000).map(|index| names[index % 3]).collect();
    project.write("metadata.json", json!({ "c": components }).to_string());
    project.workflow(&[parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "echo": ["component"] }),
    )]);
    project
        .run(&["--metadata", "metadata.json", "--jobs", "4"])
        .expect(0);
    let expected: Vec<_> = components
        .iter()
        .map(|component| json!({ "component": component }))
        .collect();
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        Value::Array(expected)
    );
    let files: Vec<_> = project
        .tree()
        .into_iter()
        .filter(|path| path.ends_with(".args.json"))
        .collect();
    assert_eq!(files.len(), 1000);
    for (index, path) in files.iter().enumerate() {
        let (args, metadiff) = (
            project.json(path),
            project.json(&path.replace(".args.", ".metadiff.")),
        );
        assert_eq!(args["component"], metadiff["echo"]["component"], "{index}");
    }
}

#[test]
fn an_empty_component_list_runs_nothing() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": [] }).to_string());
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", json!({}))]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    let item = &project.json("work/history.json")[0];
    assert_eq!(
        item["parallelization"],
        json!({ "parallelization_level": "c", "component_list": [] })
    );
    assert_eq!(item["mandelbox"]["n_components"], 0);
}

#[test]
fn calls_run_in_a_sliding_window() {
    let project = Project::new();
    let sleeps: Vec<_> = (0..8)
        .map(|index| if index == 0 { 4000 } else { 10 })
        .collect();
    let components: Vec<_> = (0..8).map(|index| format!("c{index}")).collect();
    let per_component: serde_json::Map<_, _> = components
        .iter()
        .cloned()
        .zip(sleeps.iter().map(|ms| json!({ "sleep_ms": ms })))
        .collect();
    project.write("metadata.json", json!({ "c": components }).to_string());
    let mut par = parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "per_component": per_component }),
    );
    par["meta"] = json!({ "parallel_tasks_per_job": 2 });
    project.workflow(&[par]);
    project
        .run(&["--metadata", "metadata.json", "--jobs", "8"])
        .expect(0);
    let events = project.events();
    let position = |kind: &str, item: &str| {
        events
            .iter()
            .position(|event| event["event"] == kind && event["item"] == item)
            .expect("recorded")
    };
    // With a barrier after each two calls, the third would wait for the first.
    assert!(position("call_started", "c2") < position("call_finished", "c0"));
    let mut running: i32 = 0;
    for event in &events {
        match event["event"].as_str() {
            Some("call_started") => running += 1,
            Some("call_finished") => running -= 1,
            _ => {}
        }
        assert!(running <= 2, "three calls at a time");
    }
}

#[test]
fn one_failure_stops_new_calls() {
    let check = |more: &[&str], expected_calls: std::ops::RangeInclusive<usize>| {
        let project = Project::new();
        let components: Vec<_> = (0..20).map(|index| format!("c{index}")).collect();
        project.write("metadata.json", json!({ "c": components }).to_string());
        let args = json!({ "sleep_ms": 20, "per_component": { "c0": { "exit": 1, "sleep_ms": 0 }, "c1": { "exit": 1, "sleep_ms": 0 } } });
        project.workflow(&[
            parallel_task(0, "par", &swiss(), "c", args),
            task(1, "never", &swiss(), json!({})),
        ]);
        let mut arguments = vec!["--metadata", "metadata.json", "--jobs", "2"];
        arguments.extend(more);
        project
            .run(&arguments)
            .expect(3)
            .reports(&["component \"c0\"", "component \"c1\""]);
        let started = project
            .events()
            .iter()
            .filter(|event| event["event"] == "call_started")
            .count();
        assert!(expected_calls.contains(&started), "{started} calls started");
        let left = std::fs::read_dir(project.path("work/1_never"))
            .expect("made before the run")
            .count();
        assert_eq!(left, 0, "the task after a failed one never runs");
        assert!(!project.path("work/metadata.json").exists());
    };
    check(&[], 2..=3);
    check(&["--keep-going"], 20..=20);
}

#[test]
fn the_dataset_flows_through_an_exported_workflow_with_a_package() {
    let project = Project::new();
    let manifest = json!({
        "manifest_version": "1",
        "has_args_schemas": true,
        "args_schema_version": "pydantic_v1",
        "task_list": [{
            "name": "Swiss Task", "executable": "swiss.wasm", "input_type": "image", "output_type": "zarr",
            "meta": { "parallel_tasks_per_job": 3 },
            "args_schema": {
                "type": "object", "additionalProperties": false, "required": ["input_paths", "echo"],
                "properties": { "input_paths": {}, "echo": { "type": "array" }, "size": { "type": "integer", "default": 7 } },
            },
        }],
    });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    std::fs::copy(swiss(), project.path("package/swiss.wasm")).expect("copied");
    project.workflow(&[
        json!({ "args": { "echo": ["size"] }, "task": { "source": "package:swiss_task" } }),
    ]);
    project
        .run(&[
            "--tasks",
            "package",
            "--input-type",
            "image",
            "--output-type",
            "zarr",
        ])
        .expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!({ "size": 7 })
    );
    let item = project.json("work/history.json")[0]["workflowtask"].clone();
    assert_eq!(item["args"], json!({ "size": 7, "echo": ["size"] }));
    assert_eq!(item["meta"], json!({ "parallel_tasks_per_job": 3 }));
    assert_eq!(item["task"]["source"], "package:swiss_task");

    let wrong = project.mandelbox(&[
        "run",
        "workflow.json",
        "--tasks",
        "package",
        "--output",
        "out",
        "--input-type",
        "text",
    ]);
    wrong
        .expect(2)
        .reports(&["Incompatible types `image` of workflow `test` and `text`"]);
}

#[test]
fn metadata_keys_keep_args_small() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["A"], "big": "x", "wanted": 1 }).to_string(),
    );
    let mut par = parallel_task(0, "par", &swiss(), "c", json!({ "echo": ["metadata"] }));
    par["meta"] = json!({ "mandelbox": { "metadata_keys": ["wanted"] } });
    project.workflow(&[par]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!([{ "metadata": { "wanted": 1 } }])
    );
}

#[test]
fn a_metadiff_with_the_librarys_own_key_ends_its_call_only() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["bad", "good"] }).to_string());
    let raw = "{\"$serde_json::private::Number\":".repeat(20_000);
    let args = json!({ "metadiff": { "v": 1 }, "per_component": { "bad": { "metadiff_raw": raw, "metadiff": null } } });
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", args)]);
    let ended = project
        .run(&["--metadata", "metadata.json", "--keep-going"])
        .expect(3);
    ended.reports(&[
        "component \"bad\" returned an invalid output",
        "nested deeper than 256 levels",
    ]);
    assert!(project.read("work/events.jsonl").contains("run_finished"));
}

#[test]
fn deep_metadata_can_start_the_next_run() {
    let project = Project::new();
    let deep = format!("{{\"d\": {}{}}}", "[".repeat(255), "]".repeat(255));
    project.write("metadata.json", json!({ "c": ["a"] }).to_string());
    project.workflow(&[parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "metadiff_raw": deep }),
    )]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "w2",
        "--metadata",
        "work/metadata.json",
    ];
    project.mandelbox(&arguments).expect(0);
}
