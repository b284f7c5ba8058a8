//! stderr as people see it: lines that stay, and below them a few lines that are redrawn in place.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use unicode_width::UnicodeWidthStr;

use super::stderr::{self, Weight};

/// Number of columns if a terminal does not report it.
const USUAL_COLUMNS: usize = 80;

/// The drawing on stderr. There is one for the whole program, since all parts write to the same
/// stderr.
static SCREEN: Mutex<Screen> = Mutex::new(Screen { frame: Vec::new() });

/// Prints lines that stay, above the lines that are drawn in place.
///
/// * `text`: safe to show, with its line ends.
pub(super) fn print(text: &str, weight: Weight) -> io::Result<()> {
    let screen = lock();
    // Most programs draw nothing; then the terminal need not be queried.
    stderr::write(text, weight, |lines| {
        if screen.frame.is_empty() {
            lines.to_owned()
        } else {
            screen.print(lines, columns())
        }
    })
}

/// Draws lines in place of the lines that were drawn before. Without lines, removes the latter.
///
/// * `frame`: safe to show, each line narrower than the terminal.
pub(super) fn draw(frame: Vec<String>) -> io::Result<()> {
    let mut screen = lock();
    // A terminal that is behind skips this frame, but the last drawing is removed in any case.
    if screen.frame == frame || !(frame.is_empty() || stderr::is_idle()) {
        return Ok(());
    }
    let drawn = screen.draw(frame, columns());
    stderr::draw(&drawn)
}

/// Returns the current number of columns of the terminal.
pub(super) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(USUAL_COLUMNS)
}

fn lock() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that are drawn. The cursor is below them, so that anything else that is written there
/// has its own line.
struct Screen {
    frame: Vec<String>,
}

impl Screen {
    /// Returns the number of rows of the frame. A terminal that has become narrower has wrapped its
    /// lines.
    fn n_rows(&self, columns: usize) -> usize {
        self.frame
            .iter()
            .map(|line| line.width().div_ceil(columns).max(1))
            .sum()
    }

    /// Returns the text that draws a frame, or none, in place of the present one.
    fn draw(&mut self, frame: Vec<String>, columns: usize) -> String {
        let n_rows = self.n_rows(columns);
        let mut text = up(n_rows);
        self.frame = frame;
        text.extend(self.lines());
        let n_more = n_rows.saturating_sub(self.frame.len());
        text + &"\x1b[2K\n".repeat(n_more) + &up(n_more)
    }

    /// Returns the text that prints lines, and redraws the frame below them.
    fn print(&self, lines: &str, columns: usize) -> String {
        let n_rows = self.n_rows(columns);
        let mut text = up(n_rows) + &"\x1b[2K\n".repeat(n_rows) + &up(n_rows) + lines;
        text.extend(self.lines());
        text
    }

    /// Returns the text of the frame. Each line first clears its whole row, so that the terminal
    /// forgets that the line was wrapped. Clearing the whole screen instead would move the frame to
    /// the scrollback of some terminals.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.frame
            .iter()
            .flat_map(|line| ["\x1b[2K", line.as_str(), "\n"])
    }
}

/// Returns the text that moves the cursor to the start of a row above.
fn up(n_rows: usize) -> String {
    if n_rows == 0 {
        String::new()
    } else {
        format!("\r\x1b[{n_rows}A")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that understands the output of [`Screen`].
    struct Terminal {
        columns: usize,
        rows: Vec<String>,
        row: usize,
    }

    impl Terminal {
        fn new(columns: usize) -> Self {
            Self {
                columns,
                rows: vec![String::new()],
                row: 0,
            }
        }

        fn write(&mut self, text: &str) {
            let mut column = 0;
            let mut chars = text.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\r' => column = 0,
                    '\n' => {
                        (self.row, column) = (self.row + 1, 0);
                        self.rows
                            .resize(self.rows.len().max(self.row + 1), String::new());
                    }
                    '\x1b' => {
                        let sequence = until_letter(chars.by_ref().skip(1));
                        match sequence.split_at(sequence.len() - 1) {
                            (n, "A") => self.row -= n.parse::<usize>().expect("a number"),
                            ("2", "K") => self.rows[self.row].clear(),
                            other => panic!("{other:?}"),
                        }
                    }
                    c => {
                        assert!(column < self.columns, "a line wraps");
                        self.rows[self.row].truncate(column);
                        self.rows[self.row].push(c);
                        column += 1;
                    }
                }
            }
        }

        /// Returns the rows down to the last row with text; the cursor is right below.
        fn shown(&self) -> Vec<&str> {
            assert!(
                self.rows[self.row..].iter().all(String::is_empty),
                "{:?}",
                self.rows
            );
            self.rows[..self.row].iter().map(String::as_str).collect()
        }

        /// Changes the width, as terminals do that rewrap lines.
        fn resize(&mut self, columns: usize) {
            let wrap = |row: &String| -> Vec<String> {
                let chars: Vec<_> = row.chars().collect();
                let rows = chars
                    .chunks(columns)
                    .map(|chunk| chunk.iter().collect())
                    .collect::<Vec<_>>();
                if rows.is_empty() {
                    vec![String::new()]
                } else {
                    rows
                }
            };
            let below = self.rows.len() - self.row;
            self.rows = self.rows.iter().flat_map(wrap).collect();
            (self.columns, self.row) = (columns, self.rows.len() - below);
        }
    }

    /// Returns the rest of a control sequence.
    fn until_letter(chars: impl Iterator<Item = char>) -> String {
        let mut text = String::new();
        for c in chars {
            text.push(c);
            if c.is_ascii_alphabetic() {
                break;
            }
        }
        text
    }

    fn frame(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn lines_stay_above_the_frame_and_the_frame_is_removed_completely() {
        let (mut screen, mut terminal) = (Screen { frame: Vec::new() }, Terminal::new(20));
        terminal.write(&screen.print("before\n", 20));
        terminal.write(&screen.draw(frame(&["one 1/20", "two", "three"]), 20));
        assert_eq!(terminal.shown(), ["before", "one 1/20", "two", "three"]);
        terminal.write(&screen.print("warning: w\n", 20));
        terminal.write(&screen.draw(frame(&["one 2", "two"]), 20));
        assert_eq!(terminal.shown(), ["before", "warning: w", "one 2", "two"]);
        terminal.write(&screen.draw(Vec::new(), 20));
        assert_eq!(terminal.shown(), ["before", "warning: w"]);
    }

    #[test]
    fn a_terminal_that_becomes_narrower_keeps_nothing_of_the_frame() {
        let (mut screen, mut terminal) = (Screen { frame: Vec::new() }, Terminal::new(40));
        terminal.write(&screen.print("before\n", 40));
        terminal.write(&screen.draw(frame(&["a line of the frame, 30 columns", "two"]), 40));
        terminal.resize(12);
        assert_eq!(terminal.shown().len(), 5);
        terminal.write(&screen.draw(frame(&["now 12", "two"]), 12));
        assert_eq!(terminal.shown(), ["before", "now 12", "two"]);
        terminal.resize(30);
        terminal.write(&screen.draw(Vec::new(), 30));
        assert_eq!(terminal.shown(), ["before"]);
    }
}
