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
    /// Call a module once: as a task with args, or as any command with mounts
    Exec(Box<ExecArguments>),
    /// Run the cases of a task package and compare what they give with what they should
    Test(TestArguments),
    /// Say how far a run is or how it ended, and which components failed and why
    Status(StatusArguments),
    /// Make the report of a run again: one page, report.html in its work directory
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

Exit codes: 0 well; 1 the host failed; 2 wrong usage or documents, nothing was run; 3 TaskExecutionError;
4 JobExecutionError; 130 and 143 stopped by SIGINT (Ctrl-C) and SIGTERM, after the records were saved; a second signal
ends it at once.";

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
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Give tasks fixed clocks and random numbers, so that two runs give the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
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

/// What calls may have, and what is between them and the host: the same for all commands that run some.
#[derive(Debug, Args)]
pub(super) struct SandboxArguments {
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

const EXEC_USAGE: &str = "\
mandelbox exec [OPTIONS] <MODULE> --args <FILE|->
       mandelbox exec [OPTIONS] <MODULE> [-- <ARG>...]";

// A line that ends in a backslash goes on in the next one: clap breaks them for the terminal.
const EXEC_EXAMPLES: &str = "\
With --args the module is called as a task, as `run` calls it: the args are filled up with the defaults of its \
args_schema, if it describes itself or its package's manifest has one, and validated. input_paths, output_path, \
metadata and component are added from the options; where the args have one of them already, theirs counts, so that \
the args.json of a recorded call can be replayed. The call sees the --input and --output folders and no others: a \
path in the args gives no right. stdout gets the metadiff as JSON (null: none), and stderr all that the task prints.

Without --args the module is a command with any command line: it sees the --mount folders and no others, and its \
stdin, stdout, stderr and exit code are its own. It has no working directory unless a folder is mounted as `.`, and a \
path in it belongs to the mount with the longest guest path that fits.

Examples:
  mandelbox exec task.wasm --args args.json --input images --output results
  mandelbox exec task.wasm --args work/0_count/0_par_b03.args.json --input images
  echo '{}' | mandelbox exec task.wasm --args - --component B03
  mandelbox exec python.wasm --mount lib::/usr/local/lib --mount .::.:rw -- script.py
  mandelbox exec resvg.wasm --mount svg::/in --mount out::/out:rw -- /in/a.svg /out/a.png

Exit codes with --args: 0 well; 1 the host failed; 2 wrong usage or documents; 3 TaskExecutionError; \
4 JobExecutionError; 130 and 143 stopped by SIGINT and SIGTERM, as without. Without: the module's own; 134 if the sandbox ended it (a trap, its time or memory was over); 141 \
if the reader of its output has gone away; 2 if it was refused; 1 if the host failed.";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES, override_usage = EXEC_USAGE)]
pub(super) struct ExecArguments {
    /// The module (.wasm): a command or a typed task
    pub(super) module: PathBuf,
    /// The task's args, a JSON object; - is stdin
    #[arg(long, value_name = "FILE|-", help_heading = "As a task")]
    pub(super) args: Option<PathBuf>,
    /// The component, a text: the call is one of a parallel task
    #[arg(long, value_name = "C", requires = "args", help_heading = "As a task")]
    pub(super) component: Option<String>,
    /// Folder that the task reads, for input_paths; repeatable
    #[arg(long = "input", value_name = "PATH", requires = "args", help_heading = "As a task")]
    pub(super) inputs: Vec<PathBuf>,
    /// Folder that the task writes to, for output_path, made if it is not there [default: a temporary one, removed
    /// after the call]
    #[arg(long, value_name = "DIR", requires = "args", help_heading = "As a task")]
    pub(super) output: Option<PathBuf>,
    /// JSON object: the dataset's metadata [default: {}]
    #[arg(long, value_name = "FILE", requires = "args", help_heading = "As a task")]
    pub(super) metadata: Option<PathBuf>,
    /// Folder that the module sees, read-only unless :rw is at the end, under the path GUEST [default: HOST, made
    /// absolute]; repeatable
    #[arg(long = "mount", value_name = "HOST[::GUEST][:rw]", conflicts_with = "args", help_heading = "As a command")]
    pub(super) mounts: Vec<String>,
    /// What the module sees as its own name [default: its file name]
    #[arg(long, value_name = "NAME", conflicts_with = "args", help_heading = "As a command")]
    pub(super) argv0: Option<String>,
    /// Environment variable; repeatable [default: none]
    #[arg(long = "env", value_name = "NAME=VALUE", conflicts_with = "args", help_heading = "As a command")]
    pub(super) env: Vec<String>,
    /// What the module reads from stdin; - is this stdin [default: nothing]
    #[arg(long, value_name = "FILE|-", conflicts_with = "args", help_heading = "As a command")]
    pub(super) stdin: Option<PathBuf>,
    /// The module's command line
    #[arg(last = true, value_name = "ARG", conflicts_with = "args", help_heading = "As a command")]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Give tasks fixed clocks and random numbers, so that two runs give the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Say nothing but errors
    #[arg(long)]
    pub(super) quiet: bool,
}

const TEST_EXAMPLES: &str = "\
A case is a folder of PACKAGE/tests:
  args.json               the task's args; may also hold `component` and `metadata`
  case.json               optional: {\"task\": NAME, \"timeout\": \"10s\"}
  input/                  optional: its input path, seen read-only as /input
  output/                 optional: what its output folder, /output, holds before the call
  expected/metadiff.json  the metadiff that the call must give; null: none
  expected/output/        the files that /output must hold after the call, and no others
  expected/error.txt      in place of the two: the call must fail, saying this text
Clocks and random numbers are fixed, as with `run --deterministic`.

Examples:
  mandelbox test my-tasks --update          take what the cases give now as what they should give
  mandelbox test my-tasks --case empty_plate
  mandelbox test count.wasm --watch

Exit codes: 0 all cases pass; 1 the host failed; 2 wrong usage, package or case; 3 cases failed; \
130 and 143 stopped by SIGINT and SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(super) struct TestArguments {
    /// The folder of a task package, or a typed task (.wasm) beside a folder `tests`
    pub(super) package: PathBuf,
    /// Run again whenever a module, the manifest or a case changes; builds nothing, ends with Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// Write what the cases give as what they should give; a failed call is not accepted
    #[arg(long, conflicts_with = "watch")]
    pub(super) update: bool,
    /// Run this case only; repeatable
    #[arg(long = "case", value_name = "NAME")]
    pub(super) cases: Vec<String>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
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

Exit codes: 0 the page is written; 1 it cannot be; 2 the folder holds no run, or its events.jsonl is damaged.";

#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(super) struct ReportArguments {
    /// The work directory of a run: one that runs, has ended or was killed
    pub(super) work_dir: PathBuf,
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
    /// What calls and packages may have, as for `run`: a TOML file, see docs/policy.example.toml
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// How to answer: text on stderr, or one JSON object on stdout (docs/check.md)
    #[arg(long, default_value = "text")]
    pub(super) format: FormatArgument,
    /// Name every import and every export, and tell long texts whole
    #[arg(long)]
    pub(super) verbose: bool,
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
