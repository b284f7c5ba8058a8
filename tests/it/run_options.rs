//! Options of `run` that change a run without editing its documents, for both versions of Fractal.

use serde_json::{Value, json};

use crate::fractal_v2::package::{
    Package, entry, manifest, swiss, text_of, write_dataset, write_workflow,
};
use crate::project::{Ended, Project, finish_with_input, module, parallel_task, task};

/// A workflow of version 1 whose second task returns its arguments.
fn project_v1() -> Project {
    let project = Project::new();
    let list = json!({ "metadiff": { "well": ["p.zarr/A/1", "p.zarr/A/2", "p.zarr/B/1"] } });
    let echo = json!({ "echo": ["component", "size", "label"], "size": 1, "label": { "a": 1 } });
    project.workflow(&[
        task(0, "List v1.0", &module("swiss.wasm"), list),
        parallel_task(1, "measure", &module("swiss.wasm"), "well", echo),
    ]);
    project
}

/// What the calls of the second task returned.
fn echoed(project: &Project) -> Value {
    project.json("work/metadata.json")["echo"].clone()
}

#[test]
fn arguments_are_set_by_task_and_path() {
    let project = project_v1();
    let set = [
        "--set",
        "List v1.0.metadiff={\"well\": [\"x\"]}",
        "--set",
        "1.size=2.50",
        "--set",
        "measure.label.b=text",
    ];
    project.run(&set).expect(0);
    let expected = json!([{ "component": "x", "size": 2.5, "label": { "a": 1, "b": "text" } }]);
    assert_eq!(
        echoed(&project).to_string(),
        expected.to_string().replace("2.5", "2.50")
    );
    let project = project_v1();
    project
        .run(&["--set", "other.size=1", "--set", "1.size.x=1"])
        .expect(2)
        .reports(&[
            "--set other.size: no task has the name \"other\"",
            "--set 1.size.x: `size` is 1, not an object",
        ]);
    assert!(!project.path("work").exists());
}

#[test]
fn a_trial_run_has_few_items_and_its_records_show_it() {
    let project = project_v1();
    project
        .run(&["--only", "A/*"])
        .expect(0)
        .reports(&["trial run: only items that match A/*"]);
    let components: Vec<_> = echoed(&project)
        .as_array()
        .expect("a list")
        .iter()
        .map(|echo| echo["component"].clone())
        .collect();
    assert_eq!(components, ["p.zarr/A/1", "p.zarr/A/2"]);
    let history = project.json("work/history.json");
    assert_eq!(history[1]["mandelbox"]["only"], json!(["A/*"]));
    let shown = "trial run: only items that match A/*";
    project
        .mandelbox(&["status", "work"])
        .expect(0)
        .reports(&[shown]);
    assert!(project.read("work/report.html").contains(shown));
    assert_eq!(
        project.json("work/metadata.json")["well"],
        json!(["p.zarr/A/1", "p.zarr/A/2", "p.zarr/B/1"]),
        "the lists of the dataset stay whole"
    );
    project
        .run(&["--only", "["])
        .expect(2)
        .reports(&["--only: `[` is not a glob"]);
}

#[test]
fn tasks_are_named_and_a_result_is_continued() {
    let project = project_v1();
    project.run(&["--last-task", "List v1.0"]).expect(0);
    std::fs::rename(project.path("work"), project.path("first")).expect("renamed");
    project
        .run(&["--first-task", "measure", "--dataset", "first/result.json"])
        .expect(0);
    assert_eq!(echoed(&project).as_array().map(Vec::len), Some(3));
    let history = project.json("work/history.json");
    assert_eq!(history.as_array().map(Vec::len), Some(2));
    let project = project_v1();
    project
        .run(&["--first-task", "measures"])
        .expect(2)
        .reports(&[
            "--first-task: no task has the name \"measures\"",
            "1 \"measure\"",
        ]);
}

#[test]
fn a_workflow_is_read_from_stdin() {
    let project = project_v1();
    let workflow = project.read("workflow.json");
    let command = || {
        project.command(&[
            "run",
            "-",
            "--output",
            "out",
            "--work-dir",
            "work",
            "--quiet",
        ])
    };
    finish_with_input(command(), &workflow).expect(0);
    assert_eq!(echoed(&project).as_array().map(Vec::len), Some(3));
    finish_with_input(command(), "{\"task_list\": 1")
        .expect(2)
        .reports(&["<stdin>:1:"]);
}

/// A workflow of version 2: the first task makes images, the second is for each of them.
pub fn project_v2() -> Project {
    let project = Project::new();
    let mut each = swiss("each", "parallel");
    each["output_types"] = json!({ "seen": true });
    let tasks = [
        swiss("make", "converter_non_parallel"),
        each,
        swiss("both", "compound"),
    ];
    Package::new(manifest(&tasks)).write(&project);
    let images = json!({ "$range": [4, { "zarr_url": "{zarr_dir}/plate.zarr/A/{index}" }] });
    let make = json!({ "out": { "image_list_updates": images } });
    write_workflow(
        &project,
        &[
            entry("make", json!({ "args_non_parallel": make })),
            entry("each", json!({ "alias": "second" })),
            entry("both", json!({})),
        ],
    );
    project
}

pub fn run_v2(project: &Project, more: &[&str]) -> Ended {
    let tasks = text_of(&project.path("site-mandelbox-swiss-1.0.0"));
    let start = [
        "run",
        "workflow.json",
        "--tasks",
        &tasks,
        "--work-dir",
        "work",
    ];
    project.mandelbox(&[&start[..], more].concat())
}

/// The parts of the URLs after the dataset's folder of the images that the second task processed.
fn seen(project: &Project) -> Vec<String> {
    let images = project.json("work/dataset.json")["images"].clone();
    let images = images.as_array().expect("a list").iter();
    images
        .filter(|image| image["types"]["seen"] == true)
        .map(|image| image["zarr_url"].as_str().expect("text").to_owned())
        .map(|url| url.rsplit('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn images_of_a_trial_run_are_selected() {
    let project = project_v2();
    run_v2(
        &project,
        &[
            "--zarr-dir",
            "zarr",
            "--last-task",
            "second",
            "--only",
            "A/[13]",
        ],
    )
    .expect(0)
    .reports(&["trial run"]);
    assert_eq!(seen(&project), ["1", "3"]);
    let dataset = project.json("work/dataset.json");
    assert_eq!(dataset["mandelbox"], json!({ "only": ["A/[13]"] }));
    std::fs::rename(project.path("work"), project.path("trial")).expect("renamed");
    run_v2(
        &project,
        &[
            "--dataset",
            "trial/dataset.json",
            "--first-task",
            "1",
            "--last-task",
            "1",
        ],
    )
    .expect(0)
    .reports(&["the result of a trial run"]);
    assert_eq!(seen(&project), ["0", "1", "2", "3"]);
}

#[test]
fn arguments_of_both_kinds_of_calls_are_set() {
    let project = project_v2();
    write_dataset(&project, &["a"]);
    let only_last = ["--dataset", "dataset.json", "--first-task", "both"];
    let list = r#"both.args_non_parallel.out={"parallelization_list": [{"zarr_url": "/x"}]}"#;
    let set = ["--set", list, "--set", "2.args_parallel.stdout=hello"];
    run_v2(&project, &[&only_last[..], &set].concat()).expect(0);
    assert_eq!(
        project.read("work/2_both/par-000000-0000000-log.txt"),
        "hello"
    );
    std::fs::remove_dir_all(project.path("work")).expect("removed");
    run_v2(
        &project,
        &[&only_last[..], &["--set", "both.stdout=x"]].concat(),
    )
    .expect(2)
    .reports(&["write `args_non_parallel.stdout` or `args_parallel.stdout`"]);
    run_v2(
        &project,
        &[&only_last[..], &["--set", "each.zarr_url=x"]].concat(),
    )
    .expect(2)
    .reports(&["`zarr_url` is reserved"]);
}

#[test]
fn options_of_the_other_version_are_refused() {
    let project = project_v2();
    run_v2(
        &project,
        &["--zarr-dir", "zarr", "--input", "in", "--output", "out"],
    )
    .expect(2)
    .reports(&[
        "--input: is an option for workflows of Fractal v1",
        "--output: is an option",
    ]);
    run_v2(&project, &[])
        .expect(2)
        .reports(&["--zarr-dir: is required for a workflow of Fractal v2"]);
    let project = project_v1();
    project
        .run(&["--type-filter", "x=true"])
        .expect(2)
        .reports(&["--type-filter: is an option for workflows of Fractal v2"]);
    project
        .mandelbox(&["run", "workflow.json"])
        .expect(2)
        .reports(&["--output: is required for a workflow of Fractal v1"]);
}
