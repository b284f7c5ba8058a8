//! Search for the tasks of a workflow in task packages.

use std::cmp::Ordering;
use std::path::PathBuf;

use super::manifest::{Manifest, TaskDocument};
#[cfg(feature = "cli")]
use super::task::Side;
#[cfg(feature = "cli")]
use crate::fractal::command::command_words;
#[cfg(feature = "cli")]
use crate::json::Value;
#[cfg(feature = "cli")]
use crate::problem::{Cursor, Problems};
use crate::text::wording::did_you_mean;

/// A task package. Several versions of a package can be there at the same time.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name of the package.
    pub pkg_name: String,
    /// Version of the package.
    pub version: String,
    /// Folder that executables are relative to.
    pub folder: PathBuf,
    /// The tasks.
    pub manifest: Manifest,
    /// True if the package could not be read. Its problem was added, and its tasks are not known.
    pub is_refused: bool,
}

/// A task that was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundTask<'p> {
    /// The package.
    pub package: &'p Package,
    /// The task.
    pub task: &'p TaskDocument,
}

impl Package {
    /// Returns true if the package has a name. Names are compared as package registries do.
    pub(crate) fn has_name(&self, pkg_name: &str) -> bool {
        normalized_name(&self.pkg_name) == normalized_name(pkg_name)
    }

    /// Returns the modules of its tasks, without those of executables that are refused.
    #[cfg(feature = "cli")]
    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        let sides = self
            .manifest
            .task_list
            .iter()
            .flat_map(|task| Side::ALL.into_iter().filter_map(|side| task.side(side)));
        let commands = sides.filter_map(|side| {
            let executable = Value::from(side.executable.as_str());
            let cursor = Cursor::new(&self.folder, &executable);
            command_words(&cursor, false, &self.folder, &mut Problems::default())
        });
        commands.map(|command| command.module).collect()
    }
}

/// Finds a task by package, version and name, each of which must be equal; the names of packages
/// are compared as package registries do.
///
/// * `version`: `None` is accepted if only one version has the task.
///
/// # Errors
/// A text that names what is missing: the package, its version, or the task. It is the same for all
/// tasks of a package or version that is missing. It names the versions that are there, the newest
/// first. It is not escaped.
///
/// Source: conformance rule V16, defect W31.
pub fn find_task<'p>(
    packages: &'p [Package],
    pkg_name: &str,
    version: Option<&str>,
    name: &str,
) -> Result<FoundTask<'p>, String> {
    let mut of_package: Vec<_> = packages
        .iter()
        .filter(|package| package.has_name(pkg_name))
        .collect();
    of_package.sort_by(|a, b| compare_versions(&b.version, &a.version));
    if of_package.is_empty() {
        return Err(no_package(packages, pkg_name));
    }
    let task_of = |package: &&'p Package| {
        let mut tasks = package.manifest.task_list.iter();
        let task = tasks.find(|task| task.name == name)?;
        Some(FoundTask { package, task })
    };
    let Some(version) = version else {
        let found: Vec<_> = of_package.iter().filter_map(task_of).collect();
        return match found[..] {
            [] => Err(no_task(&of_package, pkg_name, name)),
            [only] => Ok(only),
            _ => Err(format!(
                "no version is given, and several have the task \"{name}\": {}",
                versions(found.iter().map(|found| found.package))
            )),
        };
    };
    let of_version: Vec<_> = of_package
        .iter()
        .filter(|package| package.version == version)
        .copied()
        .collect();
    if of_version.is_empty() {
        return Err(format!(
            "the package {pkg_name} is not there in version {version}, only in {}; give that \
             version with `--tasks`",
            versions(of_package.iter().copied())
        ));
    }
    let mut found = of_version.iter().filter_map(task_of);
    found
        .next()
        .ok_or_else(|| no_task(&of_version, &format!("{pkg_name} {version}"), name))
}

/// Returns the message for a package that is missing.
fn no_package(packages: &[Package], pkg_name: &str) -> String {
    if packages.is_empty() {
        return format!(
            "the package {pkg_name} is missing: no task package was given; name its folder with \
             `--tasks`"
        );
    }
    let mut names: Vec<_> = packages
        .iter()
        .map(|package| package.pkg_name.as_str())
        .collect();
    names.dedup();
    format!(
        "the package {pkg_name} is missing: the packages of `--tasks` are {}{}",
        some_of(&names),
        did_you_mean(pkg_name, names.iter().copied())
    )
}

/// Returns the message for a task that a package lacks.
///
/// * `packages`: versions of the package.
fn no_task(packages: &[&Package], package: &str, name: &str) -> String {
    let tasks = packages
        .iter()
        .flat_map(|package| &package.manifest.task_list);
    let mut names: Vec<_> = tasks.map(|task| task.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    format!(
        "the package {package} has no task \"{name}\"; its tasks are {}{}",
        some_of(&names),
        did_you_mean(name, names.iter().copied())
    )
}

fn versions<'p>(packages: impl Iterator<Item = &'p Package>) -> String {
    let versions = packages.map(|package| match package.version.as_str() {
        "" => format!("an unknown version in {}", package.folder.display()),
        version => version.to_owned(),
    });
    let versions: Vec<_> = versions.collect();
    some_of(&versions.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Joins names, of which there can be many.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 20;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        _ if names.is_empty() => "none".to_owned(),
        0 => shown,
        n_more => format!("{shown} and {n_more} more"),
    }
}

/// Returns the name of a package in the form in which names are compared: lower case, with `-` for
/// each run of `-`, `_` and `.`.
///
/// Source: PEP 503.
pub(super) fn normalized_name(name: &str) -> String {
    let parts = name.split(['-', '_', '.']);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}

/// Compares versions by the numbers in them, then as text.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| {
        let parts = version.split(|c: char| !c.is_ascii_digit());
        let numbers = parts.map(|part| part.parse::<u64>().unwrap_or(0));
        numbers.collect::<Vec<_>>()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    #[cfg(not(feature = "cli"))]
    use crate::problem::{Cursor, Problems};

    fn package(version: &str) -> Package {
        let manifest = json!({
            "manifest_version": "2",
            "task_list": [{"name": "t", "executable_parallel": "p"}],
        });
        let manifest = Problems::or_value(|problems| {
            Manifest::from_cursor(&Cursor::new(Path::new("m"), &manifest), problems)
        });
        Package {
            pkg_name: "p".to_owned(),
            version: version.to_owned(),
            folder: PathBuf::new(),
            manifest: manifest.expect("a manifest"),
            is_refused: false,
        }
    }

    // Source: conformance rule V16, defect W31.
    #[test]
    fn tasks_are_found_by_version() {
        let packages = ["1.9.0", "1.10.0", "1.2.0"].map(package);
        let find = |version, name| find_task(&packages, "p", version, name);
        let found = find(Some("1.2.0"), "t").expect("found");
        assert_eq!(found.package.version, "1.2.0");
        let message = find(Some("2.0.0"), "t").expect_err("missing");
        assert!(message.contains("1.10.0, 1.9.0, 1.2.0"), "{message}");
        assert!(find(None, "t").is_err());
        let message = find(Some("1.2.0"), "tt").expect_err("missing");
        assert!(message.ends_with("are t; did you mean `t`?"), "{message}");
        assert!(find_task(&packages[..1], "p", None, "t").is_ok());
    }

    #[test]
    fn what_is_missing_has_one_message() {
        let packages = ["1.0"].map(package);
        let message = |packages, name, version, task| {
            find_task(packages, name, version, task).expect_err("missing")
        };
        let missing = |task| message(&packages, "q", Some("1.0"), task);
        assert_eq!(missing("t"), missing("u"));
        let other_version = |task| message(&packages, "p", Some("2.0"), task);
        assert_eq!(other_version("t"), other_version("u"));
        assert!(message(&[], "q", None, "t").contains("with `--tasks`"));
    }
}
