//! Reading of task packages: a package's folder, or a folder of installed packages.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::packages::{Package, normalized_name};
use crate::folder::open_plain_file;
use crate::fractal::package::{MANIFEST, package_version};
use crate::fractal::workflow::Version;
use crate::problem::{Location, Problems};

/// Maximum size of the metadata of a package, in bytes. It contains the whole readme.
const MAX_METADATA_BYTES: u64 = 16 << 20;

impl Package {
    /// Reads the packages of a folder.
    ///
    /// # Errors
    /// All problems of their manifests, each with its location.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, Problems> {
        Problems::or_value(|problems| Some(Self::read_all_into(folder, problems)))
    }

    /// Reads the packages of a folder: the folder itself if it has a manifest, otherwise all
    /// folders directly below it that have one, as in `site-packages` or an unpacked wheel.
    /// Problems go to `problems`.
    ///
    /// The name and version of a package are those of its `*.dist-info/METADATA`, which is next to
    /// it, or else the keys `pkg_name` and `version` of its manifest.
    pub fn read_all_into(folder: &Path, problems: &mut Problems) -> Vec<Self> {
        if has_manifest(folder) {
            let parent = folder.parent().unwrap_or(Path::new(""));
            let distributions = distributions(parent, problems);
            return vec![read_package(folder, &distributions, problems)];
        }
        let mut folders: Vec<_> = Self::folders_in(folder);
        if folders.is_empty() {
            let text = if folder.exists() {
                format!(
                    "contains no task package: neither it nor a folder in it has a {MANIFEST}; \
                     name the folder of a package, or one with installed packages"
                )
            } else {
                "no such folder or file; correct the path".to_owned()
            };
            problems.add(Location::File(folder.to_owned()), text);
        }
        folders.retain(|folder| {
            let is_v1 = package_version(folder) == Some(Version::V1);
            if is_v1 {
                let text = "is a package of Fractal v1, so its tasks are left out";
                problems.warn(Location::File(folder.clone()), text);
            }
            !is_v1
        });
        let distributions = distributions(folder, problems);
        let read = |folder: &PathBuf| read_package(folder, &distributions, problems);
        folders.iter().map(read).collect()
    }

    /// Returns the folders directly below a folder that have a manifest, sorted.
    pub(crate) fn folders_in(folder: &Path) -> Vec<PathBuf> {
        let entries = entries(folder).into_iter();
        let mut folders: Vec<_> = entries.filter(|path| has_manifest(path)).collect();
        folders.sort();
        folders
    }
}

fn has_manifest(folder: &Path) -> bool {
    folder.join(MANIFEST).symlink_metadata().is_ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn read_package(folder: &Path, distributions: &[Distribution], problems: &mut Problems) -> Package {
    let file = folder.join(MANIFEST);
    let manifest = Manifest::read(&file);
    let is_refused = manifest.is_err();
    let manifest = manifest.unwrap_or_else(|found| {
        problems.extend(found);
        Manifest {
            pkg_name: None,
            version: None,
            task_list: Vec::new(),
        }
    });
    let own_name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let distribution = distributions
        .iter()
        .find(|distribution| distribution.has_folder(&own_name));
    let (name, version) = match distribution {
        Some(distribution) => (distribution.name.clone(), distribution.version.clone()),
        None => (
            manifest.pkg_name.clone().unwrap_or(own_name),
            manifest.version.clone().unwrap_or_default(),
        ),
    };
    if version.is_empty() && !is_refused {
        let text = "the version of the package is not known: there is no `*.dist-info/METADATA` \
                    next to its folder, and the manifest has no key `version`; workflows that name \
                    a version do not find its tasks";
        problems.warn(Location::File(file), text);
    }
    Package {
        pkg_name: name,
        version,
        folder: folder.to_owned(),
        manifest,
        is_refused,
    }
}

/// An installed distribution: a `*.dist-info` folder.
struct Distribution {
    name: String,
    version: String,
    /// Top-level folders that it installed; empty if not known.
    folders: Vec<String>,
}

impl Distribution {
    /// Reads a `*.dist-info` folder; `None` if it is of no package with a manifest. Adds a problem
    /// if it lacks the name or the version.
    fn read(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let file = folder.join("METADATA");
        let metadata = read_text(&file)?;
        let header = |key: &str| {
            let headers = metadata.lines().take_while(|line| !line.trim().is_empty());
            let mut values = headers.filter_map(|line| line.strip_prefix(key));
            values.next().map(|value| value.trim().to_owned())
        };
        let record = read_text(&folder.join("RECORD")).unwrap_or_default();
        let mut folders: Vec<_> = record
            .lines()
            .filter_map(|line| line.split(',').next()?.strip_suffix(MANIFEST))
            .map(|path| path.trim_matches('/').to_owned())
            .collect();
        folders.dedup();
        let mut required = |key: &str| {
            let value = header(key).filter(|value| !value.is_empty());
            if value.is_none() {
                let text = format!("has no line `{key}`; install the package again");
                problems.add(Location::File(file.clone()), text);
            }
            value
        };
        let (name, version) = (required("Name:"), required("Version:"));
        Some(Self {
            name: name?,
            version: version?,
            folders,
        })
    }

    /// Returns true if the distribution installed a folder with a manifest.
    fn has_folder(&self, name: &str) -> bool {
        if self.folders.is_empty() {
            normalized_name(&self.name) == normalized_name(name)
        } else {
            self.folders.iter().any(|folder| folder == name)
        }
    }
}

/// Returns the distributions in a folder.
fn distributions(folder: &Path, problems: &mut Problems) -> Vec<Distribution> {
    let is_info = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "dist-info")
    };
    let mut paths: Vec<_> = entries(folder).into_iter().filter(is_info).collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| Distribution::read(path, problems))
        .collect()
}

/// Reads a text file of an installed package; `None` if it cannot be read or is too large.
fn read_text(path: &Path) -> Option<String> {
    let file: File = open_plain_file(path).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_METADATA_BYTES + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    let is_bounded = bytes.len() as u64 <= MAX_METADATA_BYTES;
    is_bounded.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    const EMPTY: &str = r#"{"manifest_version": "2", "task_list": []}"#;

    fn read(folder: &Path) -> (Vec<(String, String)>, Problems) {
        let mut problems = Problems::default();
        let packages = Package::read_all_into(folder, &mut problems);
        let names = packages
            .into_iter()
            .map(|package| (package.pkg_name, package.version));
        (names.collect(), problems)
    }

    #[test]
    fn names_and_versions_come_from_the_metadata() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        write(root, "my_tasks/__FRACTAL_MANIFEST__.json", EMPTY);
        write(root, "other/__FRACTAL_MANIFEST__.json", EMPTY);
        write(
            root,
            "Other_Dist-2.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: Other-Dist\nVersion: 2.0\n\nName: wrong\n",
        );
        write(
            root,
            "Other_Dist-2.0.dist-info/RECORD",
            "other/__FRACTAL_MANIFEST__.json,sha256=x,42\nother/x.py,,\n",
        );
        write(
            root,
            "my_tasks-1.5.dist-info/METADATA",
            "Name: my-tasks\nVersion: 1.5\n",
        );
        let named = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let (found, problems) = read(root);
        assert!(problems.is_empty() && problems.warnings().is_empty());
        assert_eq!(
            found,
            [named("my-tasks", "1.5"), named("Other-Dist", "2.0")]
        );
        assert_eq!(read(&root.join("other")).0, [named("Other-Dist", "2.0")]);
    }

    #[test]
    fn folders_without_metadata_name_themselves() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        let manifest =
            r#"{"manifest_version": "2", "pkg_name": "p", "version": "3", "task_list": []}"#;
        write(root, "a/__FRACTAL_MANIFEST__.json", manifest);
        write(root, "b/__FRACTAL_MANIFEST__.json", EMPTY);
        assert_eq!(read(&root.join("a")).0, [("p".to_owned(), "3".to_owned())]);
        let (found, problems) = read(&root.join("b"));
        assert_eq!(found, [("b".to_owned(), String::new())]);
        assert_eq!(problems.warnings().len(), 1);
        write(root, "empty/x", "");
        for folder in ["empty", "missing"] {
            let (found, problems) = read(&root.join(folder));
            assert_eq!((found.len(), problems.len()), (0, 1));
        }
    }
}
