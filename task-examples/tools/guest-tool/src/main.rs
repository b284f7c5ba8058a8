//! Turns a WASI preview 1 module into a WASM component: the module is put into the component
//! together with the adapter that translates its imports to WASI 0.2. It runs on the host, at build
//! time only.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

const USAGE: &str = "\
usage: guest-tool command IN.wasm OUT.wasm      a module with _start becomes a wasi:cli/run component
       guest-tool component IN.wasm OUT.wasm    a reactor module that carries its world becomes a component of it";

/// What a command line asks for.
struct Job {
    adapter: &'static [u8],
    input: PathBuf,
    output: PathBuf,
}

fn main() -> ExitCode {
    let Some(job) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match build_component(&job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl Iterator<Item = String>) -> Option<Job> {
    let [kind, input, output]: [String; 3] = args.collect::<Vec<_>>().try_into().ok()?;
    let adapter = match kind.as_str() {
        "command" => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        "component" => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        _ => return None,
    };
    Some(Job {
        adapter,
        input: input.into(),
        output: output.into(),
    })
}

fn build_component(job: &Job) -> Result<()> {
    let module = std::fs::read(&job.input)
        .with_context(|| format!("cannot read {}", job.input.display()))?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, job.adapter))
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("cannot make a component of {}", job.input.display()))?;
    std::fs::write(&job.output, component)
        .with_context(|| format!("cannot write {}", job.output.display()))
}
