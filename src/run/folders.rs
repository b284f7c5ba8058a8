//! The folders that calls see, and the rules between input, output and work directory.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::model::{Grant, Rights};
use crate::problem::{Location, Problems};
use crate::text::unreadable;

/// Checks the paths of a run and makes the grants that all its calls share: inputs read-only, the
/// output read-write.
///
/// The input paths are granted to every task, not to the first alone: Fractal's tasks hand them on
/// in metadata. An input path that does not exist is granted to nobody, with a warning; Fractal
/// does not look at it either.
///
/// * `output_option`, `work_dir_option`: what the user sets to have another output or work
///   directory.
/// * `input_in_output`: true if tasks may write to an input inside the output.
pub(crate) fn check_folders(
    input_paths: &[PathBuf],
    (output_path, output_option): (&Path, &str),
    (work_dir, work_dir_option): (&Path, &str),
    input_in_output: bool,
    problems: &mut Problems,
) -> Vec<Grant> {
    let output_place = Location::Parameter(format!("output path {}", output_path.display()));
    let real_output = real_path(output_path);
    let real_work_dir = real_path(work_dir);
    if work_dir.to_str().is_none() {
        problems.add(
            Location::Parameter(format!("work directory {}", work_dir.display())),
            "must be UTF-8",
        );
    }
    for (path, name) in input_paths
        .iter()
        .map(|path| (path.as_path(), "input path"))
        .chain([(output_path, "output path")])
    {
        if path.to_str().is_none() {
            problems.add(
                Location::Parameter(format!("{name} {}", path.display())),
                "must be UTF-8, as all of JSON is",
            );
        }
    }
    if let Err(text) = check_can_write(output_path, output_option) {
        problems.add(output_place.clone(), text);
    }
    if let Err(text) = check_can_write(work_dir, work_dir_option) {
        problems.add(
            Location::Parameter(format!("work directory {}", work_dir.display())),
            text,
        );
    }
    if holds(&real_output, &real_work_dir) {
        let text = format!(
            "contains the work directory {}, where no task may write; choose another \
             {work_dir_option} or {output_option}",
            work_dir.display()
        );
        problems.add(output_place, text);
    }

    let guest_path = |path: &Path| path.to_string_lossy().into_owned();
    let mut grants = Vec::new();
    for path in input_paths {
        let location = Location::Parameter(format!("input path {}", path.display()));
        let real = real_path(path);
        if path == output_path || grants.iter().any(|grant: &Grant| grant.host_path == *path) {
            continue;
        }
        match path.metadata() {
            Err(err) if is_missing(&err) => {
                let text = match broken_link(path) {
                    Some(text) => {
                        format!("{text}, so tasks will not find it; mount or create that folder")
                    }
                    None => {
                        "there is no such folder, so tasks will not find it; make it, or correct \
                         the path"
                            .to_owned()
                    }
                };
                problems.warn(location, text);
                continue;
            }
            Err(err) => {
                problems.add(location, unreadable(&err));
                continue;
            }
            Ok(metadata) if !metadata.is_dir() => {
                problems.add(location, "is not a folder; name the folder that holds it");
                continue;
            }
            Ok(_) => {}
        }
        if let Err(err) = access(path, Access::READ_OK | Access::EXEC_OK) {
            problems.add(location, unreadable(&err.into()));
        } else if holds(&real, &real_work_dir) {
            let text = format!(
                "contains the work directory {}, whose records no task may see; choose another \
                 {work_dir_option}",
                work_dir.display()
            );
            problems.add(location, text);
        } else if input_in_output && real.starts_with(&real_output) {
            let path = path.to_owned();
            let name = guest_path(&path);
            grants.push(Grant::new(path, name, Rights::ReadWrite));
        } else if real != real_output && real.starts_with(&real_output) {
            let text = format!(
                "is inside the output path, where tasks write, so it would not be read-only; \
                 choose another {output_option}, or give the output path itself as the input"
            );
            problems.add(location, text);
        } else {
            grants.push(Grant::new(path.clone(), guest_path(path), Rights::ReadOnly));
        }
    }
    grants.push(Grant::new(
        output_path.to_owned(),
        guest_path(output_path),
        Rights::ReadWrite,
    ));
    grants
}

/// Returns true if `path` is `folder` or is inside it. A bind mount has another path than its
/// folder, and a file system can ignore case, so folders are also compared by device and inode.
///
/// Both are paths without links.
pub(crate) fn holds(folder: &Path, path: &Path) -> bool {
    if path.starts_with(folder) {
        return true;
    }
    let identity = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    match identity(folder) {
        Some(own) => path.ancestors().any(|above| identity(above) == Some(own)),
        None => false,
    }
}

/// Checks that a folder can be written to, or made where it is missing.
///
/// * `option`: what the user sets to name another.
///
/// # Errors
/// A sentence for the user.
fn check_can_write(folder: &Path, option: &str) -> Result<(), String> {
    // The folder, or the part of its path that exists.
    for path in folder
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
    {
        let is_whole = path == folder;
        let shown = if is_whole {
            String::new()
        } else {
            format!("`{}` ", path.display())
        };
        match path.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(format!("{shown}is not a folder; choose another {option}"));
            }
            Ok(_) => {
                return access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|err| {
                    format!(
                        "{shown}cannot be written to: {err}; choose another {option}, or let \
                        this user write there"
                    )
                });
            }
            Err(err) if is_missing(&err) => {
                if let Some(text) = broken_link(path) {
                    return Err(format!(
                        "{shown}{text}; mount or create that folder, or choose another {option}"
                    ));
                }
            }
            Err(err) => {
                return Err(format!(
                    "{shown}cannot be reached: {err}; choose another {option}"
                ));
            }
        }
    }
    Ok(())
}

/// True for the errors of a path that leads to nothing, false for those of one that cannot be
/// looked at.
fn is_missing(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the target of a broken link, as a part of a sentence; `None`: it is no link.
pub(crate) fn broken_link(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(format!(
        "is a link to `{}`, which does not exist",
        target.display()
    ))
}

/// The path without links, as far as it exists; what does not exist yet is appended as it is
/// written.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let mut whole = real;
            for name in absolute.strip_prefix(ancestor).into_iter().flatten() {
                // What does not exist yet will be created without links, so `..` is the parent by
                // name.
                match name.to_str() {
                    Some("..") => drop(whole.pop()),
                    Some(".") => {}
                    _ => whole.push(name),
                }
            }
            return whole;
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, output: &str, work_dir: &str, expected: Option<&str>) {
        check_with(false, input, output, work_dir, expected);
    }

    fn check_with(
        input_in_output: bool,
        input: &str,
        output: &str,
        work_dir: &str,
        expected: Option<&str>,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for name in ["in", "out/deep"] {
            std::fs::create_dir_all(root.join(name)).expect("made");
        }
        std::os::unix::fs::symlink(root.join("out"), root.join("link")).expect("made");
        std::fs::write(root.join("file"), "").expect("written");
        let mut problems = Problems::default();
        check_folders(
            &[root.join(input)],
            (&root.join(output), "--output"),
            (&root.join(work_dir), "--work-dir"),
            input_in_output,
            &mut problems,
        );
        match expected {
            None => assert!(problems.is_empty(), "{problems}"),
            Some(text) => assert!(problems.to_string().contains(text), "{problems}"),
        }
    }

    #[test]
    fn a_folder_holds_what_is_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        std::fs::create_dir_all(root.join("out/work")).expect("made");
        assert!(holds(&root.join("out"), &root.join("out")));
        assert!(holds(&root.join("out"), &root.join("out/work/not/there")));
        assert!(holds(&root.join("none"), &root.join("none/work")));
        assert!(!holds(&root.join("out/work"), &root.join("out")));
        assert!(!holds(&root.join("none"), &root.join("out/work")));
    }

    #[test]
    fn folders_keep_apart() {
        check("in", "out", "work", None);
        check("out", "out", "work", None);
        check("none", "out", "work", None);
        check("in", "new", "new-work", None);
        check("in", "in/results", "work", None);
        check("in", "out", "out/work", Some("contains the work directory"));
        check("in", "new/..", "work", Some("contains the work directory"));
        check(
            "in",
            "new/../out",
            "out/x/../work",
            Some("contains the work directory"),
        );
        check("in", "out", "out", Some("contains the work directory"));
        check(
            "in",
            "link",
            "out/work",
            Some("contains the work directory"),
        );
        check("in", ".", "work", Some("contains the work directory"));
        check("in", "out", "in/work", Some("records no task may see"));
        check("out/deep", "out", "work", Some("inside the output path"));
        check_with(true, "out/deep", "out", "work", None);
        check_with(
            true,
            "out/deep",
            "out",
            "out/work",
            Some("contains the work directory"),
        );
        check("file", "out", "work", Some("name the folder that holds it"));
        check("in", "file", "work", Some("is not a folder"));
    }
}
