//! Options for programs that start mandelbox.

use std::path::PathBuf;

use clap::Args;

use super::arguments::FormatArgument;

/// Options of commands that make many calls, for programs that start them.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct ProcessArguments {
    /// Stop, as SIGTERM does, when the parent process ends; PID is its process ID
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) die_with_parent: Option<u32>,
    /// Share CPUs and memory with all runs and batches that name the same folder: their calls
    /// together are no more than --jobs and the policy's `host.memory` allow; created if missing
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) share: Option<PathBuf>,
}

/// Options of `run` for programs that start it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for programs that start mandelbox")]
pub(in crate::cli) struct StarterArguments {
    /// Output format of the plan, the problems and the outcome: text on stderr, or one JSON object
    /// on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(in crate::cli) format: FormatArgument,
    #[command(flatten)]
    pub(in crate::cli) process: ProcessArguments,
    /// Write log lines to this file in place of workflow.log, as JSON lines with `level` and
    /// `text`, without those of the start and the end of the run; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(in crate::cli) log: Option<PathBuf>,
    /// Accept a --work-dir that exists, with a workflow.log and folders of tasks, but without other
    /// records of a run
    #[arg(long, requires = "work_dir", conflicts_with = "resume")]
    pub(in crate::cli) prepared_work_dir: bool,
    /// Accept an --input inside --output; tasks can then write to it
    #[arg(long)]
    pub(in crate::cli) input_in_output: bool,
}
