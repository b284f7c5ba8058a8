//! The task "Convert images": the pixels of one image, from its files to arrays with a pyramid.

use super::Given;
use crate::image::{Acquisition, ImageWriter, PlaneFile, Storage, read_acquisition};
use crate::name::Component;
use crate::replace::{recover, replace_folder};
use crate::source::{self, ImageFile};
use fractal_task::{TaskError, check_range};
use ome_zarr::ngff;
use ome_zarr::pixel::{AnyPlane, PixelType};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

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
    let storage = args.storage()?;
    let folder = Component::parse_image(&given.component)?.folder(&given.output_path);
    recover(&folder)?;
    let acquisition = Acquisition { correction: None, ..read_acquisition(&folder)? };
    convert(&folder, &acquisition, storage)
}

impl Args {
    /// How the arrays are stored.
    ///
    /// # Errors
    /// If an argument is out of range.
    pub(super) fn storage(&self) -> Result<Storage, TaskError> {
        check_range("num_levels", self.num_levels, 1..=10)?;
        check_range("chunk_size", self.chunk_size, 16..=4096)?;
        check_range("compression_level", self.compression_level, 0..=9)?;
        let Self { num_levels: n_levels, chunk_size, compression_level } = *self;
        Ok(Storage { n_levels, chunk_size, compression_level })
    }
}

/// Writes the image of an acquisition, whose files are read, in place of what its folder held.
///
/// # Errors
/// As [`convert_images`].
pub(super) fn convert(folder: &Path, acquisition: &Acquisition, storage: Storage) -> Result<Converted, TaskError> {
    replace_folder(folder, |part| write_image(part, acquisition, storage))
}

fn write_image(folder: &Path, acquisition: &Acquisition, storage: Storage) -> Result<Converted, TaskError> {
    let n_channels = acquisition.files.len();
    let n_planes = acquisition.files.first().map_or(0, Vec::len);
    let mut reader = Reader { acquisition, last: None };
    let mut first: Option<(ImageWriter, PixelType, (usize, usize), &Path)> = None;
    for (channel, files) in acquisition.files.iter().enumerate() {
        for (z, plane_file) in files.iter().enumerate() {
            let plane = reader.read(plane_file, channel)?;
            let (size, pixel_type, path) = (plane.size(), plane.pixel_type(), plane_file.file.as_path());
            let (writer, first_type, first_size, first_path) = match &mut first {
                Some(first) => first,
                none => {
                    let writer = ImageWriter::create(folder, pixel_type, (n_channels, n_planes), size, storage)?;
                    none.insert((writer, pixel_type, size, path))
                }
            };
            if size != *first_size {
                return Err(TaskError::new(format!(
                    "{} has {}x{} pixels, but {} has {}x{}: all planes of an image must have one size, replace the wrong file",
                    path.display(),
                    size.0,
                    size.1,
                    first_path.display(),
                    first_size.0,
                    first_size.1,
                )));
            }
            if pixel_type != *first_type {
                return Err(TaskError::new(format!(
                    "{} has pixels of the type {}, but {} of the type {}: all planes of an image must have one type, save \
                     them with the same number of bits",
                    path.display(),
                    pixel_type.name(),
                    first_path.display(),
                    first_type.name(),
                )));
            }
            writer.write_plane(channel, z, plane)?;
        }
    }
    let Some((writer, _, (width, height), _)) = first else {
        return Err(TaskError::new("the image has no files; run \"Create OME-Zarr plate\" again"));
    };
    let intensity_range = writer.finish(acquisition)?.iter().map(|range| range.map(ngff::number)).collect();
    Ok(Converted { shape: [n_channels, n_planes, height, width], intensity_range })
}

/// Reads planes. The last file stays open, since several planes may be in it.
struct Reader<'a> {
    acquisition: &'a Acquisition,
    last: Option<(PathBuf, ImageFile)>,
}

impl Reader<'_> {
    fn read(&mut self, plane: &PlaneFile, channel: usize) -> Result<AnyPlane, TaskError> {
        if self.last.as_ref().is_none_or(|(path, _)| *path != plane.file) {
            let file = self.open(&plane.file, channel)?;
            self.last = Some((plane.file.clone(), file));
        }
        match &mut self.last {
            Some((_, file)) => file.read(plane.position),
            None => Err(TaskError::about("cannot open", &plane.file, "it is not open")),
        }
    }

    /// Opens a file; one that is missing is named with its image.
    fn open(&self, path: &Path, channel: usize) -> Result<ImageFile, TaskError> {
        match path.try_exists() {
            Ok(false) => Err(TaskError::new(format!(
                "field {} of well {}, channel {}: there is no {}; add the file",
                self.acquisition.field,
                self.acquisition.well,
                self.acquisition.channels[channel].id,
                path.display()
            ))),
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(TaskError::about("cannot look for", path, err)),
            _ => source::open(path),
        }
    }
}
