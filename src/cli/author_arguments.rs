//! The commands of task authors, as clap reads them: exec, test, check and new.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{FormatArgument, SandboxArguments};
use super::new::{Kind, Language};

const EXEC_USAGE: &str = "\
mandelbox exec [OPTIONS] <MODULE> --args <FILE|->
       mandelbox exec [OPTIONS] <MODULE> [-- <ARG>...]";

// A line that ends in a backslash goes on in the next one: clap breaks them for the terminal.
const EXEC_EXAMPLES: &str = "\
With --args the module is called as a task, as `run` calls it: the args are filled up with the \
defaults of its \
args_schema, if it describes itself or its package's manifest has one, and validated. \
input_paths, output_path, \
metadata and component are added from the options; where the args have one of them already, \
theirs counts, so that \
the args.json of a recorded call can be replayed. The call sees the --input and --output folders \
and no others: a \
path in the args gives no right. stdout gets the metadiff as JSON (null: none), and stderr all \
that the task prints.

Without --args the module is a command with any command line: it sees the --mount folders and no others, and its \
stdin, stdout, stderr and exit code are its own. It has no working directory unless a folder is \
mounted as `.`, and a \
path in it belongs to the mount with the longest guest path that fits.

Examples:
  mandelbox exec task.wasm --args args.json --input images --output results
  mandelbox exec task.wasm --args work/0_count/0_par_b03.args.json --input images
  echo '{}' | mandelbox exec task.wasm --args - --component B03
  mandelbox exec python.wasm --mount lib::/usr/local/lib --mount .::.:rw -- script.py
  mandelbox exec resvg.wasm --mount svg::/in --mount out::/out:rw -- /in/a.svg /out/a.png

Exit codes with --args: 0 well; 1 the host failed; 2 wrong usage or documents; 3 TaskExecutionError; \
4 JobExecutionError; 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM, as without. Without: \
the module's own; 134 if the sandbox ended it (a trap, its time or memory was over); 141 \
if the reader of its output has gone away; 2 if it was refused; 1 if the host failed.";

/// The option for the item that a call is for.
pub(super) const ITEM_OPTION: &str = "--component";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES, override_usage = EXEC_USAGE)]
pub(super) struct ExecArguments {
    /// The module (.wasm): a command or a typed task
    pub(super) module: PathBuf,
    /// The task's args, a JSON object; - is stdin
    #[arg(long, value_name = "FILE|-", help_heading = "As a task")]
    pub(super) args: Option<PathBuf>,
    /// The component, a text: the call is one of a parallel task
    #[arg(
        long = "component",
        value_name = "C",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) item: Option<String>,
    /// Folder that the task reads, for input_paths; repeatable
    #[arg(
        long = "input",
        value_name = "PATH",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) inputs: Vec<PathBuf>,
    /// Folder that the task writes to, for output_path, made if it is not there [default: a
    /// temporary one, removed after the call]
    #[arg(
        long,
        value_name = "DIR",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) output: Option<PathBuf>,
    /// JSON object: the dataset's metadata [default: {}]
    #[arg(
        long,
        value_name = "FILE",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) metadata: Option<PathBuf>,
    /// Folder that the module sees, read-only unless :rw is at the end, under the path GUEST
    /// [default: HOST, made absolute]; repeatable
    #[arg(
        long = "mount",
        value_name = "HOST[::GUEST][:rw]",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) mounts: Vec<String>,
    /// What the module sees as its own name [default: its file name]
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) argv0: Option<String>,
    /// Environment variable; repeatable [default: none]
    #[arg(
        long = "env",
        value_name = "NAME=VALUE",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) env: Vec<String>,
    /// What the module reads from stdin; - is this stdin [default: nothing]
    #[arg(
        long,
        value_name = "FILE|-",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) stdin: Option<PathBuf>,
    /// The module's command line
    #[arg(
        last = true,
        value_name = "ARG",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
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
  mandelbox test my-tasks --format json

Exit codes: 0 all cases pass; 1 the host failed; 2 wrong usage, package or case; 3 cases failed; \
129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(super) struct TestArguments {
    /// The folder of a task package, or a typed task (.wasm) beside a folder `tests`
    pub(super) package: PathBuf,
    /// Run again whenever a module, the manifest or a case changes; builds nothing, ends with
    /// Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// Write what the cases give as what they should give; a failed call is not accepted
    #[arg(long, conflicts_with = "watch")]
    pub(super) update: bool,
    /// Run this case only; repeatable
    #[arg(long = "case", value_name = "NAME")]
    pub(super) cases: Vec<String>,
    /// How to answer: text on stderr, or one JSON object on stdout (docs/testing.md)
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
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
    /// Folder of a task package, or a typed task (.wasm), that the workflow's sources are looked up
    /// in; repeatable
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
