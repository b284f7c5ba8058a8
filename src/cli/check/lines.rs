//! The answer for a person: lines with labels and tables, aligned. Texts of guests and documents
//! are escaped here.

use std::fmt;

use crate::text::escaped;

/// Characters of a label.
const LABEL_WIDTH: usize = 10;

/// Lines, each indented as deep as what it belongs to.
pub(super) struct Lines {
    lines: Vec<(usize, String)>,
    depth: usize,
    /// Whether everything is told, however long.
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

    /// A line of its own, such as a heading.
    pub(super) fn add(&mut self, text: &str) {
        self.lines.push((self.depth, escaped(text.trim_end())));
    }

    /// A label and its text.
    pub(super) fn field(&mut self, label: &str, text: &str) {
        self.add(&format!("{label:LABEL_WIDTH$}{text}"));
    }

    /// What `add` adds is one level deeper.
    pub(super) fn indented(&mut self, add: impl FnOnce(&mut Self)) {
        self.depth += 1;
        add(self);
        self.depth -= 1;
    }

    /// Rows whose columns begin below each other, but for the last one's end.
    pub(super) fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        /// A column is not made wider than this for the sake of one long cell.
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

    /// The start of a text that may be long, unless everything is told.
    pub(super) fn shortened(&self, text: &str) -> String {
        /// Characters that fit beside the rest of a line.
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
