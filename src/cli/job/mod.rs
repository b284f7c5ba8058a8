//! The job of `mandelbox run`: the documents and parameters of either version of Fractal.

mod set;
mod v1;
mod v2;

use std::io::Read;
use std::path::{Path, PathBuf};

use super::arguments::RunArguments;
use super::documents::{PackageReader, absolute};
use super::environment;
use super::result_files::InputFile;
use super::wheels::{CacheUse, Wheels};
use crate::fractal::ItemFilter;
use crate::fractal::local_config::LocalConfig;
use crate::fractal::read::parse_document;
use crate::fractal::workflow::{Version, Workflow};
use crate::model::Modules;
use crate::plan::{Job, Policy};
use crate::problem::{Location, Problems};
use crate::workdir::WorkDir;

/// Maximum size of a workflow on stdin, in bytes.
const MAX_STDIN_BYTES: u64 = 64 << 20;

/// A job, and the files that it was read from.
pub(super) struct RequestedJob {
    pub(super) job: Box<dyn Job>,
    /// Files that the run reads, and must not overwrite.
    pub(super) files: Vec<InputFile>,
    /// Contents of the wheels that the run reads.
    pub(super) wheels: Wheels,
}

/// Reads the documents that the command line names. Problems go to `problems`; the job can run only
/// if there are none.
pub(super) fn read_job(
    arguments: &RunArguments,
    policy: &Policy,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> RequestedJob {
    // Only version 1 has an output.
    let default = if arguments.v1.output.is_some() && !arguments.v2.is_used() {
        Version::V1
    } else {
        Version::V2
    };
    let workflow = read_workflow(&arguments.workflow, default, problems);
    let wheels = Wheels::new(if arguments.sandbox.no_cache {
        CacheUse::Nothing
    } else if arguments.dry_run {
        CacheUse::ReadOnly
    } else {
        CacheUse::ReadWrite
    });
    let context = JobContext {
        arguments,
        packages: PackageReader {
            policy,
            modules,
            wheels: &wheels,
        },
    };
    let (job, mut files) = match (workflow, default) {
        (Some(Workflow::V1(workflow)), _) => v1::read(&context, Some(workflow), problems),
        (Some(Workflow::V2(workflow)), _) => v2::read(&context, Some(workflow), problems),
        (None, Version::V1) => v1::read(&context, None, problems),
        (None, Version::V2) => v2::read(&context, None, problems),
    };
    let local_config = local_config_file(arguments);
    for (what, path) in [
        ("the workflow", Some(arguments.workflow.clone())),
        ("the policy", arguments.sandbox.policy.clone()),
        ("the local backend's configuration", local_config),
    ] {
        files.extend(path.map(|path| (what, path)));
    }
    let packages = arguments.tasks.iter().filter(|path| path.is_file());
    files.extend(packages.map(|path| ("a task package", path.clone())));
    RequestedJob { job, files, wheels }
}

/// Sources of a job.
struct JobContext<'a> {
    arguments: &'a RunArguments,
    packages: PackageReader<'a>,
}

impl JobContext<'_> {
    /// Returns the work directory that the user chose; empty for a new one.
    fn work_dir(&self, problems: &mut Problems) -> PathBuf {
        let Some(path) = &self.arguments.work_dir else {
            return PathBuf::new();
        };
        let path = absolute(path);
        if !self.arguments.resume
            && !self.arguments.starter.prepared_work_dir
            && path.symlink_metadata().is_ok()
            && WorkDir::obstacle(&path).is_none()
        {
            let text = format!(
                "Workflow dir {} already exists. Choose a new folder, or add `--resume`",
                path.display()
            );
            problems.add(Location::Parameter("--work-dir".to_owned()), text);
        }
        path
    }

    /// Returns the items of a trial run.
    fn only(&self, problems: &mut Problems) -> ItemFilter {
        ItemFilter::new(&self.arguments.only).unwrap_or_else(|text| {
            problems.add(Location::Parameter("--only".to_owned()), text);
            ItemFilter::default()
        })
    }

    fn local_config(&self, problems: &mut Problems) -> LocalConfig {
        let path = local_config_file(self.arguments);
        let read = path.and_then(|path| LocalConfig::read_into(&path, problems));
        read.unwrap_or_default()
    }

    /// Returns the indices of the first and the last task of the run.
    ///
    /// * `names`: names of each task.
    fn task_range(
        &self,
        names: &[Vec<String>],
        problems: &mut Problems,
    ) -> (Option<i64>, Option<i64>) {
        let mut index = |option, given: &Option<String>| match position(given.as_deref()?, names) {
            Ok(index) => Some(index),
            Err(text) => {
                problems.add(Location::Parameter(option), text);
                None
            }
        };
        (
            index("--first-task".to_owned(), &self.arguments.first_task),
            index("--last-task".to_owned(), &self.arguments.last_task),
        )
    }

    /// Refuses options that only the other version of Fractal has.
    ///
    /// * `given`: options, and true for those that are given.
    /// * `advice`: end of the message.
    fn refuse(&self, given: &[(&str, bool)], advice: &str, problems: &mut Problems) {
        for (option, _) in given.iter().filter(|(_, is_given)| *is_given) {
            problems.add(Location::Parameter((*option).to_owned()), advice);
        }
    }
}

fn local_config_file(arguments: &RunArguments) -> Option<PathBuf> {
    let given = arguments.local_config.clone();
    given.or_else(environment::local_config_file)
}

fn read_workflow(path: &Path, default: Version, problems: &mut Problems) -> Option<Workflow> {
    if path != Path::new("-") {
        return Workflow::read_into(path, default, problems);
    }
    let name = Path::new("<stdin>");
    let mut text = Vec::new();
    let stdin = std::io::stdin().lock();
    if let Err(err) = stdin.take(MAX_STDIN_BYTES + 1).read_to_end(&mut text) {
        problems.add(
            Location::File(name.to_owned()),
            format!("cannot be read: {err}"),
        );
        return None;
    }
    if text.len() as u64 > MAX_STDIN_BYTES {
        let text = format!("has more than {} MiB", MAX_STDIN_BYTES >> 20);
        problems.add(Location::File(name.to_owned()), text);
        return None;
    }
    let value = parse_document(name, &text, problems)?;
    Workflow::from_value(name, Path::new(""), &value, default, problems)
}

/// Returns the position of a task.
///
/// * `task`: its position, or one of its names.
/// * `names`: names of each task.
///
/// # Errors
/// A sentence for the user.
fn position(task: &str, names: &[Vec<String>]) -> Result<i64, String> {
    if let Ok(index) = task.parse() {
        return Ok(index);
    }
    let has_name = |of_task: &&Vec<String>| of_task.iter().any(|name| name == task);
    let found: Vec<_> = (0..)
        .zip(names)
        .filter(|(_, names)| has_name(names))
        .collect();
    match found[..] {
        [(index, _)] => Ok(index),
        [] => Err(format!("no task has the name \"{task}\"; {}", known(names))),
        _ => Err(format!(
            "more than one task has the name \"{task}\"; give its position; {}",
            known(names)
        )),
    }
}

fn known(names: &[Vec<String>]) -> String {
    let tasks = names.iter().enumerate().map(|(index, names)| {
        let name = names.first().map(String::as_str).unwrap_or_default();
        format!("{index} \"{name}\"")
    });
    format!("the tasks are {}", tasks.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_by_position_and_name() {
        let names: [&[&str]; 3] = [&["Convert", "c"], &["Segment"], &["Segment", "again"]];
        let names = names.map(|names| names.iter().copied().map(str::to_owned).collect());
        assert_eq!(position("-1", &names), Ok(-1));
        assert_eq!(position("7", &names), Ok(7));
        assert_eq!(position("c", &names), Ok(0));
        assert_eq!(position("again", &names), Ok(2));
        for (task, expected) in [("Segment", "more than one task"), ("x", "0 \"Convert\"")] {
            let message = position(task, &names).expect_err(task);
            assert!(message.contains(expected), "{message}");
        }
    }
}
