//! Arguments about the machines that calls run on: the backend, its check, and the worker.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::shared_arguments::FormatArgument;
use crate::text::units::parse_time;

#[cfg(feature = "weakened-for-tests")]
use crate::backend::Layer;

const WORKER_TEXT: &str = "\
Jobs of `run --backend slurm` start this command. It writes results to a file next to the batch.

Exit codes:
  0: all calls of the slice succeeded
  1: mandelbox failed (disk, permissions)
  2: the calls were refused: another version of mandelbox, or another module
  3, 4: the calls have run, and the first one that failed has a TaskExecutionError (3) or a
     JobExecutionError (4)
  5: another copy of the job, or another job, runs the calls
  129, 130, 143: stopped by SIGHUP, SIGINT or SIGTERM; the results were saved";

#[derive(Debug, Args)]
#[command(after_help = WORKER_TEXT)]
pub(super) struct WorkerArguments {
    /// Batch of calls, as a run on SLURM has written it [default: the parent process sends calls]
    #[arg(long, value_name = "FILE", requires = "slice")]
    pub(super) batch: Option<PathBuf>,
    /// Slice of the batch, counted from 0
    #[arg(long, value_name = "N", requires = "batch")]
    pub(super) slice: Option<usize>,
    /// Leave out a layer of confinement
    #[cfg(feature = "weakened-for-tests")]
    #[arg(long, value_name = "LAYER")]
    without: Vec<String>,
}

#[cfg(feature = "weakened-for-tests")]
impl WorkerArguments {
    pub(super) fn layers(&self) -> Vec<Layer> {
        let is_left_out = |layer: &Layer| self.without.iter().any(|name| name == layer.name());
        Layer::ALL
            .into_iter()
            .filter(|layer| !is_left_out(layer))
            .collect()
    }
}

/// Options of `run --backend slurm`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for SLURM")]
pub(super) struct SlurmArguments {
    /// Resources and number of the jobs: a JSON file with Fractal's keys [default: the file named
    /// by FRACTAL_SLURM_CONFIG_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) slurm_config: Option<PathBuf>,
    /// Time in which results can appear after a job has left the queue; slow shared file systems
    /// need more
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) slurm_grace: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BackendArgument {
    Local,
    Slurm,
}

impl BackendArgument {
    /// Returns true if calls run on other machines, which see neither this machine's temporary
    /// folders nor its memory.
    pub(super) fn is_remote(self) -> bool {
        match self {
            Self::Local => false,
            Self::Slurm => true,
        }
    }
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  mandelbox doctor
  mandelbox doctor --format json
  mandelbox doctor --backend slurm --folder /shared/me

Exit codes:
  0: calls can run
  1: no call can run
  2: invalid command line or configuration";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(super) struct DoctorArguments {
    /// Also check the backend: with slurm, submit a job that reads a file of the shared folder
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub(super) backend: BackendArgument,
    /// Configuration of the SLURM backend [default: the file named by FRACTAL_SLURM_CONFIG_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) slurm_config: Option<PathBuf>,
    /// Folder that all nodes share, for the check of SLURM [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// Output format: text on stderr, or one JSON object on stdout
    #[arg(long, default_value = "text")]
    pub(super) format: FormatArgument,
}
