//! The task "Correct illumination": takes the camera's background and the illumination out of one
//! image, in place.

use super::Given;
use super::estimate_illumination::{default_background, profile_file, profile_folder};
use crate::image::{Acquisition, Correction, Image, ImageWriter};
use crate::name::Component;
use crate::replace::{recover, replace_folder};
use crate::source;
use crate::{about, illumination};
use fractal_task::TaskError;
use ome_zarr::each_plane;
use ome_zarr::pixel::AnyPlane;
use ome_zarr::plane::Plane;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_background")]
    background: u16,
    #[serde(default)]
    profiles: Option<PathBuf>,
}

/// The metadiff: nothing.
#[derive(Debug, Serialize)]
pub struct Corrected {}

/// Corrects one image. An image that was corrected in the same way stays as it is, so that a call
/// can be made again.
///
/// # Errors
/// If the image or a profile cannot be read, a profile has another size or a 0, the image was
/// corrected in another way, or a file cannot be written. The image is then as it was.
pub fn correct_illumination(given: &Given, args: Args) -> Result<Corrected, TaskError> {
    let component = Component::parse_image(&given.component)?;
    let folder = component.folder(&given.output_path);
    recover(&folder)?;
    let image = Image::open(&folder)?;
    let profile_folder = match &args.profiles {
        Some(folder) => given.output_path.join(folder),
        None => profile_folder(&given.output_path, &component.plate),
    };
    let profiles = read_profiles(&profile_folder, &image)?;
    let checksum = |profile: &Plane| {
        let values = profile.values.iter();
        let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        crc.sum()
    };
    let correction = Correction {
        background: args.background,
        profiles: profiles.iter().map(checksum).collect(),
    };
    match &image.acquisition.correction {
        None => {}
        Some(made) if *made == correction => return Ok(Corrected {}),
        Some(_) => {
            let cause =
                "it was corrected before, in another way; run \"Convert images\" again first";
            return Err(TaskError::about("cannot correct", &folder, cause));
        }
    }
    let acquisition = Acquisition {
        correction: Some(correction),
        ..image.acquisition.clone()
    };
    replace_folder(&folder, |part| {
        let shape = (image.n_channels(), image.n_planes());
        let size = image.sizes().next().unwrap_or((0, 0));
        let fields = image.acquisition.fields_of(size);
        let mut writer =
            ImageWriter::create(part, image.pixel_type(), shape, size, image.storage())?;
        for (channel, profile) in profiles.iter().enumerate() {
            let shares = illumination::shares(profile);
            for z in 0..image.n_planes() {
                let mut plane = image.read_plane(0, channel, z)?;
                each_plane!(&mut plane, plane => {
                    illumination::correct_fields(plane, &fields, &shares, args.background);
                });
                writer.write_plane(channel, z, plane)?;
            }
        }
        writer
            .finish_in_place(&image, &acquisition)
            .map(|()| Corrected {})
    })
}

/// One profile a channel, PNG or TIFF.
fn read_profiles(folder: &Path, image: &Image) -> Result<Vec<Plane>, TaskError> {
    let size = image.field_size()?;
    let read = |path: PathBuf| {
        if !path.try_exists().map_err(about("cannot look for", &path))? {
            let cause = "there is no such profile; run \"Estimate illumination\" first, or correct the argument profiles";
            return Err(TaskError::about("cannot use", &path, cause));
        }
        let profile = source::open(&path)?.read(None)?;
        let AnyPlane::U16(profile) = profile else {
            let cause = format!(
                "its pixels are {}; save it with 16 bits unsigned",
                profile.pixel_type().name()
            );
            return Err(TaskError::about("cannot use", &path, cause));
        };
        if (profile.width, profile.height) != size {
            let what = if image.acquisition.fields.is_empty() {
                "the image"
            } else {
                "a field of the image"
            };
            let cause = format!(
                "it has {}x{} pixels, but {what} {}x{}",
                profile.width, profile.height, size.0, size.1
            );
            return Err(TaskError::about("cannot use", &path, cause));
        }
        if profile.values.contains(&0) {
            return Err(TaskError::about(
                "cannot use",
                &path,
                "a pixel of a profile must not be 0",
            ));
        }
        Ok(profile)
    };
    image
        .acquisition
        .channels
        .iter()
        .map(|channel| read(profile_file(folder, &channel.id)))
        .collect()
}
