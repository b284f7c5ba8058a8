//! The command line as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::new::{Kind, Language};
use crate::sandbox::limits::parse_bytes;
use crate::workdir::TaskFiles;

const EXAMPLE: &str = "\
Example:
  mandelbox run workflow.json --input images --output results";

/// Runs Fractal workflows with every task in a WebAssembly sandbox of its own.
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
    /// Say what this machine gives the sandbox, what is missing, and what to do
    Doctor(DoctorArguments),
    /// Run calls for a parent process; mandelbox starts this itself
    #[command(hide = true)]
    Worker,
    /// Check a workflow, a module or a task package, and say every problem
    Check(CheckArguments),
    /// Make a task package that builds and runs as it is
    New(NewArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  mandelbox run workflow.json --input images --output results
  mandelbox run workflow.json --tasks my-tasks --input images --output results --jobs 4 --memory 1G --timeout 10m
  mandelbox run workflow.json --input images --output results --dry-run

Exit codes: 0 well; 1 the host failed; 2 wrong usage or documents, nothing was run; 3 TaskExecutionError;
4 JobExecutionError.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct RunArguments {
    /// The workflow: a JSON document of Fractal, full or exported
    pub(super) workflow: PathBuf,
    /// Folder that tasks write to, and that every task but the first reads; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(super) output: PathBuf,
    /// Folder that tasks read; repeatable
    #[arg(long = "input", value_name = "PATH")]
    pub(super) inputs: Vec<PathBuf>,
    /// JSON object: the dataset's metadata at the start
    #[arg(long, value_name = "FILE")]
    pub(super) metadata: Option<PathBuf>,
    /// JSON array: the dataset's history at the start
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    /// Folder of a task package, or a typed task (.wasm), which describes itself; repeatable
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) tasks: Vec<PathBuf>,
    /// Folder for the records of this run, which must be new [default: ./mandelbox-runs/WORKFLOW_TIME]
    #[arg(long, value_name = "DIR")]
    pub(super) work_dir: Option<PathBuf>,
    /// First task that runs, from 0
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) first_task: Option<i64>,
    /// Last task that runs, from 0, inclusive
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) last_task: Option<i64>,
    /// Calls that run at a time at most [default: the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) jobs: Option<u16>,
    /// The local backend's configuration: a JSON object with `parallel_tasks_per_job` [default: the file that
    /// FRACTAL_LOCAL_CONFIG_FILE names]
    #[arg(long, value_name = "FILE")]
    pub(super) local_config: Option<PathBuf>,
    /// Type that the input dataset has, for the first task's `input_type` [default: not checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) input_type: Option<String>,
    /// Type that the output dataset has, for the last task's `output_type` [default: not checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) output_type: Option<String>,
    /// Memory that a call may have, such as 512M or 2GiB [default: the policy's, else 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(super) memory: Option<u64>,
    /// Time that a call may take, such as 30s or 2h [default: the policy's, else no limit]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<Duration>,
    /// What calls and packages may have: a TOML file, see docs/policy.example.toml
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// Whether calls run in threads, or in child processes that can be killed and are confined further
    #[arg(long, value_name = "MODE", default_value = "thread")]
    pub(super) isolation: IsolationArgument,
    /// Run all components of a task although one has failed
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Which calls leave their args.json, metadiff.json, out and err in the work directory
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub(super) task_files: TaskFilesArgument,
    /// Where to write metadata and history after the run, beside the work directory; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(super) result: Option<PathBuf>,
    /// Where to write events as JSON lines while the run goes on; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(super) events: Option<PathBuf>,
    /// Whether to show progress on stderr: a bar on a terminal, else lines
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) progress: ProgressArgument,
    /// Give tasks fixed clocks and random numbers, so that two runs give the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Compile modules anew instead of keeping compiled ones in the user's cache folder
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Check everything and show what would run; write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Say nothing but errors
    #[arg(long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say how each call ended
    #[arg(long)]
    pub(super) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TaskFilesArgument {
    All,
    Failed,
    None,
}

impl From<TaskFilesArgument> for TaskFiles {
    fn from(argument: TaskFilesArgument) -> Self {
        match argument {
            TaskFilesArgument::All => Self::All,
            TaskFilesArgument::Failed => Self::Failed,
            TaskFilesArgument::None => Self::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum IsolationArgument {
    Thread,
    Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressArgument {
    Auto,
    Always,
    Never,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  mandelbox check workflow.json --tasks my-tasks
  mandelbox check my-tasks
  mandelbox check task.wasm --format json

Exit codes: 0 no problem; 2 problems.";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(super) struct CheckArguments {
    /// A workflow (JSON), a module (.wasm) or the folder of a task package
    #[arg(value_name = "WORKFLOW|MODULE|PACKAGE")]
    pub(super) path: PathBuf,
    /// Folder of a task package, or a typed task (.wasm), that the workflow's sources are looked up in; repeatable
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) tasks: Vec<PathBuf>,
    /// How to answer: text on stderr, or one JSON object on stdout
    #[arg(long, default_value = "text")]
    pub(super) format: FormatArgument,
}

const NEW_EXAMPLES: &str = "\
Examples:
  mandelbox new count-cells --lang python
  mandelbox new count-cells --lang rust --kind typed

The package has sources, a build script with pinned tools, a workflow with images to run it on, and tests. Nothing is
downloaded or installed before its build script is run, which keeps its tools in the package.

Exit codes: 0 it was made; 1 the host failed; 2 wrong usage, or the folder is not empty.";

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(super) struct NewArguments {
    /// The package's name, or a path that ends in it: a folder that is made
    pub(super) name: PathBuf,
    /// The language that it is written in
    #[arg(long, value_name = "LANGUAGE")]
    pub(super) lang: Language,
    /// How the task is called [default: command in rust, c and go; typed in python and js]
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<Kind>,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  mandelbox doctor
  mandelbox doctor --format json

Exit codes: 0 calls can run; 1 they cannot.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(super) struct DoctorArguments {
    /// How to answer: text on stderr, or one JSON object on stdout
    #[arg(long, default_value = "text")]
    pub(super) format: FormatArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatArgument {
    Text,
    Json,
}
