//! Every file of `tests/corpora/`, which the fuzz targets found or started from, through the
//! property of its target.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod properties;

/// Replays a corpus; an empty one fails the test.
#[track_caller]
fn check(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpora")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let breaks = |path: &Path| {
        let bytes = std::fs::read(path).expect("a file");
        std::panic::catch_unwind(|| property(&bytes)).is_err()
    };
    let broken: Vec<_> = paths.iter().filter(|path| breaks(path)).collect();
    assert!(
        broken.is_empty(),
        "the property does not hold for {broken:?}"
    );
}

#[test]
fn documents() {
    check("documents", properties::documents);
}

#[test]
fn metadiff() {
    check("metadiff", properties::metadiff);
}

#[test]
fn event_log() {
    check("event_log", properties::event_log);
}

/// The seed from which the target starts has an event of each kind.
#[test]
fn the_seed_of_the_event_log_is_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/event_log/every-event");
    let seed = std::fs::read_to_string(path).expect("a seed");
    let stored = properties::read_sealed_log(seed.as_bytes());
    let kind_of = |event: &mandelbox::event::Event| {
        let value = serde_json::to_value(event).expect("JSON");
        value["event"].as_str().expect("a kind").to_owned()
    };
    let kinds: std::collections::BTreeSet<_> = stored.events.iter().map(kind_of).collect();
    assert_eq!((stored.n_damaged_bytes, stored.is_torn), (0, false));
    let expected = [
        "call_finished",
        "call_logged",
        "call_progress",
        "call_reused",
        "call_started",
        "dataset_updated",
        "items_changed",
        "job_ended",
        "jobs_counted",
        "note",
        "rerun",
        "run_finished",
        "run_started",
        "snapshot_made",
        "snapshot_started",
        "task_finished",
        "task_started",
        "warning",
    ];
    assert_eq!(kinds.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn component_names() {
    check("component_names", properties::component_names);
}

#[test]
fn module_loader() {
    check("module_loader", properties::module_loader);
}

#[test]
fn protocol() {
    check("protocol", properties::protocol);
}

#[test]
fn every_target_has_a_corpus_and_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .with_extension("")
                    .file_name()
                    .map(ToOwned::to_owned)
            })
            .collect();
        names.sort();
        names
    };
    let targets = names("fuzz/targets");
    assert_eq!(names("tests/corpora"), targets);
    let tests = include_str!("corpora.rs");
    for target in targets.into_iter().flatten() {
        let target = target.into_string().expect("UTF-8");
        assert!(
            tests.contains(&format!("check(\"{target}\", properties::{target});")),
            "{target}"
        );
    }
}
