//! The task "Convert images": the pixels of one image, from its files to arrays with a pyramid.

use super::Given;
use crate::image::{Acquisition, ImageWriter, PlaneFile, Storage, read_acquisition};
use crate::mosaic::{self, Location, Part};
use crate::name::{Component, Number};
use crate::replace::{recover, replace_folder};
use crate::source::{self, ImageFile, Stage};
use fractal_task::{TaskError, check_range};
use ome_zarr::group::Format;
use ome_zarr::ngff;
use ome_zarr::pixel::{AnyPlane, PixelType};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// An image of more fields than this reads each plane from a file that is opened for it.
const MAX_OPEN_FILES: usize = 32;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_num_levels")]
    num_levels: usize,
    #[serde(default = "default_chunk_size")]
    chunk_size: usize,
    #[serde(default)]
    compression_level: Option<u32>,
}

pub(super) fn default_num_levels() -> usize {
    5
}

pub(super) fn default_chunk_size() -> usize {
    512
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
/// If an argument is out of range, a file is missing, damaged, of another type or of another size
/// than the first one, or a file cannot be written. The image is then as it was.
pub fn convert_images(given: &Given, args: Args) -> Result<Converted, TaskError> {
    args.check()?;
    let folder = Component::parse_image(&given.component)?.folder(&given.output_path);
    recover(&folder)?;
    let storage = args.storage(Format::of(&folder));
    let acquisition = Acquisition {
        correction: None,
        ..read_acquisition(&folder)?
    };
    convert(&folder, &acquisition, storage)
}

impl Args {
    /// Refuses arguments that are out of range.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        check_range("num_levels", self.num_levels, 1..=10)?;
        check_range("chunk_size", self.chunk_size, 16..=4096)?;
        match self.compression_level {
            Some(level) => check_range("compression_level", level, 0..=9),
            None => Ok(()),
        }
    }

    /// How the arrays are stored.
    ///
    /// * `format`: that of the plate.
    pub(super) fn storage(&self, format: Format) -> Storage {
        let Self {
            num_levels: n_levels,
            chunk_size,
            compression_level,
        } = *self;
        Storage {
            format,
            n_levels,
            chunk_size,
            compression_level,
        }
    }
}

/// Writes the image of an acquisition, whose files are read, in place of what its folder held.
///
/// # Errors
/// As [`convert_images`].
pub(super) fn convert(
    folder: &Path,
    acquisition: &Acquisition,
    storage: Storage,
) -> Result<Converted, TaskError> {
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
    let file = |part: &'_ Part, channel: usize, z: usize| {
        let file = part
            .files
            .get(channel)
            .and_then(|files| files.get(z))
            .cloned();
        file.ok_or_else(|| {
            TaskError::new("the image has no files; run \"Create OME-Zarr plate\" again")
        })
    };
    let mut readers: Vec<Reader<'_>> = mosaic
        .iter()
        .map(|part| Reader {
            acquisition,
            field: &part.field,
            last: None,
        })
        .collect();
    let first_file = file(&mosaic[0], 0, 0)?.file;
    let first_plane = readers[0].read(&file(&mosaic[0], 0, 0)?, 0)?;
    let first = First {
        size: first_plane.size(),
        pixel_type: first_plane.pixel_type(),
        path: &first_file,
    };
    let mut located: Vec<(Number, Location)> = Vec::with_capacity(mosaic.len());
    for (part, reader) in mosaic.iter().zip(&mut readers) {
        let location = match part.location {
            Location::InFile => reader.locate(&file(part, 0, 0)?)?,
            location => location,
        };
        located.push((part.field.clone(), location));
    }
    let (places, whole) = mosaic::arrange(
        &located,
        first.size,
        acquisition.pixel_size_um,
        first.pixel_type,
    )
    .map_err(|err| TaskError::new(format!("well {}: {err}", acquisition.well)))?;
    let (n_channels, n_planes) = (
        acquisition.channels.len(),
        mosaic[0].files.first().map_or(0, Vec::len),
    );
    let mut writer = ImageWriter::create(
        folder,
        first.pixel_type,
        (n_channels, n_planes),
        whole,
        storage,
    )?;
    for channel in 0..n_channels {
        for z in 0..n_planes {
            let mut plane = mosaic::empty(first.pixel_type, whole);
            for ((part, place), reader) in mosaic.iter().zip(&places).zip(&mut readers) {
                let file = file(part, channel, z)?;
                let field = reader.read(&file, channel)?;
                first.check(&file.file, &field)?;
                // Places are inside of the image.
                let _ = mosaic::paste(&mut plane, &field, (place.x, place.y));
                if mosaic.len() > MAX_OPEN_FILES {
                    reader.last = None;
                }
            }
            writer.write_plane(channel, z, plane)?;
        }
    }
    let acquisition = Acquisition {
        fields: places,
        ..acquisition.clone()
    };
    let intensity_range = writer
        .finish(&acquisition)?
        .iter()
        .map(|range| range.map(ngff::number))
        .collect();
    Ok(Converted {
        shape: [n_channels, n_planes, whole.1, whole.0],
        intensity_range,
    })
}

/// What all planes of an image have in common.
struct First<'a> {
    size: (usize, usize),
    pixel_type: PixelType,
    path: &'a Path,
}

impl First<'_> {
    /// Refuses a plane that is not like the first one.
    fn check(&self, path: &Path, plane: &AnyPlane) -> Result<(), TaskError> {
        let (size, first) = (plane.size(), self.path.display());
        if size != self.size {
            return Err(TaskError::new(format!(
                "{} has {}x{} pixels, but {first} has {}x{}: all planes of an image must have one size, replace the wrong file",
                path.display(),
                size.0,
                size.1,
                self.size.0,
                self.size.1,
            )));
        }
        if plane.pixel_type() != self.pixel_type {
            return Err(TaskError::new(format!(
                "{} has pixels of the type {}, but {first} of the type {}: all planes of an image must have one type, save \
                 them with the same number of bits",
                path.display(),
                plane.pixel_type().name(),
                self.pixel_type.name(),
            )));
        }
        Ok(())
    }
}

fn write_image(
    folder: &Path,
    acquisition: &Acquisition,
    storage: Storage,
) -> Result<Converted, TaskError> {
    let n_channels = acquisition.files.len();
    let n_planes = acquisition.files.first().map_or(0, Vec::len);
    let mut reader = Reader {
        acquisition,
        field: &acquisition.field,
        last: None,
    };
    let mut image: Option<(ImageWriter, First<'_>)> = None;
    for (channel, files) in acquisition.files.iter().enumerate() {
        for (z, file) in files.iter().enumerate() {
            let plane = reader.read(file, channel)?;
            let (writer, first) = match &mut image {
                Some(image) => image,
                none => {
                    let first = First {
                        size: plane.size(),
                        pixel_type: plane.pixel_type(),
                        path: &file.file,
                    };
                    let shape = (n_channels, n_planes);
                    let writer =
                        ImageWriter::create(folder, first.pixel_type, shape, first.size, storage)?;
                    none.insert((writer, first))
                }
            };
            first.check(&file.file, &plane)?;
            writer.write_plane(channel, z, plane)?;
        }
    }
    let Some((
        writer,
        First {
            size: (width, height),
            ..
        },
    )) = image
    else {
        return Err(TaskError::new(
            "the image has no files; run \"Create OME-Zarr plate\" again",
        ));
    };
    let intensity_range = writer
        .finish(acquisition)?
        .iter()
        .map(|range| range.map(ngff::number))
        .collect();
    Ok(Converted {
        shape: [n_channels, n_planes, height, width],
        intensity_range,
    })
}

/// Reads planes. The last file stays open, since several planes may be in it.
struct Reader<'a> {
    acquisition: &'a Acquisition,
    field: &'a Number,
    last: Option<(PathBuf, ImageFile)>,
}

impl Reader<'_> {
    fn read(&mut self, plane: &PlaneFile, channel: usize) -> Result<AnyPlane, TaskError> {
        if self
            .last
            .as_ref()
            .is_none_or(|(path, _)| *path != plane.file)
        {
            let file = self.open(&plane.file, channel)?;
            self.last = Some((plane.file.clone(), file));
        }
        match &mut self.last {
            Some((_, file)) => file.read(plane.position),
            None => Err(TaskError::about(
                "cannot open",
                &plane.file,
                "it is not open",
            )),
        }
    }

    /// Reads the position of the stage.
    fn locate(&self, plane: &PlaneFile) -> Result<Location, TaskError> {
        match self.open(&plane.file, 0)?.stage(plane.position) {
            Some(Stage::Um(stage)) => Ok(Location::StageUm(stage)),
            _ => Err(TaskError::about(
                "cannot use",
                &plane.file,
                "it states no position of the stage, as the other fields of the well do; replace it, or name a table of \
                 positions in the argument `positions` of \"Create OME-Zarr plate\"",
            )),
        }
    }

    /// Opens a file; one that is missing is named with its image.
    fn open(&self, path: &Path, channel: usize) -> Result<ImageFile, TaskError> {
        match path.try_exists() {
            Ok(false) => Err(TaskError::new(format!(
                "field {} of well {}, channel {}: there is no {}; add the file",
                self.field,
                self.acquisition.well,
                self.acquisition.channels[channel].id,
                path.display()
            ))),
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                let cause =
                    format!("{err}; a link that leads out of the input folder cannot be followed");
                Err(TaskError::about("cannot look for", path, cause))
            }
            _ => {
                let file = source::open(path)?;
                if let Some(contents) = &self.acquisition.contents {
                    contents.check(path, &file)?;
                }
                Ok(file)
            }
        }
    }
}
