//! Otsu's threshold as a command task: `otsu-rust -j ARGS.json --metadata-out METADIFF.json`.

mod task;

use std::env;
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    match call() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn call() -> Result<(), String> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [j, args_file, metadata_out, metadiff_file] = arguments.as_slice() else {
        return Err("usage: otsu-rust -j ARGS.json --metadata-out METADIFF.json".to_owned());
    };
    if j != "-j" || metadata_out != "--metadata-out" {
        return Err(format!("unexpected arguments {j} and {metadata_out}"));
    }
    let text = fs::read_to_string(args_file).map_err(|err| format!("cannot read {args_file}: {err}"))?;
    let args = serde_json::from_str(&text).map_err(|err| format!("{args_file} is no JSON: {err}"))?;
    let metadiff = task::run(&args, |line| println!("{line}"))?;
    fs::write(metadiff_file, metadiff.to_string()).map_err(|err| format!("cannot write {metadiff_file}: {err}"))
}
