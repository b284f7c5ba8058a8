//! Event logs that a run is resumed from: cut ones, and those of something else.

use super::{begun, tasks};
use crate::project::{Project, fractal_history, resealed};

#[test]
fn only_a_work_directory_of_this_workflow_is_resumed() {
    let project = Project::new();
    project.workflow(&tasks());
    // One that is not there, or in which no run has begun, is begun.
    project.write("work/.mandelbox-lock", "");
    project.run(&["--resume"]).expect(0);
    assert_eq!(project.events_of("run_started").len(), 1);

    let refused = |project: &Project, texts: &[&str]| {
        let before = project.tree();
        project.run(&["--resume"]).expect(2).reports(texts);
        assert_eq!(project.tree(), before);
    };
    let log = project.read("work/events.jsonl");
    let of_other = log.replacen("\"workflow\":\"test\"", "\"workflow\":\"other\"", 1);
    project.write("work/events.jsonl", resealed(&of_other));
    refused(
        &project,
        &["contains a run of the workflow \"other\", not of \"test\""],
    );
    let of_other_version = log.replacen("\"format_version\":3", "\"format_version\":4", 1);
    project.write("work/events.jsonl", resealed(&of_other_version));
    refused(
        &project,
        &["events.jsonl: line 1: has format version 4; this version of mandelbox reads 3"],
    );

    let project = Project::new();
    project.workflow(&tasks());
    for notes in ["notes of a meeting\n", "{}\n{}\n", "no line feed"] {
        project.write("work/events.jsonl", notes);
        refused(&project, &["events.jsonl is not an event log of mandelbox"]);
        assert_eq!(project.read("work/events.jsonl"), notes);
    }

    let project = Project::new();
    project.workflow(&tasks());
    project.write("work/metadata.json", "{}");
    refused(
        &project,
        &[
            "holds files but no run of mandelbox",
            "there is no events.jsonl",
        ],
    );
    assert_eq!(project.read("work/metadata.json"), "{}");
    project
        .mandelbox(&["run", "workflow.json", "--output", "out", "--resume"])
        .expect(2)
        .reports(&["--work-dir"]);
}

#[test]
fn a_run_whose_log_is_cut_anywhere_is_resumed() {
    let project = Project::new();
    project.workflow(&tasks());
    project.run(&["--jobs", "1"]).expect(0);
    let result = project.json("work/result.json");
    let log = project.read("work/events.jsonl").into_bytes();
    let ends: Vec<_> = (0..log.len())
        .filter(|index| log[*index] == b'\n')
        .map(|index| index + 1)
        .collect();
    let cuts = ends.iter().flat_map(|end| [*end, end.saturating_sub(7)]);
    for cut in cuts.chain([0]) {
        project.write("work/events.jsonl", &log[..cut]);
        project.write("work/.mandelbox-a1b2c3.unfinished", "{");
        project.write("work/.scratch/0/sub/left", "of a killed call");
        let n_done = log[..cut]
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| {
                let line = String::from_utf8_lossy(line);
                line.contains("\"call_finished\"") && line.ends_with('\n')
            });
        let n_done = n_done.count();
        let ended = project.run(&["--resume"]);
        let before = log[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(ended.code, 0, "cut at {cut}: {}", ended.stderr);
        assert_eq!(begun(&project, before).len(), 6 - n_done, "cut at {cut}");
        let resumed = project.json("work/result.json");
        assert_eq!(resumed["metadata"], result["metadata"], "cut at {cut}");
        assert_eq!(
            fractal_history(&resumed["history"]),
            fractal_history(&result["history"]),
            "cut at {cut}"
        );
        let left: Vec<_> = project
            .tree()
            .into_iter()
            .filter(|path| path.contains("/."))
            .collect();
        assert!(left.is_empty(), "cut at {cut}: {left:?}");
    }
}
