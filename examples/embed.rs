//! A program that runs a workflow with the library: it prints events and cancels a run that takes
//! too long.
//!
//! `cargo run --example embed -- OUTPUT` converts `task-examples/images` to OME-Zarr images in the
//! folder OUTPUT.
//!
//! With a second argument it loads the native code of its tasks from that folder, where
//! `precompile` has written it. Then it needs no compiler:
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

use mandelbox::{
    CancelToken, Event, EventKind, Local, ModuleFile, Run, TaskPackage, WorkflowDocument,
};

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

    let package = examples.join("ome-zarr");
    let workflow = WorkflowDocument::read(&package.join("workflow.json"))?;
    let cancel = CancelToken::new();
    let run = Run::builder(workflow)
        .package(TaskPackage::read(&package)?)
        .input(examples.join("images"))
        .output(&output)
        .work_dir(output.with_extension("run"))
        .backend(Arc::new(backend))
        .cancel_token(cancel.clone())
        .on_event(print_end)
        .build()?;
    cancel_later(cancel);
    let result = run.execute()?;

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
fn print_end(event: &Event) {
    let EventKind::CallFinished {
        call,
        outcome,
        usage,
        ..
    } = &event.kind
    else {
        return;
    };
    let component = match &call.item {
        None => String::new(),
        Some(component) => format!(" of {component}"),
    };
    let (end, seconds) = (outcome.describe(), usage.wall_time.as_secs_f64());
    let line = format!(
        "event {}: the call{component} {end} after {seconds:.2} s",
        event.seq
    );
    // A reader of stdout that has gone away is no reason to end the run.
    let _ = writeln!(io::stdout(), "{line}");
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
