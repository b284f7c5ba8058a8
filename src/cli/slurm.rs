//! The SLURM backend of `mandelbox run` and its check in `mandelbox doctor`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::arguments::{BackendArgument, RunArguments};
use super::documents::absolute;
use super::environment;
use super::shared_arguments::IsolationArgument;
use crate::backend::{
    Backend, Client, ClusterCheck, Local, Slurm, SlurmConfig, SlurmOptions, WorkerSettings,
    check_cluster,
};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::workdir::layout::JOBS_DIR;

/// Default of `--slurm-grace`.
const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// Refuses options that only the SLURM backend has.
///
/// * `given`: options, and true for those that are given.
pub(super) fn refuse_options(given: &[(&str, bool)], problems: &mut Problems) {
    for (option, _) in given.iter().filter(|(_, is_given)| *is_given) {
        let text = "is an option of `--backend slurm`; add it, or remove this option";
        problems.add(Location::Parameter((*option).to_owned()), text);
    }
}

/// Returns the backend that the command line names.
///
/// * `local`: runs calls on this machine, and prepares modules.
///
/// # Errors
/// A message for the user if the path of this program cannot be found.
pub(super) fn backend_of(
    arguments: &RunArguments,
    local: Arc<Local>,
    policy: &Policy,
    problems: &mut Problems,
) -> Result<Arc<dyn Backend>, String> {
    let given = &arguments.slurm;
    match arguments.backend {
        BackendArgument::Local => {
            refuse_options(
                &[
                    ("--slurm-config", given.slurm_config.is_some()),
                    ("--slurm-grace", given.slurm_grace.is_some()),
                ],
                problems,
            );
            refuse_jobs(arguments, problems);
            Ok(local)
        }
        BackendArgument::Slurm => slurm(arguments, local, policy, problems),
    }
}

/// Returns the SLURM backend.
///
/// # Errors
/// As for [`backend_of`].
fn slurm(
    arguments: &RunArguments,
    local: Arc<Local>,
    policy: &Policy,
    problems: &mut Problems,
) -> Result<Arc<dyn Backend>, String> {
    let given = &arguments.slurm;
    let sandbox = arguments.sandbox.options(arguments.deterministic);
    let worker = WorkerSettings {
        isolates_in_processes: arguments.sandbox.isolation == IsolationArgument::Process,
        deterministic: arguments.deterministic,
        cache_folder: sandbox.cache_folder,
        compile_time: policy.compile_time,
        compile_memory_bytes: policy.compile_memory_bytes,
        interrupts_all: policy.interrupts_all,
    };
    let options = SlurmOptions {
        config: config(given.slurm_config.clone(), problems),
        program: this_program()?,
        worker,
        grace: given.slurm_grace.unwrap_or(DEFAULT_GRACE),
    };
    Ok(Arc::new(Slurm::new(options, client(), local)))
}

/// Refuses to resume a run on this machine whose jobs may still run: they would write to the same
/// data.
fn refuse_jobs(arguments: &RunArguments, problems: &mut Problems) {
    let Some(work_dir) = arguments.work_dir.as_deref().filter(|_| arguments.resume) else {
        return;
    };
    let jobs = absolute(work_dir).join(JOBS_DIR);
    let has_jobs = std::fs::read_dir(&jobs).is_ok_and(|mut entries| entries.next().is_some());
    if has_jobs {
        let text = format!(
            "the interrupted run has jobs on a cluster, which may still run: add `--backend slurm`, \
             or cancel them and remove {}",
            jobs.display()
        );
        problems.add(Location::Parameter("--resume".to_owned()), text);
    }
}

fn client() -> Client {
    Client::new(environment::slurm_variables())
}

/// Reads the configuration file that the command line or the environment names.
fn config(given: Option<PathBuf>, problems: &mut Problems) -> SlurmConfig {
    let path = given.or_else(environment::slurm_config_file);
    let read = path.and_then(|path| SlurmConfig::read_into(&absolute(&path), problems));
    read.unwrap_or_default()
}

fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|err| format!("failed to find this program: {err}"))
}

/// Checks the cluster, for `mandelbox doctor`.
///
/// * `folder`: a folder that all nodes share; `None`: the current folder.
///
/// # Errors
/// A message for the user: the problems of the configuration, for instance.
pub(super) fn check(
    config_file: Option<PathBuf>,
    folder: Option<PathBuf>,
) -> Result<Vec<ClusterCheck>, String> {
    let mut problems = Problems::default();
    let config = config(config_file, &mut problems);
    if !problems.is_empty() {
        return Err(problems.to_string());
    }
    let folder = absolute(&folder.unwrap_or_else(|| PathBuf::from(".")));
    Ok(check_cluster(&client(), &config, &this_program()?, &folder))
}
