//! A positive control: in a program without a defence, the corpus complains of the modules that it
//! was for.

use serde_json::json;

use super::THREADS;
use super::case::cases;
use super::complaints::complaints;
use crate::project::{Project, module, parallel_task};

#[test]
fn the_corpus_notices_a_missing_defence() {
    for name in [
        "memory_bomb_touched",
        "input_write",
        "metadiff_symlink_to_args",
        "stdout_flood",
    ] {
        let case = cases()
            .into_iter()
            .find(|case| case.name == name)
            .expect("a case");
        assert!(
            !complaints(&case, THREADS).is_empty(),
            "nobody noticed {name}"
        );
    }
    let case = cases()
        .into_iter()
        .find(|case| case.name == "exit_1")
        .expect("a case");
    assert_eq!(
        complaints(&case, THREADS),
        Vec::<String>::new(),
        "what needs no defence still ends well"
    );
}

/// A bug of the host in one call ends that call alone.
#[test]
fn a_panic_of_the_host_takes_no_other_call_with_it() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["a", "make the host panic", "b", "c"] }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        "t",
        &module("swiss.wasm"),
        "c",
        json!({ "echo": ["component"] }),
    )]);
    let ended = project
        .run(&["--metadata", "metadata.json", "--jobs", "1", "--keep-going"])
        .expect(4);
    ended.reports(&["failed because of a bug in mandelbox; please report it: asked for by a test"]);
    let events = project.read("work/events.jsonl");
    assert_eq!(
        events.matches("\"outcome\":\"succeeded\"").count(),
        3,
        "{events}"
    );
    assert_eq!(
        project.json("work/result.json")["history"][0]["status"],
        "failed"
    );
}
