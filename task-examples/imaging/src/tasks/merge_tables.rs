//! The task "Merge tables": the tables of all wells of a plate in one file.

use super::measure_regions::{table_file, table_folder};
use super::{Given, NoArgs};
use crate::plate::Plate;
use crate::replace::replace_file;
use crate::table;
use fractal_task::TaskError;
use serde::Serialize;

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Merged {
    /// The table of each plate, below the output folder.
    table: Vec<String>,
}

/// Merges the tables of all plates.
///
/// # Errors
/// If a table is missing or has other columns than the first, or the new one cannot be written.
pub fn merge_tables(given: &Given, _: NoArgs) -> Result<Merged, TaskError> {
    let mut tables = Vec::new();
    for plate in given.plates()? {
        let name = &plate.plate;
        let folder = table_folder(&given.output_path, name);
        let (mut header, mut all) = (Vec::new(), Vec::new());
        for well in Plate::read(&given.output_path, name)?.wells.keys() {
            let path = table_file(&folder, well);
            let (columns, rows) = table::read_rows(&path)?;
            if header.is_empty() {
                header = columns;
            } else if header != columns {
                let cause = "it has other columns than the first table; run \"Measure regions\" again";
                return Err(TaskError::about("cannot use", &path, cause));
            }
            all.extend(rows);
        }
        replace_file(&given.output_path.join(format!("{name}.csv")), |part| table::write_rows(part, &header, all))?;
        tables.push(format!("{name}.csv"));
    }
    Ok(Merged { table: tables })
}
