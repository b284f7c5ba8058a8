//! A fact with its text, which the thread that knows it makes: little is left for the one that
//! numbers facts.

use super::EventKind;
use super::seal::Seal;

/// What happened, and how it stands in the event log.
#[derive(Clone, Debug)]
pub struct Fact {
    pub(super) kind: EventKind,
    /// `kind` as a JSON object.
    text: Vec<u8>,
}

impl Fact {
    /// A fact and its text.
    pub fn new(kind: EventKind) -> Self {
        let text =
            serde_json::to_vec(&kind).expect("keys are strings, and writing to memory cannot fail");
        Self { kind, text }
    }

    /// What happened.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// [`Self::kind`], without the text.
    pub fn into_kind(self) -> EventKind {
        self.kind
    }

    /// Appends the line of an event to `text`: [`super::Event`] as JSON, and what `seal` ends it
    /// with.
    ///
    /// * `time`: as [`crate::text::time_text`] gives it.
    pub(super) fn write_line(&self, seq: u64, time: &str, seal: &mut Seal, text: &mut Vec<u8>) {
        let start = text.len();
        text.extend_from_slice(br#"{"seq":"#);
        text.extend_from_slice(seq.to_string().as_bytes());
        text.extend_from_slice(br#","time":""#);
        text.extend_from_slice(time.as_bytes());
        text.extend_from_slice(br#"","#);
        // Without its braces.
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
