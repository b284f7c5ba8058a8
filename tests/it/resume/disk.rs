//! Runs that are resumed when the disk is not as they left it: the output is gone, or inputs have
//! changed.

use std::path::Path;

use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, task};

/// Writes the documents of a run whose first task writes `a.txt` and whose second one has two
/// calls.
fn project() -> Project {
    let project = Project::new();
    project.write("in/plate/image.tif", "pixels");
    write_workflow(&project, "res");
    project
}

fn write_workflow(project: &Project, output: &str) {
    let path = project.path(output).join("a.txt");
    let write = json!({ "do": "write", "path": path, "text": "x" });
    let list = task(0, "make", &module("probe.wasm"), write);
    let each = parallel_task(
        1,
        "each",
        &module("swiss.wasm"),
        "list",
        json!({ "echo": ["component"] }),
    );
    project.workflow(&[list, each]);
    project.write("metadata.json", r#"{"list": ["x", "y"]}"#);
}

fn run_to(project: &Project, input: &str, output: &str, more: &[&str]) -> Ended {
    let paths = [
        "--input",
        input,
        "--output",
        output,
        "--work-dir",
        "work",
        "--metadata",
        "metadata.json",
    ];
    project.mandelbox(&[&["run", "workflow.json"], &paths[..], more].concat())
}

fn run(project: &Project, more: &[&str]) -> Ended {
    run_to(project, "in", "res", more)
}

/// Calls that began since the run was started or resumed for the last time, as task and component.
fn begun(project: &Project) -> Vec<(u64, Value)> {
    let log = project.read("work/events.jsonl");
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    let is_start =
        |event: &Value| event["event"] == "run_started" || event["event"] == "run_resumed";
    let start = events.iter().rposition(is_start).expect("a start");
    let calls = events[start..]
        .iter()
        .filter(|event| event["event"] == "call_started");
    calls
        .map(|event| {
            (
                event["task"].as_u64().expect("an order"),
                event["item"].clone(),
            )
        })
        .collect()
}

const MAKE: (u64, Value) = (0, Value::Null);

fn refused(project: &Project, texts: &[&str]) {
    let (tree, log) = (project.tree(), project.read("work/events.jsonl"));
    run(project, &["--resume"]).expect(2).reports(texts);
    assert_eq!(
        (project.tree(), project.read("work/events.jsonl")),
        (tree, log),
        "something was changed"
    );
}

fn rename(project: &Project, from: &str, to: &str) {
    std::fs::rename(project.path(from), project.path(to)).expect("renamed");
}

#[test]
fn a_run_without_its_output_is_refused_and_resumes_once_it_is_back() {
    let project = project();
    run(&project, &[]).expect(0);
    rename(&project, "res", "elsewhere");
    refused(
        &project,
        &[
            "/res: does not exist any more",
            "(3)",
            "mount or restore",
            "`--rerun-from 0`",
        ],
    );
    // As a mount point is without its disk.
    std::fs::create_dir(project.path("res")).expect("made");
    refused(&project, &["/res: is empty now"]);
    project.write("res/of-somebody.txt", "");
    refused(
        &project,
        &[
            "/res: is another folder than before",
            "`--rerun-from` with the next one",
        ],
    );
    std::fs::remove_dir_all(project.path("res")).expect("removed");
    rename(&project, "elsewhere", "res");
    run(&project, &["--resume"]).expect(0);
    assert_eq!(begun(&project), []);
    std::fs::remove_file(project.path("res/a.txt")).expect("removed");
    refused(&project, &["/res: is empty now"]);
}

/// A folder that is removed and created again can have the inode of the one before.
#[test]
fn an_output_that_was_created_again_is_another_folder() {
    let project = project();
    project.write("res/before.txt", "");
    run(&project, &[]).expect(0);
    for _ in 0..5 {
        std::fs::remove_dir_all(project.path("res")).expect("removed");
        project.write("res/before.txt", "");
        refused(&project, &["/res: is another folder than before"]);
    }
}

#[test]
fn tasks_are_rerun_from_the_given_one() {
    let project = project();
    run(&project, &["--rerun-from", "0"])
        .expect(2)
        .reports(&["--resume"]);
    run(&project, &[]).expect(0);
    std::fs::remove_dir_all(project.path("res")).expect("removed");
    run(&project, &["--resume", "--rerun-from", "1"])
        .expect(2)
        .reports(&["does not exist any more"]);
    run(&project, &["--resume", "--rerun-from", "0", "--jobs", "1"]).expect(0);
    assert_eq!(begun(&project), [MAKE, (1, json!("x")), (1, json!("y"))]);
    assert_eq!(project.read("res/a.txt"), "x");
    run(&project, &["--resume"]).expect(0);
    assert_eq!(begun(&project), []);
    for named in ["1", "each"] {
        run(
            &project,
            &["--resume", "--rerun-from", named, "--jobs", "1"],
        )
        .expect(0);
        assert_eq!(
            begun(&project),
            [(1, json!("x")), (1, json!("y"))],
            "{named}"
        );
    }
    let note = "2 calls of task 1 and later tasks had succeeded and run again";
    assert!(project.read("work/workflow.log").contains(note));
    let texts = [
        "--rerun-from 7: no task that runs has this order or name; the tasks are 0 \"make\", 1 \
         \"each\"",
    ];
    run(&project, &["--resume", "--rerun-from", "7"])
        .expect(2)
        .reports(&texts);
    let texts = ["no task that runs has this order or name; the tasks are 0 \"make\"\n"];
    run(
        &project,
        &["--resume", "--rerun-from", "each", "--last-task", "0"],
    )
    .expect(2)
    .reports(&texts);
}

#[test]
fn a_copy_of_the_output_is_used_from_the_given_first_task_on() {
    let project = project();
    run(&project, &[]).expect(0);
    rename(&project, "res", "elsewhere");
    project.write("res/a.txt", "x");
    refused(&project, &["is another folder than before"]);
    let texts =
        ["/res: is another folder than before; the data of the tasks that are kept must be in it"];
    run(
        &project,
        &["--resume", "--rerun-from", "each", "--jobs", "1"],
    )
    .expect(0)
    .reports(&texts);
    assert_eq!(begun(&project), [(1, json!("x")), (1, json!("y"))]);
    run(&project, &["--resume"]).expect(0);
    assert_eq!(begun(&project), []);
}

#[test]
fn another_output_path_is_another_run_of_all_tasks() {
    let project = project();
    run(&project, &[]).expect(0);
    write_workflow(&project, "new");
    run_to(&project, "in", "new", &["--resume"]).expect(0);
    assert_eq!(begun(&project).len(), 3);
}

/// Warnings of the last run.
fn warnings(project: &Project) -> Vec<String> {
    let log = project.read("work/events.jsonl");
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    let start = events
        .iter()
        .rposition(|event| event["event"] == "run_resumed")
        .expect("resumed");
    let warnings = events[start..]
        .iter()
        .filter(|event| event["event"] == "warning");
    warnings
        .map(|event| event["message"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn inputs_that_have_changed_are_named_until_the_tasks_ran_again() {
    type Change = fn(&Project);
    let changes: [(Change, &str); 6] = [
        (
            |project| drop(project.write("in/plate/image.tif", "others")),
            "`plate/image.tif` was added or changed",
        ),
        (
            |project| drop(project.write("in/plate/new.tif", "")),
            "`plate/new.tif` was added or changed",
        ),
        (
            |project| std::fs::remove_file(project.path("in/plate/new.tif")).expect("removed"),
            "entries of `plate` were added or removed",
        ),
        (
            // Of the same size, and with the times of a file that is older than all that were
            // there.
            |project| {
                let file = std::fs::File::create(project.path("in/old")).expect("made");
                file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                    .expect("set");
            },
            "`old` was added or changed",
        ),
        (
            |project| rename(project, "in", "away"),
            "it is missing or cannot be read",
        ),
        (|project| rename(project, "away", "in"), ""),
    ];
    let project = project();
    run(&project, &[]).expect(0);
    run(&project, &["--resume"]).expect(0);
    assert_eq!(warnings(&project), [""; 0]);
    for (change, text) in changes {
        change(&project);
        for _ in 0..2 {
            let ended = run(&project, &["--resume"]).expect(0);
            assert_eq!(begun(&project), [], "{text}");
            let named = warnings(&project)
                .into_iter()
                .filter(|warning| warning.contains("/in: ") && warning.contains(text));
            let advice = "since the calls ran whose results are reused; `--rerun-from 0` \
                reruns task 0 and all after it";
            if text.is_empty() {
                continue;
            }
            assert!(
                named.clone().any(|warning| warning.contains(advice)),
                "{text}: {:?}",
                warnings(&project)
            );
            assert!(ended.stderr.contains(text), "{}", ended.stderr);
        }
        if project.path("in").is_dir() {
            run(&project, &["--resume", "--rerun-from", "make"]).expect(0);
            assert_eq!(begun(&project).len(), 3, "{text}");
            run(&project, &["--resume"]).expect(0);
            assert_eq!(warnings(&project), [""; 0], "{text}");
        }
    }
}

#[test]
fn what_the_run_itself_writes_is_no_change_of_an_input() {
    for (input, output) in [("data", "data"), ("data", "data/res"), ("link", "data")] {
        let project = Project::new();
        project.write("data/image.tif", "pixels");
        std::os::unix::fs::symlink(project.path("data"), project.path("link")).expect("made");
        write_workflow(&project, output);
        let ended = run_to(&project, input, output, &[]);
        if ended.code == 2 {
            assert!(input == "link", "{}", ended.stderr);
            continue;
        }
        ended.expect(0);
        run_to(&project, input, output, &["--resume"]).expect(0);
        assert_eq!(
            (begun(&project), warnings(&project)),
            (Vec::new(), Vec::new()),
            "{input} and {output}"
        );
        // A file of somebody else next to the output still is one.
        if output == "data/res" {
            project.write("data/new.tif", "");
            run_to(&project, input, output, &["--resume"])
                .expect(0)
                .reports(&["`new.tif` was added or changed"]);
        }
    }
}

#[test]
fn special_files_and_links_in_inputs_are_only_looked_at() {
    let project = project();
    project.write("secret/a", "");
    std::os::unix::fs::symlink(project.path("secret"), project.path("in/link")).expect("made");
    std::os::unix::fs::symlink(project.path("in"), project.path("in/loop")).expect("made");
    let fifo = std::process::Command::new("mkfifo")
        .arg(project.path("in/fifo"))
        .status();
    assert!(fifo.expect("started").success());
    run(&project, &[]).expect(0);
    let log = project.read("work/events.jsonl");
    let start: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("an event");
    let input = &start["inputs"][0];
    assert_eq!(
        (&input["n_entries"], &input["is_whole"]),
        (&json!(5), &json!(true)),
        "{input}"
    );
    project.write("secret/b", "");
    run(&project, &["--resume"]).expect(0);
    assert_eq!(warnings(&project), [""; 0]);
}

#[test]
fn large_inputs_are_looked_at_in_part() {
    let project = project();
    let folder = project.path("in/many");
    std::fs::create_dir(&folder).expect("made");
    // Links to one file are faster than as many files.
    for part in 0..11 {
        let one = project.write("one", "");
        let folder = folder.join(part.to_string());
        std::fs::create_dir(&folder).expect("made");
        for index in 0..10_000 {
            std::fs::hard_link(&one, folder.join(index.to_string())).expect("linked");
        }
        std::fs::remove_file(one).expect("removed");
    }
    let walk = |project: &Project| {
        let log = project.read("work/events.jsonl");
        let last = log
            .lines()
            .rfind(|line| line.contains("\"inputs\""))
            .expect("a start");
        serde_json::from_str::<Value>(last).expect("an event")["inputs"][0].clone()
    };
    let ended = run(&project, &[]).expect(0);
    let first = walk(&project);
    assert!(
        first["is_whole"] == false && first["n_entries"].as_u64() <= Some(100_000),
        "{first}"
    );
    assert!(
        ended.elapsed < std::time::Duration::from_secs(20),
        "{:?}",
        ended.elapsed
    );
    run(&project, &["--resume"]).expect(0);
    assert_eq!(warnings(&project), [""; 0]);
}

#[test]
fn a_copy_of_a_work_directory_is_reported() {
    let project = project();
    run(&project, &[]).expect(0);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([project.path("work"), project.path("copy")])
        .status();
    assert!(copied.expect("started").success());
    let resume = |work_dir: &str| {
        let arguments = [
            "--input",
            "in",
            "--output",
            "res",
            "--metadata",
            "metadata.json",
            "--resume",
        ];
        project
            .mandelbox(
                &[
                    &["run", "workflow.json", "--work-dir", work_dir],
                    &arguments[..],
                ]
                .concat(),
            )
            .expect(0)
    };
    let text = "the work directory is a copy of ";
    assert!(resume("copy").stderr.contains(text));
    rename(&project, "copy", "moved");
    assert!(Path::new(&project.path("moved/events.jsonl")).is_file());
    assert!(!resume("moved").stderr.contains(text));
}
