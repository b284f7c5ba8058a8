//! Resumption: the jobs of an interrupted run are found by their names, and go on.
//!
//! A run writes the name of a job before it submits the job, and its identifier after that. A run
//! that was killed leaves this journal behind, with the files of its rounds. The run that resumes
//! it takes the jobs over if they do the same work, and cancels them otherwise.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::batch_file::{BATCH_FILE, BatchFile, STOP_FILE, StoredCall, closed_file, read_calls};
use super::driver::Driver;
use super::jobs::{ArrayState, JobArray, JournalEntry, Round, SliceState};
use crate::model::{Attempt, CallSpec, HostError};
use crate::workdir::LineReader;

/// Name of the journal in the folder of a batch.
pub(super) const JOURNAL_FILE: &str = "submissions";

impl Driver<'_> {
    /// Takes over the jobs of an interrupted run. Calls without one have to run.
    pub(super) fn adopt(&mut self) -> Result<(), HostError> {
        let entries = self.read_journal()?;
        if !entries.is_empty() {
            match self.adopt_rounds(&entries) {
                Ok(()) => self.catch_up()?,
                Err(reason) => self.discard(&entries, &reason)?,
            }
        }
        let with_slice: HashSet<usize> = self
            .slices
            .iter()
            .flat_map(|slice| slice.open.keys().copied())
            .collect();
        let open = self.states.iter().filter(|(_, state)| !state.is_finished);
        let open = open.map(|(index, _)| *index);
        self.to_run = open.filter(|index| !with_slice.contains(index)).collect();
        Ok(())
    }

    fn read_journal(&self) -> Result<Vec<JournalEntry>, HostError> {
        let path = self.folder.path().join(JOURNAL_FILE);
        let mut entries = Vec::new();
        let read = LineReader::default().read(&path, &mut |line| {
            entries.extend(serde_json::from_slice::<JournalEntry>(line));
        });
        read.map_err(HostError::file("read", &path))?;
        Ok(entries)
    }

    /// Finds the slices of the calls that have no result.
    ///
    /// # Errors
    /// The reason why the jobs cannot be taken over.
    fn adopt_rounds(&mut self, entries: &[JournalEntry]) -> Result<(), String> {
        let mut numbers: Vec<usize> = self
            .folder
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix('r')?.parse().ok())
            .collect();
        numbers.sort_unstable();
        // Of the slices with a call, the last one counts.
        let mut last_slice: HashMap<usize, usize> = HashMap::new();
        for number in numbers {
            let folder = self.folder.folder(&format!("r{number}"));
            // A round that was being written has no job.
            if !folder.has(BATCH_FILE) {
                self.rounds.push(Round { number, folder });
                continue;
            }
            let file = BatchFile::read(&folder.path().join(BATCH_FILE))?;
            if !file.is_same_work(&self.batch_file()) {
                return Err("the task or its settings have changed".to_owned());
            }
            let position = self.slices.len();
            for (index, slice) in file.slices.iter().enumerate() {
                let calls = read_calls(folder.path(), *slice)?;
                let open = self.open_calls(&calls, file.first_args())?;
                for call_index in open.keys() {
                    if let Some(before) = last_slice.insert(*call_index, self.slices.len()) {
                        self.slices[before].open.remove(call_index);
                    }
                }
                let mut slice = SliceState::new(self.rounds.len(), index, open);
                slice.n_calls = calls.len();
                slice.is_closed = folder.has(&closed_file(index));
                if slice.is_closed {
                    slice.open.clear();
                }
                self.slices.push(slice);
            }
            self.rounds.push(Round { number, folder });
            self.adopt_arrays(entries, number, position, file.slices.len());
        }
        self.drop_unsubmitted();
        Ok(())
    }

    /// The calls of a slice that have to run, each with the difference of its attempt's numbers.
    fn open_calls(
        &self,
        calls: &[StoredCall],
        first_args: &str,
    ) -> Result<HashMap<usize, i64>, String> {
        let mut open = HashMap::new();
        for stored in calls {
            let Attempt { call_index, number } = stored.call.attempt;
            let Some(state) = self.states.get(&call_index) else {
                continue;
            };
            let now = self.calls.call(Attempt {
                call_index,
                number: state.number,
            });
            let then = CallSpec {
                attempt: now.attempt,
                replaces_files: now.replaces_files,
                ..stored.to_call(first_args)
            };
            if then != now {
                return Err("the items of the task have changed".to_owned());
            }
            let offset = i64::from(state.number) - i64::from(number);
            open.insert(call_index, offset);
        }
        Ok(open)
    }

    /// Adds the jobs of a round that were submitted, or may have been.
    fn adopt_arrays(
        &mut self,
        entries: &[JournalEntry],
        number: usize,
        position: usize,
        n_round_slices: usize,
    ) {
        for entry in entries {
            let JournalEntry::Submitting {
                name,
                round,
                first,
                n_slices,
            } = entry
            else {
                continue;
            };
            let is_known = self.arrays.iter().any(|array| array.name == *name);
            if *round != number || is_known || first + n_slices > n_round_slices {
                continue;
            }
            let submitted = entries.iter().rev().find_map(|entry| match entry {
                JournalEntry::Submitted {
                    name: other,
                    id,
                    time_s,
                } if other == name => Some((*id, *time_s)),
                _ => None,
            });
            let since = Instant::now();
            let index = self.arrays.len();
            let position = position + first;
            for slice in &mut self.slices[position..position + n_slices] {
                slice.array = Some(index);
            }
            self.arrays.push(JobArray {
                name: name.clone(),
                round: self.rounds.len() - 1,
                first: *first,
                n_slices: *n_slices,
                position,
                state: match submitted {
                    Some(_) => ArrayState::Submitted { since },
                    None => ArrayState::Unsure { since },
                },
                id: submitted.map(|(id, _)| id),
                submitted_s: submitted.map(|(_, time_s)| time_s),
            });
        }
    }

    /// An array that was refused for a limit was split, so its slices belong to the later arrays;
    /// those that were never submitted belong to none, and their calls run in a new round.
    fn drop_unsubmitted(&mut self) {
        for (index, array) in self.arrays.iter_mut().enumerate() {
            let slices = &self.slices[array.position..array.position + array.n_slices];
            if slices.iter().any(|slice| slice.array != Some(index)) {
                array.state = ArrayState::Dropped;
            }
        }
        for slice in &mut self.slices {
            let array = slice.array.map(|array| &self.arrays[array]);
            if array.is_none_or(|array| array.state == ArrayState::Dropped) {
                slice.open.clear();
            }
        }
    }

    /// Takes the results that the interrupted run has not recorded.
    fn catch_up(&mut self) -> Result<(), HostError> {
        let has_open = |array: &&JobArray| {
            let slices = &self.slices[array.position..array.position + array.n_slices];
            slices.iter().any(|slice| !slice.open.is_empty())
        };
        let n_jobs: usize = self
            .arrays
            .iter()
            .filter(has_open)
            .map(|array| array.n_slices)
            .sum();
        for round in &self.rounds {
            round.folder.unmark(STOP_FILE)?;
        }
        if n_jobs > 0 {
            self.note(format!(
                "the interrupted run had submitted {n_jobs} jobs without all results; they go on"
            ))?;
        }
        self.is_catching_up = true;
        let read = self.read_results();
        self.is_catching_up = false;
        // The calls that failed are found again below, since no slice has them.
        self.to_run.clear();
        // Ask at once.
        self.poll_interval = std::time::Duration::ZERO;
        read
    }

    /// Cancels the jobs of the interrupted run, and forgets them.
    fn discard(&mut self, entries: &[JournalEntry], reason: &str) -> Result<(), HostError> {
        let names = entries.iter().filter_map(|entry| match entry {
            JournalEntry::Submitting { name, .. } => Some(name.as_str()),
            JournalEntry::Submitted { .. } => None,
        });
        let names: std::collections::BTreeSet<_> = names.collect();
        let names: Vec<_> = names.into_iter().collect();
        if let Err(super::client::NoAnswer(message)) = self.slurm.client.cancel(&[], &names) {
            let action = "cancel the jobs of the interrupted run";
            return Err(HostError::Setup {
                action,
                source: message.into(),
            });
        }
        self.note(format!(
            "the jobs of the interrupted run were cancelled: {reason}"
        ))?;
        self.rounds.clear();
        self.arrays.clear();
        self.slices.clear();
        self.folder.remove();
        self.folder.create()?;
        self.journal = crate::workdir::LineWriter::append(&self.folder, JOURNAL_FILE)?;
        Ok(())
    }
}
