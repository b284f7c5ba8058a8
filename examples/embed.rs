//! A program that runs a workflow with the library: its own watcher, its own way to give up, no
//! command line.
//!
//! `cargo run --example embed -- OUTPUT` makes OME-Zarr images of `task-examples/images` in the
//! folder OUTPUT.
//!
//! With a second argument it takes its tasks' native code from that folder, where `precompile` has
//! put it. Then it needs no compiler:
//!
//! ```sh
//! cargo run --example precompile -- code task-examples/modules/{list_images,convert_to_ome_zarr}.wasm
//! cargo run --no-default-features --example embed -- OUTPUT code
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mandelbox::backend::Local;
use mandelbox::event::{Event, EventKind, Reporter};
use mandelbox::fractal::package::TaskPackage;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{CancelToken, ModuleFile};
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{ProcessWorkflow, RunOptions};

/// Longest time that a run may take; then it is cancelled.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Most bytes of a module.
const MAX_MODULE_BYTES: u64 = 64 << 20;
/// The modules of the package `task-examples/ome-zarr`.
const MODULES: [&str; 2] = ["list_images.wasm", "convert_to_ome_zarr.wasm"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let output = arguments
        .next()
        .ok_or("usage: embed OUTPUT [FOLDER OF PRECOMPILED CODE]")?;
    let output = std::path::absolute(output)?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("task-examples");

    let backend = Local::new(0)?;
    if let Some(code) = arguments.next() {
        adopt(&backend, &examples.join("modules"), &code)?;
    }

    let mut problems = Problems::default();
    let package = examples.join("ome-zarr");
    let packages = Vec::from_iter(TaskPackage::read(&package, &mut problems));
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let workflow = WorkflowDocument::load(&package.join("workflow.json"))?;

    let mut process = ProcessWorkflow::new(workflow, &output, &output.with_extension("run"));
    process.input_paths = vec![examples.join("images")];
    process.packages = packages;
    let options = RunOptions::new(Arc::new(backend));
    cancel_later(options.cancel.clone());
    let result = process_workflow(&process, options, vec![Box::new(Watcher)])?;

    let images = &result["metadata"]["image"];
    writeln!(io::stdout(), "images in {}: {images}", output.display())?;
    Ok(())
}

/// Cancels a run that takes too long; a program with a window would do so when a button is pressed.
fn cancel_later(cancel: CancelToken) {
    std::thread::spawn(move || {
        std::thread::sleep(TIMEOUT);
        cancel.cancel();
    });
}

/// Prints the end of each call.
struct Watcher;

impl Reporter for Watcher {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        if let EventKind::CallFinished {
            call,
            outcome,
            usage,
            ..
        } = &event.kind
        {
            let component = match &call.item {
                None => String::new(),
                Some(component) => format!(" of {component}"),
            };
            let (end, seconds) = (outcome.describe(), usage.wall_time.as_secs_f64());
            writeln!(
                io::stdout(),
                "event {}: the call{component} {end} after {seconds:.2} s",
                event.seq
            )?;
        }
        Ok(())
    }
}

/// Gives the backend the native code of its modules.
#[expect(
    unsafe_code,
    reason = "whoever runs this program vouches for the folder of code"
)]
fn adopt(backend: &Local, modules: &Path, code: &Path) -> Result<(), Box<dyn Error>> {
    for name in MODULES {
        let module = ModuleFile::read(&modules.join(name), MAX_MODULE_BYTES)?;
        let code = std::fs::read(code.join(&module.sha256))?;
        // SAFETY: the code is what `precompile` wrote for this digest, if nobody else can write to
        // the folder; that is for the user to see to who names it.
        unsafe { backend.sandbox().adopt_precompiled(&module, &code)? };
    }
    Ok(())
}
