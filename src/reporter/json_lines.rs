//! One event a line, for machines.

use std::io::{self, Write};

use super::Reporter;
use crate::event::Event;

/// Writes events as JSON lines to a writer, each at once.
pub struct JsonLines<W> {
    writer: W,
}

impl<W: Write + Send> JsonLines<W> {
    /// A reporter for a file, a pipe or stdout.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.writer.write_all(&line)?;
        self.writer.flush()
    }
}
