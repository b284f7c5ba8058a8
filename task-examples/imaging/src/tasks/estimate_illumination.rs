//! The task "Estimate illumination": for each channel of each plate, how the light falls on the
//! field of view.

use super::Given;
use crate::illumination;
use crate::image::{Acquisition, Image, Place};
use crate::mosaic;
use crate::name::Component;
use crate::plate::{Plate, WellImage};
use crate::png_file;
use crate::replace::replace_folder;
use fractal_task::{TaskError, check_range};
use ome_zarr::plane::Plane;
use ome_zarr::pyramid::half_size;
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
/// If an argument is out of range, an image cannot be read or has another size than the others, or
/// there is no light in the images.
pub fn estimate_illumination(given: &Given, args: Args) -> Result<Estimated, TaskError> {
    check_max_images(args.max_images)?;
    let mut illumination = Vec::new();
    for plate in given.plates()? {
        let whole = Plate::read(&given.output_path, &plate.plate)?;
        let images: Vec<Component> = whole.image_components().collect();
        let chosen = spread(&whole, &images, args.max_images);
        let folders = chosen
            .iter()
            .map(|component| component.folder(&given.output_path));
        let images = open_images(folders, &plate.plate)?;
        if images.is_empty() {
            continue;
        }
        replace_folder(
            &profile_folder(&given.output_path, &plate.plate),
            |folder| {
                let channels = channel_ids(images.iter().map(|image| &image.acquisition));
                let write = |channel: &String| {
                    write_profile(folder, &plate.plate, &images, channel, args.background)
                };
                channels.iter().try_for_each(write)
            },
        )?;
        illumination.push(format!("{}.illumination", plate.plate));
    }
    Ok(Estimated { illumination })
}

/// Refuses a number of images that is out of range.
pub(super) fn check_max_images(max_images: usize) -> Result<(), TaskError> {
    check_range("max_images", max_images, 1..=10_000)
}

/// At most `max` images of each acquisition, evenly spread over the plate.
///
/// * `all`: something for each image of the plate, in their order.
pub(super) fn spread<'a, T>(plate: &Plate, all: &'a [T], max: usize) -> Vec<&'a T> {
    let images: Vec<&WellImage> = plate.wells.values().flatten().collect();
    let ids = 0..plate.acquisitions.len();
    let of_one = ids.flat_map(|id| {
        let of_acquisition = all
            .iter()
            .zip(&images)
            .filter(|(_, image)| image.acquisition == id);
        let all: Vec<&T> = of_acquisition.map(|(all, _)| all).collect();
        let n = all.len().min(max);
        (0..n)
            .map(|index| all[index * all.len() / n])
            .collect::<Vec<_>>()
    });
    of_one.collect()
}

/// The ids of all channels of some images, in the order of the images.
pub(super) fn channel_ids<'a>(acquisitions: impl Iterator<Item = &'a Acquisition>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for channel in acquisitions.flat_map(|acquisition| &acquisition.channels) {
        if !ids.contains(&channel.id) {
            ids.push(channel.id.clone());
        }
    }
    ids
}

/// Opens the images of a plate that its illumination is estimated from.
///
/// # Errors
/// If an image cannot be read or has another size than the first.
pub(super) fn open_images(
    folders: impl Iterator<Item = PathBuf>,
    plate: &str,
) -> Result<Vec<Image>, TaskError> {
    let images: Vec<Image> = folders
        .map(|folder| Image::open(&folder))
        .collect::<Result<_, _>>()?;
    let sizes: Vec<(usize, usize)> = images
        .iter()
        .map(Image::field_size)
        .collect::<Result<_, _>>()?;
    let other = |(image, size): &(&Image, &(usize, usize))| {
        **size != sizes[0] || image.sizes().count() != images[0].sizes().count()
    };
    if let Some((image, _)) = images.iter().zip(&sizes).find(other) {
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
/// * `images`: from [`open_images`]; at least one has the channel.
/// * `channel`: its id.
///
/// # Errors
/// If an image cannot be read, there is no light in the images, or the file cannot be written.
pub(super) fn write_profile(
    folder: &Path,
    plate: &str,
    images: &[Image],
    channel: &str,
    background: u16,
) -> Result<(), TaskError> {
    let place = |image: &Image| {
        image
            .acquisition
            .channels
            .iter()
            .position(|known| known.id == channel)
    };
    let images: Vec<(&Image, usize)> = images
        .iter()
        .filter_map(|image| Some((image, place(image)?)))
        .collect();
    let profile = estimate_channel(&images, background)
        .map_err(|err| TaskError::new(format!("plate {plate}, channel {channel}: {err}")))?;
    let bytes: Vec<u8> = profile
        .values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect();
    let pixels = (png::ColorType::Grayscale, png::BitDepth::Sixteen);
    png_file::write(
        &profile_file(folder, channel),
        (profile.width, profile.height),
        pixels,
        &bytes,
    )
}

/// Where the profiles of a plate are.
pub(super) fn profile_folder(output: &Path, plate: &str) -> PathBuf {
    output.join(format!("{plate}.illumination"))
}

/// The profile of a channel.
pub(super) fn profile_file(folder: &Path, channel: &str) -> PathBuf {
    folder.join(format!("{channel}.png"))
}

/// * `images`: images with the place of the channel in each.
fn estimate_channel(images: &[(&Image, usize)], background: u16) -> Result<Plane, TaskError> {
    let Some((first, _)) = images.first() else {
        return Err(TaskError::new("no image has this channel"));
    };
    let size = first.field_size()?;
    let sizes: Vec<(usize, usize)> =
        std::iter::successors(Some(size), |size| Some(half_size(*size)))
            .take(first.sizes().count())
            .collect();
    let is_small = |size: &(usize, usize)| size.0.max(size.1) <= SAMPLE_SIZE;
    let level = sizes.iter().position(is_small).unwrap_or(sizes.len() - 1);
    let mut samples: Vec<Vec<f64>> = Vec::with_capacity(images.len());
    for &(image, channel) in images {
        let mut darkest: Vec<Vec<f64>> = Vec::new();
        for z in 0..image.n_planes() {
            for (index, values) in small_fields(image, channel, z, level)?
                .into_iter()
                .enumerate()
            {
                match darkest.get_mut(index) {
                    None => darkest.push(values),
                    Some(darkest) => {
                        darkest
                            .iter_mut()
                            .zip(values)
                            .for_each(|(darkest, value)| *darkest = darkest.min(value));
                    }
                }
            }
        }
        darkest
            .iter_mut()
            .flatten()
            .for_each(|value| *value -= f64::from(background));
        samples.extend(darkest);
    }
    // The levels of other programs may be smaller by a pixel.
    let small = match first.acquisition.fields.as_slice() {
        [] => first.sizes().nth(level).unwrap_or(sizes[level]),
        _ => sizes[level],
    };
    if samples
        .iter()
        .any(|sample| sample.len() != small.0 * small.1)
    {
        return Err(TaskError::new(
            "the images have levels of different sizes; convert them in one way",
        ));
    }
    illumination::estimate(&samples, small, size)
}

/// Small versions of the fields in a plane of an image, row after row.
///
/// * `level`: how often they are halved.
fn small_fields(
    image: &Image,
    channel: usize,
    z: usize,
    level: usize,
) -> Result<Vec<Vec<f64>>, TaskError> {
    if image.acquisition.fields.is_empty() {
        return Ok(vec![image.read_plane(level, channel, z)?.to_f64()]);
    }
    // The levels of the image mix pixels of a field with those next to it.
    let plane = image.read_plane(0, channel, z)?;
    let small = |field: &Place| {
        (0..level)
            .fold(mosaic::cut(&plane, field), |plane, _| plane.halve())
            .to_f64()
    };
    Ok(image.acquisition.fields.iter().map(small).collect())
}
