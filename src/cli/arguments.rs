//! Command line as clap parses it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::shared_arguments::{FormatArgument, SandboxArguments};
use crate::json::{DuplicateKeys, Value, parse_json};
use crate::model::TaskFiles;
use crate::text::units::parse_time;

pub(super) use super::author_arguments::{
    CheckArguments, ExecArguments, NewArguments, SnapshotArguments, TestArguments,
};
pub(super) use super::batch::BatchArguments;
pub(super) use super::machine_arguments::{
    BackendArgument, DoctorArguments, SlurmArguments, WorkerArguments,
};
pub(super) use super::starter_arguments::StarterArguments;

const EXAMPLE: &str = "\
Example:
  mandelbox run workflow.json --input images --output results";

/// Run Fractal workflows, with every task in its own WebAssembly sandbox.
#[derive(Debug, Parser)]
#[command(name = "mandelbox", version, max_term_width = 100, after_help = EXAMPLE)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a workflow
    Run(Box<RunArguments>),
    /// Check whether this machine can run sandboxed tasks
    Doctor(DoctorArguments),
    /// Run calls for a parent process, or those of a job of SLURM; started by mandelbox itself
    #[command(hide = true)]
    Worker(WorkerArguments),
    /// Compile a module for a parent process; started by mandelbox itself
    #[command(hide = true)]
    Compiler,
    /// Check a workflow, a module, a task package or a dataset, and report every problem
    Check(CheckArguments),
    /// Call a module once, as a task with args or as a command with mounts
    Exec(Box<ExecArguments>),
    /// Call a module for each line of a file or pipe, and write a line with each result
    Batch(Box<BatchArguments>),
    /// Run the test cases of a task package
    Test(TestArguments),
    /// Initialize a module once and write the result as a new module, such as an interpreter with
    /// its imports
    // A snapshot is made of one module, so these options have no effect.
    #[command(
        mut_arg("no_snapshots", |arg| arg.hide(true)),
        mut_arg("python", |arg| arg.hide(true))
    )]
    Snapshot(SnapshotArguments),
    /// Show the progress or outcome of a run, and which calls failed and why
    Status(StatusArguments),
    /// List the runs below a folder with their states and sizes; with --clean, remove them
    Runs(RunsArguments),
    /// Show the calls of a task, or one of them: its args, output, stdout, stderr and outcome
    Show(ShowArguments),
    /// Recreate the report of a run; with --ro-crate, also create its provenance for archives
    Report(ReportArguments),
    /// Print shell completions
    Completions(CompletionsArguments),
    /// Print the manual page of mandelbox or of a subcommand
    Man(ManArguments),
    /// Create a task package that builds and runs as it is
    New(NewArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  mandelbox run workflow.json --input images --output results
  mandelbox run workflow.json --tasks my-tasks --input images --output results --dry-run
  mandelbox run workflow.json --input images --output results --jobs 4 --memory 1G --timeout 10m
  mandelbox run workflow.json --input images --output results --work-dir work --resume
  mandelbox run workflow-v2.json --zarr-dir data --read images --tasks my-tasks
  mandelbox run workflow-v2.json --dataset work/dataset.json --attribute-filter well=B03,B04
  mandelbox run workflow-v2.json --zarr-dir data --backend slurm --slurm-config slurm.json

Exit codes:
  0: success
  1: mandelbox failed (disk, permissions)
  2: invalid command line or documents; nothing was run
  3: TaskExecutionError
  4: JobExecutionError
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; the records were saved
A second signal stops at once.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct RunArguments {
    /// Fractal workflow (JSON) of version 1 or 2, full or exported; - is stdin
    pub(super) workflow: PathBuf,
    /// Dataset to start from: a dataset document, or `dataset.json` (v1: `result.json`) of an
    /// earlier run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["zarr_dir", "metadata", "history"])]
    pub(super) dataset: Option<PathBuf>,
    /// Folder that all tasks can read, such as one with profiles or classifiers; repeatable
    #[arg(long, value_name = "DIR")]
    pub(super) read: Vec<PathBuf>,
    /// Trial run: only the items that match. GLOB is compared with the whole item and with each end
    /// of it that follows a `/`; * matches any text; repeatable
    #[arg(long, value_name = "GLOB")]
    pub(super) only: Vec<String>,
    /// Set an argument of a task (its position or name), in place of that in the workflow; VALUE is
    /// JSON, or else text; repeatable
    #[arg(long, value_name = "TASK.KEY=VALUE", value_parser = parse_set)]
    pub(super) set: Vec<SetArgument>,
    /// Task package: a folder, a wheel (.whl), or a typed task (.wasm); for v2 also a folder of
    /// installed packages; repeatable
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) tasks: Vec<PathBuf>,
    /// Folder for the records of the run; must be new, except with --resume [default:
    /// ./mandelbox-runs/WORKFLOW_TIME]
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: Option<PathBuf>,
    /// First task to run: its position, counted from 0, or its name
    #[arg(long, value_name = "TASK", allow_negative_numbers = true)]
    pub(super) first_task: Option<String>,
    /// Last task to run, inclusive: its position, counted from 0, or its name
    #[arg(long, value_name = "TASK", allow_negative_numbers = true)]
    pub(super) last_task: Option<String>,
    /// Maximum number of calls that run at a time [default: the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) jobs: Option<u16>,
    /// Configuration of the local backend: a JSON object with `parallel_tasks_per_job` [default:
    /// the file named by FRACTAL_LOCAL_CONFIG_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) local_config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Give tasks fixed clocks and random numbers, so that two runs produce the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Run all calls of a task, even if one fails; always so for v2
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Resume the run in --work-dir, reusing the results of calls that succeeded, unless their
    /// module or args have changed or a limit is lower now; repeat all other options
    #[arg(long, requires = "work_dir")]
    pub(super) resume: bool,
    /// With --resume, rerun TASK (its order or its name) and all tasks after it
    #[arg(long, value_name = "TASK", requires = "resume")]
    pub(super) rerun_from: Option<String>,
    /// Retry a call up to N times if it fails with a JobExecutionError, after 1 s, 2 s, 4 s, ...
    /// (at most 60 s)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) retries: u32,
    /// Keep the args, output, stdout and stderr of calls in the work directory: all (files for each
    /// call), failed (files for failed calls only), packed (one file for each task, which
    /// `mandelbox show` reads, and files for failed calls), none, or auto (all for a task with up
    /// to 1,000 calls, else packed)
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub(super) task_files: TaskFilesArgument,
    /// Write the result (v1: metadata and history; v2: the dataset document) to this file, in
    /// addition to the work directory; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(super) result: Option<PathBuf>,
    /// Write events to this file during the run, as JSON lines; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(super) events: Option<PathBuf>,
    /// Show progress on stderr: a bar on a terminal, else lines
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) progress: ProgressArgument,
    /// Check everything and print the plan; run and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print nothing but errors
    #[arg(long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Print the outcome of each call
    #[arg(long)]
    pub(super) verbose: bool,
    /// Run calls on this machine, or as jobs of a SLURM cluster
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub(super) backend: BackendArgument,
    // Their headings would apply to options after them.
    #[command(flatten)]
    pub(super) slurm: SlurmArguments,
    #[command(flatten)]
    pub(super) v1: V1Arguments,
    #[command(flatten)]
    pub(super) v2: V2Arguments,
    #[command(flatten)]
    pub(super) starter: StarterArguments,
}

/// Options of `run` for workflows of version 1.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for Fractal v1")]
pub(super) struct V1Arguments {
    /// Folder that tasks write to, and that all tasks but the first read; created if missing;
    /// required
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Folder that tasks read; repeatable
    #[arg(long = "input", value_name = "PATH")]
    pub(super) inputs: Vec<PathBuf>,
    /// Initial metadata of the dataset: a JSON object
    #[arg(long, value_name = "FILE")]
    pub(super) metadata: Option<PathBuf>,
    /// Initial history of the dataset: a JSON array
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    /// Type of the input dataset, compared with the first task's `input_type` [default: not
    /// checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) input_type: Option<String>,
    /// Type of the output dataset, compared with the last task's `output_type` [default: not
    /// checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) output_type: Option<String>,
}

impl V1Arguments {
    /// Returns the options, and true for those that are given.
    pub(super) fn given(&self) -> [(&'static str, bool); 6] {
        [
            ("--output", self.output.is_some()),
            ("--input", !self.inputs.is_empty()),
            ("--metadata", self.metadata.is_some()),
            ("--history", self.history.is_some()),
            ("--input-type", self.input_type.is_some()),
            ("--output-type", self.output_type.is_some()),
        ]
    }
}

/// Options of `run` for workflows of version 2.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for Fractal v2")]
pub(super) struct V2Arguments {
    /// Folder of a new dataset, which tasks read and write; created if missing; required without
    /// --dataset
    #[arg(long, value_name = "DIR")]
    pub(super) zarr_dir: Option<PathBuf>,
    /// Run the tasks for images of this type only; repeatable
    #[arg(long = "type-filter", value_name = "KEY=true|false", value_parser = parse_type_filter)]
    pub(super) type_filters: Vec<(String, bool)>,
    /// Run the tasks for images with one of these attribute values only; a value is JSON, or else
    /// text; repeatable
    #[arg(long = "attribute-filter", value_name = "KEY=V1,V2", value_parser = parse_key_value)]
    pub(super) attribute_filters: Vec<(String, String)>,
    /// Run the tasks for images with one of these statuses for the first task only
    #[arg(long, value_name = "S1,S2", value_delimiter = ',')]
    pub(super) status_filter: Vec<StatusArgument>,
}

impl V2Arguments {
    /// Returns the options, and true for those that are given.
    pub(super) fn given(&self) -> [(&'static str, bool); 4] {
        [
            ("--zarr-dir", self.zarr_dir.is_some()),
            ("--type-filter", !self.type_filters.is_empty()),
            ("--attribute-filter", !self.attribute_filters.is_empty()),
            ("--status-filter", !self.status_filter.is_empty()),
        ]
    }

    /// Returns true if one of the options is given.
    pub(super) fn is_used(&self) -> bool {
        self.given().iter().any(|(_, is_given)| *is_given)
    }
}

/// An argument that replaces one of the workflow.
#[derive(Clone, Debug)]
pub(super) struct SetArgument {
    /// The task and the path of the key, separated by a dot.
    pub(super) target: String,
    /// The value.
    pub(super) value: Value,
}

fn parse_key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("there is no `=` between key and value".to_owned()),
    }
}

fn parse_type_filter(text: &str) -> Result<(String, bool), String> {
    let (key, value) = parse_key_value(text)?;
    match value.as_str() {
        "true" => Ok((key, true)),
        "false" => Ok((key, false)),
        _ => Err("the value must be true or false".to_owned()),
    }
}

fn parse_set(text: &str) -> Result<SetArgument, String> {
    let (target, value) = parse_key_value(text)?;
    if !target.contains('.') {
        return Err("there is no `.` between task and key".to_owned());
    }
    let parsed = parse_json(value.as_bytes(), DuplicateKeys::Refuse);
    Ok(SetArgument {
        target,
        value: parsed.unwrap_or(Value::String(value)),
    })
}

/// Status of an image for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusArgument {
    Done,
    Failed,
    Unset,
}

impl StatusArgument {
    /// Returns the name of the status in documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unset => "unset",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TaskFilesArgument {
    Auto,
    All,
    Failed,
    Packed,
    None,
}

impl From<TaskFilesArgument> for TaskFiles {
    fn from(argument: TaskFilesArgument) -> Self {
        match argument {
            TaskFilesArgument::Auto => Self::Auto,
            TaskFilesArgument::All => Self::All,
            TaskFilesArgument::Failed => Self::Failed,
            TaskFilesArgument::Packed => Self::Packed,
            TaskFilesArgument::None => Self::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressArgument {
    Auto,
    Always,
    Never,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  mandelbox status mandelbox-runs/nuclei_20270101_120000
  mandelbox status work --format json

Exit codes:
  0: the folder contains a run, in any state
  2: the folder contains no run, or its events.jsonl is damaged";

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct StatusArguments {
    /// Work directory of a run that is running, has ended or was killed
    pub(super) work_dir: PathBuf,
    /// Output format: text on stderr, or one JSON object on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
}

const RUNS_EXAMPLES: &str = "\
The work directories in DIR and in the folders in DIR are listed, the newest run first. If DIR is a \
work directory itself, it alone is listed. Links are not followed.

--clean removes the work directories of runs that have ended, with all their records: it lists what \
it removes, asks, and removes. It removes only folders that are certainly work directories. It keeps \
a run in progress, a folder that contains anything that is not a record of its run, and a folder \
that contains an input or the output of a listed run. Results in output folders stay. A removal \
that was interrupted is completed by the next --clean.

Examples:
  mandelbox runs
  mandelbox runs /data/runs --state failed --format json
  mandelbox runs --clean --older-than 30d
  mandelbox runs --clean --state stopped --yes

Exit codes:
  0: success, also if nothing was removed
  1: mandelbox failed (disk, permissions)
  2: no such folder; or --clean without --yes and without a terminal: nothing was removed";

#[derive(Debug, Args)]
#[command(after_help = RUNS_EXAMPLES)]
pub(super) struct RunsArguments {
    /// Folder that contains work directories
    #[arg(value_name = "DIR", default_value = "mandelbox-runs")]
    pub(super) folder: PathBuf,
    /// Remove the listed runs that have ended, after a confirmation
    #[arg(long)]
    pub(super) clean: bool,
    /// With --clean, remove without asking
    #[arg(long, requires = "clean")]
    pub(super) yes: bool,
    /// Only runs whose last event is older than this, such as 12h, 30d or 3months
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) older_than: Option<Duration>,
    /// Only runs in this state; repeatable [default: all]
    #[arg(long = "state", value_name = "STATE")]
    pub(super) states: Vec<StateArgument>,
    /// Output format: text on stderr, or one JSON array on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
}

/// States of runs that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StateArgument {
    /// All its tasks succeeded
    Finished,
    /// It ended with an error
    Failed,
    /// It was stopped by a signal or killed
    Stopped,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  mandelbox show work 1
  mandelbox show work \"Segment nuclei\" plate.zarr/B/03/0
  mandelbox show work 1 17 --stream stderr

Exit codes:
  0: success
  1: mandelbox failed (disk, permissions)
  2: the folder has no such run, task or call, or the call has no such stream";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct ShowArguments {
    /// Work directory of a run that is running, has ended or was killed
    pub(super) work_dir: PathBuf,
    /// The task: its order or its name
    pub(super) task: String,
    /// The call: its item, the index of the call (BATCH:INDEX where a task has several batches), or
    /// the end of a path or URL, from a slash on, if only one item has it [default: list all calls]
    pub(super) item: Option<String>,
    /// Show attempt N [default: the last one]
    #[arg(long, value_name = "N", requires = "item")]
    pub(super) attempt: Option<u32>,
    /// Print only this part of the call, as its bytes, on stdout
    #[arg(
        long,
        value_name = "STREAM",
        requires = "item",
        conflicts_with = "format"
    )]
    pub(super) stream: Option<StreamArgument>,
    /// Output format: text on stderr, or one JSON object on stdout
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StreamArgument {
    Args,
    Output,
    Stdout,
    Stderr,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  mandelbox report mandelbox-runs/nuclei_20270101_120000
  mandelbox report work --ro-crate --license https://creativecommons.org/licenses/by/4.0/

Exit codes:
  0: success
  1: mandelbox failed (disk, permissions)
  2: no run in the folder, damaged events.jsonl, or --ro-crate for a run that is still running";

#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(super) struct ReportArguments {
    /// Work directory of a run that is running, has ended or was killed
    pub(super) work_dir: PathBuf,
    /// Also turn the work directory into a Workflow Run RO-Crate: write ro-crate-metadata.json, and
    /// the workflow as it was recorded; the run must have ended
    #[arg(long)]
    pub(super) ro_crate: bool,
    /// License of the crate's contents: a URL or a text [default: the crate states that none was
    /// given]
    #[arg(long, value_name = "URL|TEXT", requires = "ro_crate")]
    pub(super) license: Option<String>,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  mandelbox completions bash > ~/.local/share/bash-completion/completions/mandelbox
  mandelbox completions fish > ~/.config/fish/completions/mandelbox.fish";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct CompletionsArguments {
    /// Shell that reads the completions
    pub(super) shell: clap_complete::Shell,
}

const MAN_EXAMPLES: &str = "\
Examples:
  mandelbox man | man -l -
  mandelbox man run > mandelbox-run.1";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArguments {
    /// Subcommand [default: the program itself]
    pub(super) subcommand: Option<String>,
}
