//! Tables as CSV files: the one that says which file is which plane, the layout of a plate, and the
//! ones of measured regions.

use crate::about;
use crate::name::{Number, Well, is_plate};
use fractal_task::TaskError;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A row of a table of image files. Missing parts are in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Path below the input folder.
    pub file: String,
    /// Name of the plate.
    pub plate: String,
    /// The well.
    pub well: Well,
    /// The field.
    pub field: Option<Number>,
    /// The Z plane.
    pub z: Option<Number>,
    /// The channel.
    pub channel: Option<Number>,
}

/// A table as spreadsheets save it: text of any of their encodings, separated by commas, semicolons
/// or tabs.
#[derive(Debug)]
struct Sheet {
    /// Names of the columns, as they are written.
    columns: Vec<String>,
    /// Rows with the numbers of their lines, without empty ones, as long as the header.
    rows: Vec<(u64, Vec<String>)>,
    /// True if the separator is no comma, so that a comma may be that of a decimal number.
    has_decimal_commas: bool,
}

impl Sheet {
    fn read(path: &Path) -> Result<Self, TaskError> {
        if !path.is_file() {
            let cause = "there is no such table in the input folders; correct the name";
            return Err(TaskError::about("cannot read", path, cause));
        }
        let bytes = fs::read(path).map_err(about("cannot read", path))?;
        if bytes.starts_with(b"PK\x03\x04") {
            let cause = "it is a workbook of a spreadsheet program; save it there as CSV";
            return Err(TaskError::about("cannot read", path, cause));
        }
        let mut text = decode(bytes);
        let mut first_line = 1;
        let mut stated = None;
        // Excel writes and reads this line.
        if let Some((line, rest)) = text.split_once('\n')
            && let Some(separator) = line.trim().to_ascii_lowercase().strip_prefix("sep=")
        {
            stated = separator.bytes().next();
            text = rest.to_owned();
            first_line = 2;
        }
        let header = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let count = |separator: u8| header.bytes().filter(|byte| *byte == separator).count();
        let likely = [b',', b';', b'\t']
            .into_iter()
            .rev()
            .max_by_key(|separator| count(*separator));
        let separator = stated.or(likely).unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .trim(csv::Trim::All)
            .flexible(true)
            .has_headers(false)
            .from_reader(text.as_bytes());
        let (mut columns, mut rows) = (None, Vec::new());
        for record in reader.records() {
            let record = record.map_err(about("cannot read", path))?;
            if record.iter().all(str::is_empty) {
                continue;
            }
            let line = record.position().map_or(0, csv::Position::line) + first_line - 1;
            let cells: Vec<String> = record.iter().map(str::to_owned).collect();
            let Some(columns) = &columns else {
                columns = Some(cells);
                continue;
            };
            let n: usize = Vec::len(columns);
            if cells.iter().skip(n).any(|cell| !cell.is_empty()) {
                let cause = format!(
                    "line {line}: it has {} cells, but the first line {n}",
                    cells.len()
                );
                return Err(TaskError::about("cannot use", path, cause));
            }
            let mut cells = cells;
            cells.resize(n, String::new());
            rows.push((line, cells));
        }
        let columns =
            columns.ok_or_else(|| TaskError::about("cannot use", path, "the table is empty"))?;
        Ok(Self {
            columns,
            rows,
            has_decimal_commas: separator != b',',
        })
    }

    /// Finds a column by one of its names, whatever their case.
    fn column(&self, names: &[&str]) -> Option<usize> {
        let is_named = |column: &String| names.iter().any(|name| column.eq_ignore_ascii_case(name));
        self.columns.iter().position(is_named)
    }

    fn required(&self, path: &Path, names: &[&str]) -> Result<usize, TaskError> {
        self.column(names).ok_or_else(|| {
            let cause = format!(
                "it has no column {:?}, but {}; add it to the first line",
                names[0],
                self.columns
                    .iter()
                    .map(|name| format!("{name:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            TaskError::about("cannot use", path, cause)
        })
    }
}

/// Decodes UTF-8, UTF-16 of both byte orders, or Latin-1.
fn decode(bytes: Vec<u8>) -> String {
    let utf16 = |bytes: &[u8], number: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| number([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // Without a mark: the first character is a letter.
        [_, 0, ..] => utf16(&bytes, u16::from_le_bytes),
        [0, _, ..] => utf16(&bytes, u16::from_be_bytes),
        _ => {
            let text = String::from_utf8(bytes)
                .unwrap_or_else(|err| err.into_bytes().into_iter().map(char::from).collect());
            text.strip_prefix('\u{feff}')
                .map(str::to_owned)
                .unwrap_or(text)
        }
    }
}

/// Reads a table of image files: a row each, with the columns `file`, `plate` and `well`, and
/// `field`, `channel` and `z` where they are not in the files. Other columns are left alone.
///
/// # Errors
/// If the file cannot be read, a column is missing, or a value is no well or no name of a plate.
pub fn read_files(path: &Path) -> Result<Vec<Row>, TaskError> {
    let sheet = Sheet::read(path)?;
    let (file, plate, well) = (
        sheet.required(path, &["file", "filename", "file_name"])?,
        sheet.required(path, &["plate"])?,
        sheet.required(path, &["well"])?,
    );
    let [field, z, channel] = [["field", "site"], ["z", "plane"], ["channel", "wavelength"]]
        .map(|names| sheet.column(&names));
    let mut rows = Vec::new();
    for (line, cells) in &sheet.rows {
        let wrong =
            |what: String| TaskError::about("cannot use", path, format!("line {line}: {what}"));
        let number = |column: Option<usize>| {
            column
                .map(|column| cells[column].clone())
                .filter(|text| !text.is_empty())
                .map(Number)
        };
        let row = Row {
            file: cells[file].clone(),
            plate: cells[plate].clone(),
            well: Well::parse(&cells[well])
                .ok_or_else(|| wrong(format!("{:?} is no well, such as B03", cells[well])))?,
            field: number(field),
            z: number(z),
            channel: number(channel),
        };
        if row.file.is_empty() {
            return Err(wrong("the cell of the file is empty".to_owned()));
        }
        if !is_plate(&row.plate) {
            return Err(wrong(format!(
                "{:?} cannot be the name of a plate's folder",
                row.plate
            )));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Conditions of the wells: names and values, the same names in each well.
#[derive(Debug, Default, PartialEq)]
pub struct Conditions {
    names: Vec<String>,
    /// Values by plate, which is empty for all plates, and well.
    values: BTreeMap<(String, Well), Vec<String>>,
}

impl Conditions {
    /// Reads the layout of plates: a row for each well, with the column `well`, `plate` if plates
    /// differ, and any others. Decimal commas become points.
    ///
    /// # Errors
    /// If the file cannot be read, there is no column of wells, a value is no well, or a well has
    /// two rows.
    pub fn read(path: &Path) -> Result<Self, TaskError> {
        let sheet = Sheet::read(path)?;
        let (well, plate) = (sheet.required(path, &["well"])?, sheet.column(&["plate"]));
        let is_condition = |column: &usize| *column != well && Some(*column) != plate;
        let columns: Vec<usize> = (0..sheet.columns.len()).filter(is_condition).collect();
        let columns: Vec<usize> = columns
            .into_iter()
            .filter(|&column| !sheet.columns[column].is_empty())
            .collect();
        let names = columns
            .iter()
            .map(|&column| sheet.columns[column].clone())
            .collect();
        let mut values = BTreeMap::new();
        for (line, cells) in &sheet.rows {
            let wrong =
                |what: String| TaskError::about("cannot use", path, format!("line {line}: {what}"));
            let id = Well::parse(&cells[well])
                .ok_or_else(|| wrong(format!("{:?} is no well, such as B03", cells[well])))?;
            let plate = plate.map(|plate| cells[plate].clone()).unwrap_or_default();
            let value = |column: &usize| condition(&cells[*column], sheet.has_decimal_commas);
            let key = (
                plate,
                Well {
                    column: id.column.trim_start_matches('0').to_owned(),
                    ..id
                },
            );
            if values
                .insert(key, columns.iter().map(value).collect())
                .is_some()
            {
                return Err(wrong(format!(
                    "well {:?} has a row before; take one of them away",
                    cells[well]
                )));
            }
        }
        Ok(Self { names, values })
    }

    /// True if no row is for a plate of this name.
    pub fn lacks_plate(&self, name: &str) -> bool {
        let is_for = |plate: &String| plate.is_empty() || plate == name;
        !self.values.is_empty() && !self.values.keys().any(|(plate, _)| is_for(plate))
    }

    /// Names and values of a well. Wells that the layout lacks have empty values.
    pub fn of(&self, plate: &str, well: &Well) -> Vec<(String, String)> {
        // B3 is B03.
        let well = Well {
            row: well.row.clone(),
            column: well.column.trim_start_matches('0').to_owned(),
        };
        let values = [plate, ""]
            .iter()
            .find_map(|plate| self.values.get(&((*plate).to_owned(), well.clone())));
        let value = |index: usize| {
            values
                .map(|values| values[index].clone())
                .unwrap_or_default()
        };
        self.names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.clone(), value(index)))
            .collect()
    }
}

/// A value of a condition, a decimal comma as a point.
fn condition(text: &str, has_decimal_commas: bool) -> String {
    let point = text.replacen(',', ".", 1);
    if has_decimal_commas && text.contains(',') && point.parse::<f64>().is_ok() {
        point
    } else {
        text.to_owned()
    }
}

/// Writes rows under a header.
///
/// # Errors
/// If the file cannot be written.
pub fn write_rows(
    path: &Path,
    header: &[String],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<(), TaskError> {
    let write = || {
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(header)?;
        rows.into_iter()
            .try_for_each(|row| writer.write_record(row))?;
        Ok::<(), csv::Error>(writer.flush()?)
    };
    write().map_err(about("cannot write", path))
}

/// Reads what [`write_rows`] wrote: the header and the rows.
///
/// # Errors
/// If the file cannot be read, or a row has another length than the header.
pub fn read_rows(path: &Path) -> Result<(Vec<String>, Vec<Vec<String>>), TaskError> {
    let mut reader = csv::Reader::from_path(path).map_err(about("cannot read", path))?;
    let row = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let header = row(reader.headers().map_err(about("cannot read", path))?);
    let rows = reader
        .records()
        .map(|record| record.map(|record| row(&record)))
        .collect::<Result<_, _>>();
    Ok((header, rows.map_err(about("cannot read", path))?))
}

/// Rows of several tables under the columns of all: where a table lacks a column, its rows are
/// empty.
#[derive(Debug, Default)]
pub struct Union {
    /// Names of the columns, in the order of the tables.
    pub header: Vec<String>,
    /// The rows, each with all columns.
    pub rows: Vec<Vec<String>>,
}

impl Union {
    /// Adds a table. Acquisitions of a plate may have different channels, so columns may differ.
    pub fn extend(&mut self, header: &[String], rows: Vec<Vec<String>>) {
        if self.header.is_empty() {
            self.header = header.to_vec();
        }
        if self.header == header {
            return self.rows.extend(rows);
        }
        let new = header
            .iter()
            .filter(|column| !self.header.contains(column))
            .cloned()
            .collect::<Vec<_>>();
        self.header.extend(new);
        self.rows
            .iter_mut()
            .for_each(|row| row.resize(self.header.len(), String::new()));
        let places: Vec<Option<usize>> = self
            .header
            .iter()
            .map(|column| header.iter().position(|known| known == column))
            .collect();
        let value = |row: &Vec<String>, place: &Option<usize>| {
            place.map(|place| row[place].clone()).unwrap_or_default()
        };
        self.rows.extend(
            rows.iter()
                .map(|row| places.iter().map(|place| value(row, place)).collect()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_table<T>(
        name: &str,
        bytes: &[u8],
        action: impl FnOnce(&Path) -> Result<T, TaskError>,
    ) -> Result<T, String> {
        let path =
            std::env::temp_dir().join(format!("imaging-table-{}-{name}.csv", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let result = action(&path);
        std::fs::remove_file(&path).unwrap();
        result.map_err(|err| {
            err.to_string()
                .replace(&path.display().to_string(), "TABLE")
        })
    }

    fn check(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let rows = with_table(name, bytes, read_files)?;
        let text = |number: Option<Number>| number.map_or("-".to_owned(), |number| number.0);
        Ok(rows
            .into_iter()
            .map(
                |Row {
                     file,
                     plate,
                     well,
                     field,
                     z,
                     channel,
                 }| {
                    format!(
                        "{file} {plate} {well} {} {} {}",
                        text(field),
                        text(z),
                        text(channel)
                    )
                },
            )
            .collect())
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = b"well,file,note,field,plate,channel,z\nB03,\"a, b.tif\",x,1,p, DAPI ,2\n";
        assert_eq!(check("good", text).unwrap(), ["a, b.tif p B03 1 2 DAPI"]);
        assert_eq!(
            check("no-z", b"file,plate,well,field,channel\na,p,b3,1,2\n").unwrap(),
            ["a p B3 1 - 2"]
        );
        assert_eq!(
            check("short", b"file,plate,well,field,channel\na,p,b3\n").unwrap(),
            ["a p B3 - - -"]
        );
    }

    #[test]
    fn all_forms_that_spreadsheets_save_are_read() {
        let text =
            "File;Plate;WELL;Field;Channel;Note\r\na.tif;p;B03;1;DAPI;10 \u{b5}M\r\n;;;;;\r\n\r\n";
        let expected = ["a.tif p B03 1 - DAPI"];
        let utf16: Vec<u8> = "\u{feff}"
            .chars()
            .chain(text.chars())
            .flat_map(|c| (c as u16).to_le_bytes())
            .collect();
        let big: Vec<u8> = utf16
            .chunks(2)
            .flat_map(|pair| [pair[1], pair[0]])
            .collect();
        let latin1: Vec<u8> = text.chars().map(|c| c as u8).collect();
        for (name, bytes) in [
            ("utf8", text.as_bytes().to_vec()),
            ("bom", format!("\u{feff}{text}").into_bytes()),
            ("tabs", text.replace(';', "\t").into_bytes()),
            ("commas", text.replace(';', ",").into_bytes()),
            ("sep", format!("sep=;\r\n{text}").into_bytes()),
            ("utf16", utf16.clone()),
            ("utf16-unmarked", utf16[2..].to_vec()),
            ("utf16-big", big),
            ("latin1", latin1),
        ] {
            assert_eq!(check(name, &bytes).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn rows_of_other_columns_are_filled_up() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut union = Union::default();
        union.extend(&texts(&["label", "C01"]), vec![texts(&["1", "10"])]);
        union.extend(&texts(&["label", "C02"]), vec![texts(&["2", "20"])]);
        union.extend(&texts(&["label", "C01"]), vec![texts(&["3", "30"])]);
        assert_eq!(union.header, ["label", "C01", "C02"]);
        assert_eq!(
            union.rows,
            [["1", "10", ""], ["2", "", "20"], ["3", "30", ""]]
        );
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let header = "file,plate,well,field,channel\n";
        for (name, text, expected) in [
            ("empty", "", "cannot use TABLE: the table is empty"),
            (
                "column",
                "file,plate,well_id,channel\n",
                "cannot use TABLE: it has no column \"well\", but \"file\", \"plate\", \"well_id\", \"channel\"; add it to the \
                 first line",
            ),
            (
                "well",
                &format!("{header}a,p,B3,1,2\na,p,3B,1,2\n"),
                "cannot use TABLE: line 3: \"3B\" is no well, such as B03",
            ),
            (
                "plate",
                &format!("{header}a,../p,B3,1,2\n"),
                "cannot use TABLE: line 2: \"../p\" cannot be the name of a plate's folder",
            ),
            (
                "long",
                &format!("{header}a,p,B3,1,2,3\n"),
                "cannot use TABLE: line 2: it has 6 cells, but the first line 5",
            ),
        ] {
            assert_eq!(check(name, text.as_bytes()).unwrap_err(), expected);
        }
    }

    #[test]
    fn conditions_are_those_of_the_well() {
        let text = b"Plate;Well;Compound;Dose\n;B3;DMSO;0,5\nq;B03;drug, 2;1\n";
        let conditions = with_table("layout", text, Conditions::read).unwrap();
        let of = |plate: &str, well: &str| {
            let pairs = conditions.of(plate, &Well::parse(well).unwrap());
            pairs
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("p", "B03"), ["Compound=DMSO", "Dose=0.5"]);
        assert_eq!(of("q", "B03"), ["Compound=drug, 2", "Dose=1"]);
        assert_eq!(of("p", "C01"), ["Compound=", "Dose="]);
        let error = with_table("twice", b"well,a\nB3,1\nB03,2\n", Conditions::read).unwrap_err();
        assert_eq!(
            error,
            "cannot use TABLE: line 3: well \"B03\" has a row before; take one of them away"
        );
    }
}
