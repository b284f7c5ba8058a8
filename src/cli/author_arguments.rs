//! Command line of the commands for task authors, as clap parses it: exec, test, check and new.

use std::path::PathBuf;

use clap::Args;

use super::new::{Kind, Language};
use super::shared_arguments::{FormatArgument, FractalArgument, SandboxArguments};

const EXEC_USAGE: &str = "\
mandelbox exec [OPTIONS] <MODULE> --args <FILE|->
       mandelbox exec [OPTIONS] <MODULE> [-- <ARG>...]";

// A line that ends in a backslash continues in the next line: clap wraps the paragraph to the width
// of the terminal.
const EXEC_EXAMPLES: &str = "\
With --args, the module is called as a task, as `run` calls it, and all args are validated with the \
task's args_schema (in its own description or in the manifest of its package). The task can access \
the --input, --read and --output folders and no others: a path in the args grants no access. \
stdout receives the output as JSON (null for none), stderr all that the task prints.

A task of Fractal v2 is called if the args have zarr_url, zarr_urls, zarr_dir or init_args, if the \
manifest of the package has version 2, or with --fractal 2. The args are complete, as in the \
args.json of a recorded call, but for zarr_dir, which is the --output folder if it is missing.

In Fractal v1, missing args are filled in from the defaults of the schema; input_paths, \
output_path, metadata and component are added from the options. Values of these keys in the args \
take precedence, so the args.json of a recorded call repeats that call.

Without --args, the module is a command with any command line. It can access the --mount folders \
and no others. Its stdout, stderr and exit code are passed through. It has no working directory \
unless a folder is mounted as `.`. A path belongs to the mount with the longest matching guest \
path.

Examples:
  mandelbox exec task.wasm --args args.json --input images --output results
  mandelbox exec task.wasm --args work/0_segment/par-000000-0000000-args.json --output zarrs
  mandelbox exec task.wasm --args work/0_count/0_par_b03.args.json --input images
  echo '{}' | mandelbox exec task.wasm --args - --component B03
  mandelbox exec python.wasm --mount lib::/usr/local/lib --mount .::.:rw -- script.py
  mandelbox exec resvg.wasm --mount svg::/in --mount out::/out:rw -- /in/a.svg /out/a.png

Exit codes with --args:
  0: success
  1: mandelbox failed (disk, permissions)
  2: invalid command line or documents; nothing was run
  3: TaskExecutionError
  4: JobExecutionError
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM

Exit codes without --args: those of the module, and
  1: mandelbox failed (disk, permissions)
  2: invalid command line, or the module was refused
  134: the sandbox ended the module (trap, time limit, memory limit)
  141: the reader of its output is gone
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";

/// Option that names the item of a call.
pub(super) const ITEM_OPTION: &str = "--component";

#[derive(Debug, Args)]
#[command(after_help = EXEC_EXAMPLES, override_usage = EXEC_USAGE)]
pub(super) struct ExecArguments {
    /// Module (.wasm): a command or a typed task; or a script, with --python
    pub(super) module: PathBuf,
    /// Args of the task, a JSON object; - is stdin
    #[arg(long, value_name = "FILE|-", help_heading = "As a task")]
    pub(super) args: Option<PathBuf>,
    /// Version of Fractal that the call is for [default: that of the args or of the package]
    #[arg(
        long,
        value_name = "VERSION",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) fractal: Option<FractalArgument>,
    /// Component of the call (a string), for a parallel task of Fractal v1
    #[arg(
        long = "component",
        value_name = "C",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) item: Option<String>,
    /// Folder that the task reads, in Fractal v1 for input_paths; repeatable
    #[arg(
        long = "input",
        value_name = "PATH",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) inputs: Vec<PathBuf>,
    /// Another folder that the task reads, such as one of tables or models; repeatable
    #[arg(
        long,
        value_name = "DIR",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) read: Vec<PathBuf>,
    /// Folder that the task writes to, for output_path or zarr_dir; created if missing [default: a
    /// temporary folder, removed after the call]
    #[arg(
        long,
        value_name = "DIR",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) output: Option<PathBuf>,
    /// Metadata of the dataset of Fractal v1: a JSON object [default: {}]
    #[arg(
        long,
        value_name = "FILE",
        requires = "args",
        help_heading = "As a task"
    )]
    pub(super) metadata: Option<PathBuf>,
    /// Folder that the module can access, read-only without :rw, at the path GUEST [default: the
    /// absolute path of HOST]; repeatable
    #[arg(
        long = "mount",
        value_name = "HOST[::GUEST][:rw]",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) mounts: Vec<String>,
    /// Program name that the module receives [default: its file name]
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
    /// File that the module reads as its stdin; - is stdin of mandelbox [default: empty]
    #[arg(
        long,
        value_name = "FILE|-",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) stdin: Option<PathBuf>,
    /// Arguments of the module
    #[arg(
        last = true,
        value_name = "ARG",
        conflicts_with = "args",
        help_heading = "As a command"
    )]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Start the module once, without the call's data, and run the call from its memory; kept in
    /// the cache for later calls (docs/snapshots.md)
    #[arg(long, conflicts_with = "no_snapshots")]
    pub(super) snapshot: bool,
    /// Give tasks fixed clocks and random numbers, so that two runs produce the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub(super) quiet: bool,
}

const TEST_EXAMPLES: &str = "\
A case is a folder in PACKAGE/tests:
  args.json             all args of the call, with zarr_url, init_args or zarr_urls
  case.json             optional: {\"task\": NAME, \"timeout\": \"10s\"}
  zarr_dir/             optional: contents of the folder /zarr_dir before the call
  input/                optional: a folder that the task sees read-only as /input
  expected/output.json  the expected output, such as image_list_updates; null for none
  expected/zarr_dir/    the files that /zarr_dir must contain after the call, and no others
  expected/error.txt    for a call that must fail: a text in its message, instead of the other two
In a package of Fractal v1, args.json has the args of the task and may contain `component` and \
`metadata`. The folders are `output/` (/output) and `expected/output/`, and the expected output is \
`expected/metadiff.json`. input/ is the input path.
Clocks and random numbers are fixed, as with `run --deterministic`.

Examples:
  mandelbox test my-tasks --update          run the cases and accept their results
  mandelbox test my-tasks --case empty_plate
  mandelbox test count.wasm --watch
  mandelbox test my-tasks --format json

Exit codes:
  0: all cases passed
  1: mandelbox failed (disk, permissions)
  2: invalid command line, package or case
  3: cases failed
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(super) struct TestArguments {
    /// Folder of a task package, or a typed task (.wasm) next to a folder `tests`
    pub(super) package: PathBuf,
    /// Rerun the cases whenever a module, the manifest or a case changes, until Ctrl-C; builds
    /// nothing
    #[arg(long)]
    pub(super) watch: bool,
    /// Write the results of the cases as their expected results, except those of failed calls
    #[arg(long, conflicts_with = "watch")]
    pub(super) update: bool,
    /// Run this case only; repeatable
    #[arg(long = "case", value_name = "NAME")]
    pub(super) cases: Vec<String>,
    /// Output format: text on stderr, or one JSON object on stdout (docs/testing.md)
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) format: FormatArgument,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
}

const SNAPSHOT_EXAMPLES: &str = "\
The module must export `wizer.initialize`, which starts it without a call's data. Its memory after \
that becomes the data of the new module, which needs no initialization. The start can read the \
--mount folders, and has no other file, no network, no variable, and fixed clocks and random \
numbers.

A package can request snapshots instead (`meta.mandelbox.snapshot`), which then are made when they \
are needed, and compiled faster: see docs/snapshots.md.

Examples:
  mandelbox snapshot python.wasm --mount lib::/usr/local/lib --output task.wasm

Exit codes:
  0: success
  1: mandelbox failed (disk, permissions)
  2: invalid command line, or no snapshot of the module is possible
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";

#[derive(Debug, Args)]
#[command(after_help = SNAPSHOT_EXAMPLES)]
pub(super) struct SnapshotArguments {
    /// Module (.wasm) that exports `wizer.initialize`
    pub(super) module: PathBuf,
    /// File of the new module, which is replaced if it exists
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Folder that the start of the module can read, at the path GUEST [default: the absolute path
    /// of HOST]; repeatable
    #[arg(long = "mount", value_name = "HOST[::GUEST]")]
    pub(super) mounts: Vec<String>,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  mandelbox check workflow.json --tasks my-tasks
  mandelbox check my-tasks
  mandelbox check task.wasm --format json
  mandelbox check dataset.json

Exit codes:
  0: no problem found
  1: mandelbox failed (disk, permissions)
  2: problems found";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(super) struct CheckArguments {
    /// Workflow (JSON), module (.wasm), script, folder of a task package or of installed packages,
    /// or dataset (JSON)
    #[arg(value_name = "WORKFLOW|MODULE|PACKAGE|DATASET")]
    pub(super) path: PathBuf,
    /// Task package in which the tasks of the workflow are looked up: a folder, a wheel (.whl), or a
    /// typed task (.wasm); for v2 also a folder of installed packages; repeatable
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) tasks: Vec<PathBuf>,
    /// Limits of calls and rights of packages, as for `run`: a TOML file, see
    /// docs/policy.example.toml
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// Check that scripts (.py) run with the interpreter of this environment, and report what they
    /// import and it lacks
    #[arg(long, value_name = "ENV")]
    pub(super) python: Option<PathBuf>,
    /// Output format: text on stderr, or one JSON object on stdout (docs/check.md)
    #[arg(long, default_value = "text")]
    pub(super) format: FormatArgument,
    /// List every import and every export, and print long texts in full
    #[arg(long)]
    pub(super) verbose: bool,
}

const NEW_EXAMPLES: &str = "\
Examples:
  mandelbox new count-cells --lang python
  mandelbox new count-cells --lang rust --kind typed
  mandelbox new count-cells --lang c --fractal 1

The package contains sources, a build script with pinned tools, a workflow with images to run it \
on, and tests. mandelbox downloads and installs nothing. The build script does, and keeps its \
tools in the package.

Exit codes:
  0: success
  1: mandelbox failed (disk, permissions)
  2: invalid command line, or the folder is not empty";

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(super) struct NewArguments {
    /// Name of the package, or a path that ends in it; the folder is created
    pub(super) name: PathBuf,
    /// Language of the task
    #[arg(long, value_name = "LANGUAGE")]
    pub(super) lang: Language,
    /// Kind of the task [default: command in rust, c and go; typed in python and js]
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<Kind>,
    /// Version of Fractal that the package is for
    #[arg(long, value_name = "VERSION", default_value = "2")]
    pub(super) fractal: FractalArgument,
}
