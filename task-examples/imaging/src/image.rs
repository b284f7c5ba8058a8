//! OME-NGFF images on disk, axes c, z, y, x, and the labels of their regions.

use crate::about;
use crate::contents::Contents;
use crate::mosaic::Part;
use crate::name::{Number, Well};
use crate::source::Position;
use crate::{foreign, stored};
use fractal_task::TaskError;
use ome_zarr::each_plane;
use ome_zarr::group::{self, Format, object};
use ome_zarr::ngff::{self, Downscaling};
use ome_zarr::pixel::{AnyPlane, Pixel, PixelType};
use ome_zarr::plane::Plane;
use ome_zarr::pyramid;
use ome_zarr::zarr::{Array, ArrayWriter, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
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
    /// By which Fractal's tasks find it; the id if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wavelength_id: Option<String>,
}

/// Where a field is in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The field.
    pub field: Number,
    /// Left column.
    pub x: usize,
    /// Upper row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Where the stage was in micrometers, x and y.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_um: Option<[f64; 2]>,
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
    /// The acquisition of the plate that it belongs to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub acquisition: usize,
    /// Width and height of a pixel in micrometers.
    pub pixel_size_um: f64,
    /// Distance of two Z planes in micrometers.
    pub z_step_um: f64,
    /// The channels, in the order of axis c.
    pub channels: Vec<Channel>,
    /// What each file should contain; `None` if no file could be opened when the plate was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The files of each channel, in the order of axis z.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Vec<PlaneFile>>,
    /// The fields that the conversion puts into one image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mosaic: Vec<Part>,
    /// The fields of an image that has several. Without any, the whole image is the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Place>,
    /// Where the stage was in micrometers, x and y, for an image of one field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_um: Option<[f64; 2]>,
    /// Conditions of the well: names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<(String, String)>,
    /// How the illumination was corrected, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
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
    /// The fields of the image, which has this width and height.
    pub fn fields_of(&self, (width, height): (usize, usize)) -> Vec<Place> {
        if self.fields.is_empty() {
            let (field, stage_um) = (self.field.clone(), self.stage_um);
            return vec![Place {
                field,
                x: 0,
                y: 0,
                width,
                height,
                stage_um,
            }];
        }
        self.fields.clone()
    }

    /// The place on axis c of the channel with this id or label.
    ///
    /// # Errors
    /// If there is none.
    pub fn find_channel(&self, name: &str) -> Result<usize, TaskError> {
        let place = self
            .channels
            .iter()
            .position(|channel| channel.id == name || channel.label == name);
        place.ok_or_else(|| {
            let names: Vec<&str> = self
                .channels
                .iter()
                .map(|channel| channel.id.as_str())
                .collect();
            TaskError::new(format!(
                "channel {name:?} is not in the image, which has {}",
                names.join(", ")
            ))
        })
    }
}

/// Writes the attributes of an image that has no pixels yet.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_empty(
    folder: &Path,
    format: Format,
    acquisition: &Acquisition,
) -> Result<(), TaskError> {
    group::write(
        folder,
        format,
        Map::new(),
        object(json!({"imaging": acquisition})),
    )
}

/// Reads what an image is, whether it has pixels or not. That of an image of other programs is
/// found from its metadata.
///
/// # Errors
/// If its attributes do not exist or do not fit.
pub fn read_acquisition(folder: &Path) -> Result<Acquisition, TaskError> {
    take_acquisition(folder, &mut group::read_attributes(folder)?)
}

fn take_acquisition(
    folder: &Path,
    attributes: &mut Map<String, Value>,
) -> Result<Acquisition, TaskError> {
    match attributes.remove("imaging") {
        None if attributes.contains_key("multiscales") => {
            foreign::read_acquisition(folder, attributes)
        }
        own => serde_json::from_value(own.unwrap_or_default()).map_err(|err| {
            TaskError::about(
                "cannot use the attributes of",
                folder,
                format!("imaging: {err}; make the plate again"),
            )
        }),
    }
}

/// How arrays are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Version of OME-NGFF.
    pub format: Format,
    /// Levels of the pyramid, the full-size one included.
    pub n_levels: usize,
    /// The largest width and height of a chunk.
    pub chunk_size: usize,
    /// Level of zlib in version 0.4 and of gzip in 0.5, from 0 (none) to 9. `None` for Blosc with
    /// LZ4 in version 0.4, as Fractal's tasks write it, and level 1 in 0.5.
    pub compression_level: Option<u32>,
}

/// An image that has pixels.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub acquisition: Acquisition,
    folder: PathBuf,
    format: Format,
    /// True if another program wrote it.
    is_foreign: bool,
    levels: Vec<Array>,
}

impl Image {
    /// Opens an image.
    ///
    /// # Errors
    /// If it has no pixels yet, or is damaged.
    pub fn open(folder: &Path) -> Result<Self, TaskError> {
        let mut attributes = group::read_attributes(folder)?;
        let is_foreign = !attributes.contains_key("imaging");
        let Some(paths) = foreign::level_paths(&attributes) else {
            return Err(TaskError::about(
                "cannot use",
                folder,
                "the image has no pixels yet; run \"Convert images\" first",
            ));
        };
        let acquisition = take_acquisition(folder, &mut attributes)?;
        let levels = paths
            .iter()
            .map(|path| Array::open(folder.join(path)))
            .collect::<Result<Vec<_>, _>>()?;
        let image = Self {
            acquisition,
            folder: folder.to_owned(),
            format: Format::of(folder),
            is_foreign,
            levels,
        };
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
                format!(
                    "its arrays do not have the axes c, z, y, x with {n_channels} channels and one type of pixels"
                ),
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

    /// Width and height of its fields.
    ///
    /// # Errors
    /// If they differ.
    pub fn field_size(&self) -> Result<(usize, usize), TaskError> {
        let fields = self.acquisition.fields_of(self.levels[0].size());
        let sizes: Vec<(usize, usize)> = fields
            .iter()
            .map(|field| (field.width, field.height))
            .collect();
        if let Some(other) = sizes.iter().position(|size| *size != sizes[0]) {
            let (one, other) = (&fields[0].field, &fields[other].field);
            let cause = format!(
                "its fields {one} and {other} have different sizes, so one illumination does not fit both"
            );
            return Err(TaskError::about("cannot use", &self.folder, cause));
        }
        Ok(sizes[0])
    }

    /// How it is stored.
    pub fn storage(&self) -> Storage {
        let (width, height) = self.levels[0].chunk_size();
        Storage {
            format: self.format,
            n_levels: self.levels.len(),
            chunk_size: width.max(height),
            compression_level: self.levels[0].compression_level(),
        }
    }

    /// Reads one plane of one level.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read_plane(
        &self,
        level: usize,
        channel: usize,
        z: usize,
    ) -> Result<AnyPlane, TaskError> {
        self.levels[level].read_any(&[channel, z])
    }

    /// Reads the only plane of a channel of level 0.
    ///
    /// # Errors
    /// If there are several, or it cannot be read.
    pub fn read_projection(&self, channel: usize) -> Result<AnyPlane, TaskError> {
        if self.n_planes() != 1 {
            let cause = format!(
                "it has {} Z planes; run \"Project maximum intensity\" first",
                self.n_planes()
            );
            return Err(TaskError::about("cannot use", &self.folder, cause));
        }
        self.read_plane(0, channel, 0)
    }
}

/// Writes an image plane by plane, all levels of a plane at once.
pub struct ImageWriter {
    folder: PathBuf,
    pixel_type: PixelType,
    storage: Storage,
    levels: Vec<ArrayWriter>,
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
        let levels = create_levels(
            folder,
            pixel_type,
            "czyx",
            &[n_channels, n_planes],
            size,
            storage,
        )?;
        let windows = vec![[f64::INFINITY, f64::NEG_INFINITY]; n_channels];
        Ok(Self {
            folder: folder.to_owned(),
            pixel_type,
            storage,
            levels,
            windows,
        })
    }

    /// Writes one plane.
    ///
    /// # Errors
    /// If a file cannot be written, or the image has pixels of another type.
    pub fn write_plane(
        &mut self,
        channel: usize,
        z: usize,
        plane: AnyPlane,
    ) -> Result<(), TaskError> {
        let ([min, max], window) = (plane.range(), &mut self.windows[channel]);
        *window = [window[0].min(min), window[1].max(max)];
        each_plane!(plane, plane => write_levels(&mut self.levels, &[channel, z], plane, pyramid::halve))
    }

    /// Writes the metadata and the tables of the fields, after the last plane.
    ///
    /// Returns the smallest and the largest value of each channel.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(self, acquisition: &Acquisition) -> Result<Vec<[f64; 2]>, TaskError> {
        let (folder, format) = (self.folder.clone(), self.storage.format);
        let (windows, extent) = self.finish_metadata(acquisition)?;
        stored::write_regions(&folder, format, acquisition, extent)?;
        Ok(windows)
    }

    fn finish_metadata(
        self,
        acquisition: &Acquisition,
    ) -> Result<(Vec<[f64; 2]>, stored::Extent), TaskError> {
        let Self {
            folder,
            pixel_type,
            storage,
            levels,
            windows,
        } = self;
        let Acquisition {
            plate,
            well,
            field,
            pixel_size_um,
            z_step_um,
            channels,
            ..
        } = acquisition;
        let name = format!("{plate}_{well}_{field}");
        let channels: Vec<ngff::Channel> = channels
            .iter()
            .zip(&windows)
            .map(
                |(
                    Channel {
                        id,
                        label,
                        color,
                        wavelength_id,
                    },
                    &window,
                )| ngff::Channel {
                    label: label.clone(),
                    wavelength_id: Some(wavelength_id.as_ref().unwrap_or(id).clone()),
                    color: color.clone(),
                    pixel_type,
                    window,
                },
            )
            .collect();
        let scale = [1.0, *z_step_um, *pixel_size_um, *pixel_size_um];
        let ome = json!({
            "multiscales": [ngff::multiscales(&name, "czyx", &scale, levels.len(), Downscaling::Mean)],
            "omero": ngff::omero(&name, &channels),
        });
        let extent = finish_levels(levels)?;
        group::write(
            &folder,
            storage.format,
            object(ome),
            object(json!({"imaging": acquisition})),
        )?;
        Ok((windows, extent))
    }

    /// Writes the metadata after the last plane of an image that takes the place of another version
    /// of itself, whose labels and other tables stay. An image of another program keeps all of its
    /// metadata.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn finish_in_place(self, old: &Image, acquisition: &Acquisition) -> Result<(), TaskError> {
        let (folder, format) = (self.folder.clone(), self.storage.format);
        if old.is_foreign {
            finish_levels(self.levels)?;
            group::write_like(&old.folder, &folder, "imaging", json!(acquisition))?;
        } else if stored::has_only_regions(&old.folder)? {
            // These tables are written anew if this call ends before the new image is in place.
            let (from, to) = (old.folder.join("tables"), folder.join("tables"));
            self.finish_metadata(acquisition)?;
            fs::rename(&from, &to).map_err(about("cannot move", &from))?;
        } else {
            self.finish(acquisition)?;
        }
        stored::copy_others(&old.folder, &folder, format)?;
        let labels = old.folder.join("labels");
        if group::exists(&labels) {
            stored::copy_folder(&labels, &folder.join("labels"))
        } else {
            Ok(())
        }
    }
}

/// Ends the arrays. Returns width, height and number of Z planes of the first.
fn finish_levels(levels: Vec<ArrayWriter>) -> Result<stored::Extent, TaskError> {
    let extent = levels.first().map_or((0, 0, 0), |level| {
        let (width, height) = level.array().size();
        (
            width,
            height,
            level.array().outer().last().copied().unwrap_or(1),
        )
    });
    levels.into_iter().try_for_each(ArrayWriter::finish)?;
    Ok(extent)
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
        let mut levels = create_levels(
            folder,
            PixelType::U32,
            "zyx",
            &[1],
            (plane.width, plane.height),
            storage,
        )?;
        write_levels(&mut levels, &[0], plane, pyramid::take_every_second)?;
        let scale = [
            acquisition.z_step_um,
            acquisition.pixel_size_um,
            acquisition.pixel_size_um,
        ];
        let ome = json!({
            "multiscales": [ngff::multiscales(name, "zyx", &scale, levels.len(), Downscaling::Nearest)],
            "image-label": {"source": {"image": "../../"}},
        });
        finish_levels(levels)?;
        group::write(
            folder,
            storage.format,
            object(ome),
            object(json!({"imaging": about})),
        )
    }

    /// Adds a name to the list of an image's labels.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub fn add_to_list(image: &Path, format: Format, name: &str) -> Result<(), TaskError> {
        let folder = image.join("labels");
        let mut names: Vec<String> = Vec::new();
        if group::exists(&folder) {
            let list = group::read_attributes(&folder)?
                .remove("labels")
                .unwrap_or_else(|| json!([]));
            names = serde_json::from_value(list)
                .map_err(super::about("cannot use the list of labels in", &folder))?;
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        group::write(
            &folder,
            format,
            object(json!({"labels": names})),
            Map::new(),
        )
    }

    /// Reads one level of labels.
    ///
    /// # Errors
    /// If they are not there or damaged.
    pub fn read(image: &Path, name: &str, level: usize) -> Result<Plane<u32>, TaskError> {
        let folder = folder(image, name);
        if !group::exists(&folder) {
            return Err(TaskError::about(
                "cannot use",
                &folder,
                "the labels are not there; run \"Segment nuclei\" first",
            ));
        }
        Array::open(folder.join(level.to_string()))?.read_plane(&[0])
    }
}

/// * `axes`: a letter for each axis.
/// * `outer`: sizes of the axes before height and width.
fn create_levels(
    folder: &Path,
    pixel_type: PixelType,
    axes: &str,
    outer: &[usize],
    size: (usize, usize),
    storage: Storage,
) -> Result<Vec<ArrayWriter>, TaskError> {
    let Storage {
        format,
        n_levels,
        chunk_size,
        compression_level,
    } = storage;
    let options = Options {
        format,
        axes,
        chunk_size,
        compression_level,
    };
    std::iter::successors(Some(size), |size| Some(pyramid::half_size(*size)))
        .take(n_levels)
        .enumerate()
        .map(|(level, size)| {
            ArrayWriter::create(
                folder.join(level.to_string()),
                pixel_type,
                outer,
                size,
                options,
            )
        })
        .collect()
}

fn write_levels<T: Pixel>(
    levels: &mut [ArrayWriter],
    index: &[usize],
    mut plane: Plane<T>,
    halve: impl Fn(&Plane<T>) -> Plane<T>,
) -> Result<(), TaskError> {
    for (level, array) in levels.iter_mut().enumerate() {
        if level > 0 {
            plane = halve(&plane);
        }
        array.write_plane(index, &plane)?;
    }
    Ok(())
}
