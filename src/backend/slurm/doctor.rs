//! Check of a cluster: its commands, and a job that reads a file from a shared folder.

use std::path::Path;
use std::time::{Duration, Instant};

use super::client::{Client, NoAnswer};
use super::config::SlurmConfig;
use super::script::{build_arguments, build_check_script, log_name};
use super::submit::random_tag;
use crate::model::CancelToken;
use crate::problem::Problems;
use crate::workdir::JobFolder;

/// Commands that a run needs.
const REQUIRED: [&str; 4] = ["sbatch", "squeue", "scancel", "scontrol"];
/// Longest time in which the job of the check has to start and to end.
const JOB_TIME: Duration = Duration::from_secs(120);
/// Interval of polling for its output.
const POLL: Duration = Duration::from_millis(100);

/// A fact about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCheck {
    /// Subject of the check.
    pub name: &'static str,
    /// True if it is as it should be.
    pub is_good: bool,
    /// Result of the check.
    pub value: String,
    /// Action for the user; empty if the result is good.
    pub advice: &'static str,
}

/// Checks the commands of SLURM, and that a job on a node sees the folder and the program.
///
/// * `program`: this program.
/// * `folder`: the folder, in which files are created and removed.
pub fn check_cluster(
    client: &Client,
    config: &SlurmConfig,
    program: &Path,
    folder: &Path,
) -> Vec<ClusterCheck> {
    let mut checks: Vec<_> = REQUIRED
        .iter()
        .map(|command| check_command(client, command))
        .collect();
    let has_commands = checks.iter().all(|check| check.is_good);
    let sacct = client.version("sacct");
    checks.push(ClusterCheck {
        name: "sacct",
        is_good: true,
        value: sacct.unwrap_or_else(|_| "not available; not needed".to_owned()),
        advice: "",
    });
    if !has_commands {
        return checks;
    }
    checks.push(match client.facts(&CancelToken::new()) {
        Ok(facts) => ClusterCheck {
            name: "controller",
            is_good: true,
            value: format!(
                "cluster {}, SLURM {}, arrays of up to {} jobs",
                facts.cluster, facts.version, facts.max_array_size
            ),
            advice: "",
        },
        Err(NoAnswer(text)) => ClusterCheck {
            name: "controller",
            is_good: false,
            value: text,
            advice: "check `scontrol ping`, and SLURM_CONF if the cluster uses it",
        },
    });
    if checks.iter().all(|check| check.is_good) {
        checks.push(check_folder(client, config, program, folder));
    }
    checks
}

fn check_command(client: &Client, command: &'static str) -> ClusterCheck {
    match client.version(command) {
        Ok(version) => ClusterCheck {
            name: command,
            is_good: true,
            value: version,
            advice: "",
        },
        Err(NoAnswer(text)) => ClusterCheck {
            name: command,
            is_good: false,
            value: text,
            advice: "run mandelbox on a machine from which jobs are submitted, with the commands \
                     on PATH",
        },
    }
}

fn check_folder(
    client: &Client,
    config: &SlurmConfig,
    program: &Path,
    folder: &Path,
) -> ClusterCheck {
    let name = format!("mandelbox-doctor-{}", random_tag());
    let shared = JobFolder::new(folder.join(format!(".{name}")));
    let checked = run_job(client, config, program, &shared, &name);
    shared.remove();
    let shown = folder.display();
    match checked {
        Ok(node) => ClusterCheck {
            name: "shared folder",
            is_good: true,
            value: format!("{shown}: a job read a file there and ran this program ({node})"),
            advice: "",
        },
        Err(text) => ClusterCheck {
            name: "shared folder",
            is_good: false,
            value: format!("{shown}: {text}"),
            advice: "use a folder, and a program, that all nodes see at the same path",
        },
    }
}

/// Runs a job that prints a file of the folder and the version of the program. Returns the latter.
fn run_job(
    client: &Client,
    config: &SlurmConfig,
    program: &Path,
    shared: &JobFolder,
    name: &str,
) -> Result<String, String> {
    let settings = config.for_task(&[], &mut Problems::default()).job;
    let secret = random_tag();
    let file = shared.path().join("file");
    let script = shared.path().join("script.sh");
    let text = build_check_script(&settings, program, &file);
    shared.create().map_err(|err| err.chain())?;
    shared
        .write("file", format!("{secret}\n").as_bytes())
        .and_then(|()| shared.write("script.sh", text.as_bytes()))
        .map_err(|err| err.chain())?;
    let arguments = build_arguments(name, shared.path(), &settings, &[], &script);
    let submitted = client.submit(&arguments, &CancelToken::new());
    let id = submitted.map_err(|err| err.message)?;
    let started = Instant::now();
    loop {
        let log = shared.read_end(&log_name(name, None), 4 << 10);
        if let Some((_, version)) = log.split_once(&secret)
            && version.contains(env!("CARGO_PKG_VERSION"))
        {
            return Ok(version.trim().to_owned());
        }
        let rows = client.jobs(&[name], &CancelToken::new());
        let row = rows.ok().and_then(|rows| rows.into_iter().next());
        let has_ended = row.as_ref().is_some_and(|row| {
            super::parse::job_state(&row.state) == super::parse::JobState::Ended
        });
        if !has_ended && started.elapsed() < JOB_TIME {
            std::thread::sleep(POLL);
            continue;
        }
        let state = row.map_or("is not in the queue".to_owned(), |row| {
            format!("is {} ({}) {}", row.state, row.reason, row.node)
        });
        // A job that still waits would find the folder gone.
        let _ = client.cancel(&[id.to_string()], &[]);
        return Err(format!(
            "job {id} {}; it printed: {}",
            state.trim(),
            log.trim()
        ));
    }
}
