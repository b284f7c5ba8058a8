//! The task "Merge tables": the tables of all wells of a plate in one file.

use super::measure_regions::{table_file, table_folder};
use super::{Components, plates};
use crate::plate::Plate;
use crate::replace::replace_file;
use crate::table;
use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    #[expect(dead_code, reason = "Fractal passes it to every task")]
    input_paths: Vec<PathBuf>,
    output_path: PathBuf,
    metadata: Components,
}

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
pub fn merge_tables(parameters: Parameters) -> Result<Merged, TaskError> {
    let mut tables = Vec::new();
    for plate in plates(&parameters.metadata)? {
        let name = &plate.plate;
        let folder = table_folder(&parameters.output_path, name);
        let (mut header, mut all) = (Vec::new(), Vec::new());
        for well in Plate::read(&parameters.output_path, name)?.wells.keys() {
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
        replace_file(&parameters.output_path.join(format!("{name}.csv")), |part| {
            table::write_rows(part, &header, all)
        })?;
        tables.push(format!("{name}.csv"));
    }
    Ok(Merged { table: tables })
}
