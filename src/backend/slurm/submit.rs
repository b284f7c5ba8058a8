//! Rounds and their submission.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::batch_file::{BATCH_FILE, write_round};
use super::batching::spread;
use super::client::SubmitError;
use super::driver::Driver;
use super::jobs::{
    ArrayState, JobArray, JournalEntry, Round, SliceState, now_s, split_into_arrays,
};
use super::parse::Refusal;
use super::script::{ScriptContents, build_arguments, build_script};
use super::states::POLL;
use crate::model::{Attempt, HostError};

/// Wait after the first submission that was refused; it doubles with each further one.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Time in which a job appears in the queue whose submission gave no answer.
const UNSURE_TIME: Duration = Duration::from_secs(5);

impl Driver<'_> {
    /// Begins a round with the calls that have to run, if there are any.
    pub(super) fn start_round(&mut self) -> Result<(), HostError> {
        if self.to_run.is_empty() || self.is_stopping {
            return Ok(());
        }
        let mut to_run = std::mem::take(&mut self.to_run);
        to_run.sort_unstable();
        let number = self.rounds.last().map_or(0, |round| round.number + 1);
        let folder = self.folder.folder(&format!("r{number}"));
        let n_jobs = self.shape.n_jobs(to_run.len() as u64);
        let sizes = spread(to_run.len(), usize::try_from(n_jobs).unwrap_or(usize::MAX));
        let mut slices = Vec::with_capacity(sizes.len());
        let position = self.slices.len();
        let mut rest = to_run.as_slice();
        for (index, size) in sizes.into_iter().enumerate() {
            let (calls, others) = rest.split_at(size);
            rest = others;
            slices.push(calls);
            let open: HashMap<_, _> = calls.iter().map(|call| (*call, 0)).collect();
            let slice = SliceState::new(self.rounds.len(), index, open);
            self.slices.push(slice);
        }
        let mut file = self.batch_file();
        let call = |call_index| self.spec(call_index, number);
        write_round(&folder, &mut file, &slices, call)?;
        let round = self.rounds.len();
        self.rounds.push(Round { number, folder });
        for (first, n_slices) in split_into_arrays(slices.len(), self.max_array_size(slices.len()))
        {
            self.add_piece(round, first, n_slices, position + first);
        }
        Ok(())
    }

    fn spec(&self, call_index: usize, round: usize) -> crate::model::CallSpec {
        let state = self.states.get(&call_index);
        let number = state.map_or(1, |state| state.number);
        let mut call = self.calls.call(Attempt { call_index, number });
        // A call of a lost job may have left files without having been recorded.
        call.replaces_files |= round > 0;
        call
    }

    fn max_array_size(&self, n_slices: usize) -> u64 {
        if n_slices == 1 {
            return 1;
        }
        self.slurm.max_array_size(self.calls.cancel())
    }

    fn add_piece(&mut self, round: usize, first: usize, n_slices: usize, position: usize) {
        let number = self.rounds[round].number;
        let index = self.arrays.len();
        for slice in &mut self.slices[position..position + n_slices] {
            slice.array = Some(index);
        }
        self.arrays.push(JobArray {
            name: format!("mandelbox-{}-r{number}-{index}", self.tag),
            round,
            first,
            n_slices,
            position,
            state: ArrayState::Waiting,
            id: None,
            submitted_s: None,
        });
    }

    /// Submits the jobs that wait for it, unless SLURM has refused one a moment ago.
    pub(super) fn submit(&mut self) -> Result<(), HostError> {
        self.look_up()?;
        let is_waiting = |array: &JobArray| array.state == ArrayState::Waiting;
        while Instant::now() >= self.next_submission.0
            && !self.calls.cancel().is_cancelled()
            && let Some(index) = self.arrays.iter().position(is_waiting)
        {
            self.submit_piece(index)?;
        }
        Ok(())
    }

    /// Decides about submissions that gave no answer: the queue lists the job, or the job is
    /// submitted again.
    fn look_up(&mut self) -> Result<(), HostError> {
        let Some(answered) = self.answered_query_at else {
            return Ok(());
        };
        for array in &mut self.arrays {
            let ArrayState::Unsure { since } = array.state else {
                continue;
            };
            let slices = &self.slices[array.position..array.position + array.n_slices];
            if slices.iter().any(|slice| slice.worker.is_some()) {
                array.state = ArrayState::Submitted { since };
            } else if answered > since + UNSURE_TIME {
                array.state = ArrayState::Waiting;
            }
        }
        Ok(())
    }

    fn submit_piece(&mut self, index: usize) -> Result<(), HostError> {
        let array = &self.arrays[index];
        let folder = &self.rounds[array.round].folder;
        let script = format!("{}.sh", array.name);
        folder.write(&script, self.script(array).as_bytes())?;
        let arguments = build_arguments(
            &array.name,
            folder.path(),
            &self.settings.job,
            &self.excluded,
            &folder.path().join(&script),
        );
        let entry = JournalEntry::Submitting {
            name: array.name.clone(),
            round: self.rounds[array.round].number,
            first: array.first,
            n_slices: array.n_slices,
        };
        self.write_journal(&entry)?;
        // The name is on disk before the job can exist.
        self.journal.sync()?;
        match self.slurm.client.submit(&arguments, self.calls.cancel()) {
            Ok(id) => self.note_submitted(index, id),
            Err(err) => self.note_refused(index, err),
        }
    }

    fn script(&self, array: &JobArray) -> String {
        let folder = self.rounds[array.round].folder.path();
        build_script(&ScriptContents {
            settings: &self.settings.job,
            program: &self.slurm.options.program,
            batch_file: &folder.join(BATCH_FILE),
            parallel: self.shape.parallel,
            rounds: self.shape.rounds(),
            first_slice: array.first,
            n_slices: array.n_slices,
        })
    }

    fn write_journal(&mut self, entry: &JournalEntry) -> Result<(), HostError> {
        let line = serde_json::to_vec(entry).expect("writing to memory cannot fail");
        self.journal.add(&line);
        self.journal.flush()
    }

    fn note_submitted(&mut self, index: usize, id: u64) -> Result<(), HostError> {
        let array = &mut self.arrays[index];
        let since = Instant::now();
        array.state = ArrayState::Submitted { since };
        array.id = Some(id);
        let time_s = now_s();
        array.submitted_s = Some(time_s);
        let name = array.name.clone();
        self.write_journal(&JournalEntry::Submitted { name, id, time_s })?;
        self.next_submission = (since, FIRST_WAIT);
        (self.polled, self.poll_interval) = (since, POLL[0]);
        Ok(())
    }

    fn note_refused(&mut self, index: usize, err: SubmitError) -> Result<(), HostError> {
        let SubmitError { kind, message } = err;
        let now = Instant::now();
        let wait = self.next_submission.1;
        match kind {
            Refusal::Limit => {
                self.next_submission = (now + wait, (wait * 2).min(MAX_WAIT));
                self.split_piece(index);
                self.warn(format!(
                    "SLURM accepts no further jobs for now, and the run waits: {message}"
                ))
            }
            Refusal::NoAnswer => {
                self.arrays[index].state = ArrayState::Unsure { since: now };
                self.next_submission = (now + wait, (wait * 2).min(MAX_WAIT));
                if self.calls.cancel().is_cancelled() {
                    return Ok(());
                }
                self.warn(format!(
                    "SLURM did not answer, and the run looks for the job before it submits it \
                     again: {message}"
                ))
            }
            Refusal::NoNode if !self.excluded.is_empty() => {
                self.excluded.clear();
                Ok(())
            }
            Refusal::NoNode | Refusal::Final => Err(HostError::Setup {
                action: "submit a job to SLURM",
                source: message.into(),
            }),
        }
    }

    /// Replaces an array by two smaller ones: a limit may leave room for one of them.
    fn split_piece(&mut self, index: usize) {
        let array = &mut self.arrays[index];
        if array.n_slices == 1 {
            return;
        }
        array.state = ArrayState::Dropped;
        let (round, first, position) = (array.round, array.first, array.position);
        let n_slices = std::mem::take(&mut array.n_slices);
        let half = n_slices.div_ceil(2);
        self.add_piece(round, first, half, position);
        self.add_piece(round, first + half, n_slices - half, position + half);
    }
}

/// Returns a part of a name that no other run uses.
pub(super) fn random_tag() -> String {
    let number = getrandom::u64().unwrap_or_else(|_| now_s().to_bits());
    format!("{number:016x}")
}
