//! The calls of a batch on a cluster, from their submission to their results.
//!
//! One thread does everything, in a loop: submit what waits, read what workers have written, ask
//! SLURM for the states of all jobs at once, and decide which calls are lost. Results come first: a
//! call counts as soon as the file of its slice has its end, whatever state SLURM reports for the
//! job. A job that SLURM does not list is lost only after a grace period.
//!
//! Nothing counts twice. Each call has one slice from which results are taken. When its job is
//! lost, the slice is closed, and the call becomes part of a slice of a new round.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Slurm;
use super::batch_file::{BatchFile, STOP_FILE, batch_folder_name, closed_file, results_file};
use super::batching::JobShape;
use super::config::TaskSettings;
use super::jobs::{ArrayState, CallState, JobArray, Round, SliceState};
use super::results::{Line, WorkerStarted, attempt_of, parse_line};
use super::states::{POLL, Query};
use crate::backend::output_budget::NoRoom;
use crate::backend::{BatchCalls, CallEvent};
use crate::event::{EventKind, Fact};
use crate::model::{Attempt, CallRef, Ended, HostError, Outcome};
use crate::workdir::{JobFolder, LineWriter};

/// Largest number of jobs in which a call may be lost.
pub(super) const MAX_LOSSES: u32 = 3;
/// Time between two readings of results: a base, and more for each slice, since each is one file.
const READ_INTERVAL: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(4)];
const MAX_READ_INTERVAL: Duration = Duration::from_secs(5);
/// Time in which workers end after the last of their calls.
const END_TIME: Duration = Duration::from_millis(500);
/// Time in which workers save their results after the run was cancelled.
const CANCEL_TIME: Duration = Duration::from_millis(1800);

/// Receiver of the events of calls.
pub(super) type Observe<'o> = dyn FnMut(CallEvent) -> Result<(), HostError> + 'o;

/// The calls of a batch.
pub(super) struct Driver<'d> {
    pub(super) slurm: &'d Slurm,
    pub(super) calls: &'d Arc<BatchCalls>,
    observe: &'d mut Observe<'d>,
    pub(super) settings: TaskSettings,
    pub(super) shape: JobShape,
    /// Folder of the batch.
    pub(super) folder: JobFolder,
    pub(super) journal: LineWriter,
    /// Part of the names of the jobs that this run submits.
    pub(super) tag: String,
    pub(super) states: HashMap<usize, CallState>,
    pub(super) n_open: usize,
    pub(super) rounds: Vec<Round>,
    pub(super) arrays: Vec<JobArray>,
    pub(super) slices: Vec<SliceState>,
    /// Calls that a new round has to run.
    pub(super) to_run: Vec<usize>,
    /// Nodes that failed.
    pub(super) excluded: Vec<String>,
    /// True while results are read that an interrupted run has not taken.
    pub(super) is_catching_up: bool,
    /// True after a failure: no further call starts.
    pub(super) is_stopping: bool,
    pub(super) polled: Instant,
    pub(super) query: Option<Query>,
    pub(super) poll_interval: Duration,
    /// Since when the controller has not answered.
    pub(super) no_answer_since: Option<Instant>,
    /// When the last query that the queue has answered was sent.
    pub(super) answered_query_at: Option<Instant>,
    pub(super) has_accounting: bool,
    pub(super) asked_accounting: BTreeSet<u64>,
    pub(super) reported: Option<([usize; 3], Option<String>)>,
    pub(super) reported_at: Option<Instant>,
    /// Warnings that were given once.
    warned: BTreeSet<String>,
    /// When the next submission is tried, and the delay before the attempt after it.
    pub(super) next_submission: (Instant, Duration),
}

impl<'d> Driver<'d> {
    /// * `shape`: shape of the jobs.
    pub(super) fn new(
        slurm: &'d Slurm,
        calls: &'d Arc<BatchCalls>,
        settings: TaskSettings,
        shape: JobShape,
        observe: &'d mut Observe<'d>,
    ) -> Result<Self, HostError> {
        let name = batch_folder_name(calls.batch());
        let folder = calls.context().work_dir.job_folder(&name);
        folder.create()?;
        let journal = LineWriter::append(&folder, super::adopt::JOURNAL_FILE)?;
        let attempts = (0..calls.n_pending()).filter_map(|position| calls.attempt(position));
        let states: HashMap<_, _> = attempts
            .map(|Attempt { call_index, number }| {
                let state = CallState {
                    number,
                    started: None,
                    is_finished: false,
                    n_losses: 0,
                };
                (call_index, state)
            })
            .collect();
        let now = Instant::now();
        Ok(Self {
            slurm,
            calls,
            observe,
            settings,
            shape,
            folder,
            journal,
            tag: super::submit::random_tag(),
            n_open: states.len(),
            states,
            rounds: Vec::new(),
            arrays: Vec::new(),
            slices: Vec::new(),
            to_run: Vec::new(),
            excluded: Vec::new(),
            is_catching_up: false,
            is_stopping: false,
            polled: now,
            query: None,
            poll_interval: POLL[0],
            no_answer_since: None,
            answered_query_at: None,
            has_accounting: true,
            asked_accounting: BTreeSet::new(),
            reported: None,
            reported_at: None,
            warned: BTreeSet::new(),
            next_submission: (now, super::submit::FIRST_WAIT),
        })
    }

    /// Contents of the file of a round.
    pub(super) fn batch_file(&self) -> BatchFile {
        BatchFile::new(
            self.calls.batch(),
            self.calls.context().session,
            self.calls.list().check_name(),
            usize::try_from(self.shape.parallel).unwrap_or(usize::MAX),
            &self.slurm.options.worker,
        )
    }

    /// Runs the calls to their end.
    pub(super) fn run(mut self) -> Result<(), HostError> {
        let ran = self.run_loop();
        match &ran {
            Ok(()) if self.calls.cancel().is_cancelled() => return self.end_cancelled(),
            Ok(()) => {
                self.cancel_jobs();
                self.folder.remove();
            }
            // The run ends with this error; a resumed run starts its calls afresh.
            Err(_) => {
                if self.cancel_jobs() {
                    self.folder.remove();
                }
            }
        }
        ran
    }

    fn run_loop(&mut self) -> Result<(), HostError> {
        self.adopt()?;
        while !self.calls.cancel().is_cancelled() {
            self.start_round()?;
            self.submit()?;
            self.read_results()?;
            self.poll()?;
            self.settle()?;
            self.report_jobs(false)?;
            self.emit(CallEvent::Idle)?;
            if self.is_over() {
                self.await_workers()?;
                return self.report_jobs(true);
            }
            self.calls.cancel().wait_for(self.interval());
        }
        Ok(())
    }

    /// Gives the workers whose calls have all ended the time to end by themselves.
    fn await_workers(&mut self) -> Result<(), HostError> {
        let started = Instant::now();
        let is_ending = |slice: &SliceState| slice.open.is_empty() && slice.may_report_more();
        while self.slices.iter().any(is_ending) && started.elapsed() < END_TIME {
            std::thread::sleep(READ_INTERVAL[0]);
            self.read_results()?;
        }
        for position in 0..self.slices.len() {
            self.report_end(position, "COMPLETED")?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let has_running = || self.slices.iter().any(|slice| !slice.is_over());
        self.n_open == 0 || self.is_stopping && !has_running()
    }

    fn interval(&self) -> Duration {
        let n_slices = self.slices.iter().filter(|slice| !slice.is_over()).count();
        let n_slices = u32::try_from(n_slices).unwrap_or(u32::MAX);
        let interval = READ_INTERVAL[0] + READ_INTERVAL[1].saturating_mul(n_slices);
        interval.min(MAX_READ_INTERVAL)
    }

    pub(super) fn emit(&mut self, event: CallEvent) -> Result<(), HostError> {
        (self.observe)(event)
    }

    pub(super) fn note(&mut self, message: String) -> Result<(), HostError> {
        let fact = Fact::new(EventKind::Note { message });
        self.emit(CallEvent::Happened(fact))
    }

    /// Warns, once for each text.
    pub(super) fn warn(&mut self, message: String) -> Result<(), HostError> {
        if !self.warned.insert(message.clone()) {
            return Ok(());
        }
        let fact = Fact::new(EventKind::Warning { message });
        self.emit(CallEvent::Happened(fact))
    }

    /// Takes what workers have written since the last time.
    pub(super) fn read_results(&mut self) -> Result<(), HostError> {
        for position in 0..self.slices.len() {
            if self.slices[position].may_report_more() {
                self.read_slice(position)?;
            }
        }
        Ok(())
    }

    pub(super) fn read_slice(&mut self, position: usize) -> Result<(), HostError> {
        let slice = &mut self.slices[position];
        let folder = self.rounds[slice.round].folder.path();
        let path = folder.join(results_file(slice.index));
        let mut lines = Vec::new();
        // An error of the shared file system may pass; a job that stays without results is lost.
        let read = slice
            .reader
            .read(&path, &mut |line| lines.extend(parse_line(line)));
        if !lines.is_empty() {
            // Its worker is alive, whatever state the queue reports.
            slice.gone_since = None;
        }
        for line in lines {
            self.take_line(position, line)?;
        }
        match read {
            Ok(_) => Ok(()),
            Err(err) => self.warn(format!("{} cannot be read: {err}", path.display())),
        }
    }

    fn take_line(&mut self, position: usize, line: Line) -> Result<(), HostError> {
        let slice = &mut self.slices[position];
        match line {
            Line::Started(worker) => {
                // A copy of the job has started: discard the end that the earlier copy reported.
                let first = slice.worker.as_ref().map(|worker| worker.time_s);
                let time_s = first.unwrap_or(worker.time_s);
                slice.worker = Some(WorkerStarted { time_s, ..worker });
                (slice.ended, slice.gone_since) = (None, None);
                Ok(())
            }
            Line::Ended(ended) => {
                if !ended.is_done {
                    // Ask for the reason at once.
                    self.poll_interval = POLL[0];
                }
                slice.ended = Some(ended);
                Ok(())
            }
            Line::Fact(kind) => self.take_fact(position, kind),
            Line::Finished { kind, stderr_tail } => self.take_end(position, kind, stderr_tail),
        }
    }

    /// The state of a call whose results are taken from this slice, and the number of an attempt
    /// here.
    fn current_attempt(&self, position: usize, attempt: Attempt) -> Option<(CallState, u32)> {
        let offset = self.slices[position].open.get(&attempt.call_index)?;
        let state = self.states.get(&attempt.call_index)?;
        let number = i64::from(attempt.number).saturating_add(*offset).max(1);
        Some((*state, u32::try_from(number).unwrap_or(u32::MAX)))
    }

    /// A second copy of a job begins a call with its first attempt again. If that one has ended,
    /// the new one is a further attempt, since no number counts twice.
    fn continue_numbering(&mut self, position: usize, attempt: Attempt) {
        let Some((state, number)) = self.current_attempt(position, attempt) else {
            return;
        };
        let next = state.started.unwrap_or(state.number);
        if let Some(offset) = self.slices[position].open.get_mut(&attempt.call_index) {
            *offset += i64::from(next.saturating_sub(number));
        }
    }

    fn take_fact(&mut self, position: usize, mut kind: EventKind) -> Result<(), HostError> {
        if let EventKind::Warning { message } = kind {
            return match self.calls.context().seen_warnings.first(message) {
                Some(message) => self.warn(message),
                None => Ok(()),
            };
        }
        let Some((attempt, _)) = attempt_of(&kind) else {
            return Ok(());
        };
        let is_start = matches!(kind, EventKind::CallStarted { .. });
        if is_start {
            self.continue_numbering(position, attempt);
        }
        let Some((state, number)) = self.current_attempt(position, attempt) else {
            return Ok(());
        };
        if state.is_finished || is_start && state.started == Some(number) {
            return Ok(());
        }
        renumber(&mut kind, number);
        if is_start {
            self.change(attempt.call_index, |state| state.started = Some(number));
        }
        self.emit(CallEvent::Happened(Fact::new(kind)))
    }

    fn change(&mut self, call_index: usize, change: impl FnOnce(&mut CallState)) {
        if let Some(state) = self.states.get_mut(&call_index) {
            change(state);
        }
    }

    /// Takes the end of an attempt.
    fn take_end(
        &mut self,
        position: usize,
        mut kind: EventKind,
        stderr_tail: String,
    ) -> Result<(), HostError> {
        let Some((attempt, is_last)) = attempt_of(&kind) else {
            return Ok(());
        };
        let Some((state, number)) = self.current_attempt(position, attempt) else {
            return Ok(());
        };
        let call_index = attempt.call_index;
        renumber(&mut kind, number);
        self.complete(call_index, &mut kind);
        let EventKind::CallFinished { outcome, .. } = &kind else {
            return Ok(());
        };
        let has_failed = outcome.failure_kind().is_some();
        if *outcome == Outcome::Cancelled && !self.calls.cancel().is_cancelled() {
            // The job was ended, not the run: the call is lost with the job.
            return Ok(());
        }
        if is_last && has_failed && self.is_catching_up {
            // A resumed run reruns what has failed.
            self.change(call_index, |state| state.number = number);
            self.slices[position].open.remove(&call_index);
            self.to_run.push(call_index);
            return Ok(());
        }
        if state.started != Some(number) {
            self.emit_start(call_index, number)?;
        }
        self.change(call_index, |state| {
            (state.started, state.number) = (None, number.saturating_add(1));
        });
        if is_last {
            self.close_call(position, call_index);
            if has_failed && !self.calls.batch().keep_going {
                self.stop()?;
            }
        }
        let fact = Fact::new(kind);
        self.emit(CallEvent::Finished { fact, stderr_tail })
    }

    /// Adds what only the run knows to the end of a call, and applies the bound on all outputs.
    fn complete(&self, call_index: usize, kind: &mut EventKind) {
        let EventKind::CallFinished {
            outcome,
            stderr,
            item_urls,
            ..
        } = kind
        else {
            return;
        };
        *item_urls = self.calls.list().item_urls(call_index);
        if stderr.is_some() {
            *stderr = Some(self.calls.stderr_file(call_index));
        }
        if let Outcome::Succeeded {
            output: Some(output),
        } = outcome
            && let Err(NoRoom {
                limit_bytes,
                asked_bytes,
            }) = self.calls.context().budget.take_counted(output)
        {
            *outcome = Outcome::OutputsExceeded {
                limit_bytes,
                asked_bytes,
            };
        }
    }

    /// The call has its final result.
    pub(super) fn close_call(&mut self, position: usize, call_index: usize) {
        self.slices[position].open.remove(&call_index);
        self.change(call_index, |state| state.is_finished = true);
        self.n_open = self.n_open.saturating_sub(1);
    }

    pub(super) fn emit_start(&mut self, call_index: usize, number: u32) -> Result<(), HostError> {
        let call = self.call_ref(call_index, number);
        let fact = Fact::new(EventKind::CallStarted { call, files: None });
        self.emit(CallEvent::Happened(fact))
    }

    fn call_ref(&self, call_index: usize, number: u32) -> CallRef {
        self.calls.call_ref(Attempt { call_index, number })
    }

    /// Lets no further call start, after a failure.
    pub(super) fn stop(&mut self) -> Result<(), HostError> {
        if self.is_stopping {
            return Ok(());
        }
        self.is_stopping = true;
        self.to_run.clear();
        for round in &self.rounds {
            round.folder.mark(STOP_FILE)?;
        }
        let names: Vec<&str> = self.submitted_names();
        // Jobs that start nevertheless find the file.
        let _ = self.slurm.client.cancel_pending(&names);
        for array in &mut self.arrays {
            if array.state == ArrayState::Waiting {
                array.state = ArrayState::Dropped;
            }
        }
        for position in 0..self.slices.len() {
            let slice = &self.slices[position];
            if !slice.is_over() && slice.worker.is_none() {
                self.close_slice(position)?;
            }
        }
        Ok(())
    }

    /// Takes no further results of a slice, and lets a worker that starts late run none of its
    /// calls.
    pub(super) fn close_slice(&mut self, position: usize) -> Result<(), HostError> {
        let slice = &mut self.slices[position];
        slice.is_closed = true;
        let folder = &self.rounds[slice.round].folder;
        folder.mark(&closed_file(slice.index)).map(drop)
    }

    pub(super) fn submitted_names(&self) -> Vec<&str> {
        // A job whose calls run elsewhere may still wait, or be started again.
        let has_ended = |slice: &SliceState| {
            let is_done = slice.ended.as_ref().is_some_and(|ended| ended.is_done);
            slice.is_over() && is_done && !slice.is_closed
        };
        let is_over = |array: &JobArray| {
            let slices = &self.slices[array.position..array.position + array.n_slices];
            slices.iter().all(has_ended)
        };
        let arrays = self.arrays.iter().filter(|array| {
            let is_submitted = matches!(
                array.state,
                ArrayState::Submitted { .. } | ArrayState::Unsure { .. }
            );
            is_submitted && !is_over(array)
        });
        arrays.map(|array| array.name.as_str()).collect()
    }

    /// Cancels the jobs that may still exist. Returns false if SLURM did not answer.
    fn cancel_jobs(&self) -> bool {
        let names = self.submitted_names();
        if names.is_empty() {
            return true;
        }
        let arrays = self.arrays.iter();
        let ids = arrays.filter(|array| names.contains(&array.name.as_str()));
        let ids: Vec<_> = ids
            .filter_map(|array| Some(array.id?.to_string()))
            .collect();
        self.slurm.client.cancel(&ids, &names).is_ok()
    }

    /// Ends the jobs of a cancelled run, and takes what they save.
    fn end_cancelled(&mut self) -> Result<(), HostError> {
        let started = Instant::now();
        let is_cancelled = self.cancel_jobs();
        while is_cancelled && started.elapsed() < CANCEL_TIME {
            self.read_results()?;
            self.emit(CallEvent::Idle)?;
            let is_ended = |slice: &SliceState| slice.ended.is_some() || !slice.is_running();
            if self.slices.iter().all(is_ended) {
                break;
            }
            std::thread::sleep(READ_INTERVAL[0]);
        }
        let running = self.states.iter();
        let running = running.filter_map(|(index, state)| Some((*index, state.started?)));
        let mut running: Vec<_> = running.collect();
        running.sort_unstable();
        for (call_index, number) in running {
            let attempt = Attempt { call_index, number };
            let ended = Ended::without_guest(Outcome::Cancelled);
            let event = self.calls.finished(attempt, ended, None);
            self.emit(event)?;
        }
        if is_cancelled {
            self.folder.remove();
            return Ok(());
        }
        let names = self.submitted_names().join(" ");
        self.warn(format!(
            "SLURM did not answer, so jobs may still run: cancel them with `scancel -n NAME` for \
             {names}, or resume the run, which finds them"
        ))
    }
}

/// Sets the number of the attempt that an event is about.
fn renumber(kind: &mut EventKind, number: u32) {
    match kind {
        EventKind::CallStarted { call, .. }
        | EventKind::CallLogged { call, .. }
        | EventKind::CallProgress { call, .. }
        | EventKind::CallFinished { call, .. } => call.attempt = number,
        _ => {}
    }
}
