//! `mandelbox test`: runs the cases of a package and compares their results with the expected ones.

mod call;
mod case;
mod compare_files;
mod compare_json;
mod layout;
mod package;
mod result;
mod tree;
mod update;
mod watch;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::Answer;
use super::documents::{COMPILE_NOTICE_DELAY, author_policy};
use super::sandbox_options::within_memory;
use super::shared_arguments::FormatArgument;
use super::signals::{self, Signals};
use super::temporary::TemporaryFolder;
use crate::backend::Local;
use crate::cli::author_arguments::TestArguments;
use crate::folder::Folder;
use crate::model::{CancelToken, HostError, Outcome};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::report::{Notice, print_text};
use crate::run::exit_code;
use crate::text::{escaped, unreadable};
use case::Case;
use layout::CASE_ENTRIES;
use package::{Cases, Package, cases_of};
use result::{CaseResult, CaseStatus, add_json};
use tree::is_clutter;

pub(super) fn test(arguments: &TestArguments, signals: &Signals) -> Answer {
    let mut problems = Problems::default();
    let policy = author_policy(&arguments.sandbox, &mut problems);
    if arguments.watch && arguments.format == FormatArgument::Json {
        let text = "cannot be combined with `--watch`, because it is one object".to_owned();
        problems.add(Location::Parameter("--format json".to_owned()), text);
    }
    if !problems.is_empty() {
        return wrong_input(arguments, &problems);
    }
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let backend = arguments.sandbox.isolation().and_then(|isolation| {
        let backend = Local::with_options(n_threads, &arguments.sandbox.options(true), isolation);
        let backend = backend
            .and_then(Local::without_epochs_for_untimed_calls)
            .map_err(|err| err.chain());
        backend.map(|backend| {
            within_memory(backend.cancel_grace_period(signals::GRACE_PERIOD), &policy)
        })
    });
    let backend = match backend {
        Ok(backend) => backend,
        Err(text) => {
            return Answer::text(
                format!("error: {}\n", escaped(&text)),
                exit_code::HOST_FAILED,
            );
        }
    };
    let run = || run(arguments, &policy, &backend, signals).unwrap_or_else(host_failed);
    if arguments.watch {
        watch::repeat(&arguments.package, signals.cancel(), run)
    } else {
        run()
    }
}

fn wrong_input(arguments: &TestArguments, problems: &Problems) -> Answer {
    let mut answer = Answer {
        exit_code: exit_code::WRONG_INPUT,
        ..Answer::default()
    };
    match arguments.format {
        FormatArgument::Text => answer.stderr = format!("error: {problems}\n"),
        FormatArgument::Json => add_json(
            &mut answer,
            &arguments.package,
            &[],
            &[],
            problems,
            Duration::ZERO,
        ),
    }
    answer
}

fn host_failed(err: HostError) -> Answer {
    Answer::text(
        format!("error: {}\n", escaped(&err.chain())),
        exit_code::HOST_FAILED,
    )
}

/// Runs the cases once. The result of a case is printed after those of all cases before it.
fn run(
    arguments: &TestArguments,
    policy: &Policy,
    backend: &Local,
    signals: &Signals,
) -> Result<Answer, HostError> {
    let started = Instant::now();
    let mut problems = Problems::default();
    let notice = Notice::after(COMPILE_NOTICE_DELAY, "compiling the modules ...".to_owned());
    let cases = read_cases(arguments, policy, backend, &mut problems);
    drop(notice);
    // Each case of a task reports the problems of the task.
    problems.remove_repeated();
    if !problems.is_empty() {
        return Ok(wrong_input(arguments, &problems));
    }
    let is_text = arguments.format == FormatArgument::Text;
    for warning in problems.warnings().iter().filter(|_| is_text) {
        print_text(&format!("warning: {warning}\n"));
    }
    backend.write_cache();
    let _saving = signals.saving();
    let temporary = TemporaryFolder::new("mandelbox-test-")?;
    let mut results: Vec<CaseResult> = Vec::new();
    let runs = Runs {
        backend,
        temporary: temporary.path(),
        updates: arguments.update,
        cancel: signals.cancel(),
    };
    runs.run_all(&cases, |result| {
        if is_text {
            print_text(&result.text());
        }
        results.push(result);
    })?;
    let n_failed = results
        .iter()
        .filter(|result| result.status == CaseStatus::Failed)
        .count();
    let mut answer = Answer::default();
    // Writing to a string cannot fail.
    if let Some(signal) = signals.received().filter(|_| results.len() < cases.len()) {
        answer = signal.answer();
        let _ = writeln!(
            answer.stderr,
            "{} of {} cases were run, {n_failed} failed",
            results.len(),
            cases.len()
        );
    } else {
        answer.exit_code = if n_failed > 0 {
            exit_code::TASK_EXECUTION_ERROR
        } else {
            exit_code::SUCCESS
        };
        if is_text {
            let n_passed = cases.len() - n_failed;
            let seconds = started.elapsed().as_secs_f64();
            let _ = writeln!(
                answer.stderr,
                "{n_passed} passed, {n_failed} failed in {seconds:.2} s"
            );
        }
    }
    if !is_text {
        let was_run = |case: &Case| results.iter().any(|result| result.name == case.name);
        let not_run: Vec<_> = cases
            .iter()
            .filter(|case| !was_run(case))
            .map(|case| case.name.as_str())
            .collect();
        add_json(
            &mut answer,
            &arguments.package,
            &results,
            &not_run,
            &problems,
            started.elapsed(),
        );
    }
    Ok(answer)
}

fn read_cases(
    arguments: &TestArguments,
    policy: &Policy,
    backend: &Local,
    problems: &mut Problems,
) -> Vec<Case> {
    let Some(Package { cases, tasks }) =
        Package::read(&arguments.package, policy, backend, problems)
    else {
        return Vec::new();
    };
    let mut folders = cases
        .as_ref()
        .map(|cases| case_folders(cases, problems))
        .unwrap_or_default();
    let name = |folder: &OsString| folder.to_string_lossy().into_owned();
    if folders.is_empty() && problems.is_empty() {
        let text = "contains no case; create `NAME/args.json` in it with the task's args, then run \
            this command with `--update`";
        problems.add(Location::File(cases_of(&arguments.package)), text);
    } else if !arguments.cases.is_empty() {
        for asked in &arguments.cases {
            if !folders.iter().any(|folder| name(folder) == *asked) {
                let names: Vec<_> = folders.iter().map(name).collect();
                let text = match names.join(", ") {
                    names if names.is_empty() => "no such case; the package has none".to_owned(),
                    names => format!("no such case; the package has: {names}"),
                };
                problems.add(Location::Parameter(format!("--case {asked}")), text);
            }
        }
        folders.retain(|folder| arguments.cases.contains(&name(folder)));
    }
    let Some(cases) = cases.filter(|_| !tasks.names().is_empty()) else {
        return Vec::new();
    };
    folders
        .iter()
        .filter_map(|folder| Case::read(&cases, folder, &tasks, policy, backend, problems))
        .collect()
}

/// Returns the names of the folders that are cases, sorted. A folder that may have been meant as a
/// case causes a warning. A link or a special file is a problem, because it may have been meant as
/// one too.
fn case_folders(cases: &Cases, problems: &mut Problems) -> Vec<OsString> {
    let mut folders = Vec::new();
    let mut entries = cases.folder.entries().unwrap_or_default();
    entries.retain(|(name, kind)| *kind != FileType::RegularFile && !is_clutter(name));
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, _) in entries {
        let path = cases.path.join(&name);
        match cases.folder.open_folder(&*name) {
            Err(err) => problems.add(Location::File(path), unreadable(&err)),
            Ok(folder) if is_case(&folder) => folders.push(name),
            Ok(folder) if looks_like_a_case(&folder) => {
                problems.warn(
                    Location::File(path),
                    "is not a case, because it has no `args.json`",
                );
            }
            Ok(_) => {}
        }
    }
    folders
}

/// Returns true if a folder is a case.
fn is_case(folder: &Folder) -> bool {
    CASE_ENTRIES
        .iter()
        .any(|name| folder.file_type(*name).is_ok())
}

/// Returns true if a folder that is not a case may have been meant as one.
fn looks_like_a_case(folder: &Folder) -> bool {
    let entries = folder.entries().unwrap_or_default();
    let is_json = |name: &OsString| {
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "json")
    };
    entries.is_empty() || entries.iter().any(|(name, _)| is_json(name))
}

/// Settings for running cases.
struct Runs<'a> {
    backend: &'a Local,
    /// Folder for the folders of the calls.
    temporary: &'a Path,
    updates: bool,
    /// Ends the running cases, and prevents further ones.
    cancel: &'a CancelToken,
}

impl Runs<'_> {
    /// Runs the cases in parallel, and calls `report` with their results in the order of the cases.
    fn run_all(&self, cases: &[Case], mut report: impl FnMut(CaseResult)) -> Result<(), HostError> {
        let n_threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(cases.len());
        let next = AtomicUsize::new(0);
        let (send, receive) = channel();
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                let (next, send) = (&next, send.clone());
                scope.spawn(move || {
                    while let Some((index, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                        .and_then(|index| Some((index, cases.get(index)?)))
                        && !self.cancel.is_cancelled()
                    {
                        let result = self
                            .run_case(case, &self.temporary.join(index.to_string()))
                            .transpose();
                        // Sending fails after an error, when results are no longer received.
                        let _ = result.map(|result| send.send((index, result)));
                    }
                });
            }
            drop(send);
            let mut ended: Vec<Option<CaseResult>> = cases.iter().map(|_| None).collect();
            let mut n_reported = 0;
            for (index, result) in receive {
                ended[index] = Some(result?);
                while let Some(result) = ended.get_mut(n_reported).and_then(Option::take) {
                    report(result);
                    n_reported += 1;
                }
            }
            // Results remain if a case before them was cancelled.
            ended.into_iter().flatten().for_each(report);
            Ok(())
        })
    }

    /// Runs a case; `None` if it was cancelled.
    fn run_case(&self, case: &Case, call_folder: &Path) -> Result<Option<CaseResult>, HostError> {
        let actual = case.run(self.backend, call_folder, self.cancel)?;
        if actual
            .result
            .as_ref()
            .is_err_and(|failure| matches!(failure.outcome, Outcome::Cancelled))
        {
            return Ok(None);
        }
        let mut differences = case.differences(&actual)?;
        let updated = if self.updates {
            update::update(case, &actual)?
        } else {
            None
        };
        let status = match &updated {
            Some(changes) if changes.is_empty() => CaseStatus::Passed,
            Some(_) => CaseStatus::Updated,
            None if differences.is_empty() => CaseStatus::Passed,
            None => CaseStatus::Failed,
        };
        if status != CaseStatus::Failed {
            differences.clear();
        }
        let changes = updated.unwrap_or_default();
        Ok(Some(CaseResult {
            name: case.name.clone(),
            call_output: case.layout.call_output,
            status,
            time: actual.time,
            differences,
            changes,
        }))
    }
}
