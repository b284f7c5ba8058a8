//! The public WASI test suite (WebAssembly/wasi-testsuite, branch `prod/testsuite-base`), through
//! the sandbox.
//!
//! The suite is not part of this repository: `MANDELBOX_WASI_TESTSUITE` names a checkout, and
//! without it nothing is checked and the test prints so. All programs for preview 1 must pass.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mandelbox::model::{CancelToken, Grant, Limits, ModuleFile, Rights};
use mandelbox::plan::Policy;
use mandelbox::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation, Sandbox, SandboxOptions,
};
use serde_json::Value;

#[test]
#[expect(clippy::print_stdout, reason = "prints what was not checked")]
fn the_wasi_testsuite_passes() {
    let Some(suite) = std::env::var_os("MANDELBOX_WASI_TESTSUITE").map(PathBuf::from) else {
        println!("not checked: MANDELBOX_WASI_TESTSUITE names no checkout of the suite");
        return;
    };
    let sandbox = Sandbox::new(&SandboxOptions::default()).expect("a sandbox");
    let mut n_programs = 0;
    let mut wrong = Vec::new();
    for language in ["assemblyscript", "c", "rust"] {
        let folder = suite
            .join("tests")
            .join(language)
            .join("testsuite/wasm32-wasip1");
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()))
        {
            let program = entry.expect("an entry").path();
            if program
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                n_programs += 1;
                wrong.extend(
                    complaint(&sandbox, &program)
                        .map(|text| format!("{}: {text}", program.display())),
                );
            }
        }
    }
    println!("{} of {n_programs} programs pass", n_programs - wrong.len());
    assert!(n_programs > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs one program by its specification, the JSON file next to it; `None` if it passes.
fn complaint(sandbox: &Sandbox, program: &Path) -> Option<String> {
    let specification = fs::read(program.with_extension("json")).unwrap_or_else(|_| b"{}".to_vec());
    let specification: Value = serde_json::from_slice(&specification).expect("JSON");
    let module = ModuleFile::read(program, u64::MAX).expect("a module");
    sandbox
        .prepare(&module, Policy::default().compile_time)
        .expect("a command");

    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut argv = vec![
        program
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
    ];
    argv.extend(
        specification["args"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text),
    );
    let env = specification["env"].as_object().into_iter().flatten();
    let env: Vec<_> = env
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    // Programs change their folder, so each gets a copy.
    let root = crate::project::temporary_folder();
    let mut grants = Vec::new();
    if let Some(name) = specification["root"].as_str() {
        copy_tree(&program.with_file_name(name), root.path());
        let host_path = root.path().to_owned();
        grants.push(Grant::new(host_path, "/", Rights::ReadWrite));
    }
    let kept = Shared::default();
    let (end, _) = sandbox.worker().expect("a worker").run(&Invocation {
        module_sha256: &module.sha256,
        entry: Entry::Command,
        argv: &argv,
        env: &env,
        grants: &grants,
        stdin: GuestInput::Empty,
        stdout: GuestOutput::new(Some(Box::new(kept.clone())), u64::MAX),
        stderr: GuestOutput::new(None, 0),
        warnings: GuestWarnings::dropped(),
        limits: &Limits::default(),
        seed: 0,
        cancel: &CancelToken::new(),
    });
    let expected =
        i32::try_from(specification["exit_code"].as_i64().unwrap_or(0)).expect("a small number");
    if end != GuestEnd::Exited(expected) {
        return Some(format!("ended as {end:?}, not with exit code {expected}"));
    }
    let stdout = String::from_utf8_lossy(&kept.0.lock().expect("not poisoned")).into_owned();
    let expected = specification["stdout"].as_str();
    expected
        .filter(|expected| *expected != stdout)
        .map(|expected| format!("printed {stdout:?}, not {expected:?}"))
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    // A folder without files is not kept by git, so it may not be there.
    for entry in fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
