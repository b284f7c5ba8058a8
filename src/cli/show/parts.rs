//! Args, output and streams of one attempt of a call, from wherever they are kept.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::find::{CallKey, key_text};
use super::{Failure, ShownTask, unreadable};
use crate::event::{EventKind, EventLog, KnownCall, visit_log};
use crate::folder::open_plain_file;
use crate::json::{Value, build_json};
use crate::model::{BatchFiles, CallFiles, Outcome, TaskFiles};
use crate::workdir::{AttemptKey, find_packed_in, layout};

/// Form in which the files of a call are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Files of their own.
    Plain,
    /// The file of all calls of the task.
    Packed,
    /// Nowhere.
    NotKept,
}

impl Storage {
    /// Returns the name of the place in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Packed => "packed",
            Self::NotKept => "not_kept",
        }
    }
}

/// Records of one attempt.
#[derive(Debug)]
pub(super) struct CallParts {
    pub(super) storage: Storage,
    /// Reason why something is missing, if it is known; not escaped.
    pub(super) not_kept: Option<String>,
    /// The files.
    pub(super) paths: Vec<PathBuf>,
    pub(super) args: Option<Vec<u8>>,
    /// Output of the call, which the event log has too if the call succeeded.
    pub(super) output: Option<Vec<u8>>,
    /// True if `stdout` is the log of both streams.
    pub(super) has_one_log: bool,
    pub(super) stdout: Option<Vec<u8>>,
    pub(super) stderr: Option<Vec<u8>>,
}

/// Reads what is kept of an attempt.
pub(super) fn read_parts(
    task: &ShownTask,
    key: CallKey,
    call: &KnownCall,
) -> Result<CallParts, Failure> {
    let (Some(stem), Some(form)) = (&call.stem, call.files.as_deref()) else {
        let reason = match call.files.as_deref() {
            Some(form) if form.kept == TaskFiles::None => "the run has `--task-files none`",
            _ => "the event log does not have the names of its files",
        };
        return not_kept(task, key, call, reason.to_owned());
    };
    let has_failed = call
        .end
        .as_ref()
        .is_some_and(|end| end.outcome.failure_kind().is_some());
    let replaced_by = match task.calls.later_user_of_files(call) {
        _ if call.attempt != call.last_attempt => Some(format!("attempt {}", call.last_attempt)),
        Some(other) => Some(format!("call {}", key_text(&task.calls, other))),
        None => None,
    };
    let is_plain = match form.kept {
        TaskFiles::All | TaskFiles::Auto => true,
        TaskFiles::Failed | TaskFiles::Packed => has_failed,
        TaskFiles::None => false,
    };
    if is_plain && replaced_by.is_none() {
        let parts = read_plain(task, stem, form)?;
        if !parts.paths.is_empty() {
            return Ok(parts);
        }
    }
    if form.kept == TaskFiles::Packed {
        return match read_packed(task, key, call)? {
            Ok(parts) => Ok(parts),
            Err(reason) => not_kept(task, key, call, reason),
        };
    }
    let reason = match replaced_by {
        Some(other) if is_plain => format!("its files were replaced by those of {other}"),
        _ if is_plain => format!("its files are not in {} any more", task.folder().display()),
        _ if call.end.is_none() => "files are only kept once a call has failed".to_owned(),
        _ => "the run keeps the files of calls that failed (`--task-files failed`)".to_owned(),
    };
    not_kept(task, key, call, reason)
}

fn not_kept(
    task: &ShownTask,
    key: CallKey,
    call: &KnownCall,
    reason: String,
) -> Result<CallParts, Failure> {
    Ok(CallParts {
        storage: Storage::NotKept,
        not_kept: Some(reason),
        paths: Vec::new(),
        args: None,
        output: output_in_log(task, key.0, call)?,
        has_one_log: false,
        stdout: None,
        stderr: None,
    })
}

fn read_plain(task: &ShownTask, stem: &str, form: &BatchFiles) -> Result<CallParts, Failure> {
    let files = CallFiles {
        folder: task.folder(),
        stem: stem.to_owned(),
        suffixes: form.suffixes.clone(),
    };
    let mut paths = Vec::new();
    let mut read = |path: PathBuf| -> Result<Option<Vec<u8>>, Failure> {
        let bytes = read_if_there(&path).map_err(|err| unreadable(&path, &err))?;
        if bytes.is_some() {
            paths.push(path);
        }
        Ok(bytes)
    };
    let args = read(files.args())?;
    let output = read(files.output())?;
    let stdout = read(files.out())?;
    let stderr = match files.has_one_log() {
        true => None,
        false => read(files.err())?,
    };
    Ok(CallParts {
        storage: Storage::Plain,
        not_kept: None,
        paths,
        args,
        output,
        has_one_log: files.has_one_log(),
        stdout,
        stderr,
    })
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match open_plain_file(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Reads what the file of all calls has of an attempt, or returns the reason why it has nothing.
fn read_packed(
    task: &ShownTask,
    key: CallKey,
    call: &KnownCall,
) -> Result<Result<CallParts, String>, Failure> {
    let path = task.folder().join(layout::PACKED_CALLS_FILE);
    let attempt = AttemptKey {
        session: call.session,
        batch: key.0,
        call_index: call.index_then,
        attempt: call.attempt,
    };
    let shown = path.display();
    let reason = match find_packed_in(&task.folder(), attempt) {
        Ok(Some(record)) => {
            let failed = |err| unreadable(&path, &err);
            let has_one_log = record.has_one_log;
            return Ok(Ok(CallParts {
                storage: Storage::Packed,
                not_kept: (!record.has_ended).then(|| {
                    "the call has not ended, so only long streams are written so far".to_owned()
                }),
                args: record.args().map_err(failed)?,
                output: record.output().map_err(failed)?,
                stdout: Some(record.stdout().map_err(failed)?),
                stderr: match has_one_log {
                    true => None,
                    false => Some(record.stderr().map_err(failed)?),
                },
                has_one_log,
                paths: vec![path],
            }));
        }
        Ok(None) | Err(_) if call.end.is_none() => match task.outcome(call) {
            "running" => "its record is written when it ends".to_owned(),
            _ => "it was interrupted before its record was written".to_owned(),
        },
        Ok(None) => format!("{shown} has no whole record of it"),
        Err(err) if err.kind() == io::ErrorKind::NotFound => format!("{shown} does not exist"),
        Err(err) if err.kind() == io::ErrorKind::InvalidData => {
            format!("the start of {shown} is damaged")
        }
        Err(err) => return Err(unreadable(&path, &err)),
    };
    Ok(Err(reason))
}

/// Reads the output of a call that succeeded from the event log.
fn output_in_log(
    task: &ShownTask,
    batch: u32,
    call: &KnownCall,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(end) = &call.end else {
        return Ok(None);
    };
    let path = task.work_dir.join(EventLog::NAME);
    let mut output = None;
    let read = visit_log(&path, |event, _, _| {
        if let EventKind::CallFinished {
            call: ended,
            outcome: Outcome::Succeeded { output: found },
            ..
        } = event.kind
            && event.time == end.time
            && ended.task == task.order
            && ended.key() == (batch, call.index_then)
        {
            output = found.map(|found| build_json(&Value::Object(found), 0));
        }
    });
    match read {
        Ok(_) => Ok(output),
        Err(err) => Err(unreadable(&path, &io::Error::other(err.to_string()))),
    }
}
