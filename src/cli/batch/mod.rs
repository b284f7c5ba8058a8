//! `mandelbox batch`: calls of one module from lines of JSON, each answered with a line.
//!
//! [`source`] reads lines on the threads that make the calls, [`form`] turns them into calls, and
//! [`results`] writes their results.

mod arguments;
mod done;
mod files;
mod form;
mod line_reader;
mod request;
mod result_line;
mod results;
mod source;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::documents::for_named_module;
use super::exec::{Preparation, Prepared, has_snapshot, host_failed, program_of, wrong_input};
use super::sandbox_options::{CallsBackend, backend_for_calls};
use super::signals::Signals;
use super::temporary::TemporaryFolder;
use super::{Answer, parent};
use crate::backend::{Backend, BatchCalls, Local, RunContext, Tails};
use crate::fractal::description::describe;
use crate::json::Value;
use crate::model::{Batch, HostError, ModuleKind, Retries, TaskFiles};
use crate::plan::{Policy, SnapshotUse};
use crate::problem::{Location, Problems};
use crate::report::print_text;
use crate::run::exit_code;
use crate::workdir::WorkDir;
use done::Indices;
use files::{Folders, open_calls, open_results};
use form::{FormRequest, Planned};
use line_reader::LineReader;
use request::MAX_LINE_BYTES;
use result_line::STREAM_BYTES;
use results::Results;
use source::{Numbered, RequestedCalls, Requests};

pub(super) use arguments::BatchArguments;

pub(super) fn batch(arguments: &BatchArguments, signals: &Signals) -> Answer {
    match parent::stop_with(arguments.process.die_with_parent) {
        Ok(_watch) => run(arguments, signals).unwrap_or_else(Answer::from),
        Err(err) => Answer::from(err),
    }
}

fn run(arguments: &BatchArguments, signals: &Signals) -> Result<Answer, HostError> {
    let mut problems = Problems::default();
    let CallsBackend { backend, policy } = backend_for_calls(
        &arguments.sandbox,
        arguments.deterministic,
        arguments.jobs,
        true,
        &arguments.process,
        &mut problems,
    )?;
    let mut policy = for_named_module(policy, &arguments.sandbox);
    if arguments.snapshot {
        policy.snapshots = SnapshotUse::Always;
    }
    let program = program_of(&arguments.module, &policy, &mut problems);
    let module = Prepared::of(
        &arguments.module,
        program.as_ref(),
        &Preparation {
            limits: &policy.default,
            backend: &backend,
            has_snapshot: has_snapshot(&policy, arguments.snapshot, program.as_ref()),
            quiet: arguments.quiet,
        },
        &mut problems,
    );
    if let Some(module) = &module {
        FormRequest::check_contract(
            arguments.contract,
            &arguments.fixed_args,
            module.kind,
            &mut problems,
        );
    }
    // A description needs code of its own, and compiling cannot be cancelled later.
    let is_typed = module
        .as_ref()
        .is_some_and(|module| module.kind == ModuleKind::Typed);
    let description = is_typed.then(|| description(&arguments.module, &policy, &backend));
    // Opening a named pipe can wait for its other end; a signal then ends the program.
    let calls = open_calls(&arguments.calls, &mut problems);
    let _saving = signals.saving();
    let temporary = TemporaryFolder::new("mandelbox-batch-")?;
    let folders = Folders::check(arguments, temporary.path(), &mut problems);
    let (Some(module), Some(calls), true) = (module, calls, problems.is_empty()) else {
        return Ok(wrong_input(&problems));
    };
    // Last, since it can change the file.
    let Some((results, done)) = open_results(arguments, &folders, &mut problems) else {
        return Ok(wrong_input(&problems));
    };
    if let Some(warning) = backend.sandbox().warning() {
        problems.warn(Location::Parameter("cache".to_owned()), warning);
    }
    let batch = RunningBatch {
        arguments,
        signals,
        backend: &backend,
        policy: &policy,
        folders: &folders,
        module: &module,
        description: description.flatten(),
    };
    batch.run((calls, results, done), problems)
}

/// A batch whose options were checked.
struct RunningBatch<'a> {
    arguments: &'a BatchArguments,
    signals: &'a Signals,
    backend: &'a Local,
    policy: &'a Policy,
    folders: &'a Folders,
    module: &'a Prepared,
    /// See [`FormRequest::description`].
    description: Option<Value>,
}

/// Returns the description that a typed task gives of itself. A task that gives none has problems
/// when its calls are planned.
fn description(module: &Path, policy: &Policy, backend: &Local) -> Option<Value> {
    let (limits, time) = (&policy.default, policy.compile_time);
    describe(module, limits, time, backend, &mut Problems::default())
}

impl RunningBatch<'_> {
    /// Makes all calls, and returns the answer of the program.
    ///
    /// * `problems`: warnings so far.
    fn run(
        &self,
        (calls, results, done): (File, File, Indices),
        mut problems: Problems,
    ) -> Result<Answer, HostError> {
        let started = Instant::now();
        let n_done = done.len();
        let cancel = self.signals.cancel();
        let results = Results::start(results, self.arguments.ordered, cancel)?;
        let reader = LineReader::new(calls, MAX_LINE_BYTES);
        let requests = Arc::new(Requests::new(reader, done, &results, cancel));
        let form = self.form_request();
        if let Some((first, planned)) = first_call(&form, &requests, &mut problems) {
            let Some(planned) = planned.filter(|_| problems.is_empty()) else {
                // Lines before the first call may have been refused.
                let _ = results.finish();
                return Ok(wrong_input(&problems));
            };
            let made = self.make_calls(first, planned, &requests, &mut problems);
            if made.is_err() {
                // The error of the calls matters more than one of the results.
                let _ = results.finish();
            }
            made?;
        }
        self.show_warnings(&problems);
        let written = results.finish();
        Ok(self.answer(written, &requests, results.counts(), n_done, started))
    }

    fn form_request(&self) -> FormRequest<'_> {
        FormRequest {
            arguments: self.arguments,
            kind: self.module.kind,
            description: self.description.as_ref(),
            policy: self.policy,
            modules: self.backend,
            inputs: &self.folders.inputs,
            output: &self.folders.output,
        }
    }

    /// Makes the first call and all that follow.
    fn make_calls(
        &self,
        first: Numbered,
        planned: Planned,
        requests: &Arc<Requests>,
        problems: &mut Problems,
    ) -> Result<(), HostError> {
        // Everything was checked.
        self.module.write_cache(self.backend);
        let mut task = planned.task.clone();
        // There are many calls, whatever the task is in a workflow.
        task.is_single = false;
        if let Some(text) = self.backend.concurrency_limit_reason(&task) {
            problems.warn(Location::File(self.arguments.module.clone()), text);
        }
        let mut grants = self.folders.grants.clone();
        let has_output = self.arguments.output.is_some() || planned.completes_args;
        if !has_output {
            grants.retain(|grant| grant.host_path != self.folders.output);
        } else {
            std::fs::create_dir_all(&self.folders.output).map_err(HostError::file(
                "create the output folder",
                &self.folders.output,
            ))?;
        }
        if planned.completes_args && self.arguments.output.is_none() {
            let text = "without this option, calls write to a temporary folder, which is removed \
                        at the end";
            problems.warn(Location::Parameter("--output".to_owned()), text);
        }
        // Calls can take hours.
        self.show_warnings(&std::mem::take(problems));
        let batch = Batch {
            task,
            index: 0,
            grants,
            folder: self.folders.work_dir.join("task"),
            task_files: TaskFiles::None,
            metadata: planned.calls.metadata.clone(),
            free_space_bytes: self.policy.free_space_bytes,
            keep_going: true,
            retries: Retries::default(),
        };
        let work_dir = Arc::new(WorkDir::create(&self.folders.work_dir)?);
        let mut context = RunContext::new(work_dir, self.signals.cancel().clone());
        context.tails = Tails {
            stdout_bytes: STREAM_BYTES,
            stderr_bytes: STREAM_BYTES,
            has_log_lines: true,
        };
        let list = planned.list();
        let source = RequestedCalls {
            requests: Arc::clone(requests),
            form: planned.form(&batch),
            first: Mutex::new(Some(first)),
            shows_warnings: !self.arguments.quiet,
        };
        let calls = Arc::new(BatchCalls::new(batch, list, context));
        self.backend.run_stream(&calls, &Arc::new(source))
    }

    fn show_warnings(&self, problems: &Problems) {
        if self.arguments.quiet {
            return;
        }
        for warning in problems.warnings() {
            print_text(&format!("warning: {warning}\n"));
        }
    }

    /// Returns the answer of the program.
    ///
    /// * `written`: result of writing the results.
    /// * `counts`: number of calls that have succeeded and failed.
    /// * `n_done`: number of calls that had a result before.
    fn answer(
        &self,
        written: io::Result<()>,
        requests: &Requests,
        counts: (u64, u64),
        n_done: u64,
        started: Instant,
    ) -> Answer {
        let counts = counts_text(counts, n_done);
        if let Some(signal) = self.signals.received() {
            let resume = match self.arguments.results.to_str() {
                Some("-") => "",
                _ => "  resume: the same command with `--resume`\n",
            };
            let text = format!("stopped by {}; {counts}\n{resume}", signal.name());
            return Answer::text(text, signal.exit_code());
        }
        if let Err(err) = written {
            return match err.kind() {
                ErrorKind::BrokenPipe => Answer::text(String::new(), exit_code::OUTPUT_CLOSED),
                _ => host_failed(&format!(
                    "failed to write the results to {}: {err}; {counts}",
                    self.arguments.results.display()
                )),
            };
        }
        if let Some(err) = requests.take_error() {
            return host_failed(&format!(
                "failed to read the calls from {}: {err}; {counts}",
                self.arguments.calls.display()
            ));
        }
        let text = match self.arguments.quiet {
            true => String::new(),
            false => format!("{counts} in {:.2} s\n", started.elapsed().as_secs_f64()),
        };
        Answer::text(text, exit_code::SUCCESS)
    }
}

fn counts_text((n_succeeded, n_failed): (u64, u64), n_done: u64) -> String {
    let earlier = match n_done {
        0 => String::new(),
        n_done => format!("{n_done} had results before, "),
    };
    format!("{earlier}{n_succeeded} succeeded, {n_failed} failed")
}

/// Waits for the first call, and plans all calls. Refuses lines before it that cannot be the first
/// one. Returns `None` if there is no call.
fn first_call(
    form: &FormRequest<'_>,
    requests: &Requests,
    problems: &mut Problems,
) -> Option<(Numbered, Option<Planned>)> {
    loop {
        let mut first = requests.next()?;
        let Ok(call) = &first.request.call else {
            continue;
        };
        match form.check_first(call) {
            Ok(()) => {
                let planned = form.plan(call, problems);
                return Some((first, planned));
            }
            Err(problem) => {
                first.request.call = Err(problem);
                requests.refuse(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_earlier_results_if_there_are_any() {
        assert_eq!(counts_text((2, 1), 0), "2 succeeded, 1 failed");
        let resumed = "5 had results before, 0 succeeded, 0 failed";
        assert_eq!(counts_text((0, 0), 5), resumed);
    }
}
