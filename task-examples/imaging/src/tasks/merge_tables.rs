//! The task "Merge tables": the tables of all wells of a plate in one file.

use super::measure_regions::{table_file, table_folder};
use super::{Given, NoArgs};
use crate::plate::Plate;
use crate::replace::replace_file;
use crate::table::{self, Union};
use fractal_task::TaskError;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Merged {
    /// The table of each plate, below the output folder.
    table: Vec<String>,
}

/// Merges the tables of all plates.
///
/// # Errors
/// If a table is missing, or the new one cannot be written.
pub fn merge_tables(given: &Given, _: NoArgs) -> Result<Merged, TaskError> {
    let mut tables = Vec::new();
    for plate in given.plates()? {
        let name = &plate.plate;
        let folder = table_folder(&given.output_path, name);
        let plate = Plate::read(&given.output_path, name)?;
        let wells = plate
            .wells
            .keys()
            .map(|well| table_file(&folder, &well.to_string()));
        tables.push(merge(&given.output_path, name, wells)?);
    }
    Ok(Merged { table: tables })
}

/// Merges tables into the one of a plate.
///
/// Returns the name of its file.
///
/// # Errors
/// As [`merge_tables`].
pub(super) fn merge(
    output: &Path,
    plate: &str,
    tables: impl Iterator<Item = PathBuf>,
) -> Result<String, TaskError> {
    let mut all = Union::default();
    for path in tables {
        let (columns, rows) = table::read_rows(&path)?;
        all.extend(&columns, rows);
    }
    let Union { header, rows } = all;
    let name = format!("{plate}.csv");
    replace_file(&output.join(&name), |part| {
        table::write_rows(part, &header, rows)
    })?;
    Ok(name)
}
