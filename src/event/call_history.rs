//! The calls of one task, computed from the events of a run: their attempts, outcomes and files.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Event, EventKind, Lost, Reused, RunTask};
use crate::json::Value;
use crate::model::{BatchFiles, CallRef, Outcome, Usage};

/// Number of failed calls whose messages are kept in full. There can be a million others.
const MAX_IN_FULL: usize = 1000;
/// Characters kept of the messages of the others.
const MAX_MESSAGE_CHARS: usize = 200;

/// Calls of a task, from the events of a log. Outputs of calls are not kept, since their sum has no
/// bound.
#[derive(Debug)]
pub struct CallHistory {
    /// Order or name of the task, as the user gave it.
    named: String,
    /// Attempt that counts; `None`: the last one.
    attempt: Option<u32>,
    /// The tasks of the run.
    tasks: Vec<RunTask>,
    /// Word for an item.
    item_kind: String,
    session: u32,
    order: Option<u64>,
    files: HashMap<u32, Option<Rc<BatchFiles>>>,
    calls: BTreeMap<(u32, usize), KnownCall>,
    /// Calls whose results the next batch reuses, listed before its start.
    listed: Vec<CallRef>,
    n_events: u64,
    n_failed: usize,
}

/// A call that has started at least once.
#[derive(Clone, Debug)]
pub struct KnownCall {
    /// Item of the call; `None` for a single call.
    pub item: Option<Value>,
    /// Number of its last attempt.
    pub last_attempt: u32,
    /// Number of the attempt that the other fields describe; 0 if it is not known.
    pub attempt: u32,
    /// Session in which the attempt ran.
    pub session: u32,
    /// Index of the call in its list when the attempt ran.
    pub index_then: usize,
    /// Start of the attempt.
    pub started: Timestamp,
    /// End of the attempt; `None` if it is running or was interrupted.
    pub end: Option<AttemptEnd>,
    /// Common start of the names of its files.
    pub stem: Option<String>,
    /// Form of the files of its batch.
    pub files: Option<Rc<BatchFiles>>,
    /// True if a later start of the task discarded the call.
    pub is_discarded: bool,
    /// Position of the last start of the call among the events.
    last_start: u64,
}

/// End of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// Time of the end.
    pub time: Timestamp,
    /// Outcome, without an output.
    pub outcome: Outcome,
    /// Resource usage.
    pub usage: Usage,
}

/// The part of a line that events do not have.
#[derive(Deserialize)]
struct Session {
    session: u32,
}

impl CallHistory {
    /// Creates the calls of a task, without any.
    ///
    /// * `named`: order or name of the task.
    /// * `attempt`: number of the attempt that counts for each call; `None`: the last one.
    pub fn new(named: &str, attempt: Option<u32>) -> Self {
        Self {
            named: named.to_owned(),
            attempt,
            tasks: Vec::new(),
            item_kind: String::new(),
            session: 0,
            order: None,
            files: HashMap::new(),
            calls: BTreeMap::new(),
            listed: Vec::new(),
            n_events: 0,
            n_failed: 0,
        }
    }

    /// Adds the next event of the log.
    pub(crate) fn add(&mut self, event: Event, lost: Lost, line: &[u8]) {
        self.n_events += 1;
        if let (EventKind::RunStarted(_) | EventKind::RunResumed(_), _) | (_, Lost::Sessions) =
            (&event.kind, lost)
            && let Ok(Session { session }) = serde_json::from_slice(line)
        {
            self.session = session;
        }
        match event.kind {
            EventKind::RunStarted(run) | EventKind::RunResumed(run) => {
                self.tasks = run.tasks;
                self.item_kind = run.item_kind.into_owned();
                self.listed.clear();
                let order = self.find_task().ok();
                if order != self.order {
                    (self.order, self.calls) = (order, BTreeMap::new());
                }
            }
            EventKind::CallReused { call, .. } if self.has(call.task) => self.listed.push(call),
            EventKind::TaskStarted {
                task,
                batch,
                reused,
                files,
                ..
            } if self.has(task) => {
                self.files.insert(batch, files.map(|files| Rc::new(*files)));
                let listed = std::mem::take(&mut self.listed);
                if reused != Reused::All {
                    self.begin_batch(batch, listed);
                }
            }
            EventKind::CallStarted { call, files } if self.has(call.task) => {
                self.start(call, files, event.time);
            }
            EventKind::CallFinished {
                call,
                outcome,
                usage,
                ..
            } if self.has(call.task) => {
                let outcome = self.without_long_texts(outcome);
                let end = AttemptEnd {
                    time: event.time,
                    outcome,
                    usage,
                };
                self.finish(call, end);
            }
            _ => {}
        }
    }

    /// Removes outputs, and shortens the messages of all but the first failed calls.
    fn without_long_texts(&mut self, mut outcome: Outcome) -> Outcome {
        if outcome.failure_kind().is_none() {
            return Outcome::Succeeded { output: None };
        }
        self.n_failed += 1;
        if self.n_failed > MAX_IN_FULL {
            outcome.shorten(MAX_MESSAGE_CHARS);
        }
        outcome
    }

    fn has(&self, task: u64) -> bool {
        self.order == Some(task)
    }

    /// Returns the task that the user means.
    ///
    /// # Errors
    /// A sentence with the tasks of the run, if no task or more than one has this name.
    pub fn find_task(&self) -> Result<u64, String> {
        let named = self.named.as_str();
        let mut found: Vec<_> = self.tasks.iter().collect();
        found.retain(|task| named.parse() == Ok(task.task));
        if found.is_empty() {
            found = self.tasks.iter().collect();
            found.retain(|task| task.name == named);
        }
        if let [task] = found[..] {
            return Ok(task.task);
        }
        let text = match found.len() {
            0 => "no task of the run has this order or name",
            _ => "more than one task has this name; give its order",
        };
        let shown = |task: &RunTask| format!("{} \"{}\"", task.task, task.name);
        let tasks: Vec<_> = self.tasks.iter().map(shown).collect();
        Err(format!("{text}; the tasks are {}", tasks.join(", ")))
    }

    /// Returns the name of a task.
    pub fn task_name(&self, order: u64) -> &str {
        let task = self.tasks.iter().find(|task| task.task == order);
        task.map_or("", |task| &task.name)
    }

    /// Returns the word of users for an item.
    pub fn item_kind(&self) -> &str {
        &self.item_kind
    }

    /// Returns the number of the last session, from 0.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Returns the calls that have started and were not discarded, by their batch and index.
    pub fn calls(&self) -> impl Iterator<Item = (&(u32, usize), &KnownCall)> {
        self.calls.iter().filter(|(_, call)| !call.is_discarded)
    }

    /// Returns a call.
    pub fn get(&self, key: (u32, usize)) -> Option<&KnownCall> {
        self.calls.get(&key)
    }

    /// Returns the call that has used the names of a call's files after it, if there is one.
    pub fn later_user_of_files(&self, call: &KnownCall) -> Option<(u32, usize)> {
        call.stem.as_ref()?;
        let is_later =
            |other: &KnownCall| other.stem == call.stem && other.last_start > call.last_start;
        let mut later = self.calls.iter().filter(|(_, other)| is_later(other));
        later.next().map(|(key, _)| *key)
    }

    /// Discards the results of a batch and of later ones, except for those that are listed.
    fn begin_batch(&mut self, batch: u32, listed: Vec<CallRef>) {
        let mut moved: HashMap<(String, u32), Vec<KnownCall>> = HashMap::new();
        for ((of, _), call) in &mut self.calls {
            if *of == batch && !listed.is_empty() && !call.is_discarded {
                let key = (text_of(call.item.as_ref()), call.last_attempt);
                moved.entry(key).or_default().push(call.clone());
            }
            call.is_discarded |= *of >= batch;
        }
        for call in listed {
            let key = (text_of(call.item.as_ref()), call.attempt);
            let known = moved.get_mut(&key).and_then(|calls| {
                let same = calls
                    .iter()
                    .position(|known| known.index_then == call.call_index);
                (!calls.is_empty()).then(|| calls.remove(same.unwrap_or(0)))
            });
            if let Some(known) = known {
                self.calls.insert(call.key(), known);
            }
        }
    }

    fn start(&mut self, call: CallRef, stem: Option<String>, started: Timestamp) {
        let (key, number) = (call.key(), call.attempt);
        let files = self.files.get(&call.batch).cloned().flatten();
        let started = KnownCall {
            item: call.item,
            last_attempt: number,
            attempt: number,
            session: self.session,
            index_then: call.call_index,
            started,
            end: None,
            stem,
            files,
            is_discarded: false,
            last_start: self.n_events,
        };
        let counts = self.attempt.is_none_or(|wanted| wanted == number);
        match self.calls.get_mut(&key) {
            // Another attempt than the wanted one only counts.
            Some(known) if !counts && known.item == started.item => {
                (known.last_attempt, known.is_discarded) = (number, false);
                known.last_start = self.n_events;
            }
            _ => {
                let attempt = if counts { number } else { 0 };
                self.calls.insert(key, KnownCall { attempt, ..started });
            }
        }
    }

    fn finish(&mut self, call: CallRef, end: AttemptEnd) {
        let key = call.key();
        // The start is missing in a damaged log.
        let is_known = |known: &KnownCall| known.last_attempt == call.attempt;
        if !self.calls.get(&key).is_some_and(is_known) {
            self.start(call.clone(), None, end.time);
        }
        if let Some(known) = self.calls.get_mut(&key)
            && known.attempt == call.attempt
        {
            known.end = Some(end);
        }
    }
}

fn text_of(item: Option<&Value>) -> String {
    item.map(Value::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventLog, FORMAT_VERSION, Recorder, RunStarted, visit_log};

    fn run(tasks: &[(u64, &str)]) -> Box<RunStarted> {
        let task = |(task, name): &(u64, &str)| RunTask {
            task: *task,
            name: (*name).to_owned(),
            workflow_task: None,
        };
        Box::new(RunStarted {
            format_version: FORMAT_VERSION,
            mandelbox_version: "0".into(),
            backend: "local".into(),
            workflow: "w".into(),
            logger_name: "w".into(),
            work_dir: "/w".into(),
            input_paths: Vec::new(),
            output_path: "/o".into(),
            item_kind: "well".into(),
            only: Vec::new(),
            input_metadata_keys: Vec::new(),
            first_task_index: None,
            last_task_index: None,
            tasks: tasks.iter().map(task).collect(),
            output: None,
            inputs: Vec::new(),
        })
    }

    fn call(index: usize, item: &str, attempt: u32) -> CallRef {
        CallRef {
            task: 1,
            batch: 0,
            call_index: index,
            item: Some(item.into()),
            attempt,
        }
    }

    fn task(reused: Reused) -> EventKind {
        EventKind::TaskStarted {
            task: 1,
            batch: 0,
            name: "b".into(),
            n_calls: 2,
            items: None,
            module_sha256: String::new(),
            script: None,
            args_digest: String::new(),
            limits: Default::default(),
            reused,
            n_reused: 0,
            n_available: None,
            files: None,
        }
    }

    fn started(call: CallRef) -> EventKind {
        let files = Some(format!("1_{}", call.call_index));
        EventKind::CallStarted { call, files }
    }

    fn ended(call: CallRef, code: i32) -> EventKind {
        let outcome = match code {
            0 => Outcome::Succeeded { output: None },
            code => Outcome::Exited { code },
        };
        EventKind::CallFinished {
            call,
            outcome,
            usage: Usage::default(),
            retry_in_s: None,
            stderr: None,
            item_urls: None,
        }
    }

    /// Each call as its index, item, attempt of all, index then, session and outcome.
    fn calls(sessions: &[Vec<EventKind>], attempt: Option<u32>) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        for session in sessions {
            let path = folder.path().join(EventLog::NAME);
            let end = match path.exists() {
                true => visit_log(&path, |_, _, _| ()).expect("read"),
                false => Default::default(),
            };
            let log = EventLog::reopen(folder.path(), &end).expect("opened");
            let mut recorder = Recorder::resuming(log, Vec::new(), end.next_seq);
            for kind in session {
                recorder.record(kind.clone()).expect("recorded");
            }
            recorder.sync().expect("written");
        }
        let mut calls = CallHistory::new("b", attempt);
        visit_log(&folder.path().join(EventLog::NAME), |event, lost, line| {
            calls.add(event, lost, line)
        })
        .expect("read");
        let text = |((_, index), call): (&(u32, usize), &KnownCall)| {
            let end = call.end.as_ref().map(|end| end.outcome.describe());
            format!(
                "{index} {} {}/{} was {} in {}: {}",
                text_of(call.item.as_ref()),
                call.attempt,
                call.last_attempt,
                call.index_then,
                call.session,
                end.as_deref().unwrap_or("no end")
            )
        };
        calls.calls().map(text).collect()
    }

    #[test]
    fn the_last_attempt_counts_unless_another_is_wanted() {
        let first = vec![
            EventKind::RunStarted(run(&[(0, "a"), (1, "b")])),
            task(Reused::None),
            started(call(0, "x", 1)),
            started(call(1, "y", 1)),
            ended(call(0, "x", 1), 3),
            started(call(0, "x", 2)),
            ended(call(0, "x", 2), 0),
        ];
        assert_eq!(
            calls(std::slice::from_ref(&first), None),
            [
                "0 \"x\" 2/2 was 0 in 0: succeeded",
                "1 \"y\" 1/1 was 1 in 0: no end"
            ]
        );
        assert_eq!(
            calls(&[first], Some(1)),
            [
                "0 \"x\" 1/2 was 0 in 0: exited with code 3",
                "1 \"y\" 1/1 was 1 in 0: no end"
            ]
        );
    }

    #[test]
    fn reused_calls_keep_where_they_ran() {
        let first = vec![
            EventKind::RunStarted(run(&[(1, "b")])),
            task(Reused::None),
            started(call(0, "x", 1)),
            ended(call(0, "x", 1), 0),
            started(call(1, "y", 1)),
            ended(call(1, "y", 1), 3),
        ];
        let same = vec![
            EventKind::RunResumed(run(&[(1, "b")])),
            task(Reused::All),
            started(call(1, "y", 2)),
        ];
        assert_eq!(
            calls(&[first.clone(), same], None),
            [
                "0 \"x\" 1/1 was 0 in 0: succeeded",
                "1 \"y\" 2/2 was 1 in 1: no end"
            ]
        );
        let moved = vec![
            EventKind::RunResumed(run(&[(1, "b")])),
            EventKind::CallReused {
                call: call(1, "x", 1),
                output: None,
            },
            task(Reused::Listed),
            started(call(0, "z", 1)),
        ];
        assert_eq!(
            calls(&[first.clone(), moved], None),
            [
                "0 \"z\" 1/1 was 0 in 1: no end",
                "1 \"x\" 1/1 was 0 in 0: succeeded"
            ]
        );
        let rerun = vec![
            EventKind::RunResumed(run(&[(1, "b")])),
            task(Reused::None),
            started(call(1, "y", 1)),
        ];
        assert_eq!(
            calls(&[first, rerun], None),
            ["1 \"y\" 1/1 was 1 in 1: no end"]
        );
    }

    #[test]
    fn tasks_are_found_by_order_and_by_name() {
        let find = |named: &str| {
            let mut calls = CallHistory::new(named, None);
            calls.tasks = run(&[(0, "a"), (1, "2"), (2, "a"), (7, "b")]).tasks;
            calls.find_task()
        };
        assert_eq!((find("1"), find("2"), find("b")), (Ok(1), Ok(2), Ok(7)));
        assert!(find("c").is_err_and(|text| text.starts_with("no task")));
        assert!(find("a").is_err_and(|text| text.starts_with("more than one")));
    }
}
