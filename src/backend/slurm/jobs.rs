//! Slices of calls and the jobs that run them: their states, as far as the run knows them.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::parse::{JobRow, JobState, job_state};
use super::results::{WorkerEnded, WorkerStarted};
use crate::workdir::{JobFolder, LineReader};

/// A line of the journal, which a resumed run reads to find its jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum JournalEntry {
    /// A job is about to be submitted.
    Submitting {
        /// Its name.
        name: String,
        /// Number of its round.
        round: usize,
        /// First slice of the round that it runs.
        first: usize,
        /// Number of slices.
        n_slices: usize,
    },
    /// It was submitted.
    Submitted {
        /// Its name.
        name: String,
        /// Its identifier.
        id: u64,
        /// Seconds since 1970.
        time_s: f64,
    },
}

/// A round of submissions: one folder with the calls to run. Calls that were lost get a new round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: usize,
    pub(super) folder: JobFolder,
}

/// A job array, or a single job: consecutive slices of a round.
#[derive(Debug)]
pub(super) struct JobArray {
    /// Unique name of the job.
    pub(super) name: String,
    /// Index of the round.
    pub(super) round: usize,
    /// First slice of the round.
    pub(super) first: usize,
    pub(super) n_slices: usize,
    /// Position of its first slice among all slices.
    pub(super) position: usize,
    pub(super) state: ArrayState,
    /// Identifier of the job.
    pub(super) id: Option<u64>,
    /// When it was submitted, in seconds since 1970.
    pub(super) submitted_s: Option<f64>,
}

/// Submission of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArrayState {
    /// It is not submitted yet.
    Waiting,
    /// `sbatch` gave no answer: the job is looked up by its name.
    Unsure {
        since: Instant,
    },
    Submitted {
        since: Instant,
    },
    /// Its calls run elsewhere, or do not run.
    Dropped,
}

impl JobArray {
    /// Identifier of an element, as SLURM's commands take it.
    pub(super) fn job_of(&self, element: usize) -> String {
        match (self.id, self.n_slices) {
            (None, _) => self.name.clone(),
            (Some(id), 1) => id.to_string(),
            (Some(id), _) => format!("{id}_{element}"),
        }
    }
}

/// A slice of the calls of a round: one element of an array, or a single job.
#[derive(Debug)]
pub(super) struct SliceState {
    /// Index of the round.
    pub(super) round: usize,
    /// Number of the slice in its round.
    pub(super) index: usize,
    /// Position of the array; `None` if it was never submitted.
    pub(super) array: Option<usize>,
    /// Calls that are not finished, each with the difference of the number of its attempt to that
    /// in the file.
    pub(super) open: HashMap<usize, i64>,
    pub(super) n_calls: usize,
    pub(super) reader: LineReader,
    pub(super) worker: Option<WorkerStarted>,
    pub(super) ended: Option<WorkerEnded>,
    /// Last known state in the queue.
    pub(super) row: Option<JobRow>,
    /// True if the last answer of the queue did not contain the job.
    pub(super) is_absent: bool,
    /// Since when the job is known to have ended.
    pub(super) gone_since: Option<Instant>,
    /// True if its results do not count any more.
    pub(super) is_closed: bool,
    /// True if its end was reported.
    pub(super) is_reported: bool,
}

impl SliceState {
    pub(super) fn new(round: usize, index: usize, open: HashMap<usize, i64>) -> Self {
        Self {
            round,
            index,
            array: None,
            n_calls: open.len(),
            open,
            reader: LineReader::default(),
            worker: None,
            ended: None,
            row: None,
            is_absent: false,
            gone_since: None,
            is_closed: false,
            is_reported: false,
        }
    }

    /// Returns true if nothing more is expected of the slice.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed || self.open.is_empty()
    }

    /// Returns true if more can be in the file of results: ends of calls, or that of the worker.
    pub(super) fn may_report_more(&self) -> bool {
        let may_end = self.worker.is_some()
            && self.ended.is_none()
            && !self
                .row
                .as_ref()
                .is_some_and(|row| job_state(&row.state) == JobState::Ended);
        !self.is_closed && (!self.open.is_empty() || may_end)
    }

    /// Returns true if a worker runs its calls, as far as that is known.
    pub(super) fn is_running(&self) -> bool {
        let is_active = |row: &JobRow| job_state(&row.state) == JobState::Active;
        !self.is_over()
            && self.ended.is_none()
            && self.gone_since.is_none()
            && (self.worker.is_some() || self.row.as_ref().is_some_and(is_active))
    }

    /// Node that the job runs on; empty if it is not known.
    pub(super) fn node(&self) -> String {
        let of_row = self.row.as_ref().map(|row| row.node.clone());
        let of_row = of_row.filter(|node| !node.is_empty());
        of_row
            .or_else(|| self.worker.as_ref().map(|worker| worker.node.clone()))
            .unwrap_or_default()
    }
}

/// State of a call that has to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallState {
    /// Number of its next attempt.
    pub(super) number: u32,
    /// Number of the attempt that has started and has not ended.
    pub(super) started: Option<u32>,
    pub(super) is_finished: bool,
    /// Number of jobs that were lost with it.
    pub(super) n_losses: u32,
}

/// Seconds since 1970.
pub(super) fn now_s() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// Splits slices into arrays. Returns the first slice and the number of slices of each.
///
/// * `max_array_size`: number of elements of an array at most.
pub(super) fn split_into_arrays(n_slices: usize, max_array_size: u64) -> Vec<(usize, usize)> {
    let size = usize::try_from(max_array_size).unwrap_or(usize::MAX).max(1);
    (0..n_slices)
        .step_by(size)
        .map(|first| (first, size.min(n_slices - first)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_split_by_the_size_of_arrays() {
        assert_eq!(split_into_arrays(10, 1001), [(0, 10)]);
        assert_eq!(split_into_arrays(10, 4), [(0, 4), (4, 4), (8, 2)]);
        assert_eq!(split_into_arrays(2, 0), [(0, 1), (1, 1)]);
        assert_eq!(split_into_arrays(0, 4), []);
    }
}
