//! Jobs that SLURM ends: each end is reported with node and reason, and loses no call.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::project::{Project, finish, module, parallel_task};
use crate::slurm::{
    begin, check_calls, events, is_whole, local, project, result, run, wait, write_config,
};
use crate::slurm_cluster::{Cluster, Settings};
use crate::wheels::wheel_of_version_1;

/// Identifier of a job that runs.
fn running_job(cluster: &Cluster) -> Option<String> {
    let jobs = cluster.output("squeue", &["-h", "-r", "-t", "RUNNING", "-o", "%i"]);
    jobs.lines().next().map(str::to_owned)
}

/// State and message of the jobs that have ended with this state.
#[track_caller]
fn check_end(project: &Project, state: &str, message: &str) {
    let ended = events(project)
        .into_iter()
        .filter(|event| event["event"] == "job_ended" && event["state"] == state);
    assert!(ended.count() > 0, "no job with {state}");
    let warnings = project.read("stderr");
    let is_end = |line: &&str| line.contains(message) && line.contains("calls run again");
    let line = warnings.lines().find(is_end);
    let line = line.unwrap_or_else(|| panic!("{message}: {warnings}"));
    assert!(line.contains("on node n"), "{line}");
}

/// The time limit of a running job is lowered, so that it is over.
#[test]
fn a_job_over_its_time_limit_is_named() {
    if !is_whole() {
        println!("skipped: set MANDELBOX_TEST_WHOLE to run it");
        return;
    }
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    // SLURM checks limits every 30 s.
    let project = project(16, 45_000);
    let child = begin(&project, &cluster);
    cluster.wait_for("a job that runs", |cluster| running_job(cluster).is_some());
    let job = format!("JobId={}", running_job(&cluster).expect("a job"));
    cluster.output("scontrol", &["update", &job, "EndTime=now+1"]);
    wait(&project, child);
    assert_eq!(result(&project), local(16));
    check_calls(&project, 32);
    check_end(&project, "TIMEOUT", "ended with TIMEOUT; raise `time`");
}

/// A job of a partition with a higher priority takes the place of others.
#[test]
fn a_job_that_is_preempted_is_named() {
    let settings = Settings {
        n_nodes: 2,
        ..Settings::default()
    };
    let Some(cluster) = Cluster::start(settings) else {
        return;
    };
    let project = project(16, 4000);
    let child = begin(&project, &cluster);
    let is_full = |cluster: &Cluster| {
        let running = cluster.jobs();
        let running = running.iter().filter(|[state, ..]| state == "RUNNING");
        running.count() == 2
    };
    cluster.wait_for("a job on each node", is_full);
    std::thread::sleep(Duration::from_millis(500));
    let urgent = ["--partition=urgent", "--cpus-per-task=4", "-o", "/dev/null"];
    cluster.output("sbatch", &[&urgent[..], &["--wrap", "sleep 1"]].concat());
    wait(&project, child);
    assert_eq!(result(&project), local(16));
    check_calls(&project, 32);
    check_end(&project, "PREEMPTED", "ended with PREEMPTED");
}

/// The calls need more memory than their jobs get, so they are lost after 3 jobs.
#[test]
fn a_job_over_its_memory_is_named() {
    let settings = Settings {
        n_nodes: 1,
        limits_memory: true,
        ..Settings::default()
    };
    let Some(cluster) = Cluster::start(settings) else {
        return;
    };
    let project = project(1, 0);
    let steps = json!([{ "do": "allocate_mib", "n": 900 }]);
    let task = parallel_task(
        0,
        "large",
        &module("typed.wasm"),
        "list",
        json!({ "steps": steps }),
    );
    project.workflow(&[task]);
    let ended = run(&project, &cluster).expect(4);
    ended.reports(&[
        "ended with OUT_OF_MEMORY; raise `mem` of the task",
        "on node n1",
        "calls run again",
        "was lost",
    ]);
}

/// Workers count the open files of their own machine, and the run does not count those of its own.
#[test]
fn open_files_are_those_of_the_node() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(4, 0);
    write_config(&project, 4, &["ulimit -n 100"]);
    run(&project, &cluster).expect(4).reports(&[
        "refused its calls",
        "100 open files are too few for `parallel_tasks_per_job 4`; raise the limit to 128",
    ]);
    let shell = "ulimit -n 60; exec \"$@\"";
    let arguments = ["run", "workflow.json", "--input", "in", "--output", "out"];
    let more = ["--metadata", "metadata.json", "--jobs", "9", "--dry-run"];
    let run_with = |backend: &[&str]| {
        let command = project.command(&[&arguments[..], &more, backend].concat());
        let mut limited = Command::new("sh");
        limited.args(["-c", shell, "-"]);
        limited.arg(command.get_program()).args(command.get_args());
        limited.current_dir(command.get_current_dir().expect("a folder"));
        finish(limited)
    };
    run_with(&[])
        .expect(2)
        .reports(&["60 open files are too few"]);
    run_with(&["--backend", "slurm", "--slurm-config", "slurm.json"]).expect(0);
}

/// Nodes see neither a temporary folder of the submitting machine nor its cache.
#[test]
fn a_wheel_is_copied_for_jobs() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(1, 0);
    project.write("x-1.0-py3-none-any.whl", wheel_of_version_1());
    let task = json!({ "args": {}, "meta": null, "task": { "source": "fractal_x:t" } });
    project.workflow(&[task]);
    let arguments = ["--tasks", "x-1.0-py3-none-any.whl", "--no-cache"];
    let arguments = [&crate::slurm::RUN[..], &arguments].concat();
    let run = || crate::slurm::run_with(&project, &cluster, &arguments);
    run().expect(0);
    let packages: Vec<_> = std::fs::read_dir(project.path("work/.packages"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(packages.len(), 1, "{packages:?}");
    // The next run finds the copy, and the copy is removed with the run.
    run().expect(0);
    let n_calls = events(&project)
        .into_iter()
        .filter(|event| event["event"] == "call_started");
    assert_eq!(n_calls.count(), 1);
    let clean = ["runs", "work", "--clean", "--yes"];
    project.mandelbox(&clean).expect(0);
    assert!(!project.path("work").exists());
}
