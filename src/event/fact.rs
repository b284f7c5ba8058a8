//! A fact with its text. The thread that reports a fact also formats its text, which leaves little
//! work for the thread that numbers the facts.

use super::EventKind;
use super::seal::Seal;

/// A fact and its text in the event log.
#[derive(Clone, Debug)]
pub struct Fact {
    pub(super) kind: EventKind,
    /// `kind` as a JSON object.
    text: Vec<u8>,
}

impl Fact {
    /// Creates a fact and formats its text.
    pub fn new(kind: EventKind) -> Self {
        let text =
            serde_json::to_vec(&kind).expect("keys are strings, and writing to memory cannot fail");
        Self { kind, text }
    }

    /// Returns the fact as an event kind.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// Returns the fact as an event kind, without the text.
    pub fn into_kind(self) -> EventKind {
        self.kind
    }

    /// Returns the text: a JSON object, which [`super::parse_fact`] reads.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Appends the line of an event to `text`: [`super::Event`] as JSON, closed by `seal`.
    ///
    /// * `time`: in the format of [`crate::text::time_text`].
    pub(super) fn write_line(&self, seq: u64, time: &str, seal: &mut Seal, text: &mut Vec<u8>) {
        let start = text.len();
        text.extend_from_slice(br#"{"seq":"#);
        text.extend_from_slice(seq.to_string().as_bytes());
        text.extend_from_slice(br#","time":""#);
        text.extend_from_slice(time.as_bytes());
        text.extend_from_slice(br#"","#);
        // The text of the object, without its braces.
        text.extend_from_slice(&self.text[1..self.text.len() - 1]);
        seal.close(text, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, seal_lines};
    use crate::text::time_text;

    #[test]
    fn a_line_is_its_event_as_json() {
        let time = jiff::Timestamp::UNIX_EPOCH;
        let kind = EventKind::Note {
            message: "a \"b\"\n".to_owned(),
        };
        let mut line = Vec::new();
        Fact::new(kind.clone()).write_line(12, &time_text(time), &mut Seal::default(), &mut line);
        let mut event = serde_json::to_vec(&Event {
            seq: 12,
            time,
            kind,
        })
        .expect("JSON");
        event.push(b'\n');
        assert_eq!(line, seal_lines(&event));
    }
}
