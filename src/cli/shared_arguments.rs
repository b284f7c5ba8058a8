//! Options that several commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::text::units::{parse_memory, parse_time};

/// Options of all commands that run calls: limits, policy, isolation and cache.
#[derive(Debug, Args)]
pub(in crate::cli) struct SandboxArguments {
    /// Memory limit of a call, such as 512M or 1.5G (K, M, G and T are powers of 1024); reserved
    /// before a call starts [default: the policy's, else 4GiB, which is not reserved]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(in crate::cli) memory: Option<u64>,
    /// Time limit of a call, such as 30s, 10min or 2h [default: the policy's, else none]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// Limits of calls and rights of packages: a TOML file, see docs/policy.example.toml
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) policy: Option<PathBuf>,
    /// Run scripts (.py) with the interpreter of this environment, a folder with an
    /// `interpreter.json` that `python -m mandelbox.env create` makes
    #[arg(long, value_name = "ENV")]
    pub(in crate::cli) python: Option<PathBuf>,
    /// Run calls in threads, or in child processes that can be killed and are confined further
    #[arg(long, value_name = "MODE", default_value = "thread")]
    pub(in crate::cli) isolation: IsolationArgument,
    /// Compile modules from scratch, without the user's cache of compiled modules
    #[arg(long)]
    pub(in crate::cli) no_cache: bool,
    /// Start the module in each call, also where a package requests a snapshot of its start
    #[arg(long)]
    pub(in crate::cli) no_snapshots: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum IsolationArgument {
    Thread,
    Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FormatArgument {
    Text,
    Json,
}

/// Version of Fractal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FractalArgument {
    #[value(name = "1")]
    V1,
    #[value(name = "2")]
    V2,
}

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
