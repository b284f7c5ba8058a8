//! States of jobs as SLURM reports them, and the calls that are lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::client::NoAnswer;
use super::driver::{Driver, MAX_LOSSES};
use super::jobs::{ArrayState, SliceState, now_s};
use super::judge::{Evidence, Stopped, Verdict, judge, time_for_results};
use super::parse::{JobRow, JobState, advice_for_reason, job_state};
use super::script::{job_time_s, log_name, was_warned};
use crate::backend::CallEvent;
use crate::event::{EventKind, Fact};
use crate::model::{Attempt, Ended, HostError, Outcome};

/// First and longest interval between two queries of the queue, while jobs change.
pub(super) const POLL: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Longest interval while the controller does not answer.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// Time in which SLURM reports why it has stopped a worker.
const REASON_TIME: Duration = Duration::from_secs(15);
/// Interval between two reports of the numbers of jobs.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are read of the log of a job.
const LOG_BYTES: u64 = 4 << 10;

/// A query of the queue that has no answer yet.
pub(super) struct Query {
    asked: Instant,
    answer: Receiver<Result<Vec<JobRow>, NoAnswer>>,
}

impl Driver<'_> {
    /// Asks the queue for the states of all jobs, if it is time. Another thread waits for the
    /// answer: without a controller that takes 18 s.
    pub(super) fn poll(&mut self) -> Result<(), HostError> {
        if let Some(query) = &self.query {
            return match query.answer.try_recv() {
                Ok(answer) => {
                    let asked = query.asked;
                    self.query = None;
                    self.take_answer(answer, asked)
                }
                Err(TryRecvError::Empty) => Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.query = None;
                    Ok(())
                }
            };
        }
        let names = self.submitted_names();
        if names.is_empty() || self.polled.elapsed() < self.poll_interval {
            return Ok(());
        }
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let (client, cancel) = (self.slurm.client.clone(), self.calls.cancel().clone());
        let (send, answer) = channel();
        std::thread::spawn(move || {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            // The run may have ended.
            let _ = send.send(client.jobs(&names, &cancel));
        });
        self.query = Some(Query {
            asked: Instant::now(),
            answer,
        });
        Ok(())
    }

    /// * `asked`: when the queue was asked.
    fn take_answer(
        &mut self,
        answer: Result<Vec<JobRow>, NoAnswer>,
        asked: Instant,
    ) -> Result<(), HostError> {
        self.polled = Instant::now();
        match answer {
            Ok(rows) => {
                if self.no_answer_since.take().is_some() {
                    self.poll_interval = POLL[0];
                    self.note("SLURM answers again".to_owned())?;
                }
                self.poll_interval = (self.poll_interval * 2).clamp(POLL[0], POLL[1]);
                self.answered_query_at = Some(asked);
                self.take_rows(rows, asked)
            }
            Err(_) if self.calls.cancel().is_cancelled() => Ok(()),
            Err(NoAnswer(message)) => {
                self.poll_interval = (self.poll_interval * 2).clamp(POLL[0], MAX_BACK_OFF);
                if self.no_answer_since.is_some() {
                    return Ok(());
                }
                self.no_answer_since = Some(asked);
                let text = format!("SLURM does not answer, and the run waits for it: {message}");
                let fact = Fact::new(EventKind::Warning { message: text });
                self.emit(CallEvent::Happened(fact))
            }
        }
    }

    /// Takes the states of jobs.
    ///
    /// * `asked`: when the queue was asked.
    fn take_rows(&mut self, rows: Vec<JobRow>, asked: Instant) -> Result<(), HostError> {
        let by_name: HashMap<String, usize> = (0..)
            .zip(&self.arrays)
            .map(|(index, array)| (array.name.clone(), index))
            .collect();
        let mut found: BTreeMap<usize, JobRow> = BTreeMap::new();
        for row in rows {
            let Some(array) = by_name.get(&row.name).map(|index| &mut self.arrays[*index]) else {
                continue;
            };
            let element = row
                .element
                .and_then(|element| usize::try_from(element).ok());
            let element = element.unwrap_or_default();
            if element >= array.n_slices {
                continue;
            }
            let id = *array.id.get_or_insert(row.job_id);
            array.submitted_s.get_or_insert_with(now_s);
            if let ArrayState::Unsure { since } = array.state {
                array.state = ArrayState::Submitted { since };
            }
            let position = array.position + element;
            // A second job of the same name can exist if `sbatch` gave no answer.
            let is_better = found.get(&position).is_none_or(|other| {
                job_state(&other.state) == JobState::Ended || other.job_id != id
            });
            if is_better {
                found.insert(position, row);
            }
        }
        for position in 0..self.slices.len() {
            let row = found.remove(&position);
            self.set_row(position, row, asked);
        }
        self.warn_of_reasons()
    }

    fn set_row(&mut self, position: usize, row: Option<JobRow>, asked: Instant) {
        let slice = &mut self.slices[position];
        let Some(array) = slice.array.map(|array| &self.arrays[array]) else {
            return;
        };
        let was_submitted = match array.state {
            ArrayState::Submitted { since } => since < asked,
            // It is submitted again if the queue does not list it.
            ArrayState::Unsure { .. } | ArrayState::Waiting | ArrayState::Dropped => false,
        };
        match row {
            Some(row) => (slice.row, slice.is_absent) = (Some(row), false),
            // A job in a state that has ended leaves the queue some time later.
            None if slice.row.as_ref().is_some_and(is_ended) => {}
            None => slice.is_absent = was_submitted,
        }
    }

    /// Warns of jobs that wait for something which may never happen.
    fn warn_of_reasons(&mut self) -> Result<(), HostError> {
        let rows = self.slices.iter().filter_map(|slice| slice.row.as_ref());
        let pending = rows.filter(|row| job_state(&row.state) == JobState::Pending);
        let reasons: BTreeSet<String> = pending.map(|row| row.reason.clone()).collect();
        for reason in reasons {
            if let Some(advice) = advice_for_reason(&reason) {
                self.warn(format!("jobs wait in the queue ({reason}); {advice}"))?;
            }
        }
        Ok(())
    }

    /// Decides which jobs have ended without results of all their calls.
    pub(super) fn settle(&mut self) -> Result<(), HostError> {
        for position in 0..self.slices.len() {
            if self.slices[position].is_over() {
                if !self.slices[position].may_report_more() {
                    self.report_end(position, "COMPLETED")?;
                }
                continue;
            }
            let Some(wait) = self.time_left(position) else {
                self.slices[position].gone_since = None;
                continue;
            };
            let slice = &mut self.slices[position];
            let gone_since = *slice.gone_since.get_or_insert_with(Instant::now);
            if gone_since.elapsed() < wait {
                self.ask_accounting(position);
                continue;
            }
            // Results first.
            self.read_slice(position)?;
            if !self.slices[position].is_over() && self.time_left(position).is_some() {
                self.lose(position)?;
            }
        }
        Ok(())
    }

    /// Time in which results of a job can appear that has ended; `None` if it has not.
    fn time_left(&self, position: usize) -> Option<Duration> {
        let slice = &self.slices[position];
        let grace = self.slurm.options.grace;
        let row = slice.row.as_ref().filter(|row| is_ended(row));
        if let Some(ended) = &slice.ended {
            // Nothing more appears in the file, but SLURM can still give the reason.
            let has_reason = ended.is_done || row.is_some();
            return Some(if has_reason {
                Duration::ZERO
            } else {
                REASON_TIME
            });
        }
        if let Some(row) = row {
            return Some(time_for_results(Some(row), grace));
        }
        slice.is_absent.then_some(grace)
    }

    /// Asks the accounting database for the state of a job that has left the queue, if there is
    /// one.
    fn ask_accounting(&mut self, position: usize) {
        let slice = &self.slices[position];
        let id = slice.array.and_then(|array| self.arrays[array].id);
        let Some(id) = id.filter(|_| slice.is_absent && self.has_accounting) else {
            return;
        };
        if !self.asked_accounting.insert(id) {
            return;
        }
        let Ok(rows) = self.slurm.client.past_jobs(&[id], self.calls.cancel()) else {
            self.has_accounting = false;
            return;
        };
        for row in rows.into_iter().filter(is_ended) {
            let element = row
                .element
                .and_then(|element| usize::try_from(element).ok());
            let array = self
                .arrays
                .iter()
                .find(|array| array.id == Some(row.job_id));
            let Some(array) = array else { continue };
            let position = array.position + element.unwrap_or_default();
            if let Some(slice) = self
                .slices
                .get_mut(position)
                .filter(|slice| slice.is_absent)
            {
                slice.row = Some(row);
            }
        }
    }

    /// The job of a slice is lost: its calls run in another round, or fail.
    fn lose(&mut self, position: usize) -> Result<(), HostError> {
        let verdict = self.verdict(position);
        self.close_slice(position)?;
        self.report_end(position, &verdict.state)?;
        if verdict.blames_node {
            self.exclude(self.slices[position].node())?;
        }
        let mut open: Vec<_> = self.slices[position].open.keys().copied().collect();
        open.sort_unstable();
        let n_open = open.len();
        let mut n_again = 0;
        for call_index in open {
            n_again += usize::from(self.lose_call(position, call_index, &verdict)?);
        }
        if n_again > 0 {
            let message = format!(
                "{}; {n_again} of its {n_open} calls run again",
                verdict.message
            );
            let fact = Fact::new(EventKind::Warning { message });
            self.emit(CallEvent::Happened(fact))?;
        }
        Ok(())
    }

    fn verdict(&self, position: usize) -> Verdict {
        let slice = &self.slices[position];
        let Some(array) = slice.array.map(|array| &self.arrays[array]) else {
            return judge(&Evidence::default());
        };
        let element = slice.index - array.first;
        let of_array = (array.n_slices > 1).then_some(element as u64);
        let log = self.rounds[slice.round]
            .folder
            .read_end(&log_name(&array.name, of_array), LOG_BYTES);
        judge(&Evidence {
            job: &array.job_of(element),
            row: slice.row.as_ref(),
            node: &slice.node(),
            log: &log,
            stopped: self.stopped(slice),
        })
    }

    /// How the worker of a slice was stopped; `None` if it was not, as far as that is known.
    fn stopped(&self, slice: &SliceState) -> Option<Stopped> {
        let ended = slice.ended.as_ref().filter(|ended| !ended.is_done)?;
        let limit_s = job_time_s(&self.settings.job, self.shape.rounds());
        let ran_s = ended.time_s - slice.worker.as_ref()?.time_s;
        let limit_s = limit_s.filter(|limit_s| was_warned(*limit_s, ran_s));
        Some(limit_s.map_or(Stopped::Early, Stopped::AtTimeLimit))
    }

    /// Returns true if the call runs again.
    fn lose_call(
        &mut self,
        position: usize,
        call_index: usize,
        verdict: &Verdict,
    ) -> Result<bool, HostError> {
        let Some(state) = self.states.get_mut(&call_index) else {
            return Ok(false);
        };
        state.n_losses += 1;
        let runs_again = verdict.retries && !self.is_stopping && state.n_losses < MAX_LOSSES;
        let started = state.started.take();
        let number = started.unwrap_or(state.number);
        if started.is_some() {
            state.number = number.saturating_add(1);
        }
        if runs_again {
            self.slices[position].open.remove(&call_index);
            self.to_run.push(call_index);
        } else if started.is_none() && self.is_stopping {
            // It has not started, and does not start any more.
            self.slices[position].open.remove(&call_index);
            return Ok(false);
        } else {
            self.close_call(position, call_index);
        }
        if runs_again && started.is_none() {
            return Ok(true);
        }
        if started.is_none() {
            self.emit_start(call_index, number)?;
        }
        let message = verdict.message.clone();
        let outcome = if verdict.is_refused {
            Outcome::Refused { message }
        } else {
            Outcome::Lost { message }
        };
        let attempt = Attempt { call_index, number };
        let wait = runs_again.then_some(Duration::ZERO);
        let ended = Ended::without_guest(outcome);
        let event = self.calls.finished(attempt, ended, wait);
        self.emit(event)?;
        if !runs_again && !self.calls.batch().keep_going {
            self.stop()?;
        }
        Ok(runs_again)
    }

    /// Lets no further job run on a node that failed, unless that would leave too few nodes.
    fn exclude(&mut self, node: String) -> Result<(), HostError> {
        if node.is_empty() || self.excluded.contains(&node) {
            return Ok(());
        }
        let n_nodes = self.slurm.client.n_nodes(self.calls.cancel());
        if n_nodes.is_ok_and(|n_nodes| 2 * (self.excluded.len() + 1) <= n_nodes) {
            self.excluded.push(node.clone());
            self.note(format!("no further job runs on node {node}"))?;
        }
        Ok(())
    }

    /// Reports the end of a job, once.
    pub(super) fn report_end(&mut self, position: usize, state: &str) -> Result<(), HostError> {
        let slice = &mut self.slices[position];
        if slice.is_reported || !slice.is_over() || slice.array.is_none() {
            return Ok(());
        }
        slice.is_reported = true;
        let array = slice.array.map(|array| &self.arrays[array]);
        let job = array.map(|array| array.job_of(slice.index - array.first));
        let submitted_s = array.and_then(|array| array.submitted_s);
        let started_s = slice.worker.as_ref().map(|worker| worker.time_s);
        let ended_s = slice
            .ended
            .as_ref()
            .map_or_else(now_s, |ended| ended.time_s);
        let between = |from: Option<f64>, to: Option<f64>| Some((to? - from?).max(0.0));
        let fact = Fact::new(EventKind::JobEnded {
            task: self.calls.batch().task.order,
            job: job.unwrap_or_default(),
            node: slice.node(),
            state: state.to_owned(),
            n_calls: slice.n_calls,
            queued_s: between(submitted_s, started_s),
            ran_s: between(started_s, Some(ended_s)),
        });
        self.emit(CallEvent::Happened(fact))
    }

    /// Reports the numbers of jobs, if they have changed.
    pub(super) fn report_jobs(&mut self, is_last: bool) -> Result<(), HostError> {
        let is_early = |at: Instant| at.elapsed() < REPORT_INTERVAL;
        if !is_last && self.reported_at.is_some_and(is_early) {
            return Ok(());
        }
        let mut counts = [0; 3];
        for slice in &self.slices {
            let is_gone = slice.is_over() || slice.gone_since.is_some();
            let kind = if is_gone {
                2
            } else {
                usize::from(slice.is_running())
            };
            counts[kind] += 1;
        }
        let is_pending = |row: &&JobRow| job_state(&row.state) == JobState::Pending;
        let mut open = self.slices.iter().filter(|slice| !slice.is_over());
        let reason = open.find_map(|slice| slice.row.as_ref().filter(is_pending));
        let reason = reason.map(|row| row.reason.clone());
        let reason = reason.filter(|reason| !reason.is_empty() && counts[0] > 0);
        let now = Some((counts, reason.clone()));
        if self.reported == now || self.slices.is_empty() {
            return Ok(());
        }
        (self.reported, self.reported_at) = (now, Some(Instant::now()));
        let fact = Fact::new(EventKind::JobsCounted {
            task: self.calls.batch().task.order,
            n_queued: counts[0],
            n_running: counts[1],
            n_ended: counts[2],
            reason,
        });
        self.emit(CallEvent::Happened(fact))
    }
}

fn is_ended(row: &JobRow) -> bool {
    job_state(&row.state) == JobState::Ended
}
