//! Options for programs that start mandelbox.

use std::path::PathBuf;

use clap::Args;

use super::shared_arguments::{FormatArgument, ProcessArguments};

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
