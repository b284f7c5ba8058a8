//! The task "Project maximum intensity": an image of one plane, each pixel the largest of its Z
//! planes.

use super::{Given, NoArgs};
use crate::image::{Acquisition, Image, ImageWriter};
use crate::name::Component;
use crate::replace::replace_folder;
use fractal_task::TaskError;
use serde::Serialize;
use std::path::Path;

/// The metadiff: nothing.
#[derive(Debug, Serialize)]
pub struct Projected {}

/// Projects one image into the plate that is a copy of the structure of its own.
///
/// # Errors
/// If the plate is no copy, the image it comes from cannot be read, or a file cannot be written.
pub fn project_maximum(given: &Given, _: NoArgs) -> Result<Projected, TaskError> {
    let component = Component::parse_image(&given.component)?;
    let sources = &given.metadata.copy_ome_zarr.sources;
    let source = sources.get(&component.plate).ok_or_else(|| {
        TaskError::new(format!(
            "plate {} is no copy of another one: run \"Copy plate structure\" first",
            component.plate
        ))
    })?;
    // Fractal's own task writes the path of the plate.
    let name = source
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let plate = Component::parse_plate(name)?;
    let elsewhere = Path::new(source)
        .parent()
        .filter(|_| !plate.folder(&given.output_path).exists());
    let source = component
        .in_plate(&plate.plate)
        .folder(elsewhere.unwrap_or(&given.output_path));
    project(&source, &component.folder(&given.output_path))?;
    Ok(Projected {})
}

/// Projects the image in the folder `source`. The projection replaces what the folder `target`
/// held.
///
/// # Errors
/// If the image cannot be read, or a file cannot be written.
pub(super) fn project(source: &Path, target: &Path) -> Result<(), TaskError> {
    let image = Image::open(source)?;
    let acquisition = Acquisition {
        contents: None,
        files: Vec::new(),
        mosaic: Vec::new(),
        ..image.acquisition.clone()
    };
    replace_folder(target, |part| {
        let size = image.sizes().next().unwrap_or((0, 0));
        let mut writer = ImageWriter::create(
            part,
            image.pixel_type(),
            (image.n_channels(), 1),
            size,
            image.storage(),
        )?;
        for channel in 0..image.n_channels() {
            let mut largest = image.read_plane(0, channel, 0)?;
            for z in 1..image.n_planes() {
                // All planes of an array have one type and size.
                let _ = largest.keep_larger(&image.read_plane(0, channel, z)?);
            }
            writer.write_plane(channel, 0, largest)?;
        }
        writer.finish(&acquisition).map(drop)
    })
}
