//! Parser of `events.jsonl`. The status of a run and its resumption are computed from the events.
//!
//! Lines are parsed by [`crate::json`], so its rules for depth and numbers apply here too.

#[cfg(feature = "cli")]
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::Event;
use super::cursor::{Cursor, EndOfLog, LineError, Lost};
use crate::folder::open_plain_file;
use crate::text::unreadable;

/// Length of the longest line that [`visit_events`] reads, in bytes. An output has up to 16 MiB,
/// and its JSON text may be longer.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Contents of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredEvents {
    /// The events of the kinds that this version knows, in order.
    pub events: Vec<Event>,
    /// Sequence number of the next event; events of unknown kinds are counted too.
    pub next_seq: u64,
    /// Bytes up to the end of the last complete line; the rest was never written completely.
    pub whole_bytes: usize,
    /// Bytes before `whole_bytes` that are not part of a complete line.
    pub n_damaged_bytes: usize,
    /// True if the log ends in a line that is incomplete or damaged.
    pub is_torn: bool,
}

/// Reason why [`read_events`] returned no events.
#[derive(Debug, thiserror::Error)]
pub enum ReadEventsError {
    /// The file cannot be opened or read.
    #[error("{}", unreadable(.0))]
    Io(#[from] io::Error),
    /// The file exceeds the limit, in bytes.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// A line is invalid, or the file is an event log of another version.
    #[error(transparent)]
    Line(#[from] LineError),
}

/// Reads a log file of at most `max_bytes` and parses it. A log that is still being written yields
/// its events so far.
///
/// # Errors
/// [`ReadEventsError`]: the file cannot be read, is too large, or is not a log that
/// [`parse_events`] accepts.
pub fn read_events(path: &Path, max_bytes: u64) -> Result<StoredEvents, ReadEventsError> {
    let mut bytes = Vec::new();
    open_plain_file(path)?
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadEventsError::TooLarge(max_bytes));
    }
    Ok(parse_events(&bytes)?)
}

/// Parses the text of a log.
///
/// A line without its line feed, or with a wrong checksum, counts as never written. So a log that
/// was cut off at any byte yields the events before that byte, and a damaged log yields the events
/// of its complete lines, in order. An empty log yields no events, and neither does one with a
/// damaged first line.
///
/// Later versions of mandelbox with the same `format_version` can add keys and kinds of events,
/// which are ignored here: the additions must not change the meaning of the rest. A new outcome
/// would change it, so an unknown outcome is an error.
///
/// # Errors
/// [`LineError`] for the first complete line that is invalid: it is not an object, a key is missing
/// or has another type, or it is the first line and not a `run_started` of this format version.
pub fn parse_events(bytes: &[u8]) -> Result<StoredEvents, LineError> {
    let mut stored = StoredEvents::default();
    let mut cursor = Cursor::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        stored
            .events
            .extend(cursor.read_line(line)?.map(|(event, _)| event));
    }
    let EndOfLog {
        next_seq,
        whole_bytes,
        n_damaged_bytes,
        ..
    } = cursor.end;
    // None of these exceeds the length of the text.
    let in_memory = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    (stored.next_seq, stored.whole_bytes) = (next_seq, in_memory(whole_bytes));
    stored.n_damaged_bytes = in_memory(n_damaged_bytes);
    stored.is_torn = stored.whole_bytes < bytes.len();
    Ok(stored)
}

/// Parses a log file of any size as [`parse_events`] does, with one line in memory at a time.
///
/// * `take`: receives the events in order, including those before a line that turns out to be
///   invalid.
///
/// # Errors
/// [`ReadEventsError`]: the file cannot be read, or is not a log that [`parse_events`] accepts.
pub fn visit_events(path: &Path, mut take: impl FnMut(Event)) -> Result<EndOfLog, ReadEventsError> {
    visit_log(path, |event, _, _| take(event))
}

/// Reads the first event of an open log; `None` if the log is empty, or its first line is
/// incomplete or damaged.
///
/// # Errors
/// As for [`visit_events`].
#[cfg(feature = "cli")]
pub(crate) fn first_event(log: File) -> Result<Option<Event>, ReadEventsError> {
    let mut line = Vec::new();
    BufReader::new(log)
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)?;
    let read = Cursor::default().read_line(&line)?;
    Ok(read.map(|(event, _)| event))
}

/// Parses a log file as [`visit_events`] does. `take` also receives the loss before each event, and
/// its line.
pub(crate) fn visit_log(
    path: &Path,
    mut take: impl FnMut(Event, Lost, &[u8]),
) -> Result<EndOfLog, ReadEventsError> {
    let mut source = BufReader::with_capacity(64 << 10, open_plain_file(path)?);
    let mut cursor = Cursor::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut source)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(cursor.end);
        }
        // A longer line is read in parts, none of which is a complete line.
        if let Some((event, lost)) = cursor.read_line(&line)? {
            take(event, lost, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventKind;
    use crate::event::cursor::tests::{FIRST, note, sealed};
    use crate::event::line::tests::{events, write};
    use crate::json::Value;

    proptest! {
        #[test]
        fn stored_events_survive(events in events(12)) {
            let bytes = write(&events);
            let next_seq = events.len() as u64;
            let expected = StoredEvents { events, next_seq, whole_bytes: bytes.len(), ..StoredEvents::default() };
            prop_assert_eq!(parse_events(&bytes), Ok(expected));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_log_can_be_cut_at_every_byte(events in events(5)) {
            let bytes = write(&events);
            for end in 0..=bytes.len() {
                let stored = parse_events(&bytes[..end]).expect("no damage");
                let n_whole = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
                prop_assert_eq!(&stored.events[..], &events[..n_whole]);
                prop_assert_eq!(stored.whole_bytes, write(&events[..n_whole]).len());
                prop_assert_eq!(stored.is_torn, stored.whole_bytes < end);
            }
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &bytes[..bytes.len() - 1]).expect("written");
            let mut visited = Vec::new();
            visit_events(file.path(), |event| visited.push(event)).expect("no damage");
            prop_assert_eq!(&visited[..], &events[..events.len() - 1]);
        }
    }

    fn check_wrong(lines: &[&str], expected: &str) {
        let err = parse_events(&sealed(lines))
            .expect_err(expected)
            .to_string();
        assert!(err.contains(expected), "{err}");
    }

    #[test]
    fn an_invalid_line_is_reported_with_its_number() {
        let one = note(1);
        check_wrong(
            &[
                FIRST,
                &one.replace("\"message", "\"message\":\"a\",\"message"),
            ],
            "line 2: column",
        );
        check_wrong(&[FIRST, &one.replace("2026", "20x6")], "line 2: `time`");
        check_wrong(
            &[FIRST, &one.replace("message", "massage")],
            "line 2: missing key `message`",
        );
        check_wrong(
            &[FIRST, &one.replace("\"m\"", "1")],
            "line 2: `message`: invalid type: number",
        );
        check_wrong(
            &[FIRST, &one.replace("seq\":1", "seq\":1.0")],
            "line 2: `seq`",
        );
        check_wrong(
            &[FIRST, &one.replace("seq\":1", "seq\":18446744073709551617")],
            "line 2: `seq`",
        );
        let call = |more: &str| {
            note(1).replace(
                "note\"",
                &format!("call_finished\",\"task\":0,\"call_index\":0,{more}"),
            )
        };
        let usage = "\"peak_memory_bytes\":0,\"stdout_bytes\":0,\"stderr_bytes\":0";
        let ended = |more: &str| call(&format!("\"attempt\":1,{more},{usage}"));
        check_wrong(
            &[FIRST, &ended("\"outcome\":\"vanished\",\"wall_time_s\":0")],
            "does not know `vanished`",
        );
        check_wrong(
            &[
                FIRST,
                &ended("\"outcome\":\"cancelled\",\"wall_time_s\":-1"),
            ],
            "line 2:",
        );
        check_wrong(
            &[FIRST, &ended("\"outcome\":\"succeeded\",\"wall_time_s\":0")],
            "missing key `output`",
        );
        check_wrong(
            &[
                FIRST,
                &ended("\"outcome\":\"succeeded\",\"output\":[],\"wall_time_s\":0"),
            ],
            "not an array",
        );
    }

    #[test]
    fn the_first_line_has_the_version() {
        let later = FIRST.replace("version\":3", "version\":4");
        check_wrong(
            &[&later, "what version 4 has"],
            "line 1: has format version 4",
        );
        check_wrong(
            &[&FIRST.replace("\"format_version\":3,", "")],
            "line 1: missing key `format_version`",
        );
        check_wrong(
            &[&note(0).replace("note", "x\",\"format_version\":3,\"y\":\"")],
            "must be the event `run_started`",
        );
        let without_checksums = FIRST.replace("version\":3", "version\":1") + "\n";
        let err = parse_events(without_checksums.as_bytes())
            .expect_err("version 1")
            .to_string();
        assert_eq!(
            err,
            "line 1: has format version 1; this version of mandelbox reads 3"
        );
        assert_eq!(parse_events(b""), Ok(StoredEvents::default()));
    }

    #[test]
    fn a_torn_end_is_cut_off() {
        let first = sealed(&[FIRST]);
        let resealed = sealed(&[FIRST, &note(1)]);
        let wrong = [&resealed[first.len()..resealed.len() - 4], b"x\"}\n"].concat();
        let one = note(1);
        let torn: [&[u8]; 8] = [
            b"{",
            one.as_bytes(),
            b"\0\0\0",
            b"\xff\n",
            b"\n",
            &[b'['; 100_000],
            &wrong,
            b"{}\n7\n[]\n\n",
        ];
        for torn in torn {
            let stored = parse_events(&[&first, torn].concat()).expect("whole until there");
            assert_eq!(
                (stored.next_seq, stored.whole_bytes, stored.is_torn),
                (1, first.len(), true)
            );
            assert_eq!(stored.n_damaged_bytes, 0);
        }
    }

    #[test]
    fn additions_of_later_versions_are_ignored() {
        let later =
            r#"{"seq":1,"time":"2026-01-02T03:04:05Z","event":"call_measured","joules":1e99}"#;
        let more = note(2).replace(
            "\"m\"",
            "\"m\",\"language\":{\"deep\":[123456789012345678901234567890]}",
        );
        let first = FIRST.replace("\"l\"", "\"l\",\"host\":1.50");
        let stored = parse_events(&sealed(&[&first, later, &more])).expect("one of this version");
        let seqs: Vec<_> = stored.events.iter().map(|event| event.seq).collect();
        assert_eq!(
            (seqs, stored.next_seq, stored.is_torn),
            (vec![0, 2], 3, false)
        );
    }

    #[test]
    fn numbers_and_null_items_are_preserved() {
        let output = r#"{"a":123456789012345678901234567890,"b":1.50,"c":1e+2,"d":{"$serde_json::private::Number":"1"}}"#;
        let line = format!(
            r#"{{"seq":1,"time":"2026-01-02T03:04:05.000000Z","event":"call_finished","task":0,"call_index":0,"item":null,"attempt":1,"outcome":"succeeded","output":{output},"wall_time_s":0.25,"peak_memory_bytes":0,"stdout_bytes":0,"stderr_bytes":0}}"#
        );
        let text = sealed(&[FIRST, &line]);
        let stored = parse_events(&text).expect("valid");
        assert_eq!(write(&stored.events), text);
        let call = |event: &Event| matches!(&event.kind, EventKind::CallFinished { call, .. } if call.item == Some(Value::Null));
        assert!(call(&stored.events[1]));
    }

    #[test]
    fn the_size_of_a_file_is_checked_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let first = sealed(&[FIRST]);
        std::fs::write(&path, &first).expect("written");
        let size = first.len() as u64;
        assert_eq!(read_events(&path, size).expect("read").events.len(), 1);
        assert!(
            matches!(read_events(&path, size - 1), Err(ReadEventsError::TooLarge(limit)) if limit == size - 1)
        );
        assert!(matches!(
            read_events(folder.path(), size),
            Err(ReadEventsError::Io(_))
        ));
    }
}
