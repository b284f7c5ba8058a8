//! stderr of the program, whose reader may stop reading while the program has work to do.
//!
//! Lines wait in a bounded buffer. When it is full, the program waits for a reader that is slow,
//! but not for a reader that has accepted nothing for [`STALL`]. Until such a reader continues,
//! lines are dropped, and their number is shown in their place. Important lines have twice the room
//! of others, so that frequent lines do not displace them.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outlet::Outlet;

/// Time without progress after which a reader counts as stopped.
const STALL: Duration = Duration::from_millis(200);
/// The same time at the end of the program, which has nothing else to do.
const LAST_STALL: Duration = Duration::from_secs(1);
/// Bytes of lines that can wait.
const ROOM: usize = 256 << 10;
/// Bytes of lines that can wait, if they are important.
const ROOM_IF_IMPORTANT: usize = 2 * ROOM;
/// Bytes of lines that are passed on at a time. A reporter may have many megabytes of lines after a
/// flush, and an empty buffer accepts a piece of any size.
const PIECE: usize = ROOM / 4;

/// Importance of lines, which decides when they are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Progress and output of guests: a file or a later line has it too.
    Usual,
    /// Errors, warnings, and the ends of tasks.
    Important,
}

/// The stderr of the program, shared by all its parts.
static STDERR: Mutex<Stderr> = Mutex::new(Stderr {
    outlet: None,
    stopped_at: None,
    n_missing: 0,
});

struct Stderr {
    /// Started with the first line.
    outlet: Option<Outlet>,
    /// Number of bytes that had been written when the reader was found to have stopped.
    stopped_at: Option<u64>,
    /// Number of lines that were dropped since the last line that was not.
    n_missing: usize,
}

impl Stderr {
    /// Returns the outlet; `None` if its thread cannot be started.
    fn outlet(&mut self) -> Option<&Outlet> {
        if self.outlet.is_none() {
            self.outlet = Outlet::start("mandelbox-stderr", io::stderr()).ok();
        }
        self.outlet.as_ref()
    }

    /// Writes lines piece by piece.
    ///
    /// * `room`: bytes that may wait.
    fn write(&mut self, lines: &str, room: usize, draw: impl Fn(&str) -> String) -> io::Result<()> {
        pieces(lines).try_for_each(|piece| self.write_piece(piece, room, &draw))
    }

    fn write_piece(
        &mut self,
        lines: &str,
        room: usize,
        draw: impl Fn(&str) -> String,
    ) -> io::Result<()> {
        let lines = if self.n_missing == 0 {
            lines.to_owned()
        } else {
            missing_text(self.n_missing) + lines
        };
        let (n_missing, stopped_at) = (lines.matches('\n').count(), self.stopped_at);
        let drawn = draw(&lines);
        let Some(outlet) = self.outlet() else {
            return io::stderr().write_all(drawn.as_bytes());
        };
        let stall = if stopped_at == Some(outlet.progress().0) {
            Duration::ZERO
        } else {
            STALL
        };
        let is_taken = outlet.push(drawn.as_bytes(), room, |stalled| stalled >= stall)?;
        let written = outlet.progress().0;
        if is_taken {
            (self.n_missing, self.stopped_at) = (0, None);
        } else {
            // One of these lines is the note on the lines that were dropped before.
            self.n_missing += n_missing - usize::from(self.n_missing > 0);
            self.stopped_at = Some(written);
        }
        Ok(())
    }

    fn drain(&self, stall: Duration) -> io::Result<()> {
        self.outlet
            .as_ref()
            .map_or(Ok(true), |outlet| outlet.drain(|stalled| stalled >= stall))
            .map(|_| ())
    }
}

/// Splits lines into pieces of at most [`PIECE`] bytes, or of one longer line. An empty text is one
/// piece.
fn pieces(lines: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(lines);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= PIECE {
            return rest.take();
        }
        let bytes = text.as_bytes();
        let last_end = bytes[..PIECE].iter().rposition(|byte| *byte == b'\n');
        let end = last_end.or_else(|| bytes.iter().position(|byte| *byte == b'\n'));
        let (piece, after) = text.split_at(end.map_or(text.len(), |end| end + 1));
        rest = Some(after).filter(|after| !after.is_empty());
        Some(piece)
    })
}

fn missing_text(n_lines: usize) -> String {
    let lines = if n_lines == 1 {
        "1 line is".to_owned()
    } else {
        format!("{n_lines} lines are")
    };
    format!("[mandelbox: {lines} missing here because stderr was not read]\n")
}

/// Writes lines, or drops them if the reader has stopped.
///
/// * `draw`: returns the text to write in order to show the lines.
pub(super) fn write(lines: &str, weight: Weight, draw: impl Fn(&str) -> String) -> io::Result<()> {
    let room = match weight {
        Weight::Usual => ROOM,
        Weight::Important => ROOM_IF_IMPORTANT,
    };
    lock().write(lines, room, draw)
}

/// Writes text that changes a drawing in place.
pub(super) fn draw(drawn: &str) -> io::Result<()> {
    let mut stderr = lock();
    let Some(outlet) = stderr.outlet() else {
        return io::stderr().write_all(drawn.as_bytes());
    };
    outlet
        .push(drawn.as_bytes(), ROOM_IF_IMPORTANT, |stalled| {
            stalled >= STALL
        })
        .map(|_| ())
}

/// Returns true if everything is written, so that a drawing would be visible at once.
pub(super) fn is_idle() -> bool {
    lock()
        .outlet
        .as_ref()
        .is_none_or(|outlet| outlet.progress().1 == 0)
}

/// Writes the last lines of the program, and waits for the reader unless it has stopped.
pub(super) fn write_last(lines: &str) -> io::Result<()> {
    let mut stderr = lock();
    if !lines.is_empty() || stderr.n_missing > 0 {
        stderr.write(lines, usize::MAX, str::to_owned)?;
    }
    stderr.drain(LAST_STALL)
}

/// Waits for the reader unless it has stopped, when the program must end soon.
pub(super) fn drain() -> io::Result<()> {
    lock().drain(STALL)
}

fn lock() -> MutexGuard<'static, Stderr> {
    STDERR.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_their_ends() {
        let long = "x".repeat(2 * PIECE);
        let text = format!(
            "{}{long}\n{}end",
            "short\n".repeat(PIECE / 3),
            "y\n".repeat(PIECE)
        );
        let split: Vec<_> = pieces(&text).collect();
        assert_eq!(split.concat(), text);
        for piece in &split[..split.len() - 1] {
            assert!(
                piece.ends_with('\n') && (piece.len() <= PIECE || piece.lines().count() == 1),
                "{}",
                piece.len()
            );
        }
        assert_eq!(pieces("").collect::<Vec<_>>(), [""]);
        assert_eq!(pieces("one\n").collect::<Vec<_>>(), ["one\n"]);
    }
}
