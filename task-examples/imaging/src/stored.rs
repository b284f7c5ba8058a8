//! Tables that are stored with an image, as Fractal and ngio read them: regions of interest, and
//! measurements of labels.
//!
//! An image of OME-NGFF 0.4 has them in the form of AnnData, which Fractal's tasks of version 1
//! read. An image of 0.5 has them as CSV, which ngio reads: 2 files for each table instead of 9.
//!
//! Source: Fractal's table specifications, version 1, and ngio's backends `anndata` and `csv`.

use crate::about;
use crate::image::Acquisition;
use crate::region::BoundingBox;
use crate::replace::replace_folder;
use crate::table;
use fractal_task::TaskError;
use ome_zarr::group::{self, Format, object};
use ome_zarr::values::{self, Values};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the table with the fields of an image.
pub const FIELDS: &str = "FOV_ROI_table";
/// Name of the table with the whole image.
pub const WELL: &str = "well_ROI_table";
/// Name of the index of the tables of regions.
const FIELD_INDEX: &str = "FieldIndex";
/// Name of the index of the tables of labels.
const LABEL_INDEX: &str = "label";
/// Columns that each table of regions has.
const REGION_COLUMNS: [&str; 6] = [
    "x_micrometer",
    "y_micrometer",
    "z_micrometer",
    "len_x_micrometer",
    "len_y_micrometer",
    "len_z_micrometer",
];
/// Where the stage was, for the tables of fields.
const ORIGIN_COLUMNS: [&str; 2] = ["x_micrometer_original", "y_micrometer_original"];

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Regions of an image.
    Regions,
    /// The bounding boxes of the labels with this name.
    BoundingBoxes(&'a str),
    /// Measurements of the labels with this name.
    Features(&'a str),
}

impl Kind<'_> {
    fn attributes(self) -> Map<String, Value> {
        let (kind, label) = match self {
            Self::Regions => ("roi_table", None),
            Self::BoundingBoxes(label) => ("masking_roi_table", Some(label)),
            Self::Features(label) => ("feature_table", Some(label)),
        };
        let mut attributes = object(json!({
            "type": kind,
            "table_version": "1",
            "fractal_table_version": "1",
            "index_key": self.index_name(),
            "index_type": if label.is_some() { "int" } else { "str" },
        }));
        if let Some(label) = label {
            attributes.insert("instance_key".to_owned(), json!(LABEL_INDEX));
            attributes.insert(
                "region".to_owned(),
                json!({"path": format!("../labels/{label}")}),
            );
        }
        attributes
    }

    fn index_name(self) -> &'static str {
        match self {
            Self::Regions => FIELD_INDEX,
            Self::BoundingBoxes(_) | Self::Features(_) => LABEL_INDEX,
        }
    }
}

/// A table of numbers whose rows have names.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTable {
    /// Names of the rows, or numbers of labels.
    pub index: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Row after row; NaN for a value that does not exist.
    pub values: Vec<f64>,
}

impl StoredTable {
    fn new(columns: &[&str]) -> Self {
        Self {
            index: Vec::new(),
            columns: columns.iter().map(ToString::to_string).collect(),
            values: Vec::new(),
        }
    }

    fn push(&mut self, name: String, values: &[f64]) {
        debug_assert_eq!(values.len(), self.columns.len(), "a row has all columns");
        self.index.push(name);
        self.values.extend(values);
    }

    fn rows(&self) -> impl Iterator<Item = (&String, &[f64])> {
        self.index
            .iter()
            .zip(self.values.chunks_exact(self.columns.len().max(1)))
    }

    /// The value of a row in the column with this name, if there is one.
    pub fn value(&self, row: usize, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.values.get(row * self.columns.len() + column).copied()
    }
}

/// Size of an image: width, height and number of Z planes.
pub type Extent = (usize, usize, usize);

/// Writes the tables of the fields and of the whole image into the folder of an image that has no
/// tables yet.
///
/// # Errors
/// If a file cannot be written.
pub fn write_regions(
    image: &Path,
    format: Format,
    acquisition: &Acquisition,
    extent: Extent,
) -> Result<(), TaskError> {
    write_files(
        &folder(image, FIELDS),
        format,
        Kind::Regions,
        &field_table(acquisition, extent),
    )?;
    let mut whole = StoredTable::new(&REGION_COLUMNS);
    whole.push(
        "well_1".to_owned(),
        &region_values(acquisition, (0, 0), extent),
    );
    write_files(&folder(image, WELL), format, Kind::Regions, &whole)?;
    write_list(image, format, &[FIELDS.to_owned(), WELL.to_owned()])
}

fn field_table(acquisition: &Acquisition, (width, height, n_planes): Extent) -> StoredTable {
    let fields = acquisition.fields_of((width, height));
    let has_stage = fields.iter().all(|field| field.stage_um.is_some());
    let origin: &[&str] = if has_stage { &ORIGIN_COLUMNS } else { &[] };
    let mut table = StoredTable::new(&[&REGION_COLUMNS[..], origin].concat());
    for field in &fields {
        let extent = (field.width, field.height, n_planes);
        let mut values = region_values(acquisition, (field.x, field.y), extent).to_vec();
        values.extend(field.stage_um.iter().flatten());
        let mut name = region_name(&field.field.0);
        if table.index.contains(&name) {
            name = format!("FOV_{}", field.field);
        }
        table.push(name, &values);
    }
    table
}

/// Fractal's name of a field: `FOV_2` for `F002`.
pub fn region_name(field: &str) -> String {
    let digits = field.trim_start_matches(|c: char| !c.is_ascii_digit());
    match digits.parse::<u64>() {
        Ok(number) => format!("FOV_{number}"),
        Err(_) => format!("FOV_{field}"),
    }
}

fn region_values(
    acquisition: &Acquisition,
    (x, y): (usize, usize),
    (width, height, n_planes): Extent,
) -> [f64; 6] {
    let (pixel, step) = (acquisition.pixel_size_um, acquisition.z_step_um);
    let lengths = [x, y, width, height].map(|n| micrometers(n, pixel));
    let [x, y, width, height] = lengths;
    [x, y, 0.0, width, height, micrometers(n_planes, step)]
}

/// A multiple of a size, without the digits that only come from the binary form: 192 pixels of 0.65
/// are 124.8.
fn micrometers(n: usize, size: f64) -> f64 {
    let product = n as f64 * size;
    format!("{product:.9}").parse().unwrap_or(product)
}

/// Writes the bounding boxes of labels as a table of the image, in place of an old one.
///
/// * `boxes`: from [`crate::region::bounding_boxes`].
/// * `n_planes`: Z planes of the image.
///
/// # Errors
/// If a file cannot be written.
pub fn write_bounding_boxes(
    image: &Path,
    format: Format,
    label_name: &str,
    acquisition: &Acquisition,
    boxes: &[(u32, BoundingBox)],
    n_planes: usize,
) -> Result<(), TaskError> {
    let mut table = StoredTable::new(&REGION_COLUMNS);
    for &(label, (top, left, bottom, right)) in boxes {
        let values = region_values(
            acquisition,
            (left, top),
            (right - left, bottom - top, n_planes),
        );
        table.push(label.to_string(), &values);
    }
    replace(
        image,
        format,
        &format!("{label_name}_ROI_table"),
        Kind::BoundingBoxes(label_name),
        &table,
    )
}

/// Writes a table of an image, in place of an old one.
///
/// # Errors
/// If a file cannot be written.
pub fn replace(
    image: &Path,
    format: Format,
    name: &str,
    kind: Kind<'_>,
    table: &StoredTable,
) -> Result<(), TaskError> {
    replace_folder(&folder(image, name), |part| {
        write_files(part, format, kind, table)
    })?;
    let mut names = read_list(image)?;
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
        write_list(image, format, &names)?;
    }
    Ok(())
}

/// Names of the tables of an image.
///
/// # Errors
/// If the list cannot be read.
pub fn read_list(image: &Path) -> Result<Vec<String>, TaskError> {
    let tables = image.join("tables");
    if !group::exists(&tables) {
        return Ok(Vec::new());
    }
    let list = group::read_attributes(&tables)?
        .remove("tables")
        .unwrap_or_else(|| json!([]));
    serde_json::from_value(list).map_err(about("cannot use the list of tables in", &tables))
}

/// True if an image has the tables of [`write_regions`] and no others.
///
/// # Errors
/// If the list cannot be read.
pub fn has_only_regions(image: &Path) -> Result<bool, TaskError> {
    Ok(read_list(image)? == [FIELDS, WELL])
}

fn write_list(image: &Path, format: Format, names: &[String]) -> Result<(), TaskError> {
    group::write(
        &image.join("tables"),
        format,
        Map::new(),
        object(json!({"tables": names})),
    )
}

/// Copies the tables that an image does not have yet from another version of the image.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_others(from: &Path, to: &Path, format: Format) -> Result<(), TaskError> {
    let mut names = read_list(to)?;
    let n_names = names.len();
    for name in read_list(from)? {
        if !names.contains(&name) && crate::name::is_plate(&name) {
            copy_folder(&folder(from, &name), &folder(to, &name))?;
            names.push(name);
        }
    }
    if names.len() == n_names {
        Ok(())
    } else {
        write_list(to, format, &names)
    }
}

/// Copies a folder with all that is below it.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<(), TaskError> {
    fs::create_dir_all(to).map_err(about("cannot make the folder", to))?;
    for entry in fs::read_dir(from).map_err(about("cannot read the folder", from))? {
        let entry = entry.map_err(about("cannot read the folder", from))?;
        let target = to.join(entry.file_name());
        if entry
            .file_type()
            .map_err(about("cannot look at", &entry.path()))?
            .is_dir()
        {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(about("cannot copy to", &target))?;
        }
    }
    Ok(())
}

fn folder(image: &Path, name: &str) -> PathBuf {
    image.join("tables").join(name)
}

fn write_files(
    folder: &Path,
    format: Format,
    kind: Kind<'_>,
    table: &StoredTable,
) -> Result<(), TaskError> {
    let mut attributes = kind.attributes();
    match format {
        Format::V04 => {
            attributes.insert("backend".to_owned(), json!("anndata"));
            write_anndata(folder, kind, table, attributes)
        }
        Format::V05 => {
            attributes.insert("backend".to_owned(), json!("csv"));
            group::write(folder, format, Map::new(), attributes)?;
            write_csv(&folder.join("table.csv"), kind, table)
        }
    }
}

/// Source: anndata's on-disk format 0.1.0.
fn write_anndata(
    folder: &Path,
    kind: Kind<'_>,
    table: &StoredTable,
    mut attributes: Map<String, Value>,
) -> Result<(), TaskError> {
    let encoding = |kind: &str, version: &str| {
        object(json!({"encoding-type": kind, "encoding-version": version}))
    };
    attributes.extend(encoding("anndata", "0.1.0"));
    group::write(folder, Format::V04, Map::new(), attributes)?;
    let (n_rows, n_columns) = (table.index.len(), table.columns.len());
    let floats = Values::Floats(table.values.clone());
    values::write(
        &folder.join("X"),
        &[n_rows, n_columns],
        &floats,
        &encoding("array", "0.2.0"),
    )?;
    let frame = |name: &str, index: &str, columns: &[&str], texts: &[String]| {
        let mut attributes = encoding("dataframe", "0.2.0");
        attributes.insert("_index".to_owned(), json!(index));
        attributes.insert("column-order".to_owned(), json!(columns));
        let folder = folder.join(name);
        group::write(&folder, Format::V04, Map::new(), attributes)?;
        let values = Values::Texts(texts.to_vec());
        values::write(
            &folder.join(index),
            &[texts.len()],
            &values,
            &encoding("string-array", "0.2.0"),
        )
    };
    frame("var", "_index", &[], &table.columns)?;
    match kind {
        Kind::Regions => frame("obs", FIELD_INDEX, &[], &table.index),
        Kind::BoundingBoxes(_) | Kind::Features(_) => {
            // Fractal looks for the numbers of the labels in a column, and compares them as texts.
            frame("obs", "_index", &[LABEL_INDEX], &table.index)?;
            let texts = Values::Texts(table.index.clone());
            let folder = folder.join("obs").join(LABEL_INDEX);
            values::write(
                &folder,
                &[n_rows],
                &texts,
                &encoding("string-array", "0.2.0"),
            )
        }
    }
}

fn write_csv(path: &Path, kind: Kind<'_>, table: &StoredTable) -> Result<(), TaskError> {
    let header: Vec<String> = [kind.index_name().to_owned()]
        .into_iter()
        .chain(table.columns.iter().cloned())
        .collect();
    let rows = table.rows().map(|(name, values)| {
        let text = |value: &f64| {
            if value.is_nan() {
                String::new()
            } else {
                value.to_string()
            }
        };
        [name.clone()]
            .into_iter()
            .chain(values.iter().map(text))
            .collect()
    });
    table::write_rows(path, &header, rows)
}

/// Reads a table of an image, whoever wrote it; `None` if the image has no table with this name.
///
/// # Errors
/// If a file cannot be read or is not supported.
pub fn read(image: &Path, name: &str) -> Result<Option<StoredTable>, TaskError> {
    let folder = folder(image, name);
    if !group::exists(&folder) {
        return Ok(None);
    }
    let csv = folder.join("table.csv");
    if csv.is_file() {
        read_csv(&csv)
    } else {
        read_anndata(&folder)
    }
    .map(Some)
}

fn read_csv(path: &Path) -> Result<StoredTable, TaskError> {
    let (header, rows) = table::read_rows(path)?;
    let columns: Vec<String> = header.into_iter().skip(1).collect();
    let number = |text: &String| text.parse().unwrap_or(f64::NAN);
    let values = rows
        .iter()
        .flat_map(|row| row.iter().skip(1).map(number))
        .collect();
    Ok(StoredTable {
        index: rows.iter().map(|row| row[0].clone()).collect(),
        columns,
        values,
    })
}

fn read_anndata(folder: &Path) -> Result<StoredTable, TaskError> {
    let texts = |name: &str| {
        let folder = folder.join(name);
        let index = group::read_attributes(&folder)?;
        let index = index
            .get("_index")
            .and_then(Value::as_str)
            .unwrap_or("_index");
        match values::read(&folder.join(index))? {
            (_, Values::Texts(texts)) => Ok(texts),
            _ => Err(TaskError::about(
                "cannot use",
                &folder,
                "its index has no texts",
            )),
        }
    };
    let (index, columns) = (texts("obs")?, texts("var")?);
    let path = folder.join("X");
    match values::read(&path)? {
        (shape, Values::Floats(values)) if shape == [index.len(), columns.len()] => {
            Ok(StoredTable {
                index,
                columns,
                values,
            })
        }
        _ => Err(TaskError::about(
            "cannot use",
            &path,
            "it does not have a number for each row and column",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_they_were_written() {
        let image = std::env::temp_dir().join(format!("imaging-stored-{}", std::process::id()));
        let mut table = StoredTable::new(&REGION_COLUMNS);
        table.push("3".to_owned(), &[0.1, 2.0, 0.0, 124.8, f64::NAN, 1e9]);
        for (name, format) in [("v2", Format::V04), ("v3", Format::V05)] {
            let image = image.join(name);
            for table in [&table, &StoredTable::new(&REGION_COLUMNS)] {
                replace(&image, format, "nuclei", Kind::Features("nuclei"), table).unwrap();
                let read = read(&image, "nuclei").unwrap().unwrap();
                assert_eq!((&read.index, &read.columns), (&table.index, &table.columns));
                assert_eq!(format!("{:?}", read.values), format!("{:?}", table.values));
            }
            replace(
                &image,
                format,
                "cells",
                Kind::BoundingBoxes("nuclei"),
                &table,
            )
            .unwrap();
            assert_eq!(read_list(&image).unwrap(), ["nuclei", "cells"]);
            assert_eq!(read(&image, "others").unwrap(), None);
            let attributes = group::read_attributes(&image.join("tables/cells")).unwrap();
            assert_eq!(attributes["region"], json!({"path": "../labels/nuclei"}));
        }
        fs::remove_dir_all(&image).unwrap();
    }

    #[test]
    fn fields_have_the_names_of_fractal() {
        for (field, name) in [("F001", "FOV_1"), ("12", "FOV_12"), ("left", "FOV_left")] {
            assert_eq!(region_name(field), name);
        }
        assert_eq!(micrometers(192, 0.65), 124.8);
    }
}
