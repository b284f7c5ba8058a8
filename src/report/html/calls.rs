//! The calls of a run with their times and their lanes in the timeline, collected from events.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::event::{Event, EventKind, Reused, TaskSummary};
use crate::json::{Map, Value};
use crate::model::CallRef;

/// A call that has started.
pub(super) struct CallRow {
    /// Order of the task.
    pub(super) task: u64,
    /// Item of the call as text, not escaped; empty for a single task.
    pub(super) name: String,
    /// Start and end, in microseconds since 1970. A call without an end ends with the last event.
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// Lane of the call, from 0. Calls that run at the same time have different lanes.
    pub(super) lane: u32,
    pub(super) state: CallState,
    pub(super) wall_time: Duration,
    /// `None` if it was not measured, as of a call that was killed.
    pub(super) cpu_time: Option<Duration>,
    pub(super) peak_memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    Done,
    Failed,
    /// Running, or killed with the run.
    Open,
}

/// All calls of a run, in the order of their start. If a task is replaced by another one, its calls
/// are removed.
#[derive(Default)]
pub(super) struct CallTable {
    pub(super) rows: Vec<CallRow>,
    /// Index in `rows`, by task and call.
    open: HashMap<(u64, (u32, usize)), usize>,
    /// Names of the tasks that have started, by their order.
    names: HashMap<u64, String>,
    /// Items of the calls whose results the next task reuses.
    listed: HashSet<String>,
    /// Lanes without a call at present. Events do not name the worker of a call, so each call gets
    /// the lowest free lane.
    free: BTreeSet<u32>,
    pub(super) n_lanes: u32,
    /// Time of the last event, in microseconds since 1970.
    last_us: i64,
    /// Ends of the interrupted runs, each with the time at which the run was resumed.
    pub(super) gaps: Vec<(i64, i64)>,
}

impl CallTable {
    /// Adds the next event of the log.
    pub(super) fn add(&mut self, event: &Event) {
        let now_us = event.time.as_microsecond();
        match &event.kind {
            // The calls that are open now were interrupted with their run.
            EventKind::RunResumed(_) => {
                self.close_all(self.last_us);
                self.gaps.push((self.last_us.min(now_us), now_us));
            }
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
            EventKind::CallStarted { call, .. } => self.begin(call, now_us),
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
                // Never before the start, even if the clock was set back.
                row.end_us = now_us.max(row.start_us);
                row.wall_time = usage.wall_time;
                row.cpu_time = usage.cpu_time;
                row.peak_memory_bytes = usage.peak_memory_bytes;
                self.free.insert(row.lane);
            }
            _ => {}
        }
        self.last_us = now_us;
    }

    /// Closes the calls that have no end of their own.
    pub(super) fn close_all(&mut self, now_us: i64) {
        for (_, index) in self.open.drain() {
            let row = &mut self.rows[index];
            row.end_us = now_us.max(row.start_us);
            row.wall_time = Duration::from_micros(row.end_us.abs_diff(row.start_us));
            self.free.insert(row.lane);
        }
    }

    /// Removes the calls of tasks that are not part of the run any more, once all calls have ended.
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
            name: item_name(call.item.as_ref()),
            start_us,
            end_us: start_us,
            lane,
            state: CallState::Open,
            wall_time: Duration::ZERO,
            cpu_time: None,
            peak_memory_bytes: 0,
        });
    }
}

/// Returns the name of an item: [`item_text`], but for an object its first text and the keys of all
/// that it has in addition.
fn item_name(item: Option<&Value>) -> String {
    let text_of = |members: &Map<String, Value>| {
        let (text_key, text) = members
            .iter()
            .find_map(|(key, value)| Some((key, value.as_str()?)))?;
        let others = members.keys().filter(|key| *key != text_key);
        let others: Vec<_> = others.map(String::as_str).collect();
        Some(if others.is_empty() {
            text.to_owned()
        } else {
            format!("{text} with {}", others.join(", "))
        })
    };
    item.and_then(Value::as_object)
        .and_then(text_of)
        .unwrap_or_else(|| item_text(item))
}

/// Returns an item as people know it: the text of a string, any other value as JSON.
pub(super) fn item_text(item: Option<&Value>) -> String {
    match item {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_have_their_first_text_as_their_name() {
        for (item, name) in [
            (json!("B/03/0"), "B/03/0"),
            (json!(7), "7"),
            (json!({ "zarr_url": "/a/B/03/0" }), "/a/B/03/0"),
            (
                json!({ "zarr_url": "/a/B/03/0", "init_args": { "z": "text" } }),
                "/a/B/03/0 with init_args",
            ),
            (json!({ "n": 1 }), r#"{"n":1}"#),
        ] {
            assert_eq!(item_name(Some(&item)), name);
        }
        assert_eq!(item_name(None), "");
    }
}
