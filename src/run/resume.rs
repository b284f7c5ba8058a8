//! The event log → the calls still to make.
//!
//! A call that ended well is not made again if everything that its result can depend on is as it
//! was: the version of mandelbox, the module, args and the like (as their digest), limits, and its
//! component. And not if a call of an earlier task was made after it, since then the data that it
//! worked on may be others.
//!
//! Events can be missing in a log that was damaged. What is known then must not be more than what
//! is true, so that a call may run again that need not, but none is kept that must not. Tasks of a
//! session begin in their order, each with an event. So between two events of one session no task
//! but the last one and later ones can have begun: results of later tasks, which are from earlier
//! sessions, are forgotten. Where the start of a session is missing, any task can have begun, with
//! any args: all results are forgotten, and what follows does not count before the next start.
//! Results of a task count if the event of its start is there, which says what they depend on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;

use crate::backend::calls::{TaskCalls, ToDo};
use crate::event::{
    CallLimits, EndOfLog, Event, EventKind, EventLog, InputState, Kept, Lost, ReadEventsError,
    RunStarted, visit_log,
};
use crate::json::{Map, Value, build_json};
use crate::model::{CallRef, Outcome};

/// Everything that the results of a task depend on beside its components.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskKey {
    version: String,
    pub(super) module_sha256: String,
    pub(super) args_digest: String,
    pub(super) limits: CallLimits,
}

impl TaskKey {
    /// The key of a task that is about to run.
    ///
    /// * `settings`: those of the backend.
    pub(super) fn of(calls: &TaskCalls, settings: &str) -> Self {
        let task = calls.task();
        let mut digest = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        add(settings.as_bytes());
        add(calls.shared_args());
        let texts = task.fixed_args.iter().map(String::as_str);
        let env = task
            .env
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let mounts = task
            .mounts
            .iter()
            .map(|mount| (mount.guest_path.as_str(), mount.host_path.to_string_lossy()));
        for texts in [texts.collect::<Vec<_>>(), env.collect()] {
            add(&(texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| add(text.as_bytes()));
        }
        for (guest_path, host_path) in mounts {
            add(guest_path.as_bytes());
            add(host_path.as_bytes());
        }
        let mut metadata: Vec<_> = calls.metadata().texts().into_iter().collect();
        metadata.sort_unstable();
        for (key, text) in metadata {
            add(key.as_bytes());
            add(text.as_bytes());
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            module_sha256: task.module.sha256.clone(),
            args_digest: digest.finalize().to_hex().to_string(),
            limits: CallLimits::from(&task.limits),
        }
    }

    /// What is not as it was, for a reader of the run's log.
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
        if self.args_digest != before.args_digest {
            changes.push("the arguments, or what else the task sees, have changed".to_owned());
        }
        if self.limits != before.limits {
            changes.push("the limits of a call have changed".to_owned());
        }
        changes.join(", ")
    }
}

/// What the log of an earlier run says.
#[derive(Debug, Default)]
pub(super) struct EarlierRun {
    /// Facts of its last start; `None` if there is no event.
    pub(super) run: Option<Box<RunStarted>>,
    pub(super) end: EndOfLog,
    /// True if the output folder held something when the last task ended.
    pub(super) had_output: bool,
    tasks: BTreeMap<u64, EarlierTask>,
    /// Calls that the next task is said to keep.
    listed: Vec<(CallRef, Option<Map<String, Value>>)>,
    /// The task that has begun last in this session.
    current: Option<u64>,
    /// True if the start of the session is missing.
    is_unknown_session: bool,
    /// What was in the inputs when the session started.
    inputs: Rc<[InputState]>,
}

/// What the log says of one task.
#[derive(Debug, Default)]
struct EarlierTask {
    key: TaskKey,
    started: Timestamp,
    ended: Timestamp,
    done: HashMap<usize, EarlierCall>,
    /// What was in the inputs before the first of them.
    inputs: Rc<[InputState]>,
    /// Attempts of calls that have not ended well.
    attempts: HashMap<usize, u32>,
}

/// A call that ended well.
#[derive(Debug)]
struct EarlierCall {
    component: ComponentDigest,
    attempt: u32,
    metadiff: Option<Map<String, Value>>,
}

/// Digest of a component; there can be millions.
type ComponentDigest = [u8; 16];

fn digest_of(component: Option<&Value>) -> ComponentDigest {
    let text = component
        .map(|component| build_json(component, 0))
        .unwrap_or_default();
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&text).as_bytes()[..16]);
    digest
}

/// What a task keeps of an earlier run.
#[derive(Debug, Default)]
pub(super) struct KeptCalls {
    /// Position and metadiff of each call that is not made again, in the order of their positions.
    pub(super) calls: Vec<(CallRef, Option<Map<String, Value>>)>,
    /// How the log says so.
    pub(super) kept: Kept,
    /// When the task began, if a call is kept.
    pub(super) started: Option<Timestamp>,
    /// When it ended, if no call is left to make.
    pub(super) ended: Option<Timestamp>,
    /// What to make.
    pub(super) to_do: ToDo,
    /// Why calls that ended well are made again; `None`: none is.
    pub(super) reason: Option<String>,
    /// What was in the inputs before the first of the kept calls.
    pub(super) inputs: Rc<[InputState]>,
}

impl EarlierRun {
    /// Reads the log of a work directory. One that is not there, or without an event, is a run that
    /// never began.
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
                self.forget_from(self.current.map_or(0, |order| order.saturating_add(1)));
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
            EventKind::CallKept { call, metadiff } => self.listed.push((call, metadiff)),
            EventKind::TaskStarted {
                task,
                module_sha256,
                args_digest,
                limits,
                kept,
                n_calls,
                n_kept,
                ..
            } => {
                self.current = Some(task);
                // It makes calls now, whether or not the events of these have come to the disk.
                if n_kept < n_calls {
                    self.forget_from(task.saturating_add(1));
                }
                let mut listed = std::mem::take(&mut self.listed);
                listed.retain(|(call, _)| call.task == task);
                let version = self
                    .run
                    .as_ref()
                    .map(|run| run.mandelbox_version.to_string())
                    .unwrap_or_default();
                let known = self.tasks.entry(task).or_default();
                known.key = TaskKey {
                    version,
                    module_sha256,
                    args_digest,
                    limits,
                };
                if listed.is_empty() && (kept != Kept::All || known.done.is_empty()) {
                    known.inputs = Rc::clone(&self.inputs);
                }
                if kept != Kept::All {
                    (known.done, known.started) = (HashMap::new(), event.time);
                    known.attempts.clear();
                    known.done.extend(
                        listed
                            .into_iter()
                            .map(|(call, metadiff)| EarlierCall::of(&call, metadiff)),
                    );
                }
                known.ended = event.time;
            }
            EventKind::CallStarted(call) => {
                if self
                    .tasks
                    .last_key_value()
                    .is_some_and(|(order, _)| *order > call.task)
                {
                    self.forget_from(call.task.saturating_add(1));
                }
                if let Some(task) = self.tasks.get_mut(&call.task) {
                    task.attempts.insert(call.call_index, call.attempt);
                }
            }
            EventKind::CallFinished {
                call,
                outcome: Outcome::Succeeded { metadiff },
                ..
            } => {
                if let Some(task) = self.tasks.get_mut(&call.task) {
                    task.attempts.remove(&call.call_index);
                    task.done.extend([EarlierCall::of(&call, metadiff)]);
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

    /// Number of calls whose results count, as far as the log says, of tasks with these orders.
    pub(super) fn n_done(&self, is_of_run: impl Fn(u64) -> bool) -> usize {
        self.tasks
            .iter()
            .filter(|(order, _)| is_of_run(**order))
            .map(|(_, task)| task.done.len())
            .sum()
    }

    /// Drops the results of a task and of all that come after it. Returns how many there were.
    pub(super) fn forget_from(&mut self, order: u64) -> usize {
        self.tasks
            .split_off(&order)
            .values()
            .map(|task| task.done.len())
            .sum()
    }

    /// Takes what a task keeps. Asked for each task once, in the order in which they run.
    ///
    /// * `key`: that of the task now.
    /// * `calls`: all that it has, whichever are made.
    pub(super) fn keep(&mut self, key: &TaskKey, calls: &TaskCalls) -> KeptCalls {
        let none = |reason| KeptCalls {
            to_do: ToDo::These((0..calls.len()).map(|call_index| (call_index, 1)).collect()),
            reason,
            ..KeptCalls::default()
        };
        let Some(task) = self.tasks.remove(&calls.task().order) else {
            return none(None);
        };
        let n_done = task.done.len();
        if *key != task.key {
            let reason = format!(
                "{n_done} calls had ended well but are made again: {}",
                key.changes_since(&task.key)
            );
            return none((n_done > 0).then_some(reason));
        }
        let component_at = |index: usize| digest_of(calls.component(index));
        let is_same = |(index, call): (&usize, &EarlierCall)| {
            *index < calls.len() && component_at(*index) == call.component
        };
        let (kept, mut done) = if task.done.iter().all(is_same) {
            (Kept::All, task.done)
        } else {
            (Kept::Listed, moved(task.done, calls.len(), component_at))
        };
        let attempts = if kept == Kept::All {
            task.attempts
        } else {
            HashMap::new()
        };
        let to_do = (0..calls.len()).filter(|index| !done.contains_key(index));
        let to_do: Vec<_> = to_do
            .map(|index| (index, attempts.get(&index).map_or(1, |number| number + 1)))
            .collect();
        let n_lost = n_done - done.len();
        let mut indices: Vec<_> = done.keys().copied().collect();
        indices.sort_unstable();
        let kept_calls = indices.into_iter().filter_map(|call_index| {
            let call = done.remove(&call_index)?;
            let component = calls.component(call_index).cloned();
            Some((
                CallRef {
                    task: calls.task().order,
                    call_index,
                    component,
                    attempt: call.attempt,
                },
                call.metadiff,
            ))
        });
        KeptCalls {
            calls: kept_calls.collect(),
            kept,
            started: (n_done > n_lost).then_some(task.started),
            ended: to_do.is_empty().then_some(task.ended),
            inputs: task.inputs,
            to_do: ToDo::These(to_do),
            reason: (n_lost > 0).then(|| {
                format!("{n_lost} calls had ended well whose components are not there any more")
            }),
        }
    }

    /// Says that the data of the tasks that follow are made anew. Returns whether there is a result
    /// that thereby does not count any more.
    pub(super) fn forget_after(&mut self, order: u64) -> bool {
        self.forget_from(order.saturating_add(1)) > 0
    }
}

impl EarlierCall {
    fn of(call: &CallRef, metadiff: Option<Map<String, Value>>) -> (usize, Self) {
        let component = digest_of(call.component.as_ref());
        (
            call.call_index,
            Self {
                component,
                attempt: call.attempt,
                metadiff,
            },
        )
    }
}

/// Calls at the places that their components have now. Of equal components the first stays the
/// first.
fn moved(
    done: HashMap<usize, EarlierCall>,
    n_calls: usize,
    component_at: impl Fn(usize) -> ComponentDigest,
) -> HashMap<usize, EarlierCall> {
    let mut done: Vec<_> = done.into_iter().collect();
    done.sort_unstable_by_key(|(index, _)| *index);
    let mut by_component: HashMap<ComponentDigest, VecDeque<EarlierCall>> = HashMap::new();
    for (_, call) in done {
        by_component
            .entry(call.component)
            .or_default()
            .push_back(call);
    }
    let take = |index| {
        Some((
            index,
            by_component.get_mut(&component_at(index))?.pop_front()?,
        ))
    };
    (0..n_calls).filter_map(take).collect()
}
