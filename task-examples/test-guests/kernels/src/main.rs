//! `kernels NAME N FOLDER`: runs a kernel and prints its checksum.

use fractal_task::TaskError;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    fractal_task::exit_code(run(&std::env::args().collect::<Vec<_>>()))
}

fn run(args: &[String]) -> Result<(), TaskError> {
    let [_, name, n, folder, ..] = args else {
        return Err(TaskError::new("usage: kernels NAME N FOLDER"));
    };
    let kernel = kernels::KERNELS.iter().find(|(known, _)| known == name);
    let (_, kernel) = kernel.ok_or_else(|| TaskError::new(format!("there is no kernel {name}")))?;
    let n = n
        .parse()
        .map_err(|err| TaskError::new(format!("{n} is no number: {err}")))?;
    let sum = kernel(n, Path::new(folder))
        .map_err(|err| TaskError::about("cannot work in", Path::new(folder), err))?;
    println!("{sum}");
    Ok(())
}
