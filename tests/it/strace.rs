//! The program under `strace`, which records system calls, makes them fail, or kills the program.

#![expect(clippy::print_stdout, reason = "tests print what they have not tried")]

use std::process::{Command, Stdio};

use crate::project::copy_env;

/// Returns true if programs can be traced here; prints why the test is skipped otherwise.
pub fn can_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .status();
    let can = traced.is_ok_and(|status| status.success());
    if !can {
        println!(
            "skipped: no program can be traced here (strace is not installed, or not allowed)"
        );
    }
    can
}

/// Returns a command that runs `program` under `strace`, in the same folder and environment.
///
/// * `trace`: file for the trace.
/// * `options`: more options of `strace`, such as `-e` with `trace=write`.
pub fn traced(program: &Command, trace: &str, options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    // With --seccomp-bpf, only the system calls of the options stop the program.
    command
        .args(["-f", "--seccomp-bpf", "-qq", "-o", trace])
        .args(options)
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::null());
    if let Some(folder) = program.get_current_dir() {
        command.current_dir(folder);
    }
    copy_env(program, &mut command);
    command
}
