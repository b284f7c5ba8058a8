//! The program: hands the command line to the library and ends with its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use mandelbox::cli::{Answer, answer};

fn main() -> ExitCode {
    let Answer { stdout, stderr, exit_code } = answer(std::env::args_os());
    // A reader that has gone away is no reason to fail: what counts is in the work directory.
    let _ = io::stdout().write_all(&stdout).and_then(|()| io::stdout().flush());
    let _ = io::stderr().write_all(stderr.as_bytes());
    ExitCode::from(exit_code)
}
