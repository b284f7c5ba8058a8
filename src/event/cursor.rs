//! Reader of the lines of `events.jsonl`, which copes with damaged lines.
//!
//! A line with a wrong checksum was damaged: by a power failure before the line was on disk, by a
//! faulty disk, or by an editor. The cursor skips such lines, and also lines that appear a second
//! time. It still reads the lines after them, since each checksum proves that its line is complete
//! and belongs to this log. The sequence numbers show that events are missing, and the session
//! numbers show whether a start of the run is among the missing events: see [`Lost`]. All checksums
//! depend on the first line, so a log without its first line cannot be verified and has no events.

use std::ops::Range;

use super::line::{Line, check_foreign_version, read_line};
use super::seal::{Seal, has_checksum, verify};
use super::{Event, EventKind};
use crate::json::{MAX_DATASET_DEPTH, parse_entries};
use crate::text::escaped;

/// End of a log, and the damage before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndOfLog {
    /// Sequence number of the next event.
    pub next_seq: u64,
    /// Bytes up to the end of the last complete line; the rest was never written completely.
    pub whole_bytes: u64,
    /// Bytes before `whole_bytes` that are not part of a complete line.
    pub n_damaged_bytes: u64,
    /// Number of events that are missing between others since the last start of the run.
    pub n_lost_events: u64,
    /// True if the first line is damaged; then no other line counts.
    pub is_headless: bool,
    /// True if no line appears to come from mandelbox.
    pub is_foreign: bool,
    /// Ranges of complete lines, each as long as possible.
    pub(super) whole_lines: Vec<Range<u64>>,
    seal: Seal,
}

impl EndOfLog {
    /// Returns the seal of the next session's lines.
    pub(super) fn next_seal(&self) -> Seal {
        let session = self.seal.session + u32::from(self.next_seq > 0);
        Seal {
            session,
            ..self.seal
        }
    }

    /// Describes the damage for a warning; `None` if there is none. An incomplete last line is no
    /// damage.
    pub fn damage(&self) -> Option<String> {
        let Self {
            n_damaged_bytes,
            n_lost_events,
            ..
        } = self;
        (*n_damaged_bytes > 0 || *n_lost_events > 0).then(|| {
            format!(
                "is damaged: {n_damaged_bytes} bytes cannot be read, and {n_lost_events} events are \
                 missing"
            )
        })
    }
}

/// Events that are missing before an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lost {
    #[default]
    Nothing,
    /// Events of the same session as the previous event, but no start of the run.
    Events,
    /// At least one start of the run, and the events after it.
    Sessions,
}

/// A line that is not an event, or not the event that is expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// Line number, from 1.
    pub line: usize,
    /// Description of the problem, escaped.
    pub message: String,
}

/// Position in a log that is being read.
#[derive(Default)]
pub(super) struct Cursor {
    pub(super) end: EndOfLog,
    n_lines: usize,
    n_bytes: u64,
    /// Events that are missing before the next event.
    lost: Lost,
    /// True if a line that cannot be verified looks like a line of mandelbox.
    was_ours: bool,
}

impl Cursor {
    /// Reads a line. Returns its event, with the loss before it; `None` for a line that is damaged,
    /// repeated, or of a kind that this version does not know.
    ///
    /// * `line`: with its line feed, if it has one.
    pub(super) fn read_line(&mut self, line: &[u8]) -> Result<Option<(Event, Lost)>, LineError> {
        let start = self.n_bytes;
        self.n_bytes += line.len() as u64;
        self.n_lines += 1;
        let first = self.end.seal.first;
        if first.is_none() {
            self.look_at_unverified(line);
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(None);
        };
        let is_first = first.is_none();
        let Some(checksum) = verify(text, first) else {
            if is_first {
                self.note_headless(text)?;
            }
            return Ok(None);
        };
        let entries = parse_entries(text, MAX_DATASET_DEPTH);
        let entries =
            entries.map_err(|err| self.wrong(format!("column {}: {}", err.column, err.message)))?;
        let line = read_line(entries, is_first).map_err(|message| self.wrong(message))?;
        if is_first {
            self.end.seal.first = Some(checksum);
            (self.end.is_headless, self.end.is_foreign) = (false, false);
        }
        self.take(line, start)
    }

    /// Accepts a complete line that begins at byte `start`, unless it is a repetition.
    fn take(&mut self, line: Line, start: u64) -> Result<Option<(Event, Lost)>, LineError> {
        let Line {
            seq,
            session,
            event,
        } = line;
        let end = &mut self.end;
        let is_resumption = event
            .as_ref()
            .is_some_and(|event| matches!(event.kind, EventKind::RunResumed(_)));
        let expected_session = end.seal.session + u32::from(is_resumption);
        let Some(n_lost) = seq
            .checked_sub(end.next_seq)
            .filter(|_| session >= expected_session)
        else {
            return Ok(None);
        };
        self.lost = self.lost.max(match n_lost {
            _ if session > expected_session => Lost::Sessions,
            0 => Lost::Nothing,
            _ => Lost::Events,
        });
        let next_seq = seq.checked_add(1);
        end.next_seq = next_seq.ok_or_else(|| LineError {
            line: self.n_lines,
            message: format!("`seq` is too large: {seq}"),
        })?;
        // A start of the run has already accounted for all events that are missing before it.
        end.n_lost_events = if is_resumption {
            n_lost
        } else {
            end.n_lost_events.saturating_add(n_lost)
        };
        end.n_damaged_bytes += start - end.whole_bytes;
        end.whole_bytes = self.n_bytes;
        end.seal.session = session;
        match end
            .whole_lines
            .last_mut()
            .filter(|range| range.end == start)
        {
            Some(range) => range.end = self.n_bytes,
            None => end.whole_lines.push(start..self.n_bytes),
        }
        Ok(event.map(|event| (event, std::mem::take(&mut self.lost))))
    }

    /// Checks whether a line looks like a line of mandelbox, while no line of the log is verified
    /// yet.
    fn look_at_unverified(&mut self, line: &[u8]) {
        let is_ours = has_checksum(line.trim_ascii_end()) || line.starts_with(b"{\"seq\":");
        let is_blank = line
            .iter()
            .all(|byte| *byte == 0 || byte.is_ascii_whitespace());
        self.was_ours |= is_ours;
        self.end.is_foreign = !self.was_ours && (self.end.is_foreign || !is_blank);
    }

    /// Handles a complete line that is not the first line of a log, although no verified line
    /// precedes it.
    fn note_headless(&mut self, text: &[u8]) -> Result<(), LineError> {
        self.end.is_headless = true;
        if self.n_lines == 1
            && !has_checksum(text)
            && let Ok(line) = parse_entries(text, MAX_DATASET_DEPTH)
        {
            check_foreign_version(line).map_err(|message| self.wrong(message))?;
        }
        Ok(())
    }

    /// Creates an error for the current line.
    fn wrong(&self, message: String) -> LineError {
        LineError {
            line: self.n_lines,
            message: escaped(&message),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::seal_lines;
    use crate::event::visit_log;

    pub(in crate::event) const FIRST: &str = r#"{"seq":0,"time":"2026-01-02T03:04:05.000006Z","event":"run_started","format_version":3,"mandelbox_version":"0.1.0","backend":"local","workflow":"w","logger_name":"l","work_dir":"/w","input_paths":[],"output_path":"/o","item_kind":"item","input_metadata_keys":[],"first_task_index":null,"last_task_index":null,"tasks":[],"output":null,"inputs":[]}"#;

    pub(in crate::event) fn note(seq: u64) -> String {
        format!(r#"{{"seq":{seq},"time":"2026-01-02T03:04:05Z","event":"note","message":"m"}}"#)
    }

    pub(in crate::event) fn sealed(lines: &[&str]) -> Vec<u8> {
        seal_lines(
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .as_bytes(),
        )
    }

    #[test]
    fn whole_lines_behind_damage_count_and_show_what_is_missing() {
        let lines = [FIRST, &note(1), &note(2), &note(3), &note(4)];
        let whole = sealed(&lines);
        let ends: Vec<_> = (0..whole.len())
            .filter(|index| whole[*index] == b'\n')
            .map(|index| index + 1)
            .collect();
        let other_log = sealed(&[&FIRST.replace("03:04", "03:05"), &note(1), &note(2)]);
        let stale = &other_log[other_log.len() - (ends[2] - ends[1])..];
        let zeros = vec![0; ends[2] - ends[1]];
        let twice = &whole[ends[0]..ends[1]];
        for damage in [
            b"".as_slice(),
            b"\n",
            &zeros,
            stale,
            twice,
            b"{\"seq\":2}\n",
        ] {
            let text = [&whole[..ends[1]], damage, &whole[ends[2]..]].concat();
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &text).expect("written");
            let mut seen = Vec::new();
            let end = visit_log(file.path(), |event, lost, _| seen.push((event.seq, lost)))
                .expect("read");
            let ends_in_line = damage == zeros;
            let expected: &[_] = if ends_in_line {
                &[0, 1, 4]
            } else {
                &[0, 1, 3, 4]
            };
            assert_eq!(
                seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
                expected,
                "{damage:?}"
            );
            assert!(
                seen.iter()
                    .all(|(seq, lost)| (*lost == Lost::Events) == (*seq == expected[2])),
                "{damage:?}"
            );
            let n_damaged = damage.len() + if ends_in_line { ends[3] - ends[2] } else { 0 };
            assert_eq!(
                (end.n_damaged_bytes, end.n_lost_events),
                (n_damaged as u64, 5 - expected.len() as u64)
            );
            assert_eq!((end.next_seq, end.whole_bytes), (5, text.len() as u64));
            assert!(end.damage().is_some());
        }
    }

    #[test]
    fn a_session_that_is_missing_shows() {
        let resumed = |seq: u64| {
            FIRST
                .replace("run_started", "run_resumed")
                .replace("seq\":0", &format!("seq\":{seq}"))
        };
        let lines = [
            FIRST.to_owned(),
            note(1),
            resumed(2),
            note(3),
            resumed(4),
            note(5),
        ];
        let whole = sealed(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let check = |kept: &[usize], expected: &[Lost]| {
            let mut cursor = Cursor::default();
            let read = kept
                .iter()
                .filter_map(|index| cursor.read_line(lines[*index]).expect("whole"));
            assert_eq!(
                read.map(|(_, lost)| lost).collect::<Vec<_>>(),
                expected,
                "{kept:?}"
            );
        };
        use Lost::{Events, Nothing, Sessions};
        check(&[0, 1, 2, 3, 4, 5], &[Nothing; 6]);
        check(
            &[0, 2, 3, 4, 5],
            &[Nothing, Events, Nothing, Nothing, Nothing],
        );
        check(
            &[0, 1, 3, 4, 5],
            &[Nothing, Nothing, Sessions, Nothing, Nothing],
        );
        check(&[0, 1, 4, 5], &[Nothing, Nothing, Sessions, Nothing]);
        check(&[0, 1, 2, 5], &[Nothing, Nothing, Nothing, Sessions]);
        check(&[1, 2, 3, 4, 5], &[]);
    }

    #[test]
    fn without_its_first_line_a_log_has_no_event() {
        let whole = sealed(&[FIRST, &note(1)]);
        let first_len = sealed(&[FIRST]).len();
        let second = [b"\0\0\n", &whole[first_len..]].concat();
        let flipped = [b"|", &whole[1..]].concat();
        for (text, is_foreign) in [
            (&second, false),
            (&flipped, false),
            (&b"{}\n{}\n".to_vec(), true),
        ] {
            let mut cursor = Cursor::default();
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                assert_eq!(cursor.read_line(line), Ok(None));
            }
            assert!(cursor.end.is_headless && cursor.end.is_foreign == is_foreign);
            assert_eq!((cursor.end.next_seq, cursor.end.whole_bytes), (0, 0));
        }
        for (text, is_foreign) in [
            (b"\0\0".as_slice(), false),
            (b"{\"seq\":0", false),
            (b"my notes", true),
        ] {
            let mut cursor = Cursor::default();
            assert_eq!(cursor.read_line(text), Ok(None));
            assert!(
                !cursor.end.is_headless && cursor.end.is_foreign == is_foreign,
                "{text:?}"
            );
        }
    }
}
