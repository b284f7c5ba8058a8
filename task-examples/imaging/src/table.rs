//! Tables as CSV files: the one that says which file is which plane, and the ones of measured regions.

use crate::about;
use crate::name::{Number, PlaneId, Well, is_plate};
use fractal_task::TaskError;
use std::fs::File;
use std::path::Path;

/// Reads a table of image files: a row each, with the columns `file`, `plate`, `well`, `field` and `channel`, and `z` if
/// there are several planes. Other columns are left alone.
///
/// Returns the names of the files with what they are, in the order of the rows.
///
/// # Errors
/// If the file cannot be read, a column is missing, or a value is no well or no name of a plate.
pub fn read_files(path: &Path) -> Result<Vec<(String, PlaneId)>, TaskError> {
    let file = File::open(path).map_err(about("cannot open", path))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let headers = reader.headers().map_err(about("cannot read", path))?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let required = |name: &str| {
        column(name).ok_or_else(|| {
            TaskError::about("cannot use", path, format!("it has no column {name:?}; add it to the first line"))
        })
    };
    let columns = ["file", "plate", "well", "field", "channel"].map(required);
    let [file, plate, well, field, channel] = columns;
    let (file, plate, well, field, channel) = (file?, plate?, well?, field?, channel?);
    let z = column("z");
    let mut files = Vec::new();
    for record in reader.records() {
        let record = record.map_err(about("cannot read", path))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |what: String| TaskError::about("cannot use", path, format!("line {line}: {what}"));
        let id = PlaneId {
            plate: record[plate].to_owned(),
            well: Well::parse(&record[well])
                .ok_or_else(|| wrong(format!("{:?} is no well, such as B03", &record[well])))?,
            field: Number(record[field].to_owned()),
            channel: Number(record[channel].to_owned()),
            z: Number(z.map_or("", |z| &record[z]).to_owned()),
        };
        if !is_plate(&id.plate) {
            return Err(wrong(format!("{:?} cannot be the name of a plate's folder", id.plate)));
        }
        files.push((record[file].to_owned(), id));
    }
    Ok(files)
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
        rows.into_iter().try_for_each(|row| writer.write_record(row))?;
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
    let rows = reader.records().map(|record| record.map(|record| row(&record))).collect::<Result<_, _>>();
    Ok((header, rows.map_err(about("cannot read", path))?))
}

/// Rows of several tables under the columns of all: where a table lacks a column, its rows are empty.
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
        let new = header.iter().filter(|column| !self.header.contains(column)).cloned().collect::<Vec<_>>();
        self.header.extend(new);
        self.rows.iter_mut().for_each(|row| row.resize(self.header.len(), String::new()));
        let places: Vec<Option<usize>> =
            self.header.iter().map(|column| header.iter().position(|known| known == column)).collect();
        let value =
            |row: &Vec<String>, place: &Option<usize>| place.map(|place| row[place].clone()).unwrap_or_default();
        self.rows.extend(rows.iter().map(|row| places.iter().map(|place| value(row, place)).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> Result<Vec<String>, String> {
        let path = std::env::temp_dir().join(format!("imaging-table-{}-{name}.csv", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let files = read_files(&path);
        std::fs::remove_file(&path).unwrap();
        let files = files.map_err(|err| err.to_string().replace(&path.display().to_string(), "TABLE"))?;
        Ok(files
            .into_iter()
            .map(|(file, id)| format!("{file} {} {} {} {} {}", id.plate, id.well, id.field, id.z, id.channel))
            .collect())
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "well,file,note,field,plate,channel,z\nB03,\"a, b.tif\",x,1,p, DAPI ,2\n";
        assert_eq!(check("good", text).unwrap(), ["a, b.tif p B03 1 2 DAPI"]);
        assert_eq!(check("no-z", "file,plate,well,field,channel\na,p,B3,1,2\n").unwrap(), ["a p B3 1  2"]);
    }

    #[test]
    fn rows_of_other_columns_are_filled_up() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut union = Union::default();
        union.extend(&texts(&["label", "C01"]), vec![texts(&["1", "10"])]);
        union.extend(&texts(&["label", "C02"]), vec![texts(&["2", "20"])]);
        union.extend(&texts(&["label", "C01"]), vec![texts(&["3", "30"])]);
        assert_eq!(union.header, ["label", "C01", "C02"]);
        assert_eq!(union.rows, [["1", "10", ""], ["2", "", "20"], ["3", "30", ""]]);
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let header = "file,plate,well,field,channel\n";
        for (name, text, expected) in [
            (
                "column",
                "file,plate,well,channel\n",
                "cannot use TABLE: it has no column \"field\"; add it to the first line",
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
        ] {
            assert_eq!(check(name, text).unwrap_err(), expected);
        }
        assert!(check("short", &format!("{header}a,p\n")).is_err());
    }
}
