//! One call from its [`CallSpec`] to its outcome, on this machine.
//!
//! Threads, worker processes and the jobs of a cluster run their calls here. They differ in what
//! runs the guest: [`RunGuest`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::output_budget::NoRoom;
use super::process::ProcessWorker;
use super::{BatchCalls, CallEvent};
use crate::clock::{CpuLaps, RunningClock};
use crate::event::{EventKind, Fact};
use crate::json::{Value, parse_guest_json};
use crate::model::{
    CallSpec, Ended, Grant, GuestReport, HostError, Outcome, Rights, Usage, WEAKENED,
};
use crate::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestReports, GuestWarnings, Invocation,
    MAX_REPORT_BYTES, TypedCall, Worker,
};
use crate::text::whole_microseconds;
use crate::trace;
use crate::workdir::{
    CallOutput, CallRecord, CallWriters, Scratch, TakeError, TakenFile, WorkerFolder,
    check_free_space,
};

/// Item for which the host panics in the build with defences off, so that a test can see that
/// others go on.
const PANICKING: &str = "make the host panic";

/// Folder in which libraries create temporary files.
const TMP: &str = "/tmp";

/// Receives events of calls, on the threads that run them.
pub(super) type EventSink = Arc<dyn Fn(CallEvent) + Send + Sync>;

/// Runs guests to their end, one at a time.
pub(super) trait RunGuest {
    /// Returns how the guest ended and the most bytes of memory that it had.
    fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64);

    /// Returns the CPU time of the last guest in another process.
    fn cpu_time_elsewhere(&self) -> Duration {
        Duration::ZERO
    }
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

    fn cpu_time_elsewhere(&self) -> Duration {
        self.cpu_time()
    }
}

/// Runs calls of one task, one after the other, with what they use in turn.
pub(super) struct CallRunner<'r> {
    worker: Box<dyn RunGuest + 'r>,
    calls: &'r BatchCalls,
    /// Gets what guests report while they run.
    events: EventSink,
    /// Measures the wall time of calls.
    clock: &'r RunningClock,
    /// Measures their CPU time; `None` before the first one.
    cpu: Option<CpuLaps>,
    folders: Option<GuestFolders>,
    /// Parent of scratch folders; `None` for guests without file functions. Declared last:
    /// a worker process is dead when its folder is removed.
    scratch: Option<WorkerFolder>,
}

/// The scratch folder, clean, and the folders that the next guest sees.
#[derive(Default)]
struct GuestFolders {
    scratch: Option<Scratch>,
    grants: Vec<Grant>,
}

impl<'r> CallRunner<'r> {
    /// * `scratch`: where scratch folders are created; `None` for guests without file functions.
    pub(super) fn new(
        worker: Box<dyn RunGuest + 'r>,
        calls: &'r BatchCalls,
        scratch: Option<WorkerFolder>,
        events: EventSink,
        clock: &'r RunningClock,
    ) -> Self {
        Self {
            worker,
            calls,
            events,
            clock,
            cpu: None,
            folders: None,
            scratch,
        }
    }

    /// Runs one call; whatever happens is an outcome.
    pub(super) fn run(&mut self, call: &CallSpec) -> Ended {
        let started = self.clock.now();
        self.cpu.get_or_insert_with(CpuLaps::start);
        let ended = self
            .folders()
            .and_then(|folders| self.run_in(folders, call, started));
        ended.unwrap_or_else(|err| {
            let mut ended = Ended::without_guest(Outcome::HostFailed {
                message: err.chain(),
            });
            ended.usage.wall_time = whole_microseconds(self.clock.now() - started);
            ended
        })
    }

    /// The folders of the call before, or new ones.
    fn folders(&mut self) -> Result<GuestFolders, HostError> {
        if let Some(folders) = self.folders.take() {
            return Ok(folders);
        }
        let Some(folder) = &mut self.scratch else {
            return Ok(GuestFolders::default());
        };
        let failed = HostError::file(
            "create a scratch folder in",
            self.calls.context().work_dir.path(),
        );
        let scratch = folder.create_scratch().map_err(failed)?;
        let own_path = (!self.calls.is_typed())
            .then(|| self.calls.batch().folder.to_string_lossy().into_owned());
        let others = [
            &*self.calls.batch().grants,
            &*self.calls.batch().task.mounts,
        ]
        .concat();
        let grants = with_scratch(scratch.path(), own_path, others);
        Ok(GuestFolders {
            scratch: Some(scratch),
            grants,
        })
    }

    fn run_in(
        &mut self,
        mut folders: GuestFolders,
        call: &CallSpec,
        started: Duration,
    ) -> Result<Ended, HostError> {
        let mut ended = run(
            self.worker.as_mut(),
            self.calls,
            call,
            &self.events,
            &mut folders,
        )?;
        let wall_time = whole_microseconds(self.clock.now() - started);
        ended.usage.wall_time = wall_time;
        let cpu_time = self.cpu.as_mut().and_then(|cpu| cpu.lap(wall_time));
        ended.usage.cpu_time = cpu_time.map(|cpu_time| {
            whole_microseconds(cpu_time.saturating_add(self.worker.cpu_time_elsewhere()))
        });
        // A scratch folder that is not easily cleaned is removed, and the next call gets a new one.
        if folders.scratch.as_mut().is_none_or(Scratch::clean) {
            self.folders = Some(folders);
        }
        Ok(ended)
    }
}

/// The folders of a call, its scratch folder first.
///
/// The libraries of Go and Zig take the first folder for the working directory, and Go finds it by
/// an absolute path alone. Those of C, Rust and Python take `.`, wherever it is.
///
/// * `own_path`: where a command finds its files.
/// * `others`: a folder of theirs at `/tmp` is the one at `/tmp`.
fn with_scratch(scratch: &Path, own_path: Option<String>, others: Vec<Grant>) -> Vec<Grant> {
    let has_own_tmp = others
        .iter()
        .any(|grant| Path::new(&grant.guest_path) == Path::new(TMP));
    let tmp = (!has_own_tmp).then(|| TMP.to_owned());
    let paths = own_path.into_iter().chain(tmp).chain([".".to_owned()]);
    let grant = |guest_path| Grant::new(scratch.to_owned(), guest_path, Rights::ReadWrite);
    paths.map(grant).chain(others).collect()
}

fn run(
    worker: &mut dyn RunGuest,
    calls: &BatchCalls,
    call: &CallSpec,
    events: &EventSink,
    GuestFolders { scratch, grants }: &mut GuestFolders,
) -> Result<Ended, HostError> {
    let (batch, context) = (calls.batch(), calls.context());
    let limits = &batch.task.limits;
    assert!(
        !(WEAKENED && call.item == Some(Value::from(PANICKING))),
        "asked for by a test"
    );
    check_free_space_for(calls)?;
    // A command always has one.
    let has_files = !calls.is_typed() && !call.args.is_empty();
    let mut scratch = scratch.as_mut().filter(|_| has_files);
    if let Some(scratch) = &mut scratch {
        scratch
            .put(&call.files.args_name(), call.args.as_bytes())
            .map_err(HostError::file("write", scratch.path()))?;
    }
    let record = CallRecord::begin(
        &call.files,
        calls.record_form(call),
        call.args.as_bytes(),
        call.replaces_files,
    )?;
    let writers = match &context.writer {
        Some(writer) => CallWriters::Separate([Some(writer()), Some(writer())]),
        None => record.writers()?,
    };
    let [stdout, stderr] = match writers {
        CallWriters::Separate(writers) => {
            writers.map(|writer| GuestOutput::new(writer, limits.output_bytes))
        }
        CallWriters::Shared(writer) => GuestOutput::shared(writer, limits.output_bytes),
    };

    // stdout and stderr of one log have one tail.
    if !call.files.has_one_log() {
        stdout.keep_tail(context.tails.stdout_bytes);
    }
    stderr.keep_tail(context.tails.stderr_bytes);

    let reports = calls
        .is_typed()
        .then(|| reports(calls, call, events, &stderr));
    let entry = match &reports {
        None => Entry::Command,
        Some(reports) => Entry::Run(TypedCall {
            args: &call.args,
            metadata: &batch.metadata,
            reports: reports.clone(),
        }),
    };
    let (end, peak_memory_bytes) = worker.run(&Invocation {
        module_sha256: &batch.task.module.sha256,
        entry,
        argv: &call.argv,
        env: &batch.task.env,
        grants,
        stdin: match &call.stdin {
            Some(text) => GuestInput::Text(text.clone()),
            None => GuestInput::Empty,
        },
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        warnings: warnings(calls, events, !grants.is_empty()),
        limits,
        seed: call.seed(batch),
        cancel: calls.cancel(),
    });
    for (output, path) in [(&stdout, call.files.out()), (&stderr, call.files.err())] {
        output
            .finish()
            .map_or(Ok(()), |err| Err(HostError::file("write", &path)(err)))?;
    }

    if let Some(reports) = &reports {
        reports.finish();
    }
    let (returned, taken);
    let (outcome, output) = match end {
        GuestEnd::Returned(text) => {
            returned = text.map(String::into_bytes);
            let outcome = outcome_of_output(returned.as_deref(), calls, || {
                "what `run` returned".to_owned()
            });
            (outcome, returned.as_deref().map(CallOutput::Returned))
        }
        end => {
            taken = match &scratch {
                None => Ok(None),
                Some(scratch) => scratch.take(&call.files.output_name(), limits.call_output_bytes),
            };
            let outcome = match end {
                GuestEnd::Exited(0) => outcome_of_file(&taken, calls, call),
                end => outcome_of_end(end),
            };
            let taken = taken.as_ref().ok().and_then(Option::as_ref);
            (
                outcome,
                scratch
                    .as_deref()
                    .zip(taken)
                    .map(|(scratch, taken)| CallOutput::Left(scratch, taken)),
            )
        }
    };
    record.finish(outcome.failure_kind().is_some(), output)?;
    let usage = Usage {
        peak_memory_bytes,
        stdout_bytes: stdout.seen_bytes(),
        stderr_bytes: stderr.seen_bytes(),
        has_warnings: stderr.has_warnings(),
        ..Usage::default()
    };
    Ok(Ended {
        outcome,
        usage,
        stdout_tail: match context.tails.stdout_bytes {
            0 => String::new(),
            _ => stdout.tail(),
        },
        stderr_tail: stderr.tail(),
    })
}

fn check_free_space_for(calls: &BatchCalls) -> Result<(), HostError> {
    let floor_bytes = calls.batch().free_space_bytes;
    if floor_bytes == 0 {
        return Ok(());
    }
    let outputs = calls
        .batch()
        .grants
        .iter()
        .filter(|grant| grant.rights == Rights::ReadWrite);
    let work_dir = calls.context().work_dir.path();
    // In a job of a cluster, the records are in another folder than the scratch folders.
    let records = calls.batch().folder.parent();
    let mut folders = outputs
        .map(|grant| grant.host_path.as_path())
        .chain([work_dir])
        .chain(records.filter(|records| *records != work_dir && records.is_dir()));
    folders.try_for_each(|folder| check_free_space(folder, floor_bytes))
}

/// Takes what the guest reports and sends it on, within bounds.
///
/// * `stderr`: gets log lines if they are part of it.
fn reports(
    calls: &BatchCalls,
    call: &CallSpec,
    events: &EventSink,
    stderr: &GuestOutput,
) -> GuestReports {
    let limit_bytes = calls.batch().task.limits.output_bytes.min(MAX_REPORT_BYTES);
    if calls.context().tails.has_log_lines {
        let stderr = stderr.clone();
        return GuestReports::new(limit_bytes, 0, move |report| {
            trace::guest_report(&report);
            if let GuestReport::Log { level, message } = report {
                stderr.take(format!("{}: {message}\n", level.name()).as_bytes());
            }
        });
    }
    let (events, call_ref) = (events.clone(), call.call_ref(calls.batch()));
    let item_bytes = call.item.as_ref().map_or(0, |item| item.to_string().len());
    GuestReports::new(limit_bytes, item_bytes as u64, move |report| {
        trace::guest_report(&report);
        events(CallEvent::Happened(Fact::new(EventKind::of_report(
            call_ref.clone(),
            report,
        ))));
    })
}

/// Takes what the user should know of what the sandbox kept from the guest, and sends it on.
///
/// * `has_files`: a guest that sees no folder cannot give rise to any.
fn warnings(calls: &BatchCalls, events: &EventSink, has_files: bool) -> GuestWarnings {
    if !has_files {
        return GuestWarnings::dropped();
    }
    let (events, seen) = (events.clone(), Arc::clone(&calls.context().seen_warnings));
    GuestWarnings::new(move |message| {
        if let Some(message) = seen.first(message) {
            events(CallEvent::Happened(Fact::new(EventKind::Warning {
                message,
            })));
        }
    })
}

/// Returns the outcome of a command's guest without its output.
pub(crate) fn outcome_of_end(end: GuestEnd) -> Outcome {
    match end {
        GuestEnd::Exited(code) => Outcome::Exited { code },
        GuestEnd::Returned(_) => Outcome::HostFailed {
            message: "a command returned a text".to_owned(),
        },
        GuestEnd::ReturnedTooMuch(message) => Outcome::BadOutput { message },
        GuestEnd::Failed(message) => Outcome::Failed { message },
        GuestEnd::Trapped(message) => Outcome::Trapped { message },
        GuestEnd::TimedOut(limit) => Outcome::TimedOut {
            limit_s: limit.as_secs_f64(),
        },
        GuestEnd::MemoryExceeded {
            limit_bytes,
            asked_bytes,
        } => Outcome::MemoryExceeded {
            limit_bytes,
            asked_bytes,
        },
        GuestEnd::Cancelled => Outcome::Cancelled,
        GuestEnd::OutputFailed => Outcome::HostFailed {
            message: "its output could not be written".to_owned(),
        },
        GuestEnd::Lost(message) => Outcome::Lost { message },
        GuestEnd::HostFailed(message) => Outcome::HostFailed { message },
    }
}

/// The outcome of a command that exited with code 0, by the file that it left.
fn outcome_of_file(
    taken: &Result<Option<TakenFile>, TakeError>,
    calls: &BatchCalls,
    call: &CallSpec,
) -> Outcome {
    let path = call.files.output();
    match taken {
        Ok(taken) => outcome_of_output(taken.as_ref().map(|taken| &*taken.bytes), calls, || {
            path.display().to_string()
        }),
        Err(TakeError::Guest(text)) => Outcome::BadOutput {
            message: format!("{}: {text}", path.display()),
        },
        Err(TakeError::Host(err)) => Outcome::HostFailed {
            message: format!("failed to read {}: {err}", path.display()),
        },
    }
}

/// A guest that succeeded has an output that the dialect accepts and for which there is room, or
/// none.
///
/// * `location`: where the output is from, for a message.
fn outcome_of_output(
    output: Option<&[u8]>,
    calls: &BatchCalls,
    location: impl Fn() -> String,
) -> Outcome {
    let Some(text) = output else {
        return Outcome::Succeeded { output: None };
    };
    let value = parse_guest_json(text).map_err(|err| err.to_string());
    let output = match value.and_then(|value| calls.list().check_output(value)) {
        Ok(Some(output)) => output,
        Ok(None) => return Outcome::Succeeded { output: None },
        Err(message) => {
            let message = format!("{}: {message}", location());
            return Outcome::BadOutput { message };
        }
    };
    match calls.context().budget.take(text.len(), &output) {
        Ok(()) => Outcome::Succeeded {
            output: Some(output),
        },
        Err(NoRoom {
            limit_bytes,
            asked_bytes,
        }) => Outcome::OutputsExceeded {
            limit_bytes,
            asked_bytes,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_folder_is_first() {
        let grant = |path: &str| Grant::new(path.into(), path, Rights::ReadOnly);
        let names = |own_path: Option<&str>, others: &[&str]| {
            let others = others.iter().map(|path| grant(path)).collect();
            let grants = with_scratch(Path::new("/work/s"), own_path.map(str::to_owned), others);
            let is_scratch = |grant: &Grant| grant.host_path == Path::new("/work/s");
            let name = |grant: Grant| {
                format!(
                    "{}{}",
                    grant.guest_path,
                    if is_scratch(&grant) { "*" } else { "" }
                )
            };
            grants.into_iter().map(name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            names(Some("/work/0_t"), &["/in", "/out"]),
            "/work/0_t* /tmp* .* /in /out"
        );
        assert_eq!(names(None, &["/tmp/in"]), "/tmp* .* /tmp/in");
        assert_eq!(
            names(Some("/work/0_t"), &["/tmp/", "/out"]),
            "/work/0_t* .* /tmp/ /out"
        );
        assert_eq!(names(None, &["/tmp"]), ".* /tmp");
    }
}
