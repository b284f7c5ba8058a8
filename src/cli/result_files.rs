//! Files of `--result`, `--events` and `--log`. They are checked before the run: an error after
//! hours of work, or a workflow that was overwritten, would be found too late.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::arguments::RunArguments;
use super::documents::absolute;
use super::earlier_events::{EarlierEvents, FileContents};
use super::shared_arguments::FormatArgument;
use crate::event::Reporter;
use crate::folder::write_whole;
use crate::model::{CancelToken, HostError};
use crate::problem::{Location, Problems};
use crate::report::{InterruptibleWriter, JsonLines, LogLines, Stream, raw_stream};
use crate::run::folders::{broken_link, real_path};
use crate::text::unreadable;

/// Paths that mean stdout. If stdout is a file, opening one of the last three would create a second
/// file position, and overwrite the start of the file.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Maximum number of links that are followed, as on Linux.
const MAX_LINKS: usize = 40;

/// Destination of a result or of events.
pub(super) enum Target {
    Stdout,
    /// A path whose last part is not a link.
    Path(PathBuf),
}

impl Target {
    pub(super) fn of(path: &Path) -> Self {
        if STDOUT.iter().any(|stdout| path == Path::new(stdout)) {
            return Self::Stdout;
        }
        Self::Path(follow_links(&absolute(path)))
    }
}

/// Destinations of the result and of the events of a run.
pub(super) struct ResultFiles {
    result: Option<Target>,
    events: Option<Target>,
    log: Option<Target>,
    /// Events of the resumed run that the file of `--events` already contains.
    earlier: Option<EarlierEvents>,
}

/// File that the run reads, with its role as a phrase for messages.
pub(super) type InputFile = (&'static str, PathBuf);

impl ResultFiles {
    /// Determines and checks the destinations. Problems go to `problems`.
    ///
    /// * `output`, `work_dir`: folder that tasks write to, and work directory of the run; may not
    ///   exist yet.
    /// * `inputs`: files that must not be overwritten.
    pub(super) fn check(
        arguments: &RunArguments,
        (output, work_dir): (&Path, &Path),
        inputs: &[InputFile],
        problems: &mut Problems,
    ) -> Self {
        let target = |path: &Option<PathBuf>| path.as_deref().map(Target::of);
        let mut files = Self {
            result: target(&arguments.result),
            events: target(&arguments.events),
            log: target(&arguments.starter.log),
            earlier: None,
        };
        files.check_stdout(arguments.starter.format == FormatArgument::Json, problems);
        for (option, target, is_replaced) in [
            ("--result", &files.result, true),
            ("--events", &files.events, false),
            ("--log", &files.log, false),
        ] {
            let Some(Target::Path(path)) = target else {
                continue;
            };
            if let Err(text) = check_path(path, is_replaced, output, work_dir, inputs) {
                problems.add(location(option, path), text);
            }
        }
        if let (Some(Target::Path(result)), Some(Target::Path(events))) =
            (&files.result, &files.events)
            && is_same_file(result, events)
        {
            problems.add(
                location("--events", events),
                "is also the file of `--result`; choose another file",
            );
        }
        if let Some(Target::Path(events)) = &files.events
            && arguments.resume
        {
            match EarlierEvents::find(events, work_dir) {
                Ok(FileContents::Nothing) => {}
                Ok(FileContents::Events(earlier)) => files.earlier = Some(earlier),
                Ok(FileContents::Other) => {
                    let text = "contains other data than events of the run to resume; choose \
                        another file";
                    problems.add(location("--events", events), text);
                }
                Err(err) => problems.add(location("--events", events), unreadable(&err)),
            }
        }
        files
    }

    /// Checks that at most one kind of data goes to stdout.
    ///
    /// * `has_answer`: true if the answer is printed there.
    fn check_stdout(&self, has_answer: bool, problems: &mut Problems) {
        let mut first = has_answer.then_some("--format json");
        for (option, target) in [
            ("--result", &self.result),
            ("--events", &self.events),
            ("--log", &self.log),
        ] {
            if !matches!(target, Some(Target::Stdout)) {
                continue;
            }
            if let Some(first) = first {
                let text = format!("only one of `{first}` and `{option}` can go to stdout");
                problems.add(Location::Parameter(format!("{option} -")), text);
            }
            first = first.or(Some(option));
        }
    }

    /// Opens the file of `--log`, which is appended to.
    ///
    /// * `cancel`: ends the wait for a slow reader.
    pub(super) fn log_reporter(
        &self,
        cancel: &CancelToken,
    ) -> Result<Option<Box<dyn Reporter>>, HostError> {
        let (path, file) = match &self.log {
            None => return Ok(None),
            Some(Target::Stdout) => (Path::new("stdout"), raw_stream(Stream::Stdout)),
            Some(Target::Path(path)) => {
                let mut options = OpenOptions::new();
                options.append(true).create(is_regular_or_missing(path));
                (path.as_path(), options.open(path))
            }
        };
        let writer = file.and_then(|file| -> io::Result<Box<dyn Write + Send>> {
            if file.metadata()?.is_file() {
                return Ok(Box::new(file));
            }
            Ok(Box::new(InterruptibleWriter::start(file, cancel.clone())?))
        });
        let mut writer = writer.map_err(HostError::file("open", path))?;
        Ok(Some(Box::new(LogLines::new(move |level, text| {
            let mut line =
                serde_json::to_vec(&serde_json::json!({ "level": level, "text": text }))?;
            line.push(b'\n');
            writer.write_all(&line)
        }))))
    }

    /// Opens the file of `--events`. New events are appended to those of the run to resume.
    ///
    /// * `work_dir`: work directory of the run to resume.
    /// * `cancel`: ends the wait for a slow reader.
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
            Ok(Box::new(JsonLines::new(InterruptibleWriter::start(
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
            // A terminal, a pipe, or a file that another process has opened. Append to it: its
            // contents are not ours to truncate.
            None => OpenOptions::new().append(true).open(path),
        }
    }

    /// Writes the result. A regular file is replaced atomically. Returns the bytes for stdout, if
    /// that is the destination.
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

    /// Returns true if `--result` was given.
    pub(super) fn has_result(&self) -> bool {
        self.result.is_some()
    }
}

fn location(option: &str, path: &Path) -> Location {
    Location::Parameter(format!("{option} {}", path.display()))
}

/// Checks that a file can be written without overwriting an input or a file of the run.
///
/// * `is_replaced`: true if a new file replaces it, which needs write access to its folder.
///
/// # Errors
/// A message for the user.
pub(super) fn check_path(
    path: &Path,
    is_replaced: bool,
    output: &Path,
    work_dir: &Path,
    inputs: &[InputFile],
) -> Result<(), String> {
    let real = real_path(path);
    if real.starts_with(real_path(output)) {
        return Err(
            "is inside the output path, where a task could replace it with a link; choose another \
             file"
                .to_owned(),
        );
    }
    if real.starts_with(real_path(work_dir)) {
        return Err(
            "is inside the work directory, whose files belong to the run; choose another file"
                .to_owned(),
        );
    }
    if let Some((what, _)) = inputs.iter().find(|(_, input)| is_same_file(path, input)) {
        return Err(format!("would overwrite {what}; choose another file"));
    }
    let cannot_write = |what: &str, err: &dyn std::fmt::Display| {
        Err(format!(
            "{what} cannot be written to: {err}; choose another file, or let this user write there"
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
                None => "its folder does not exist; create it first".to_owned(),
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

/// Returns true for two names of one regular file, and for equal paths of a file that does not
/// exist yet.
fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => real_path(a) == real_path(b),
        _ => false,
    }
}

/// Returns false for pipes, devices and folders, and for a descriptor that is already open, such as
/// `/dev/fd/3`: a process that holds it would keep the old file if its name were replaced.
fn is_regular_or_missing(path: &Path) -> bool {
    !is_descriptor(path) && path.metadata().map_or(true, |metadata| metadata.is_file())
}

/// Follows a link to its target, which need not exist. Links to descriptors are not followed: their
/// targets are not always paths.
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

/// Returns true for a path that names a descriptor of this process.
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
            "data written there is lost in any case"
        );
    }
}
