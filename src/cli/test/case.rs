//! One case of a package: its documents, its call, and whether that gave what it should.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::result::Difference;
use super::{compare_files, compare_json};
use crate::backend::Local;
use crate::cancel::CancelToken;
use crate::cli::task_call::{CallArgs, plan_call};
use crate::error::{Error, HostError};
use crate::json::{DuplicateKeys, MAX_DEPTH, Map, Value, read_json};
use crate::outcome::{CallFailure, FailureKind};
use crate::policy::Policy;
use crate::reporter::escape::escaped;
use crate::runner::{SingleCall, TaskParameters};
use crate::sandbox::{Grant, Rights};
use crate::workdir::WorkDir;
use crate::workflow::document::TaskDocument;
use crate::workflow::{Cursor, Place, PlannedTask, Problems};

/// Paths in the sandbox, the same on every machine, since metadiffs hold paths.
const INPUT: &str = "/input";
const OUTPUT: &str = "/output";
const TASK_FOLDER: &str = "/task";
/// Bytes of a case's documents.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// A case that can run.
pub(super) struct Case {
    pub(super) name: String,
    folder: PathBuf,
    task: PlannedTask,
    component: Option<Value>,
    metadata: Map<String, Value>,
    pub(super) expected: Expected,
}

/// What a case should give.
pub(super) enum Expected {
    /// Nobody has said it yet.
    Unknown,
    /// The call ends well.
    Success {
        /// `None`: the document is missing.
        metadiff: Option<Value>,
    },
    /// The call fails, with a message that holds this.
    Failure(String),
}

/// What a call gave.
pub(super) struct Given {
    /// The metadiff, or how the call failed.
    pub(super) result: Result<Option<Map<String, Value>>, CallFailure>,
    /// What the output folder holds after it.
    pub(super) output: PathBuf,
    pub(super) time: Duration,
}

impl Case {
    /// The files of what it should give.
    pub(super) fn metadiff_path(&self) -> PathBuf {
        self.folder.join("expected/metadiff.json")
    }

    pub(super) fn error_path(&self) -> PathBuf {
        self.folder.join("expected/error.txt")
    }

    pub(super) fn output_path(&self) -> PathBuf {
        self.folder.join("expected/output")
    }

    /// Reads the documents of a case. Problems go to `problems`.
    pub(super) fn read(
        folder: &Path,
        tasks: &[TaskDocument],
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let settings = Settings::read(&folder.join("case.json"), problems);
        let args_file = folder.join("args.json");
        let text = fs::read(&args_file);
        let text = text.map_err(|err| problems.add(Place::File(args_file.clone()), format!("cannot be read: {err}")));
        let mut args = CallArgs::parse(&args_file, &text.ok()?, problems)?;
        let metadata = match args.reserved.shift_remove("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(other) => {
                Cursor::at(&args_file, "/metadata".to_owned(), &other).wrong_type("an object", problems);
                return None;
            }
        };
        for name in args.reserved.keys() {
            let place = Place::Pointer { file: args_file.clone(), pointer: format!("/{name}") };
            let text = format!("`{name}` is filled in: a case's files are in its folders `input` and `output`");
            problems.add(place, text);
        }
        let settings = settings?;
        let task = settings.task(&folder.join("case.json"), tasks, problems)?;
        let policy = settings.policy(policy);
        let task = plan_call(task.clone(), &args, &args_file, &policy, backend, problems)?;
        let expected = Expected::read(folder, problems)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(Self { name, folder: folder.to_owned(), task, component: args.component, metadata, expected })
    }

    /// Makes the call, in a folder of its own.
    ///
    /// * `place`: that folder, which is made.
    pub(super) fn run(&self, backend: &Local, place: &Path, cancel: &CancelToken) -> Result<Given, HostError> {
        let (input, output) = (self.folder.join("input"), place.join("output"));
        copy_tree(&self.folder.join("output"), &output)?;
        let mut grants = vec![grant(&output, OUTPUT, Rights::ReadWrite)];
        if input.is_dir() {
            let input = input.canonicalize().map_err(HostError::file("find", &input))?;
            grants.push(grant(&input, INPUT, Rights::ReadOnly));
        }
        let parameters = TaskParameters {
            input_paths: if grants.len() > 1 { vec![INPUT.into()] } else { Vec::new() },
            output_path: OUTPUT.into(),
            metadata: self.metadata.clone(),
            history: Vec::new(),
        };
        let call = SingleCall {
            task: &self.task,
            component: self.component.as_ref(),
            parameters: &parameters,
            tasks_include_image: &[],
            grants: &grants,
            folder: TASK_FOLDER.into(),
            work_dir: Arc::new(WorkDir::create(&place.join("work"))?),
            output: None,
            cancel,
        };
        let started = Instant::now();
        let ended = call.run(backend, &mut |_| {});
        let time = started.elapsed();
        let result = match ended {
            Ok(metadiff) => Ok(metadiff),
            Err(Error::Host(err)) => return Err(err),
            Err(err) => Err(only_call(&err)),
        };
        Ok(Given { result, output, time })
    }

    /// What is not as it should be; nothing: the case passes.
    pub(super) fn differences(&self, given: &Given) -> Result<Vec<Difference>, HostError> {
        let whole = |text: String| vec![Difference::Case(text)];
        Ok(match (&self.expected, &given.result) {
            (Expected::Unknown, Ok(_)) => {
                whole("has no expected/: look at what it gives with --update, which writes it".to_owned())
            }
            (Expected::Unknown | Expected::Success { .. }, Err(failure)) => {
                let hint = "if it should fail, make a file expected/error.txt with a part of that message";
                whole(format!("the call failed; {hint}\n{failure}"))
            }
            (Expected::Failure(text), Ok(_)) => {
                whole(format!("the call should fail with a message that holds \"{}\", but ended well", escaped(text)))
            }
            (Expected::Failure(text), Err(failure)) if message_of(failure).contains(text) => Vec::new(),
            (Expected::Failure(text), Err(failure)) => {
                whole(format!("the call should fail with a message that holds \"{}\"\n{failure}", escaped(text)))
            }
            (Expected::Success { metadiff }, Ok(got)) => {
                let got = got.clone().map_or(Value::Null, Value::Object);
                let mut differences = match metadiff {
                    None => whole("expected/metadiff.json is missing: --update writes it".to_owned()),
                    Some(expected) => {
                        compare_json::differences(expected, &got).into_iter().map(Difference::Metadiff).collect()
                    }
                };
                let files = compare_files::differences(&self.output_path(), &given.output)?;
                differences.extend(files.into_iter().map(|(path, text)| {
                    let name = format!("output/{}", escaped(&path.to_string_lossy()));
                    Difference::File { name, text }
                }));
                differences
            }
        })
    }
}

/// All that a failed call says: what happened, and the end of its stderr.
pub(super) fn message_of(failure: &CallFailure) -> String {
    let kind = match failure.outcome.failure_kind() {
        Some(FailureKind::TaskExecution) => "TaskExecutionError",
        _ => "JobExecutionError",
    };
    format!("{kind}: {}\n{}", failure.outcome.describe(), failure.stderr_tail)
}

fn only_call(err: &Error) -> CallFailure {
    let call = err.task_failure().and_then(|failure| failure.calls.first()).cloned();
    call.expect("a single call that fails is in its error")
}

fn grant(host_path: &Path, guest_path: &str, rights: Rights) -> Grant {
    Grant::new(host_path.to_owned(), guest_path, rights)
}

/// `case.json`.
#[derive(Default)]
struct Settings {
    task: Option<String>,
    timeout: Option<Duration>,
}

impl Settings {
    fn read(file: &Path, problems: &mut Problems) -> Option<Self> {
        let mut settings = Self::default();
        if !file.is_file() {
            return Some(settings);
        }
        let value = read_document(file, problems)?;
        let document = Cursor::new(file, &value);
        let n_before = problems.len();
        for key in document.object(problems)?.keys() {
            let Some(value) = document.get(key) else { continue };
            match key.as_str() {
                "task" => settings.task = value.text(problems).map(str::to_owned),
                "timeout" => {
                    let parsed = value.text(problems).map(humantime::parse_duration);
                    match parsed {
                        Some(Ok(timeout)) => settings.timeout = Some(timeout),
                        Some(Err(err)) => {
                            problems.add(value.place(), format!("must be a time such as \"30s\" or \"2h\": {err}"));
                        }
                        None => {}
                    }
                }
                unknown => problems.add(value.place(), format!("unknown key `{unknown}`; known are task, timeout")),
            }
        }
        (problems.len() == n_before).then_some(settings)
    }

    fn task<'t>(&self, file: &Path, tasks: &'t [TaskDocument], problems: &mut Problems) -> Option<&'t TaskDocument> {
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
                Some(name) => format!("there is no task \"{name}\"; the package has: {names}"),
                None => format!("must name the case's task, {{\"task\": NAME}}, as the package has several: {names}"),
            };
            problems.add(Place::Pointer { file: file.to_owned(), pointer: "/task".to_owned() }, text);
        }
        found
    }

    /// The policy, with less time for each call if the case asks for less.
    fn policy(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        for limits in [&mut policy.default, &mut policy.maximum] {
            limits.wall_time = [limits.wall_time, self.timeout].into_iter().flatten().min();
        }
        policy
    }
}

impl Expected {
    fn read(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let folder = folder.join("expected");
        let (metadiff, error) = (folder.join("metadiff.json"), folder.join("error.txt"));
        if error.is_file() {
            if metadiff.exists() || folder.join("output").exists() {
                let text = "stands beside metadiff.json or output/: a call either fails or gives something";
                problems.add(Place::File(error), text);
                return None;
            }
            let text = fs::read_to_string(&error);
            let text = text.map_err(|err| problems.add(Place::File(error), format!("cannot be read: {err}")));
            return text.ok().map(|text| Self::Failure(text.trim().to_owned()));
        }
        if metadiff.is_file() {
            return Some(Self::Success { metadiff: Some(read_document(&metadiff, problems)?) });
        }
        Some(if folder.join("output").is_dir() { Self::Success { metadiff: None } } else { Self::Unknown })
    }
}

fn read_document(file: &Path, problems: &mut Problems) -> Option<Value> {
    let read = read_json(file, MAX_DOCUMENT_BYTES, MAX_DEPTH, DuplicateKeys::Refuse);
    read.map_err(|err| problems.add(Place::File(file.to_owned()), err.to_string())).ok()
}

/// Copies a folder with its files; one that is not there is an empty one.
fn copy_tree(from: &Path, to: &Path) -> Result<(), HostError> {
    fs::create_dir_all(to).map_err(HostError::file("make", to))?;
    let entries = match fs::read_dir(from) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(HostError::file("list", from))?,
    };
    for entry in entries {
        let entry = entry.map_err(HostError::file("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(HostError::file("look at", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(HostError::file("copy", &source))?;
        } else {
            let refused = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(HostError::file("copy what is a link or a special file,", &source)(refused));
        }
    }
    Ok(())
}
