//! Runs on a cluster that are disturbed: the host, jobs, nodes or the controller are killed, jobs
//! are refused, requeued or cancelled. No call is lost, and none counts twice.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::project::{Project, finish_within};
use crate::slurm::{
    RUN, begin, check_calls, command, is_tried, is_whole, local, project, result, wait,
    write_config,
};
use crate::slurm_cluster::{Cluster, Settings};

/// Maximum time of a run in these tests.
const TIMEOUT: Duration = Duration::from_secs(240);

/// The host is killed at random moments; its jobs go on, and the run that resumes it finds them.
#[test]
fn a_run_that_is_killed_finds_its_jobs() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let n_kills = if is_whole() { 20 } else { 3 };
    let project = project(48, 100);
    let mut random = StdRng::seed_from_u64(17);
    for _ in 0..n_kills {
        let mut child = begin(&project, &cluster);
        std::thread::sleep(Duration::from_millis(random.random_range(50..2500)));
        if child.try_wait().expect("waited for").is_some() {
            break;
        }
        child.kill().expect("killed");
        child.wait().expect("waited for");
    }
    wait(&project, begin(&project, &cluster));
    assert_eq!(result(&project), local(48));
    check_calls(&project, 96);
}

/// Runs 24 calls, and disturbs them some time after a job has begun to run.
fn disturbed(after_ms: u64, disturb: impl FnOnce(&mut Cluster)) -> Option<(Project, Cluster)> {
    let mut cluster = Cluster::start(Settings::default())?;
    let project = project(24, 1500 + after_ms / 2);
    let child = begin(&project, &cluster);
    cluster.wait_for("a job that runs", |cluster| {
        cluster.running_node().is_some()
    });
    std::thread::sleep(Duration::from_millis(after_ms));
    disturb(&mut cluster);
    wait(&project, child);
    assert_eq!(result(&project), local(24));
    check_calls(&project, 48);
    Some((project, cluster))
}

/// SLURM restarts a job in the same folder: it keeps the results that it has.
#[test]
fn a_requeued_job_continues() {
    if !is_tried() {
        return;
    }
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(32, 1200);
    write_config(&project, 4, &["#SBATCH --requeue"]);
    let child = begin(&project, &cluster);
    cluster.wait_for("a job that runs", |cluster| {
        cluster.running_node().is_some()
    });
    std::thread::sleep(Duration::from_millis(1800));
    let jobs = cluster.output("squeue", &["-h", "-r", "-t", "RUNNING", "-o", "%i"]);
    let job = jobs.lines().next().expect("a job").to_owned();
    let requeued = cluster.command("scontrol", &["requeue", &job]).status();
    assert!(requeued.expect("started").success());
    wait(&project, child);
    assert_eq!(result(&project), local(32));
    check_calls(&project, 64);
}

#[test]
fn a_node_that_is_lost_loses_no_call() {
    let disturbed = disturbed(1000, |cluster| {
        let node = cluster.running_node().expect("a node");
        cluster.kill_node(node);
        let name = format!("NodeName=n{node}");
        let lost = ["update", &name, "State=DOWN", "Reason=lost"];
        cluster.output("scontrol", &lost);
    });
    let Some((project, _cluster)) = disturbed else {
        return;
    };
    let warnings = project.read("stderr");
    // The daemon can still report the end of its job.
    let reasons = ["NODE_FAIL", "FAILED (signal 9)"];
    let has_reason = reasons.iter().any(|reason| warnings.contains(reason));
    assert!(has_reason, "{warnings}");
    assert!(warnings.contains("on node n"), "{warnings}");
    assert!(warnings.contains("of its"), "{warnings}");
}

/// The daemon of a node dies, and its job goes on while the run gives the calls to another one.
#[test]
fn a_job_that_runs_on_does_not_count_twice() {
    if !is_tried() {
        return;
    }
    disturbed(1000, |cluster| {
        let node = cluster.running_node().expect("a node");
        cluster.kill_daemon(node);
        let name = format!("NodeName=n{node}");
        let lost = ["update", &name, "State=DOWN", "Reason=lost"];
        cluster.output("scontrol", &lost);
    });
}

/// The controller saves its state every 5 s; jobs that it has not saved are forgotten.
#[test]
fn a_controller_that_is_killed_is_waited_for() {
    if !is_tried() {
        return;
    }
    disturbed(6000, |cluster| {
        cluster.kill_controller();
        std::thread::sleep(Duration::from_secs(2));
        cluster.start_controller();
    });
}

/// A copy of `sbatch` that fails at its second call, and forgets to answer at its third.
#[test]
fn refused_jobs_are_submitted_later() {
    let settings = Settings {
        max_array_size: 2,
        ..Settings::default()
    };
    let Some(cluster) = Cluster::start(settings) else {
        return;
    };
    let project = project(16, 1);
    let script = "#!/bin/sh\n\
        n=$(cat COUNT 2>/dev/null || echo 0); n=$((n + 1)); echo $n > COUNT\n\
        if [ $n = 2 ]; then echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1; fi\n\
        if [ $n = 3 ]; then /usr/bin/sbatch \"$@\" > /dev/null; \
        echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1; fi\n\
        exec /usr/bin/sbatch \"$@\"\n";
    let count = project.path("count").display().to_string();
    let sbatch = project.write("bin/sbatch", script.replace("COUNT", &count));
    std::fs::set_permissions(&sbatch, std::fs::Permissions::from_mode(0o755)).expect("set");
    let mut command = command(&project, &cluster, &RUN);
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    command.env("PATH", path);
    let ended = finish_within(command, TIMEOUT).expect(0);
    ended.reports(&[
        "SLURM accepts no further jobs for now",
        "AssocMaxSubmitJobLimit",
        "SLURM did not answer",
    ]);
    assert_eq!(result(&project), local(16));
    check_calls(&project, 32);
}

/// Two copies of an element run at once: one of them takes over, and nothing counts twice.
#[test]
fn two_copies_of_a_job_do_not_count_twice() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(16, 800);
    let child = begin(&project, &cluster);
    let jobs = project.path("work/.jobs/0/r0");
    cluster.wait_for("results", |_| jobs.join("0.results").exists());
    let copy = Command::new(env!("CARGO_BIN_EXE_mandelbox"))
        .args(["worker", "--slice", "0", "--batch"])
        .arg(jobs.join("batch.json"))
        .env_clear()
        .output()
        .expect("started");
    wait(&project, child);
    assert!(
        [Some(0), Some(5)].contains(&copy.status.code()),
        "{:?}: {}",
        copy.status,
        String::from_utf8_lossy(&copy.stderr)
    );
    assert_eq!(result(&project), local(16));
    check_calls(&project, 32);
}

/// Ctrl-C cancels the jobs, and a resumed run reuses what they saved.
#[test]
fn a_cancelled_run_cancels_its_jobs() {
    let Some(cluster) = Cluster::start(Settings::default()) else {
        return;
    };
    let project = project(32, 700);
    let mut child = begin(&project, &cluster);
    cluster.wait_for("a job that runs", |cluster| {
        cluster.running_node().is_some()
    });
    std::thread::sleep(Duration::from_millis(1500));
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .expect("started")
            .success()
    );
    let status = child.wait().expect("waited for");
    assert_eq!(status.code(), Some(130), "{}", project.read("stderr"));
    cluster.wait_for("the end of all jobs", |cluster| {
        let jobs = cluster.jobs();
        jobs.iter()
            .all(|[state, ..]| !["RUNNING", "PENDING"].contains(&state.as_str()))
    });
    wait(&project, begin(&project, &cluster));
    assert_eq!(result(&project), local(32));
    check_calls(&project, 64);
}
