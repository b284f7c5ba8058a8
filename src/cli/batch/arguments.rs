//! Command line of `mandelbox batch`, as clap parses it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::shared_arguments::{ProcessArguments, SandboxArguments};

// A line that ends in a backslash continues in the next line: clap wraps the paragraph to the width
// of the terminal.
const BATCH_EXAMPLES: &str = "\
Each line of --calls is a JSON object, and so is each line of --results (docs/batch.md):
  {\"args\": {...}, \"item\": NAME, \"id\": ANY}      a task of Fractal, or a typed task
  {\"argv\": [...], \"stdin\": TEXT, \"id\": ANY}     a command with any command line
A result has the index of its line, and the same item and id. An invalid line is answered \
with the outcome `refused`, and the other lines still run.

--calls can be a pipe that stays open: lines are read as fast as calls are made, each result is \
written when its call ends, and the program ends with the last call after the end of the input.

A task can access the --input, --read and --output folders and no others: a path in the args \
grants no access. Args of Fractal v1 are completed as by `exec`.

Examples:
  mandelbox batch task.wasm --calls calls.jsonl --results results.jsonl --jobs 4
  mandelbox batch task.wasm --calls calls.jsonl --results results.jsonl --resume
  mandelbox batch task.wasm --calls - --results - --input images --output masks
  seq 9 | jq -c '{argv: [\"--size\", \"\\(.)\"]}' | mandelbox batch tool.wasm --calls - --results -

Exit codes:
  0: all calls were answered, whether they succeeded or failed
  1: mandelbox failed (disk, permissions)
  2: invalid command line, or the module cannot be used; no call was made
  141: the reader of the results is gone
  129, 130, 143: stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; --resume runs the other calls
A second signal stops at once.";

/// Form of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ContractArgument {
    // A task of Fractal v1: `-j ARGS --metadata-out OUTPUT`.
    V1,
    // A task of Fractal v2: `--args-json ARGS --out-json OUTPUT`.
    V2,
    // A typed task: the args and the output are passed in memory.
    Typed,
    // A command with any command line.
    Argv,
}

impl ContractArgument {
    /// Returns the name of the contract on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Typed => "typed",
            Self::Argv => "argv",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = BATCH_EXAMPLES)]
pub(in crate::cli) struct BatchArguments {
    /// Module (.wasm): a command or a typed task; or a script, with --python
    pub(super) module: PathBuf,
    /// Calls, one JSON object a line; - is stdin
    #[arg(long, value_name = "FILE|-")]
    pub(super) calls: PathBuf,
    /// Results, one JSON object a line, in the order in which calls end; a new or empty file,
    /// except with --resume; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(super) results: PathBuf,
    /// Form of the calls [default: typed for a typed task, else that of the first line]
    #[arg(long, value_name = "CONTRACT")]
    pub(super) contract: Option<ContractArgument>,
    /// Folder that all calls can write to, for output_path or zarr_dir; created if missing
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Folder that all calls can read, in Fractal v1 for input_paths; repeatable
    #[arg(long = "input", value_name = "DIR")]
    pub(super) inputs: Vec<PathBuf>,
    /// Another folder that all calls can read, such as one of tables or models; repeatable
    #[arg(long, value_name = "DIR")]
    pub(super) read: Vec<PathBuf>,
    /// Maximum number of calls that run at a time [default: the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) jobs: Option<u16>,
    /// Write the results in the order of the calls; at most 1,024 calls run ahead of the oldest one
    #[arg(long)]
    pub(super) ordered: bool,
    /// Keep the results in --results, and make only the calls that have none; repeat all other
    /// options, with the same calls
    #[arg(long)]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) sandbox: SandboxArguments,
    /// Start the module once, without a call's data, and run the calls from its memory; kept in the
    /// cache for later calls (docs/snapshots.md)
    #[arg(long, conflicts_with = "no_snapshots")]
    pub(super) snapshot: bool,
    /// Give calls fixed clocks and random numbers, so that two runs produce the same bytes
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub(in crate::cli) quiet: bool,
    #[command(flatten)]
    pub(super) process: ProcessArguments,
    /// Fixed arguments of the command, before those of each call
    #[arg(last = true, value_name = "ARG")]
    pub(super) fixed_args: Vec<String>,
}
