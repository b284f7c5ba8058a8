//! The program of a job: it runs the calls of one slice on the local backend, with results in a
//! file.
//!
//! SLURM can start a second copy of a job while the first one still runs, as when a node only lost
//! its connection. The later copy takes the file of results over. The earlier one notices that and
//! stops its guests; the later one waits that long before it starts any.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::batch_file::{
    BatchFile, CheckOutput, STOP_FILE, SliceCalls, StoredCall, WorkerSettings, claimed_file,
    closed_file, read_calls, results_file,
};
use super::results::{
    WorkerEnded, WorkerStarted, ended_line, event_line, lines_of_ended_calls, started_line,
};
use crate::backend::{Backend, BatchCalls, CallEvent, Local, Pending, RunContext};
use crate::event::EventKind;
use crate::model::{CancelToken, FailureKind, HostError, TaskSpec};
use crate::workdir::{JobFolder, LineReader, LineWriter, WorkDir};

/// Interval between two checks for another copy, or for the end of the run.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time that an earlier copy gets to notice a later one, and to end its guests.
const HANDOVER: Duration = Duration::from_secs(3);
/// Interval between two syncs of the results.
const SYNC_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of results that wait at most.
const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// Calls of a job.
pub struct Slice {
    folder: JobFolder,
    index: usize,
    file: BatchFile,
    calls: Vec<StoredCall>,
}

/// Identity of a job, from its environment.
#[derive(Clone, Debug, Default)]
pub struct JobIdentity {
    /// Identifier of the job, as SLURM's commands take it.
    pub job: String,
    /// Node that it runs on.
    pub node: String,
}

/// Outcome of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceEnd {
    /// Its calls have run; the kind of failure of the first one that failed.
    Done(Option<FailureKind>),
    /// Another copy runs the calls, or they are part of another round.
    Superseded,
    /// The job was ended: by SLURM or by a user.
    Cancelled,
}

impl Slice {
    /// Reads the calls of a slice.
    ///
    /// * `batch_file`: file of the round.
    ///
    /// # Errors
    /// A sentence for the user, also if another version of mandelbox wrote the file.
    pub fn read(batch_file: &Path, index: usize) -> Result<Self, String> {
        let file = BatchFile::read(batch_file)?;
        let folder = batch_file.parent().unwrap_or(Path::new("/"));
        let Some(slice) = file.slices.get(index) else {
            return Err(format!(
                "{}: has {} slices, and no slice {index}",
                batch_file.display(),
                file.slices.len()
            ));
        };
        let calls = read_calls(folder, *slice)?;
        let folder = JobFolder::new(folder.to_owned());
        Ok(Self {
            folder,
            index,
            file,
            calls,
        })
    }

    /// Settings of the program.
    pub fn settings(&self) -> &WorkerSettings {
        &self.file.settings
    }

    /// The task of the calls.
    pub fn task(&self) -> &TaskSpec {
        &self.file.batch.task
    }

    /// Number of calls that run at the same time.
    pub fn parallel(&self) -> usize {
        self.file.parallel
    }

    /// Lowers the number of files that each call can open.
    pub fn limit_open_files(&mut self, open_files: usize) {
        let limits = &mut self.file.batch.task.limits;
        limits.open_files = limits.open_files.min(open_files);
    }

    /// Name of the check of outputs.
    pub fn check_name(&self) -> &str {
        &self.file.check
    }

    /// Work directory of the run, which the files of calls are in.
    pub fn run_folder(&self) -> Option<PathBuf> {
        self.file.batch.folder.parent().map(Path::to_owned)
    }

    /// Returns true if the run has given the calls to another job.
    fn is_closed(&self) -> bool {
        self.folder.has(&closed_file(self.index)) || !self.folder.path().is_dir()
    }

    /// Runs the calls.
    ///
    /// * `local`: has the module of the task.
    /// * `work_dir`: folder on this node, for scratch folders.
    /// * `identity`: the job that this is.
    ///
    /// # Errors
    /// [`HostError`] if results cannot be written, or calls cannot be run at all.
    pub fn run(
        mut self,
        local: &Local,
        work_dir: Arc<WorkDir>,
        check: Box<CheckOutput>,
        identity: JobIdentity,
        cancel: &CancelToken,
    ) -> Result<SliceEnd, HostError> {
        if self.is_closed() {
            return Ok(SliceEnd::Superseded);
        }
        let unique = format!("{}-{:08x}", std::process::id(), random());
        let is_first = self.folder.mark(&claimed_file(self.index))?;
        let (mut results, ended) = self.claim(&identity, &unique)?;
        if self.is_closed() {
            return Ok(SliceEnd::Superseded);
        }
        if !is_first && cancel.wait_for(HANDOVER) {
            return Ok(SliceEnd::Cancelled);
        }
        if !results.is_current() {
            return Ok(SliceEnd::Superseded);
        }
        if !is_first {
            for stored in &mut self.calls {
                stored.call.replaces_files = true;
            }
        }
        let calls = self.batch_calls(&ended, work_dir, check, cancel, &unique);
        let mut watch = Watch::new(&mut results, &self.folder, self.index, &calls, cancel);
        let ran = local.run_calls(&calls, &mut |event| watch.observe(&event));
        let (is_superseded, failure) = (watch.is_superseded, watch.failure);
        ran?;
        if is_superseded || !results.is_current() {
            return Ok(SliceEnd::Superseded);
        }
        results.add(&ended_line(&WorkerEnded {
            is_done: !cancel.is_cancelled(),
            time_s: now_s(),
        }));
        results.flush()?;
        results.sync()?;
        if cancel.is_cancelled() {
            return Ok(SliceEnd::Cancelled);
        }
        Ok(SliceEnd::Done(failure))
    }

    /// Takes over the file of results. Returns the calls that an earlier copy has run.
    fn claim(
        &self,
        identity: &JobIdentity,
        unique: &str,
    ) -> Result<(LineWriter, Vec<usize>), HostError> {
        let name = results_file(self.index);
        let path = self.folder.path().join(&name);
        let mut earlier = Vec::new();
        let read = LineReader::default().read(&path, &mut |line| earlier.push(line.to_owned()));
        read.map_err(HostError::file("read", &path))?;
        let (kept, ended) = lines_of_ended_calls(&earlier);
        let started = started_line(&WorkerStarted {
            job: identity.job.clone(),
            node: identity.node.clone(),
            time_s: now_s(),
        });
        let lines = [vec![started], kept].concat();
        let results = LineWriter::take_over(&self.folder, &name, unique, &lines)?;
        Ok((results, ended))
    }

    fn batch_calls(
        &self,
        ended: &[usize],
        work_dir: Arc<WorkDir>,
        check: Box<CheckOutput>,
        cancel: &CancelToken,
        unique: &str,
    ) -> Arc<BatchCalls> {
        let pending = self.calls.iter().map(|stored| stored.call.attempt);
        let pending = pending.filter(|attempt| ended.binary_search(&attempt.call_index).is_err());
        let pending = pending.map(|attempt| (attempt.call_index, attempt.number));
        let pending = Pending::Only(pending.collect());
        let list = SliceCalls::new(self.calls.clone(), self.file.first_args().to_owned(), check);
        let context = RunContext {
            session: self.file.session,
            ..RunContext::new(work_dir, cancel.clone())
        };
        let mut calls = BatchCalls::new(self.file.batch.clone(), Arc::new(list), context);
        calls.set_pending(pending);
        calls.set_packed_name(unique);
        Arc::new(calls)
    }
}

/// Writes the events of calls, and looks out for the end of the slice.
struct Watch<'w> {
    results: &'w mut LineWriter,
    folder: &'w JobFolder,
    index: usize,
    calls: &'w Arc<BatchCalls>,
    cancel: &'w CancelToken,
    checked: Instant,
    synced: Instant,
    is_superseded: bool,
    /// Kind of failure of the first call that failed.
    failure: Option<FailureKind>,
}

impl<'w> Watch<'w> {
    fn new(
        results: &'w mut LineWriter,
        folder: &'w JobFolder,
        index: usize,
        calls: &'w Arc<BatchCalls>,
        cancel: &'w CancelToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            results,
            folder,
            index,
            calls,
            cancel,
            checked: now,
            synced: now,
            is_superseded: false,
            failure: None,
        }
    }

    fn observe(&mut self, event: &CallEvent) -> Result<(), HostError> {
        if let CallEvent::Finished { fact, .. } = event {
            self.note_failure(fact.kind());
        }
        match event_line(event) {
            Some(line) if !self.is_superseded => {
                self.results.add(&line);
                if self.results.n_buffered() > MAX_BUFFERED_BYTES {
                    self.results.flush()?;
                }
            }
            _ => self.idle()?,
        }
        Ok(())
    }

    fn note_failure(&mut self, kind: &EventKind) {
        if let EventKind::CallFinished {
            outcome,
            retry_in_s: None,
            ..
        } = kind
        {
            self.failure = self.failure.or_else(|| outcome.failure_kind());
        }
    }

    fn idle(&mut self) -> Result<(), HostError> {
        if self.is_superseded {
            return Ok(());
        }
        self.results.flush()?;
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.results.sync()?;
            self.synced = Instant::now();
        }
        if self.checked.elapsed() >= CHECK_INTERVAL {
            self.check();
            self.checked = Instant::now();
        }
        Ok(())
    }

    fn check(&mut self) {
        if !self.results.is_current() || self.folder.has(&closed_file(self.index)) {
            self.is_superseded = true;
            self.cancel.cancel();
        } else if self.folder.has(STOP_FILE) {
            self.calls.stop();
        }
    }
}

fn now_s() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// A number that two workers hardly share, even with the same process identifier on two nodes.
fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().subsec_nanos()
    })
}
