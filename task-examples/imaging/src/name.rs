//! Names: wells (`B03`) and components (`plate1.zarr/B/03/0`). No file is touched here.

use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A well's place: a row of one or two capital letters, then a column of one to three digits. Its
/// text is `B03`.
///
/// Wells are in the order of their rows, then of their columns: `B02` before `B10` before `AA01`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Well {
    /// `B`.
    pub row: String,
    /// `03`.
    pub column: String,
}

impl Well {
    /// Reads `B03` or `b03`; `None` for another text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let row = &text[..text.len() - digits.len()];
        let fits = (1..=2).contains(&row.len()) && (1..=3).contains(&digits.len());
        (fits && is_digits(digits)).then(|| Self {
            row: row.to_ascii_uppercase(),
            column: digits.to_owned(),
        })
    }

    /// The letters of a row: A is 1, Z 26, AA 27.
    pub fn row_of_number(number: usize) -> Option<String> {
        let letter = |index: usize| char::from(b'A' + index as u8);
        match number {
            1..=26 => Some(letter(number - 1).to_string()),
            27..=702 => Some(
                [letter((number - 27) / 26), letter((number - 27) % 26)]
                    .iter()
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The number of the row: A is 1, Z 26, AA 27.
    pub fn row_number(&self) -> usize {
        self.row
            .bytes()
            .fold(0, |sum, letter| 26 * sum + usize::from(letter - b'A') + 1)
    }

    fn place(&self) -> (usize, &str, u32, &str) {
        (
            self.row.len(),
            &self.row,
            self.column.parse().unwrap_or(0),
            &self.column,
        )
    }
}

impl Ord for Well {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Well {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Well {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.row, self.column)
    }
}

impl TryFrom<String> for Well {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no well, such as B03"))
    }
}

impl From<Well> for String {
    fn from(well: Well) -> Self {
        well.to_string()
    }
}

/// A field, channel or Z plane: a number as it is written, in the order of the numbers. It may have
/// letters before it (`Z001`), or a sign and decimals (`-0.5`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub String);

impl Number {
    /// The finite number; `None` if there is none.
    fn value(&self) -> Option<f64> {
        let is_decimal = |c: char| c.is_ascii_digit() || "+-.".contains(c);
        let digits = self.0.trim_start_matches(|c: char| !c.is_ascii_digit());
        let text = if self.0.chars().all(is_decimal) {
            &self.0
        } else {
            digits
        };
        text.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value()
            .partial_cmp(&other.value())
            .unwrap_or(std::cmp::Ordering::Equal)
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which plane of which image of which plate something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaneId {
    /// `plate1`.
    pub plate: String,
    /// `B03`.
    pub well: Well,
    /// `F001`.
    pub field: Number,
    /// `C01`.
    pub channel: Number,
    /// `Z001`; empty if the name has none.
    pub z: Number,
}

/// Whether a plate may be called so: it becomes the name of a folder.
pub fn is_plate(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && !text.contains(['/', '\\'])
        && !text.contains(char::is_control)
}

/// A component: a plate, a well or an image, as a path below the output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The plate's folder without `.zarr`.
    pub plate: String,
    /// Where a well or an image is meant.
    pub well: Option<Well>,
    /// The image's folder in its well, where an image is meant.
    pub image: Option<String>,
}

impl Component {
    /// Reads `plate1.zarr/B/03/0`.
    ///
    /// # Errors
    /// For a text that is no image.
    pub fn parse_image(text: &str) -> Result<Self, TaskError> {
        Self::parse(text).filter(|component| component.image.is_some()).ok_or_else(|| {
            TaskError::new(format!(
                "component {text:?} is no image, such as plate1.zarr/B/03/0: run the task on the level image"
            ))
        })
    }

    /// Reads `plate1.zarr/B/03`.
    ///
    /// # Errors
    /// For a text that is no well.
    pub fn parse_well(text: &str) -> Result<(Self, Well), TaskError> {
        let component = Self::parse(text).filter(|component| component.image.is_none());
        component.and_then(|component| Some((component.clone(), component.well?))).ok_or_else(|| {
            TaskError::new(format!(
                "component {text:?} is no well, such as plate1.zarr/B/03: run the task on the level well"
            ))
        })
    }

    /// Reads `plate1.zarr`.
    ///
    /// # Errors
    /// For a text that is no plate.
    pub fn parse_plate(text: &str) -> Result<Self, TaskError> {
        Self::parse(text)
            .filter(|component| component.well.is_none())
            .ok_or_else(|| {
                TaskError::new(format!(
                    "{text:?} in metadata.plate is no plate, such as plate1.zarr"
                ))
            })
    }

    fn parse(text: &str) -> Option<Self> {
        // Fractal's own tasks write a slash after wells and images.
        let mut parts = text.strip_suffix('/').unwrap_or(text).split('/');
        let plate = parts
            .next()?
            .strip_suffix(".zarr")
            .filter(|plate| is_plate(plate))?
            .to_owned();
        let (row, column, image) = (parts.next(), parts.next(), parts.next());
        let well = match row {
            None => None,
            Some(row) => {
                Some(Well::parse(&format!("{row}{}", column?)).filter(|well| well.row == row)?)
            }
        };
        if image.is_some_and(|image| !is_digits(image)) || parts.next().is_some() {
            return None;
        }
        Some(Self {
            plate,
            well,
            image: image.map(str::to_owned),
        })
    }

    /// The folder.
    pub fn folder(&self, output: &Path) -> PathBuf {
        let mut folder = output.join(format!("{}.zarr", self.plate));
        if let Some(Well { row, column }) = &self.well {
            folder.extend([row, column]);
        }
        folder.extend(&self.image);
        folder
    }

    /// The same place in another plate.
    pub fn in_plate(&self, plate: &str) -> Self {
        Self {
            plate: plate.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.zarr", self.plate)?;
        if let Some(well) = &self.well {
            write!(f, "/{}/{}", well.row, well.column)?;
        }
        self.image
            .iter()
            .try_for_each(|image| write!(f, "/{image}"))
    }
}

/// True for a text of ASCII digits.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_places_below_the_output_folder() {
        for text in [
            "plate1.zarr/B/03/0",
            "plate1.zarr/AA/103/12",
            "p q.zarr/B/03",
            "plate1.zarr",
        ] {
            assert_eq!(Component::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            Component::parse_image("p.zarr/B/03/1")
                .unwrap()
                .folder(Path::new("/out")),
            Path::new("/out/p.zarr/B/03/1")
        );
        assert_eq!(
            Component::parse("p.zarr/B/03/0/"),
            Component::parse("p.zarr/B/03/0")
        );
        assert_eq!(
            Component::parse("p.zarr/B/03/"),
            Component::parse("p.zarr/B/03")
        );
        for text in [
            "",
            "plate1",
            "../p.zarr",
            "p.zarr/B",
            "p.zarr/B/03/..",
            "p.zarr/B/03/0/1",
            "p.zarr/BA/",
            "p.zarr//B/03",
            "/p.zarr",
        ] {
            assert_eq!(Component::parse(text), None, "{text}");
        }
        assert!(
            Component::parse_well("p.zarr/B/03/0").is_err()
                && Component::parse_image("p.zarr/B/03").is_err()
        );
    }

    #[test]
    fn rows_have_numbers() {
        for (row, number) in [("A", 1), ("Z", 26), ("AA", 27), ("AF", 32)] {
            assert_eq!(Well::row_of_number(number).as_deref(), Some(row));
            assert_eq!(
                Well::parse(&format!("{row}1")).unwrap().row_number(),
                number
            );
        }
        assert_eq!(
            (Well::row_of_number(0), Well::row_of_number(703)),
            (None, None)
        );
        assert_eq!(Well::parse("b03"), Well::parse("B03"));
    }

    #[test]
    fn the_order_is_that_of_the_numbers() {
        let mut wells = ["AA1", "B10", "A12", "B2"].map(|text| Well::parse(text).unwrap());
        wells.sort();
        assert_eq!(
            wells.map(|well| well.to_string()),
            ["A12", "B2", "B10", "AA1"]
        );
        let sorted = |texts: &[&str]| {
            let mut numbers: Vec<_> = texts
                .iter()
                .map(|text| Number((*text).to_owned()))
                .collect();
            numbers.sort();
            numbers.iter().map(Number::to_string).collect::<Vec<_>>()
        };
        for texts in [
            ["F2", "F10", "F020"],
            ["-2", "-1", "0.5"],
            ["0.25", "0.5", "1"],
            ["", "DAPI", "w1"],
        ] {
            let reversed: Vec<_> = texts.iter().rev().copied().collect();
            assert_eq!(sorted(&reversed), texts);
        }
    }
}
