//! Guests of `task-examples/modules`, and runs of them through the library and by themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mandelbox::backend::{Backend, Local};
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{CancelToken, Grant, Limits, ModuleFile, Rights, TaskFiles};
use mandelbox::plan::Policy;
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{ProcessWorkflow, RunOptions};
use mandelbox::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation, Worker,
};
use serde_json::{Value, json};

/// Most bytes of a module.
const MAX_MODULE_BYTES: u64 = 64 << 20;

/// Path of a module.
pub fn module_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/modules")
        .join(name)
}

/// A module that was read.
pub fn module(name: &str) -> ModuleFile {
    ModuleFile::read(&module_path(name), MAX_MODULE_BYTES).expect("a module")
}

/// A workflow of one parallel task over `metadata["image"]`, whose calls get no metadata.
///
/// * `command`: a module's name and arguments.
pub fn workflow(command: &str) -> Value {
    let (name, arguments) = command.split_once(' ').unwrap_or((command, ""));
    let path = module_path(name).display().to_string();
    let meta = json!({ "parallelization_level": "image", "mandelbox": { "metadata_keys": [] } });
    let command = format!("'{path}' {arguments}");
    json!({ "name": "bench", "task_list": [{ "order": 0, "task": { "name": "t", "command": command, "meta": meta } }] })
}

/// Metadata with components, named as images of a plate are.
pub fn metadata(n_components: usize) -> Value {
    let images: Vec<_> = (0..n_components)
        .map(|index| format!("plate.zarr/B/{}/{index}", index % 24))
        .collect();
    json!({ "image": images })
}

/// Runs one task through [`process_workflow`].
pub struct TaskRuns {
    backend: Arc<dyn Backend>,
    folder: PathBuf,
}

/// Runs so far, each of which has a work directory of its own.
static N_RUNS: AtomicUsize = AtomicUsize::new(0);

impl TaskRuns {
    /// * `n_threads`: calls that run at a time.
    /// * `folder`: for output and work directories, a new one for each run.
    pub fn new(n_threads: usize, folder: &Path) -> Self {
        // As the program has it.
        let backend = Local::new(n_threads)
            .and_then(Local::without_epochs_for_untimed_calls)
            .expect("a backend");
        let backend = Arc::new(backend);
        Self {
            backend,
            folder: folder.to_owned(),
        }
    }

    /// Runs `command` for so many components.
    pub fn run(&self, command: &str, n_components: usize, task_files: TaskFiles) {
        let text = workflow(command).to_string();
        let mut problems = Problems::default();
        let document =
            WorkflowDocument::parse("bench", Path::new(""), text.as_bytes(), &mut problems);
        let work_dir = self
            .folder
            .join(format!("work{}", N_RUNS.fetch_add(1, Ordering::Relaxed)));
        let document = document.expect("a workflow");
        let mut process = ProcessWorkflow::new(document, &self.folder.join("out"), &work_dir);
        process.input_metadata = metadata(n_components)
            .as_object()
            .cloned()
            .expect("an object");
        let options = RunOptions {
            task_files,
            ..RunOptions::new(Arc::clone(&self.backend))
        };
        if let Err(failure) = process_workflow(&process, options, Vec::new()) {
            panic!("{failure}");
        }
    }
}

/// Runs a command with a folder that it may use, in a worker, without a run around it. Returns what
/// it printed.
pub fn run_guest(
    worker: &mut Worker<'_>,
    module: &ModuleFile,
    arguments: &[&str],
    folder: &Path,
) -> String {
    let mut argv = vec![module.file_name()];
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let guest_path = folder.to_string_lossy().into_owned();
    let grant = Grant::new(folder.to_owned(), guest_path, Rights::ReadWrite);
    let stdout = GuestOutput::new(None, 0);
    let (end, _) = worker.run(&Invocation {
        module_sha256: &module.sha256,
        entry: Entry::Command,
        argv: &argv,
        env: &[],
        grants: &[grant],
        stdin: GuestInput::Empty,
        stdout: stdout.clone(),
        stderr: GuestOutput::new(None, 0),
        warnings: GuestWarnings::dropped(),
        limits: &Limits::default(),
        seed: 0,
        cancel: &CancelToken::new(),
    });
    assert_eq!(end, GuestEnd::Exited(0));
    stdout.tail()
}

/// Compile time of a policy that sets none.
pub fn compile_time() -> std::time::Duration {
    Policy::default().compile_time
}

/// Builds the kernels for this machine, with the same profile and dependencies as the guest.
pub fn build_native_kernels() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native");
    let mut build = Command::new(env!("CARGO"));
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "kernels",
            "--target-dir",
        ])
        .arg(&target);
    let status = build
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("task-examples"))
        .status();
    assert!(
        status.expect("cargo").success(),
        "the kernels cannot be built"
    );
    target.join("release/kernels")
}

/// Runs the native kernels. Returns what they printed.
pub fn run_native(program: &Path, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts `true` so many times, one after the other, and waits for each.
pub fn spawn_true(n: usize) {
    for _ in 0..n {
        let status = Command::new("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("started").success());
    }
}
