//! The wells of a plate: their names, and how the cells in each respond.

use std::collections::BTreeSet;
use std::fmt;

/// One well, from `A01` to `P24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Well {
    /// From 0.
    pub(crate) row: u8,
    /// From 1.
    pub(crate) column: u8,
}

impl fmt::Display for Well {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:02}", char::from(b'A' + self.row), self.column)
    }
}

/// Different wells, row by row; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wells(Vec<Well>);

impl Wells {
    /// Reads `B03,C05`, or the number of wells of a whole plate.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(n_wells) = text.parse() {
            return Self::all_of(n_wells);
        }
        let mut wells = BTreeSet::new();
        for name in text.split(',') {
            let well = parse_well(name).ok_or_else(|| {
                format!("'{name}' is no well: write a letter from A to P and a column from 01 to 24, such as B03")
            })?;
            if !wells.insert(well) {
                return Err(format!("{well} is there twice: name each well once"));
            }
        }
        Ok(Self(wells.into_iter().collect()))
    }

    fn all_of(n_wells: usize) -> Result<Self, String> {
        let (n_rows, n_columns) = match n_wells {
            6 => (2, 3),
            12 => (3, 4),
            24 => (4, 6),
            48 => (6, 8),
            96 => (8, 12),
            384 => (16, 24),
            _ => {
                return Err("a whole plate has 6, 12, 24, 48, 96 or 384 wells: write one of these, or names".to_owned());
            }
        };
        Ok(Self(
            (0..n_rows)
                .flat_map(|row| (1..=n_columns).map(move |column| Well { row, column }))
                .collect(),
        ))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Well> {
        self.0.iter().copied()
    }

    /// How much the cells of a well respond: 0 to 1, more in each column; the lower the row, the
    /// later.
    pub(crate) fn response_in(&self, well: Well) -> f64 {
        let dose = share_below(self.iter().map(|well| well.column), well.column);
        let half = 0.3 + 0.4 * share_below(self.iter().map(|well| well.row), well.row);
        let (dose, half) = (dose * dose * dose, half * half * half);
        dose / (dose + half)
    }
}

/// The place of a value among the different ones: 0 for the least, 1 for the largest.
fn share_below(values: impl Iterator<Item = u8>, value: u8) -> f64 {
    let values: BTreeSet<u8> = values.collect();
    let n_below = values.iter().filter(|other| **other < value).count();
    n_below as f64 / (values.len().max(2) - 1) as f64
}

fn parse_well(name: &str) -> Option<Well> {
    let [row @ b'A'..=b'P', tens @ b'0'..=b'2', ones @ b'0'..=b'9'] = name.as_bytes() else {
        return None;
    };
    let column = (tens - b'0') * 10 + (ones - b'0');
    (1..=24).contains(&column).then_some(Well {
        row: row - b'A',
        column,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        Wells::parse(text)
            .unwrap()
            .iter()
            .map(|well| well.to_string())
            .collect()
    }

    #[test]
    fn wells_are_read_row_by_row() {
        assert_eq!(names("C05,B10,B03"), ["B03", "B10", "C05"]);
        assert_eq!(names("6"), ["A01", "A02", "A03", "B01", "B02", "B03"]);
        let whole = names("96");
        assert_eq!((whole.len(), whole[95].as_str()), (96, "H12"));
        assert_eq!(names("384").last().unwrap(), "P24");
    }

    #[test]
    fn wrong_wells_are_named() {
        let message = |text: &str| Wells::parse(text).unwrap_err();
        for name in ["b03", "B3", "Q01", "A00", "A25", "", "B03 "] {
            assert!(
                message(&format!("A01,{name}")).starts_with(&format!("'{name}' is no well")),
                "{name}"
            );
        }
        assert_eq!(
            message("B03,B03"),
            "B03 is there twice: name each well once"
        );
        assert!(message("97").starts_with("a whole plate has 6, 12,"));
    }

    #[test]
    fn the_response_grows_with_the_column() {
        let wells = Wells::parse("96").unwrap();
        let response = |row, column| wells.response_in(Well { row, column });
        assert_eq!(response(0, 1), 0.0);
        assert!((1..12).all(|column| response(3, column) < response(3, column + 1)));
        assert!((0..7).all(|row| response(row, 6) > response(row + 1, 6)));
        assert!(response(0, 12) > 0.95);
        let one = Wells::parse("B03").unwrap();
        assert_eq!(one.response_in(Well { row: 1, column: 3 }), 0.0);
    }
}
