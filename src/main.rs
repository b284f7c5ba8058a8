//! The program: passes the command line to the library and exits with the code that it returns.

use std::io::{self, Write};
use std::process::ExitCode;

use mandelbox::cli::{Answer, answer};
use mandelbox::report::print_last;

fn main() -> ExitCode {
    let Answer {
        stdout,
        stderr,
        exit_code,
    } = answer(std::env::args_os());
    let written = io::stdout()
        .write_all(&stdout)
        .and_then(|()| io::stdout().flush());
    print_last(&stderr);
    match written {
        // A reader that closed the pipe is no failure: the results are in the work directory.
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            print_last(&format!("error: failed to write to stdout: {err}\n"));
            ExitCode::from(mandelbox::run::exit_code::HOST_FAILED)
        }
        _ => ExitCode::from(exit_code),
    }
}
