//! Lines of a stream that can stay open: bounded in length, and read without a wait that nobody can
//! end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Result of [`LineReader::take`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A line without its end.
    Line(Vec<u8>),
    /// A line that is longer than allowed, which was skipped.
    TooLong,
    /// No complete line has been read so far.
    Nothing,
    /// The input has ended.
    End,
}

/// Reader of lines.
pub(super) struct LineReader {
    reader: BufReader<File>,
    max_bytes: usize,
    /// Start of a line whose end has not been read.
    line: Vec<u8>,
    /// True while the rest of a line that is too long is skipped.
    skips: bool,
    has_ended: bool,
}

impl LineReader {
    /// * `max_bytes`: maximum size of a line, without its end.
    pub(super) fn new(input: File, max_bytes: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, input),
            max_bytes,
            line: Vec::new(),
            skips: false,
            has_ended: false,
        }
    }

    /// Takes the next line from what was read, without reading.
    pub(super) fn take(&mut self) -> Taken {
        let mut read = self.reader.buffer();
        let n_read = read.len();
        if self.skips {
            let end = read.iter().position(|byte| *byte == b'\n');
            read = &read[end.unwrap_or(n_read)..];
            self.skips = read.is_empty() && !self.has_ended;
        } else {
            // Searching in a slice cannot fail.
            let _ = read.read_until(b'\n', &mut self.line);
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                self.reader.consume(n_read - read.len());
                return self.taken();
            }
            self.reader.consume(n_read);
            if self.line.len() > self.max_bytes {
                self.line = Vec::new();
                self.skips = !self.has_ended;
                return match self.skips {
                    true => Taken::Nothing,
                    false => Taken::TooLong,
                };
            }
            return match (self.has_ended, self.line.is_empty()) {
                (true, true) => Taken::End,
                (true, false) => self.taken(),
                (false, _) => Taken::Nothing,
            };
        }
        // The end of the line that was skipped belongs to it.
        let n_skipped = n_read - read.len() + usize::from(!read.is_empty());
        self.reader.consume(n_skipped);
        match self.skips {
            true => Taken::Nothing,
            false => Taken::TooLong,
        }
    }

    fn taken(&mut self) -> Taken {
        let line = std::mem::take(&mut self.line);
        match line.len() > self.max_bytes {
            true => Taken::TooLong,
            false => Taken::Line(line),
        }
    }

    /// Waits until there is something to read, or the input has ended. Returns false if that is not
    /// so within `time`.
    ///
    /// # Errors
    /// The operating system's error.
    pub(super) fn wait(&self, time: Duration) -> io::Result<bool> {
        let mut input = [PollFd::new(self.reader.get_ref(), PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap_or_default();
        match poll(&mut input, Some(&time)) {
            Ok(n_ready) => Ok(n_ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Reads more, once [`Self::take`] has returned [`Taken::Nothing`].
    ///
    /// # Errors
    /// The operating system's error.
    pub(super) fn read(&mut self) -> io::Result<()> {
        match self.reader.fill_buf() {
            Ok(bytes) => self.has_ended = bytes.is_empty(),
            // Another process can have made the stream non-blocking.
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(err) => return Err(err),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    /// Returns the lines of a text with lines of at most 4 bytes.
    fn lines(text: &str, buffer_bytes: usize) -> Vec<String> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.rewind().expect("at its start");
        let mut reader = LineReader::new(file, 4);
        reader.reader = BufReader::with_capacity(buffer_bytes, reader.reader.into_inner());
        let mut lines = Vec::new();
        loop {
            match reader.take() {
                Taken::Line(line) => lines.push(String::from_utf8(line).expect("UTF-8")),
                Taken::TooLong => lines.push("(too long)".to_owned()),
                Taken::End => return lines,
                Taken::Nothing => {
                    assert!(reader.wait(Duration::ZERO).expect("a file"));
                    reader.read().expect("read");
                }
            }
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_read() {
        for buffer_bytes in [1, 2, 3, 5, 7, 100] {
            let check = |text: &str, expected: &[&str]| {
                assert_eq!(
                    lines(text, buffer_bytes),
                    expected,
                    "{text:?} {buffer_bytes}"
                );
            };
            check("", &[]);
            check("a", &["a"]);
            check("a\n\nbc\n", &["a", "", "bc"]);
            check("1234\n12345\n1\n", &["1234", "(too long)", "1"]);
            check("123456789012\n12\n", &["(too long)", "12"]);
            check("1\n1234567", &["1", "(too long)"]);
            check("12345", &["(too long)"]);
            check("1\n1234", &["1", "1234"]);
        }
    }
}
