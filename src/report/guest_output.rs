//! Output of a guest, forwarded to a person or a program.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::stderr::Weight;
use super::terminal::print;
use crate::text::escaped;

/// A standard stream of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Data for programs.
    Stdout,
    /// Text for people.
    Stderr,
}

/// Opens a standard stream for writing without a buffer.
///
/// # Errors
/// Errors of the operating system.
pub fn raw_stream(stream: Stream) -> io::Result<File> {
    let descriptor = match stream {
        Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
    };
    descriptor.map(File::from)
}

/// Length at which a line is shown before it ends, in bytes.
const MAX_LINE_BYTES: usize = 8 << 10;

/// Writer that shows a guest's text on stderr, line by line. Escapes anything that could mislead a
/// terminal.
#[derive(Default)]
pub struct EscapedLines {
    line: Vec<u8>,
}

impl EscapedLines {
    fn show(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        // Tabs are kept: tables need them, and they cannot mislead a terminal.
        let line = format!(
            "{}\n",
            text.split('\t').map(escaped).collect::<Vec<_>>().join("\t")
        );
        self.line.clear();
        print(&line, Weight::Usual)
    }
}

impl Write for EscapedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.line.extend_from_slice(end);
                    self.show()?;
                }
                None => self.line.extend_from_slice(piece),
            }
            if self.line.len() > MAX_LINE_BYTES {
                self.show()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EscapedLines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // The error cannot be reported any more.
            let _ = self.show();
        }
    }
}
