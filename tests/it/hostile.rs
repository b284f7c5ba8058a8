//! Every module of `tests/hostile/`, run by the real program as four calls of a parallel task.
//!
//! The first line of a module says how each call must end and what it tries. Whatever it tries: the program ends in
//! time, nothing outside the module's folders changes or is seen, the records are whole, and a run with a good module
//! goes well afterwards.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mandelbox::backend::Local;
use mandelbox::workflow::{Problems, WorkflowDocument};
use mandelbox::{ProcessWorkflow, RunOptions, process_workflow};
use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task};

/// Content of the file outside that no module may read.
const SECRET: &str = "SECRET";
const COMPONENTS: [&str; 4] = ["a", "b", "c", "d"];
const LIMITS: [&str; 7] = ["--timeout", "1s", "--memory", "64M", "--jobs", "2", "--keep-going"];
/// Four calls of 1 s, two at a time, 2 s for all else, and as much again for a busy machine.
const DEADLINE: Duration = Duration::from_secs(8);
/// A program that takes longer is killed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two calls with their memory, a copy of it in the host, and 256 MiB for the host.
const MAX_HOST_BYTES: u64 = (2 * 2 * 64 + 256) << 20;
const MAX_STREAM_BYTES: u64 = (16 << 20) + 100;

/// One module and how its calls may end.
struct Case {
    name: String,
    outcomes: Vec<String>,
    text: String,
}

/// Reads `tests/hostile/`; a file without a proper first line fails the test.
fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let prelude = fs::read_to_string(folder.join("prelude.wat")).expect("there");
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path, &prelude)).collect()
}

impl Case {
    fn read(path: &Path, prelude: &str) -> Self {
        const KNOWN: [&str; 7] =
            ["refused", "succeeded", "exited", "trapped", "timed_out", "memory_exceeded", "bad_output"];
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut text = fs::read_to_string(path).expect("text");
        let first = text.lines().next().unwrap_or_default().strip_prefix(";; outcome: ");
        let parts = first.and_then(|line| line.split_once("; tries: ")).filter(|(_, tries)| !tries.is_empty());
        let (outcomes, _) = parts.unwrap_or_else(|| panic!("{name}: first line must be `;; outcome: ...; tries: ...`"));
        let outcomes: Vec<_> = outcomes.split('|').map(str::to_owned).collect();
        for outcome in &outcomes {
            assert!(KNOWN.contains(&outcome.as_str()), "{name}: unknown outcome {outcome}");
        }
        if name != "prelude" && !text.contains("\n(module") && !text.contains("\n(component") {
            text = format!("{prelude}{text}");
        }
        Self { name, outcomes, text }
    }

    /// Compiles the module; `@ROOT@` in it stands for the project's folder.
    fn module(&self, root: &Path) -> Vec<u8> {
        let text = self.text.replace("@ROOT@", root.to_str().expect("UTF-8").trim_end_matches('/'));
        wat::parse_str(text).unwrap_or_else(|err| panic!("{}: {err}", self.name))
    }
}

/// A project with inputs, with links that lead out of them, and with a folder that nobody was given.
fn fixture() -> Project {
    let project = Project::new();
    for name in ["in/empty", "outside/empty"] {
        fs::create_dir_all(project.path(name)).expect("made");
    }
    for (name, text) in [("in/a.txt", "input"), ("in/folder/b.txt", "input"), ("outside/secret", SECRET)] {
        project.write(name, text);
    }
    let links = [
        ("in/link", PathBuf::from("../outside/secret")),
        ("in/folder_link", PathBuf::from("../outside")),
        ("in/absolute_link", project.path("outside/secret")),
        ("in/absolute_folder_link", project.path("outside")),
        ("in/chain_link", PathBuf::from("folder_link/secret")),
        ("in/folder/up_link", PathBuf::from("../..")),
    ];
    for (name, target) in links {
        symlink(target, project.path(name)).expect("made");
    }
    project.write("metadata.json", json!({ "c": COMPONENTS }).to_string());
    project
}

/// A path with its mode, size, time of change, and target if it is a link.
type Entry = (PathBuf, u32, u64, (i64, i64), Option<PathBuf>);

/// All that is in a folder and whose path is not too long, no link followed: path, mode, size, time of the last change, target of a link.
fn contents(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            paths.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        }
        let times = (metadata.mtime(), metadata.mtime_nsec());
        found.push((path.clone(), metadata.mode(), metadata.size(), times, fs::read_link(&path).ok()));
    }
    found.sort();
    found
}

/// All of the fixture that must stay as it is.
fn untouchable(project: &Project) -> impl PartialEq + use<> {
    let texts = ["in/a.txt", "in/folder/b.txt", "outside/secret"].map(|name| fs::read(project.path(name)).ok());
    let mut names: Vec<_> =
        fs::read_dir(project.path("")).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.retain(|name| name != "work");
    names.sort();
    (contents(&project.path("in")), contents(&project.path("outside")), texts, names)
}

/// How the program ended, and the most memory that it had.
struct Watched {
    code: Option<i32>,
    printed: String,
    elapsed: Duration,
    peak_bytes: u64,
    has_children: bool,
}

/// Runs the program in a process group of its own; one that hangs is killed.
fn watch(project: &Project, mut command: Command) -> Watched {
    let (stdout, stderr) = (project.path("stdout"), project.path("stderr"));
    let file = |path| File::create(path).expect("made");
    let started = Instant::now();
    let mut child =
        command.stdout(file(&stdout)).stderr(file(&stderr)).process_group(0).spawn().expect("the program starts");
    let mut peak_bytes = 0;
    let code = loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            break status.code();
        }
        peak_bytes = peak_bytes.max(peak_memory(child.id()));
        if started.elapsed() > PATIENCE {
            child.kill().expect("killed");
            child.wait().expect("waited for");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let elapsed = started.elapsed();
    let group = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("an id");
    let has_children = rustix::process::test_kill_process_group(group).is_ok();
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("there")).into_owned();
    let printed = format!("{}{}", read(&stdout), read(&stderr));
    Watched { code, printed, elapsed, peak_bytes, has_children }
}

fn peak_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) << 10
}

/// Runs one module; gives all that is not as it must be.
fn complaints(case: &Case) -> Vec<String> {
    let project = fixture();
    let module_path = project.write("hostile.wasm", case.module(&project.path("")));
    let module_path = module_path.to_str().expect("UTF-8");
    project.workflow(&[parallel_task(0, "hostile", module_path, "c", json!({}))]);
    for name in ["stdout", "stderr"] {
        project.write(name, "");
    }
    let before = untouchable(&project);

    let arguments = "run workflow.json --input in --output out --work-dir work --metadata metadata.json";
    let arguments: Vec<_> = arguments.split(' ').chain(LIMITS).collect();
    let ended = watch(&project, project.command(&arguments));
    let mut wrong = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            wrong.push(text);
        }
    };
    must(untouchable(&project) == before, "what it may not change has changed".to_owned());
    // What a guest has made on disk takes its time to remove, after the guest has ended.
    let deadline = if case.name.starts_with("disk_") { DEADLINE * 2 } else { DEADLINE };
    must(ended.elapsed <= deadline, format!("took {:?}", ended.elapsed));
    must(ended.peak_bytes <= MAX_HOST_BYTES, format!("the program had {} MiB", ended.peak_bytes >> 20));
    must(!ended.has_children, "left a process behind".to_owned());
    must(!ended.printed.contains("panicked"), "panicked".to_owned());
    let log = fs::read_to_string(project.path("work/workflow.log")).unwrap_or_default();
    for text in [&ended.printed, &log] {
        must(!text.contains(SECRET), "printed the secret".to_owned());
        must(!text.chars().any(is_unprintable), "printed control characters".to_owned());
    }

    let outcomes = outcomes(&project);
    let fits = |outcome: &String| case.outcomes.contains(outcome);
    must(outcomes.iter().all(fits), format!("ended as {outcomes:?}, not {:?}", case.outcomes));
    let codes: Vec<_> = outcomes.iter().map(|outcome| exit_code(outcome)).collect();
    let worst = codes.iter().any(|code| *code != 0);
    must(
        ended.code.is_some_and(|code| codes.contains(&code) && (code != 0 || !worst)),
        format!("exit code {:?} with {outcomes:?}", ended.code),
    );
    if outcomes.contains("refused") {
        must(!project.path("work").exists(), "refused, but something was written".to_owned());
    } else {
        wrong.extend(wrong_records(&project));
    }
    wrong.extend(wrong_files(&project));
    wrong.extend(wrong_afterwards(&project));
    if !wrong.is_empty() {
        wrong.push(ended.printed.chars().take(2000).collect());
    }
    wrong
}

fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c)
}

fn exit_code(outcome: &str) -> i32 {
    match outcome {
        "succeeded" => 0,
        "refused" => 2,
        "exited" | "bad_output" => 3,
        _ => 4,
    }
}

/// How the calls of the run ended; `refused` if nothing was run.
fn outcomes(project: &Project) -> BTreeSet<String> {
    let Ok(events) = fs::read_to_string(project.path("work/events.jsonl")) else {
        return BTreeSet::from(["refused".to_owned()]);
    };
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter_map(|event| Some(event.get("outcome")?.as_str()?.to_owned())).collect()
}

/// Records are whole, and hold nothing that a guest has forged.
fn wrong_records(project: &Project) -> Vec<String> {
    let mut wrong = Vec::new();
    let events = fs::read_to_string(project.path("work/events.jsonl")).expect("events");
    let events: Vec<Option<Value>> = events.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let in_order = |(seq, event): (usize, &Option<Value>)| event.as_ref().is_some_and(|event| event["seq"] == seq);
    if !events.iter().enumerate().all(in_order) {
        wrong.push("events.jsonl is not whole".to_owned());
    }
    let n_finished = events.iter().flatten().filter(|event| event["event"] == "call_finished").count();
    let last = events.last().and_then(Option::as_ref).map(|event| &event["event"]);
    if n_finished != COMPONENTS.len() || last != Some(&json!("run_finished")) {
        wrong.push(format!("{n_finished} calls finished, and the last event is {last:?}"));
    }
    let record =
        |name: &str| -> Option<Value> { serde_json::from_slice(&fs::read(project.path("work").join(name)).ok()?).ok() };
    for name in ["metadata.json", "history.json"] {
        // As in Fractal, a run whose first task fails has neither.
        if project.path("work").join(name).exists() && record(name).is_none() {
            wrong.push(format!("{name} is not whole"));
        }
    }
    let result = record("result.json").unwrap_or_default();
    let (metadata, history) = (&result["metadata"], result["history"].as_array());
    if metadata["c"] != json!(COMPONENTS) || metadata.get("forged").is_some() {
        wrong.push("the metadata is not as it must be".to_owned());
    }
    let is_true = |item: &Value| ["done", "failed"].iter().any(|status| item["status"] == *status);
    if !history.is_some_and(|items| items.len() == 1 && is_true(&items[0])) {
        wrong.push(format!("the history is {}", result["history"]));
    }
    for component in COMPONENTS {
        let args = record(&format!("0_hostile/0_par_{component}.args.json")).unwrap_or_default();
        if args["component"] != component {
            wrong.push(format!("the parameters of {component} are {args}"));
        }
    }
    wrong
}

/// Nothing secret in what the run left, no file larger than it may be, nothing of running calls.
fn wrong_files(project: &Project) -> Vec<String> {
    let mut wrong = Vec::new();
    let scratch = project.path("work/.scratch");
    if scratch.exists() {
        wrong.push("scratch folders are left".to_owned());
        remove_deep(&scratch);
    }
    let files = ["work", "out"].map(|name| project.path(name));
    for (path, mode, size, ..) in files.iter().filter(|path| path.exists()).flat_map(|path| contents(path)) {
        let is_file = mode & 0o170_000 == 0o100_000;
        if is_file && size > MAX_STREAM_BYTES && path.extension().is_some_and(|name| name == "out" || name == "err") {
            wrong.push(format!("{} has {size} bytes", path.display()));
        } else if is_file && size < 1 << 30 && holds_secret(&fs::read(&path).expect("readable")) {
            wrong.push(format!("{} holds the secret", path.display()));
        }
    }
    wrong
}

/// Removes a folder however deep it is: what is in a folder of it is moved up. The standard library's way would need
/// a stack frame and an open file for each level.
fn remove_deep(folder: &Path) {
    let mut n_moved = 0;
    let list = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    };
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    loop {
        let (folders, files): (Vec<_>, Vec<_>) = list(folder).into_iter().partition(|path| is_folder(path));
        files.iter().for_each(|path| fs::remove_file(path).expect("removed"));
        if folders.is_empty() {
            return fs::remove_dir(folder).expect("removed");
        }
        for inner in folders {
            for path in list(&inner) {
                n_moved += 1;
                fs::rename(path, folder.join(format!("moved{n_moved}"))).expect("moved");
            }
            fs::remove_dir(inner).expect("removed");
        }
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == SECRET.as_bytes()[0]);
    starts.into_iter().any(|(at, _)| bytes[at..].starts_with(SECRET.as_bytes()))
}

/// A run with a good module in the same output folder goes well.
fn wrong_afterwards(project: &Project) -> Option<String> {
    let args = json!({ "echo": ["component"] });
    project.workflow(&[parallel_task(0, "good", &module("swiss.wasm"), "c", args)]);
    let arguments = "run workflow.json --input in --output out --work-dir good --metadata metadata.json --jobs 2";
    let ended = project.mandelbox(&arguments.split(' ').collect::<Vec<_>>());
    if ended.code != 0 {
        return Some(format!("a good module fails afterwards: {}", ended.stderr));
    }
    let echo = project.json("good/metadata.json")["echo"].to_string();
    COMPONENTS.iter().any(|name| !echo.contains(name)).then(|| format!("a good module gives {echo} afterwards"))
}

/// Runs cases on two threads, those that only sleep on two more, and fails with all complaints.
fn check_all(cases: Vec<Case>, prepare_thread: impl Fn() + Sync) {
    // One corpus at a time: its deadlines are for a machine that does little else.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (sleeping, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.name.starts_with("sleep_"));
    let queues = [sleeping, others].map(|cases| Mutex::new(cases.into_iter()));
    let found = Mutex::new(Vec::new());
    let work = |queue: &Mutex<std::vec::IntoIter<Case>>| {
        prepare_thread();
        loop {
            let Some(case) = queue.lock().expect("not poisoned").next() else { break };
            let wrong = complaints(&case);
            if !wrong.is_empty() {
                found.lock().expect("not poisoned").push(format!("{}: {}", case.name, wrong.join("\n  ")));
            }
        }
    };
    std::thread::scope(|scope| {
        for queue in queues.iter().chain(&queues) {
            scope.spawn(|| work(queue));
        }
    });
    let found = found.into_inner().expect("not poisoned");
    assert!(found.is_empty(), "{} modules got their way:\n{}", found.len(), found.join("\n"));
}

#[test]
fn no_hostile_module_gets_its_way() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    check_all(cases, || {});
}

/// Where the kernel does not have `openat2`, or a container hides it, the sandbox resolves paths by hand.
#[test]
fn no_hostile_module_gets_its_way_without_openat2() {
    let mut cases = cases();
    cases.retain(|case| !["refused", "timed_out", "memory_exceeded"].contains(&case.outcomes[0].as_str()));
    check_all(cases, || {
        no_openat2::refuse();
        let flags = rustix::fs::OFlags::RDONLY;
        let opened = rustix::fs::openat2(
            rustix::fs::CWD,
            ".",
            flags,
            rustix::fs::Mode::empty(),
            rustix::fs::ResolveFlags::empty(),
        );
        assert_eq!(opened.err(), Some(rustix::io::Errno::NOSYS));
    });
}

pub(crate) mod no_openat2 {
    #![expect(unsafe_code, reason = "no crate at hand sets a seccomp filter")]

    use std::ffi::{c_int, c_ulong};

    /// The kernel's `sock_filter`.
    #[repr(C)]
    struct Instruction(u16, u8, u8, u32);

    /// The kernel's `sock_fprog`.
    #[repr(C)]
    struct Program(u16, *const Instruction);

    unsafe extern "C" {
        fn prctl(option: c_int, ...) -> c_int;
    }

    /// From now on `openat2` does not exist for this thread and the programs that it starts.
    pub(crate) fn refuse() {
        const OPENAT2: u32 = 437;
        const ENOSYS: u32 = 38;
        let instructions = [
            // Load the system call's number; if it is openat2's, answer ENOSYS, else allow.
            Instruction(0x20, 0, 0, 0),
            Instruction(0x15, 0, 1, OPENAT2),
            Instruction(0x06, 0, 0, 0x0005_0000 | ENOSYS),
            Instruction(0x06, 0, 0, 0x7fff_0000),
        ];
        let program = Program(4, instructions.as_ptr());
        let (zero, one, filter): (c_ulong, c_ulong, c_ulong) = (0, 1, 2);
        // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers, PR_SET_SECCOMP a program that lives until it returns.
        let set = unsafe { (prctl(38, one, zero, zero, zero), prctl(22, filter, &raw const program)) };
        assert_eq!(set, (0, 0), "{}", std::io::Error::last_os_error());
    }
}

/// Set in the process that [`ended_guests_leave_no_thread_and_no_file`] starts, where no other test has threads.
const ALONE: &str = "MANDELBOX_TEST_ALONE";

#[test]
fn ended_guests_leave_no_thread_and_no_file() {
    if std::env::var_os(ALONE).is_some() {
        return six_hundred_guests();
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "hostile::ended_guests_leave_no_thread_and_no_file", "--nocapture"]).env(ALONE, "1");
    let ended = crate::project::finish(command).expect(0);
    assert!(ended.stdout.contains("1 passed"), "{}", ended.stdout);
}

/// 300 guests that sleep and 300 that loop, one after the other, each ended after 20 ms.
fn six_hundred_guests() {
    let project = Project::new();
    let cases = cases();
    let backend: std::sync::Arc<dyn mandelbox::backend::Backend> =
        std::sync::Arc::new(Local::new(1).expect("a backend"));
    let run = |name: &str, n: usize| {
        let case = cases.iter().find(|case| case.name == name).expect("a case");
        let path = project.write(&format!("{name}.wasm"), case.module(&project.path("")));
        let mut task = parallel_task(0, "t", path.to_str().expect("UTF-8"), "c", json!({}));
        task["meta"] = json!({ "mandelbox": { "timeout": "20ms" } });
        let text = json!({ "name": "w", "task_list": [task] }).to_string();
        let workflow = WorkflowDocument::parse("in memory", Path::new(""), text.as_bytes(), &mut Problems::default());
        let workflow = workflow.expect("a workflow");
        let work_dir = project.path(&format!("{name}{n}"));
        let mut arguments = ProcessWorkflow::new(workflow.clone(), &project.path("out"), &work_dir);
        arguments.input_metadata = json!({ "c": (0..n).collect::<Vec<_>>() }).as_object().cloned().expect("an object");
        let options = RunOptions { keep_going: true, ..RunOptions::new(backend.clone()) };
        let failure = process_workflow(&arguments, options, Vec::new()).expect_err("all are ended");
        assert!(failure.to_string().contains("time limit of 0.02 s"), "{failure}");
        let entries = |folder: &str| fs::read_dir(folder).expect("a folder").count();
        (entries("/proc/self/task"), entries("/proc/self/fd"))
    };
    let first = (run("sleep_relative_hour", 5), run("loop_forever", 5));
    let last = (run("sleep_relative_hour", 300), run("loop_forever", 300));
    assert_eq!(first, last, "threads and open files");
}
