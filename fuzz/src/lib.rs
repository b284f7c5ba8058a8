//! What must hold for any bytes: one function for each fuzz target, which the target and the replay
//! of its corpus both call.
//!
//! A function panics if its property does not hold. None of them runs a guest.

#![allow(
    clippy::disallowed_methods,
    reason = "documents are read from files, which are made here"
)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use mandelbox::backend::{Scripted, read_from_child};
use mandelbox::event::{Event, EventKind, Reporter, StoredEvents, parse_events, seal_lines};
use mandelbox::fractal::local_config::LocalConfig;
use mandelbox::fractal::package::MANIFEST;
use mandelbox::fractal::package::TaskPackage;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::fractal::v1::document::{read_history, read_metadata};
use mandelbox::fractal::v1::file_names::FileNames;
use mandelbox::json::{
    DuplicateKeys, MAX_DEPTH, Map, Value, build_json, parse_guest_json, parse_json,
};
use mandelbox::model::{CallRef, Grant, Limits, ModuleFile, ModuleKind, Outcome, Rights, Usage};
use mandelbox::plan::{Plan, PlanRequest, Policy, build_plan};
use mandelbox::problem::Problems;
use mandelbox::report::LogFile;
use mandelbox::sandbox::{Sandbox, SandboxOptions};
use mandelbox::text::is_misleading;
use mandelbox::workdir::layout::{task_folder_name, workflow_folder_name};

/// Documents that users and operators write. The first byte says which: `w`orkflow, `m`anifest,
/// meta`d`ata, `h`istory, local `c`onfiguration, `p`olicy.
///
/// What is read without a problem makes a plan within the policy, or is the same when it is written
/// and read again; a policy's defaults are within its bounds; problems are fit for a terminal.
pub fn documents(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder
        .path()
        .join(if *kind == b'm' { MANIFEST } else { "document" });
    std::fs::write(&file, text).expect("written");
    let mut problems = Problems::default();
    match kind {
        b'w' => {
            let read = WorkflowDocument::parse("workflow.json", folder.path(), text, &mut problems);
            if let Some(workflow) = read {
                plan(&workflow, &[], folder.path(), &mut problems);
            }
        }
        b'm' => {
            if let Some(package) = TaskPackage::read_into(folder.path(), &mut problems) {
                let entry = |source: &String| serde_json::json!({ "task": { "source": source } });
                let task_list: Vec<_> = package
                    .task_list
                    .iter()
                    .map(|task| entry(&task.source))
                    .collect();
                let text = serde_json::json!({ "name": "all", "task_list": task_list }).to_string();
                let workflow = WorkflowDocument::parse(
                    "workflow.json",
                    folder.path(),
                    text.as_bytes(),
                    &mut problems,
                );
                plan(
                    &workflow.expect("an object"),
                    &[package],
                    folder.path(),
                    &mut problems,
                );
            }
        }
        b'd' => {
            if let Some(metadata) = read_metadata(&file, &mut problems) {
                std::fs::write(&file, build_json(&metadata, 2)).expect("written");
                assert_eq!(read_metadata(&file, &mut problems), Some(metadata));
            }
        }
        b'h' => {
            let read = read_history(&file, &mut problems);
            if let Some(history) = read.filter(|_| problems.is_empty()) {
                std::fs::write(&file, build_json(&history, 2)).expect("written");
                assert_eq!(read_history(&file, &mut problems), Some(history));
            }
        }
        b'c' => {
            LocalConfig::read_into(&file, &mut problems);
        }
        b'p' => {
            if let Some(policy) = Policy::read_into(&file, &mut problems) {
                check_within(&policy.default, &policy.maximum);
            }
        }
        _ => return,
    }
    for problem in problems.iter().chain(problems.warnings()) {
        let text = problem.to_string();
        assert!(!text.chars().any(is_misleading), "{text:?}");
    }
}

fn plan(
    workflow: &WorkflowDocument,
    packages: &[TaskPackage],
    folder: &Path,
    problems: &mut Problems,
) {
    // The backend takes any bytes for a module.
    std::fs::write(folder.join("m"), "module").expect("written");
    let folder = folder.canonicalize().expect("there");
    let metadata = parse_object(br#"{"c":["a","b"],"n":1}"#);
    let policy = Policy {
        env: vec!["TZ".to_owned()],
        mounts: vec![folder.clone()],
        ..Policy::default()
    };
    let request = PlanRequest {
        workflow,
        packages,
        metadata: Some(&metadata),
        first_task_index: None,
        last_task_index: None,
        input_type: None,
        output_type: None,
        local_config: LocalConfig::default(),
        policy: &policy,
        modules: &Scripted::new(|_| Outcome::Cancelled),
    };
    let plan: Plan = build_plan(&request, problems);
    for task in plan.tasks.iter().map(|task| &task.spec) {
        check_within(&task.limits, &policy.maximum);
        assert!(
            task.env.iter().all(|(name, _)| name == "TZ"),
            "{:?}",
            task.env
        );
        let is_allowed = |grant: &Grant| {
            grant.host_path.starts_with(&folder) && grant.rights == Rights::ReadOnly
        };
        assert!(task.mounts.iter().all(is_allowed), "{:?}", task.mounts);
        assert!(!task_folder_name(task.order, &task.name).contains('/'));
    }
    if problems.is_empty() {
        assert_eq!(plan.tasks.len(), workflow.task_list.len());
    }
}

fn check_within(limits: &Limits, bounds: &Limits) {
    // All fields, so that a new one is not forgotten.
    let Limits {
        memory_bytes,
        wall_time,
        output_bytes,
        call_output_bytes,
        open_files,
        module_bytes,
    } = *limits;
    let is_within = [
        memory_bytes <= bounds.memory_bytes,
        wall_time.unwrap_or(Duration::MAX) <= bounds.wall_time.unwrap_or(Duration::MAX),
        output_bytes <= bounds.output_bytes,
        call_output_bytes <= bounds.call_output_bytes,
        open_files <= bounds.open_files,
        module_bytes <= bounds.module_bytes,
    ];
    assert!(
        is_within.into_iter().all(|is_within| is_within),
        "{limits:?} {bounds:?}"
    );
}

fn parse_object(text: &[u8]) -> Map<String, Value> {
    match parse_json(text, DuplicateKeys::LastWins) {
        Ok(Value::Object(object)) => object,
        other => panic!("{other:?}"),
    }
}

/// The output file of a guest.
///
/// The reader takes what the JSON library takes, but for numbers beyond `f64`; what it took is not
/// nested too deep and the same when it is written, in both layouts, and read again, and when it
/// went through the event log.
pub fn metadiff(bytes: &[u8]) {
    let parsed = parse_guest_json(bytes);
    let text = String::from_utf8_lossy(bytes);
    // The library reads an object with one of its own keys as something else; mandelbox must not.
    let has_library_key = text.contains("serde_json") || text.contains("\\u");
    if !has_library_key {
        match (&parsed, serde_json::from_slice::<Value>(bytes)) {
            (Ok(parsed), Ok(expected)) => assert_eq!(*parsed, expected),
            (Err(err), Ok(_)) => assert!(
                err.message.contains("too large for a 64-bit float"),
                "{err}"
            ),
            (Ok(_), Err(err)) => assert!(err.to_string().contains("recursion limit"), "{err}"),
            (Err(_), Err(_)) => {}
        }
    }
    let value = match parsed {
        Ok(value) => value,
        Err(err) => {
            return assert!(
                err.line <= bytes.len() + 1 && err.column <= bytes.len() + 1,
                "{err}"
            );
        }
    };
    check_depth_and_numbers(&value);
    assert_eq!(
        parse_guest_json(value.to_string().as_bytes()).as_ref(),
        Ok(&value)
    );
    assert_eq!(
        parse_guest_json(&build_json(&value, 4)).as_ref(),
        Ok(&value)
    );
    if let Value::Object(metadiff) = value {
        let mut events = parse_events(&seal_lines(RUN_STARTED))
            .expect("an event log")
            .events;
        let kind = EventKind::CallFinished {
            call: CallRef {
                task: 0,
                call_index: 0,
                batch: 0,
                item: Some(Value::Object(metadiff.clone())),
                attempt: 1,
            },
            outcome: Outcome::Succeeded {
                output: Some(metadiff),
            },
            usage: Usage::default(),
            retry_in_s: None,
            stderr: None,
            item_urls: None,
        };
        events.push(Event {
            seq: 1,
            time: events[0].time,
            kind,
        });
        assert_eq!(
            parse_events(&build_log(&events))
                .expect("an event log")
                .events,
            events
        );
    }
}

fn check_depth_and_numbers(value: &Value) {
    let mut values = vec![(value, 0)];
    while let Some((value, depth)) = values.pop() {
        let inner = depth + 1;
        match value {
            Value::Array(items) => values.extend(items.iter().map(|item| (item, inner))),
            Value::Object(map) => values.extend(map.values().map(|item| (item, inner))),
            Value::Number(number) => {
                let is_integer = !number.to_string().contains(['.', 'e', 'E']);
                assert!(
                    is_integer || number.as_f64().is_some_and(f64::is_finite),
                    "{number}"
                );
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
        let n_levels = depth + usize::from(value.is_array() || value.is_object());
        assert!(n_levels <= MAX_DEPTH, "nested {n_levels} deep");
    }
}

const RUN_STARTED: &[u8] = br#"{"seq":0,"time":"2026-01-02T03:04:05.000006Z","event":"run_started","format_version":3,"mandelbox_version":"0.1.0","backend":"local","workflow":"w","logger_name":"l","work_dir":"/w","input_paths":[],"output_path":"/o","input_metadata_keys":[],"first_task_index":null,"last_task_index":null}
"#;

fn build_log(events: &[Event]) -> Vec<u8> {
    let line = |event| [serde_json::to_vec(event).expect("JSON"), b"\n".to_vec()].concat();
    seal_lines(&events.iter().flat_map(line).collect::<Vec<_>>())
}

/// The text of an event log, as it is and with a checksum for each line.
pub fn event_log(bytes: &[u8]) {
    read_log(bytes);
    read_log(&seal_lines(bytes));
}

/// Reads a log whose lines lack their checksums.
///
/// # Panics
/// If it is refused.
#[cfg(test)]
pub fn read_sealed_log(bytes: &[u8]) -> StoredEvents {
    parse_events(&seal_lines(bytes)).expect("a log")
}

/// Events come in order; what is cut off is the end; a log that is cut anywhere has the events
/// before; what was read is the same when it is written and read again, and is shown to people
/// without a character that misleads.
fn read_log(bytes: &[u8]) {
    let StoredEvents {
        mut events,
        next_seq,
        whole_bytes,
        n_damaged_bytes,
        is_torn,
    } = match parse_events(bytes) {
        Ok(stored) => stored,
        Err(err) => return assert!(!err.to_string().chars().any(is_misleading), "{err:?}"),
    };
    assert!(events.is_sorted_by(|one, next| one.seq < next.seq));
    assert!(events.last().is_none_or(|last| last.seq < next_seq));
    assert_eq!(is_torn, whole_bytes < bytes.len());
    assert!(n_damaged_bytes <= whole_bytes);
    assert!(whole_bytes == 0 || bytes[whole_bytes - 1] == b'\n');

    let line_ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(index, _)| index);
    for end in line_ends
        .take(8)
        .flat_map(|index| [index, index + 1, index + 2])
        .filter(|end| *end <= bytes.len())
    {
        let cut = parse_events(&bytes[..end]).expect("a log that is cut is none that is damaged");
        assert!(
            events.starts_with(&cut.events) && cut.whole_bytes <= end,
            "cut at {end}"
        );
    }

    let folder = tempfile::tempdir().expect("a folder");
    let mut log_file = LogFile::create(folder.path(), "run").expect("made");
    for event in &events {
        log_file.report(event).expect("written");
    }
    let told = std::fs::read_to_string(folder.path().join(LogFile::NAME)).expect("there");
    assert!(
        !told.lines().any(|line| line.contains(is_misleading)),
        "{told:?}"
    );

    // Kinds that this version does not know leave gaps.
    for (event, seq) in events.iter_mut().zip(0..) {
        event.seq = seq;
    }
    let written = build_log(&events);
    let read_again = parse_events(&written).expect("an event log");
    // Times are written with microseconds, so the first writing may round and the second must not.
    assert_eq!(build_log(&read_again.events), written);
}

/// A list of components, one a line: JSON, or else a string; the first line is also a task's and a
/// workflow's name.
///
/// No two files of a task have the same name, not even where case does not count; a name is one
/// part of a path, has at most 255 bytes and no character that misleads; every run of the program
/// gives the same names.
pub fn component_names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let component = |line: &str| {
        parse_json(line.as_bytes(), DuplicateKeys::LastWins)
            .unwrap_or_else(|_| line.to_owned().into())
    };
    let components: Vec<_> = text.split('\n').map(component).collect();
    let layout = || FileNames::new(u64::MAX, Some(&components));
    let (first, second) = (layout(), layout());
    let mut names = HashSet::new();
    for (index, component) in components.iter().enumerate() {
        let files = first.files(Path::new("/task"), index, Some(component));
        assert_eq!(
            second.files(Path::new("/task"), index, Some(component)),
            files
        );
        for path in [files.args(), files.output(), files.out(), files.err()] {
            let name = path
                .strip_prefix("/task")
                .expect("in the folder")
                .to_str()
                .expect("UTF-8")
                .to_owned();
            check_name(&name, 255);
            assert!(
                names.insert(name.to_lowercase()),
                "{name:?} stands for two components"
            );
        }
    }
    let line = text.split('\n').next().unwrap_or_default();
    check_name(&task_folder_name(u64::MAX, line), 255);
    // A time is added to it.
    check_name(&format!("{}_", workflow_folder_name(line)), 200);
}

fn check_name(name: &str, max_bytes: usize) {
    assert!(
        !name.is_empty() && name.len() <= max_bytes && !name.contains(['/', '\0']),
        "{name:?}"
    );
    assert!(
        !name.starts_with('.') && !name.chars().any(is_misleading),
        "{name:?}"
    );
}

/// The bytes of a module, at most 64 KiB.
///
/// The module is prepared or refused with a reason; its kind is what its bytes say. Inspecting
/// a prepared one finds nothing to refuse.
pub fn module_loader(bytes: &[u8]) {
    const MAX_BYTES: usize = 64 << 10;
    const COMPILE_TIME: Duration = Duration::from_secs(60);
    if bytes.len() > MAX_BYTES {
        return;
    }
    /// A sandbox keeps what it has compiled, so it is used until it has a module.
    static SANDBOX: Mutex<Option<Sandbox>> = Mutex::new(None);
    let mut kept = SANDBOX.lock().expect("one thread");
    let sandbox = kept.take().unwrap_or_else(|| {
        Sandbox::new(&SandboxOptions::default()).expect("a sandbox on this machine")
    });
    let module = ModuleFile::from_bytes(PathBuf::from("m"), bytes.to_vec());
    let inspected = sandbox.inspect(&module);
    match sandbox.prepare(&module, COMPILE_TIME) {
        Ok(kind) => {
            assert_eq!(
                inspected.map(|inspection| inspection.refusals),
                Ok(Vec::new())
            );
            let is_core = bytes.starts_with(b"\0asm\x01\0\0\0");
            assert_eq!(kind == ModuleKind::CommandP1, is_core);
            assert_eq!(
                sandbox.prepare(&module, COMPILE_TIME),
                Ok(kind),
                "once ready, always ready"
            );
        }
        Err(reason) => {
            assert!(!reason.trim().is_empty());
            *kept = Some(sandbox);
        }
    }
}

/// What a child process sends to its parent.
///
/// The parent gets the same messages and the same error however the bytes come in pieces, and
/// all messages are read as they were written.
pub fn protocol(bytes: &[u8]) {
    let (messages, is_wrong) = read_from_child(bytes, bytes.len());
    for piece_bytes in [1, 7] {
        let in_pieces = read_from_child(bytes, piece_bytes);
        assert_eq!(
            in_pieces,
            (messages.clone(), is_wrong),
            "in pieces of {piece_bytes}"
        );
    }
    assert_eq!(
        read_from_child(&messages.concat(), 1 << 16),
        (messages, false)
    );
}
