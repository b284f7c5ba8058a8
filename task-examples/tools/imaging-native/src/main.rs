//! The tasks of `imaging` built for this machine.
//!
//! `imaging-native TASK -j ARGS.json --metadata-out METADIFF.json` calls one task as the sandbox
//! does, for a debugger or a profiler. The command line of Fractal v2, `TASK --args-json ARGS.json
//! --out-json OUTPUT.json`, calls the form of the task for that version. `imaging-native run
//! WORKFLOW --input DIR --output DIR` makes all calls of the package's workflow one after the other
//! in this process. Both give the same bytes as the module.

mod workflow;

use fractal_task::{Call, TaskError, exit_code};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: imaging-native TASK -j ARGS.json --metadata-out METADIFF.json
       imaging-native TASK --args-json ARGS.json --out-json OUTPUT.json
       imaging-native run WORKFLOW.json --input DIR --output DIR";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|arg| arg.to_str()) {
        None | Some("-h" | "--help") => {
            let (v1, v2) = (
                imaging::tasks::NAMES.join(", "),
                imaging::tasks::v2::NAMES.join(", "),
            );
            println!("{USAGE}\n\nTASK is one of {v1}.\nWith --args-json, TASK is one of {v2}.");
            ExitCode::SUCCESS
        }
        Some("run") => exit_code(run(&args[1..])),
        Some(_) => exit_code(Call::parse(args).and_then(|call| imaging::tasks::call(&call))),
    }
}

fn run(args: &[OsString]) -> Result<(), TaskError> {
    let (mut workflow, mut input, mut output) = (None, None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let place = match arg.to_str() {
            Some("--input") => &mut input,
            Some("--output") => &mut output,
            _ => {
                workflow = Some(PathBuf::from(arg));
                continue;
            }
        };
        *place = args.next().map(PathBuf::from);
    }
    let missing = |what: &str| TaskError::new(format!("{what} is missing; {USAGE}"));
    let workflow = workflow.ok_or_else(|| missing("the workflow"))?;
    let input = absolute(&input.ok_or_else(|| missing("--input"))?)?;
    let output = output.ok_or_else(|| missing("--output"))?;
    std::fs::create_dir_all(&output)
        .map_err(|err| TaskError::about("cannot make the folder", &output, err))?;
    workflow::run(&workflow, &input, &absolute(&output)?)
}

/// Metadata hold paths, so these have to be the ones that the sandbox would see.
fn absolute(path: &Path) -> Result<PathBuf, TaskError> {
    path.canonicalize()
        .map_err(|err| TaskError::about("cannot find", path, err))
}
