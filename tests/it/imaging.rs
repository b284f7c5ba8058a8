//! The imaging package end to end: from the committed images to the table of nuclei, and what
//! happens when files are bad.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish};

const WORKFLOW: &str = "task-examples/imaging/workflow.json";
/// The order of "Convert images" and of "Correct illumination".
const CONVERT: u64 = 1;
const CORRECT: u64 = 3;
const N_IMAGES: usize = 8;

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/imaging")
        .join(name)
}

/// A project with the committed images in `in`.
fn plate() -> Project {
    let project = Project::new();
    for entry in fs::read_dir(package("images")).expect("images") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), project.path("in").join(entry.file_name())).expect("copied");
    }
    project
}

/// Runs the workflow from `in` to `output`, with records in `work_dir`.
fn run(project: &Project, output: &str, work_dir: &str, more: &[&str]) -> Ended {
    let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join(WORKFLOW);
    let workflow = workflow.to_str().expect("UTF-8");
    let arguments = [
        "run",
        workflow,
        "--input",
        "in",
        "--output",
        output,
        "--work-dir",
        work_dir,
    ];
    project.mandelbox(&[&arguments[..], more].concat())
}

/// All files below a folder of the project.
fn files(project: &Project, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let is_below = |path: &String| path.starts_with(folder) && !path.ends_with('/');
    let paths = project.tree().into_iter().filter(is_below);
    paths
        .map(|path| {
            (
                path[folder.len()..].to_owned(),
                fs::read(project.path(&path)).expect("read"),
            )
        })
        .collect()
}

/// Fails unless both folders hold the same files.
#[track_caller]
fn check_same(project: &Project, one: &str, other: &str) {
    let (one, other) = (files(project, one), files(project, other));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        other.keys().collect::<Vec<_>>()
    );
    for (path, contents) in &one {
        assert!(contents == &other[path], "{path} is not the same");
    }
    assert!(one.len() > 500, "{} files", one.len());
}

/// The components of the calls of a task that were begun, from a line of the log on.
fn begun(project: &Project, task: u64, from_line: usize) -> Vec<String> {
    let log = project.read("work/events.jsonl");
    let events = log
        .lines()
        .skip(from_line)
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let started = events.filter(|event| event["event"] == "call_started" && event["task"] == task);
    let mut components: Vec<String> = started
        .map(|event| event["item"].as_str().expect("a component").to_owned())
        .collect();
    components.sort();
    components
}

fn n_lines(project: &Project) -> usize {
    project.read("work/events.jsonl").lines().count()
}

/// A TIFF of 8-bit grey pixels, not compressed.
fn tiff_of_8_bits(size: u32) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let pixels = 8 + 2 + 9 * 12 + 4;
    let tags: [(u16, u16, u32); 9] = [
        (256, LONG, size),
        (257, LONG, size),
        (258, SHORT, 8),
        (259, SHORT, 1),
        (262, SHORT, 1),
        (273, LONG, pixels),
        (277, SHORT, 1),
        (278, LONG, size),
        (279, LONG, size * size),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.resize(pixels as usize + (size * size) as usize, 7);
    bytes
}

#[test]
fn the_nuclei_are_those_of_the_truth() {
    let project = plate();
    run(&project, "out", "work", &[]).expect(0);
    let truth: Value =
        serde_json::from_slice(&fs::read(package("truth.json")).expect("read")).expect("JSON");
    let fields = truth["fields"].as_array().expect("fields");
    let expected: Vec<usize> = fields
        .iter()
        .map(|field| field["nuclei"].as_array().expect("nuclei").len())
        .collect();
    let metadata = project.json("work/metadata.json");
    // Eight images of well-separated nuclei: each has just its own.
    assert_eq!(metadata["n_objects"], json!(expected));
    assert_eq!(metadata["table"], json!(["plate1_mip.csv"]));
    let table = project.read("out/plate1_mip.csv");
    assert_eq!(table.lines().count(), 1 + expected.iter().sum::<usize>());
    assert!(
        table.starts_with("plate,well,field,label,area,") && table.contains("\nplate1,C04,F002,1,"),
        "{table}"
    );
    let sheet = fs::read(project.path("out/plate1_mip.png")).expect("a sheet");
    assert!(sheet.starts_with(b"\x89PNG"));

    // Again, over what is there: the same.
    run(&project, "out", "again", &["--isolation", "process"]).expect(0);
    run(&project, "other", "another", &["--jobs", "1"]).expect(0);
    check_same(&project, "out/", "other/");
}

/// The form for version 2 of Fractal measures what the form for version 1 does.
#[test]
fn both_versions_measure_the_same_nuclei() {
    let project = plate();
    run(&project, "out", "work", &[]).expect(0);
    let workflow =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("task-examples/imaging-v2/workflow.json");
    let arguments = [
        "run",
        workflow.to_str().expect("UTF-8"),
        "--zarr-dir",
        "v2",
        "--read",
        "in",
        "--set",
        "0.image_dir=in",
        "--work-dir",
        "work-v2",
    ];
    project.mandelbox(&arguments).expect(0);
    let table = project.read("v2/plate1_mip.csv");
    assert_eq!(table, project.read("out/plate1_mip.csv"));
    assert_eq!(table.lines().count(), 127);
    assert!(project.path("v2/plate1_mip.png").is_file());
    let page = project.read("work-v2/report.html");
    assert!(page.contains("one call, which listed 8 more"), "{page}");
    assert!(page.contains("8 new: 16 images"), "{page}");
}

#[test]
fn bad_files_fail_their_images_and_are_repaired() {
    let project = plate();
    let (cut, wrong) = (
        "in/plate1_B03_F002_Z002_C02.tif",
        "in/plate1_C04_F001_Z003_C01.tif",
    );
    let missing: Vec<String> = project
        .tree()
        .into_iter()
        .filter(|path| path.starts_with("in/plate1_B04_F002_"))
        .collect();
    assert_eq!(missing.len(), 6);
    fs::create_dir(project.path("away")).expect("made");
    let move_all = |from: &str, to: &str| {
        for path in &missing {
            let name = path.trim_start_matches("in/");
            fs::rename(project.path(from).join(name), project.path(to).join(name)).expect("moved");
        }
    };
    move_all("in", "away");
    let (whole_cut, whole_wrong) = (
        fs::read(project.path(cut)).expect("read"),
        fs::read(project.path(wrong)).expect("read"),
    );
    project.write(cut, &whole_cut[..whole_cut.len() / 2]);
    project.write(wrong, tiff_of_8_bits(192));
    run(&project, "out", "work", &["--keep-going"])
        .expect(3)
        .reports(&[
            "plate1.zarr/B/03/1",
            "B03_F002_Z002_C02.tif: it ends too early; the file is damaged",
            "plate1.zarr/B/04/1",
            "field F002 of well B04, channel C01: there is no ",
            "plate1_B04_F002_Z001_C01.tif; add the file",
            "plate1.zarr/C/04/0",
            "C04_F001_Z003_C01.tif has pixels of the type uint8, but ",
        ]);
    assert_eq!(begun(&project, CONVERT, 0).len(), N_IMAGES);
    let has_pixels = |image: &str| {
        project
            .path("out/plate1.zarr")
            .join(image)
            .join("0/.zarray")
            .exists()
    };
    assert!(
        has_pixels("B/03/0") && has_pixels("C/04/1"),
        "the others are made"
    );
    assert!(!has_pixels("B/03/1") && !has_pixels("B/04/1") && !has_pixels("C/04/0"));
    assert!(
        !project.tree().iter().any(|path| path.contains(".part")),
        "nothing half written stays"
    );

    project.write(cut, &whole_cut);
    project.write(wrong, &whole_wrong);
    move_all("away", "in");
    let before = n_lines(&project);
    run(&project, "out", "work", &["--resume"]).expect(0);
    let expected = [
        "plate1.zarr/B/03/1",
        "plate1.zarr/B/04/1",
        "plate1.zarr/C/04/0",
    ];
    assert_eq!(begun(&project, CONVERT, before), expected);
    run(&project, "other", "other-work", &[]).expect(0);
    check_same(&project, "out/", "other/");
}

#[test]
fn a_repeated_correction_changes_nothing() {
    let project = plate();
    run(&project, "out", "work", &[]).expect(0);
    // As if the program had been killed just before it wrote down the first correction.
    let log = project.read("work/events.jsonl");
    let is_first = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event");
        event["event"] == "call_finished" && event["task"] == CORRECT
    };
    let kept: Vec<&str> = log.lines().take_while(|line| !is_first(line)).collect();
    assert!(kept.len() < n_lines(&project));
    project.write("work/events.jsonl", kept.join("\n") + "\n");
    run(&project, "out", "work", &["--resume"]).expect(0);
    assert_eq!(begun(&project, CORRECT, kept.len()).len(), N_IMAGES);
    run(&project, "other", "other-work", &[]).expect(0);
    check_same(&project, "out/", "other/");
}

#[test]
fn a_full_disk_fails_images_and_the_others_are_kept() {
    let project = plate();
    let mounted = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(project.path("in"))
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    // The images of the plate need 3 MB, and what is made of them more.
    let script = r#"
        mkdir small && mount -t tmpfs -o size=2m tmpfs small
        run() { "$0" run "$1" --input in --output small/out --work-dir work --keep-going --jobs 1 $2; }
        run "$1" 2> first; echo $? > first_code
        cp work/events.jsonl full.jsonl
        mount -o remount,size=64m small
        run "$1" --resume 2> second; echo $? > second_code
        cp -r small/out out-of-small
    "#;
    let program = project.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(program.get_program());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(WORKFLOW))
        .current_dir(project.path(""));
    for (name, value) in program
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
    {
        command.env(name, value);
    }
    finish(command);
    let first = project.read("first");
    assert_eq!(
        (
            project.read("first_code").trim(),
            project.read("second_code").trim()
        ),
        ("3", "0"),
        "{first}"
    );
    assert!(
        first.contains("cannot write ") && first.contains("No space left on device"),
        "{first}"
    );
    let done = |log: &str| {
        let events = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        let is_done = |event: &Value| event["task"] == CONVERT && event["outcome"] == "succeeded";
        events.filter(is_done).count()
    };
    let full = project.read("full.jsonl");
    let n_done = done(&full);
    assert!((1..N_IMAGES).contains(&n_done), "{n_done} images were made");
    assert_eq!(
        begun(&project, CONVERT, full.lines().count()).len(),
        N_IMAGES - n_done
    );
    run(&project, "other", "other-work", &[]).expect(0);
    check_same(&project, "out-of-small/", "other/");
}
