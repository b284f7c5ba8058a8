//! Grants of `--mount HOST[::GUEST][:rw]`.

use std::path::Path;

use crate::cli::documents::absolute;
use crate::model::{Grant, Rights};
use crate::problem::{Location, Problems};

/// Separator between the folder on the host and its path in the sandbox.
const SEPARATOR: &str = "::";
/// Suffix of a writable mount.
const WRITABLE: &str = ":rw";

/// Returns the folders that a command can access. All problems go to `problems`.
pub(in crate::cli) fn read_mounts(mounts: &[String], problems: &mut Problems) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for mount in mounts {
        let location = || Location::Parameter(format!("--mount {mount}"));
        match read_mount(mount) {
            Err(text) => problems.add(location(), text),
            Ok(grant)
                if grants
                    .iter()
                    .any(|other| other.guest_path == grant.guest_path) =>
            {
                let text = format!(
                    "a second folder at `{}`; choose another path with `--mount \
                     HOST{SEPARATOR}GUEST`",
                    grant.guest_path
                );
                problems.add(location(), text);
            }
            Ok(grant) => grants.push(grant),
        }
    }
    grants
}

fn read_mount(mount: &str) -> Result<Grant, String> {
    let (rest, rights) = match mount.strip_suffix(WRITABLE) {
        Some(rest) => (rest, Rights::ReadWrite),
        None => (mount, Rights::ReadOnly),
    };
    let (host, guest) = match rest.rsplit_once(SEPARATOR) {
        Some((host, guest)) => (host, Some(guest)),
        None => (rest, None),
    };
    if host.is_empty() {
        return Err(format!(
            "names no folder; write `--mount HOST{SEPARATOR}GUEST`"
        ));
    }
    let host_path = absolute(Path::new(host));
    match host_path.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let folder = host_path.parent().unwrap_or(Path::new("/")).display();
            return Err(format!(
                "is a file, but only folders can be mounted; mount `{folder}`"
            ));
        }
        Err(err) => {
            return Err(format!(
                "the folder `{}` cannot be opened: {err}",
                host_path.display()
            ));
        }
    }
    let guest_path = match guest {
        Some(guest) => normalized(guest)?,
        None => normalized(host_path.to_str().ok_or("must be UTF-8")?)?,
    };
    Ok(Grant::new(host_path, guest_path, rights))
}

/// Returns the path as guests' libraries compare it: without repeated slashes, trailing slashes and
/// `.` parts.
fn normalized(path: &str) -> Result<String, String> {
    if path.split('/').any(|part| part == "..") {
        return Err(format!(
            "the path `{path}` in the sandbox must not contain `..`: guests compare paths as text"
        ));
    }
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    match (path.starts_with('/'), parts.is_empty()) {
        (true, _) => Ok(format!("/{}", parts.join("/"))),
        (false, true) if path.is_empty() => {
            Err("names no path in the sandbox after `::`".to_owned())
        }
        (false, true) => Ok(".".to_owned()),
        (false, false) => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = folder.path().to_str().expect("UTF-8");
        std::fs::write(folder.path().join("file"), "").expect("written");
        let check = |mount: String, expected: Result<(&str, Rights), &str>| match (
            read_mount(&mount),
            expected,
        ) {
            (Ok(grant), Ok((guest_path, rights))) => {
                assert_eq!(
                    (grant.guest_path.as_str(), grant.rights),
                    (guest_path, rights),
                    "{mount}"
                );
                assert_eq!(grant.host_path, folder.path());
            }
            (Err(text), Err(expected)) => assert!(text.contains(expected), "{mount}: {text}"),
            (read, _) => panic!("{mount}: {read:?}"),
        };
        let (read, write) = (Rights::ReadOnly, Rights::ReadWrite);
        check(host.to_owned(), Ok((host, read)));
        check(format!("{host}:rw"), Ok((host, write)));
        check(format!("{host}::/in"), Ok(("/in", read)));
        check(format!("{host}::/:rw"), Ok(("/", write)));
        check(format!("{host}::.:rw"), Ok((".", write)));
        check(format!("{host}::./"), Ok((".", read)));
        check(
            format!("{host}/::/usr//local/./lib/"),
            Ok(("/usr/local/lib", read)),
        );
        check(format!("{host}::data/x"), Ok(("data/x", read)));
        check(format!("{host}::/a/../b"), Err("must not contain `..`"));
        check(format!("{host}::"), Err("names no path in the sandbox"));
        check("::/in".to_owned(), Err("names no folder"));
        check(format!("{host}/none"), Err("cannot be opened"));
        check(format!("{host}/file::/in"), Err(&format!("mount `{host}`")));
    }

    #[test]
    fn two_folders_have_two_paths() {
        let mut problems = Problems::default();
        let grants = read_mounts(
            &[
                "/::/in".to_owned(),
                "/::/in/".to_owned(),
                "/::/in/x".to_owned(),
            ],
            &mut problems,
        );
        assert_eq!(grants.len(), 2);
        assert!(
            problems.to_string().contains("a second folder at `/in`;"),
            "{problems}"
        );
    }
}
