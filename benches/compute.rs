//! What compiled WebAssembly costs: the same loops in a guest and natively, built from the same
//! source with the same profile.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "benches read the environment and start programs"
)]

#[allow(dead_code, reason = "each bench uses what it needs")]
mod guests;
#[allow(dead_code, reason = "each bench uses what it needs")]
mod measure;

use std::path::Path;

use mandelbox::sandbox::{Interruption, Sandbox, SandboxOptions};

use guests::{build_native_kernels, compile_time, module, run_guest, run_native};
use measure::{Work, compare, size};

const ROUNDS: usize = 5;

fn main() {
    let native = build_native_kernels();
    let folder = tempfile::tempdir().expect("a folder");
    for (what, interruption) in [
        ("", Interruption::Process),
        (", with a time limit", Interruption::Epochs),
    ] {
        // As the local backend has it, with places made beforehand.
        let options = SandboxOptions {
            n_workers: 1,
            interruption,
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::new(&options).expect("a sandbox");
        for file in ["kernels.wasm", "kernels.p2.wasm"] {
            compare_with_native(&sandbox, file, what, &native, folder.path());
        }
    }
}

/// Each kernel in a guest and natively.
///
/// * `file`: the guest's module.
/// * `what`: added to the question.
fn compare_with_native(sandbox: &Sandbox, file: &str, what: &str, native: &Path, folder: &Path) {
    let module = module(file);
    sandbox.prepare(&module, compile_time()).expect("compiled");
    let mut worker = sandbox.worker().expect("a worker");
    for (kernel, n) in [
        ("projection", 120),
        ("filter", 120),
        ("labelling", 25),
        ("json", 60),
    ] {
        let n = size(n, 1).to_string();
        let arguments = [kernel, &n, "."];
        let expected = run_native(native, &arguments, folder);
        let guest = Work::new("guest", 1, || {
            assert_eq!(
                run_guest(&mut worker, &module, &arguments, folder),
                expected
            );
        });
        let native = Work::new("native", 1, || drop(run_native(native, &arguments, folder)));
        compare(&format!("{kernel}, {file}{what}"), ROUNDS, guest, native);
    }
}
