//! One call from its parameters to its outcome, on this machine.

use std::time::Instant;

use super::process::ProcessWorker;
use crate::error::HostError;
use crate::json::{Value, parse_guest_json, type_name};
use crate::outcome::{Ended, Figures, Outcome};
use crate::runner::{Call, TaskCalls};
use crate::sandbox::{Grant, GuestEnd, GuestOutput, Invocation, Rights, Worker};
use crate::workdir::{CallRecord, TakeError, check_free_space};

/// Runs guests to their end, one at a time.
pub(super) trait RunGuest {
    /// Returns how the guest ended and the most bytes of memory that it had.
    fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64);
}

impl RunGuest for Worker<'_> {
    fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64) {
        Worker::run(self, invocation)
    }
}

impl RunGuest for ProcessWorker<'_> {
    fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64) {
        ProcessWorker::run(self, invocation)
    }
}

/// Runs one call; whatever happens is an outcome.
pub(super) fn run_one_call(worker: &mut dyn RunGuest, calls: &TaskCalls<'_>, call: &Call) -> Ended {
    let started = Instant::now();
    let mut ended = match run(worker, calls, call) {
        Ok(ended) => ended,
        Err(err) => Ended::without_guest(Outcome::HostFailed { message: err.chain() }),
    };
    ended.figures.wall_time = started.elapsed();
    ended
}

fn run(worker: &mut dyn RunGuest, calls: &TaskCalls<'_>, call: &Call) -> Result<Ended, HostError> {
    let limits = &calls.task().limits;
    check_free_space_for(calls)?;
    let scratch = calls.work_dir().create_scratch();
    let scratch = scratch.map_err(HostError::file("make a scratch folder in", calls.work_dir().path()))?;
    scratch.put(&call.files.args_name(), &call.args).map_err(HostError::file("write", scratch.path()))?;
    let record = CallRecord::begin(&call.files, calls.task_files(), &call.args)?;
    let [stdout, stderr] = record.writers()?.map(|writer| GuestOutput::new(writer, limits.output_bytes));

    let mut grants = calls.grants().to_vec();
    grants.extend(calls.task().mounts.iter().cloned());
    for guest_path in [".".to_owned(), call.files.folder.to_string_lossy().into_owned()] {
        grants.push(Grant { host_path: scratch.path().to_owned(), guest_path, rights: Rights::ReadWrite });
    }
    let (end, peak_memory_bytes) = worker.run(&Invocation {
        module_sha256: &calls.task().module.sha256,
        argv: &call.argv,
        env: &calls.task().env,
        grants: &grants,
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        limits,
        seed: call.seed(calls.task().order),
        cancel: calls.cancel(),
    });
    for (output, path) in [(&stdout, call.files.out()), (&stderr, call.files.err())] {
        output.finish().map_or(Ok(()), |err| Err(HostError::file("write", &path)(err)))?;
    }

    let metadiff = scratch.take(&call.files.metadiff_name(), limits.metadiff_bytes);
    let outcome = match end {
        GuestEnd::Exited(0) => outcome_of_metadiff(&metadiff, call),
        other => outcome_of(other),
    };
    let failed = outcome.failure_kind().is_some();
    record.finish(failed, metadiff.ok().flatten().as_deref())?;
    let figures = Figures {
        peak_memory_bytes,
        stdout_bytes: stdout.seen_bytes(),
        stderr_bytes: stderr.seen_bytes(),
        ..Figures::default()
    };
    Ok(Ended { outcome, figures, stderr_tail: stderr.tail() })
}

fn check_free_space_for(calls: &TaskCalls<'_>) -> Result<(), HostError> {
    let floor_bytes = calls.free_space_bytes();
    if floor_bytes == 0 {
        return Ok(());
    }
    let outputs = calls.grants().iter().filter(|grant| grant.rights == Rights::ReadWrite);
    let mut folders = outputs.map(|grant| grant.host_path.as_path()).chain([calls.work_dir().path()]);
    folders.try_for_each(|folder| check_free_space(folder, floor_bytes))
}

fn outcome_of(end: GuestEnd) -> Outcome {
    match end {
        GuestEnd::Exited(code) => Outcome::Exited { code },
        GuestEnd::Trapped(message) => Outcome::Trapped { message },
        GuestEnd::TimedOut(limit) => Outcome::TimedOut { limit_s: limit.as_secs_f64() },
        GuestEnd::MemoryExceeded { limit_bytes, asked_bytes } => Outcome::MemoryExceeded { limit_bytes, asked_bytes },
        GuestEnd::Cancelled => Outcome::Cancelled,
        GuestEnd::Lost(message) => Outcome::Lost { message },
        GuestEnd::HostFailed(message) => Outcome::HostFailed { message },
    }
}

/// A guest that ended well succeeded if its metadiff is an object, null or not there.
fn outcome_of_metadiff(metadiff: &Result<Option<Vec<u8>>, TakeError>, call: &Call) -> Outcome {
    let path = call.files.metadiff();
    let bad = |message: String| Outcome::BadOutput { message: format!("{}: {message}", path.display()) };
    let bytes = match metadiff {
        Ok(None) => return Outcome::Succeeded { metadiff: None },
        Ok(Some(bytes)) => bytes,
        Err(TakeError::Guest(text)) => return bad(text.clone()),
        Err(TakeError::Host(err)) => {
            return Outcome::HostFailed { message: format!("failed to read {}: {err}", path.display()) };
        }
    };
    match parse_guest_json(bytes) {
        Ok(Value::Object(metadiff)) => Outcome::Succeeded { metadiff: Some(metadiff) },
        Ok(Value::Null) => Outcome::Succeeded { metadiff: None },
        Ok(other) => bad(format!("must be a JSON object or null, not {}", type_name(&other))),
        Err(err) => bad(err.to_string()),
    }
}
