//! `--watch`: reruns the cases whenever a file of the package changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::package::cases_of;
use crate::cli::Answer;
use crate::fractal::package::manifest::modules_in;
use crate::fractal::package::{MANIFEST, TaskPackage, package_version};
use crate::fractal::v2;
use crate::fractal::workflow::Version;
use crate::model::{CancelToken, FileIdentity};
use crate::problem::Problems;
use crate::report::print_text;

/// Time between two polls. Polling works on every file system, including network ones, and the
/// files are few.
const INTERVAL: Duration = Duration::from_millis(300);
/// Maximum number of watched files.
const MAX_FILES: usize = 20_000;

/// Runs the cases, and reruns them after each change until a run is cancelled. Returns the answer
/// of that run.
pub(super) fn repeat(
    package: &Path,
    cancel: &CancelToken,
    mut run: impl FnMut() -> Answer,
) -> Answer {
    loop {
        let before = files(package);
        let answer = run();
        if cancel.is_cancelled() {
            return answer;
        }
        let Answer { stderr, .. } = answer;
        print_text(&format!("{stderr}waiting for a change ...\n"));
        // Compare with the files before the run: the cases may have missed changes during it.
        let mut seen = before;
        loop {
            std::thread::sleep(INTERVAL);
            let now = files(package);
            let has_changed = now != seen;
            seen = now;
            if has_changed {
                break;
            }
        }
        // A build writes its files one after the other. Wait until they no longer change.
        loop {
            std::thread::sleep(INTERVAL);
            let now = files(package);
            if now == seen {
                break;
            }
            seen = now;
        }
        print_text("\n");
    }
}

/// Returns the modules that the manifest of a package names. Its problems are ignored: running the
/// cases reports them.
fn modules_of(package: &Path) -> Vec<PathBuf> {
    let mut problems = Problems::default();
    match package_version(package) {
        Some(Version::V2) => {
            let packages = v2::Package::read_all_into(package, &mut problems);
            packages.iter().flat_map(v2::Package::modules).collect()
        }
        Some(Version::V1) | None => {
            let manifest = TaskPackage::read_into(package, &mut problems);
            let tasks = manifest.into_iter().flat_map(|package| package.task_list);
            tasks.map(|task| task.task.module_path()).collect()
        }
    }
}

/// Returns the identities of all files on which the cases depend.
fn files(package: &Path) -> BTreeMap<PathBuf, FileIdentity> {
    let mut files = BTreeMap::new();
    let mut add = |path: PathBuf| {
        if let Some(identity) = FileIdentity::of_file(&path) {
            files.insert(path, identity);
        }
        files.len() < MAX_FILES
    };
    if package.is_dir() {
        add(package.join(MANIFEST));
        modules_in(package)
            .into_iter()
            .for_each(|path| _ = add(path));
        for module in modules_of(package) {
            add(module);
        }
    } else {
        add(package.to_owned());
    }
    let mut folders = vec![cases_of(package)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if !add(entry.path()) => return files,
                _ => {}
            }
        }
    }
    files
}
