//! `run --backend slurm` on a real cluster: results, and what disturbs them.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish_within, fractal_history, module, parallel_task, task};
use crate::slurm_cluster::{Cluster, Settings};

/// Longest time of a run in these tests.
const RUN_TIMEOUT: Duration = Duration::from_secs(240);

pub const RUN: [&str; 19] = [
    "run",
    "workflow.json",
    "--input",
    "in",
    "--output",
    "out",
    "--work-dir",
    "work",
    "--metadata",
    "metadata.json",
    "--backend",
    "slurm",
    "--slurm-config",
    "slurm.json",
    "--slurm-grace",
    "6s",
    "--progress",
    "never",
    "--resume",
];

pub fn is_whole() -> bool {
    std::env::var_os("MANDELBOX_TEST_WHOLE").is_some()
}

/// True in a run of all tests; otherwise prints what is left out.
pub fn is_tried() -> bool {
    if !is_whole() {
        println!("skipped: set MANDELBOX_TEST_WHOLE to run it");
    }
    is_whole()
}

/// Two tasks, a command and a typed one, with a call for each of `n` components.
pub fn project(n: usize, sleep_ms: u64) -> Project {
    project_named(Project::new(), n, sleep_ms)
}

fn project_named(project: Project, n: usize, sleep_ms: u64) -> Project {
    let command = json!({ "echo": ["component"], "stdout": "said", "sleep_ms": sleep_ms });
    let steps = json!([
        { "do": "log", "level": "info", "message": "logged" },
        { "do": "sleep_ms", "ms": sleep_ms },
        { "do": "args" }
    ]);
    project.workflow(&[
        parallel_task(0, "first", &module("swiss.wasm"), "list", command),
        parallel_task(
            1,
            "typed",
            &module("typed.wasm"),
            "list",
            json!({ "steps": steps }),
        ),
    ]);
    let list: Vec<_> = (0..n)
        .map(|index| format!("B/{:02}/{index}", index % 12))
        .collect();
    project.write("metadata.json", json!({ "list": list }).to_string());
    write_config(&project, 4, &[]);
    project
}

/// * `parallel`: calls of a job that run at the same time.
pub fn write_config(project: &Project, parallel: u64, extra_lines: &[&str]) {
    let config = json!({
        "default_slurm_config": {
            "partition": "main", "cpus_per_task": 1, "mem": "100M", "extra_lines": extra_lines
        },
        "batching_config": {
            "target_cpus_per_job": parallel, "max_cpus_per_job": parallel,
            "target_mem_per_job": 100 * parallel, "max_mem_per_job": 100 * parallel,
            "target_num_jobs": 4, "max_num_jobs": 4
        }
    });
    project.write("slurm.json", config.to_string());
}

pub fn command(project: &Project, cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command
        .env("SLURM_CONF", cluster.config())
        .env("MANDELBOX_TEST_PROGRAM", "secret-of-the-user");
    command
}

pub fn run(project: &Project, cluster: &Cluster) -> Ended {
    run_with(project, cluster, &RUN)
}

pub fn run_with(project: &Project, cluster: &Cluster, arguments: &[&str]) -> Ended {
    finish_within(command(project, cluster, arguments), RUN_TIMEOUT)
}

/// A run that goes on while the test disturbs it.
pub fn begin(project: &Project, cluster: &Cluster) -> Child {
    command(project, cluster, &RUN)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(project.path("stderr")).expect("a file"))
        .spawn()
        .expect("started")
}

#[track_caller]
pub fn wait(project: &Project, mut child: Child) {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            assert!(status.success(), "{status}: {}", project.read("stderr"));
            return;
        }
        if started.elapsed() > RUN_TIMEOUT {
            let _ = child.kill();
            panic!("the run did not end: {}", project.read("stderr"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn result(project: &Project) -> (Value, Vec<Value>) {
    let result = project.json("work/result.json");
    (
        result["metadata"].clone(),
        without_times(fractal_history(&result["history"])),
    )
}

/// The args of the tasks of these tests have different times to sleep.
fn without_times(mut history: Vec<Value>) -> Vec<Value> {
    fn remove(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(remove),
            Value::Object(map) => {
                map.shift_remove("sleep_ms");
                map.shift_remove("ms");
                map.values_mut().for_each(remove);
            }
            _ => {}
        }
    }
    history.iter_mut().for_each(remove);
    history
}

/// The result of the same workflow on this machine.
pub fn local(n: usize) -> (Value, Vec<Value>) {
    let project = project(n, 0);
    crate::project::finish(project.command(&RUN[..10])).expect(0);
    result(&project)
}

pub fn events(project: &Project) -> Vec<Value> {
    let log = project.read("work/events.jsonl");
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// More calls than have files of their own: their records are in one file for each job, and in the
/// arguments of each call is the list of all items.
#[test]
fn packed_records_of_jobs_are_found() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = Project::new();
    let args = json!({ "echo": ["component"], "stdout": "said" });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "list", args)]);
    let list: Vec<_> = (0..1200).map(|index| format!("B/{index}")).collect();
    project.write("metadata.json", json!({ "list": list }).to_string());
    write_config(&project, 4, &[]);
    run(&project, &cluster).expect(0);
    check_calls(&project, 1200);
    let shown = project
        .mandelbox(&["show", "work", "0", "B/1100"])
        .expect(0);
    let text = format!("{}{}", shown.stdout, shown.stderr);
    assert!(text.contains("said"), "{text}");
}

/// No call has ended twice, each of them has, and each has begun before.
#[track_caller]
pub fn check_calls(project: &Project, n_calls: usize) {
    let mut began = BTreeSet::new();
    let mut ended: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for event in events(project) {
        let number = |key: &str| event[key].as_u64().expect("a number");
        match event["event"].as_str() {
            Some("call_started") => {
                began.insert((number("task"), number("call_index"), number("attempt")));
            }
            Some("call_finished") => {
                let call = (number("task"), number("call_index"));
                assert!(
                    began.contains(&(call.0, call.1, number("attempt"))),
                    "{event}"
                );
                if event["outcome"] == "succeeded" {
                    *ended.entry(call).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    assert_eq!(ended.len(), n_calls, "calls that succeeded");
    let twice: Vec<_> = ended.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "counted twice: {twice:?}");
}

#[test]
fn results_equal_those_of_a_run_on_this_machine() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(40, 1);
    run(&project, &cluster).expect(0);
    assert_eq!(result(&project), local(40));
    check_calls(&project, 80);
    // 4 jobs for each task, and nothing is left behind.
    let jobs = cluster.jobs();
    assert_eq!(jobs.len(), 8, "{jobs:?}");
    assert!(!project.path("work/.jobs").exists());
    assert!(project.path("work/0_first/0_par_b_00_0.args.json").exists());
    let ended: Vec<_> = events(&project)
        .into_iter()
        .filter(|event| event["event"] == "job_ended")
        .collect();
    assert_eq!(ended.len(), 8);
    for event in ended {
        assert_eq!(event["n_calls"], 10, "{event}");
        assert!(
            event["queued_s"].is_number() && event["ran_s"].is_number(),
            "{event}"
        );
        assert!(
            event["node"]
                .as_str()
                .is_some_and(|node| node.starts_with('n')),
            "{event}"
        );
    }
    let status = project.mandelbox(&["status", "work"]).expect(0);
    let status = status.reports(&["jobs: 0 queued, 0 running, 4 ended; mean queue time"]);
    assert!(status.stderr.contains("backend slurm"), "{}", status.stderr);

    // A call that fails ends the run as it does here.
    let args = json!({ "exit": 3, "stderr": "went wrong" });
    project.workflow(&[parallel_task(
        0,
        "fails",
        &module("swiss.wasm"),
        "list",
        args,
    )]);
    std::fs::remove_dir_all(project.path("work")).expect("removed");
    let ended = run(&project, &cluster).expect(3);
    ended.reports(&["TaskExecutionError", "exited with code 3", "went wrong"]);
}

#[test]
fn names_with_blanks_and_quotes_and_no_secret() {
    let settings = Settings {
        max_array_size: 3,
        ..Settings::default()
    };
    let Some(cluster) = Cluster::start(settings) else {
        return;
    };
    let project = Project::new();
    let work = "it's a \"work\" %j $(touch x)";
    // An array has 3 elements at most, so 4 jobs are two arrays.
    let project = project_named(project, 12, 0);
    write_config(&project, 1, &["env > /dev/stderr"]);
    let mut arguments = RUN.to_vec();
    arguments[7] = work;
    // The log of a job is there while the jobs run.
    let mut child = command(&project, &cluster, &arguments);
    let logs = project.path(work).join(".jobs");
    let mut child = child.stderr(Stdio::piped()).spawn().expect("started");
    let mut variables = String::new();
    while child.try_wait().expect("waited for").is_none() {
        let rounds = walk(&logs);
        for log in rounds.iter().filter(|path| path.ends_with(".log")) {
            variables.push_str(&std::fs::read_to_string(log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("waited for");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(variables.contains("SLURM_JOB_ID="), "{variables}");
    assert!(!variables.contains("secret-of-the-user"), "{variables}");
    assert!(!project.path("x").exists());
    let result = project.json(&format!("{work}/result.json"));
    assert_eq!(result["metadata"], local(12).0);
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            paths.extend(walk(&path));
        } else {
            paths.push(path.to_string_lossy().into_owned());
        }
    }
    paths
}

/// A job that asks for more than a node has is accepted, and waits for ever.
#[test]
fn a_job_that_never_starts_is_reported_with_the_reason() {
    let settings = Settings {
        n_nodes: 1,
        n_cpus: 2,
        ..Settings::default()
    };
    let Some(cluster) = Cluster::start(settings) else {
        return;
    };
    let project = project(4, 0);
    let mut child = begin(&project, &cluster);
    let warning =
        "jobs wait in the queue (PartitionConfig); no node of the partition can give a job";
    cluster.wait_for("the warning", |_| project.read("stderr").contains(warning));
    let id = child.id().to_string();
    let ended = Command::new("kill").args(["-INT", &id]).status();
    assert!(ended.expect("started").success());
    assert_eq!(child.wait().expect("waited for").code(), Some(130));
    let jobs = cluster.jobs();
    assert!(
        jobs.iter().all(|[state, ..]| state != "PENDING"),
        "{jobs:?}"
    );
}

#[test]
fn jobs_of_another_program_are_refused() {
    let project = project(1, 0);
    let batch = project.write("batch.json", r#"{"format_version":1,"version":"0.0.1"}"#);
    let batch = batch.to_str().expect("UTF-8");
    let ended = project.mandelbox(&["worker", "--batch", batch, "--slice", "0"]);
    ended
        .expect(2)
        .reports(&["is from mandelbox 0.0.1", "use the same program"]);
}

#[test]
fn wrong_configurations_are_refused() {
    let project = project(1, 0);
    let run = || project.mandelbox(&RUN);
    project.write(
        "slurm.json",
        r#"{"default_slurm_config":{"partitoin":"x"},"x":1}"#,
    );
    run().expect(2).reports(&[
        "slurm.json: /x: unknown key",
        "/default_slurm_config/partitoin: unknown key",
        "missing key `batching_config`",
    ]);
    write_config(&project, 1, &[]);
    let mut wrong = task(0, "t", &module("swiss.wasm"), json!({}));
    wrong["meta"] = json!({ "account": "x", "cpus_per_task": 5, "tasks_per_job": 2 });
    project.workflow(&[wrong]);
    run().expect(2).reports(&[
        "/task_list/0/meta/account: a task cannot choose the account",
        "task 0: a call needs 5 CPUs, and a job has 1 at most",
    ]);
    let arguments = ["--slurm-config", "slurm.json"];
    project
        .run(&arguments)
        .expect(2)
        .reports(&["is an option of `--backend slurm`"]);
}

#[test]
fn a_run_with_jobs_is_not_resumed_on_this_machine() {
    let project = project(1, 0);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    project.write("work/.jobs/0/submissions", "");
    let resume = ["--metadata", "metadata.json", "--resume"];
    project.run(&resume).expect(2).reports(&[
        "the interrupted run has jobs on a cluster",
        "add `--backend slurm`",
    ]);
}

/// The environment names the configuration, and a dry run shows the plan without a cluster.
#[test]
fn a_dry_run_shows_the_script() {
    let project = project(100, 0);
    let mut arguments = RUN[..12].to_vec();
    arguments.push("--dry-run");
    let mut command = project.command(&arguments);
    command
        .env("PATH", "/nonexistent")
        .env("FRACTAL_SLURM_CONFIG_FILE", project.path("slurm.json"));
    let ended = crate::project::finish(command).expect(0);
    ended.reports(&[
        "100 calls in 4 jobs of at most 25 calls, 4 at a time; arrays of 4 jobs",
        "#SBATCH --mem=400M",
        "#SBATCH --partition=main",
        "#SBATCH --array=0-3",
        "--slice \"$SLURM_ARRAY_TASK_ID\"",
    ]);
}

#[test]
fn doctor_checks_the_cluster() {
    let Some(cluster) = Cluster::start(Settings {
        n_nodes: 1,
        ..Settings::default()
    }) else {
        return;
    };
    let project = project(1, 0);
    let arguments = [
        "doctor",
        "--backend",
        "slurm",
        "--slurm-config",
        "slurm.json",
    ];
    let ended = finish_within(command(&project, &cluster, &arguments), RUN_TIMEOUT).expect(0);
    ended.reports(&[
        "good     sbatch",
        "good     controller",
        "cluster test, SLURM ",
        "a job read a file there and ran this program",
    ]);
    let mut command = project.command(&arguments);
    command.env("PATH", "/nonexistent");
    crate::project::finish(command)
        .expect(1)
        .reports(&["broken   sbatch"]);
}
