//! The task "Create OME-Zarr plate": from a folder of image files, named or listed in a table, to a
//! plate with its wells and images, which have no pixels yet. One file of each plate is opened, to
//! find out what its files contain, and one of each field if their positions are needed. A damaged
//! or missing file is found by the conversion.

mod channels;
mod groups;
mod images;
mod layout;
mod stages;

use super::Given;
use crate::files::{Search, find};
use crate::image::{Acquisition, write_empty};
use crate::mosaic::Positions;
use crate::name::Component;
use crate::plate::{Plate, plate_component};
use crate::table::Conditions;
use channels::{ChannelChoice, choose_channels};
use fractal_task::{TaskError, check_range};
use groups::group_plates;
use images::{Located, Source, plan_images, well_images};
use ome_zarr::group::Format;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    layout: Option<String>,
    #[serde(default = "default_extensions")]
    extensions: Vec<String>,
    #[serde(default)]
    channels: Vec<ChannelChoice>,
    #[serde(default = "default_complete")]
    complete: bool,
    #[serde(default)]
    pixel_size_um: Option<f64>,
    #[serde(default)]
    z_step_um: Option<f64>,
    #[serde(default)]
    rgb_channels: bool,
    #[serde(default)]
    time_point: Option<u64>,
    #[serde(default)]
    ngff_version: Format,
    #[serde(default)]
    stitch: bool,
    #[serde(default)]
    positions: Option<String>,
    #[serde(default)]
    field_columns: Option<usize>,
    #[serde(default)]
    acquisitions: Vec<String>,
    #[serde(default)]
    plate_name: Option<String>,
    #[serde(default)]
    overwrite: bool,
}

pub(super) fn default_extensions() -> Vec<String> {
    ["tif", "tiff", "png"].map(String::from).to_vec()
}

pub(super) fn default_complete() -> bool {
    true
}

/// The metadiff: the components of each level.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    plate: Vec<String>,
    well: Vec<String>,
    image: Vec<String>,
    channels: Vec<String>,
}

/// Makes the plates of the input folders.
///
/// # Errors
/// If an argument is wrong, a folder or the table cannot be read, no image is found, two files are
/// the same plane, or a plate exists and may not be replaced.
pub fn create_plate(given: &Given, args: Args) -> Result<Created, TaskError> {
    let format = args.ngff_version;
    create(
        &given.input_paths,
        &given.output_path,
        args,
        &mut |_, folder, acquisition| write_empty(folder, format, &acquisition),
    )
}

/// Creates the plates of the input folders, their wells, and what `write_image` writes for each
/// image.
///
/// * `write_image`: gets the component, the folder and the description of an image.
///
/// # Errors
/// As [`create_plate`], and those of `write_image`.
pub(super) fn create(
    inputs: &[PathBuf],
    output: &Path,
    args: Args,
    write_image: &mut dyn FnMut(&Component, &Path, Acquisition) -> Result<(), TaskError>,
) -> Result<Created, TaskError> {
    for (name, size) in [
        ("pixel_size_um", args.pixel_size_um),
        ("z_step_um", args.z_step_um),
    ] {
        size.map_or(Ok(()), |size| check_range(name, size, 1e-6..=1e6))?;
    }
    check_range("field_columns", args.field_columns.unwrap_or(1), 1..=1000)?;
    args.time_point.map_or(Ok(()), |time_point| {
        check_range("time_point", time_point, 0..=1_000_000)
    })?;
    let found = find(&Search {
        folders: inputs,
        extensions: &args.extensions,
        pattern: args.pattern.as_deref(),
        table: args.table.as_deref(),
        time_point: args.time_point,
        rgb_channels: args.rgb_channels,
        replaces_pixel_size: args.pixel_size_um.is_some(),
        replaces_z_step: args.z_step_um.is_some(),
    })?;
    let channels = choose_channels(&found, &args.channels)?;
    let conditions = read_conditions(inputs, args.layout.as_deref())?;
    let mut created = Created {
        plate: Vec::new(),
        well: Vec::new(),
        image: Vec::new(),
        channels: channels.iter().map(|channel| channel.id.clone()).collect(),
    };
    let positions = match &args.positions {
        Some(name) => {
            let path = find_input(name, inputs)?;
            if args.stitch {
                eprintln!(
                    "the positions of the fields are those of {}",
                    path.display()
                );
            }
            Some(Positions::read(&path)?)
        }
        None => None,
    };
    for plate in found
        .contents
        .keys()
        .filter(|plate| conditions.lacks_plate(plate))
    {
        eprintln!(
            "warning: the layout has no row for plate {plate}, whose wells get no conditions"
        );
    }
    for group in group_plates(&found, &args)? {
        let sources: Vec<Source<'_>> = group
            .sources
            .iter()
            .map(|name| Source::of(name, &found, &channels, &args))
            .collect::<Result<_, _>>()?;
        let images = plan_images(&sources, args.stitch);
        let plate = Plate {
            name: group.name.clone(),
            format: args.ngff_version,
            acquisitions: group.sources.clone(),
            wells: images
                .iter()
                .map(|(well, images)| (well.clone(), well_images(images)))
                .collect(),
        };
        plate.write(output, args.overwrite, &mut |component, folder| {
            let (Some(well), Some(path)) = (&component.well, &component.image) else {
                return Ok(());
            };
            let Some(image) = path
                .parse()
                .ok()
                .and_then(|index: usize| images.get(well)?.get(index))
            else {
                return Ok(());
            };
            let source = &sources[image.acquisition];
            let located = Located {
                args: &args,
                positions: positions.as_ref(),
                found: &found,
                conditions: &conditions,
            };
            write_image(
                component,
                folder,
                source.describe(&group.name, well, image, &located)?,
            )
        })?;
        created.plate.push(plate_component(&group.name).to_string());
        created.well.extend(
            plate
                .well_components()
                .map(|component| component.to_string()),
        );
        created.image.extend(
            plate
                .image_components()
                .map(|component| component.to_string()),
        );
    }
    Ok(created)
}

/// Reads the layout of the plates, if there is one.
fn read_conditions(inputs: &[PathBuf], layout: Option<&str>) -> Result<Conditions, TaskError> {
    let Some(layout) = layout else {
        return Ok(Conditions::default());
    };
    Conditions::read(&find_input(layout, inputs)?)
}

/// A file in one of the input folders.
fn find_input(name: &str, folders: &[PathBuf]) -> Result<PathBuf, TaskError> {
    let mut paths = folders.iter().map(|folder| folder.join(name));
    let path = paths
        .clone()
        .find(|path| path.is_file())
        .or_else(|| paths.next());
    path.ok_or_else(|| TaskError::new("input_paths is empty: give the folder of the images"))
}

#[cfg(test)]
mod tests;
