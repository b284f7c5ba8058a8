//! The task "Contact sheet": a PNG of each plate, all wells with the outlines of their regions.

use super::Given;
use super::segment_nuclei::{check_label_name, default_label_name};
use crate::image::{Image, labels};
use crate::name::Well;
use crate::plate::Plate;
use crate::png_file;
use crate::sheet::{self, Canvas, Channel, Picture, Sheet};
use fractal_task::{TaskError, check_range};
use ome_zarr::group;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_label_name")]
    label_name: String,
    #[serde(default = "default_max_width")]
    max_width: usize,
}

pub(super) fn default_max_width() -> usize {
    3600
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Drawn {
    /// The sheet of each plate, below the output folder.
    contact_sheet: Vec<String>,
}

/// Draws the contact sheets of all plates.
///
/// # Errors
/// If an argument is out of range, an image cannot be read or has other channels than the first, or
/// a sheet cannot be written.
pub fn contact_sheet(given: &Given, args: Args) -> Result<Drawn, TaskError> {
    args.check()?;
    let mut drawn = Vec::new();
    for plate in given.plates()? {
        drawn.extend(args.draw(
            &given.output_path,
            &Plate::read(&given.output_path, &plate.plate)?,
        )?);
    }
    Ok(Drawn {
        contact_sheet: drawn,
    })
}

impl Args {
    /// Refuses arguments that are out of range.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        check_range("max_width", self.max_width, 200..=20_000)?;
        check_label_name(&self.label_name)
    }

    /// Draws the contact sheet of a plate.
    ///
    /// Returns the name of its file; `None` for a plate without images.
    ///
    /// # Errors
    /// As [`contact_sheet`].
    pub(super) fn draw(&self, output: &Path, plate: &Plate) -> Result<Option<String>, TaskError> {
        let Some(sheet) = read_sheet(output, plate, &self.label_name, self.max_width)? else {
            return Ok(None);
        };
        let name = format!("{}.png", plate.name);
        let Canvas { width, height, rgb } = sheet::draw(&sheet);
        png_file::write(
            &output.join(&name),
            (width, height),
            (png::ColorType::Rgb, png::BitDepth::Eight),
            &rgb,
        )?;
        Ok(Some(name))
    }
}

/// Reads the level of the pyramid with which the sheet is not too wide. A plate without images has
/// no sheet.
fn read_sheet(
    output: &Path,
    plate: &Plate,
    label_name: &str,
    max_width: usize,
) -> Result<Option<Sheet>, TaskError> {
    let Some(first) = plate.image_components().next() else {
        return Ok(None);
    };
    let first = Image::open(&first.folder(output))?;
    let n_rows = plate
        .wells
        .keys()
        .map(|well| &well.row)
        .collect::<BTreeSet<_>>()
        .len();
    let n_columns = plate
        .wells
        .keys()
        .map(|well| &well.column)
        .collect::<BTreeSet<_>>()
        .len();
    let n_fields = plate.wells.values().map(Vec::len).max().unwrap_or(0);
    let sizes: Vec<(usize, usize)> = first.sizes().collect();
    let fits =
        |size: &(usize, usize)| sheet::size(n_rows, n_columns, n_fields, *size).0 <= max_width;
    let level = sizes.iter().position(fits).unwrap_or(sizes.len() - 1);

    let mut wells: BTreeMap<Well, Vec<Picture>> = BTreeMap::new();
    for (component, images) in plate.well_components().zip(plate.wells.values()) {
        let folder = component.folder(output);
        let pictures = images
            .iter()
            .map(|image| read_picture(&folder.join(&image.path), &first, label_name, level));
        let pictures = pictures.collect::<Result<_, _>>()?;
        wells.extend(component.well.map(|well| (well, pictures)));
    }
    let channels = first.acquisition.channels.iter();
    let channels = channels
        .map(|channel| Channel {
            label: channel.label.clone(),
            color: parse_color(&channel.color),
        })
        .collect();
    let pixel_size_um = first.acquisition.pixel_size_um * (1_u32 << level) as f64;
    Ok(Some(Sheet {
        title: plate.name.clone(),
        channels,
        wells,
        pixel_size_um,
    }))
}

fn read_picture(
    folder: &Path,
    first: &Image,
    label_name: &str,
    level: usize,
) -> Result<Picture, TaskError> {
    let image = Image::open(folder)?;
    if image.n_channels() != first.n_channels() || level >= image.sizes().count() {
        let cause = "it has other channels or levels than the first image of the plate";
        return Err(TaskError::about("cannot draw", folder, cause));
    }
    let channels = (0..image.n_channels()).map(|channel| {
        image
            .read_plane(level, channel, 0)
            .map(|plane| plane.to_f32())
    });
    let channels = channels.collect::<Result<Vec<_>, _>>()?;
    let mut picture = Picture {
        channels,
        labels: None,
        n_regions: 0,
    };
    let label_folder = labels::folder(folder, label_name);
    if group::exists(&label_folder) {
        let plane = labels::read(folder, label_name, level)?;
        if picture
            .channels
            .iter()
            .any(|channel| (channel.width, channel.height) != (plane.width, plane.height))
        {
            return Err(TaskError::about(
                "cannot draw",
                &label_folder,
                "the labels have another size than the image",
            ));
        }
        let attributes = group::read_attributes(&label_folder)?;
        let n_regions = attributes
            .get("imaging")
            .and_then(|about: &Value| about["n_objects"].as_u64());
        picture.n_regions = n_regions.unwrap_or(0) as usize;
        picture.labels = Some(plane);
    }
    Ok(picture)
}

/// Six hexadecimal digits; grey for anything else.
fn parse_color(text: &str) -> [u8; 3] {
    let number = u32::from_str_radix(text, 16).unwrap_or(0x80_80_80);
    let [_, red, green, blue] = number.to_be_bytes();
    [red, green, blue]
}
