//! Runs of version 2 of Fractal that are killed at any moment, or fail, and are resumed: nothing is
//! lost, and no call whose end was recorded is run again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::fractal_v2::package::{
    Package, entry, manifest, swiss, text_of, write_dataset, write_workflow,
};
use crate::project::Project;

/// Images that the converter adds.
const N_IMAGES: usize = 20;
/// Calls of the run: two compound tasks and a parallel one.
const N_CALLS: usize = 3 * N_IMAGES + 2;
/// Attribute that each task sets, and the file that it touches.
const KEYS: [&str; 3] = ["one", "two", "three"];
const KILLS: usize = 8;
const ALL_KILLS: usize = 60;
const PACKAGE: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss";
const RUN: [&str; 10] = [
    "run",
    "workflow.json",
    "--dataset",
    "dataset.json",
    "--tasks",
    PACKAGE,
    "--work-dir",
    "work",
    "--progress",
    "never",
];

/// An update of the image of a call, which waits a little and leaves a line in a file of the image.
fn updating(key: &str) -> Value {
    let update = json!({ "zarr_url": "{zarr_url}", "attributes": { key: "{name}" } });
    json!({
        "touch": [format!("{{zarr_url}}/{key}")],
        "stdout": "a line\n",
        "sleep_ms": 2,
        "out": { "image_list_updates": [update] },
    })
}

/// A converter that adds images, a parallel task that changes them, and a compound task that does
/// so, too.
fn project() -> Project {
    let project = Project::new();
    let mut parallel = swiss("change", "parallel");
    parallel["output_types"] = json!({ "changed": true });
    Package::new(manifest(&[
        swiss("convert", "converter_compound"),
        parallel,
        swiss("register", "compound"),
    ]))
    .write(&project);
    let item = json!({ "zarr_url": "{zarr_dir}/i{index}", "init_args": { "number": "{index}" } });
    let items = json!({ "parallelization_list": { "$range": [N_IMAGES, item] } });
    let item = json!({ "zarr_url": "{zarr_url}", "init_args": { "number": "{index}" } });
    let all = json!({ "parallelization_list": { "$each": item } });
    write_workflow(
        &project,
        &[
            entry(
                "convert",
                json!({ "args_non_parallel": { "out": items }, "args_parallel": updating(KEYS[0]) }),
            ),
            entry("change", json!({ "args_parallel": updating(KEYS[1]) })),
            entry(
                "register",
                json!({ "args_non_parallel": { "out": all }, "args_parallel": updating(KEYS[2]) }),
            ),
        ],
    );
    write_dataset(&project, &[]);
    project
}

/// The records of a run, without the path of the project.
fn records(project: &Project) -> [Value; 2] {
    let root = text_of(&project.path(""));
    let root = root.trim_end_matches('/');
    ["dataset.json", "status.json"].map(|name| {
        let text = project.read(&format!("work/{name}")).replace(root, "$WORK");
        serde_json::from_str(&text).expect("JSON")
    })
}

/// Task, batch and index of a call.
type Call = (u64, u64, u64);

/// Events of calls, each with its number: those that started, and those that succeeded.
#[derive(Default)]
struct Calls {
    started: Vec<(Call, u64)>,
    succeeded: Vec<(Call, u64)>,
}

impl Calls {
    /// Reads whole lines of a log.
    fn parse(log: &str) -> Self {
        let mut calls = Self::default();
        for line in log
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let event: Value = serde_json::from_str(line).expect("an event");
            let number = |key: &str| event[key].as_u64().unwrap_or(0);
            let call = (number("task"), number("batch"), number("call_index"));
            let call = (call, number("seq"));
            match event["event"].as_str() {
                Some("call_started") => calls.started.push(call),
                Some("call_finished") if event["outcome"] == "succeeded" => {
                    calls.succeeded.push(call);
                }
                _ => {}
            }
        }
        calls
    }

    fn of_log(project: &Project) -> Self {
        Self::parse(&project.read("work/events.jsonl"))
    }
}

/// A run that prints its events.
fn run(project: &Project, more: &[&str]) -> Command {
    let mut command = project.command(&[&RUN[..], &["--events", "-"], more].concat());
    let stderr = std::fs::File::create(project.path("stderr")).expect("made");
    command.stdout(Stdio::piped()).stderr(stderr);
    command
}

/// Runs a command and kills it once it has printed some events. Returns all that it printed, and
/// true if it was killed.
fn run_and_kill(mut command: Command, n_events: usize) -> (String, bool) {
    let mut child = command.spawn().expect("started");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut printed = String::new();
    let mut n_read = 0;
    while stdout.read_line(&mut printed).expect("read") > 0 {
        n_read += 1;
        if n_read == n_events {
            // A child that has ended by itself is not killed.
            child.kill().expect("killed");
        }
    }
    let status = child.wait().expect("ended");
    (printed, status.code().is_none())
}

/// Checks a run that was resumed to its end.
fn check_resumed(project: &Project, printed: &str, expected: &[Value; 2], what: &str) {
    let log = Calls::of_log(project);
    for (call, seq) in Calls::parse(printed).succeeded {
        assert!(
            log.succeeded.contains(&(call, seq)),
            "{what}: {call:?} is lost"
        );
        let later = log
            .started
            .iter()
            .find(|(other, at)| *other == call && *at > seq);
        assert_eq!(later, None, "{what}: {call:?} is run again");
    }
    let different: BTreeSet<_> = log.succeeded.iter().map(|(call, _)| call).collect();
    assert_eq!(
        (log.succeeded.len(), different.len()),
        (N_CALLS, N_CALLS),
        "{what}: calls that succeeded"
    );
    assert_eq!(&records(project), expected, "{what}");
    for index in 0..N_IMAGES {
        for key in KEYS {
            let touched = project.read(&format!("zarr/i{index}/{key}"));
            assert!(
                touched.starts_with("touched\n"),
                "{what}: {key} of image {index}"
            );
        }
    }
    for path in project
        .tree()
        .iter()
        .filter(|path| path.starts_with("work/"))
    {
        assert!(!path.contains("/."), "{what}: {path} is left");
    }
}

/// Runs until the end. Returns the events that it printed.
fn finish(project: &Project, more: &[&str], what: &str) -> String {
    let (printed, is_killed) = run_and_kill(run(project, more), usize::MAX);
    let is_done = !is_killed
        && printed
            .lines()
            .last()
            .is_some_and(|line| line.contains("done"));
    assert!(is_done, "{what}: {}", project.read("stderr"));
    printed
}

#[test]
fn kills_at_random_moments_lose_no_call_of_v2() {
    let undisturbed = project();
    let n_events = finish(&undisturbed, &[], "undisturbed").lines().count();
    let expected = records(&undisturbed);
    check_images(&expected[0]);
    let is_whole = std::env::var_os("MANDELBOX_TEST_WHOLE").is_some();
    let n_kills = if is_whole { ALL_KILLS } else { KILLS };
    let mut n_killed = 0;
    for seed in 0..n_kills {
        let what = format!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed as u64);
        let project = project();
        let mut printed = String::new();
        // Up to three in one work directory. A resumed run prints its own events only.
        for _ in 0..random.random_range(1..=3) {
            let at = random.random_range(1..n_events);
            let (more, is_killed) = run_and_kill(run(&project, &["--resume"]), at);
            printed += whole_lines(&more);
            n_killed += usize::from(is_killed);
        }
        finish(&project, &["--resume"], &what);
        check_resumed(&project, &printed, &expected, &what);
    }
    assert!(n_killed * 2 >= n_kills, "only {n_killed} runs were killed");
}

fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

fn check_images(dataset: &Value) {
    let images = dataset["images"].as_array().expect("a list");
    assert_eq!(images.len(), N_IMAGES);
    for (index, image) in images.iter().enumerate() {
        let name = format!("i{index}");
        assert_eq!(image["zarr_url"], format!("$WORK/zarr/{name}"));
        let attributes = json!({ "one": name, "two": name, "three": name });
        assert_eq!(image["attributes"], attributes);
        assert_eq!(image["types"], json!({ "changed": true }));
    }
}

/// The outputs of the other calls of a failed task are merged; the run that resumes it begins with
/// the dataset from before that.
#[test]
fn after_a_failure_only_the_failed_call_of_v2_is_run_again() {
    for task in 0..3 {
        let with_failure = |marker: bool| {
            let project = project();
            let mut workflow = project.json("workflow.json");
            let path = text_of(&project.path("zarr/marker"));
            let first = json!({ "marker": path, "exit": 5, "stderr": "not yet\n" });
            workflow["task_list"][task]["args_parallel"]["per_url"] =
                json!({ "i7": { "first_time": first } });
            project.write("workflow.json", workflow.to_string());
            if marker {
                project.write("zarr/marker", "");
            }
            project
        };
        let undisturbed = with_failure(true);
        finish(&undisturbed, &[], "undisturbed");
        let project = with_failure(false);
        let ended = project
            .mandelbox(&RUN)
            .expect(3)
            .reports(&["i7", "not yet"]);
        assert!(ended.stdout.is_empty(), "{}", ended.stdout);
        let first = Calls::of_log(&project);
        let [dataset, statuses] = records(&project);
        let kept = dataset["images"].as_array().expect("a list");
        let n_kept = kept
            .iter()
            .filter(|image| image["attributes"].get(KEYS[task]).is_some());
        assert_eq!(n_kept.count(), N_IMAGES - 1, "{dataset}");
        assert_eq!(
            statuses[task.to_string()].is_null(),
            task == 0,
            "{statuses}"
        );

        finish(&project, &["--resume"], "resumed");
        let log = Calls::of_log(&project);
        let new: Vec<_> = log.started.iter().skip(first.started.len()).collect();
        let order = task as u64;
        let again = new.iter().filter(|(call, _)| call.0 <= order);
        let again: Vec<_> = again.map(|(call, _)| *call).collect();
        assert_eq!(again, [(order, u64::from(task != 1), 7)], "task {task}");
        assert_eq!(records(&project), records(&undisturbed), "task {task}");
    }
}
