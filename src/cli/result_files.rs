//! The files that `--result` and `--events` name. They are checked before the run: after hours of
//! work it would be too late to find out that a file cannot be written, or that it was the
//! workflow.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::arguments::RunArguments;
use super::documents::absolute;
use super::earlier_events::{EarlierEvents, Found};
use crate::event::Reporter;
use crate::folder::write_whole;
use crate::model::{CancelToken, HostError};
use crate::problem::{Location, Problems};
use crate::report::{JsonLines, PatientWriter, Stream, raw_stream};
use crate::run::folders::{broken_link, real_path};
use crate::text::unreadable;

/// Paths that mean stdout. Opened by their names, the last ones would write over the start of a
/// file that it goes to.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Most links that are followed, as on Linux.
const MAX_LINKS: usize = 40;

/// Where a result or events go.
enum Target {
    Stdout,
    /// A path whose last part is no link.
    Path(PathBuf),
}

impl Target {
    fn of(path: &Path) -> Self {
        if STDOUT.iter().any(|stdout| path == Path::new(stdout)) {
            return Self::Stdout;
        }
        Self::Path(follow_links(&absolute(path)))
    }
}

/// The targets of a run.
pub(super) struct ResultFiles {
    result: Option<Target>,
    events: Option<Target>,
    /// What `--events` holds of the run that is resumed.
    earlier: Option<EarlierEvents>,
}

/// A file that the run reads, and what it is to the user.
pub(super) type InputFile = (&'static str, PathBuf);

impl ResultFiles {
    /// Finds and checks the targets. Problems go to `problems`.
    ///
    /// * `work_dir`: of the run, which may not exist yet.
    /// * `inputs`: what must not be overwritten.
    pub(super) fn check(
        arguments: &RunArguments,
        work_dir: &Path,
        inputs: &[InputFile],
        problems: &mut Problems,
    ) -> Self {
        let target = |path: &Option<PathBuf>| path.as_deref().map(Target::of);
        let mut files = Self {
            result: target(&arguments.result),
            events: target(&arguments.events),
            earlier: None,
        };
        if matches!(
            (&files.result, &files.events),
            (Some(Target::Stdout), Some(Target::Stdout))
        ) {
            let text = "only one of --result and --events can go to stdout";
            problems.add(Location::Parameter("--events -".to_owned()), text);
        }
        for (option, target, is_replaced) in [
            ("--result", &files.result, true),
            ("--events", &files.events, false),
        ] {
            let Some(Target::Path(path)) = target else {
                continue;
            };
            if let Err(text) = check_path(path, is_replaced, &arguments.output, work_dir, inputs) {
                problems.add(place(option, path), text);
            }
        }
        if let (Some(Target::Path(result)), Some(Target::Path(events))) =
            (&files.result, &files.events)
            && is_same_file(result, events)
        {
            problems.add(
                place("--events", events),
                "is the file of --result too; choose another",
            );
        }
        if let Some(Target::Path(events)) = &files.events
            && arguments.resume
        {
            match EarlierEvents::find(events, work_dir) {
                Ok(Found::Nothing) => {}
                Ok(Found::Events(earlier)) => files.earlier = Some(earlier),
                Ok(Found::Other) => {
                    let text = "holds something else than events of the run to resume; choose \
                        another file";
                    problems.add(place("--events", events), text);
                }
                Err(err) => problems.add(place("--events", events), unreadable(&err)),
            }
        }
        files
    }

    /// Opens the file of `--events`: one that holds events of the run to resume goes on behind
    /// them.
    ///
    /// * `work_dir`: of the run to resume.
    /// * `cancel`: ends the wait for a reader who is slow.
    pub(super) fn events_reporter(
        &self,
        work_dir: &Path,
        cancel: &CancelToken,
    ) -> Result<Option<Box<dyn Reporter>>, HostError> {
        let (path, file) = match &self.events {
            None => return Ok(None),
            Some(Target::Stdout) => (Path::new("stdout"), raw_stream(Stream::Stdout)),
            Some(Target::Path(path)) => (path.as_path(), self.open_events(path, work_dir)),
        };
        let reporter = file.and_then(|file| -> io::Result<Box<dyn Reporter>> {
            if file.metadata()?.is_file() {
                return Ok(Box::new(JsonLines::new(file)));
            }
            Ok(Box::new(JsonLines::new(PatientWriter::start(
                file,
                cancel.clone(),
            )?)))
        });
        reporter.map(Some).map_err(HostError::file("open", path))
    }

    fn open_events(&self, path: &Path, work_dir: &Path) -> io::Result<File> {
        match &self.earlier {
            Some(earlier) => earlier.open(path, work_dir),
            None if is_regular_or_missing(path) => File::create(path),
            // A terminal, a pipe, or a file that another process has opened: what is in it is not
            // ours to cut off.
            None => OpenOptions::new().append(true).open(path),
        }
    }

    /// Writes the result: whole or not at all, but for what is no plain file. Returns the bytes
    /// that go to stdout.
    pub(super) fn write_result(&self, text: Vec<u8>) -> Result<Option<Vec<u8>>, HostError> {
        match &self.result {
            None => Ok(None),
            Some(Target::Stdout) => Ok(Some(text)),
            Some(Target::Path(path)) if is_regular_or_missing(path) => {
                write_whole(path, &text).map(|()| None)
            }
            Some(Target::Path(path)) => {
                let written = OpenOptions::new()
                    .append(true)
                    .open(path)
                    .and_then(|mut file| file.write_all(&text));
                written
                    .map(|()| None)
                    .map_err(HostError::file("write to", path))
            }
        }
    }

    /// True if there is a `--result`.
    pub(super) fn has_result(&self) -> bool {
        self.result.is_some()
    }
}

fn place(option: &str, path: &Path) -> Location {
    Location::Parameter(format!("{option} {}", path.display()))
}

/// Checks that a file can be written and that nothing is lost by it.
///
/// * `is_replaced`: whether a new file takes its place, for which its folder is written to.
///
/// # Errors
/// A sentence for the user.
fn check_path(
    path: &Path,
    is_replaced: bool,
    output: &Path,
    work_dir: &Path,
    inputs: &[InputFile],
) -> Result<(), String> {
    let real = real_path(path);
    if real.starts_with(real_path(output)) {
        return Err(
            "lies inside the output path, where a task can put a link in its place; choose another"
                .to_owned(),
        );
    }
    if real.starts_with(real_path(work_dir)) {
        return Err(
            "lies in the work directory, whose files are the run's own; choose another".to_owned(),
        );
    }
    if let Some((what, _)) = inputs.iter().find(|(_, input)| is_same_file(path, input)) {
        return Err(format!(
            "is {what}, which it would overwrite; choose another"
        ));
    }
    let cannot_write = |what: &str, err: &dyn std::fmt::Display| {
        Err(format!(
            "{what} cannot be written to: {err}; choose another, or let this user write there"
        ))
    };
    let exists = match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return Err("is a folder; name a file".to_owned()),
        Ok(_) => true,
        Err(_) => false,
    };
    let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else {
        return Err(
            match path
                .parent()
                .and_then(|folder| Some((folder, broken_link(folder)?)))
            {
                Some((folder, text)) => format!(
                    "its folder `{}` {text}; mount or create that folder",
                    folder.display()
                ),
                None => "the folder of this file does not exist; create it first".to_owned(),
            },
        );
    };
    if exists && let Err(err) = access(path, Access::WRITE_OK) {
        return cannot_write("it", &err);
    }
    let needs_folder = !exists || (is_replaced && is_regular_or_missing(path));
    if needs_folder && let Err(err) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        return cannot_write("its folder", &err);
    }
    Ok(())
}

/// True for two names of one plain file, and for one name of a file that does not exist yet.
fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => real_path(a) == real_path(b),
        _ => false,
    }
}

/// False for pipes, devices and folders, and for files by way of a descriptor that is open already:
/// replacing one of those by its name would take the file away from whoever has opened it.
fn is_regular_or_missing(path: &Path) -> bool {
    !is_descriptor(path) && path.metadata().map_or(true, |metadata| metadata.is_file())
}

/// Follows a link to what it names, which need not exist. Links to descriptors stay: they are no
/// paths.
fn follow_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match path.read_link() {
            Ok(target) if !is_descriptor(&path) => {
                path = path.parent().unwrap_or(Path::new("/")).join(target)
            }
            _ => break,
        }
    }
    path
}

/// True for the names of files that this process has open.
fn is_descriptor(path: &Path) -> bool {
    [
        "/proc",
        "/dev/fd",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
    ]
    .iter()
    .any(|name| path.starts_with(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_file_by_two_names_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "").expect("written");
        std::fs::write(path("b"), "").expect("written");
        std::fs::hard_link(path("a"), path("hard")).expect("made");
        symlink("a", path("link")).expect("made");
        symlink(".", path("here")).expect("made");
        let same =
            |a: &str, b: &str| is_same_file(&follow_links(&path(a)), &follow_links(&path(b)));
        for name in ["a", "hard", "link", "here/a", "./a"] {
            assert!(same(name, "a"), "{name}");
            assert!(!same(name, "b") && !same(name, "new"), "{name}");
        }
        symlink("new", path("to-new")).expect("made");
        assert!(same("new", "here/new") && same("to-new", "new"));
        assert!(!same("new", "newer"));
        let null = Path::new("/dev/null");
        assert!(
            !is_same_file(null, null),
            "what is written there is lost in any case"
        );
    }
}
