//! What the sandbox's way to files costs: the same reads and writes in a guest, through a preopened
//! folder, and natively.

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
use measure::{Work, compare, folders, settle, size};

const ROUNDS: usize = 5;

fn main() {
    let native = build_native_kernels();
    let options = SandboxOptions {
        n_workers: 1,
        interruption: Interruption::Process,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(&options).expect("a sandbox");
    for (place, folder) in folders() {
        for file in ["kernels.wasm", "kernels.p2.wasm"] {
            compare_files(
                &format!("{place}, {file}"),
                file,
                &sandbox,
                &native,
                folder.path(),
            );
        }
        drop(folder);
        settle();
    }
}

fn compare_files(question: &str, file: &str, sandbox: &Sandbox, native: &Path, folder: &Path) {
    let module = module(file);
    sandbox.prepare(&module, compile_time()).expect("compiled");
    let mut worker = sandbox.worker().expect("a worker");
    let path = folder.to_string_lossy();
    // `write` leaves the file that `read` reads.
    for (kernel, what, n) in [
        ("write", "256 MiB written in blocks of 1 MiB", 2),
        ("read", "256 MiB read in blocks of 1 MiB", 4),
        ("small_files", "10,000 small files", 1),
    ] {
        let n = size(n, 1);
        let text = n.to_string();
        let arguments = [kernel, &text, &path];
        let expected = run_native(native, &arguments, folder);
        let guest = Work::new("guest", n, || {
            assert_eq!(
                run_guest(&mut worker, &module, &arguments, folder),
                expected
            );
        });
        let native = Work::new("native", n, || drop(run_native(native, &arguments, folder)));
        compare(&format!("{what} {question}"), ROUNDS, guest, native);
    }
}
