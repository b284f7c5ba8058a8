//! What a guest prints, handed on to a person or a program.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::stderr::Weight;
use super::terminal::print;
use crate::text::escaped;

/// A standard stream of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// For programs.
    Stdout,
    /// For people.
    Stderr,
}

/// A stream that takes bytes as they are and at once.
///
/// # Errors
/// The operating system's.
pub fn raw_stream(stream: Stream) -> io::Result<File> {
    let descriptor = match stream {
        Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
    };
    descriptor.map(File::from)
}

/// Bytes of a line after which it is shown although it goes on.
const MAX_LINE_BYTES: usize = 8 << 10;

/// Shows a guest's text on stderr, line by line, with what could mislead a terminal escaped.
#[derive(Default)]
pub struct EscapedLines {
    line: Vec<u8>,
}

impl EscapedLines {
    fn show(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        // Tables are told by their tabs, which mislead nobody.
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
            // There is nobody left to tell.
            let _ = self.show();
        }
    }
}
