//! Lines of the file with the results of a slice: facts of its calls as they happen, after a line
//! about the worker, before a line about its end. All functions are pure.

use serde::{Deserialize, Serialize};

use crate::backend::CallEvent;
use crate::event::{EventKind, Fact, parse_fact};
use crate::model::Attempt;

/// Kinds of lines; each is the first byte of its line.
const STARTED: u8 = b'S';
const FACT: u8 = b'E';
const FINISHED: u8 = b'F';
const ENDED: u8 = b'Z';

/// A worker has started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerStarted {
    /// Identifier of its job, as SLURM's commands take it.
    pub(super) job: String,
    /// Node that it runs on.
    pub(super) node: String,
    /// Seconds since 1970, by the clock of the node.
    pub(super) time_s: f64,
}

/// A worker has ended by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerEnded {
    /// True if it has run all its calls, or those that had to run.
    pub(super) is_done: bool,
    /// Seconds since 1970, by the clock of the node.
    pub(super) time_s: f64,
}

/// A line of the file.
#[derive(Debug)]
pub(super) enum Line {
    /// A worker has started; one that takes the file over writes this line too.
    Started(WorkerStarted),
    /// A call has started, or has reported something.
    Fact(EventKind),
    /// A call has ended.
    Finished {
        kind: EventKind,
        stderr_tail: String,
    },
    /// The worker has ended.
    Ended(WorkerEnded),
}

/// Formats the event of a call; `None` if it has no line.
pub(super) fn event_line(event: &CallEvent) -> Option<Vec<u8>> {
    match event {
        CallEvent::Happened(fact) => Some([&[FACT], fact.text()].concat()),
        CallEvent::Finished { fact, stderr_tail } => Some(finished_line(fact, stderr_tail)),
        CallEvent::Idle => None,
    }
}

fn finished_line(fact: &Fact, stderr_tail: &str) -> Vec<u8> {
    // JSON text has no tab outside of its strings here, and escapes those inside.
    let tail = json(&stderr_tail);
    [&[FINISHED], tail.as_slice(), b"\t", fact.text()].concat()
}

pub(super) fn started_line(started: &WorkerStarted) -> Vec<u8> {
    [&[STARTED], json(started).as_slice()].concat()
}

pub(super) fn ended_line(ended: &WorkerEnded) -> Vec<u8> {
    [&[ENDED], json(ended).as_slice()].concat()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("keys are strings, and writing to memory cannot fail")
}

/// Parses a line; `None` for one of another version.
pub(super) fn parse_line(line: &[u8]) -> Option<Line> {
    let (kind, text) = line.split_first()?;
    Some(match *kind {
        STARTED => Line::Started(serde_json::from_slice(text).ok()?),
        FACT => Line::Fact(parse_fact(text).ok()?),
        FINISHED => {
            let tab = text.iter().position(|byte| *byte == b'\t')?;
            Line::Finished {
                stderr_tail: serde_json::from_slice(&text[..tab]).ok()?,
                kind: parse_fact(&text[tab + 1..]).ok()?,
            }
        }
        ENDED => Line::Ended(serde_json::from_slice(text).ok()?),
        _ => return None,
    })
}

/// The attempt that an event is about, and true if it is the last event of its call.
pub(super) fn attempt_of(kind: &EventKind) -> Option<(Attempt, bool)> {
    let (call, is_last) = match kind {
        EventKind::CallStarted { call, .. }
        | EventKind::CallLogged { call, .. }
        | EventKind::CallProgress { call, .. } => (call, false),
        EventKind::CallFinished {
            call, retry_in_s, ..
        } => (call, retry_in_s.is_none()),
        _ => return None,
    };
    let attempt = Attempt {
        call_index: call.call_index,
        number: call.attempt,
    };
    Some((attempt, is_last))
}

/// Selects the lines of calls that have ended, for a worker that takes the file over. Returns the
/// lines, and the indices of the calls.
pub(super) fn lines_of_ended_calls(lines: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<usize>) {
    let about = |line: &Vec<u8>| match parse_line(line)? {
        Line::Fact(kind @ EventKind::CallStarted { .. }) => attempt_of(&kind),
        Line::Finished { kind, .. } => attempt_of(&kind),
        _ => None,
    };
    let attempts: Vec<_> = lines.iter().map(about).collect();
    let mut ended: Vec<usize> = attempts
        .iter()
        .flatten()
        .filter(|(_, is_last)| *is_last)
        .map(|(attempt, _)| attempt.call_index)
        .collect();
    ended.sort_unstable();
    ended.dedup();
    let is_kept = |(_, about): &(&Vec<u8>, &Option<(Attempt, bool)>)| {
        about.is_some_and(|(attempt, _)| ended.binary_search(&attempt.call_index).is_ok())
    };
    let kept = lines.iter().zip(&attempts).filter(is_kept);
    (kept.map(|(line, _)| line.clone()).collect(), ended)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{CallRef, Outcome, Usage};

    fn call(call_index: usize, attempt: u32) -> CallRef {
        CallRef {
            task: 3,
            batch: 1,
            call_index,
            item: Some(json!("a\tb")),
            attempt,
        }
    }

    fn started(call_index: usize, attempt: u32) -> CallEvent {
        CallEvent::Happened(Fact::new(EventKind::CallStarted {
            call: call(call_index, attempt),
            files: None,
        }))
    }

    fn finished(call_index: usize, attempt: u32, retry_in_s: Option<f64>) -> CallEvent {
        CallEvent::Finished {
            fact: Fact::new(EventKind::CallFinished {
                call: call(call_index, attempt),
                outcome: Outcome::Exited { code: 3 },
                usage: Usage::default(),
                retry_in_s,
                stderr: None,
                item_urls: None,
            }),
            stderr_tail: "a\tb\n\u{1}".to_owned(),
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let event = finished(7, 2, None);
        let line = event_line(&event).expect("a line");
        assert!(!line.contains(&b'\n'));
        let CallEvent::Finished { fact, stderr_tail } = event else {
            panic!("it is one");
        };
        match parse_line(&line) {
            Some(Line::Finished {
                kind,
                stderr_tail: tail,
            }) => {
                assert_eq!((&kind, &tail), (fact.kind(), &stderr_tail));
            }
            other => panic!("{other:?}"),
        }
        let begun = WorkerStarted {
            job: "7_3".to_owned(),
            node: "n1".to_owned(),
            time_s: 1.5,
        };
        match parse_line(&started_line(&begun)) {
            Some(Line::Started(read)) => assert_eq!(read, begun),
            other => panic!("{other:?}"),
        }
        let ended = WorkerEnded {
            is_done: true,
            time_s: 2.5,
        };
        match parse_line(&ended_line(&ended)) {
            Some(Line::Ended(read)) => assert_eq!(read, ended),
            other => panic!("{other:?}"),
        }
        assert!(event_line(&CallEvent::Idle).is_none());
        for wrong in [
            b"".as_slice(),
            b"?",
            b"E{}",
            b"F\"\"",
            b"Z1",
            b"E{\"event\":\"new\"}",
        ] {
            assert!(parse_line(wrong).is_none());
        }
    }

    #[test]
    fn a_copy_keeps_the_calls_that_have_ended() {
        let events = [
            started(0, 1),
            started(1, 1),
            finished(0, 1, Some(1.0)),
            started(0, 2),
            finished(0, 2, None),
            started(2, 1),
            finished(2, 1, Some(1.0)),
        ];
        let lines: Vec<_> = events.iter().filter_map(event_line).collect();
        let (kept, ended) = lines_of_ended_calls(&lines);
        assert_eq!(ended, [0]);
        let expected = [0, 2, 3, 4].map(|index: usize| lines[index].clone());
        assert_eq!(kept, expected);
    }
}
