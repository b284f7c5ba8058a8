//! `mandelbox run`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arguments::{ProgressArgument, RunArguments};
use super::documents::COMPILE_NOTICE_DELAY;
use super::job::{RequestedJob, read_job};
use super::plan_text::plan_text;
use super::result_files::ResultFiles;
use super::run_answer::{host_answer, line, outcome_facts, plan_answer, problems_answer};
use super::sandbox_options::{CallsBackend, backend_for_calls};
use super::shared_arguments::FormatArgument;
use super::signals::Signals;
use super::wheels::Wheels;
use super::{Answer, environment, parent, slurm};
use crate::event::Reporter;
use crate::json::{Map, Value, build_json};
use crate::model::record_names::RESULT_FILE;
use crate::model::{HostError, Retries};
use crate::problem::{Location, Problems};
use crate::report::{HtmlReport, Notice, Progress, ProgressStyle};
use crate::run::{Error, PreparedRun, RunFailure, RunOptions, exit_code, prepare};
use crate::text::escaped;
use crate::text::wording::shell_word;
use crate::workdir::layout::{LOG_FILE, REPORT_FILE};

pub(super) fn run(arguments: RunArguments, signals: &Signals) -> Answer {
    let format = arguments.starter.format;
    match parent::stop_with(arguments.starter.process.die_with_parent) {
        Ok(_watch) => run_watched(arguments, signals),
        Err(err) => failed(format, &err),
    }
}

/// Returns the answer for a failure of the host before the run.
fn failed(format: FormatArgument, err: &HostError) -> Answer {
    match format {
        FormatArgument::Text => {
            Answer::text(format!("error: {}\n", err.chain()), exit_code::HOST_FAILED)
        }
        FormatArgument::Json => host_answer(err),
    }
}

fn run_watched(arguments: RunArguments, signals: &Signals) -> Answer {
    let format = arguments.starter.format;
    let mut problems = Problems::default();
    let CallsBackend { backend, policy } = match backend_for_calls(
        &arguments.sandbox,
        arguments.deterministic,
        arguments.jobs,
        !arguments.backend.is_remote(),
        &arguments.starter.process,
        &mut problems,
    ) {
        Ok(created) => created,
        Err(err) => return failed(format, &err),
    };
    let backend = Arc::new(backend);
    if let Some(warning) = backend.sandbox().warning() {
        problems.warn(Location::Parameter("cache".to_owned()), warning);
    }
    let shows = !arguments.quiet && arguments.progress != ProgressArgument::Never;
    let notice =
        shows.then(|| Notice::after(COMPILE_NOTICE_DELAY, "compiling the modules ...".to_owned()));
    let backend = match slurm::backend_of(&arguments, backend, &policy, &mut problems) {
        Ok(backend) => backend,
        Err(text) => {
            let action = "set up the SLURM backend";
            let source = text.into();
            return failed(format, &HostError::Setup { action, source });
        }
    };
    let RequestedJob {
        job,
        files,
        // The folders exist until the run has ended.
        wheels,
    } = read_job(&arguments, &policy, backend.as_ref(), &mut problems);
    let options = RunOptions {
        policy,
        keep_going: arguments.keep_going,
        task_files: arguments.task_files.into(),
        cancel: signals.cancel().clone(),
        resume: arguments.resume,
        rerun_from: arguments.rerun_from.clone(),
        retries: Retries {
            n_retries: arguments.retries,
            ..Retries::default()
        },
        log_file: arguments.starter.log.is_none(),
        prepared_work_dir: arguments.starter.prepared_work_dir,
        input_in_output: arguments.starter.input_in_output,
        ..RunOptions::new(backend)
    };
    let prepared = prepare(job.as_ref(), options, &mut problems);
    let files = ResultFiles::check(
        &arguments,
        (&prepared.plan.output_path, &prepared.work_dir),
        &files,
        &mut problems,
    );
    drop(notice);
    wheels.rename_in(&mut problems);
    if !problems.is_empty() {
        return match format {
            FormatArgument::Text => {
                Answer::text(format!("error: {problems}\n"), exit_code::WRONG_INPUT)
            }
            FormatArgument::Json => problems_answer(&problems),
        };
    }
    if arguments.dry_run {
        return match format {
            FormatArgument::Text => Answer::text(plan_text(&prepared), exit_code::SUCCESS),
            FormatArgument::Json => plan_answer(&prepared),
        };
    }
    start_and_finish(&arguments, prepared, &files, &wheels, signals)
        .unwrap_or_else(|err| failed(format, &err))
}

/// Runs a prepared run, and returns its answer.
fn start_and_finish(
    arguments: &RunArguments,
    mut prepared: PreparedRun,
    files: &ResultFiles,
    wheels: &Wheels,
    signals: &Signals,
) -> Result<Answer, HostError> {
    let is_new = arguments.work_dir.is_none();
    prepared.create_work_dir()?;
    if arguments.backend.is_remote() {
        // Jobs do not see a temporary folder of this machine, nor always the user's cache.
        prepared.copy_packages(wheels.folders());
    }
    let work_dir = prepared.work_dir.clone();
    let reporters = reporters(
        arguments,
        files,
        &work_dir,
        prepared.plan.tasks.len(),
        signals,
    );
    let _saving = signals.saving();
    let started = Instant::now();
    let answer = reporters.map(|reporters| {
        let output_path = prepared.plan.output_path.clone();
        let ended = prepared.execute(reporters);
        finish(
            arguments,
            files,
            &work_dir,
            &output_path,
            ended,
            started.elapsed(),
            signals,
        )
    });
    if is_new {
        // The user did not choose this folder, so remove it if the run did not begin. A folder with
        // files is not removed.
        let _ = std::fs::remove_dir(&work_dir);
    }
    answer
}

fn reporters(
    arguments: &RunArguments,
    files: &ResultFiles,
    work_dir: &Path,
    n_tasks: usize,
    signals: &Signals,
) -> Result<Vec<Box<dyn Reporter>>, HostError> {
    let mut reporters: Vec<Box<dyn Reporter>> = vec![Box::new(HtmlReport::new(work_dir))];
    if !arguments.quiet {
        let style = match arguments.progress {
            ProgressArgument::Never => ProgressStyle::WarningsOnly,
            _ if std::io::stderr().is_terminal() && !environment::terminal_is_dumb() => {
                ProgressStyle::Bar
            }
            ProgressArgument::Auto | ProgressArgument::Always => ProgressStyle::Lines,
        };
        reporters.push(Box::new(Progress::new(style, n_tasks, arguments.verbose)));
    }
    reporters.extend(files.log_reporter(signals.cancel())?);
    reporters.extend(files.events_reporter(work_dir, signals.cancel())?);
    Ok(reporters)
}

/// Writes the file of `--result`, and returns an answer with the outcome of the run and the
/// locations of its files.
fn finish(
    arguments: &RunArguments,
    files: &ResultFiles,
    work_dir: &Path,
    output_path: &Path,
    ended: Result<Map<String, Value>, Box<RunFailure>>,
    elapsed: Duration,
    signals: &Signals,
) -> Answer {
    let mut answer = Answer::default();
    let result = match &ended {
        Ok(result) => Some(result),
        Err(failure) => failure.result.as_ref(),
    };
    if let Some(result) = result.filter(|_| files.has_result()) {
        let mut text = build_json(result, 2);
        text.push(b'\n');
        match files.write_result(text) {
            Ok(stdout) => answer.stdout = stdout.unwrap_or_default(),
            Err(err) => {
                answer.stderr = format!("error: {}\n", err.chain());
                answer.exit_code = exit_code::HOST_FAILED;
            }
        }
    }
    if arguments.starter.format == FormatArgument::Json {
        let error = ended.as_ref().err().map(|failure| &failure.error);
        answer.stdout = line(&outcome_facts(work_dir, output_path, error));
        if let Some(error) = error {
            answer.exit_code = code_of(error, signals);
        }
        return answer;
    }
    let path_of = |file: &str| escaped(&work_dir.join(file).to_string_lossy());
    let report = if work_dir.join(REPORT_FILE).is_file() {
        path_of(REPORT_FILE)
    } else {
        format!(
            "create it with `mandelbox report {}`",
            escaped(&shell_word(work_dir.display()))
        )
    };
    // Writing to a string cannot fail.
    match &ended {
        Ok(_) if !arguments.quiet => {
            let output = escaped(&output_path.to_string_lossy());
            let result = path_of(RESULT_FILE);
            let _ = writeln!(answer.stderr, "finished in {:.2} s", elapsed.as_secs_f64());
            if !arguments.only.is_empty() {
                let globs = escaped(&arguments.only.join(", "));
                let _ = writeln!(answer.stderr, "  trial run: only items that match {globs}");
            }
            let _ = writeln!(answer.stderr, "  output: {output}");
            let _ = writeln!(answer.stderr, "  result: {result}");
            let _ = writeln!(answer.stderr, "  report: {report}");
        }
        Ok(_) => {}
        Err(failure) => {
            let stopped = match (&failure.error, signals.received()) {
                (Error::Cancelled(cancelled), Some(signal)) => Some((cancelled, signal)),
                _ => None,
            };
            answer.exit_code = code_of(&failure.error, signals);
            let _ = match stopped {
                Some((cancelled, signal)) => {
                    writeln!(answer.stderr, "stopped by {}; {cancelled}", signal.name())
                }
                None => writeln!(answer.stderr, "error: {}", failure_text(failure)),
            };
            if result.is_some() {
                let log = match &arguments.starter.log {
                    None => path_of(LOG_FILE),
                    Some(log) => escaped(&log.to_string_lossy()),
                };
                let folder = escaped(&shell_word(work_dir.display()));
                let _ = writeln!(answer.stderr, "  log:    {log}");
                let _ = writeln!(answer.stderr, "  report: {report}");
                let _ = writeln!(
                    answer.stderr,
                    "  resume: the same command with `--work-dir {folder} --resume`"
                );
            }
        }
    }
    answer
}

/// Returns the exit code for the error of a run, which a signal may have stopped.
fn code_of(error: &Error, signals: &Signals) -> u8 {
    match (error, signals.received()) {
        (Error::Cancelled(_), Some(signal)) => signal.exit_code(),
        _ => error.exit_code(),
    }
}

fn failure_text(failure: &RunFailure) -> String {
    match &failure.error {
        Error::Host(err) => err.chain(),
        other => other.to_string(),
    }
}
