//! Events → the calls of a run with the times and the lanes of its timeline.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::event::{Event, EventKind, Reused, TaskSummary};
use crate::json::Value;
use crate::model::CallRef;

/// A call that has begun.
pub(super) struct CallRow {
    /// Order of its task.
    pub(super) task: u64,
    /// Its item as text, not escaped; empty for a single task.
    pub(super) name: String,
    /// When it began and ended, in microseconds since 1970; an end is the last event where there is
    /// none.
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// Calls that run at the same time have different lanes, from 0.
    pub(super) lane: u32,
    pub(super) state: CallState,
    pub(super) wall_time: Duration,
    pub(super) peak_memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    Done,
    Failed,
    /// Running, or killed with the run.
    Open,
}

/// All calls of a run, in the order of their beginning. If another task takes the place of one, the
/// calls of that are gone.
#[derive(Default)]
pub(super) struct CallTable {
    pub(super) rows: Vec<CallRow>,
    /// Position in `rows` by task and call.
    open: HashMap<(u64, (u32, usize)), usize>,
    /// Names of the tasks that have begun, by their order.
    names: HashMap<u64, String>,
    /// Items of calls that the next task keeps.
    listed: HashSet<String>,
    /// Lanes without a call now. Events do not say which worker runs a call: the lowest free lane
    /// gets it.
    free: BTreeSet<u32>,
    pub(super) n_lanes: u32,
}

impl CallTable {
    /// Takes the next event of the log.
    pub(super) fn add(&mut self, event: &Event) {
        let now_us = event.time.as_microsecond();
        match &event.kind {
            // Calls that are open now were killed, and the run was resumed.
            EventKind::RunResumed(_) => self.close_all(now_us),
            EventKind::CallReused { call, .. } => {
                self.listed.insert(item_text(call.item.as_ref()));
            }
            EventKind::TaskStarted {
                task,
                batch: 0,
                name,
                reused,
                ..
            } => {
                self.close_all(now_us);
                let listed = std::mem::take(&mut self.listed);
                let before = self.names.insert(*task, name.clone());
                if *reused == Reused::None && before.is_some_and(|before| before != *name) {
                    self.rows.retain(|row| row.task != *task);
                }
                if *reused == Reused::Listed {
                    self.rows
                        .retain(|row| row.task != *task || listed.contains(&row.name));
                }
            }
            EventKind::CallStarted(call) => self.begin(call, now_us),
            EventKind::CallFinished {
                call,
                outcome,
                usage,
                ..
            } => {
                let index = self
                    .open
                    .remove(&(call.task, call.key()))
                    .unwrap_or_else(|| {
                        let micros = i64::try_from(usage.wall_time.as_micros()).unwrap_or(i64::MAX);
                        self.begin(call, now_us.saturating_sub(micros));
                        self.open.remove(&(call.task, call.key()));
                        self.rows.len() - 1
                    });
                let row = &mut self.rows[index];
                let failed = outcome.failure_kind().is_some();
                row.state = if failed {
                    CallState::Failed
                } else {
                    CallState::Done
                };
                // Never before its start, whatever the clock did.
                row.end_us = now_us.max(row.start_us);
                row.wall_time = usage.wall_time;
                row.peak_memory_bytes = usage.peak_memory_bytes;
                self.free.insert(row.lane);
            }
            _ => {}
        }
    }

    /// Ends the calls that have no end of their own.
    pub(super) fn close_all(&mut self, now_us: i64) {
        for (_, index) in self.open.drain() {
            let row = &mut self.rows[index];
            row.end_us = now_us.max(row.start_us);
            row.wall_time = Duration::from_micros(row.end_us.abs_diff(row.start_us));
            self.free.insert(row.lane);
        }
    }

    /// Removes the calls of tasks that are not of the run any more, once all have ended.
    pub(super) fn retain_tasks(&mut self, tasks: &[TaskSummary]) {
        self.rows
            .retain(|row| tasks.iter().any(|task| task.order == row.task));
    }

    fn begin(&mut self, call: &CallRef, start_us: i64) {
        let lane = self.free.pop_first().unwrap_or_else(|| {
            self.n_lanes += 1;
            self.n_lanes - 1
        });
        self.open.insert((call.task, call.key()), self.rows.len());
        self.rows.push(CallRow {
            task: call.task,
            name: item_text(call.item.as_ref()),
            start_us,
            end_us: start_us,
            lane,
            state: CallState::Open,
            wall_time: Duration::ZERO,
            peak_memory_bytes: 0,
        });
    }
}

/// An item as people know it: a string itself, any other value as JSON.
pub(super) fn item_text(item: Option<&Value>) -> String {
    match item {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
