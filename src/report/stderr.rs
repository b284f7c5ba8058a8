//! stderr of the program, whose reader may stop reading while the program has work to do.
//!
//! Lines wait in a bounded buffer. When it is full, a reader that reads is waited for; one that has
//! taken nothing for
//! [`STALL`] is not waited for again until it reads on: lines are left out then, and their number is shown in their place.
//! Lines that matter have twice the room of others, so those that are many do not displace them.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outlet::Outlet;

/// Time without any progress after which a reader has stopped reading.
const STALL: Duration = Duration::from_millis(200);
/// The same at the end of the program, where nothing else has to be done.
const LAST_STALL: Duration = Duration::from_secs(1);
/// Bytes of lines that can wait.
const ROOM: usize = 256 << 10;
/// The same where lines matter.
const ROOM_FOR_WHAT_MATTERS: usize = 2 * ROOM;
/// Bytes of lines that are handed over at a time. A reporter may have many megabytes of lines after
/// a flush, and an empty buffer takes any piece whole.
const PIECE: usize = ROOM / 4;

/// How much it harms if lines are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// A file or a later line has it too: progress, output of guests.
    Usual,
    /// Errors, warnings, how tasks end.
    Matters,
}

/// The program has one stderr.
static STDERR: Mutex<Stderr> = Mutex::new(Stderr {
    outlet: None,
    stopped_at: None,
    n_missing: 0,
});

struct Stderr {
    /// Started by the first line.
    outlet: Option<Outlet>,
    /// Bytes that had been written when the reader was found to have stopped.
    stopped_at: Option<u64>,
    /// Lines that were left out since the last one that was not.
    n_missing: usize,
}

impl Stderr {
    /// `None`: there can be no other thread.
    fn outlet(&mut self) -> Option<&Outlet> {
        if self.outlet.is_none() {
            self.outlet = Outlet::start("mandelbox-stderr", io::stderr()).ok();
        }
        self.outlet.as_ref()
    }

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
            // One of the lines says how many are missing already.
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

/// Splits lines into pieces of at most [`PIECE`] bytes, or of one line that is longer; an empty
/// text is one piece.
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
    format!("[mandelbox: {lines} missing here, since stderr was not read]\n")
}

/// Writes lines, or leaves them out if the reader has stopped.
///
/// * `draw`: what is written to show the lines.
pub(super) fn write(lines: &str, weight: Weight, draw: impl Fn(&str) -> String) -> io::Result<()> {
    let room = match weight {
        Weight::Usual => ROOM,
        Weight::Matters => ROOM_FOR_WHAT_MATTERS,
    };
    lock().write(lines, room, draw)
}

/// Writes what changes a drawing in place.
pub(super) fn draw(drawn: &str) -> io::Result<()> {
    let mut stderr = lock();
    let Some(outlet) = stderr.outlet() else {
        return io::stderr().write_all(drawn.as_bytes());
    };
    outlet
        .push(drawn.as_bytes(), ROOM_FOR_WHAT_MATTERS, |stalled| {
            stalled >= STALL
        })
        .map(|_| ())
}

/// Whether everything is written, so that a drawing would be seen at once.
pub(super) fn is_idle() -> bool {
    lock()
        .outlet
        .as_ref()
        .is_none_or(|outlet| outlet.progress().1 == 0)
}

/// Writes the last lines of the program, and waits for a reader that reads.
pub(super) fn write_last(lines: &str) -> io::Result<()> {
    let mut stderr = lock();
    if !lines.is_empty() || stderr.n_missing > 0 {
        stderr.write(lines, usize::MAX, str::to_owned)?;
    }
    stderr.drain(LAST_STALL)
}

/// Waits for a reader that reads, when the program must end soon.
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
