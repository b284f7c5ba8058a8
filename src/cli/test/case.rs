//! Test case of a package: its documents, its call, and the comparison of its results.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, Tasks};
use super::layout::{ARGS, ERROR, EXPECTED, INPUT, INPUT_PATH, Layout, SETTINGS, TASK_FOLDER};
use super::package::Cases;
use super::result::Difference;
use super::tree::{Tree, optional};
use super::{compare_files, compare_json};
use crate::backend::Local;
use crate::cli::task_call::parse_args;
use crate::folder::Folder;
use crate::json::{DuplicateKeys, MAX_DEPTH, Map, Value, read_json_from};
use crate::model::{CallFailure, CancelToken, FailureKind, Grant, HostError, Rights};
use crate::plan::Policy;
use crate::problem::{Cursor, Location, Problems};
use crate::run::{Error, SingleCall};
use crate::text::units::parse_time;
use crate::text::{escaped, unreadable};
use crate::workdir::WorkDir;

/// Maximum size in bytes of a document of a case.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Case that can run.
pub(super) struct Case {
    pub(super) name: String,
    cases: Arc<Cases>,
    folder_name: OsString,
    call: Call,
    pub(super) layout: &'static Layout,
    pub(super) expected: Expected,
}

/// Expected results of a case.
pub(super) enum Expected {
    /// Not written yet.
    Unknown,
    /// The call succeeds.
    Success {
        /// Output of the call; `None` if the document is missing.
        call_output: Option<Value>,
    },
    /// The call fails with a message that contains this text.
    Failure(String),
}

/// Actual results of a call.
pub(super) struct Actual {
    /// Output of the call, or its failure.
    pub(super) result: Result<Option<Map<String, Value>>, CallFailure>,
    /// Contents of the output folder after the call.
    pub(super) output: Tree,
    pub(super) time: Duration,
}

impl Case {
    /// Opens the case's folder. It is not kept open, because a package can have more cases than the
    /// process can have open files.
    pub(super) fn folder(&self) -> Result<Folder, HostError> {
        self.cases
            .folder
            .open_folder(&*self.folder_name)
            .map_err(HostError::file("open", &self.path()))
    }

    /// Returns the path of the case's folder, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.cases.path.join(&self.folder_name)
    }

    /// Reads the documents of a case. Problems go to `problems`.
    ///
    /// * `folder_name`: name of its folder in the folder of the cases.
    pub(super) fn read(
        cases: &Arc<Cases>,
        folder_name: &OsStr,
        tasks: &Tasks,
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = cases.path.join(folder_name);
        let folder = opened(cases.folder.open_folder(folder_name), &path, problems)?;
        let layout = tasks.layout();
        check_folders(&folder, &path, layout, problems)?;
        let settings = Settings::read(&folder, &path.join(SETTINGS), problems);
        let args_file = path.join(ARGS);
        let text = opened(read_file(&folder, ARGS), &args_file, problems)?;
        let args = parse_args(&args_file, &text, problems)?;
        let settings = settings?;
        let index = settings.task(&path.join(SETTINGS), &tasks.names(), problems)?;
        let policy = settings.policy(policy);
        let task = (tasks, index);
        let call = Call::plan(task, args, &args_file, &policy, backend, problems)?;
        let expected = Expected::read(&folder, &path, layout, problems)?;
        Some(Self {
            name: folder_name.to_string_lossy().into_owned(),
            cases: Arc::clone(cases),
            folder_name: folder_name.to_owned(),
            call,
            layout,
            expected,
        })
    }

    /// Runs the call of the case.
    ///
    /// * `call_folder`: folder for the files of the call, which is created.
    pub(super) fn run(
        &self,
        backend: &Local,
        call_folder: &Path,
        cancel: &CancelToken,
    ) -> Result<Actual, HostError> {
        let folder = self.folder()?;
        let Layout {
            output: name,
            output_path: guest_path,
            ..
        } = *self.layout;
        let output_path = call_folder.join(name);
        std::fs::create_dir_all(&output_path).map_err(HostError::file("create", &output_path))?;
        let output = || Folder::open(&output_path).map_err(HostError::file("open", &output_path));
        tree_of(&folder, name, &self.path())?.copy_to(&output()?)?;
        let output_grant = Grant::new(output_path.clone(), guest_path, Rights::ReadWrite);
        let mut grants = vec![output_grant];
        grants.extend(self.input(&folder)?);
        let mut dialect = self.call.dialect(self.layout, grants.len() > 1);
        let call = SingleCall {
            task: self.call.task(),
            dialect: dialect.as_mut(),
            grants: &grants,
            folder: TASK_FOLDER.into(),
            work_dir: Arc::new(WorkDir::create(&call_folder.join("work"))?),
            writer: None,
            cancel,
        };
        let started = Instant::now();
        let ended = call.run(backend, &mut |_| {});
        let time = started.elapsed();
        let result = match ended {
            Ok(call_output) => Ok(call_output),
            Err(Error::Host(err)) => return Err(err),
            Err(err) => Err(only_call(&err)),
        };
        Ok(Actual {
            result,
            output: Tree::read(Some(output()?), &output_path)?,
            time,
        })
    }

    /// Grants read access to the input folder of the case, if it has one. The grant has the
    /// identity of the folder that is opened here, so the call fails if another folder has its path
    /// by then.
    fn input(&self, folder: &Folder) -> Result<Option<Grant>, HostError> {
        let path = self.path().join(INPUT);
        let failed = || HostError::file("open", &path);
        let Some(input) = optional(folder.open_folder(INPUT)).map_err(failed())? else {
            return Ok(None);
        };
        let identity = input.identity().map_err(failed())?;
        let real = self
            .cases
            .path
            .canonicalize()
            .map_err(failed())?
            .join(&self.folder_name)
            .join(INPUT);
        Ok(Some(Grant {
            identity: Some(identity),
            ..Grant::new(real, INPUT_PATH, Rights::ReadOnly)
        }))
    }

    /// Compares the files of an output folder with the expected ones.
    pub(super) fn file_differences(
        &self,
        actual: &Tree,
    ) -> Result<Vec<(PathBuf, String)>, HostError> {
        let path = self.path().join(EXPECTED);
        let folder = optional(self.folder()?.open_folder(EXPECTED))
            .map_err(HostError::file("open", &path))?;
        let expected = match folder {
            None => Tree::read(None, &path)?,
            Some(folder) => tree_of(&folder, self.layout.output, &path)?,
        };
        compare_files::differences(&expected, actual)
    }

    /// Compares the actual results with the expected ones. The case passes if there is no
    /// difference.
    pub(super) fn differences(&self, actual: &Actual) -> Result<Vec<Difference>, HostError> {
        let whole = |text: String| vec![Difference::Case(text)];
        Ok(match (&self.expected, &actual.result) {
            (Expected::Unknown, Ok(_)) => {
                whole("has no `expected/`; write it with `--update`, then review it".to_owned())
            }
            (Expected::Unknown | Expected::Success { .. }, Err(failure)) => {
                let hint =
                    "if it should fail, create `expected/error.txt` with a part of its message";
                whole(format!("the call failed; {hint}\n{failure}"))
            }
            (Expected::Failure(text), Ok(_)) => whole(format!(
                "the call should fail with a message that contains \"{}\", but it succeeded",
                escaped(text)
            )),
            (Expected::Failure(text), Err(failure)) if message_of(failure).contains(text) => {
                Vec::new()
            }
            (Expected::Failure(text), Err(failure)) => whole(format!(
                "the call should fail with a message that contains \"{}\"\n{failure}",
                escaped(text)
            )),
            (Expected::Success { call_output }, Ok(output)) => {
                let output = output.clone().map_or(Value::Null, Value::Object);
                let mut differences = match call_output {
                    None => whole(format!(
                        "`expected/{}` is missing; write it with `--update`",
                        self.layout.call_output
                    )),
                    Some(expected) => compare_json::differences(expected, &output)
                        .into_iter()
                        .map(Difference::CallOutput)
                        .collect(),
                };
                let files = self.file_differences(&actual.output)?;
                differences.extend(files.into_iter().map(|(path, text)| {
                    let folder = self.layout.output;
                    let name = format!("{folder}/{}", escaped(&path.to_string_lossy()));
                    Difference::File { name, text }
                }));
                differences
            }
        })
    }
}

/// Returns the message of a failed call: its error, and the end of its stderr.
pub(super) fn message_of(failure: &CallFailure) -> String {
    let kind = match failure.outcome.failure_kind() {
        Some(FailureKind::TaskExecution) => "TaskExecutionError",
        _ => "JobExecutionError",
    };
    format!(
        "{kind}: {}\n{}",
        failure.outcome.describe(),
        failure.stderr_tail
    )
}

fn only_call(err: &Error) -> CallFailure {
    let call = err
        .task_failure()
        .and_then(|failure| failure.calls.first())
        .cloned();
    call.expect("a single call that fails is in its error")
}

/// `case.json`.
#[derive(Default)]
struct Settings {
    task: Option<String>,
    timeout: Option<Duration>,
}

impl Settings {
    fn read(folder: &Folder, file: &Path, problems: &mut Problems) -> Option<Self> {
        let mut settings = Self::default();
        let Some(value) = read_document(folder, SETTINGS, file, problems)? else {
            return Some(settings);
        };
        let document = Cursor::new(file, &value);
        let n_before = problems.len();
        for key in document.object(problems)?.keys() {
            let Some(value) = document.get(key) else {
                continue;
            };
            match key.as_str() {
                "task" => settings.task = value.text(problems).map(str::to_owned),
                "timeout" => match value.text(problems).map(parse_time) {
                    Some(Ok(timeout)) => settings.timeout = Some(timeout),
                    Some(Err(message)) => problems.add(value.location(), message),
                    None => {}
                },
                unknown => problems.add(
                    value.location(),
                    format!("unknown key `{unknown}`; known are task, timeout"),
                ),
            }
        }
        (problems.len() == n_before).then_some(settings)
    }

    /// Returns the index of the task of the case.
    ///
    /// * `names`: names of the tasks of the package.
    fn task(&self, file: &Path, names: &[&str], problems: &mut Problems) -> Option<usize> {
        let found = match &self.task {
            Some(task) => names.iter().position(|name| name == task),
            None if names.len() == 1 => Some(0),
            None => None,
        };
        if found.is_none() {
            let names = names.join(", ");
            let text = match &self.task {
                Some(name) => format!("no task \"{name}\"; the package has: {names}"),
                None => format!(
                    "must name the case's task ({{\"task\": NAME}}), because the package has \
                     several: {names}"
                ),
            };
            problems.add(
                Location::Pointer {
                    file: file.to_owned(),
                    pointer: "/task".to_owned(),
                },
                text,
            );
        }
        found
    }

    /// Returns the policy, with the time limit of the case if that is lower.
    fn policy(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        for limits in [&mut policy.default, &mut policy.maximum] {
            limits.wall_time = [limits.wall_time, self.timeout].into_iter().flatten().min();
        }
        policy
    }
}

impl Expected {
    /// Reads the folder `expected` of a case. Problems go to `problems`.
    ///
    /// * `path`: path of the case, for messages.
    fn read(case: &Folder, path: &Path, layout: &Layout, problems: &mut Problems) -> Option<Self> {
        let Layout {
            output,
            call_output: name,
            ..
        } = *layout;
        let path = path.join(EXPECTED);
        let Some(folder) = opened(optional(case.open_folder(EXPECTED)), &path, problems)? else {
            return Some(Self::Unknown);
        };
        let exists = |name: &str| folder.file_type(name).is_ok();
        if exists(ERROR) {
            let error = path.join(ERROR);
            if exists(name) || exists(output) {
                let text = format!(
                    "is next to `{name}` or `{output}/`, but a call either fails or has an output; \
                     remove one of them"
                );
                problems.add(Location::File(error), text);
                return None;
            }
            let text = opened(read_file(&folder, ERROR), &error, problems)?;
            // Git may have converted the line ends, but messages never contain \r\n.
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
            return Some(Self::Failure(text.trim().to_owned()));
        }
        let call_output = read_document(&folder, name, &path.join(name), problems)?;
        let is_known = call_output.is_some() || exists(output);
        Some(if is_known {
            Self::Success { call_output }
        } else {
            Self::Unknown
        })
    }
}

/// Checks that the folders of a case contain only regular files. A package is untrusted, so no link
/// in it is followed. The contents of `input` are not checked: only the guest opens them, in its
/// sandbox.
fn check_folders(
    folder: &Folder,
    path: &Path,
    layout: &Layout,
    problems: &mut Problems,
) -> Option<()> {
    let output = layout.output;
    opened(
        optional(folder.open_folder(INPUT)),
        &path.join(INPUT),
        problems,
    )?;
    check_tree(folder, output, &path.join(output), problems)?;
    let path = path.join(EXPECTED);
    match opened(optional(folder.open_folder(EXPECTED)), &path, problems)? {
        Some(expected) => check_tree(&expected, output, &path.join(output), problems),
        None => Some(()),
    }
}

fn check_tree(folder: &Folder, name: &str, path: &Path, problems: &mut Problems) -> Option<()> {
    let folder = opened(optional(folder.open_folder(name)), path, problems)?;
    let tree = match Tree::read(folder, path) {
        Ok(tree) => tree,
        Err(err) => {
            problems.add(Location::File(path.to_owned()), err.chain());
            return None;
        }
    };
    for (other, what) in &tree.others {
        let text = format!("{what}, but a case can contain only regular files; remove it");
        problems.add(Location::File(path.join(other)), text);
    }
    tree.others.is_empty().then_some(())
}

/// Reads a tree in a folder of a case.
///
/// * `path`: path of that folder, for messages.
///
/// # Errors
/// [`HostError::File`] also if it is not a folder.
fn tree_of(folder: &Folder, name: &str, path: &Path) -> Result<Tree, HostError> {
    let path = path.join(name);
    let tree = optional(folder.open_folder(name)).map_err(HostError::file("open", &path))?;
    Tree::read(tree, &path)
}

/// Returns the opened file or folder, or adds a problem.
fn opened<T>(opened: io::Result<T>, path: &Path, problems: &mut Problems) -> Option<T> {
    opened
        .map_err(|err| problems.add(Location::File(path.to_owned()), unreadable(&err)))
        .ok()
}

fn read_file(folder: &Folder, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    folder
        .open_file(name)?
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_DOCUMENT_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Reads a document. Returns `Some(None)` if it does not exist, and `None` after adding a problem.
fn read_document(
    folder: &Folder,
    name: &str,
    path: &Path,
    problems: &mut Problems,
) -> Option<Option<Value>> {
    let Some(file) = opened(optional(folder.open_file(name)), path, problems)? else {
        return Some(None);
    };
    let read = read_json_from(file, MAX_DOCUMENT_BYTES, MAX_DEPTH, DuplicateKeys::Refuse);
    read.map_err(|err| problems.add(Location::File(path.to_owned()), err.to_string()))
        .ok()
        .map(Some)
}
