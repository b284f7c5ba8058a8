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
