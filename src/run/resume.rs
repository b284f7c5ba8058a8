//! The event log → the calls that still have to run.
//!
//! A call that succeeded is not rerun if all that its result can depend on is unchanged: the
//! version of mandelbox, the module, the args and the like (as a digest), and its item. No limit
//! may be lower than it was. A call is rerun if a call of an earlier batch ran after it, since that
//! call can have changed its data.
//!
//! # Limits
//!
//! A call that succeeded within its limits would also succeed with higher ones, so its result is
//! reused if limits were raised or removed. With a lower limit it could fail, and a result that the
//! limit forbids must not count. Its recorded usage does not decide this, because memory and time
//! differ from run to run. So all calls of the batch are rerun.
//!
//! The limits of a batch are those of its last start. No result in it is from a higher limit.
//!
//! # Damaged logs
//!
//! Events can be missing in a damaged log. The rule is that a call may run again without need, but
//! no result is reused that does not count:
//!
//! - Batches of a session start in their order, each with an event. Between two events of one
//!   session, only the last batch that started and later ones can have run. Results of later
//!   batches are from earlier sessions, and are dropped.
//! - Where the start of a session is missing, any batch can have run, with any args. All results
//!   are dropped, and the events that follow do not count before the next start.
//! - Results of a batch count if the event of its start exists, which records what they depend on.
//!
//! # Order of writing
//!
//! The counterpart is in `execute.rs`: before a call changes data, the log on disk has to show
//! that a batch has started, so that results of later batches do not count any more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;

use crate::backend::{BatchCalls, Pending};
use crate::event::{
    CallLimits, EndOfLog, Event, EventKind, EventLog, InputState, Lost, ReadEventsError, Reused,
    RunStarted, visit_log,
};
use crate::json::{Map, Value, build_json};
use crate::model::{Batch, CallRef, Outcome, ScriptRef};
use crate::text::bytes_text;

/// A batch of a task; batches run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId {
    /// Order of the task.
    pub(super) task: u64,
    /// Index of the batch in it.
    pub(super) batch: u32,
}

impl BatchId {
    fn of(call: &CallRef) -> Self {
        Self {
            task: call.task,
            batch: call.batch,
        }
    }

    /// The first batch of a task.
    fn first_of(task: u64) -> Self {
        Self { task, batch: 0 }
    }

    /// The least batch that can come after this one.
    fn next(self) -> Self {
        match self.batch.checked_add(1) {
            Some(batch) => Self { batch, ..self },
            None => Self::first_of(self.task.saturating_add(1)),
        }
    }
}

/// Everything that the results of a batch depend on in addition to its items.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BatchKey {
    version: String,
    pub(super) module_sha256: String,
    pub(super) script: Option<Box<ScriptRef>>,
    pub(super) args_digest: String,
    pub(super) limits: CallLimits,
}

impl BatchKey {
    /// The key of a task that is about to run.
    ///
    /// * `settings`: those of the backend.
    pub(super) fn of(calls: &BatchCalls, settings: &str) -> Self {
        let Batch { task, metadata, .. } = calls.batch();
        let mut digest = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        add(settings.as_bytes());
        add(calls.list().shared_args().as_bytes());
        let texts = task.fixed_args.iter().map(String::as_str);
        let env = task
            .env
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let mounts = task
            .mounts
            .iter()
            .map(|mount| (mount.guest_path.as_str(), mount.host_path.to_string_lossy()));
        // Each list is preceded by its length, so that no entry can count as one of the next list.
        for texts in [texts.collect::<Vec<_>>(), env.collect()] {
            add(&(texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| add(text.as_bytes()));
        }
        add(&(task.mounts.len() as u64).to_le_bytes());
        for (guest_path, host_path) in mounts {
            add(guest_path.as_bytes());
            add(host_path.as_bytes());
        }
        let mut metadata: Vec<_> = metadata.texts().into_iter().collect();
        metadata.sort_unstable();
        add(&(metadata.len() as u64).to_le_bytes());
        for (key, text) in metadata {
            add(key.as_bytes());
            add(text.as_bytes());
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            module_sha256: task.module.sha256.clone(),
            script: task.script.clone().map(Box::new),
            args_digest: digest.finalize().to_hex().to_string(),
            limits: CallLimits::from(&task.limits),
        }
    }

    /// Describes the differences that a result can depend on, for the user; empty if there are
    /// none.
    fn changes_since(&self, before: &Self) -> String {
        let mut changes = Vec::new();
        if self.version != before.version {
            changes.push(format!(
                "the version of mandelbox has changed (it was {})",
                before.version
            ));
        }
        if self.module_sha256 != before.module_sha256 {
            changes.push("the module has changed".to_owned());
        }
        changes.extend(self.script_change(before).map(str::to_owned));
        if self.args_digest != before.args_digest {
            changes.push("the arguments, or what else the task sees, have changed".to_owned());
        }
        let lowered = lowered_limits(&self.limits, &before.limits);
        if !lowered.is_empty() {
            changes.push(format!("a limit is lower now: {}", lowered.join(" and ")));
        }
        changes.join(", ")
    }
}

impl BatchKey {
    /// Describes the difference between the scripts; `None` if there is none.
    fn script_change(&self, before: &Self) -> Option<&'static str> {
        match (&self.script, &before.script) {
            (Some(now), Some(before)) if now.sha256 != before.sha256 => {
                Some("the script has changed")
            }
            (Some(now), Some(before)) if now.environment != before.environment => {
                Some("the environment of the script, or another script of its package, has changed")
            }
            (Some(_), None) => Some("the task is a script now"),
            (None, Some(_)) => Some("the task was a script"),
            _ => None,
        }
    }
}

/// Describes each limit that is lower than before: the results of calls may depend on it.
fn lowered_limits(now: &CallLimits, before: &CallLimits) -> Vec<String> {
    // All fields, so that a new one is not forgotten.
    let CallLimits {
        memory_bytes,
        wall_time_s,
        output_bytes,
        call_output_bytes,
    } = *now;
    let sizes = [
        ("memory", memory_bytes, before.memory_bytes),
        ("stdout and stderr", output_bytes, before.output_bytes),
        ("output", call_output_bytes, before.call_output_bytes),
    ];
    let mut lowered: Vec<_> = sizes
        .iter()
        .filter(|(_, now, before)| now < before)
        .map(|(name, now, before)| {
            format!("{name} {}, was {}", bytes_text(*now), bytes_text(*before))
        })
        .collect();
    match (wall_time_s, before.wall_time_s) {
        (Some(now), Some(before)) if now < before => {
            lowered.push(format!("time {now} s, was {before} s"));
        }
        (Some(now), None) => lowered.push(format!("time {now} s, was unlimited")),
        _ => {}
    }
    lowered
}

/// State of an earlier run, from its log.
#[derive(Debug, Default)]
pub(super) struct EarlierRun {
    /// Facts of its last start; `None` if there is no event.
    pub(super) run: Option<Box<RunStarted>>,
    pub(super) end: EndOfLog,
    /// True if the output folder held something when the last task ended.
    pub(super) had_output: bool,
    tasks: BTreeMap<BatchId, EarlierTask>,
    /// Calls whose results the next batch reuses, listed before its start.
    listed: Vec<(CallRef, Option<Map<String, Value>>)>,
    /// The batch that started last in this session.
    current: Option<BatchId>,
    /// True if the start of the session is missing.
    is_unknown_session: bool,
    /// State of the inputs when the session started.
    inputs: Rc<[InputState]>,
}

/// State of a batch, from the log.
#[derive(Debug, Default)]
struct EarlierTask {
    key: BatchKey,
    started: Timestamp,
    ended: Timestamp,
    done: HashMap<usize, EarlierCall>,
    /// State of the inputs before the first of them.
    inputs: Rc<[InputState]>,
    /// Number of the last attempt of each call that has not succeeded.
    attempts: HashMap<usize, u32>,
}

/// A call that succeeded.
#[derive(Debug)]
struct EarlierCall {
    item: ItemDigest,
    attempt: u32,
    output: Option<Map<String, Value>>,
}

/// Digest of an item; there can be millions.
type ItemDigest = [u8; 16];

fn digest_of(item: Option<&Value>) -> ItemDigest {
    let text = item.map(|item| build_json(item, 0)).unwrap_or_default();
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&text).as_bytes()[..16]);
    digest
}

/// Results of an earlier run that a batch reuses.
#[derive(Debug, Default)]
pub(super) struct ReusedCalls {
    /// Each call whose result is reused, with its output, in the order of their indices.
    pub(super) calls: Vec<(CallRef, Option<Map<String, Value>>)>,
    /// Their record in the log.
    pub(super) reused: Reused,
    /// When the task began, if a result is reused.
    pub(super) started: Option<Timestamp>,
    /// When it ended, if no call has to run.
    pub(super) ended: Option<Timestamp>,
    /// The calls that have to run.
    pub(super) pending: Pending,
    /// Reason why calls that had succeeded are rerun; `None`: none is.
    pub(super) rerun_reason: Option<String>,
    /// The results that are dropped because their items do not exist any more, if any are.
    pub(super) note: Option<String>,
    /// State of the inputs before the first of the calls whose results are reused.
    pub(super) inputs: Rc<[InputState]>,
}

impl EarlierRun {
    /// Reads the log of a work directory. A missing or empty log is that of a run that never began.
    ///
    /// # Errors
    /// [`ReadEventsError`], for the log of another version too.
    pub(super) fn read(work_dir: &Path) -> Result<Self, ReadEventsError> {
        let mut earlier = Self::default();
        match visit_log(&work_dir.join(EventLog::NAME), |event, lost, _| {
            earlier.add(event, lost)
        }) {
            Ok(end) => earlier.end = end,
            Err(ReadEventsError::Io(err)) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        Ok(earlier)
    }

    fn add(&mut self, event: Event, lost: Lost) {
        match lost {
            Lost::Nothing => {}
            Lost::Events => {
                let next = self.current.map_or(BatchId::first_of(0), BatchId::next);
                self.forget(next);
            }
            Lost::Sessions => {
                self.tasks.clear();
                self.is_unknown_session = true;
            }
        }
        match event.kind {
            EventKind::RunStarted(run) | EventKind::RunResumed(run) => {
                self.listed.clear();
                self.inputs = run.inputs.as_slice().into();
                self.run = Some(run);
                (self.current, self.is_unknown_session) = (None, false);
            }
            _ if self.is_unknown_session => {}
            EventKind::CallReused { call, output } => self.listed.push((call, output)),
            EventKind::TaskStarted {
                task,
                batch,
                module_sha256,
                script,
                args_digest,
                limits,
                reused,
                n_calls,
                n_reused,
                ..
            } => {
                let id = BatchId { task, batch };
                self.current = Some(id);
                // Its calls run from now on, even if their events never reach the disk.
                if n_reused < n_calls {
                    self.forget(id.next());
                }
                let mut listed = std::mem::take(&mut self.listed);
                listed.retain(|(call, _)| BatchId::of(call) == id);
                let version = self
                    .run
                    .as_ref()
                    .map(|run| run.mandelbox_version.to_string())
                    .unwrap_or_default();
                let known = self.tasks.entry(id).or_default();
                known.key = BatchKey {
                    version,
                    module_sha256,
                    script,
                    args_digest,
                    limits,
                };
                if listed.is_empty() && (reused != Reused::All || known.done.is_empty()) {
                    known.inputs = Rc::clone(&self.inputs);
                }
                if reused != Reused::All {
                    (known.done, known.started) = (HashMap::new(), event.time);
                    known.attempts.clear();
                    known.done.extend(
                        listed
                            .into_iter()
                            .map(|(call, output)| EarlierCall::of(&call, output)),
                    );
                }
                known.ended = event.time;
            }
            EventKind::CallStarted { call, .. } => {
                let id = BatchId::of(&call);
                if self
                    .tasks
                    .last_key_value()
                    .is_some_and(|(last, _)| *last > id)
                {
                    self.forget(id.next());
                }
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.attempts.insert(call.call_index, call.attempt);
                }
            }
            EventKind::CallFinished {
                call,
                outcome: Outcome::Succeeded { output },
                ..
            } => {
                if let Some(task) = self.tasks.get_mut(&BatchId::of(&call)) {
                    task.attempts.remove(&call.call_index);
                    task.done.extend([EarlierCall::of(&call, output)]);
                    task.ended = event.time;
                }
            }
            EventKind::TaskFinished {
                output_is_empty: Some(is_empty),
                ..
            } => self.had_output = !is_empty,
            _ => {}
        }
    }

    /// Number of calls whose results count, according to the log, of tasks with these orders.
    pub(super) fn n_done(&self, is_of_run: impl Fn(u64) -> bool) -> usize {
        self.tasks
            .iter()
            .filter(|(id, _)| is_of_run(id.task))
            .map(|(_, task)| task.done.len())
            .sum()
    }

    /// Drops the results of a task and of all that come after it. Returns how many there were.
    pub(super) fn forget_from(&mut self, order: u64) -> usize {
        self.forget(BatchId::first_of(order))
    }

    /// Drops the results of a batch and of all that come after it. Returns how many there were.
    fn forget(&mut self, first: BatchId) -> usize {
        let dropped = self.tasks.split_off(&first);
        dropped.values().map(|task| task.done.len()).sum()
    }

    /// Drops the results of the batches that follow, since the data that they worked on changes.
    /// Returns true if there were any.
    pub(super) fn forget_after(&mut self, id: BatchId) -> bool {
        self.forget(id.next()) > 0
    }

    /// Takes the results of a batch that still count. Asked for each batch once, in the order in
    /// which they run.
    ///
    /// * `key`: that of the batch now.
    /// * `calls`: all that it has, whether they run or not.
    pub(super) fn reuse(&mut self, id: BatchId, key: &BatchKey, calls: &BatchCalls) -> ReusedCalls {
        let none = |reason| ReusedCalls {
            pending: Pending::Only((0..calls.len()).map(|call_index| (call_index, 1)).collect()),
            rerun_reason: reason,
            ..ReusedCalls::default()
        };
        let Some(task) = self.tasks.remove(&id) else {
            return none(None);
        };
        let n_done = task.done.len();
        let changes = key.changes_since(&task.key);
        if !changes.is_empty() {
            let reason = format!("{n_done} calls had succeeded but are rerun: {changes}");
            return none((n_done > 0).then_some(reason));
        }
        let item_at = |index: usize| digest_of(calls.item(index));
        let is_same = |(index, call): (&usize, &EarlierCall)| {
            *index < calls.len() && item_at(*index) == call.item
        };
        let (reused, mut done) = if task.done.iter().all(is_same) {
            (Reused::All, task.done)
        } else {
            (Reused::Listed, moved(task.done, calls.len(), item_at))
        };
        let attempts = match reused {
            Reused::All => task.attempts,
            _ => HashMap::new(),
        };
        let pending: Vec<_> = (0..calls.len())
            .filter(|index| !done.contains_key(index))
            .map(|index| (index, attempts.get(&index).map_or(1, |number| number + 1)))
            .collect();
        let n_lost = n_done - done.len();
        let mut indices: Vec<_> = done.keys().copied().collect();
        indices.sort_unstable();
        let reused_calls = indices.into_iter().filter_map(|call_index| {
            let call = done.remove(&call_index)?;
            let call_ref = CallRef {
                task: id.task,
                batch: id.batch,
                call_index,
                item: calls.item(call_index).cloned(),
                attempt: call.attempt,
            };
            Some((call_ref, call.output))
        });
        let note = (n_lost > 0)
            .then(|| format!("{n_lost} calls had succeeded whose items do not exist any more"));
        ReusedCalls {
            calls: reused_calls.collect(),
            reused,
            started: (n_done > n_lost).then_some(task.started),
            ended: pending.is_empty().then_some(task.ended),
            inputs: task.inputs,
            pending: Pending::Only(pending),
            rerun_reason: None,
            note,
        }
    }
}

impl EarlierCall {
    fn of(call: &CallRef, output: Option<Map<String, Value>>) -> (usize, Self) {
        let item = digest_of(call.item.as_ref());
        (
            call.call_index,
            Self {
                item,
                attempt: call.attempt,
                output,
            },
        )
    }
}

/// Maps results to the indices that their items have now. Equal items keep their order.
fn moved(
    done: HashMap<usize, EarlierCall>,
    n_calls: usize,
    item_at: impl Fn(usize) -> ItemDigest,
) -> HashMap<usize, EarlierCall> {
    let mut done: Vec<_> = done.into_iter().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    let mut by_item: HashMap<ItemDigest, VecDeque<EarlierCall>> = HashMap::new();
    for (_, call) in done {
        by_item.entry(call.item).or_default().push_back(call);
    }
    let take = |index| Some((index, by_item.get_mut(&item_at(index))?.pop_front()?));
    (0..n_calls).filter_map(take).collect()
}
