//! Images of OME-NGFF that other programs wrote, such as Fractal's converters: what these tasks
//! have to know of an image, from its metadata, its place in the plate, and its table of fields.

use crate::image::{Acquisition, Channel, Place};
use crate::name::{Number, Well, is_plate};
use crate::stored::{self, StoredTable};
use fractal_task::TaskError;
use ome_zarr::ngff;
use ome_zarr::zarr::Array;
use serde_json::{Map, Value};
use std::path::Path;

/// The folders of the levels below an image, from its attributes; `None` if it has no pixels.
pub fn level_paths(attributes: &Map<String, Value>) -> Option<Vec<String>> {
    let datasets = attributes.get("multiscales")?[0]["datasets"].as_array()?;
    datasets
        .iter()
        .map(|dataset| {
            dataset["path"]
                .as_str()
                .filter(|path| is_plate(path))
                .map(str::to_owned)
        })
        .collect()
}

/// Describes an image of another program.
///
/// * `folder`: `PLATE.zarr/ROW/COLUMN/IMAGE`.
///
/// # Errors
/// If it is not in a plate, has other axes than c, z, y and x, or its metadata do not fit its
/// arrays.
pub fn read_acquisition(
    folder: &Path,
    attributes: &Map<String, Value>,
) -> Result<Acquisition, TaskError> {
    let wrong = |cause: &str| TaskError::about("cannot use the image", folder, cause);
    let (plate, well, field) =
        place(folder).ok_or_else(|| wrong("it is not in a plate, such as p.zarr/B/03/0"))?;
    let levels = level_paths(attributes).filter(|levels| !levels.is_empty());
    let levels = levels.ok_or_else(|| wrong("multiscales.datasets has no paths"))?;
    let multiscales = attributes
        .get("multiscales")
        .map(|multiscales| &multiscales[0])
        .unwrap_or(&Value::Null);
    let array = Array::open(folder.join(&levels[0]))?;
    let [n_channels, _] = array.outer() else {
        return Err(wrong("its arrays do not have the axes c, z, y, x"));
    };
    let names = multiscales["axes"]
        .as_array()
        .map(|axes| axes.iter().map(|axis| axis["name"].as_str()).collect());
    if names != Some(vec![Some("c"), Some("z"), Some("y"), Some("x")]) {
        return Err(wrong("it does not have the axes c, z, y, x"));
    }
    let unit = units(multiscales)
        .ok_or_else(|| wrong("the unit of an axis is not a known one of length"))?;
    let scale = scale(multiscales).ok_or_else(|| wrong("there is no scale of its pixels"))?;
    let [z_step_um, height_um, width_um] = [1, 2, 3].map(|axis| scale[axis] * unit[axis]);
    if (height_um - width_um).abs() > 1e-6 * width_um.abs() {
        return Err(wrong("its pixels are not squares"));
    }
    let mut acquisition = Acquisition {
        plate,
        well,
        field: Number(field),
        acquisition: 0,
        pixel_size_um: width_um,
        z_step_um,
        channels: channels(attributes, *n_channels),
        contents: None,
        files: Vec::new(),
        mosaic: Vec::new(),
        conditions: Vec::new(),
        fields: Vec::new(),
        stage_um: None,
        correction: None,
    };
    if let Some(table) = stored::read(folder, stored::FIELDS)? {
        let fields = fields(&table, array.size(), acquisition.pixel_size_um);
        acquisition.fields = fields
            .ok_or_else(|| wrong("a region in tables/FOV_ROI_table is not inside the image"))?;
    }
    Ok(acquisition)
}

fn place(folder: &Path) -> Option<(String, Well, String)> {
    let parts: Vec<&str> = folder
        .iter()
        .rev()
        .take(4)
        .filter_map(|part| part.to_str())
        .collect();
    let [image, column, row, plate] = parts[..] else {
        return None;
    };
    Some((
        plate.strip_suffix(".zarr")?.to_owned(),
        Well::parse(&format!("{row}{column}"))?,
        image.to_owned(),
    ))
}

/// How many micrometers the unit of each axis has. An axis without a unit is in micrometers.
fn units(multiscales: &Value) -> Option<Vec<f64>> {
    let unit = |axis: &Value| match axis["unit"].as_str() {
        None | Some("micrometer") => Some(1.0),
        Some("nanometer") => Some(1e-3),
        Some("millimeter") => Some(1e3),
        Some("meter") => Some(1e6),
        Some(_) => None,
    };
    multiscales["axes"].as_array()?.iter().map(unit).collect()
}

/// The size of a pixel of level 0 on each axis.
fn scale(multiscales: &Value) -> Option<[f64; 4]> {
    let of = |transformations: &Value| -> Option<[f64; 4]> {
        let mut transformations = transformations.as_array()?.iter();
        let scale = transformations.find(|transformation| transformation["type"] == "scale")?;
        serde_json::from_value(scale["scale"].clone()).ok()
    };
    let mut scale = of(&multiscales["datasets"][0]["coordinateTransformations"])?;
    if let Some(all) = of(&multiscales["coordinateTransformations"]) {
        scale
            .iter_mut()
            .zip(all)
            .for_each(|(scale, all)| *scale *= all);
    }
    scale
        .iter()
        .all(|size| size.is_finite() && *size > 0.0)
        .then_some(scale)
}

/// A channel has its `wavelength_id` as its id, or its label, or a number.
fn channels(attributes: &Map<String, Value>, n_channels: usize) -> Vec<Channel> {
    let known = attributes
        .get("omero")
        .map(|omero| &omero["channels"])
        .unwrap_or(&Value::Null);
    (0..n_channels)
        .map(|index| {
            let text = |key: &str| known[index][key].as_str().map(str::to_owned);
            let number = format!("C{:02}", index + 1);
            let label = text("label");
            let wavelength_id = text("wavelength_id");
            let id = wavelength_id.clone().or(label.clone()).unwrap_or(number);
            Channel {
                // The id is the name of a file.
                id: id.replace(
                    |c: char| !(c.is_alphanumeric() || c == '-' || c == '_'),
                    "_",
                ),
                label: label.unwrap_or_else(|| id.clone()),
                color: text("color").unwrap_or_else(|| ngff::color(index).to_owned()),
                wavelength_id,
            }
        })
        .collect()
}

/// The places of the regions; `None` if one is not inside the image.
fn fields(
    table: &StoredTable,
    (width, height): (usize, usize),
    pixel_size_um: f64,
) -> Option<Vec<Place>> {
    let pixels = |row: usize, column: &str| {
        let pixels = libm::round(table.value(row, column)? / pixel_size_um);
        (0.0..=1e9).contains(&pixels).then_some(pixels as usize)
    };
    let field = |(row, name): (usize, &String)| {
        let [x, y, n_columns, n_rows] = [
            "x_micrometer",
            "y_micrometer",
            "len_x_micrometer",
            "len_y_micrometer",
        ]
        .map(|column| pixels(row, column));
        let place = Place {
            field: Number(name.strip_prefix("FOV_").unwrap_or(name).to_owned()),
            x: x?,
            y: y?,
            width: n_columns?,
            height: n_rows?,
            stage_um: table
                .value(row, "x_micrometer_original")
                .zip(table.value(row, "y_micrometer_original"))
                .map(|(x, y)| [x, y]),
        };
        let is_inside = place.x + place.width <= width && place.y + place.height <= height;
        (is_inside && place.width > 0 && place.height > 0).then_some(place)
    };
    table.index.iter().enumerate().map(field).collect()
}
