//! Otsu's threshold as a command task: `otsu-rust --args-json ARGS.json --out-json OUTPUT.json`, or
//! for Fractal v1 `otsu-rust -j ARGS.json --metadata-out METADIFF.json`.

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
    let [args_option, args_file, output_option, output_file] = arguments.as_slice() else {
        return Err("usage: otsu-rust --args-json ARGS.json --out-json OUTPUT.json".to_owned());
    };
    match (args_option.as_str(), output_option.as_str()) {
        ("--args-json", "--out-json") | ("-j", "--metadata-out") => {}
        _ => {
            return Err(format!(
                "unexpected arguments {args_option} and {output_option}"
            ));
        }
    }
    let text =
        fs::read_to_string(args_file).map_err(|err| format!("cannot read {args_file}: {err}"))?;
    let args =
        serde_json::from_str(&text).map_err(|err| format!("{args_file} is no JSON: {err}"))?;
    let output = task::run(&args, |line| println!("{line}"))?;
    fs::write(output_file, output.to_string())
        .map_err(|err| format!("cannot write {output_file}: {err}"))
}
