//! The task "Convert images": the pixels of one image, from its files to arrays with a pyramid.

use super::Given;
use crate::image::{Acquisition, ImageWriter, Storage, read_acquisition};
use crate::mosaic::{self, Location, Part};
use crate::name::{Component, Number};
use crate::replace::{recover, replace_folder};
use fractal_task::{TaskError, check_range};
use ome_zarr::group::Format;
use ome_zarr::ngff;
use ome_zarr::pixel::{AnyPlane, PixelType};
use ome_zarr::plane;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::Path;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_num_levels")]
    num_levels: usize,
    #[serde(default = "default_chunk_size")]
    chunk_size: usize,
    #[serde(default = "default_compression_level")]
    compression_level: u32,
}

pub(super) fn default_num_levels() -> usize {
    5
}

pub(super) fn default_chunk_size() -> usize {
    512
}

pub(super) fn default_compression_level() -> u32 {
    1
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Converted {
    /// Channels, Z planes, rows and columns.
    pub(super) shape: [usize; 4],
    /// The smallest and the largest value of each channel.
    intensity_range: Vec<[Value; 2]>,
}

/// Converts one image.
///
/// # Errors
/// If an argument is out of range, a file is missing, damaged, of another type or of another size than the first one, or a
/// file cannot be written. The image is then as it was.
pub fn convert_images(given: &Given, args: Args) -> Result<Converted, TaskError> {
    args.check()?;
    let folder = Component::parse_image(&given.component)?.folder(&given.output_path);
    recover(&folder)?;
    let storage = args.storage(Format::of(&folder));
    let acquisition = Acquisition { correction: None, ..read_acquisition(&folder)? };
    convert(&folder, &acquisition, storage)
}

impl Args {
    /// Refuses arguments that are out of range.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        check_range("num_levels", self.num_levels, 1..=10)?;
        check_range("chunk_size", self.chunk_size, 16..=4096)?;
        check_range("compression_level", self.compression_level, 0..=9)
    }

    /// How the arrays are stored.
    ///
    /// * `format`: that of the plate.
    pub(super) fn storage(&self, format: Format) -> Storage {
        let Self { num_levels: n_levels, chunk_size, compression_level } = *self;
        Storage { format, n_levels, chunk_size, compression_level }
    }
}

/// Writes the image of an acquisition, whose files are read, in place of what its folder held.
///
/// # Errors
/// As [`convert_images`].
pub(super) fn convert(folder: &Path, acquisition: &Acquisition, storage: Storage) -> Result<Converted, TaskError> {
    replace_folder(folder, |part| match acquisition.mosaic.as_slice() {
        [] => write_image(part, acquisition, storage),
        mosaic => write_mosaic(part, acquisition, mosaic, storage),
    })
}

/// Writes an image of several fields. In memory are one plane of it and one of a field.
fn write_mosaic(
    folder: &Path,
    acquisition: &Acquisition,
    mosaic: &[Part],
    storage: Storage,
) -> Result<Converted, TaskError> {
    let none = || TaskError::new("the image has no files; run \"Create OME-Zarr plate\" again");
    let n_channels = acquisition.channels.len();
    let n_planes = mosaic[0].files.first().map_or(0, Vec::len);
    let first = mosaic[0].files.first().and_then(|files| files.first()).ok_or_else(none)?;
    let (size, pixel_type) = {
        let plane = open(first, acquisition, &mosaic[0].field, 0)?;
        ((plane.width, plane.height), PixelType::U16)
    };
    let located: Vec<(Number, Location)> = mosaic.iter().map(|part| (part.field.clone(), part.location)).collect();
    let (places, whole) = mosaic::arrange(&located, size, acquisition.pixel_size_um, pixel_type)
        .map_err(|err| TaskError::new(format!("well {}: {err}", acquisition.well)))?;
    let mut writer = ImageWriter::create(folder, pixel_type, (n_channels, n_planes), whole, storage)?;
    for channel in 0..n_channels {
        for z in 0..n_planes {
            let mut plane = mosaic::empty(pixel_type, whole);
            for (part, place) in mosaic.iter().zip(&places) {
                let path = part.files.get(channel).and_then(|files| files.get(z)).ok_or_else(none)?;
                let field = AnyPlane::U16(open(path, acquisition, &part.field, channel)?.read()?);
                if field.size() != size || !mosaic::paste(&mut plane, &field, (place.x, place.y)) {
                    return Err(other_size(path, field.size(), first, size));
                }
            }
            writer.write_plane(channel, z, plane)?;
        }
    }
    let acquisition = Acquisition { fields: places, ..acquisition.clone() };
    let intensity_range = writer.finish(&acquisition)?.iter().map(|range| range.map(ngff::number)).collect();
    Ok(Converted { shape: [n_channels, n_planes, whole.1, whole.0], intensity_range })
}

fn other_size(path: &Path, size: (usize, usize), first: &Path, first_size: (usize, usize)) -> TaskError {
    TaskError::new(format!(
        "{} has {}x{} pixels, but {} has {}x{}: all planes of an image must have one size, replace the wrong file",
        path.display(),
        size.0,
        size.1,
        first.display(),
        first_size.0,
        first_size.1,
    ))
}

fn write_image(folder: &Path, acquisition: &Acquisition, storage: Storage) -> Result<Converted, TaskError> {
    let n_channels = acquisition.files.len();
    let n_planes = acquisition.files.first().map_or(0, Vec::len);
    let mut image: Option<(ImageWriter, (usize, usize), &Path)> = None;
    for (channel, files) in acquisition.files.iter().enumerate() {
        for (z, path) in files.iter().enumerate() {
            let plane = open(path, acquisition, &acquisition.field, channel)?;
            let size = (plane.width, plane.height);
            let (writer, first_size, first_path) = match &mut image {
                Some(image) => image,
                none => none.insert((
                    ImageWriter::create(folder, PixelType::U16, (n_channels, n_planes), size, storage)?,
                    size,
                    path,
                )),
            };
            if size != *first_size {
                return Err(other_size(path, size, first_path, *first_size));
            }
            writer.write_plane(channel, z, AnyPlane::U16(plane.read()?))?;
        }
    }
    let Some((writer, (width, height), _)) = image else {
        return Err(TaskError::new("the image has no files; run \"Create OME-Zarr plate\" again"));
    };
    let intensity_range = writer.finish(acquisition)?.iter().map(|range| range.map(ngff::number)).collect();
    Ok(Converted { shape: [n_channels, n_planes, height, width], intensity_range })
}

/// Opens a file; one that is missing is named with its image.
fn open(path: &Path, acquisition: &Acquisition, field: &Number, channel: usize) -> Result<plane::OpenPlane, TaskError> {
    match path.try_exists() {
        Ok(false) => Err(TaskError::new(format!(
            "field {} of well {}, channel {}: there is no {}; add the file",
            field,
            acquisition.well,
            acquisition.channels[channel].id,
            path.display()
        ))),
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(TaskError::about("cannot look for", path, err)),
        _ => plane::open(path),
    }
}
