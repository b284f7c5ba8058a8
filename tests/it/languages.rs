//! One task in every language: `task-examples/otsu-*` give the same masks, metadata and errors.
//!
//! The modules that are too large to be committed are tested where `MANDELBOX_TEST_LANGUAGES` names
//! a folder that `task-examples/build --others` filled.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, quoted, task};

/// The examples whose modules are there: names and modules.
pub fn language_modules() -> Vec<(&'static str, PathBuf)> {
    let committed = ["otsu-rust", "otsu-rust.p2", "otsu-rust-typed", "otsu-c"];
    let committed = committed.map(|name| (name, module(&format!("{name}.wasm")).into()));
    let built = std::env::var_os("MANDELBOX_TEST_LANGUAGES").map(PathBuf::from);
    let others = ["otsu-go", "otsu-python", "otsu-js"].into_iter();
    // The build step has printed which of them cannot be built.
    let others =
        others.filter_map(|name| Some((name, built.as_ref()?.join(format!("{name}.wasm")))));
    committed
        .into_iter()
        .chain(others.filter(|(_, module)| module.is_file()))
        .collect()
}

/// Lists the images in `in`, then makes the mask of each. Python's and JavaScript's engines take
/// long to compile, so all runs share compiled code.
fn run(project: &Project, module: &Path, args: Value) -> Ended {
    let module = module.to_str().expect("UTF-8");
    project.workflow(&[
        task(0, "List images", module, json!({})),
        parallel_task(1, "Otsu threshold", module, "image", args),
    ]);
    let _ = std::fs::remove_dir_all(project.path("work"));
    project.run(&[])
}

fn image(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/otsu/images")
        .join(name);
    std::fs::read(path).expect("an image of the examples")
}

/// The mask of an image of 64 x 48 pixels, which are at the end of its file.
fn mask(image: &[u8], pixel_bytes: usize, threshold: u32) -> Vec<u8> {
    let pixels = image[image.len() - 64 * 48 * pixel_bytes..].chunks(pixel_bytes);
    let pixels = pixels.map(|pixel| {
        pixel
            .iter()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    });
    let mut mask = b"P5\n64 48\n255\n".to_vec();
    mask.extend(pixels.map(|pixel| if pixel >= threshold { 255 } else { 0 }));
    mask
}

#[test]
fn every_language_gives_the_same_masks_and_metadata() {
    for (name, module) in language_modules() {
        let project = Project::new();
        project.write("in/cells.pgm", image("cells.pgm"));
        project.write("in/nuclei.pgm", image("nuclei.pgm"));
        project.write("in/uniform.pgm", b"P5 2 2 9\n\x07\x07\x07\x07");
        project.write("in/notes.txt", "no image");
        run(&project, &module, json!({})).expect(0);
        let metadata = project.json("work/metadata.json");
        let expected = json!({
            "image": ["cells.pgm", "nuclei.pgm", "uniform.pgm"],
            "image_folder": project.path("in"),
            "thresholds": [{ "cells.pgm": 96 }, { "nuclei.pgm": 1456 }, { "uniform.pgm": 10 }],
        });
        assert_eq!(metadata, expected, "{name}");
        let made = |file: &str| std::fs::read(project.path("out").join(file)).expect("a mask");
        assert_eq!(
            made("cells_mask.pgm"),
            mask(&image("cells.pgm"), 1, 96),
            "{name}"
        );
        assert_eq!(
            made("nuclei_mask.pgm"),
            mask(&image("nuclei.pgm"), 2, 1456),
            "{name}"
        );
        assert_eq!(
            made("uniform_mask.pgm"),
            b"P5\n2 2\n255\n\0\0\0\0",
            "{name}"
        );
        let text = project.read(
            "work/1_Otsu_threshold/1_par_cells_pgm.out"
                .to_lowercase()
                .as_str(),
        ) + &project.read("work/workflow.log");
        assert!(text.contains("cells.pgm: threshold 96"), "{name}: {text}");

        // Few bins, and no mask.
        std::fs::remove_dir_all(project.path("out")).expect("removed");
        run(&project, &module, json!({ "bins": 4, "write_mask": false })).expect(0);
        let thresholds = project.json("work/metadata.json")["thresholds"].clone();
        assert_eq!(
            thresholds,
            json!([{ "cells.pgm": 64 }, { "nuclei.pgm": 1024 }, { "uniform.pgm": 10 }]),
            "{name}"
        );
        assert_eq!(
            std::fs::read_dir(project.path("out"))
                .expect("a folder")
                .count(),
            0,
            "{name}"
        );
    }
}

#[test]
fn every_language_runs_the_workflow_of_version_2() {
    for (name, module) in language_modules() {
        let project = Project::new();
        project.write("in/cells.pgm", image("cells.pgm"));
        project.write("in/nuclei.pgm", image("nuclei.pgm"));
        project.write("in/notes.txt", "no image");
        let module = module.to_str().expect("UTF-8");
        let tasks = [
            json!({
                "args_non_parallel": { "folder": project.path("in") },
                "task": {
                    "name": "Import images", "type": "converter_non_parallel",
                    "command_non_parallel": quoted(module),
                },
            }),
            json!({
                "args_parallel": { "bins": 256 },
                "task": { "name": "Otsu threshold", "command_parallel": quoted(module) },
            }),
        ];
        project.workflow(&tasks);
        let run = [
            "run",
            "workflow.json",
            "--zarr-dir",
            "zarrs",
            "--read",
            "in",
            "--work-dir",
            "work",
        ];
        project.mandelbox(&run).expect(0);
        let dataset = project.json("work/dataset.json");
        for (index, (stem, threshold)) in [("cells", 96), ("nuclei", 1456)].iter().enumerate() {
            let folder = project.path("zarrs").join(stem);
            let found = &dataset["images"][index];
            assert_eq!(found["zarr_url"], json!(folder), "{name}");
            let attributes = json!({ "file": format!("{stem}.pgm"), "threshold": threshold });
            assert_eq!(found["attributes"], attributes, "{name}");
            let bytes = image(&format!("{stem}.pgm"));
            let mask = mask(&bytes, index + 1, *threshold);
            let made = std::fs::read(folder.join("mask.pgm")).expect("a mask");
            assert_eq!(made, mask, "{name}");
            let copy = std::fs::read(folder.join("image.pgm")).expect("an image");
            assert_eq!(copy, bytes, "{name}");
        }
    }
}

#[test]
fn every_language_names_the_image_and_what_is_wrong_with_it() {
    let header = "its header needs a width, a height and a maximum of at most 65535, each above 0";
    let cases: [(&[u8], &str); 13] = [
        (b"", "no binary PGM image, which begins with P5"),
        (b"P2 1 1 1 1", "no binary PGM image, which begins with P5"),
        (b"P5", header),
        (b"P5 2 2", header),
        (b"P5 0 2 255 ", header),
        (b"P5 2 2 65536 ", header),
        (b"P5 2 2 255", header),
        (b"P5 2 2 255x1234", header),
        (b"P5 12345678 1 255 ", header),
        (b"P5 2 2 # no end", header),
        (
            b"P5 2 2 255 123",
            "cut off: 2 x 2 pixels need 4 bytes, and there are 3",
        ),
        (
            b"P5 9999999 9999999 256 ",
            "cut off: 9999999 x 9999999 pixels need 199999960000002 bytes, and there are 0",
        ),
        (
            b"P5\n#\n#\n2 2#\r\n7 \x01\x02\x08\x01",
            "a pixel is 8, above the maximum 7",
        ),
    ];
    for (name, module) in language_modules() {
        let project = Project::new();
        for (index, (bytes, _)) in cases.iter().enumerate() {
            project.write(&format!("in/odd {index}.pgm"), bytes);
        }
        let module = module.to_str().expect("UTF-8");
        let component_list: Vec<_> = (0..cases.len())
            .map(|index| format!("odd {index}.pgm"))
            .chain(["none.pgm".to_owned()])
            .collect();
        project.write(
            "metadata.json",
            json!({ "image": component_list }).to_string(),
        );
        project.workflow(&[parallel_task(0, "t", module, "image", json!({}))]);
        project
            .run(&["--metadata", "metadata.json", "--keep-going"])
            .expect(3);
        let failures: Vec<Value> = project
            .read("work/events.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|event: &Value| event["event"] == "call_finished")
            .collect();
        let failure_of = |component: &str| {
            let event = failures
                .iter()
                .find(|event| event["item"] == component)
                .expect("a failed call");
            let file = component.replace([' ', '.'], "_");
            // A typed task returns its error, a command prints it.
            match event["message"].as_str() {
                Some(message) => message.to_owned(),
                None => project.read(&format!("work/0_t/0_par_{file}.err")),
            }
        };
        for (index, (_, expected)) in cases.iter().enumerate() {
            let component = format!("odd {index}.pgm");
            let text = failure_of(&component);
            assert!(
                text.contains(&format!("{component}: {expected}")),
                "{name}: {text}"
            );
        }
        assert!(failure_of("none.pgm").contains("/in/none.pgm"), "{name}");
        assert_eq!(
            std::fs::read_dir(project.path("out"))
                .expect("a folder")
                .count(),
            0,
            "{name}"
        );

        // The args schema has the bounds, but the full form of a workflow need not have one.
        project.write(
            "metadata.json",
            json!({ "image": ["odd 10.pgm"] }).to_string(),
        );
        for (args, text) in [
            (
                json!({ "bins": 1 }),
                "bins must be a whole number from 2 to 65536",
            ),
            (
                json!({ "bins": 65537 }),
                "bins must be a whole number from 2 to 65536",
            ),
        ] {
            project.workflow(&[parallel_task(0, "t", module, "image", args)]);
            let _ = std::fs::remove_dir_all(project.path("work"));
            project
                .run(&["--metadata", "metadata.json"])
                .expect(3)
                .reports(&[text]);
        }
    }
}

#[test]
fn typed_languages_describe_themselves_alike_and_like_the_manifests() {
    let project = Project::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("task-examples");
    let manifest = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name).join("__FRACTAL_MANIFEST__.json"))
            .expect("a manifest");
        text.replace(name.trim_end_matches("/v1"), "NAME")
    };
    let first = manifest("otsu-c/v1");
    for name in ["otsu-go/v1", "otsu-rust/v1"] {
        assert_eq!(manifest(name), first, "{name}");
    }
    // In version 2 all packages have one.
    let of_v2 = manifest("otsu-c");
    for name in [
        "otsu-go",
        "otsu-rust",
        "otsu-rust-typed",
        "otsu-python",
        "otsu-js",
    ] {
        assert_eq!(manifest(name), of_v2, "{name}");
    }
    let mut entry = serde_json::from_str::<Value>(&first).expect("JSON")["task_list"][0].clone();
    let entry = entry.as_object_mut().expect("an object");
    entry.shift_remove("executable");
    for (name, module) in language_modules()
        .into_iter()
        .filter(|(name, _)| ["otsu-rust-typed", "otsu-python", "otsu-js"].contains(name))
    {
        project.workflow(&[
            json!({ "args": {}, "task": { "source": format!("{name}:otsu_threshold") } }),
        ]);
        project.write("metadata.json", r#"{"image": []}"#);
        let _ = std::fs::remove_dir_all(project.path("work"));
        let module = module.to_str().expect("UTF-8");
        project
            .run(&["--tasks", module, "--metadata", "metadata.json"])
            .expect(0);
        let shown = project.json("work/history.json")[0]["workflowtask"]["task"].clone();
        for (key, value) in entry.iter() {
            assert_eq!(&shown[key], value, "{name}: {key}");
        }
    }
}
