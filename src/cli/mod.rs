//! Command line: turns arguments and environment into checked options. Each subcommand has a module
//! of its own.

mod arguments;
mod author_arguments;
mod batch;
mod check;
mod doctor;
mod doctor_cache;
mod documents;
mod earlier_events;
mod environment;
mod exec;
mod job;
mod machine_arguments;
mod manual;
mod new;
mod open_files;
mod parent;
mod plan_text;
mod report;
mod result_files;
mod run;
mod run_answer;
mod runs;
mod sandbox_options;
mod shared_arguments;
mod show;
mod signals;
mod slurm;
mod snapshot;
mod starter_arguments;
mod status;
mod task_call;
#[cfg(feature = "otel")]
mod telemetry;
mod temporary;
mod test;
mod wheels;
mod worker;

use std::ffi::OsString;
use std::os::fd::AsFd;

use clap::Parser;

use crate::backend::{close_inherited_files, compile_for_parent};
use crate::run::exit_code;
use crate::sandbox::capture_no_backtraces;
use arguments::{Cli, Command, WorkerArguments};
use signals::Signals;

/// Last output of the program, and its exit code.
#[derive(Debug, Default)]
pub struct Answer {
    /// Data for other programs.
    pub stdout: Vec<u8>,
    /// Text for people.
    pub stderr: String,
    /// One of [`exit_code`], or the exit code of a guest.
    pub exit_code: u8,
}

impl Answer {
    /// Returns an answer without data.
    fn text(stderr: String, exit_code: u8) -> Self {
        Self {
            stdout: Vec::new(),
            stderr,
            exit_code,
        }
    }
}

/// Runs a command line.
pub fn answer(command_line: impl IntoIterator<Item = OsString>) -> Answer {
    capture_no_backtraces();
    // If this fails, a file above `ulimit -f` ends the program, as the signal does by default.
    let _ = signals::ignore_file_size_signal();
    let cli = match Cli::try_parse_from(command_line) {
        Ok(cli) => cli,
        Err(err) if err.use_stderr() => {
            return Answer::text(err.render().to_string(), exit_code::WRONG_INPUT);
        }
        // Help and version are the requested output, although clap returns them as errors.
        Err(err) => {
            return Answer {
                stdout: err.render().to_string().into_bytes(),
                ..Answer::default()
            };
        }
    };
    match cli.command {
        Command::Worker(arguments) => match (&arguments.batch, arguments.slice) {
            (Some(batch), Some(slice)) => stoppable("worker", true, |signals| {
                worker::worker(batch, slice, signals)
            }),
            _ => answer_parent(serve_parent(&arguments)),
        },
        Command::Compiler => answer_parent(compile()),
        Command::Run(arguments) => stoppable("run", arguments.quiet, |signals| {
            run::run(*arguments, signals)
        }),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Exec(arguments) => stoppable("exec", arguments.quiet, |signals| {
            exec::exec(&arguments, signals)
        }),
        Command::Batch(arguments) => stoppable("batch", arguments.quiet, |signals| {
            batch::batch(&arguments, signals)
        }),
        Command::Test(arguments) => {
            stoppable("test", false, |signals| test::test(&arguments, signals))
        }
        Command::Snapshot(arguments) => stoppable("snapshot", false, |signals| {
            snapshot::snapshot(&arguments, signals)
        }),
        Command::Status(arguments) => status::status(&arguments),
        Command::Runs(arguments) => runs::runs(&arguments),
        Command::Show(arguments) => show::show(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::New(arguments) => new::new(&arguments),
    }
}

/// Runs a command that signals can stop, in a span of its own if traces are exported.
fn stoppable(name: &'static str, quiet: bool, command: impl FnOnce(&Signals) -> Answer) -> Answer {
    #[cfg(not(feature = "otel"))]
    let _ = (name, quiet);
    match Signals::install() {
        #[cfg(feature = "otel")]
        Ok(signals) => telemetry::traced(name, quiet, &signals, || command(&signals)),
        #[cfg(not(feature = "otel"))]
        Ok(signals) => command(&signals),
        Err(err) => Answer::text(format!("error: {}\n", err.chain()), exit_code::HOST_FAILED),
    }
}

fn answer_parent(served: std::io::Result<()>) -> Answer {
    match served {
        Ok(()) => Answer::default(),
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {
            let text = "error: no other mandelbox sends work to this command on stdin; use \
                `mandelbox run`, which starts it\n";
            Answer::text(text.to_owned(), exit_code::WRONG_INPUT)
        }
        Err(err) => Answer::text(format!("error: {err}\n"), exit_code::HOST_FAILED),
    }
}

/// Compiles modules for the parent process.
fn compile() -> std::io::Result<()> {
    close_inherited_files();
    signals::ignore()?;
    compile_for_parent(std::io::stdin().lock(), std::io::stdout().lock())
}

/// Runs calls for the parent process.
fn serve_parent(arguments: &WorkerArguments) -> std::io::Result<()> {
    close_inherited_files();
    signals::ignore()?;
    // The messages of the parent arrive on stdin, and the stdin that guests may read arrives on
    // stderr. Move each to where it is used: guests that inherit stdin read descriptor 0.
    let from_parent = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(std::io::stderr())?;
    serve_as(arguments, from_parent)
}

#[cfg(not(feature = "weakened-for-tests"))]
fn serve_as(_: &WorkerArguments, from_parent: std::fs::File) -> std::io::Result<()> {
    crate::backend::serve(from_parent, std::io::stdout())
}

#[cfg(feature = "weakened-for-tests")]
fn serve_as(arguments: &WorkerArguments, from_parent: std::fs::File) -> std::io::Result<()> {
    crate::backend::serve_with(&arguments.layers(), from_parent, std::io::stdout())
}
