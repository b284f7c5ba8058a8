//! The effects of changed limits on a resumed run.

use serde_json::json;

use super::{begun, n_events, of_task, tasks};
use crate::project::{Project, module, parallel_task};

/// Resumes a run whose task 1 had one set of limits and has another now, and checks how many of its
/// calls start, and the reason for them.
fn check_limits(before: &[&str], now: &[&str], n_begun: usize, reason: Option<&str>) {
    let project = Project::new();
    project.workflow(&tasks());
    project.run(before).expect(0);
    let n_before = n_events(&project);
    let ended = project.run(&[&["--resume"], now].concat()).expect(0);
    assert_eq!(begun(&project, n_before).len(), n_begun, "{now:?}");
    match reason {
        Some(reason) => assert!(ended.stderr.contains(reason), "{}", ended.stderr),
        None => assert!(!ended.stderr.contains("rerun"), "{}", ended.stderr),
    }
}

#[test]
fn raised_limits_keep_results_and_lowered_ones_do_not() {
    let limits = ["--memory", "1GiB", "--timeout", "1h"];
    for raised in [
        &["--memory", "2GiB", "--timeout", "1h"][..],
        &["--memory", "1GiB", "--timeout", "2h"],
        &["--memory", "1GiB"],
        &limits,
    ] {
        check_limits(&limits, raised, 0, None);
    }
    let lower = "had succeeded but are rerun: a limit is lower now: ";
    check_limits(
        &limits,
        &["--memory", "2GiB", "--timeout", "59min"],
        6,
        Some(&format!("{lower}time 3540 s, was 3600 s")),
    );
    check_limits(
        &limits,
        &["--memory", "1023MiB", "--timeout", "2h"],
        6,
        Some(&format!("{lower}memory 1023 MiB, was 1 GiB")),
    );
}

/// A run that failed at a limit is resumed with a higher one: only what failed runs.
#[test]
fn calls_that_failed_at_a_limit_run_with_a_higher_one() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["small", "large"] }).to_string(),
    );
    let large = json!({ "metadiff": { "text": "x".repeat(2000) } });
    let args = json!({ "per_component": { "large": large } });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "c", args)]);
    let run = |limit: &str, more: &[&str]| {
        project.write(
            "policy.toml",
            format!("[default]\nmetadiff = \"{limit}\"\n"),
        );
        let options = ["--metadata", "metadata.json", "--policy", "policy.toml"];
        project.run(&[&options[..], &["--keep-going"], more].concat())
    };
    run("1KiB", &[])
        .expect(3)
        .reports(&["component \"large\"", "larger than 1 KiB"]);
    let before = n_events(&project);
    run("1MiB", &["--resume"]).expect(0);
    assert_eq!(begun(&project, before), of_task(0, &["large"]));
    // The limit counts that the batch had last, also for the call that ran before.
    let before = n_events(&project);
    run("512KiB", &["--resume"])
        .expect(0)
        .reports(&["a limit is lower now: output 512 KiB, was 1 MiB"]);
    assert_eq!(begun(&project, before).len(), 2);
}
