//! What version 2 of Fractal must refuse: each row is a workflow, a dataset or an output of a task
//! that would change data which is not the task's, or would lose some.
//!
//! In a program without these defences (the feature `weakened-for-tests`) each row passes, so each
//! test notices if its defence is missing.

use serde_json::{Value, json};

use crate::fractal_v2::package::{
    Package, entry, manifest, swiss, text_of, write_dataset, write_workflow,
};
use crate::project::{Ended, Project};

/// A run with one task. The dataset has the images `a` and `b`.
struct Attempt {
    /// Type of the task.
    task_type: &'static str,
    /// The entry of the workflow; `ZARR_DIR` in it is the folder of the dataset.
    entry: Value,
    /// Images of the dataset.
    images: &'static [&'static str],
    options: &'static [&'static str],
    policy: &'static str,
    /// Exit code and text of the refusal.
    refusal: (i32, &'static str),
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            task_type: "parallel",
            entry: json!({}),
            images: &["a", "b"],
            options: &[],
            policy: "",
            refusal: (3, ""),
        }
    }
}

impl Attempt {
    /// An attempt of a task whose calls all have one output.
    fn of_output(output: Value, refusal: (i32, &'static str)) -> Self {
        Self {
            entry: json!({ "args_parallel": { "out": output } }),
            refusal,
            ..Self::default()
        }
    }

    fn run(&self) -> (Project, Ended) {
        let project = Project::new();
        let folder = Package::new(manifest(&[swiss("t", self.task_type)])).write(&project);
        let zarr_dir = text_of(&project.path("zarr"));
        let given = self.entry.to_string().replace("ZARR_DIR", &zarr_dir);
        let given = serde_json::from_str(&given).expect("JSON");
        write_workflow(&project, &[entry("t", given)]);
        write_dataset(&project, self.images);
        project.write("policy.toml", self.policy);
        let arguments = ["run", "workflow.json", "--dataset", "dataset.json"];
        let more = ["--tasks", &folder, "--work-dir", "work"];
        let limits = ["--policy", "policy.toml", "--progress", "never"];
        let arguments = [&arguments[..], &more, &limits, self.options].concat();
        let ended = project.mandelbox(&arguments);
        (project, ended)
    }

    /// Checks that the attempt is refused, or that it is not in a program without defences.
    #[track_caller]
    fn check(&self) -> Project {
        let (project, ended) = self.run();
        if cfg!(feature = "weakened-for-tests") {
            ended.expect(0);
        } else {
            let (code, text) = self.refusal;
            ended.expect(code).reports(&[text]);
        }
        project
    }
}

/// URLs of the images of a run that has ended.
fn images(project: &Project) -> Vec<String> {
    let dataset = project.json("work/dataset.json");
    let images = dataset["images"].as_array().expect("a list");
    let urls = images.iter().filter_map(|image| image["zarr_url"].as_str());
    urls.map(str::to_owned).collect()
}

/// Source: defects W1 and W3.
#[test]
fn images_outside_of_the_folder() {
    for image in ["", "../zarr2/a"] {
        let images: &'static [&'static str] = match image {
            "" => &[""],
            _ => &["../zarr2/a"],
        };
        let attempt = Attempt {
            images,
            refusal: (2, "dataset.json"),
            ..Attempt::default()
        };
        attempt.check();
    }
    for url in ["/elsewhere/{name}", "ZARR_DIR2/{name}", "ZARR_DIR"] {
        let output = json!({ "image_list_updates": [{ "zarr_url": url }] });
        let text = "Cannot create image if zarr_url is not a subfolder of zarr_dir";
        let project = Attempt::of_output(output, (3, text)).check();
        if !cfg!(feature = "weakened-for-tests") {
            assert_eq!(images(&project).len(), 2);
        }
    }
}

/// Source: defect W2.
#[test]
fn two_images_with_one_url() {
    let attempt = Attempt {
        images: &["a", "a"],
        refusal: (2, "two images have the zarr_url"),
        ..Attempt::default()
    };
    attempt.check();
}

/// Source: defect W5.
#[test]
fn arguments_that_the_runner_sets() {
    let attempt = Attempt {
        entry: json!({ "args_parallel": { "zarr_dir": "/elsewhere" } }),
        refusal: (2, "`zarr_dir` is reserved"),
        ..Attempt::default()
    };
    attempt.check();
}

/// Source: defect W19, conformance rule V73.
#[test]
fn removals_of_images_of_others() {
    let output = json!({ "image_list_removals": ["ZARR_DIR/other"] });
    Attempt::of_output(output, (3, "Cannot remove missing image")).check();
}

/// Source: conformance rule V60.
#[test]
fn outputs_with_unknown_keys() {
    let output = json!({ "filters": {} });
    Attempt::of_output(output, (3, "filters")).check();
}

/// An output that is refused fails the task. The log has the changes of the others, and no batch
/// that never began.
#[test]
#[cfg(not(feature = "weakened-for-tests"))]
fn changes_next_to_a_refused_output_are_recorded() {
    let outside = json!({ "image_list_updates": [{ "zarr_url": "/elsewhere/b" }] });
    let inside = json!({ "image_list_updates": [{ "zarr_url": "ZARR_DIR/new" }] });
    let args = json!({ "per_url": { "b": { "out": outside } }, "out": inside });
    let attempt = Attempt {
        entry: json!({ "args_parallel": args }),
        refusal: (
            3,
            "Cannot create image if zarr_url is not a subfolder of zarr_dir",
        ),
        ..Attempt::default()
    };
    let project = attempt.check();
    assert_eq!(images(&project).len(), 3);
    let events = project.read("work/events.jsonl");
    let count = |text: &str| events.matches(text).count();
    let changes =
        r#""event":"items_changed","task":0,"n_new":1,"n_changed":0,"n_removed":0,"n_items":3"#;
    assert_eq!(count(changes), 1, "{events}");
    assert_eq!(count(r#""event":"task_started""#), 1, "{events}");
}

/// Source: defect W22.
#[test]
fn two_changes_of_one_image() {
    let output = json!({ "image_list_updates": [
        { "zarr_url": "ZARR_DIR/a", "attributes": { "by": "{name}" } }
    ] });
    let text = "change the image";
    Attempt::of_output(output, (4, text)).check();
}

/// Source: conformance rule V54.
#[test]
fn more_items_than_are_allowed() {
    let attempt = Attempt {
        policy: "[host]\ntask_items = 1\n",
        refusal: (4, "Too many parallelization items: 2"),
        ..Attempt::default()
    };
    attempt.check();
}

/// Source: conformance rules V45 and V46.
#[test]
fn filters_that_match_no_image() {
    for options in [
        &["--type-filter", "x=true"],
        &["--attribute-filter", "well=A01"],
    ] {
        let attempt = Attempt {
            options,
            refusal: (4, "for an empty image list"),
            ..Attempt::default()
        };
        attempt.check();
    }
}
