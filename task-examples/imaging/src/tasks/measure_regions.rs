//! The task "Measure regions": a table of the regions of all images of one well.

use super::Given;
use super::segment_nuclei::{check_label_name, default_label_name};
use crate::about;
use crate::image::{Image, Place, labels};
use crate::name::Component;
use crate::plate::read_images;
use crate::region::{self, Region};
use crate::replace::replace_file;
use crate::stored::{self, StoredTable};
use crate::table::{self, Union};
use fractal_task::TaskError;
use ome_zarr::each_plane;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_label_name")]
    pub(super) label_name: String,
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Measured {
    n_regions: usize,
}

/// The columns before those of the channels.
const COLUMNS: [&str; 19] = [
    "plate",
    "well",
    "field",
    "label",
    "area",
    "centroid_y",
    "centroid_x",
    "bbox_min_y",
    "bbox_min_x",
    "bbox_max_y",
    "bbox_max_x",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "perimeter",
    "extent",
    "form_factor",
];

/// The column of the labels.
const LABEL: usize = 3;

/// Measures the regions of one well.
///
/// # Errors
/// If an image or its labels cannot be read, or a table cannot be written.
pub fn measure_regions(given: &Given, args: Args) -> Result<Measured, TaskError> {
    let (
        Given {
            output_path: output,
            ..
        },
        Args { label_name },
    ) = (given, args);
    check_label_name(&label_name)?;
    let (component, well) = Component::parse_well(&given.component)?;
    let folder = component.folder(output);
    let mut table = Union::default();
    for image in read_images(&folder)? {
        let folder = folder.join(image.path);
        let image = Image::open(&folder)?;
        let header = columns(&image);
        let measured = measure_image(&folder, &image, &label_name)?;
        store(&folder, &image, &label_name, &header, &measured)?;
        table.extend(&header, measured);
    }
    let Union { header, rows } = table;
    let n_regions = rows.len();
    write_table(
        &table_folder(output, &component.plate),
        &well.to_string(),
        &header,
        rows,
    )?;
    Ok(Measured { n_regions })
}

/// Columns of the table of an image.
pub(super) fn columns(image: &Image) -> Vec<String> {
    let channels = image.acquisition.channels.iter();
    let measures = channels.flat_map(|channel| {
        ["mean", "integrated", "min", "max"].map(|measure| format!("{measure}_{}", channel.id))
    });
    let conditions = image
        .acquisition
        .conditions
        .iter()
        .map(|(name, _)| name.clone());
    COLUMNS
        .iter()
        .map(ToString::to_string)
        .chain(measures)
        .chain(conditions)
        .collect()
}

/// Writes the measurements into the tables of the image, under the name of the labels.
///
/// * `header`, `rows`: from [`columns`] and [`measure_image`].
///
/// # Errors
/// If a file cannot be written.
pub(super) fn store(
    folder: &Path,
    image: &Image,
    label_name: &str,
    header: &[String],
    rows: &[Vec<String>],
) -> Result<(), TaskError> {
    // Plate, well and field are texts, the label is the index, and the conditions are those of the
    // well.
    let numbers = LABEL + 1..header.len() - image.acquisition.conditions.len();
    let number = |text: &String| text.parse().unwrap_or(f64::NAN);
    let table = StoredTable {
        index: rows.iter().map(|row| row[LABEL].clone()).collect(),
        columns: header[numbers.clone()].to_vec(),
        values: rows
            .iter()
            .flat_map(|row| row[numbers.clone()].iter().map(number))
            .collect(),
    };
    stored::replace(
        folder,
        image.storage().format,
        label_name,
        stored::Kind::Features(label_name),
        &table,
    )
}

/// Writes the table of this name into the folder of a plate's tables.
///
/// # Errors
/// If the folder or the file cannot be written.
pub(super) fn write_table(
    tables: &Path,
    name: &str,
    header: &[String],
    rows: Vec<Vec<String>>,
) -> Result<(), TaskError> {
    fs::create_dir_all(tables).map_err(about("cannot make the folder", tables))?;
    replace_file(&table_file(tables, name), |part| {
        table::write_rows(part, header, rows)
    })
}

/// Where the tables of a plate are.
pub(super) fn table_folder(output: &Path, plate: &str) -> PathBuf {
    output.join(format!("{plate}.tables"))
}

/// The table of a well or an image.
pub(super) fn table_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.csv"))
}

/// Measures the regions of one image: a row of values for each.
///
/// # Errors
/// If the image or its labels cannot be read, or they have different sizes.
pub(super) fn measure_image(
    folder: &Path,
    image: &Image,
    label_name: &str,
) -> Result<Vec<Vec<String>>, TaskError> {
    let labels = labels::read(folder, label_name, 0)?;
    if Some((labels.width, labels.height)) != image.sizes().next() {
        let cause = format!(
            "the labels {label_name} have another size than the image; run \"Segment nuclei\" again"
        );
        return Err(TaskError::about("cannot measure", folder, cause));
    }
    let regions = region::measure(&labels);
    let fields = image.acquisition.fields_of((labels.width, labels.height));
    let mut rows: Vec<Vec<String>> = regions
        .iter()
        .map(|region| shape_values(image, &fields, region))
        .collect();
    for channel in 0..image.n_channels() {
        let plane = image.read_projection(channel)?;
        let intensities =
            each_plane!(&plane, plane => region::measure_intensity(&labels, &regions, plane));
        for ((row, region), intensity) in rows.iter_mut().zip(&regions).zip(intensities) {
            row.push((intensity.integrated / region.area as f64).to_string());
            row.extend(
                [intensity.integrated, intensity.min, intensity.max].map(|value| value.to_string()),
            );
        }
    }
    let conditions = image
        .acquisition
        .conditions
        .iter()
        .map(|(_, value)| value.clone());
    rows.iter_mut()
        .for_each(|row| row.extend(conditions.clone()));
    Ok(rows)
}

/// * `fields`: the fields of the image. The one that has the centre of the region is written.
fn shape_values(image: &Image, fields: &[Place], region: &Region) -> Vec<String> {
    let acquisition = &image.acquisition;
    let (y, x) = (region.centroid.0 as usize, region.centroid.1 as usize);
    let has_centre = |place: &&Place| {
        (place.x..place.x + place.width).contains(&x)
            && (place.y..place.y + place.height).contains(&y)
    };
    // Where fields overlap, the last one is seen.
    let field = fields
        .iter()
        .rev()
        .find(has_centre)
        .map_or(&acquisition.field, |place| &place.field);
    let names = [
        acquisition.plate.clone(),
        acquisition.well.to_string(),
        field.to_string(),
    ];
    let (top, left, bottom, right) = region.bbox;
    let lengths = [
        region.equivalent_diameter_area(),
        region.axes.0,
        region.axes.1,
        region.eccentricity,
        region.orientation,
        region.perimeter,
        region.extent(),
    ];
    let mut values = names.to_vec();
    values.extend([region.label.to_string(), region.area.to_string()]);
    values.extend([region.centroid.0, region.centroid.1].map(|value| value.to_string()));
    values.extend([top, left, bottom, right].map(|value| value.to_string()));
    values.extend(lengths.map(|value| value.to_string()));
    values.push(
        region
            .form_factor()
            .map_or_else(String::new, |value| value.to_string()),
    );
    values
}
