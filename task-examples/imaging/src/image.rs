//! OME-NGFF 0.4 images on disk, axes c, z, y, x, and the labels of their regions.

use crate::about;
use crate::name::{Number, Well};
use crate::source::Position;
use fractal_task::TaskError;
use ome_zarr::each_plane;
use ome_zarr::ngff::{self, Downscaling};
use ome_zarr::pixel::{AnyPlane, Pixel, PixelType};
use ome_zarr::plane::Plane;
use ome_zarr::pyramid;
use ome_zarr::zarr::{self, Array};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A channel of an acquisition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// As the file names have it: `C01`.
    pub id: String,
    /// For people.
    pub label: String,
    /// Six hexadecimal digits: red, green, blue.
    pub color: String,
}

/// What an image is, beside its pixels: the key `imaging` of its attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acquisition {
    /// The plate of the image files.
    pub plate: String,
    /// Its well.
    pub well: Well,
    /// Its field.
    pub field: Number,
    /// Width and height of a pixel in micrometers.
    pub pixel_size_um: f64,
    /// Distance of two Z planes in micrometers.
    pub z_step_um: f64,
    /// The channels, in the order of axis c.
    pub channels: Vec<Channel>,
    /// The files of each channel, in the order of axis z.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Vec<PlaneFile>>,
    /// Conditions of the well: names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<(String, String)>,
    /// How the illumination was corrected, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
}

/// Where the pixels of a plane are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaneFile {
    /// The file.
    pub file: PathBuf,
    /// Position in a file with several planes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// How the illumination of an image was corrected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// What was taken off each pixel.
    pub background: u16,
    /// A checksum of the profile of each channel.
    pub profiles: Vec<u32>,
}

impl Acquisition {
    /// The place on axis c of the channel with this id or label.
    ///
    /// # Errors
    /// If there is none.
    pub fn find_channel(&self, name: &str) -> Result<usize, TaskError> {
        let place = self.channels.iter().position(|channel| channel.id == name || channel.label == name);
        place.ok_or_else(|| {
            let names: Vec<&str> = self.channels.iter().map(|channel| channel.id.as_str()).collect();
            TaskError::new(format!("channel {name:?} is not in the image, which has {}", names.join(", ")))
        })
    }
}

/// Writes the attributes of an image that has no pixels yet.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_empty(folder: &Path, acquisition: &Acquisition) -> Result<(), TaskError> {
    zarr::create_group(folder)?;
    zarr::write_attributes(folder, &json!({"imaging": acquisition}))
}

/// Reads what an image is, whether it has pixels or not.
///
/// # Errors
/// If its attributes are not there, or are not those of these tasks.
pub fn read_acquisition(folder: &Path) -> Result<Acquisition, TaskError> {
    take_acquisition(folder, &mut zarr::read_attributes(folder)?)
}

fn take_acquisition(folder: &Path, attributes: &mut Value) -> Result<Acquisition, TaskError> {
    serde_json::from_value(attributes["imaging"].take()).map_err(|err| {
        TaskError::about("cannot use the attributes of", folder, format!("imaging: {err}; make the plate again"))
    })
}

/// How arrays are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Levels of the pyramid, the full-size one included.
    pub n_levels: usize,
    /// The largest width and height of a chunk.
    pub chunk_size: usize,
    /// 0 to 9 of zlib.
    pub compression_level: u32,
}

/// An image that has pixels.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub acquisition: Acquisition,
    folder: PathBuf,
    levels: Vec<Array>,
}

impl Image {
    /// Opens an image.
    ///
    /// # Errors
    /// If it has no pixels yet, or is damaged.
    pub fn open(folder: &Path) -> Result<Self, TaskError> {
        let mut attributes: Value = zarr::read_attributes(folder)?;
        let acquisition = take_acquisition(folder, &mut attributes)?;
        let Some(datasets) = attributes["multiscales"][0]["datasets"].as_array() else {
            return Err(TaskError::about(
                "cannot use",
                folder,
                "the image has no pixels yet; run \"Convert images\" first",
            ));
        };
        let levels = (0..datasets.len())
            .map(|level| Array::open(folder.join(level.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let image = Self { acquisition, folder: folder.to_owned(), levels };
        let n_channels = image.acquisition.channels.len();
        let fits = |level: &Array| {
            level.outer().len() == 2
                && level.outer()[0] == n_channels
                && level.pixel_type() == image.levels[0].pixel_type()
        };
        if image.levels.is_empty() || !image.levels.iter().all(fits) {
            return Err(TaskError::about(
                "cannot use",
                folder,
                format!("its arrays do not have the axes c, z, y, x with {n_channels} channels and one type of pixels"),
            ));
        }
        Ok(image)
    }

    /// The type of the pixels.
    pub fn pixel_type(&self) -> PixelType {
        self.levels[0].pixel_type()
    }

    /// The number of Z planes.
    pub fn n_planes(&self) -> usize {
        self.levels[0].outer()[1]
    }

    /// The number of channels.
    pub fn n_channels(&self) -> usize {
        self.acquisition.channels.len()
    }

    /// Width and height of each level.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.levels.iter().map(Array::size)
    }

    /// How it is stored.
    pub fn storage(&self) -> Storage {
        let (width, height) = self.levels[0].chunk_size();
        Storage {
            n_levels: self.levels.len(),
            chunk_size: width.max(height),
            compression_level: self.levels[0].compression_level(),
        }
    }

    /// Reads one plane of one level.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read_plane(&self, level: usize, channel: usize, z: usize) -> Result<AnyPlane, TaskError> {
        self.levels[level].read_any(&[channel, z])
    }

    /// Reads the only plane of a channel of level 0.
    ///
    /// # Errors
    /// If there are several, or it cannot be read.
    pub fn read_projection(&self, channel: usize) -> Result<AnyPlane, TaskError> {
        if self.n_planes() != 1 {
            let cause = format!("it has {} Z planes; run \"Project maximum intensity\" first", self.n_planes());
            return Err(TaskError::about("cannot use", &self.folder, cause));
        }
        self.read_plane(0, channel, 0)
    }
}

/// Writes an image plane by plane, all levels of a plane at once.
pub struct ImageWriter {
    folder: PathBuf,
    pixel_type: PixelType,
    levels: Vec<Array>,
    /// The smallest and the largest value of each channel.
    windows: Vec<[f64; 2]>,
}

impl ImageWriter {
    /// Makes the group and its arrays.
    ///
    /// * `pixel_type`: type of the pixels of all planes.
    /// * `size`: width and height.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(
        folder: &Path,
        pixel_type: PixelType,
        (n_channels, n_planes): (usize, usize),
        size: (usize, usize),
        storage: Storage,
    ) -> Result<Self, TaskError> {
        zarr::create_group(folder)?;
        let levels = create_levels(folder, pixel_type, &[n_channels, n_planes], size, storage)?;
        let windows = vec![[f64::INFINITY, f64::NEG_INFINITY]; n_channels];
        Ok(Self { folder: folder.to_owned(), pixel_type, levels, windows })
    }

    /// Writes one plane.
    ///
    /// # Errors
    /// If a file cannot be written, or the image has pixels of another type.
    pub fn write_plane(&mut self, channel: usize, z: usize, plane: AnyPlane) -> Result<(), TaskError> {
        let ([min, max], window) = (plane.range(), &mut self.windows[channel]);
        *window = [window[0].min(min), window[1].max(max)];
        each_plane!(plane, plane => write_levels(&self.levels, &[channel, z], plane, pyramid::halve))
    }

    /// Writes the metadata, after the last plane.
    ///
    /// Returns the smallest and the largest value of each channel.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self, acquisition: &Acquisition) -> Result<Vec<[f64; 2]>, TaskError> {
        let Acquisition { plate, well, field, pixel_size_um, z_step_um, channels, .. } = acquisition;
        let name = format!("{plate}_{well}_{field}");
        let channels: Vec<ngff::Channel> = channels
            .iter()
            .zip(&self.windows)
            .map(|(Channel { label, color, .. }, &window)| ngff::Channel {
                label: label.clone(),
                color: color.clone(),
                pixel_type: self.pixel_type,
                window,
            })
            .collect();
        let scale = [1.0, *z_step_um, *pixel_size_um, *pixel_size_um];
        let attributes = json!({
            "multiscales": [ngff::multiscales(&name, "czyx", &scale, self.levels.len(), Downscaling::Mean)],
            "omero": ngff::omero(&name, &channels),
            "imaging": acquisition,
        });
        zarr::write_attributes(&self.folder, &attributes)?;
        Ok(self.windows)
    }
}

/// Labels of an image of one plane, as OME-NGFF has them: number 0 is background.
pub mod labels {
    use super::*;

    /// The folder of the labels with this name, below an image.
    pub fn folder(image: &Path, name: &str) -> PathBuf {
        image.join("labels").join(name)
    }

    /// Writes labels and their pyramid into an empty folder that becomes [`folder`].
    ///
    /// * `about`: how they were made, for the key `imaging` of their attributes.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(
        folder: &Path,
        name: &str,
        plane: Plane<u32>,
        acquisition: &Acquisition,
        storage: Storage,
        about: &impl Serialize,
    ) -> Result<(), TaskError> {
        zarr::create_group(folder)?;
        let levels = create_levels(folder, PixelType::U32, &[1], (plane.width, plane.height), storage)?;
        write_levels(&levels, &[0], plane, pyramid::take_every_second)?;
        let scale = [acquisition.z_step_um, acquisition.pixel_size_um, acquisition.pixel_size_um];
        let attributes = json!({
            "multiscales": [ngff::multiscales(name, "zyx", &scale, levels.len(), Downscaling::Nearest)],
            "image-label": {"version": "0.4", "source": {"image": "../../"}},
            "imaging": about,
        });
        zarr::write_attributes(folder, &attributes)
    }

    /// Adds a name to the list of an image's labels.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub fn add_to_list(image: &Path, name: &str) -> Result<(), TaskError> {
        let group = image.join("labels");
        let mut names: Vec<String> = Vec::new();
        if group.join(".zattrs").is_file() {
            let mut attributes: Value = zarr::read_attributes(&group)?;
            names = serde_json::from_value(attributes["labels"].take())
                .map_err(super::about("cannot use the list of labels in", &group))?;
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        zarr::create_group(&group)?;
        zarr::write_attributes(&group, &json!({"labels": names}))
    }

    /// Reads one level of labels.
    ///
    /// # Errors
    /// If they are not there or damaged.
    pub fn read(image: &Path, name: &str, level: usize) -> Result<Plane<u32>, TaskError> {
        let folder = folder(image, name);
        if !zarr::is_group(&folder) {
            return Err(TaskError::about(
                "cannot use",
                &folder,
                "the labels are not there; run \"Segment nuclei\" first",
            ));
        }
        Array::open(folder.join(level.to_string()))?.read_plane(&[0])
    }
}

fn create_levels(
    folder: &Path,
    pixel_type: PixelType,
    outer: &[usize],
    size: (usize, usize),
    storage: Storage,
) -> Result<Vec<Array>, TaskError> {
    let Storage { n_levels, chunk_size, compression_level } = storage;
    std::iter::successors(Some(size), |size| Some(pyramid::half_size(*size)))
        .take(n_levels)
        .enumerate()
        .map(|(level, size)| {
            let folder = folder.join(level.to_string());
            Array::create(folder, pixel_type, outer, size, chunk_size, compression_level)
        })
        .collect()
}

fn write_levels<T: Pixel>(
    levels: &[Array],
    index: &[usize],
    mut plane: Plane<T>,
    halve: impl Fn(&Plane<T>) -> Plane<T>,
) -> Result<(), TaskError> {
    for (level, array) in levels.iter().enumerate() {
        if level > 0 {
            plane = halve(&plane);
        }
        array.write_plane(index, &plane)?;
    }
    Ok(())
}
