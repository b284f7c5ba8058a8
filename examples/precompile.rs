//! Compiles modules for programs that are built without the compiler.
//!
//! `cargo run --example precompile -- FOLDER MODULE...` writes the native code of each module to a
//! file in FOLDER with the module's SHA-256 as its name. The code is for processors like this one,
//! and for programs with this very version of mandelbox; whoever can change it can do what they
//! can.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use mandelbox::{ModuleFile, Sandbox, SandboxOptions};

/// Most bytes of a module.
const MAX_MODULE_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments
        .next()
        .ok_or("usage: precompile FOLDER MODULE...")?;
    std::fs::create_dir_all(&folder)?;
    let sandbox = Sandbox::new(&SandboxOptions::default())?;
    arguments.try_for_each(|module| precompile(&sandbox, &module, &folder))
}

fn precompile(sandbox: &Sandbox, path: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let failed = |text: String| format!("{}: {text}", path.display());
    let module = ModuleFile::read(path, MAX_MODULE_BYTES).map_err(failed)?;
    let code = sandbox
        .precompile(&module, mandelbox::plan::Policy::default().compile_time)
        .map_err(failed)?;
    File::create(folder.join(&module.sha256))?.write_all(&code)?;
    Ok(())
}
