//! Summary of a run, computed from its events: its progress and its failures, for the status and
//! the report.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::{EndOfLog, Event, EventKind, EventLog, Reused, RunStarted, RunTask, Status};
use crate::json::Value;
use crate::model::{ItemChanges, Outcome, ScriptRef, Usage};
use crate::text::span;

/// Number of failed calls of a task whose messages are kept in full. There can be a million others.
const MAX_IN_FULL: usize = 1000;
/// Characters kept of the messages of the others.
const MAX_MESSAGE_CHARS: usize = 200;
/// Maximum number of warnings that are kept.
const MAX_WARNINGS: usize = 10_000;

/// Summary of a run, finished or not, computed from its events.
#[derive(Clone, Debug, Default)]
pub struct RunSummary {
    /// Facts known at its start; `None` before the first event.
    pub run: Option<Box<RunStarted>>,
    /// Time of the first event.
    pub started: Timestamp,
    /// Time of the last event.
    pub last_event: Timestamp,
    /// Status of the run; `None` if it is running, or was killed.
    pub end: Option<Status>,
    /// Name of the error that ended the run.
    pub error: Option<String>,
    /// The tasks of the run that have started, in their order.
    pub tasks: Vec<TaskSummary>,
    /// Warnings so far, not escaped.
    pub warnings: Vec<String>,
    /// Times at which the run was resumed.
    pub resumed: Vec<Timestamp>,
    /// Keys of the calls whose results the next task reuses.
    reused: Vec<(u32, usize)>,
    /// Tasks that are not part of the run any more, or have another name. They count again if their
    /// results are reused.
    others: Vec<TaskSummary>,
}

/// A task that has started.
#[derive(Clone, Debug)]
pub struct TaskSummary {
    /// Order of the task.
    pub order: u64,
    /// Name of the task.
    pub name: String,
    /// Number of calls.
    pub n_calls: usize,
    /// Number of calls that had succeeded before the task's last start, and were not rerun.
    pub n_reused: usize,
    /// Name of the list of items; `None` for a single task.
    pub items: Option<String>,
    /// SHA-256 of the module.
    pub module_sha256: String,
    /// Script that the module interprets; `None`: the module is the task.
    pub script: Option<Box<ScriptRef>>,
    /// Time of the start. After a resumption, this is the last start that had calls to run.
    pub started: Timestamp,
    /// Time of the end, and the status.
    pub end: Option<(Timestamp, Status)>,
    /// Total run time of the calls.
    pub total_time: Duration,
    /// Total CPU time of the calls that took 1 ms or more.
    pub total_cpu_time: Duration,
    /// Longest run time of a call.
    pub longest_time: Duration,
    /// Largest peak memory of a call, in bytes.
    pub peak_memory_bytes: u64,
    /// Number of calls that succeeded and wrote warnings.
    pub n_warnings: usize,
    /// Changes of the list of items of the dataset; `None` if it has none, or before the end of the
    /// task.
    pub changes: Option<ItemChanges>,
    /// Jobs of a cluster that run its calls; `None` if its calls run on this machine.
    pub jobs: Option<JobSummary>,
    /// Calls whose last attempt failed, by their keys.
    pub failed: BTreeMap<(u32, usize), FailedCall>,
    /// State of the other calls that have started.
    others: HashMap<(u32, usize), Progress>,
}

/// Jobs of a cluster that run the calls of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobSummary {
    /// Number of jobs that wait in the queue, or are not submitted yet.
    pub n_queued: usize,
    /// Number of jobs that run.
    pub n_running: usize,
    /// Number of jobs that have ended.
    pub n_ended: usize,
    /// Reason why jobs wait, as the cluster names it.
    pub reason: Option<String>,
    /// Total time that jobs spent in the queue, in seconds, and the number of these jobs.
    pub queued_s: (f64, usize),
    /// Total time that jobs ran, in seconds, and the number of these jobs.
    pub ran_s: (f64, usize),
}

impl JobSummary {
    fn count(&mut self, n_queued: usize, n_running: usize, n_ended: usize) {
        (self.n_queued, self.n_running, self.n_ended) = (n_queued, n_running, n_ended);
    }

    fn add_ended(&mut self, queued_s: Option<f64>, ran_s: Option<f64>) {
        for (sum, time) in [(&mut self.queued_s, queued_s), (&mut self.ran_s, ran_s)] {
            if let Some(time) = time {
                *sum = (sum.0 + time, sum.1 + 1);
            }
        }
    }

    /// Describes the jobs: their numbers, and their mean times in the queue and on nodes.
    pub fn describe(&self) -> String {
        let Self {
            n_queued,
            n_running,
            n_ended,
            ..
        } = self;
        let mut text = format!("{n_queued} queued, {n_running} running, {n_ended} ended");
        if let (Some(reason), true) = (&self.reason, *n_queued > 0) {
            text.push_str(&format!(" (waiting for: {reason})"));
        }
        for (name, (sum, n)) in [("queue", self.queued_s), ("run", self.ran_s)] {
            if n > 0 {
                text.push_str(&format!("; mean {name} time {:.1} s", sum / n as f64));
            }
        }
        text
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running,
    Done,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct FailedCall {
    /// Item of the call; `None` for a single call.
    pub item: Option<Value>,
    /// Path of the file with its stderr, relative to the work directory.
    pub stderr: Option<String>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Outcome of the call.
    pub outcome: Outcome,
    /// Resource usage of the call.
    pub usage: Usage,
}

impl RunSummary {
    /// Adds the next event of the log.
    pub fn add(&mut self, event: &Event) {
        self.last_event = event.time;
        match &event.kind {
            EventKind::RunStarted(run) => {
                (self.run, self.started) = (Some(run.clone()), event.time);
            }
            EventKind::RunResumed(run) => {
                self.run = Some(run.clone());
                (self.end, self.error) = (None, None);
                self.resumed.push(event.time);
                for task in &mut self.tasks {
                    task.others
                        .retain(|_, progress| *progress == Progress::Done);
                }
                let is_gone =
                    |task: &mut TaskSummary| !run.tasks.iter().any(|planned| task.is(planned));
                self.others.extend(self.tasks.extract_if(.., is_gone));
            }
            EventKind::Warning { message } if self.warnings.len() < MAX_WARNINGS => {
                self.warnings.push(message.clone())
            }
            EventKind::CallReused { call, .. } => self.reused.push(call.key()),
            EventKind::TaskStarted {
                task,
                batch,
                name,
                n_calls,
                items,
                module_sha256,
                script,
                reused,
                ..
            } => {
                let listed = std::mem::take(&mut self.reused);
                let known = self.begin(*task);
                if *batch > 0 {
                    known.begin_batch(*batch, *n_calls, *reused, listed);
                    return;
                }
                if *reused == Reused::None && known.name != *name {
                    *known = TaskSummary::new(*task);
                }
                (known.n_calls, known.n_warnings, known.changes) = (0, 0, None);
                known.jobs = None;
                known.begin_batch(0, *n_calls, *reused, listed);
                // A task without calls to run keeps its times, too.
                if known.n_reused < *n_calls || !matches!(known.end, Some((_, Status::Done))) {
                    (known.started, known.end) = (event.time, None);
                }
                known.name.clone_from(name);
                known.items.clone_from(items);
                known.module_sha256.clone_from(module_sha256);
                known.script.clone_from(script);
                if known.n_reused < *n_calls {
                    self.forget_after(*task);
                }
            }
            EventKind::CallStarted { call, .. } => {
                if let Some(task) = self.task_mut(call.task) {
                    task.failed.remove(&call.key());
                    task.others.insert(call.key(), Progress::Running);
                }
            }
            EventKind::CallFinished {
                call,
                outcome,
                usage,
                stderr,
                ..
            } => {
                if let Some(task) = self.task_mut(call.task) {
                    if outcome.failure_kind().is_none() {
                        task.add_success(call.key(), usage);
                        return;
                    }
                    let failed = FailedCall {
                        item: call.item.clone(),
                        stderr: stderr.clone(),
                        attempt: call.attempt,
                        outcome: outcome.clone(),
                        usage: usage.clone(),
                    };
                    task.add_failure(call.key(), failed);
                }
            }
            EventKind::JobsCounted {
                task,
                n_queued,
                n_running,
                n_ended,
                reason,
            } => {
                if let Some(task) = self.task_mut(*task) {
                    let jobs = task.jobs.get_or_insert_default();
                    jobs.count(*n_queued, *n_running, *n_ended);
                    jobs.reason.clone_from(reason);
                }
            }
            EventKind::JobEnded {
                task,
                queued_s,
                ran_s,
                ..
            } => {
                if let Some(task) = self.task_mut(*task) {
                    let jobs = task.jobs.get_or_insert_default();
                    jobs.add_ended(*queued_s, *ran_s);
                }
            }
            EventKind::ItemsChanged { task, changes } => {
                if let Some(task) = self.task_mut(*task) {
                    task.changes = Some(*changes);
                }
            }
            EventKind::TaskFinished { task, status, .. } => {
                if let Some(task) = self.task_mut(*task) {
                    task.end.get_or_insert((event.time, *status));
                }
            }
            EventKind::RunFinished { status, error } => {
                (self.end, self.error) = (Some(*status), error.as_ref().map(ToString::to_string));
            }
            EventKind::Note { .. }
            | EventKind::SnapshotStarted { .. }
            | EventKind::SnapshotMade { .. }
            | EventKind::Rerun { .. }
            | EventKind::Warning { .. }
            | EventKind::CallLogged { .. }
            | EventKind::CallProgress { .. }
            | EventKind::DatasetUpdated { .. } => {}
        }
    }

    /// Adds a warning if the log of the events is damaged.
    pub fn note_damage(&mut self, end: &EndOfLog) {
        let text = |damage| {
            format!(
                "{} {damage}; `run --resume` reruns the calls that were lost",
                EventLog::NAME
            )
        };
        self.warnings.extend(end.damage().map(text));
    }

    /// Returns the number of tasks of the run; `None` if the log does not contain it.
    pub fn n_tasks(&self) -> Option<usize> {
        let run = self.run.as_deref()?;
        Some(
            run.last_task_index?
                .checked_sub(run.first_task_index?)?
                .saturating_add(1),
        )
    }

    /// Returns the time from the first event to the last.
    pub fn elapsed(&self) -> Duration {
        span(self.started, self.last_event)
    }

    /// Returns the task with an order, which starts now.
    fn begin(&mut self, order: u64) -> &mut TaskSummary {
        let index = match self.tasks.binary_search_by_key(&order, |task| task.order) {
            Ok(index) => index,
            Err(index) => {
                let other = self.others.iter().position(|task| task.order == order);
                let task = other.map_or_else(
                    || TaskSummary::new(order),
                    |other| self.others.swap_remove(other),
                );
                self.tasks.insert(index, task);
                index
            }
        };
        &mut self.tasks[index]
    }

    /// Removes the later tasks, whose data a task is about to replace.
    fn forget_after(&mut self, order: u64) {
        self.tasks.retain(|task| task.order <= order);
        self.others.retain(|task| task.order <= order);
    }

    fn task_mut(&mut self, order: u64) -> Option<&mut TaskSummary> {
        // The running task is the last one, except for tasks whose results may all be reused.
        self.tasks.iter_mut().rev().find(|task| task.order == order)
    }
}

impl TaskSummary {
    fn new(order: u64) -> Self {
        Self {
            order,
            name: String::new(),
            n_calls: 0,
            n_reused: 0,
            items: None,
            module_sha256: String::new(),
            script: None,
            started: Timestamp::UNIX_EPOCH,
            end: None,
            total_time: Duration::ZERO,
            total_cpu_time: Duration::ZERO,
            longest_time: Duration::ZERO,
            peak_memory_bytes: 0,
            n_warnings: 0,
            changes: None,
            jobs: None,
            failed: BTreeMap::new(),
            others: HashMap::new(),
        }
    }

    /// Returns true if this is the given task of a run.
    fn is(&self, task: &RunTask) -> bool {
        self.order == task.task && self.name == task.name
    }

    /// Adds the calls of a batch, of which some results may be known.
    fn begin_batch(
        &mut self,
        batch: u32,
        n_calls: usize,
        reused: Reused,
        listed: Vec<(u32, usize)>,
    ) {
        self.n_calls = self.n_calls.saturating_add(n_calls);
        if reused != Reused::All {
            self.others.retain(|(of, _), _| *of < batch);
            self.others
                .extend(listed.into_iter().map(|key| (key, Progress::Done)));
            self.failed.retain(|(of, _), _| *of < batch);
        }
        // Calls of earlier batches have run since.
        let earlier = if batch == 0 { 0 } else { self.n_reused };
        let is_of_batch = |(of, _): &&(u32, usize)| *of == batch;
        self.n_reused = earlier + self.others.keys().filter(is_of_batch).count();
    }

    fn add_usage(&mut self, usage: &Usage) {
        self.total_time = self.total_time.saturating_add(usage.wall_time);
        let cpu_time = usage.cpu_time.unwrap_or_default();
        self.total_cpu_time = self.total_cpu_time.saturating_add(cpu_time);
        self.longest_time = self.longest_time.max(usage.wall_time);
        self.peak_memory_bytes = self.peak_memory_bytes.max(usage.peak_memory_bytes);
    }

    fn add_success(&mut self, key: (u32, usize), usage: &Usage) {
        self.add_usage(usage);
        self.failed.remove(&key);
        self.n_warnings += usize::from(usage.has_warnings == Some(true));
        self.others.insert(key, Progress::Done);
    }

    fn add_failure(&mut self, key: (u32, usize), mut failed: FailedCall) {
        self.add_usage(&failed.usage);
        self.others.remove(&key);
        if self.failed.len() >= MAX_IN_FULL {
            failed.outcome.shorten(MAX_MESSAGE_CHARS);
        }
        self.failed.insert(key, failed);
    }

    /// Returns the number of calls that succeeded.
    pub fn n_done(&self) -> usize {
        self.others.len() - self.n_running()
    }

    /// Returns the number of calls that have started but not ended. In a run that was killed, these
    /// are the calls that were interrupted.
    pub fn n_running(&self) -> usize {
        self.others
            .values()
            .filter(|progress| **progress == Progress::Running)
            .count()
    }

    /// Returns the number of calls that have not started.
    pub fn n_to_do(&self) -> usize {
        self.n_calls
            .saturating_sub(self.others.len() + self.failed.len())
    }

    /// Returns the time from the start of the task to its end, or to `now` if it has not ended.
    pub fn elapsed(&self, now: Timestamp) -> Duration {
        span(self.started, self.end.map_or(now, |(time, _)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CallLimits, FORMAT_VERSION};
    use crate::model::CallRef;

    fn summary(kinds: Vec<EventKind>) -> RunSummary {
        let mut summary = RunSummary::default();
        for (kind, seq) in kinds.into_iter().zip(0_u32..) {
            let time = Timestamp::new(seq.into(), 0).expect("a time");
            summary.add(&Event {
                seq: seq.into(),
                time,
                kind,
            });
        }
        summary
    }

    fn task_started(n_calls: usize, kept: Reused) -> EventKind {
        EventKind::TaskStarted {
            args_digest: "11".into(),
            limits: CallLimits::default(),
            reused: kept,
            n_reused: 0,
            n_available: None,
            task: 3,
            batch: 0,
            name: "t".into(),
            n_calls,
            items: Some("well".into()),
            module_sha256: "00".into(),
            script: None,
            files: None,
        }
    }

    fn run_started() -> Box<RunStarted> {
        Box::new(RunStarted {
            format_version: FORMAT_VERSION,
            mandelbox_version: "0.1.0".into(),
            backend: "local".into(),
            workflow: "w".into(),
            logger_name: "w".into(),
            work_dir: "/w".into(),
            input_paths: Vec::new(),
            output_path: "/o".into(),
            item_kind: "item".into(),
            only: Vec::new(),
            input_metadata_keys: Vec::new(),
            first_task_index: None,
            last_task_index: None,
            tasks: vec![RunTask {
                task: 3,
                name: "t".into(),
                workflow_task: None,
            }],
            output: None,
            inputs: Vec::new(),
        })
    }

    fn call(call_index: usize, attempt: u32) -> CallRef {
        CallRef {
            task: 3,
            batch: 0,
            call_index,
            item: Some(call_index.into()),
            attempt,
        }
    }

    fn ended(call: CallRef, outcome: Outcome) -> EventKind {
        EventKind::CallFinished {
            call,
            outcome,
            usage: Usage::default(),
            retry_in_s: None,
            stderr: None,
            item_urls: None,
        }
    }

    fn counts(task: &TaskSummary) -> (usize, usize, usize, usize) {
        (
            task.n_done(),
            task.failed.len(),
            task.n_running(),
            task.n_to_do(),
        )
    }

    #[test]
    fn calls_are_counted_by_their_last_attempt() {
        let mut kinds = vec![task_started(5, Reused::None)];
        let started = |call| EventKind::CallStarted { call, files: None };
        kinds.extend((0..4).map(|index| started(call(index, 1))));
        kinds.push(ended(call(0, 1), Outcome::Succeeded { output: None }));
        kinds.push(ended(call(1, 1), Outcome::Exited { code: 1 }));
        kinds.push(ended(call(2, 1), Outcome::Cancelled));
        assert_eq!(counts(&summary(kinds.clone()).tasks[0]), (1, 2, 1, 1));
        kinds.push(started(call(1, 2)));
        assert_eq!(counts(&summary(kinds.clone()).tasks[0]), (1, 1, 2, 1));
        kinds.push(ended(call(1, 2), Outcome::Succeeded { output: None }));
        assert_eq!(counts(&summary(kinds.clone()).tasks[0]), (2, 1, 1, 1));
        // After the resumption, the call that was running when the run was killed is not running.
        kinds.push(EventKind::RunFinished {
            status: Status::Failed,
            error: Some("e".into()),
        });
        assert_eq!(summary(kinds.clone()).end, Some(Status::Failed));
        kinds.push(EventKind::RunResumed(run_started()));
        kinds.push(task_started(5, Reused::All));
        let again = summary(kinds.clone());
        assert_eq!(
            (counts(&again.tasks[0]), again.end, again.tasks.len()),
            ((2, 1, 0, 2), None, 1)
        );
        assert_eq!((again.tasks[0].n_reused, again.resumed.len()), (2, 1));
        // One item was removed from the list, so the call that is named has another index now.
        kinds.push(EventKind::CallReused {
            call: call(3, 1),
            output: None,
        });
        let mut listed = kinds.clone();
        listed.push(task_started(4, Reused::Listed));
        assert_eq!(counts(&summary(listed).tasks[0]), (1, 0, 0, 3));
        kinds.pop();
        kinds.push(task_started(5, Reused::None));
        assert_eq!(counts(&summary(kinds).tasks[0]), (0, 0, 0, 5));
    }
}
