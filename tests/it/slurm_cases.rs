//! The recorded cases of both versions of Fractal on a SLURM cluster: a selection, or all of them
//! if `MANDELBOX_TEST_WHOLE` is set.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fractal::check_on;
use crate::fractal_v2::differences_on;
use crate::project::Project;
use crate::slurm_cluster::{Cluster, Settings};

/// Cases of version 1 that run where not all do.
const SELECTED_V1: [&str; 10] = [
    "a01-single-echo",
    "a06-single-list-of-pairs-metadiff",
    "a13-single-exit1",
    "a16-single-signal-term",
    "c03-parallel-over-aggregated",
    "c04-chain-failure-midway",
    "d01-parallel-echo",
    "d06-parallel-list-metadiff",
    "e01-components-special",
    "i02-big-integers",
];
/// Starts of the names of cases that are about the local backend: `parallel_tasks_per_job` of a
/// task is refused without `tasks_per_job` on SLURM, as in Fractal.
const ABOUT_LOCAL_V1: [&str; 6] = ["f", "d18", "e02", "e04", "e05", "e07"];
/// The same of version 2.
const ABOUT_LOCAL_V2: [&str; 3] = ["d10", "d16", "g29"];
/// Groups of cases of version 2 with runs: all but that of the limits of the local backend.
const GROUPS_V2: [&str; 8] = ["b", "c", "d", "e", "f", "g", "i", "j"];
/// Cases of version 2 that run where not all do, by the start of their names.
const SELECTED_V2: [&str; 8] = ["b01", "b10", "c01", "d01", "e01", "f01", "g01", "i01"];

fn is_whole() -> bool {
    std::env::var_os("MANDELBOX_TEST_WHOLE").is_some()
}

/// One job for a task, in which all its calls run at the same time.
fn config() -> Value {
    json!({
        "default_slurm_config": { "partition": "main", "cpus_per_task": 1, "mem": "10M" },
        "batching_config": {
            "target_cpus_per_job": 6, "max_cpus_per_job": 6,
            "target_mem_per_job": "1G", "max_mem_per_job": "1G",
            "target_num_jobs": 10, "max_num_jobs": 100
        }
    })
}

/// A cluster, and a project with the configuration.
fn cluster() -> Option<(Cluster, Project)> {
    let cluster = Cluster::start(Settings {
        n_nodes: 2,
        n_cpus: 12,
        ..Settings::default()
    })?;
    let project = Project::new();
    project.write("slurm.json", config().to_string());
    Some((cluster, project))
}

/// Adds the options of the backend to a command of `run`.
fn on_slurm(cluster: &Cluster, project: &Project) -> impl Fn(&mut Command) {
    let (conf, config) = (cluster.config(), project.path("slurm.json"));
    move |command: &mut Command| {
        command
            .env("SLURM_CONF", &conf)
            .args([
                "--backend",
                "slurm",
                "--slurm-grace",
                "5s",
                "--slurm-config",
            ])
            .arg(&config);
    }
}

#[test]
fn recorded_cases_of_version_1() {
    let Some((cluster, project)) = cluster() else {
        return;
    };
    let change = on_slurm(&cluster, &project);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal/cases");
    let entries = std::fs::read_dir(&folder).expect("the cases");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    names.retain(|name| {
        let is_local = ABOUT_LOCAL_V1.iter().any(|start| name.starts_with(start));
        !is_local && (is_whole() || SELECTED_V1.contains(&name.as_str()))
    });
    assert!(names.len() >= SELECTED_V1.len());
    let checked = |name: &&String| {
        let check = std::panic::AssertUnwindSafe(|| check_on(&folder, name, &change));
        std::panic::catch_unwind(check).is_err()
    };
    let failed: Vec<_> = names.iter().filter(checked).collect();
    assert!(
        failed.is_empty(),
        "{} cases differ: {failed:?}",
        failed.len()
    );
}

#[test]
fn recorded_cases_of_version_2() {
    let Some((cluster, project)) = cluster() else {
        return;
    };
    let change = on_slurm(&cluster, &project);
    let begins = |name: &str, starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let is_meant =
        |name: &str| !begins(name, &ABOUT_LOCAL_V2) && (is_whole() || begins(name, &SELECTED_V2));
    let mut differences = Vec::new();
    for group in GROUPS_V2 {
        differences.extend(differences_on(group, &is_meant, &change));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
