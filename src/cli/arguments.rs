//! The command line as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::TaskFiles;
use crate::text::units::{parse_memory, parse_time};

pub(super) use super::author_arguments::{
    CheckArguments, ExecArguments, NewArguments, TestArguments,
};
#[cfg(feature = "weakened-for-tests")]
use crate::backend::Layer;

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
    Worker(WorkerArguments),
    /// Compile a module for a parent process; mandelbox starts this itself
    #[command(hide = true)]
    Compiler,
    /// Check a workflow, a module or a task package, and say every problem
    Check(CheckArguments),
    /// Call a module once: as a task with args, or as any command with mounts
    Exec(Box<ExecArguments>),
    /// Run the cases of a task package and compare what they give with what they should
    Test(TestArguments),
    /// Say how far a run is or how it ended, and which components failed and why
    Status(StatusArguments),
    /// Make the report of a run again: one page, report.html in its work directory; --ro-crate: its
    /// provenance for archives
    Report(ReportArguments),
    /// Write completions for a shell to stdout
    Completions(CompletionsArguments),
    /// Write the manual page to stdout, or that of a subcommand
    Man(ManArguments),
    /// Make a task package that builds and runs as it is
    New(NewArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  mandelbox run workflow.json --input images --output results
  mandelbox run workflow.json --tasks my-tasks --input images --output results --jobs 4 --memory 1G --timeout 10m
  mandelbox run workflow.json --input images --output results --dry-run
  mandelbox run workflow.json --input images --output results --work-dir work --resume

Exit codes: 0 well; 1 the host failed; 2 wrong usage or documents, nothing was run; 3 TaskExecutionError;
4 JobExecutionError; 129, 130 and 143 stopped by SIGHUP, SIGINT (Ctrl-C) and SIGTERM, after the records were saved; a second
signal ends it at once.";

#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
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
    /// Folder for the records of this run, which must be new but for --resume [default:
    /// ./mandelbox-runs/WORKFLOW_TIME]
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
    /// The local backend's configuration: a JSON object with `parallel_tasks_per_job` [default: the
    /// file that FRACTAL_LOCAL_CONFIG_FILE names]
    #[arg(long, value_name = "FILE")]
    pub(super) local_config: Option<PathBuf>,
    /// Type that the input dataset has, for the first task's `input_type` [default: not checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) input_type: Option<String>,
    /// Type that the output dataset has, for the last task's `output_type` [default: not checked]
    #[arg(long, value_name = "TYPE")]
    pub(super) output_type: Option<String>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Give tasks fixed clocks and random numbers, so that two runs give the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Run all components of a task although one has failed
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Take up the run in --work-dir: calls that ended well are not made again, unless their
    /// module, arguments or limits have changed; give everything else as before
    #[arg(long, requires = "work_dir")]
    pub(super) resume: bool,
    /// With --resume, run TASK and all tasks after it again, whatever their results; its order or
    /// its name
    #[arg(long, value_name = "TASK", requires = "resume")]
    pub(super) rerun_from: Option<String>,
    /// Tries that a call gets beside its first if it ends with a JobExecutionError, after 1 s, 2 s,
    /// 4 s ... (at most 60 s)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) retries: u32,
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

/// What calls may have, and what is between them and the host: the same for all commands that run
/// some.
#[derive(Debug, Args)]
pub(super) struct SandboxArguments {
    /// Memory that a call may have, such as 512M or 1.5G (K, M, G and T are powers of 1024); calls
    /// start only while there is as much for each [default: the policy's, else 4GiB, which is not
    /// waited for]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(super) memory: Option<u64>,
    /// Time that a call may take, such as 30s, 10min or 2h [default: the policy's, else no limit]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) timeout: Option<Duration>,
    /// What calls and packages may have: a TOML file, see docs/policy.example.toml
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// Whether calls run in threads, or in child processes that can be killed and are confined
    /// further
    #[arg(long, value_name = "MODE", default_value = "thread")]
    pub(super) isolation: IsolationArgument,
    /// Compile modules anew instead of keeping compiled ones in the user's cache folder
    #[arg(long)]
    pub(super) no_cache: bool,
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

const STATUS_EXAMPLES: &str = "\
Examples:
  mandelbox status mandelbox-runs/nuclei_20270101_120000
  mandelbox status work --format json

Exit codes: 0 the folder holds a run, whatever became of it; 2 it holds none, or its events.jsonl is damaged.";

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct StatusArguments {
    /// The work directory of a run: one that runs, has ended or was killed
    pub(super) work_dir: PathBuf,
    /// How: text on stderr, JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  mandelbox report mandelbox-runs/nuclei_20270101_120000
  mandelbox report work --ro-crate --license https://creativecommons.org/licenses/by/4.0/

Exit codes: 0 it is written; 1 it cannot be; 2 the folder holds no run, its events.jsonl is damaged, or a crate is asked \
for and the run goes on.";

#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(super) struct ReportArguments {
    /// The work directory of a run: one that runs, has ended or was killed
    pub(super) work_dir: PathBuf,
    /// Also make the work directory a Workflow Run RO-Crate: writes ro-crate-metadata.json, and the
    /// workflow as the run's records have it; of a run that has ended or was killed
    #[arg(long)]
    pub(super) ro_crate: bool,
    /// License of what the crate holds: a URL, or a text [default: the crate says that none was
    /// given]
    #[arg(long, value_name = "URL|TEXT", requires = "ro_crate")]
    pub(super) license: Option<String>,
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

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  mandelbox completions bash > ~/.local/share/bash-completion/completions/mandelbox
  mandelbox completions fish > ~/.config/fish/completions/mandelbox.fish";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct CompletionsArguments {
    /// The shell that reads them
    pub(super) shell: clap_complete::Shell,
}

const MAN_EXAMPLES: &str = "\
Examples:
  mandelbox man | man -l -
  mandelbox man run > mandelbox-run.1";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(super) struct ManArguments {
    /// The subcommand [default: the program]
    pub(super) subcommand: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatArgument {
    Text,
    Json,
}
