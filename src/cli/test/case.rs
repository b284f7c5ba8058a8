//! Test case of a package: its documents, its call, and the comparison of its results.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::package::Cases;
use super::result::Difference;
use super::tree::{Tree, optional};
use super::{compare_files, compare_json};
use crate::backend::Local;
use crate::cli::task_call::{CallArgs, plan_call};
use crate::folder::Folder;
use crate::fractal::OUTPUT_FILE;
use crate::fractal::v1::Dataset;
use crate::fractal::v1::document::TaskDocument;
use crate::json::{DuplicateKeys, MAX_DEPTH, Map, Value, read_json_from};
use crate::model::{CallFailure, CancelToken, FailureKind, Grant, HostError, Rights};
use crate::plan::{PlannedTask, Policy};
use crate::problem::{Cursor, Location, Problems};
use crate::run::{Error, SingleCall};
use crate::text::units::parse_time;
use crate::text::{escaped, unreadable};
use crate::workdir::WorkDir;

/// Paths in the sandbox. They are the same on every machine, because outputs contain paths.
const INPUT_PATH: &str = "/input";
const OUTPUT_PATH: &str = "/output";
const TASK_FOLDER: &str = "/task";
/// Files and folders of a case.
const ARGS: &str = "args.json";
const SETTINGS: &str = "case.json";
const INPUT: &str = "input";
pub(super) const OUTPUT: &str = "output";
pub(super) const EXPECTED: &str = "expected";
/// Files of the expected results, which can have a folder `output` too.
pub(super) const CALL_OUTPUT: &str = OUTPUT_FILE;
pub(super) const ERROR: &str = "error.txt";
/// Maximum size in bytes of a document of a case.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Case that can run.
pub(super) struct Case {
    pub(super) name: String,
    cases: Arc<Cases>,
    folder_name: OsString,
    task: PlannedTask,
    item: Option<Value>,
    metadata: Map<String, Value>,
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
        tasks: &[TaskDocument],
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = cases.path.join(folder_name);
        let folder = opened(cases.folder.open_folder(folder_name), &path, problems)?;
        check_folders(&folder, &path, problems)?;
        let settings = Settings::read(&folder, &path.join(SETTINGS), problems);
        let args_file = path.join(ARGS);
        let text = opened(read_file(&folder, ARGS), &args_file, problems)?;
        let mut args = CallArgs::parse(&args_file, &text, problems)?;
        let metadata = match args.reserved.shift_remove("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(other) => {
                Cursor::at(&args_file, "/metadata".to_owned(), &other)
                    .wrong_type("an object", problems);
                return None;
            }
        };
        for name in args.reserved.keys() {
            let location = Location::Pointer {
                file: args_file.clone(),
                pointer: format!("/{name}"),
            };
            let text = format!(
                "`{name}` is filled in by mandelbox; remove it, and put files into the folders \
                 `input` and `output` of the case"
            );
            problems.add(location, text);
        }
        let settings = settings?;
        let task = settings.task(&path.join(SETTINGS), tasks, problems)?;
        let policy = settings.policy(policy);
        let task = plan_call(task.clone(), &args, &args_file, &policy, backend, problems)?;
        let expected = Expected::read(&folder, &path, problems)?;
        let (name, folder_name) = (
            folder_name.to_string_lossy().into_owned(),
            folder_name.to_owned(),
        );
        let (cases, item) = (Arc::clone(cases), args.item);
        Some(Self {
            name,
            cases,
            folder_name,
            task,
            item,
            metadata,
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
        let output_path = call_folder.join(OUTPUT);
        std::fs::create_dir_all(&output_path).map_err(HostError::file("create", &output_path))?;
        let output = || Folder::open(&output_path).map_err(HostError::file("open", &output_path));
        tree_of(&folder, OUTPUT, &self.path())?.copy_to(&output()?)?;
        let mut grants = vec![Grant::new(
            output_path.clone(),
            OUTPUT_PATH,
            Rights::ReadWrite,
        )];
        grants.extend(self.input(&folder)?);
        let mut dataset = Dataset {
            input_paths: if grants.len() > 1 {
                vec![INPUT_PATH.into()]
            } else {
                Vec::new()
            },
            output_path: OUTPUT_PATH.into(),
            metadata: self.metadata.clone().into(),
            ..Dataset::default()
        };
        dataset.set_only_call(
            self.task.spec.order,
            self.task.details.clone(),
            self.item.clone(),
        );
        let call = SingleCall {
            task: &self.task.spec,
            dialect: &mut dataset,
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
            Some(folder) => tree_of(&folder, OUTPUT, &path)?,
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
                        "`expected/{CALL_OUTPUT}` is missing; write it with `--update`"
                    )),
                    Some(expected) => compare_json::differences(expected, &output)
                        .into_iter()
                        .map(Difference::CallOutput)
                        .collect(),
                };
                let files = self.file_differences(&actual.output)?;
                differences.extend(files.into_iter().map(|(path, text)| {
                    let name = format!("output/{}", escaped(&path.to_string_lossy()));
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

    fn task<'t>(
        &self,
        file: &Path,
        tasks: &'t [TaskDocument],
        problems: &mut Problems,
    ) -> Option<&'t TaskDocument> {
        let named = |name: &String| tasks.iter().find(|task| task.name == *name);
        let found = match (&self.task, tasks) {
            (Some(name), _) => named(name),
            (None, [task]) => Some(task),
            (None, _) => None,
        };
        if found.is_none() {
            let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
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
    fn read(case: &Folder, path: &Path, problems: &mut Problems) -> Option<Self> {
        let path = path.join(EXPECTED);
        let Some(folder) = opened(optional(case.open_folder(EXPECTED)), &path, problems)? else {
            return Some(Self::Unknown);
        };
        let exists = |name: &str| folder.file_type(name).is_ok();
        if exists(ERROR) {
            let error = path.join(ERROR);
            if exists(CALL_OUTPUT) || exists(OUTPUT) {
                let text = format!(
                    "is next to `{CALL_OUTPUT}` or `output/`, but a call either fails or has an \
                     output; remove one of them"
                );
                problems.add(Location::File(error), text);
                return None;
            }
            let text = opened(read_file(&folder, ERROR), &error, problems)?;
            // Git may have converted the line ends, but messages never contain \r\n.
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
            return Some(Self::Failure(text.trim().to_owned()));
        }
        let call_output = read_document(&folder, CALL_OUTPUT, &path.join(CALL_OUTPUT), problems)?;
        let is_known = call_output.is_some() || exists(OUTPUT);
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
fn check_folders(folder: &Folder, path: &Path, problems: &mut Problems) -> Option<()> {
    opened(
        optional(folder.open_folder(INPUT)),
        &path.join(INPUT),
        problems,
    )?;
    check_tree(folder, OUTPUT, &path.join(OUTPUT), problems)?;
    let path = path.join(EXPECTED);
    match opened(optional(folder.open_folder(EXPECTED)), &path, problems)? {
        Some(expected) => check_tree(&expected, OUTPUT, &path.join(OUTPUT), problems),
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
