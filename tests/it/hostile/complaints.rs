//! One module in one configuration: what of its run is not as it must be.

use std::fs;

use serde_json::json;

use super::Configuration;
use super::case::Case;
use super::fixture::{COMPONENTS, SECRET, fixture, untouchable};
use super::records::{late_calls, outcomes, wrong_files, wrong_records};
use super::watch::watch;
use crate::project::{Project, module, parallel_task};

/// Options of every run.
const OPTIONS: [&str; 3] = ["--memory", "64M", "--keep-going"];
/// Two calls with their memory, a copy of it in the host, and 256 MiB for the host.
const MAX_HOST_BYTES: u64 = (2 * 2 * 64 + 256) << 20;

/// Number of times that a module runs whose calls end late, and nothing else is wrong: the machine may
/// be busy.
const N_TRIES: usize = 3;

/// Runs one module; gives all that is not as it must be.
pub(super) fn complaints(case: &Case, configuration: Configuration) -> Vec<String> {
    let mut late = Vec::new();
    for _ in 0..N_TRIES {
        let (wrong, late_now) = complaints_and_late_calls(case, configuration);
        if !wrong.is_empty() {
            return [wrong, late_now].concat();
        }
        late = late_now;
        if late.is_empty() {
            break;
        }
    }
    late
}

fn complaints_and_late_calls(
    case: &Case,
    configuration: Configuration,
) -> (Vec<String>, Vec<String>) {
    let project = fixture();
    let module_path = project.write("hostile.wasm", case.module(&project.path("")));
    let module_path = module_path.to_str().expect("UTF-8");
    project.workflow(&[parallel_task(0, "hostile", module_path, "c", json!({}))]);
    for name in ["stdout", "stderr"] {
        project.write(name, "");
    }
    let before = untouchable(&project);

    let arguments =
        "run workflow.json --input in --output out --work-dir work --metadata metadata.json";
    let timeout = format!("{}ms", case.timeout().as_millis());
    let arguments: Vec<_> = arguments
        .split(' ')
        .chain(OPTIONS)
        .chain(["--timeout", &timeout])
        .chain(configuration.arguments.iter().copied())
        .collect();
    let ended = watch(&project, project.command(&arguments));
    let mut wrong = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            wrong.push(text);
        }
    };
    must(
        untouchable(&project) == before,
        "what it may not change has changed".to_owned(),
    );
    must(
        ended.peak_bytes <= MAX_HOST_BYTES,
        format!("the program had {} MiB", ended.peak_bytes >> 20),
    );
    must(!ended.has_children, "left a process behind".to_owned());
    must(!ended.printed.contains("panicked"), "panicked".to_owned());
    let log = fs::read_to_string(project.path("work/workflow.log")).unwrap_or_default();
    for text in [&ended.printed, &log] {
        must(!text.contains(SECRET), "printed the secret".to_owned());
        must(
            !text.chars().any(is_unprintable),
            "printed control characters".to_owned(),
        );
    }

    let outcomes = outcomes(&project);
    let fits = |outcome: &String| case.outcomes.contains(outcome);
    must(
        outcomes.iter().all(fits),
        format!("ended as {outcomes:?}, not {:?}", case.outcomes),
    );
    let codes: Vec<_> = outcomes.iter().map(|outcome| exit_code(outcome)).collect();
    let worst = codes.iter().any(|code| *code != 0);
    must(
        ended
            .code
            .is_some_and(|code| codes.contains(&code) && (code != 0 || !worst)),
        format!("exit code {:?} with {outcomes:?}", ended.code),
    );
    if outcomes.contains("refused") {
        must(
            !project.path("work").exists(),
            "refused, but something was written".to_owned(),
        );
    } else {
        wrong.extend(wrong_records(&project));
    }
    wrong.extend(wrong_files(&project));
    wrong.extend(wrong_afterwards(&project));
    if !wrong.is_empty() {
        wrong.push(ended.printed.chars().take(2000).collect());
    }
    let mut late = late_calls(&project, case.max_time() + configuration.max_delay);
    // What a guest has made on disk takes its time to remove, after its call has ended.
    let factor = if case.name.starts_with("disk_") { 3 } else { 1 };
    // Each round, and as much as one for all else.
    let deadline =
        (case.max_time() + configuration.max_delay) * (configuration.n_rounds + 1) * factor;
    if ended.elapsed > deadline {
        late.push(format!("took {:?}", ended.elapsed));
    }
    (wrong, late)
}

fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c)
}

fn exit_code(outcome: &str) -> i32 {
    match outcome {
        "succeeded" => 0,
        "refused" => 2,
        "exited" | "failed" | "bad_output" => 3,
        _ => 4,
    }
}

/// A run with a good module in the same output folder goes well.
fn wrong_afterwards(project: &Project) -> Option<String> {
    let args = json!({ "echo": ["component"] });
    project.workflow(&[parallel_task(0, "good", &module("swiss.wasm"), "c", args)]);
    let arguments = "run workflow.json --input in --output out --work-dir good --metadata \
        metadata.json --jobs 2";
    let ended = project.mandelbox(&arguments.split(' ').collect::<Vec<_>>());
    if ended.code != 0 {
        return Some(format!("a good module fails afterwards: {}", ended.stderr));
    }
    let echo = project.json("good/metadata.json")["echo"].to_string();
    COMPONENTS
        .iter()
        .any(|name| !echo.contains(name))
        .then(|| format!("a good module gives {echo} afterwards"))
}
