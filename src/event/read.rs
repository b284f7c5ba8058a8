//! `events.jsonl` → events: what the status of a run and its resumption are computed from.
//!
//! Lines are parsed by [`crate::json`], so its rules for depth and numbers hold here too.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::Event;
use super::line::read_event;
use crate::error::unreadable;
use crate::folder::open_plain_file;
use crate::json::{MAX_DATASET_DEPTH, parse_entries};
use crate::reporter::escape::escaped;

/// Bytes of the longest line that [`visit_events`] takes: a metadiff has 16 MiB, and its text as JSON may be longer.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredEvents {
    /// The events of the kinds that this version knows, in order.
    pub events: Vec<Event>,
    /// Number of the event that would come next; kinds that are not known are counted too.
    pub next_seq: u64,
    /// Bytes of the whole lines; what follows them was cut off.
    pub whole_bytes: usize,
    /// Whether something was cut off: a last line whose writing was interrupted.
    pub is_torn: bool,
}

/// Where a log goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndOfLog {
    /// Number of the event that would come next.
    pub next_seq: u64,
    /// Bytes of the whole lines; what follows them was never written whole.
    pub whole_bytes: u64,
}

/// A line that is no event, or not the one that belongs there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, escaped.
    pub message: String,
}

/// Why [`read_events`] gave no events.
#[derive(Debug, thiserror::Error)]
pub enum ReadEventsError {
    /// The file cannot be opened or read.
    #[error("{}", unreadable(.0))]
    Io(#[from] io::Error),
    /// The file has more bytes than are read; the limit, in bytes.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// The file is no event log, or a damaged one.
    #[error(transparent)]
    Line(#[from] LineError),
}

/// Reads a log file of at most `max_bytes` and parses it. A log that is written to meanwhile gives what it has so far.
///
/// # Errors
/// [`ReadEventsError`]: the file cannot be read, is larger, or is not what [`parse_events`] takes.
pub fn read_events(path: &Path, max_bytes: u64) -> Result<StoredEvents, ReadEventsError> {
    let mut bytes = Vec::new();
    open_plain_file(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadEventsError::TooLarge(max_bytes));
    }
    Ok(parse_events(&bytes)?)
}

/// Parses the text of a log.
///
/// A last line without its line feed, or that is not JSON, is what a killed run leaves: it is cut off and counts as
/// never written. A log can be cut at any byte, and gives the events before. No byte at all is a log without events.
///
/// Later versions of mandelbox with the same `format_version` can add keys and kinds of event, which are passed over
/// here: what they add must not change what the others mean. A new outcome would, so an unknown one is an error.
///
/// # Errors
/// [`LineError`] for the first line that is wrong: not JSON but with other lines behind it, no object, a gap in `seq`,
/// a key that is missing or of another type, or a first line that is no `run_started` of this format version.
pub fn parse_events(bytes: &[u8]) -> Result<StoredEvents, LineError> {
    let mut stored = StoredEvents::default();
    let mut place = Place::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_last = place.whole_bytes + line.len() == bytes.len();
        match place.read_line(line, is_last)? {
            Line::Event(event) => stored.events.push(*event),
            Line::Unknown => {}
            Line::Torn => {
                stored.is_torn = true;
                break;
            }
        }
    }
    (stored.next_seq, stored.whole_bytes) = (place.next_seq, place.whole_bytes);
    Ok(stored)
}

/// [`parse_events`] for a log file of any size, of which one line is in memory at a time.
///
/// * `take`: gets the events in their order; some, too, if the file turns out to be damaged behind them.
///
/// # Errors
/// [`ReadEventsError`]: the file cannot be read, has a line of more than 256 MiB, or is not what [`parse_events`] takes.
pub fn visit_events(path: &Path, mut take: impl FnMut(Event)) -> Result<EndOfLog, ReadEventsError> {
    let mut source = BufReader::with_capacity(64 << 10, open_plain_file(path)?);
    let mut place = Place::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut source).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(place.end());
        }
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(place.wrong("is longer than 256 MiB".to_owned()).into());
        }
        let is_last = source.fill_buf()?.is_empty();
        match place.read_line(&line, is_last)? {
            Line::Event(event) => take(*event),
            Line::Unknown => {}
            Line::Torn => return Ok(place.end()),
        }
    }
}

/// How far a log has been read.
#[derive(Default)]
struct Place {
    next_seq: u64,
    whole_bytes: usize,
}

/// What stands in a line.
enum Line {
    Event(Box<Event>),
    /// An event of a kind that this version does not know.
    Unknown,
    Torn,
}

impl Place {
    /// * `line`: with its line feed, if it has one.
    /// * `is_last`: whether nothing stands behind it.
    fn read_line(&mut self, line: &[u8], is_last: bool) -> Result<Line, LineError> {
        let wrong = |message: String| self.wrong(message);
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(Line::Torn) };
        let line_value = match parse_entries(text, MAX_DATASET_DEPTH) {
            Err(_) if is_last => return Ok(Line::Torn),
            parsed => parsed.map_err(|err| wrong(format!("column {}: {}", err.column, err.message)))?,
        };
        let event = read_event(line_value, self.next_seq).map_err(wrong)?;
        self.next_seq += 1;
        self.whole_bytes += line.len();
        Ok(event.map_or(Line::Unknown, |event| Line::Event(Box::new(event))))
    }

    fn end(&self) -> EndOfLog {
        EndOfLog { next_seq: self.next_seq, whole_bytes: self.whole_bytes as u64 }
    }

    /// An error of the line that is read.
    fn wrong(&self, message: String) -> LineError {
        let line = usize::try_from(self.next_seq).unwrap_or(usize::MAX).saturating_add(1);
        LineError { line, message: escaped(&message) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventKind;
    use crate::event::line::tests::{events, write};
    use crate::json::Value;

    const FIRST: &str = r#"{"seq":0,"time":"2026-01-02T03:04:05.000006Z","event":"run_started","format_version":1,"mandelbox_version":"0.1.0","backend":"local","workflow":"w","logger_name":"l","work_dir":"/w","input_paths":[],"output_path":"/o","input_metadata_keys":[],"first_task_index":null,"last_task_index":null}"#;

    fn note(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"time":"2026-01-02T03:04:05Z","event":"note","message":"m"}}"#)
    }

    proptest! {
        #[test]
        fn stored_events_survive(events in events(12)) {
            let bytes = write(&events);
            let next_seq = events.len() as u64;
            let expected = StoredEvents { events, next_seq, whole_bytes: bytes.len(), is_torn: false };
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
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let err = parse_events(text.as_bytes()).expect_err(expected).to_string();
        assert!(err.contains(expected), "{err}");
    }

    #[test]
    fn damage_is_told_with_its_line() {
        let (one, two) = (note(1), note(2));
        check_wrong(&[FIRST, "{", &two], "line 2: column");
        check_wrong(&[FIRST, "", &one], "line 2: column");
        check_wrong(&[FIRST, "\u{0}\u{0}", &one], "line 2: column");
        check_wrong(&[FIRST, &"[".repeat(1_000_000), &two], "nested deeper than 300 levels");
        check_wrong(&[FIRST, &one.replace("\"message", "\"message\":\"a\",\"message"), &two], "line 2: column");
        check_wrong(&[FIRST, "7"], "line 2: must be an object, not a number");
        check_wrong(&[FIRST, &two], "line 2: has `seq` 2 where 1 belongs");
        check_wrong(&[FIRST, &one, &one], "line 3: has `seq` 1 where 2 belongs");
        check_wrong(&[FIRST, &one.replace("2026", "20x6")], "line 2: `time`");
        check_wrong(&[FIRST, &one.replace("message", "massage")], "line 2: the key `message` is missing");
        check_wrong(&[FIRST, &one.replace("\"m\"", "1")], "line 2: `message`: invalid type: number");
        check_wrong(&[FIRST, &one.replace("seq\":1", "seq\":1.0")], "line 2: `seq`");
        check_wrong(&[FIRST, &one.replace("seq\":1", "seq\":18446744073709551617")], "line 2: `seq`");
        let call =
            |more: &str| note(1).replace("note\"", &format!("call_finished\",\"task\":0,\"call_index\":0,{more}"));
        let figures = "\"peak_memory_bytes\":0,\"stdout_bytes\":0,\"stderr_bytes\":0";
        let ended = |more: &str| call(&format!("\"attempt\":1,{more},{figures}"));
        check_wrong(&[FIRST, &ended("\"outcome\":\"vanished\",\"wall_time_s\":0")], "`vanished` is not known");
        check_wrong(&[FIRST, &ended("\"outcome\":\"cancelled\",\"wall_time_s\":-1")], "line 2:");
        check_wrong(&[FIRST, &ended("\"outcome\":\"succeeded\",\"wall_time_s\":0")], "the key `metadiff` is missing");
        check_wrong(&[FIRST, &ended("\"outcome\":\"succeeded\",\"metadiff\":[],\"wall_time_s\":0")], "not an array");
    }

    #[test]
    fn the_first_line_says_the_version() {
        check_wrong(
            &[&FIRST.replace("version\":1", "version\":2"), "what version 2 has"],
            "line 1: has format version 2",
        );
        check_wrong(&[&FIRST.replace("\"format_version\":1,", "")], "line 1: the key `format_version` is missing");
        check_wrong(&[&note(0)], "line 1: must be the event `run_started`, not `note`");
        assert_eq!(parse_events(b""), Ok(StoredEvents::default()));
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        for torn in ["{", &note(1), "\0\0\0", "\u{fffd}\n", "\n", &"{\"a\":".repeat(100_000)] {
            let stored = parse_events(format!("{FIRST}\n{torn}").as_bytes()).expect("whole until there");
            assert_eq!((stored.next_seq, stored.whole_bytes, stored.is_torn), (1, FIRST.len() + 1, true));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let later = r#"{"seq":1,"time":"2026-01-02T03:04:05Z","event":"call_measured","joules":1e99}"#;
        let more = note(2).replace("\"m\"", "\"m\",\"language\":{\"deep\":[123456789012345678901234567890]}");
        let first = FIRST.replace("\"l\"", "\"l\",\"host\":1.50");
        let stored = parse_events(format!("{first}\n{later}\n{more}\n").as_bytes()).expect("one of this version");
        let seqs: Vec<_> = stored.events.iter().map(|event| event.seq).collect();
        assert_eq!((seqs, stored.next_seq, stored.is_torn), (vec![0, 2], 3, false));
    }

    #[test]
    fn numbers_and_null_components_keep_what_they_are() {
        let metadiff =
            r#"{"a":123456789012345678901234567890,"b":1.50,"c":1e+2,"d":{"$serde_json::private::Number":"1"}}"#;
        let line = format!(
            r#"{{"seq":1,"time":"2026-01-02T03:04:05.000000Z","event":"call_finished","task":0,"call_index":0,"component":null,"attempt":1,"outcome":"succeeded","metadiff":{metadiff},"wall_time_s":0.25,"peak_memory_bytes":0,"stdout_bytes":0,"stderr_bytes":0}}"#
        );
        let text = format!("{FIRST}\n{line}\n");
        let stored = parse_events(text.as_bytes()).expect("valid");
        assert_eq!(String::from_utf8(write(&stored.events)).expect("UTF-8"), text);
        let call = |event: &Event| matches!(&event.kind, EventKind::CallFinished { call, .. } if call.component == Some(Value::Null));
        assert!(call(&stored.events[1]));
    }

    #[test]
    fn the_size_of_a_file_is_checked_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, format!("{FIRST}\n")).expect("written");
        let size = FIRST.len() as u64 + 1;
        assert_eq!(read_events(&path, size).expect("read").events.len(), 1);
        assert!(matches!(read_events(&path, size - 1), Err(ReadEventsError::TooLarge(limit)) if limit == size - 1));
        assert!(matches!(read_events(folder.path(), size), Err(ReadEventsError::Io(_))));
    }
}
