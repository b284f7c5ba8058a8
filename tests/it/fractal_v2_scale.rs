//! Datasets with many images: all of them are there in the end. No time is measured.

use std::time::Duration;

use serde_json::json;

use crate::fractal_v2::package::{
    Package, entry, manifest, swiss, text_of, write_dataset, write_workflow,
};
use crate::project::{Project, finish_within};

/// Longest time of one run, on a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A converter adds images in one call, and a task that gets all of them marks them.
///
/// Source: conformance rule V93, defect W24.
fn check(n_images: usize) {
    let project = Project::new();
    let mut mark = swiss("mark", "non_parallel");
    mark["output_types"] = json!({ "marked": true });
    let tasks = [swiss("convert", "converter_non_parallel"), mark];
    let folder = Package::new(manifest(&tasks)).write(&project);
    let image = json!({ "zarr_url": "{zarr_dir}/{index}", "attributes": { "n": "{index}" } });
    let images = json!({ "image_list_updates": { "$range": [n_images, image] } });
    write_workflow(
        &project,
        &[
            entry("convert", json!({ "args_non_parallel": { "out": images } })),
            entry("mark", json!({})),
        ],
    );
    write_dataset(&project, &[]);
    let command = project.command(&[
        "run",
        "workflow.json",
        "--dataset",
        "dataset.json",
        "--tasks",
        &folder,
        "--work-dir",
        "work",
        "--progress",
        "never",
    ]);
    finish_within(command, TIMEOUT).expect(0);
    let zarr_dir = text_of(&project.path("zarr"));
    let dataset = project.json("work/dataset.json");
    let images = dataset["images"].as_array().expect("a list");
    assert_eq!(images.len(), n_images);
    for (index, image) in images.iter().enumerate() {
        let expected = json!({
            "zarr_url": format!("{zarr_dir}/{index}"),
            "origin": null,
            "attributes": { "n": index.to_string() },
            "types": { "marked": true },
        });
        assert_eq!(*image, expected);
    }
    let statuses = project.json("work/status.json");
    let statuses = statuses["1"]
        .as_object()
        .expect("statuses of the second task");
    assert_eq!(statuses.len(), n_images);
    assert!(statuses.values().all(|status| status == "done"));
    let args = project.json("work/1_mark/non_par--args.json");
    assert_eq!(args["zarr_urls"].as_array().map(Vec::len), Some(n_images));
}

#[test]
fn a_converter_adds_5000_images() {
    check(5000);
}

#[test]
fn a_converter_adds_20001_images() {
    check(20_001);
}
