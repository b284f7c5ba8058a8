//! Event logs of which a disk gives back something else than was written: no result is wrong, and
//! the run is resumed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::project::{Project, fractal_history, module, parallel_task, task};

const PAGE: usize = 4096;
const N_COMPONENTS: usize = 24;

/// Every second case, or all of them.
fn is_tried(index: usize) -> bool {
    index.is_multiple_of(2) || std::env::var_os("MANDELBOX_TEST_WHOLE").is_some()
}

/// A finished run of a parallel task, one that sees its results, and another parallel one.
fn finished(mark: &str) -> (Project, Vec<u8>) {
    let project = Project::new();
    write_documents(&project, mark);
    run(&project, &[]).expect(0);
    let log = std::fs::read(project.path("work/events.jsonl")).expect("there");
    (project, log)
}

fn write_documents(project: &Project, mark: &str) {
    let echo = json!({ "echo": ["component", "mark"], "mark": mark });
    project.workflow(&[
        parallel_task(0, "first", &module("swiss.wasm"), "list", echo.clone()),
        task(
            1,
            "between",
            &module("swiss.wasm"),
            json!({ "echo": ["metadata"] }),
        ),
        parallel_task(2, "last", &module("swiss.wasm"), "list", echo),
    ]);
    let list: Vec<_> = (0..N_COMPONENTS)
        .map(|index| format!("B/{index}"))
        .collect();
    project.write("metadata.json", json!({ "list": list }).to_string());
}

fn run(project: &Project, more: &[&str]) -> crate::project::Ended {
    project.run(
        &[
            &[
                "--metadata",
                "metadata.json",
                "--task-files",
                "none",
                "--quiet",
            ],
            more,
        ]
        .concat(),
    )
}

fn result(project: &Project) -> (Value, Vec<Value>) {
    let result = project.json("work/result.json");
    (
        result["metadata"].clone(),
        fractal_history(&result["history"]),
    )
}

/// Position of each line's end.
fn line_ends(log: &[u8]) -> Vec<usize> {
    (0..log.len())
        .filter(|index| log[*index] == b'\n')
        .map(|index| index + 1)
        .collect()
}

fn event(line: &[u8]) -> Value {
    serde_json::from_slice(line).expect("an event")
}

/// Tasks and positions of the calls that succeeded in whole lines of `log` which are in `damaged`
/// too.
fn n_recorded(log: &[u8], damaged: &[u8], task: u64) -> usize {
    let left: std::collections::HashSet<_> =
        damaged.split_inclusive(|byte| *byte == b'\n').collect();
    let lines = log
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| left.contains(line))
        .map(event);
    lines
        .filter(|event| event["event"] == "call_finished" && event["task"] == task)
        .count()
}

/// The orders of the tasks of calls that began since the last start of the run; `None` if that is
/// its first one.
fn begun_again(project: &Project) -> Option<Vec<u64>> {
    let log = project.read("work/events.jsonl");
    let events: Vec<Value> = log.lines().map(|line| event(line.as_bytes())).collect();
    assert!(events.is_sorted_by(|one, next| one["seq"].as_u64() < next["seq"].as_u64()));
    let start = events
        .iter()
        .rposition(|event| event["event"] == "run_resumed")?;
    let calls = events[start..]
        .iter()
        .filter(|event| event["event"] == "call_started");
    Some(calls.filter_map(|event| event["task"].as_u64()).collect())
}

/// Resumes a run with a damaged log, and checks what comes of it.
fn check(
    project: &Project,
    log: &[u8],
    damaged: &[u8],
    expected: &(Value, Vec<Value>),
    what: &str,
) {
    project.write("work/events.jsonl", damaged);
    let ended = run(project, &["--resume"]);
    assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
    assert_eq!(result(project), *expected, "{what}");
    // Calls of the first task run again only if their records are lost, as long as the log has a
    // beginning. Lines of a later or of another log hide those that they took the place of.
    let has_others = what.contains("another");
    if let Some(again) = begun_again(project).filter(|_| !has_others) {
        let (n_again, n_reused) = (
            again.iter().filter(|task| **task == 0).count(),
            n_recorded(log, damaged, 0),
        );
        assert!(
            n_again <= N_COMPONENTS - n_reused,
            "{what}: {n_again} run again though {n_reused} are recorded"
        );
    }
    // What was repaired is whole for every later run.
    let ended = run(project, &["--resume"]);
    assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
    assert_eq!(result(project), *expected, "{what}");
    assert_eq!(
        begun_again(project),
        Some(Vec::new()),
        "{what}: run again though nothing is damaged any more"
    );
}

#[test]
fn a_page_that_is_lost_anywhere_costs_the_calls_in_it_and_no_more() {
    let (project, log) = finished("a");
    let expected = result(&project);
    let (_, of_other_run) = finished("b");
    let mut random = StdRng::seed_from_u64(7);
    let n_pages = log.len().div_ceil(PAGE);
    assert!(n_pages >= 6, "{} bytes", log.len());
    for page in 0..n_pages {
        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(log.len()));
        let replaced = |by: &[u8]| [&log[..start], by, &log[end..]].concat();
        let garbage: Vec<u8> = (start..end).map(|_| random.random()).collect();
        let other = (page + 2) % (n_pages - 1) * PAGE;
        let damages = [
            ("zeros", replaced(&vec![0; end - start])),
            ("garbage", replaced(&garbage)),
            ("nothing", replaced(b"")),
            ("another page", replaced(&log[other..other + PAGE])),
            (
                "itself twice",
                replaced(&[&log[start..end], &log[start..end]].concat()),
            ),
            (
                "a page of another run",
                replaced(&of_other_run[start..end.min(of_other_run.len())]),
            ),
        ];
        for (index, (what, damaged)) in damages.iter().enumerate() {
            if !is_tried(page + index) {
                continue;
            }
            check(
                &project,
                &log,
                damaged,
                &expected,
                &format!("page {page} of {n_pages} is {what}"),
            );
        }
    }
}

#[test]
fn a_bit_that_flips_anywhere_costs_a_call_and_no_more() {
    let (project, log) = finished("a");
    let expected = result(&project);
    let mut random = StdRng::seed_from_u64(11);
    let first_line = line_ends(&log)[0];
    for round in (0..24).filter(|round| is_tried(*round)) {
        let byte = random.random_range(if round < 4 {
            0..first_line
        } else {
            first_line..log.len()
        });
        let mut damaged = log.clone();
        damaged[byte] ^= 1 << random.random_range(0..8);
        check(
            &project,
            &log,
            &damaged,
            &expected,
            &format!("a bit of byte {byte}"),
        );
    }
}

#[test]
fn status_and_report_of_a_damaged_log_use_its_intact_part() {
    let (project, log) = finished("a");
    let mut damaged = log.clone();
    damaged[PAGE..2 * PAGE].fill(0);
    project.write("work/events.jsonl", &damaged);
    let warning = "events.jsonl is damaged: ";
    project.mandelbox(&["status", "work"]).expect(0).reports(&[
        "2 \"last\" done",
        warning,
        "`run --resume` reruns the calls",
    ]);
    project
        .mandelbox(&["report", "work", "--ro-crate"])
        .expect(0);
    assert!(project.read("work/report.html").contains(warning));
    run(&project, &["--resume"]).expect(0);
    assert!(project.read("work/workflow.log").contains(warning));
    assert_eq!(
        std::fs::read(project.path("work/events.damaged-1.jsonl")).expect("kept"),
        damaged
    );
    project.write(
        "work/events.jsonl",
        [b"\0\n".as_slice(), &log[PAGE..]].concat(),
    );
    let texts = [
        "its first line is damaged",
        "`run --resume` starts from scratch",
    ];
    project
        .mandelbox(&["status", "work"])
        .expect(2)
        .reports(&texts);
    run(&project, &["--resume"]).expect(0);
    assert!(
        project
            .read("work/workflow.log")
            .contains("its first line is missing, so none of its events count")
    );
    assert!(project.path("work/events.damaged-2.jsonl").is_file());
}

/// Runs with one mark, then with another, so that results of two kinds are in one log; each line is
/// lost once, and some with those around them. Whichever mark is asked for then, all results have
/// it.
#[test]
fn results_from_before_a_lost_session_do_not_count() {
    let (project, _) = finished("a");
    let of_a = result(&project);
    write_documents(&project, "b");
    run(&project, &["--resume"]).expect(0);
    let of_b = result(&project);
    assert_ne!(of_a, of_b);
    let log = std::fs::read(project.path("work/events.jsonl")).expect("there");
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let kinds = [
        "run_started",
        "run_resumed",
        "task_started",
        "task_finished",
    ];
    let is_turn = |line: &&[u8]| kinds.iter().any(|kind| event(line)["event"] == *kind);
    let turns: Vec<_> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_turn(line))
        .map(|(index, _)| index)
        .collect();
    let resumed = lines
        .iter()
        .position(|line| event(line)["event"] == "run_resumed")
        .expect("resumed");
    let losses = turns
        .iter()
        .flat_map(|turn| [*turn..turn + 1, *turn..turn + 8]);
    let losses: Vec<_> = losses
        .chain([resumed - 3..resumed + 40, 3..resumed + 30])
        .collect();
    for (_, lost) in losses
        .into_iter()
        .enumerate()
        .filter(|(index, _)| is_tried(*index))
    {
        let kept = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| !lost.contains(index));
        let damaged: Vec<u8> = kept.flat_map(|(_, line)| line.iter().copied()).collect();
        for (mark, expected) in [("a", &of_a), ("b", &of_b)] {
            write_documents(&project, mark);
            project.write("work/events.jsonl", &damaged);
            let ended = run(&project, &["--resume"]);
            assert_eq!(ended.code, 0, "{lost:?}: {}", ended.stderr);
            assert_eq!(
                result(&project),
                *expected,
                "{lost:?} of {} lines",
                lines.len()
            );
            // What tasks wrote last was written with `b`: no result of `a` counts, unless nothing
            // shows that `b` ran.
            let shows_b = lost.end < lines.len();
            if let (true, "a", Some(again)) = (shows_b, mark, begun_again(&project)) {
                assert_eq!(
                    again.len(),
                    2 * N_COMPONENTS + 1,
                    "{lost:?}: a result of `a` is kept though `b` ran after it"
                );
            }
        }
    }
}
