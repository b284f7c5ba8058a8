//! Folders for a hostile module: inputs, links that lead out of them, and a secret that nobody was
//! given.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::project::Project;

/// Content of the file outside that no module may read.
pub(super) const SECRET: &str = "SECRET";
pub(super) const COMPONENTS: [&str; 4] = ["a", "b", "c", "d"];

/// A project with inputs, with links that lead out of them, and with a folder that nobody was
/// given.
pub(super) fn fixture() -> Project {
    let project = Project::new();
    for name in ["in/empty", "outside/empty"] {
        fs::create_dir_all(project.path(name)).expect("made");
    }
    for (name, text) in [
        ("in/a.txt", "input"),
        ("in/folder/b.txt", "input"),
        ("outside/secret", SECRET),
    ] {
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
pub(super) type Entry = (PathBuf, u32, u64, (i64, i64), Option<PathBuf>);

/// All that is in a folder and whose path is not too long, no link followed: path, mode, size, time
/// of the last change, target of a link.
pub(super) fn contents(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            paths.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
        let times = (metadata.mtime(), metadata.mtime_nsec());
        found.push((
            path.clone(),
            metadata.mode(),
            metadata.size(),
            times,
            fs::read_link(&path).ok(),
        ));
    }
    found.sort();
    found
}

/// All of the fixture that must stay as it is.
pub(super) fn untouchable(project: &Project) -> impl PartialEq + use<> {
    let texts = ["in/a.txt", "in/folder/b.txt", "outside/secret"]
        .map(|name| fs::read(project.path(name)).ok());
    let mut names: Vec<_> = fs::read_dir(project.path(""))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.retain(|name| name != "work");
    names.sort();
    (
        contents(&project.path("in")),
        contents(&project.path("outside")),
        texts,
        names,
    )
}
