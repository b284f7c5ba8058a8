//! Names of image files, as microscopes write them. No file is touched here.

use crate::name::{Number, Well, is_digits, is_plate};
use fractal_task::TaskError;
use regex_lite::Regex;
use std::ops::Range;

/// A part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Plate,
    Well,
    Row,
    Column,
    Index,
    Field,
    Z,
    Channel,
    Time,
}

/// Parts with the names of their groups in patterns.
const GROUPS: [(Part, &str); 9] = [
    (Part::Plate, "plate"),
    (Part::Well, "well"),
    (Part::Row, "row"),
    (Part::Column, "column"),
    (Part::Index, "index"),
    (Part::Field, "field"),
    (Part::Z, "z"),
    (Part::Channel, "channel"),
    (Part::Time, "time"),
];

/// Name, example and regular expression of the file names of each kind of microscope. Names have no
/// ending; case does not matter. A group `index` is the number of a well, row by row.
///
/// Sources: see the table in the README.
const PATTERNS: [(&str, &str, &str); 13] = [
    (
        "Yokogawa CellVoyager",
        "20200812-Test_B03_T0001F001L01A01Z01C01.png",
        r"(?P<plate>[^/]+)_(?P<well>[A-P]\d{2})_(?P<time>T\d+)(?P<field>F\d+)L\d+A\d+(?P<z>Z\d+)(?P<channel>C\d+)",
    ),
    (
        "MetaXpress",
        "Mix_E07_s1_w1A1B2C3D4.tif",
        r"(?:TimePoint_(?P<time>\d+)/)?(?:ZStep_(?P<z>\d+)/)?(?:(?P<plate>[^/]+)_)?(?P<well>[A-P]\d{1,2})(?:_(?P<field>s\d+))?_(?P<channel>w\d{1,2}?)(?:[0-9A-F]{8}[0-9A-F-]*)?",
    ),
    (
        "MetaXpress, one channel",
        "Mix_E07_s1.tif",
        r"(?:TimePoint_(?P<time>\d+)/)?(?:ZStep_(?P<z>\d+)/)?(?:(?P<plate>[^/]+)_)?(?P<well>[A-P]\d{1,2})_(?P<field>s\d+)(?:[0-9A-F]{8}[0-9A-F-]*)?",
    ),
    (
        "ImageXpress, Z in the name",
        "TimePoint_1/Mix_E07_s1_w1_z2.tif",
        r"(?:TimePoint_(?P<time>\d+)/)?(?:(?P<plate>[^/]+)_)?(?P<well>[A-P]\d{1,2})(?:_(?P<field>s\d+))?(?:_(?P<channel>w\d{1,2}))?_(?P<z>z\d+)",
    ),
    (
        "Operetta and Opera Phenix",
        "r02c03f01p01-ch1sk1fk1fl1.tiff",
        r"r(?P<row>\d{2})c(?P<column>\d{2})(?P<field>f\d+)(?P<z>p\d+)-(?P<channel>ch\d+)(?:(?:t\d+)?sk(?P<time>\d+)fk\d+fl\d+)?",
    ),
    (
        "Operetta, older",
        "r02c03f01p01-ch01t01.tiff",
        r"r(?P<row>\d{2})c(?P<column>\d{2})(?P<field>f\d+)(?P<z>p\d+)-(?P<channel>ch\d+)t(?P<time>\d+)",
    ),
    (
        "InCell Analyzer",
        "B - 03(fld 1 wv DAPI - DAPI z 2).tif",
        r"(?P<row>[A-P]) *- *(?P<column>\d{1,2})\(fld *(?P<field>\d+)(?: +wv +(?P<channel>[^)]+?))?(?: +z *(?P<z>\d+))?(?: +time +(?P<time>\d+)[^)]*)?\)",
    ),
    (
        "ScanR",
        "B3--W00015--P00001--Z00000--T00000--DAPI.tif",
        r"(?:(?P<well>[A-P]\d{1,2})--)?(?:(?P<plate>[^/]+?)--)?W(?P<index>\d{5})--P(?P<field>\d+)--Z(?P<z>\d+)--T(?P<time>\d+)--(?P<channel>[^/]+)",
    ),
    (
        "Yokogawa CQ1",
        "W0015F0001T0001Z001C1.tif",
        r"W(?P<index>\d{4})(?P<field>F\d{4})(?P<time>T\d{4})(?P<z>Z\d{3})(?P<channel>C\d)",
    ),
    (
        "Micro-Manager, one file a position",
        "screen_1_MMStack_B3-Site_0.ome.tif",
        r"(?P<plate>[^/]+?)_MMStack_(?:\d+-)?(?P<well>[A-P]\d{1,2})[-_]Site_(?P<field>\d+)",
    ),
    (
        "Micro-Manager, one file a plane",
        "B3-Site_0/img_channel000_position000_time000000000_z000.tif",
        r"(?P<well>[A-P]\d{1,2})-Site_(?P<field>\d+)/img_(?P<channel>channel\d+)_position\d+_time(?P<time>\d+)_z(?P<z>\d+)",
    ),
    (
        "Micro-Manager 1.4, one file a plane",
        "B3-Site_0/img_000000000_DAPI_000.tif",
        r"(?P<well>[A-P]\d{1,2})-Site_(?P<field>\d+)/img_(?P<time>\d{9})_(?P<channel>[^/]+)_(?P<z>\d{3})",
    ),
    (
        "Micro-Manager without a plate",
        "screen_1_MMStack_Pos0.ome.tif",
        r"(?P<plate>[^/]+?)_MMStack_Pos_?(?P<field>\d+)",
    ),
];

/// Name and example of the names that need no pattern.
const PLAIN: (&str, &str) = ("PLATE_WELL_FIELD_Z_CHANNEL", "plate1_B03_F001_Z001_C01.tif");

/// Numbers of wells and of columns of the usual plates whose wells are numbered.
const PLATES: [(usize, usize); 3] = [(96, 12), (384, 24), (1536, 48)];

/// What the name of a file states.
#[derive(Debug, Clone, PartialEq)]
pub struct FileName {
    /// `plate1`, if the name has it.
    pub plate: Option<String>,
    /// `B03`.
    pub well: Well,
    /// `F001`, if the name has it.
    pub field: Option<Number>,
    /// `Z001`, if the name has it.
    pub z: Option<Number>,
    /// `C01`, if the name has it.
    pub channel: Option<Number>,
    /// `T0001`, if the name has it.
    pub time: Option<Number>,
    /// Number of the well from 1, row by row, if the name has it instead of the well.
    pub index: Option<usize>,
    /// Number of columns of the plate whose wells are numbered.
    n_columns: usize,
    path: String,
    spans: Vec<(Part, Range<usize>)>,
}

impl FileName {
    /// Sets the well to the one with the number, in a plate with this number of columns.
    pub fn resolve_number(&mut self, n_columns: usize) {
        if let Some(well) = self.index.and_then(|index| well_of_index(index, n_columns)) {
            (self.well, self.n_columns) = (well, n_columns);
        }
    }

    /// Path of the file of another plane, written as this one.
    pub fn of(&self, well: &Well, field: &Number, z: &Number, channel: &Number) -> String {
        let mut path = self.path.clone();
        // From the end, so that the other parts stay where they are.
        let mut spans = self.spans.clone();
        spans.sort_by_key(|(_, span)| std::cmp::Reverse(span.start));
        for (part, span) in spans {
            let width = span.len();
            let text = match part {
                Part::Well => well.to_string(),
                Part::Index if self.index.is_some() => {
                    let column: usize = well.column.parse().unwrap_or_default();
                    let index = (well.row_number() - 1) * self.n_columns + column;
                    format!("{index:0width$}")
                }
                Part::Row if path[span.clone()].bytes().all(|byte| byte.is_ascii_digit()) => {
                    format!("{:0width$}", well.row_number())
                }
                Part::Row => well.row.clone(),
                Part::Column => format!("{:0>width$}", well.column),
                Part::Field => field.to_string(),
                Part::Z if !z.0.is_empty() => z.to_string(),
                Part::Channel => channel.to_string(),
                _ => continue,
            };
            path.replace_range(span, &text);
        }
        path
    }
}

/// How the files of a folder are named.
#[derive(Debug)]
pub enum Naming {
    /// `plate1_B03_F001_Z001_C01.tif`.
    Plain,
    /// A regular expression with named groups.
    Pattern(Regex),
}

impl Naming {
    /// Compiles the argument `pattern`.
    ///
    /// # Errors
    /// If it is no regular expression or has no group for the well.
    pub fn of_argument(pattern: &str) -> Result<Self, TaskError> {
        let wrong = |cause: String| TaskError::new(format!("pattern {pattern:?}: {cause}"));
        let regex = Regex::new(pattern)
            .map_err(|err| wrong(format!("it is no regular expression: {err}")))?;
        let names: Vec<&str> = regex.capture_names().flatten().collect();
        let known = GROUPS.map(|(_, name)| name);
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            return Err(wrong(format!(
                "the group {unknown:?} is none of {}",
                known.join(", ")
            )));
        }
        let has = |name: &str| names.contains(&name);
        if !(has("well") || has("index") || has("row") && has("column")) {
            let cause = "it has no named group for the well; add (?P<well>[A-P][0-9]+), or the groups row and column";
            return Err(wrong(cause.to_owned()));
        }
        Ok(Self::Pattern(regex))
    }

    /// Finds the built-in naming that most files have.
    ///
    /// * `paths`: of files, below the input folder.
    ///
    /// Returns `None` if no file has any.
    pub fn find(paths: &[String]) -> Option<Self> {
        let patterns = PATTERNS.iter().filter_map(|(.., pattern)| {
            let regex = Regex::new(&format!("(?i)^(?:.*?/)??{pattern}$"));
            regex.ok().map(Self::Pattern)
        });
        let namings = std::iter::once(Self::Plain).chain(patterns);
        let mut best: Option<(usize, Self)> = None;
        for naming in namings {
            let n = paths
                .iter()
                .filter(|path| naming.parse(path).is_some())
                .count();
            if n > best.as_ref().map_or(0, |(n, _)| *n) {
                best = Some((n, naming));
            }
        }
        best.map(|(_, naming)| naming)
    }

    /// Reads the path of a file below the input folder; `None` if it is named in another way.
    pub fn parse(&self, path: &str) -> Option<FileName> {
        let start = path.rfind('/').map_or(0, |slash| slash + 1);
        let stem = stem(path);
        match self {
            Self::Plain => parse_plain(path, start, stem),
            Self::Pattern(regex) => {
                let texts = [
                    (0, stem),
                    (0, path),
                    (start, &path[start..]),
                    (start, stem.get(start..)?),
                ];
                texts
                    .into_iter()
                    .find_map(|(offset, text)| parse_with(regex, path, offset, text))
            }
        }
    }
}

/// A path without the ending of the file.
fn stem(path: &str) -> &str {
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    let n = stem.len();
    match stem.get(n.saturating_sub(4)..) {
        Some(ending) if ending.eq_ignore_ascii_case(".ome") => &stem[..n - 4],
        _ => stem,
    }
}

fn parse_with(regex: &Regex, path: &str, offset: usize, text: &str) -> Option<FileName> {
    let captures = regex.captures(text)?;
    let mut spans = Vec::new();
    let mut get = |part: Part| {
        let (_, name) = GROUPS.into_iter().find(|(known, _)| *known == part)?;
        let found = captures
            .name(name)
            .filter(|found| !found.as_str().is_empty())?;
        spans.push((part, offset + found.start()..offset + found.end()));
        Some(found.as_str())
    };
    let row = get(Part::Row);
    let (stated, place, index) = (
        get(Part::Well),
        row.zip(get(Part::Column)),
        get(Part::Index),
    );
    let is_numbered = stated.is_none() && place.is_none();
    let number_of_well = index
        .filter(|_| is_numbered)
        .and_then(|index| index.parse().ok());
    let well = match (stated, place, index) {
        (Some(well), ..) => Well::parse(well)?,
        (_, Some((row, column)), _) if is_digits(row) => Well::parse(&format!(
            "{}{column}",
            Well::row_of_number(row.parse().ok()?)?
        ))?,
        (_, Some((row, column)), _) => Well::parse(&format!("{row}{column}"))?,
        (.., Some(_)) => {
            let number = number_of_well?;
            well_of_index(number, n_columns_of(number))?
        }
        _ => Well::parse("A01")?,
    };
    let plate = get(Part::Plate).map(str::to_owned);
    if plate.as_ref().is_some_and(|plate| !is_plate(plate)) {
        return None;
    }
    let mut number = |part: Part| get(part).map(|text| Number(text.to_owned()));
    let (field, z) = (number(Part::Field), number(Part::Z));
    let (channel, time) = (number(Part::Channel), number(Part::Time));
    Some(FileName {
        plate,
        well,
        field,
        z,
        channel,
        time,
        index: number_of_well,
        n_columns: n_columns_of(number_of_well.unwrap_or_default()),
        path: path.to_owned(),
        spans,
    })
}

/// Number of columns of the smallest of the usual plates that has a well with a number.
pub fn n_columns_of(index: usize) -> usize {
    let fitting = PLATES.iter().find(|(n_wells, _)| index <= *n_wells);
    fitting.unwrap_or(&PLATES[PLATES.len() - 1]).1
}

/// The well with a number, row by row from 1.
fn well_of_index(index: usize, n_columns: usize) -> Option<Well> {
    let index = index.checked_sub(1)?;
    Well::parse(&format!(
        "{}{:02}",
        Well::row_of_number(index / n_columns + 1)?,
        index % n_columns + 1
    ))
}

/// Reads `plate1_B03_F001_Z001_C01`: a plate, a well, then field, Z, channel and time point in any
/// order. All but the well and, where there is more, the field may be missing.
fn parse_plain(path: &str, start: usize, stem: &str) -> Option<FileName> {
    let parts: Vec<(usize, &str)> = {
        let mut offset = start;
        let parts = stem.get(start..)?.split('_');
        parts
            .map(|part| {
                let place = offset;
                offset += part.len() + 1;
                (place, part)
            })
            .collect()
    };
    // `C03` may be a channel and a well, so as many numbers as possible are tried first.
    (0..=4.min(parts.len() - 1)).rev().find_map(|n| {
        let (front, numbers) = parts.split_at(parts.len() - n);
        let mut spans = Vec::new();
        let kinds = [
            (Part::Field, 'F'),
            (Part::Z, 'Z'),
            (Part::Channel, 'C'),
            (Part::Time, 'T'),
        ];
        let [field, z, channel, time] = kinds.map(|(part, letter)| {
            let is_number = |text: &str| {
                text.strip_prefix([letter, letter.to_ascii_lowercase()])
                    .is_some_and(is_digits)
            };
            let mut found = numbers.iter().filter(|(_, text)| is_number(text));
            let (place, text) = found.next().filter(|_| found.next().is_none())?;
            spans.push((part, *place..place + text.len()));
            Some(Number((*text).to_owned()))
        });
        let (well_start, well) = *front.last()?;
        spans.push((Part::Well, well_start..well_start + well.len()));
        let before = front.len().checked_sub(2).map(|index| front[index].1);
        let is_well = |text: &str| Well::parse(text).is_some();
        // A point in time has the form of a well, too.
        let is_time = well.starts_with(['T', 't']) && before.is_some_and(is_well);
        // Without numbers, the well has to look like one: not `z003`.
        let is_real =
            Well::parse(well).is_some_and(|well| well.column.len() < 3 && well.row_number() <= 32);
        let is_unclear =
            n == 0 && (before.is_none_or(is_well) || !is_real || well.starts_with(['Z', 'z']));
        if spans.len() != n + 1 || n > 0 && field.is_none() || is_time || is_unclear {
            return None;
        }
        let plate = stem[start..]
            .get(..well_start.saturating_sub(start + 1))
            .unwrap_or_default();
        if !plate.is_empty() && !is_plate(plate) || plate.is_empty() && well_start > start {
            return None;
        }
        let plate = (!plate.is_empty()).then(|| plate.to_owned());
        Some(FileName {
            plate,
            well: Well::parse(well)?,
            field,
            z,
            channel,
            time,
            index: None,
            n_columns: n_columns_of(0),
            path: path.to_owned(),
            spans,
        })
    })
}

/// Says that no naming fits, and which one is the closest.
pub fn describe_unknown(paths: &[String]) -> String {
    let first = paths.first().map_or("", String::as_str);
    let plain = std::iter::once(PLAIN);
    let known = plain.chain(PATTERNS.iter().map(|(name, example, _)| (*name, *example)));
    let closest = known.max_by_key(|(_, example)| similarity(first, example));
    let (name, example) = closest.unwrap_or(PLAIN);
    format!(
        "{} files, such as {first}; no pattern fits; closest: {example} ({name})",
        paths.len()
    )
}

/// How similar two names are, in 1/1000, if only the kinds of their characters count.
fn similarity(one: &str, other: &str) -> usize {
    let shape = |text: &str| {
        let mut shape: Vec<char> = text
            .chars()
            .map(|c| match c {
                _ if c.is_ascii_digit() => '0',
                _ if c.is_alphabetic() => 'a',
                c => c,
            })
            .collect();
        shape.dedup();
        shape.truncate(200);
        shape
    };
    let (one, other) = (shape(one), shape(other));
    // Length of the longest common subsequence, row by row.
    let mut lengths = vec![0_usize; other.len() + 1];
    for a in &one {
        let mut diagonal = 0;
        for (index, b) in other.iter().enumerate() {
            let above = lengths[index + 1];
            lengths[index + 1] = if a == b {
                diagonal + 1
            } else {
                above.max(lengths[index])
            };
            diagonal = above;
        }
    }
    2000 * lengths[other.len()] / (one.len() + other.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(name: Option<FileName>) -> String {
        let Some(FileName {
            plate,
            well,
            field,
            z,
            channel,
            time,
            ..
        }) = name
        else {
            return "none".to_owned();
        };
        let numbers = [field, z, channel, time]
            .map(|number| number.map_or("-".to_owned(), |number| number.0));
        format!(
            "{} {well} {}",
            plate.unwrap_or("-".to_owned()),
            numbers.join(" ")
        )
    }

    fn check(path: &str, expected: &str) {
        let naming = Naming::find(&[path.to_owned()]);
        assert_eq!(
            show(naming.and_then(|naming| naming.parse(path))),
            expected,
            "{path}"
        );
    }

    #[test]
    fn plain_names() {
        for (path, expected) in [
            ("plate1_B03_F001_Z001_C01.tif", "plate1 B03 F001 Z001 C01 -"),
            ("plate1_b03_f001_z001_c01.tif", "plate1 B03 f001 z001 c01 -"),
            ("my_plate 2_AF48_C12_F1.TIFF", "my_plate 2 AF48 F1 - C12 -"),
            ("p.1_A1_F0_C0_Z3.png", "p.1 A1 F0 Z3 C0 -"),
            ("F1_C2_B03_F1_C2.tif", "F1_C2 B03 F1 - C2 -"),
            ("plate1_C03_F001_C01.ome.tif", "plate1 C03 F001 - C01 -"),
            ("plate1_Z05_F001_C01.tif", "plate1 Z05 F001 - C01 -"),
            ("plate1_F07_Z1_F001_C01.tif", "plate1 F07 F001 Z1 C01 -"),
            ("cycle1/plate1_B03_F001.tif", "plate1 B03 F001 - - -"),
            ("plate1_B03.ome.tiff", "plate1 B03 - - - -"),
            ("plate1_B03_T01_F001_C01.tif", "plate1 B03 F001 - C01 T01"),
            ("B03_F001_C01.tif", "- B03 F001 - C01 -"),
        ] {
            check(path, expected);
        }
    }

    #[test]
    fn names_of_microscopes() {
        for (path, expected) in [
            (
                "20200812-Test_B03_T0001F001L01A01Z01C01.png",
                "20200812-Test B03 F001 Z01 C01 T0001",
            ),
            ("Mix_E07_s1_w10A1B2C3D.tif", "Mix E07 s1 - w1 -"),
            (
                "Mix_E07_s2_w20A1B2C3D-1234-5678-9ABC-DEF012345678.tif",
                "Mix E07 s2 - w2 -",
            ),
            (
                "x/TimePoint_1/ZStep_2/Mix_E07_s1_w1.TIF",
                "Mix E07 s1 2 w1 1",
            ),
            ("Mix_E07_s3.tif", "Mix E07 s3 - - -"),
            ("plate/TimePoint_1/A01_s1_w2_z3.tif", "- A01 s1 z3 w2 1"),
            ("A01_s1_w2.tif", "- A01 s1 - w2 -"),
            (
                "Images/r02c03f01p01-ch1sk1fk1fl1.tiff",
                "- B03 f01 p01 ch1 1",
            ),
            ("Images/r02c03f01p01-ch01t02.tiff", "- B03 f01 p01 ch01 02"),
            ("Mix_E07_s1_w10.tif", "Mix E07 s1 - w10 -"),
            (
                "B - 3(fld 01 wv UV - DAPI z 2).tif",
                "- B3 01 2 UV - DAPI -",
            ),
            (
                "B - 03(fld 1 wv DAPI - DAPI).tif",
                "- B03 1 - DAPI - DAPI -",
            ),
            (
                "B3--W00015--P00001--Z00000--T00000--DAPI.tif",
                "- B3 00001 00000 DAPI 00000",
            ),
            (
                "a--W00015--P00001--Z00000--T00000--DAPI.tif",
                "a B03 00001 00000 DAPI 00000",
            ),
            ("W0015F0001T0001Z001C1.tif", "- B03 F0001 Z001 C1 T0001"),
            ("screen_1_MMStack_B3-Site_0.ome.tif", "screen_1 B3 0 - - -"),
            ("screen_1_MMStack_Pos0.ome.tif", "screen_1 A01 0 - - -"),
            (
                "Default/B3-Site_1/img_channel000_position001_time000000000_z003.tif",
                "- B3 1 003 channel000 000000000",
            ),
            (
                "B3-Site_1/img_000000000_DAPI_003.tif",
                "- B3 1 003 DAPI 000000000",
            ),
        ] {
            check(path, expected);
        }
    }

    #[test]
    fn wells_are_numbered_row_by_row() {
        let naming = Naming::find(&["W0025F0001T0001Z001C1.tif".to_owned()]).unwrap();
        let mut name = naming.parse("W0025F0001T0001Z001C1.tif").unwrap();
        for (largest, expected) in [(96, "C01"), (97, "B01"), (384, "B01"), (385, "A25")] {
            name.resolve_number(n_columns_of(largest));
            assert_eq!(name.well.to_string(), expected, "{largest}");
        }
        let path = "B3--W00025--P00001--Z00000--T00000--DAPI.tif";
        let naming = Naming::find(&[path.to_owned()]).unwrap();
        assert_eq!(naming.parse(path).unwrap().index, None);
    }

    #[test]
    fn examples_fit_their_own_pattern() {
        for (name, example, pattern) in PATTERNS {
            let regex = Regex::new(&format!("(?i)^(?:.*?/)??{pattern}$")).expect(name);
            assert!(Naming::Pattern(regex).parse(example).is_some(), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for path in [
            "_B03_F001_C01.tif",
            ".p_B03_F001_C01.tif",
            "plate1_B03_F001_C01_C02.tif",
            "plate1_B03_F001_é1.tif",
            "thumbnail.png",
            "B03.tif",
        ] {
            check(path, "none");
        }
        let names = [
            "scan 7/tile-B3-1.tif".to_owned(),
            "scan 7/tile-B3-2.tif".to_owned(),
        ];
        let text = describe_unknown(&names);
        assert!(
            text.starts_with("2 files, such as scan 7/tile-B3-1.tif; no pattern fits; closest: "),
            "{text}"
        );
    }

    #[test]
    fn missing_files_are_named_like_the_others() {
        let [well, field, z, channel] = ["C04", "2", "5", "w2"];
        let of = |path: &str| {
            let naming = Naming::find(&[path.to_owned()]).unwrap();
            let numbers = [field, z, channel].map(|text| Number(text.to_owned()));
            naming.parse(path).unwrap().of(
                &Well::parse(well).unwrap(),
                &numbers[0],
                &numbers[1],
                &numbers[2],
            )
        };
        assert_eq!(
            of("a/plate1_B03_F001_Z001_C01.tif"),
            "a/plate1_C04_2_5_w2.tif"
        );
        assert_eq!(
            of("r02c03f01p01-ch1sk1fk1fl1.tiff"),
            "r03c0425-w2sk1fk1fl1.tiff"
        );
    }

    #[test]
    fn a_pattern_is_an_argument() {
        let naming = Naming::of_argument(r"^(?P<well>[A-H]\d+)-(?<field>\d+)\.tif$").unwrap();
        assert_eq!(show(naming.parse("x/B3-7.tif")), "- B3 7 - - -");
        let error = |pattern: &str| Naming::of_argument(pattern).unwrap_err().to_string();
        assert!(error("(").contains("it is no regular expression"));
        assert!(
            error("(?P<site>a)(?P<well>b)").contains("the group \"site\" is none of plate, well")
        );
        assert!(error("(?P<plate>a)").contains("no named group for the well"));
    }
}
