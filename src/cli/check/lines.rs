//! Text output of `check`: aligned lines with labels, and tables. Texts of guests and documents are
//! escaped here.

use std::fmt;

use crate::text::escaped;

/// Width of a label in characters.
const LABEL_WIDTH: usize = 10;

/// Lines with their indentation.
pub(super) struct Lines {
    lines: Vec<(usize, String)>,
    depth: usize,
    /// True if nothing is shortened.
    pub(super) verbose: bool,
}

impl Lines {
    pub(super) fn new(verbose: bool) -> Self {
        Self {
            lines: Vec::new(),
            depth: 1,
            verbose,
        }
    }

    /// Adds a line, such as a heading.
    pub(super) fn add(&mut self, text: &str) {
        self.lines.push((self.depth, escaped(text.trim_end())));
    }

    /// Adds a line with a label and a text.
    pub(super) fn field(&mut self, label: &str, text: &str) {
        self.add(&format!("{label:LABEL_WIDTH$}{text}"));
    }

    /// Calls `add`, and indents its lines by one more level.
    pub(super) fn indented(&mut self, add: impl FnOnce(&mut Self)) {
        self.depth += 1;
        add(self);
        self.depth -= 1;
    }

    /// Adds rows with aligned columns.
    pub(super) fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        /// Maximum width of a column in characters. A wider cell breaks the alignment of its row
        /// only.
        const WIDEST: usize = 44;
        let rows: Vec<_> = rows
            .iter()
            .map(|row| row.each_ref().map(|cell| escaped(cell)))
            .collect();
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .filter(|width| *width <= WIDEST)
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &rows {
            let cells = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}  "));
            let line: String = cells.collect();
            self.lines.push((self.depth, line.trim_end().to_owned()));
        }
    }

    /// Returns the start of a long text, or all of it with `verbose`.
    pub(super) fn shortened(&self, text: &str) -> String {
        /// Characters that fit into a line next to its other parts.
        const MAX_CHARS: usize = 80;
        match text.char_indices().nth(MAX_CHARS) {
            Some((end, _)) if !self.verbose => format!("{}...", &text[..end]),
            _ => text.to_owned(),
        }
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, line) in &self.lines {
            writeln!(f, "{:indent$}{line}", "", indent = depth * 2)?;
        }
        Ok(())
    }
}
