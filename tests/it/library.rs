//! The library's own functions, as an embedder calls them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mandelbox::backend::{Backend, Isolation, Local, Scripted, WorkerCommand};
use mandelbox::event::{Event, EventKind, Reporter};
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{CancelToken, HostError, ModuleFile, Outcome};
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{Error, ProcessWorkflow, RunFailure, RunOptions, process_workflow_async};
use mandelbox::sandbox::{Reservation, Sandbox, SandboxOptions};
use serde_json::{Map, Value, json};

use crate::project::{Project, module, parallel_task, task};
use crate::snapshot::{START, counter, with_guest};

fn document(task_list: &Value) -> WorkflowDocument {
    let text = json!({ "name": "w", "task_list": task_list }).to_string();
    let mut problems = Problems::default();
    let document =
        WorkflowDocument::parse("in memory", Path::new(""), text.as_bytes(), &mut problems);
    assert!(problems.is_empty(), "{problems}");
    document.expect("a workflow")
}

fn local(n_threads: usize) -> Arc<dyn Backend> {
    Arc::new(Local::new(n_threads).expect("a backend"))
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[test]
fn a_different_remote_directory_is_refused_before_anything_else() {
    let project = Project::new();
    let workflow = document(&json!([task(0, "t", &module("swiss.wasm"), json!({}))]));
    let backend = local(1);
    let mut arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    arguments.workflow_dir_remote = Some(project.path("elsewhere"));
    let failure = process_workflow(&arguments, RunOptions::new(backend.clone()), Vec::new())
        .expect_err("refused");
    assert!(matches!(
        failure.error,
        Error::Host(HostError::NotImplemented(_))
    ));
    let text = failure.to_string();
    assert!(
        text.starts_with(
            "Local backend does not support different directories workflow_dir_local="
        ),
        "{text}"
    );
    assert!(!project.path("work").exists());

    arguments.workflow_dir_remote = Some(arguments.workflow_dir_local.clone());
    arguments.slurm_user = Some("u".to_owned());
    arguments.slurm_account = Some("a".to_owned());
    arguments.user_cache_dir = Some("/nowhere".to_owned());
    arguments.worker_init = Some("exit 1".to_owned());
    process_workflow(&arguments, RunOptions::new(backend.clone()), Vec::new())
        .expect("the same directory, and what is ignored");
}

#[test]
fn the_callers_metadata_and_history_stay() {
    let project = Project::new();
    let workflow = document(&json!([task(
        0,
        "t",
        &module("swiss.wasm"),
        json!({ "metadiff": { "b": 2 } })
    )]));
    let backend = local(1);
    let mut arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    arguments.input_metadata = object(json!({ "a": 1 }));
    arguments.input_history = vec![json!({ "old": "item" })];
    let dataset =
        process_workflow(&arguments, RunOptions::new(backend.clone()), Vec::new()).expect("runs");
    assert_eq!(dataset["metadata"], json!({ "a": 1, "b": 2 }));
    assert_eq!(
        (
            dataset["history"].as_array().map(Vec::len),
            &dataset["history"][0]
        ),
        (Some(2), &json!({ "old": "item" }))
    );
    assert_eq!(Value::Object(arguments.input_metadata), json!({ "a": 1 }));
}

/// Keeps every event.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Event>>>);

impl Reporter for Watch {
    fn report(&mut self, event: &Event) -> std::io::Result<()> {
        self.0.lock().expect("not poisoned").push(event.clone());
        Ok(())
    }
}

#[test]
fn a_scripted_backend_replaces_guests() {
    let project = Project::new();
    let workflow = document(&json!([
        task(0, "list", &module("swiss.wasm"), json!({})),
        parallel_task(1, "each", &module("swiss.wasm"), "c", json!({})),
    ]));
    let backend: Arc<dyn Backend> = Arc::new(Scripted::new(|call| {
        let metadiff = match &call.item {
            None => json!({ "c": [0, 1, 2, 3] }),
            Some(component) if component == 2 => return Outcome::Exited { code: 9 },
            Some(component) => json!({ "seen": component }),
        };
        Outcome::Succeeded {
            output: metadiff.as_object().cloned(),
        }
    }));
    let watch = Watch::default();
    let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    let options = RunOptions {
        keep_going: true,
        ..RunOptions::new(backend.clone())
    };
    let failure = process_workflow(&arguments, options, vec![Box::new(watch.clone())])
        .expect_err("component 2 fails");
    let Error::TaskExecution(task) = &failure.error else {
        panic!("{failure}")
    };
    assert_eq!(
        (
            task.workflow_task_order,
            task.calls.len(),
            &task.calls[0].item
        ),
        (1, 1, &Some(json!(2)))
    );
    let events = watch.0.lock().expect("not poisoned");
    let n_finished = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::CallFinished { .. }))
        .count();
    assert_eq!(n_finished, 5);
    let dataset = failure.result.as_ref().expect("the run had started");
    assert_eq!(dataset["metadata"]["c"], json!([0, 1, 2, 3]));
    let history = dataset["history"].as_array().expect("a list");
    assert_eq!(history.last().expect("an item")["status"], "failed");
}

#[test]
fn a_token_cancels_a_run_with_guests_that_sleep_and_loop() {
    for step in [
        json!({ "do": "sleep_ms", "ms": 3_600_000 }),
        json!({ "do": "spin" }),
    ] {
        let project = Project::new();
        let workflow = document(&json!([task(0, "t", &module("probe.wasm"), step)]));
        let backend = local(2);
        let options = RunOptions::new(backend.clone());
        let (cancel, started) = (options.cancel.clone(), std::time::Instant::now());
        let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
        let failure = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(500));
                cancel.cancel();
            });
            process_workflow(&arguments, options, Vec::new()).expect_err("cancelled")
        });
        assert!(failure.to_string().contains("was cancelled"), "{failure}");
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
    }
}

#[test]
fn a_cancelled_token_starts_nothing() {
    let project = Project::new();
    let workflow = document(&json!([task(0, "t", &module("swiss.wasm"), json!({}))]));
    let backend = local(1);
    let cancel = CancelToken::new();
    cancel.cancel();
    let options = RunOptions {
        cancel,
        ..RunOptions::new(backend.clone())
    };
    let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    let failure = process_workflow(&arguments, options, Vec::new()).expect_err("cancelled");
    assert!(
        failure.to_string().contains("the run was cancelled"),
        "{failure}"
    );
}

#[test]
fn the_asynchronous_form_needs_no_runtime() {
    let project = Project::new();
    let workflow = document(&json!([task(
        0,
        "t",
        &module("swiss.wasm"),
        json!({ "metadiff": { "a": 1 } })
    )]));
    let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    let future = process_workflow_async(arguments, RunOptions::new(local(1)), Vec::new());
    let dataset = block_on(future).expect("runs");
    assert_eq!(dataset["metadata"], json!({ "a": 1 }));
}

/// The smallest executor there is: wakes its thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
        {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn two_runs_share_one_backends_threads() {
    let backend = local(2);
    let run = || {
        let project = Project::new();
        let sleep = json!({ "sleep_ms": 100, "echo": ["component"] });
        let workflow = document(&json!([parallel_task(
            0,
            "t",
            &module("swiss.wasm"),
            "c",
            sleep
        )]));
        let mut arguments =
            ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
        arguments.input_metadata = object(json!({ "c": ["a", "b", "c", "d"] }));
        let dataset = process_workflow(&arguments, RunOptions::new(backend.clone()), Vec::new())
            .expect("runs");
        assert_eq!(
            dataset["metadata"]["echo"].as_array().map(Vec::len),
            Some(4)
        );
    };
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(run);
        }
    });
    // Eight calls of 0.1 s on two threads.
    assert!(started.elapsed() >= std::time::Duration::from_millis(400));
}

/// Time to compile a module of the tests.
const TIME: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
#[expect(
    unsafe_code,
    reason = "the code that is adopted was compiled a line before"
)]
fn precompiled_code_is_run_in_place_of_the_module() {
    let sandbox = || Local::new(2).expect("a backend");
    for name in ["swiss.wasm", "swiss.p2.wasm"] {
        let project = Project::new();
        let whole = std::fs::read(module(name)).expect("there");
        let code = sandbox()
            .sandbox()
            .precompile(&ModuleFile::from_bytes(name.into(), whole.clone()), TIME)
            .expect("compiles");
        // Nobody can compile this one, so what runs is the code.
        let path = project.write("broken.wasm", &whole[..whole.len() - 1]);
        let broken = ModuleFile::read(&path, u64::MAX).expect("a module");
        let workflow = document(&json!([
            task(
                0,
                "one",
                path.to_str().expect("UTF-8"),
                json!({ "metadiff": { "c": ["a", "b"] } })
            ),
            parallel_task(
                1,
                "two",
                path.to_str().expect("UTF-8"),
                "c",
                json!({ "echo": ["component"] })
            ),
        ]));
        let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
        let failure = process_workflow(&arguments, RunOptions::new(local(2)), Vec::new())
            .expect_err("cannot be compiled");
        assert!(
            failure
                .to_string()
                .contains("is not a valid WebAssembly module"),
            "{failure}"
        );

        let backend = sandbox();
        // SAFETY: the code is the compiler's.
        unsafe {
            backend
                .sandbox()
                .adopt_precompiled(&broken, &code)
                .expect("adopted")
        };
        let dataset = process_workflow(&arguments, RunOptions::new(Arc::new(backend)), Vec::new())
            .expect("runs");
        assert_eq!(
            dataset["metadata"]["echo"],
            json!([{ "component": "a" }, { "component": "b" }])
        );
    }
}

/// Checks that the whole form of a snapshot can be precompiled. Snapshots that the host makes need
/// the compiler.
#[test]
#[expect(
    unsafe_code,
    reason = "the code that is adopted was compiled a line before"
)]
fn the_whole_form_of_a_snapshot_can_be_precompiled() {
    let project = with_guest(counter(START));
    let written = project.mandelbox(&["snapshot", "guest.wasm", "-o", "whole.wasm"]);
    written.expect(0);
    let path = project.path("whole.wasm");
    let whole = ModuleFile::read(&path, 1 << 30).expect("a module");
    let sandbox = Local::new(1).expect("a backend");
    let code = sandbox
        .sandbox()
        .precompile(&whole, TIME)
        .expect("compiles");

    let backend = Local::new(1).expect("a backend");
    // SAFETY: the code is the compiler's.
    unsafe { backend.sandbox().adopt_precompiled(&whole, &code) }.expect("adopted");
    let one = task(0, "one", path.to_str().expect("UTF-8"), json!({}));
    let workflow = document(&json!([one]));
    let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    process_workflow(&arguments, RunOptions::new(Arc::new(backend)), Vec::new()).expect("runs");
    assert_eq!(project.read("work/0_one/0.out"), "5634567");
}

#[test]
#[expect(
    unsafe_code,
    reason = "what is adopted was compiled a line before, or is refused"
)]
fn code_that_is_not_the_modules_is_refused() {
    let backend = Local::new(1).expect("a backend");
    let read = |name: &str| ModuleFile::read(module(name).as_ref(), 1 << 30).expect("a module");
    let (core, component) = (read("swiss.wasm"), read("swiss.p2.wasm"));
    let code = backend.sandbox().precompile(&core, TIME).expect("compiles");
    let refusal = |module: &ModuleFile, code: &[u8]| {
        let sandbox = Local::new(1).expect("a backend");
        // SAFETY: it is refused before anything of it runs; else the test fails.
        unsafe { sandbox.sandbox().adopt_precompiled(module, code) }.expect_err("refused")
    };
    assert!(refusal(&core, b"").contains("is not compiled code"));
    assert!(refusal(&core, &core.bytes).contains("is not compiled code"));
    assert!(refusal(&component, &code).contains("is that of a core module"));
    assert!(
        refusal(&ModuleFile::from_bytes("m".into(), code.clone()), &code)
            .contains("is precompiled native code")
    );
    // The version in the code.
    let version = concat!("mandelbox ", env!("CARGO_PKG_VERSION"));
    let at = code
        .windows(version.len())
        .position(|bytes| bytes == version.as_bytes())
        .expect("prints its version");
    let mut other = code.clone();
    other[at + version.len() - 1] ^= 1;
    let text = refusal(&core, &other);
    assert!(
        text.contains("its compiled code does not fit this sandbox"),
        "{text}"
    );
    let options = SandboxOptions {
        deterministic: true,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(&options).expect("a sandbox");
    let text = refusal(&core, &sandbox.precompile(&core, TIME).expect("compiles"));
    assert!(text.contains("deterministic"), "{text}");
    let with = |reservation| {
        Sandbox::new(&SandboxOptions {
            reservation,
            ..SandboxOptions::default()
        })
        .expect("set up")
    };
    let code = with(Reservation::Small)
        .precompile(&core, TIME)
        .expect("compiles");
    let whole = with(Reservation::Whole);
    // SAFETY: it is the compiler's; and it is refused.
    let text =
        unsafe { whole.adopt_precompiled(&core, &code) }.expect_err("of another reservation");
    assert!(text.contains("memory reservation"), "{text}");
}

/// Cancels a run a moment after a call has begun.
struct CancelsCalls(CancelToken);

impl Reporter for CancelsCalls {
    fn report(&mut self, event: &Event) -> std::io::Result<()> {
        if let EventKind::CallStarted { .. } = event.kind {
            let cancel = self.0.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                cancel.cancel();
            });
        }
        Ok(())
    }
}

#[test]
fn a_child_process_that_died_a_moment_before_the_run_was_cancelled_is_cancelled() {
    for is_cancelled in [true, false] {
        let project = Project::new();
        let workflow = document(&json!([task(0, "t", &module("swiss.wasm"), json!({}))]));
        // As a child that the signal reaches before the program that started it.
        let dies = WorkerCommand {
            program: "false".into(),
            arguments: Vec::new(),
        };
        let backend = Local::with_options(1, &SandboxOptions::default(), Isolation::Process(dies))
            .expect("a backend");
        let options = RunOptions::new(Arc::new(backend));
        let reporter = CancelsCalls(if is_cancelled {
            options.cancel.clone()
        } else {
            CancelToken::new()
        });
        let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
        let failure = process_workflow(&arguments, options, vec![Box::new(reporter)])
            .expect_err("no child lives");
        let log = project.read("work/events.jsonl");
        assert_eq!(
            matches!(failure.error, Error::Cancelled(_)),
            is_cancelled,
            "{failure}"
        );
        assert_eq!(
            log.contains("\"outcome\":\"cancelled\""),
            is_cancelled,
            "{log}"
        );
    }
}

#[test]
fn a_workflow_with_a_task_missing_is_not_loaded() {
    let project = Project::new();
    let mut entry = task(1, "second", &module("swiss.wasm"), json!({}));
    entry["task"]["command"] = json!(7);
    let path = project.workflow(&[task(0, "first", &module("swiss.wasm"), json!({})), entry]);
    let problems = WorkflowDocument::read(&path).expect_err("one task cannot be read");
    assert!(
        problems.to_string().contains("/task_list/1/task/command"),
        "{problems}"
    );
    project.workflow(&[task(0, "first", &module("swiss.wasm"), json!({}))]);
    assert_eq!(
        WorkflowDocument::read(&path)
            .expect("whole")
            .task_list
            .len(),
        1
    );
}

#[test]
fn an_error_that_main_returns_names_its_cause() {
    let fails = || -> Result<(), Box<RunFailure>> {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        Err(Error::from(HostError::file("write", Path::new("record"))(denied)).into())
    };
    let run = || -> Result<(), Box<dyn std::error::Error>> { Ok(fails()?) };
    // As `main` prints what it returns.
    let printed = format!("{:?}", run().expect_err("fails"));
    assert!(
        printed.starts_with("failed to write record: permission denied"),
        "{printed}"
    );
}
