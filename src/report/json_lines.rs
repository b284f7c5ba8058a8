//! Events as JSON lines, for machines.

use std::io::{self, Write};

use crate::event::{Event, Reporter};

/// Reporter that writes events as JSON lines, once they are on disk. The lines are those of the
/// event log, if there is one.
pub struct JsonLines<W> {
    writer: W,
    lines: Vec<u8>,
}

impl<W: Write + Send> JsonLines<W> {
    /// Creates a reporter for a file, a pipe or stdout.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            lines: Vec::new(),
        }
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, event)?;
        self.lines.push(b'\n');
        Ok(())
    }

    fn report_line(&mut self, _: &Event, line: &[u8]) -> io::Result<()> {
        self.lines.extend_from_slice(line);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.lines)?;
        self.lines.clear();
        self.writer.flush()
    }
}
