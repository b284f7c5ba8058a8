//! Files of `--calls` and `--results`, and the folders of calls. They are checked before the first
//! call.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::arguments::BatchArguments;
use super::done::{Indices, read_done};
use crate::cli::documents::absolute;
use crate::cli::result_files::{Target, check_path};
use crate::fractal::v1::normalized;
use crate::model::Grant;
use crate::problem::{Location, Problems};
use crate::report::{Stream, raw_stream};
use crate::run::folders::check_folders;
use crate::text::unreadable;

/// Environment variable that sets the location of the temporary folder.
const TEMPORARY_FOLDER_OPTION: &str = "TMPDIR";

/// Folders of the calls.
pub(super) struct Folders {
    pub(super) inputs: Vec<PathBuf>,
    /// Folder of `--output`, or a temporary one.
    pub(super) output: PathBuf,
    /// Parent of scratch folders.
    pub(super) work_dir: PathBuf,
    pub(super) grants: Vec<Grant>,
}

impl Folders {
    /// Checks the folders. Problems go to `problems`.
    ///
    /// * `temporary`: an empty folder.
    pub(super) fn check(
        arguments: &BatchArguments,
        temporary: &Path,
        problems: &mut Problems,
    ) -> Self {
        let normal = |path: &PathBuf| normalized(&absolute(path));
        let inputs: Vec<_> = arguments.inputs.iter().map(normal).collect();
        let own_output = || temporary.join("output");
        let output = arguments.output.as_ref().map_or_else(own_output, normal);
        let work_dir = temporary.join("work");
        let others = arguments.read.iter().map(normal);
        let read: Vec<_> = inputs.iter().cloned().chain(others).collect();
        let grants = check_folders(
            &read,
            (&output, "--output"),
            (&work_dir, TEMPORARY_FOLDER_OPTION),
            false,
            problems,
        );
        Self {
            inputs,
            output,
            work_dir,
            grants,
        }
    }
}

/// Opens the file of `--calls`, or adds a problem.
pub(super) fn open_calls(path: &Path, problems: &mut Problems) -> Option<File> {
    let opened = if path == Path::new("-") {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path).and_then(|file| match file.metadata()?.is_dir() {
            true => Err(ErrorKind::IsADirectory.into()),
            false => Ok(file),
        })
    };
    opened
        .map_err(|err| problems.add(location("--calls", path), unreadable(&err)))
        .ok()
}

fn location(option: &str, path: &Path) -> Location {
    Location::Parameter(format!("{option} {}", path.display()))
}

/// Opens the file of `--results`. Returns it with the calls that it has results of, or adds a
/// problem. The file is created if it is missing, and an incomplete line at its end is removed.
pub(super) fn open_results(
    arguments: &BatchArguments,
    folders: &Folders,
    problems: &mut Problems,
) -> Option<(File, Indices)> {
    let location = location("--results", &arguments.results);
    let opened = match Target::of(&arguments.results) {
        Target::Stdout if arguments.resume => {
            Err("results on stdout cannot be resumed; name their file".to_owned())
        }
        Target::Stdout => raw_stream(Stream::Stdout)
            .map(|file| (file, Indices::default()))
            .map_err(|err| format!("cannot be opened: {err}")),
        Target::Path(path) => {
            let inputs = [
                ("the calls", arguments.calls.clone()),
                ("the module", arguments.module.clone()),
            ];
            let policy = arguments.sandbox.policy.clone();
            let inputs: Vec<_> = inputs
                .into_iter()
                .chain(policy.map(|path| ("the policy", path)))
                .collect();
            check_path(&path, false, &folders.output, &folders.work_dir, &inputs)
                .and_then(|()| open_results_file(&path, arguments.resume))
        }
    };
    opened.map_err(|text| problems.add(location, text)).ok()
}

/// # Errors
/// A message for the user.
fn open_results_file(path: &Path, resumes: bool) -> Result<(File, Indices), String> {
    let cannot_open = |err: io::Error| format!("cannot be opened: {err}");
    let is_stream = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    if is_stream {
        if resumes {
            return Err("is not a regular file, so it cannot be resumed".to_owned());
        }
        let opened = OpenOptions::new().write(true).open(path);
        return opened
            .map(|file| (file, Indices::default()))
            .map_err(cannot_open);
    }
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path);
    let file = opened.map_err(cannot_open)?;
    // Other errors are those of a file system without locks.
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        let text = "is in use by another batch; wait for its end, or name another file";
        return Err(text.to_owned());
    }
    let size = file.metadata().map_err(cannot_open)?.len();
    if size == 0 {
        return Ok((file, Indices::default()));
    }
    if !resumes {
        return Err(
            "exists and is not empty; name a new file, or continue it with `--resume`".to_owned(),
        );
    }
    let (done, complete_bytes) = read_done(&file).map_err(|err| err.to_string())?;
    if complete_bytes < size {
        file.set_len(complete_bytes).map_err(cannot_open)?;
    }
    Ok((file, done))
}
