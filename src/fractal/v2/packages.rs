//! Search for the tasks of a workflow in task packages.

use std::cmp::Ordering;
use std::path::PathBuf;

use super::manifest::{Manifest, TaskDocument};

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
}

/// A task that was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundTask<'p> {
    /// The package.
    pub package: &'p Package,
    /// The task.
    pub task: &'p TaskDocument,
}

/// Finds a task by package, version and name, each of which must be equal; the names of packages are
/// compared as package registries do.
///
/// * `version`: `None` is accepted if only one version has the task.
///
/// # Errors
/// A text that names the versions that have the task, the newest first, not escaped.
///
/// Source: conformance rule V16, defect W31.
pub fn find_task<'p>(
    packages: &'p [Package],
    pkg_name: &str,
    version: Option<&str>,
    name: &str,
) -> Result<FoundTask<'p>, String> {
    let wanted_name = normalized_name(pkg_name);
    let of_package = packages
        .iter()
        .filter(|package| normalized_name(&package.pkg_name) == wanted_name);
    let mut found: Vec<_> = of_package
        .filter_map(|package| {
            let mut tasks = package.manifest.task_list.iter();
            let task = tasks.find(|task| task.name == name)?;
            Some(FoundTask { package, task })
        })
        .collect();
    found.sort_by(|a, b| compare_versions(&b.package.version, &a.package.version));
    let versions = || {
        let versions = found
            .iter()
            .map(|found| match found.package.version.as_str() {
                "" => format!("an unknown one in {}", found.package.folder.display()),
                version => version.to_owned(),
            });
        versions.collect::<Vec<_>>().join(", ")
    };
    match (version, found.as_slice()) {
        (_, []) => Err(format!("no package {pkg_name} has a task \"{name}\"")),
        (None, [only]) => Ok(*only),
        (None, _) => Err(format!(
            "no version is given, and several have the task \"{name}\": {}",
            versions()
        )),
        (Some(version), _) => found
            .iter()
            .find(|found| found.package.version == version)
            .copied()
            .ok_or_else(|| {
                format!(
                    "no version {version} of {pkg_name} has the task \"{name}\"; versions that \
                     have it: {}",
                    versions()
                )
            }),
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
        assert!(message.ends_with("1.10.0, 1.9.0, 1.2.0"), "{message}");
        assert!(find(None, "t").is_err() && find(Some("1.2.0"), "other").is_err());
        assert!(find_task(&packages[..1], "p", None, "t").is_ok());
    }
}
