//! The task "Estimate illumination": for each channel of each plate, how the light falls on the field of view.

use super::Given;
use crate::illumination;
use crate::image::Image;
use crate::name::Component;
use crate::plate::Plate;
use crate::png_file;
use crate::replace::replace_folder;
use fractal_task::{TaskError, check_range};
use ome_zarr::plane::Plane;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The largest width and height of the small versions that the profile is estimated from.
const SAMPLE_SIZE: usize = 32;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_background")]
    background: u16,
    #[serde(default = "default_max_images")]
    max_images: usize,
}

/// What Fractal takes the camera's background to be.
pub(super) fn default_background() -> u16 {
    110
}

pub(super) fn default_max_images() -> usize {
    48
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Estimated {
    /// The folder of the profiles of each plate, below the output folder.
    illumination: Vec<String>,
}

/// Estimates the illumination of all channels.
///
/// # Errors
/// If an argument is out of range, an image cannot be read or has another size than the others, or there is no light in the
/// images.
pub fn estimate_illumination(given: &Given, args: Args) -> Result<Estimated, TaskError> {
    check_max_images(args.max_images)?;
    let mut illumination = Vec::new();
    for plate in given.plates()? {
        let images: Vec<Component> = Plate::read(&given.output_path, &plate.plate)?.image_components().collect();
        let chosen = spread(&images, args.max_images).map(|component| component.folder(&given.output_path));
        let images = open_images(chosen, &plate.plate)?;
        let Some(first) = images.first() else { continue };
        replace_folder(&profile_folder(&given.output_path, &plate.plate), |folder| {
            (0..first.n_channels())
                .try_for_each(|channel| write_profile(folder, &plate.plate, &images, channel, args.background))
        })?;
        illumination.push(format!("{}.illumination", plate.plate));
    }
    Ok(Estimated { illumination })
}

/// Refuses a number of images that is out of range.
pub(super) fn check_max_images(max_images: usize) -> Result<(), TaskError> {
    check_range("max_images", max_images, 1..=10_000)
}

/// At most `max` of all images, evenly spread over the plate.
pub(super) fn spread<T>(all: &[T], max: usize) -> impl Iterator<Item = &T> {
    let n = all.len().min(max);
    (0..n).map(move |index| &all[index * all.len() / n])
}

/// Opens the images of a plate that its illumination is estimated from.
///
/// # Errors
/// If an image cannot be read or has another size than the first.
pub(super) fn open_images(folders: impl Iterator<Item = PathBuf>, plate: &str) -> Result<Vec<Image>, TaskError> {
    let images: Vec<Image> = folders.map(|folder| Image::open(&folder)).collect::<Result<_, _>>()?;
    if let Some(image) = images.iter().find(|image| !image.sizes().eq(images[0].sizes())) {
        let (well, field) = (&image.acquisition.well, &image.acquisition.field);
        return Err(TaskError::new(format!(
            "field {field} of well {well} has another size than the first image of plate {plate}: one illumination does not fit \
             both, run them as two plates",
        )));
    }
    Ok(images)
}

/// Estimates the profile of a channel, and writes it into the folder of the profiles.
///
/// * `images`: at least one, from [`open_images`].
///
/// # Errors
/// If an image cannot be read, there is no light in the images, or the file cannot be written.
pub(super) fn write_profile(
    folder: &Path,
    plate: &str,
    images: &[Image],
    channel: usize,
    background: u16,
) -> Result<(), TaskError> {
    let sizes: Vec<(usize, usize)> = images[0].sizes().collect();
    let id = &images[0].acquisition.channels[channel].id;
    let profile = estimate_channel(images, channel, &sizes, background)
        .map_err(|err| TaskError::new(format!("plate {plate}, channel {id}: {err}")))?;
    let bytes: Vec<u8> = profile.values.iter().flat_map(|value| value.to_be_bytes()).collect();
    let pixels = (png::ColorType::Grayscale, png::BitDepth::Sixteen);
    png_file::write(&profile_file(folder, id), (profile.width, profile.height), pixels, &bytes)
}

/// Where the profiles of a plate are.
pub(super) fn profile_folder(output: &Path, plate: &str) -> PathBuf {
    output.join(format!("{plate}.illumination"))
}

/// The profile of a channel.
pub(super) fn profile_file(folder: &Path, channel: &str) -> PathBuf {
    folder.join(format!("{channel}.png"))
}

fn estimate_channel(
    images: &[Image],
    channel: usize,
    sizes: &[(usize, usize)],
    background: u16,
) -> Result<Plane, TaskError> {
    let is_small = |size: &(usize, usize)| size.0.max(size.1) <= SAMPLE_SIZE;
    let level = sizes.iter().position(is_small).unwrap_or(sizes.len() - 1);
    let mut samples = Vec::with_capacity(images.len());
    for image in images {
        let mut darkest = image.read_plane(level, channel, 0)?.to_f64();
        for z in 1..image.n_planes() {
            let values = image.read_plane(level, channel, z)?.to_f64();
            darkest.iter_mut().zip(values).for_each(|(darkest, value)| *darkest = darkest.min(value));
        }
        darkest.iter_mut().for_each(|value| *value -= f64::from(background));
        samples.push(darkest);
    }
    illumination::estimate(&samples, sizes[level], sizes[0])
}
