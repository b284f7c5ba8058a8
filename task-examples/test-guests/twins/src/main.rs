//! Twins of the tasks that fractal-server's own tests use, for tests of its backends.
//!
//! Version 1: `twins.wasm NAME -j ARGS --metadata-out METADIFF`, with the parameters of the tasks
//! `dummy` and `dummy_parallel` in fractal-server's tests, or with `copy_args`, `null` and
//! `nothing`. Version 2: `twins.wasm NAME --args-json ARGS --out-json OUTPUT`, with a converter
//! `v2_create` that makes three images, and a parallel task `v2_mark`. `true` and `false` only
//! exit.

mod stamp;
mod v1;
mod v2;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let name = words.first().map_or("", String::as_str);
    match name {
        "true" => {
            println!("true");
            Ok(())
        }
        "false" => Err("false says no".to_owned()),
        _ if name.starts_with("v2_") => {
            let call = Call::new(words, "--args-json", "--out-json")?;
            v2::run(name, &call)
        }
        _ => v1::run(name, &Call::new(words, "-j", "--metadata-out")?),
    }
}

/// Files and arguments of a call.
struct Call {
    args_file: String,
    output_file: String,
    args: Map<String, Value>,
}

impl Call {
    /// Reads the arguments.
    ///
    /// * `args_option`, `output_option`: options of the command line before the two files.
    fn new(words: &[String], args_option: &str, output_option: &str) -> Result<Self, String> {
        let after = |option: &str| {
            let index = words.iter().position(|word| word == option);
            index
                .and_then(|index| words.get(index + 1))
                .cloned()
                .ok_or_else(|| format!("there is no {option}"))
        };
        let args_file = after(args_option)?;
        let text = fs::read_to_string(&args_file).map_err(|err| format!("{args_file}: {err}"))?;
        let args = serde_json::from_str(&text).map_err(|err| format!("{args_file}: {err}"))?;
        Ok(Self {
            args_file,
            output_file: after(output_option)?,
            args,
        })
    }

    fn text(&self, key: &str) -> &str {
        self.args
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn value(&self, key: &str) -> Value {
        self.args.get(key).cloned().unwrap_or_default()
    }

    fn write_output(&self, output: &Value) -> Result<(), String> {
        write(&self.output_file, output.to_string())
    }
}

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<(), String> {
    let path = path.as_ref();
    fs::write(path, text).map_err(|err| format!("{}: {err}", path.display()))
}

fn create_folder(path: &str) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|err| format!("{path}: {err}"))
}

/// Prints a line as Python's logging does in Fractal's tasks.
fn log(text: &str) {
    eprintln!("{}; INFO; {text}", stamp::now().of_log());
}
