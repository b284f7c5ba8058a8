//! Image files of microscopes, TIFF and PNG: which planes a file has, and their pixels, as they are
//! stored.
//!
//! [`open`] reads what the header states, so that files can be refused before any pixel is read;
//! [`ImageFile::read`] reads one plane.

mod compression;
mod description;
mod jpeg;
mod micro_manager;
mod ome;
mod pixels;
mod png_image;
mod tiff;

use crate::about;
use fractal_task::TaskError;
use ome_zarr::pixel::{AnyPlane, PixelType};
use pixels::Form;
use png_image::{open_png, read_png};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tiff::{Tiff, tag};

/// The largest plane that is read, in bytes of pixels: more than 11,500 x 11,500 pixels of 16 bits.
const MAX_PLANE_BYTES: usize = 256 << 20;
/// Larger pixels are not those of a microscope: files state 72 dots an inch when nothing is known.
const MAX_PIXEL_SIZE_UM: f64 = 30.0;
const UM_PER_INCH: f64 = 25_400.0;

/// Position of a plane in a file with several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Image of the file.
    pub series: usize,
    /// Time point.
    pub time: usize,
    /// Z plane.
    pub z: usize,
    /// Channel.
    pub channel: usize,
}

/// Position of the stage that a file states for an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// x and y in micrometers.
    Um([f64; 2]),
    /// In a unit that is no length, such as OME-XML's reference frame.
    OtherUnit,
}

/// An image of a file: planes of one size and type.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Width and height.
    pub size: (usize, usize),
    /// Type of the pixels.
    pub pixel_type: PixelType,
    /// Names of the channels; empty texts for channels without one.
    pub channels: Vec<String>,
    /// Number of Z planes.
    pub n_z: usize,
    /// Number of time points.
    pub n_times: usize,
    /// True if the channels are the red, green and blue of one picture.
    pub is_color: bool,
    /// True if the file states which plane is what. Otherwise its pages are taken as Z planes.
    pub has_axes: bool,
    /// Width and height of a pixel in micrometers.
    pub pixel_size_um: Option<[f64; 2]>,
    /// Distance of two Z planes in micrometers.
    pub z_step_um: Option<f64>,
    /// Position of the stage.
    pub stage: Option<Stage>,
    /// True if other files have more Z planes of the image.
    pub has_z_elsewhere: bool,
    /// True if other files have more channels of the image.
    pub has_channels_elsewhere: bool,
    /// Time points, in each the Z planes, in each the channels.
    planes: Vec<Location>,
}

impl Series {
    /// Number of planes.
    pub fn n_planes(&self) -> usize {
        self.planes.len()
    }
}

/// Where the pixels of a plane are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Location {
    /// A sample of a page.
    Page(usize, usize),
    /// Behind the first page.
    Raw(usize),
    /// A sample of a PNG file.
    Png(usize),
}

/// An open image file, whose pixels may still be damaged.
pub struct ImageFile {
    path: PathBuf,
    tiff: Option<Box<Tiff>>,
    series: Vec<Series>,
    warnings: Vec<String>,
}

/// Opens an image file. The format is found from its first bytes, not from its name.
///
/// # Errors
/// If the file cannot be opened, is neither TIFF nor PNG, is damaged, or has pixels that are not
/// supported.
pub fn open(path: &Path) -> Result<ImageFile, TaskError> {
    if path.is_dir() {
        let cause = "it is a folder with the ending of an image; give it another name";
        return Err(TaskError::about("cannot read", path, cause));
    }
    let mut file = File::open(path).map_err(about("cannot open", path))?;
    let mut start = [0; 4];
    let n_start = file.read(&mut start).map_err(about("cannot read", path))?;
    if n_start == 0 {
        return Err(TaskError::about(
            "cannot read",
            path,
            "the file is empty; replace it",
        ));
    }
    file.seek(SeekFrom::Start(0))
        .map_err(about("cannot read", path))?;
    if start == *b"\x89PNG" {
        open_png(path, file)
    } else {
        open_tiff(path, file)
    }
}

impl ImageFile {
    /// The images of the file, at least one.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Position of the stage that the file states for a plane, or the file `metadata.txt` of
    /// Micro-Manager next to it.
    ///
    /// * `position`: as for [`Self::read`].
    pub fn stage(&self, position: Option<Position>) -> Option<Stage> {
        let series = self.series.get(position.unwrap_or_default().series)?;
        let beside = || micro_manager::stage_beside(&self.path).map(Stage::Um);
        match series.stage {
            Some(Stage::Um(stage)) => Some(Stage::Um(stage)),
            other => beside().or(other),
        }
    }

    /// What a user should know about the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads a plane.
    ///
    /// * `position`: `None` for the only plane of the file.
    ///
    /// # Errors
    /// If the file has no such plane, several planes and no position is given, or is damaged.
    pub fn read(&mut self, position: Option<Position>) -> Result<AnyPlane, TaskError> {
        let location = self.find(position)?;
        let plane = match (location, &mut self.tiff) {
            (Location::Page(page, sample), Some(tiff)) => pixels::read_page(tiff, page, sample)?,
            (Location::Raw(index), Some(tiff)) => pixels::read_raw(tiff, index)?,
            (Location::Png(sample), _) => read_png(&self.path, sample)?,
            (_, None) => return Err(damaged(&self.path, "it has no such plane")),
        };
        let series = &self.series[position.unwrap_or_default().series];
        if (plane.size(), plane.pixel_type()) != (series.size, series.pixel_type) {
            return Err(damaged(
                &self.path,
                "its planes have different sizes or types of pixels",
            ));
        }
        Ok(plane)
    }

    fn find(&self, position: Option<Position>) -> Result<Location, TaskError> {
        let Some(Position {
            series,
            time,
            z,
            channel,
        }) = position
        else {
            let first = &self.series[0];
            if first.is_color {
                let cause = "it is an RGB image; set the argument `rgb_channels` of \"Create OME-Zarr plate\" to true to take \
                             red, green and blue as three channels, or save it as a grey image";
                return Err(TaskError::about("cannot convert", &self.path, cause));
            }
            let [location] = first.planes[..] else {
                let cause = format!(
                    "it has {} planes, but one is expected, as in the other files of the plate; save it like the others",
                    first.planes.len()
                );
                return Err(TaskError::about("cannot convert", &self.path, cause));
            };
            return Ok(location);
        };
        let found = self.series.get(series).filter(|series| {
            time < series.n_times && z < series.n_z && channel < series.channels.len()
        });
        found.and_then(|found| found.planes.get((time * found.n_z + z) * found.channels.len() + channel)).copied().ok_or_else(
            || {
                let cause = format!(
                    "it has no plane for image {}, time point {}, z {}, channel {}, which other files of the plate have; \
                     replace it",
                    series + 1,
                    time + 1,
                    z + 1,
                    channel + 1
                );
                TaskError::about("cannot convert", &self.path, cause)
            },
        )
    }
}

fn open_tiff(path: &Path, file: File) -> Result<ImageFile, TaskError> {
    let mut tiff = Tiff::open(path, file)?;
    let mut text = tiff.text(0, tag::DESCRIPTION)?.unwrap_or_default();
    let file_name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let mut warnings = Vec::new();
    if let Some(name) = ome::metadata_file(&text) {
        match read_metadata_file(&path.with_file_name(&name)) {
            Some(other) => text = other,
            None => warnings.push(format!(
                "its OME-XML is in {name}, which cannot be read; its pages are taken as Z planes"
            )),
        }
    }
    let images =
        ome::read(&text, &file_name, tiff.n_pages()).map_err(|cause| tiff.damaged(cause))?;
    let mut description = description::read(&text);
    let n_planes = tiff.count(0, tag::METAMORPH_PLANES);
    if n_planes > 1 && tiff.n_pages() == 1 && description.shape.is_none() {
        // A stack of MetaMorph, whose planes follow each other.
        description.shape = Some([1, usize::try_from(n_planes).unwrap_or(usize::MAX), 1]);
        description.may_be_raw = true;
    }
    let mut series = Vec::new();
    for image in images.iter().flatten() {
        if image.n_missing > 0 {
            warnings.push(format!(
                "its OME-XML states {} more planes than it has; the others are taken",
                image.n_missing
            ));
        }
        series.push(ome_series(&mut tiff, image)?);
    }
    if series.is_empty() {
        if images.is_some() {
            warnings.push(
                "its OME-XML names other files only; its pages are taken as Z planes".to_owned(),
            );
        }
        series.push(page_series(&mut tiff, &description, &mut warnings)?);
    }
    for series in &mut series {
        let Some(Location::Page(page, _)) = series.planes.first().copied() else {
            continue;
        };
        if series.pixel_size_um.is_none() {
            series.pixel_size_um = resolution_um(&mut tiff, page, description.um_per_unit)?;
        }
        if !matches!(series.stage, Some(Stage::Um(_)))
            && let Some(text) = tiff.text(page, tag::MICRO_MANAGER)?
            && let Some(stage) = micro_manager::stage(&text)
        {
            series.stage = Some(Stage::Um(stage));
        }
    }
    let first = match series[0].planes.first() {
        Some(Location::Page(page, _)) => *page,
        _ => 0,
    };
    if let Some(orientation) = tiff.number(first, tag::ORIENTATION)?
        && orientation > 1
    {
        warnings.push(format!(
            "its orientation is {orientation}, which is ignored; rows and columns are kept as they are stored"
        ));
    }
    match tiff.number(first, tag::PHOTOMETRIC)? {
        Some(0) => warnings.push(
            "0 is white in it (MinIsWhite); its values are kept as they are stored".to_owned(),
        ),
        Some(3) => warnings.push(
            "it has a color table, which is left out; its values are kept as they are".to_owned(),
        ),
        _ => {}
    }
    Ok(ImageFile {
        path: path.to_owned(),
        tiff: Some(Box::new(tiff)),
        series,
        warnings,
    })
}

/// Reads OME-XML from a file that has it for others: a text, or an OME-TIFF file.
fn read_metadata_file(path: &Path) -> Option<String> {
    const MAX_BYTES: u64 = 64 << 20;
    let mut file = File::open(path).ok()?;
    let mut start = [0; 4];
    file.read_exact(&mut start).ok()?;
    file.seek(SeekFrom::Start(0)).ok()?;
    if matches!(&start[..2], b"II" | b"MM") {
        return Tiff::open(path, file)
            .ok()?
            .text(0, tag::DESCRIPTION)
            .ok()?;
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn ome_series(tiff: &mut Tiff, image: &ome::OmeImage) -> Result<Series, TaskError> {
    let axis = |axis: usize| {
        image
            .pages
            .keys()
            .map(|index| index[axis])
            .collect::<BTreeSet<usize>>()
    };
    let [times, zs, channels] = [0, 1, 2].map(axis);
    let first = image.pages.values().next().copied().unwrap_or(0);
    let form = Form::read(tiff, first)?;
    let samples = n_channel_samples(&form);
    let mut planes = Vec::with_capacity(image.pages.len() * samples);
    for &time in &times {
        for &z in &zs {
            for &channel in &channels {
                let page = image.pages.get(&[time, z, channel]).ok_or_else(|| {
                    tiff.damaged(format!(
                        "its OME-XML has no page for time point {}, z {}, channel {} of image {:?}",
                        time + 1,
                        z + 1,
                        channel + 1,
                        image.name
                    ))
                })?;
                planes.extend((0..samples).map(|sample| Location::Page(*page, sample)));
            }
        }
    }
    let names = channels
        .iter()
        .map(|&channel| image.channels.get(channel).cloned().unwrap_or_default());
    Ok(Series {
        pixel_size_um: image.pixel_size_um,
        z_step_um: image.z_step_um,
        stage: image.stage,
        has_z_elsewhere: image.has_others && zs.len() < image.n_z,
        has_channels_elsewhere: image.has_others && channels.len() < image.channels.len(),
        channels: channel_names(&form, names.collect()),
        n_z: zs.len(),
        n_times: times.len(),
        ..empty_series(&form, true, planes)
    })
}

/// The pages of a file whose description is not OME-XML: those that have the size and type of the
/// first.
fn page_series(
    tiff: &mut Tiff,
    description: &description::Description,
    warnings: &mut Vec<String>,
) -> Result<Series, TaskError> {
    let first = first_full_page(tiff)?;
    let form = Form::read(tiff, first)?;
    let mut pages = Vec::new();
    let mut n_others = 0;
    for page in first..tiff.n_pages() {
        if page > first && is_version_of_another(tiff, page)? {
            continue;
        }
        match Form::read(tiff, page) {
            Ok(other) if other.is_like(&form) => pages.push(page),
            _ => n_others += 1,
        }
    }
    if n_others > 0 {
        let n = pages.len();
        warnings.push(format!(
            "{n_others} of its pages have another size or type than the first; {n} are taken"
        ));
    }
    let n_stated = description
        .shape
        .map(|shape| shape.iter().product::<usize>());
    let mut locations: Vec<Location> = pages.iter().map(|&page| Location::Page(page, 0)).collect();
    if let Some(n) = n_stated
        && description.may_be_raw
        && pages.len() == 1
        && n > 1
        && pixels::has_raw(tiff, n)?
    {
        locations = (0..n).map(Location::Raw).collect();
    }
    let stated = description
        .shape
        .filter(|_| n_stated == Some(locations.len()));
    if n_stated.is_some() && stated.is_none() && description.may_be_raw {
        let (stated, n) = (n_stated.unwrap_or(0), locations.len());
        return Err(tiff.damaged(format!(
            "its description states {stated} planes, but it has {n}"
        )));
    }
    let [n_times, n_z, n_channels] = stated.unwrap_or([1, locations.len(), 1]);
    let order = description
        .order
        .filter(|_| stated.is_some())
        .unwrap_or([0, 1, 2]);
    let samples = n_channel_samples(&form);
    let mut planes = Vec::with_capacity(locations.len() * samples);
    for index in 0..locations.len() {
        let index = [
            index / n_channels / n_z,
            index / n_channels % n_z,
            index % n_channels,
        ];
        let sizes = [n_times, n_z, n_channels];
        let stored = order
            .iter()
            .fold(0, |sum, &axis| sum * sizes[axis] + index[axis]);
        planes.extend((0..samples).map(|sample| match locations[stored] {
            Location::Page(page, _) => Location::Page(page, sample),
            other => other,
        }));
    }
    Ok(Series {
        pixel_size_um: description.pixel_size_um,
        z_step_um: description.z_step_um,
        stage: description.stage_um.map(Stage::Um),
        channels: channel_names(&form, vec![String::new(); n_channels]),
        n_z,
        n_times,
        ..empty_series(&form, stated.is_some() && description.has_axes, planes)
    })
}

/// The first page that is no smaller version and no mask; the first page if there is none.
fn first_full_page(tiff: &mut Tiff) -> Result<usize, TaskError> {
    for page in 0..tiff.n_pages() {
        if !is_version_of_another(tiff, page)? {
            return Ok(page);
        }
    }
    Ok(0)
}

/// True for a smaller version or a mask of another page.
fn is_version_of_another(tiff: &mut Tiff, page: usize) -> Result<bool, TaskError> {
    let kind = tiff.number(page, tag::SUBFILE_TYPE)?;
    Ok(kind.is_some_and(|kind| kind & 5 != 0))
}

fn empty_series(form: &Form, has_axes: bool, planes: Vec<Location>) -> Series {
    Series {
        size: (form.width, form.height),
        pixel_type: form.pixel_type,
        channels: Vec::new(),
        n_z: 1,
        n_times: 1,
        is_color: form.photometric == 2,
        has_axes,
        pixel_size_um: None,
        z_step_um: None,
        stage: None,
        has_z_elsewhere: false,
        has_channels_elsewhere: false,
        planes,
    }
}

/// Number of samples of a page that are channels: all, but no more than red, green and blue.
fn n_channel_samples(form: &Form) -> usize {
    if form.photometric == 2 {
        form.n_samples.min(3)
    } else {
        form.n_samples
    }
}

fn channel_names(form: &Form, names: Vec<String>) -> Vec<String> {
    match n_channel_samples(form) {
        1 => names,
        _ if form.photometric == 2 && names.len() == 1 => {
            ["R", "G", "B"].map(str::to_owned).to_vec()
        }
        n => vec![String::new(); n * names.len()],
    }
}

/// Width and height of a pixel from the tags of the resolution.
///
/// * `um_per_unit`: micrometers of the units of x and y, if the description states them.
fn resolution_um(
    tiff: &mut Tiff,
    page: usize,
    um_per_unit: Option<[f64; 2]>,
) -> Result<Option<[f64; 2]>, TaskError> {
    let resolution =
        [tag::X_RESOLUTION, tag::Y_RESOLUTION].map(|tag| tiff.inverse_fraction(page, tag));
    let [x, y] = resolution;
    let (Some(x), Some(y)) = (x?, y?) else {
        return Ok(None);
    };
    let unit = match (
        um_per_unit,
        tiff.number(page, tag::RESOLUTION_UNIT)?.unwrap_or(2),
    ) {
        (Some(unit), _) => unit,
        (None, 2) => [UM_PER_INCH; 2],
        (None, 3) => [1e4; 2],
        // Units of tifffile and of some libraries: mm and um.
        (None, 4) => [1e3; 2],
        (None, 5) => [1.0; 2],
        _ => return Ok(None),
    };
    let sizes = [unit[0] * x, unit[1] * y];
    // Programs write inches when nothing is known, but not another unit.
    if um_per_unit.is_some_and(|unit| !unit.contains(&UM_PER_INCH)) {
        return Ok(sizes.iter().all(|size| *size > 0.0).then_some(sizes));
    }
    Ok(plausible_size(sizes))
}

fn plausible_size(sizes: [f64; 2]) -> Option<[f64; 2]> {
    sizes
        .iter()
        .all(|size| *size > 0.0 && *size < MAX_PIXEL_SIZE_UM)
        .then_some(sizes)
}

/// Micrometers of a unit of length, as OME-XML and ImageJ write it; `None` for pixels.
fn um_per_unit(unit: &str) -> Option<f64> {
    match unit.trim().to_lowercase().as_str() {
        // The signs for micro and mu, and how ImageJ escapes the former.
        // The last two are a text of UTF-8 read as Latin-1, and a sign without the meter.
        "um" | "\u{b5}m" | "\u{3bc}m" | "\\u00b5m" | "\\u03bcm" | "\u{e2}\u{b5}m" | "\u{b5}"
        | "micron" | "microns" | "micrometer" | "micrometers" | "micrometre" | "micrometres" => {
            Some(1.0)
        }
        "nm" | "nanometer" | "nanometre" => Some(1e-3),
        "pm" => Some(1e-6),
        "\u{e5}" | "\\u00c5" | "a" | "angstrom" => Some(1e-4),
        "mm" => Some(1e3),
        "cm" => Some(1e4),
        "m" | "meter" => Some(1e6),
        "in" | "inch" => Some(UM_PER_INCH),
        _ => None,
    }
}

/// Refuses a plane that is too large.
fn check_size(
    path: &Path,
    width: u64,
    height: u64,
    pixel_type: PixelType,
) -> Result<(), TaskError> {
    let n_bytes = width
        .checked_mul(height)
        .and_then(|n| n.checked_mul(pixel_type.n_bytes() as u64));
    if n_bytes.is_some_and(|n_bytes| n_bytes <= MAX_PLANE_BYTES as u64) {
        return Ok(());
    }
    let cause = format!(
        "its planes have {width}x{height} pixels, more than the 256 MiB that a plane may have; cut it into fields"
    );
    Err(TaskError::about("cannot convert", path, cause))
}

fn damaged(path: &Path, cause: impl fmt::Display) -> TaskError {
    TaskError::about(
        "cannot read",
        path,
        format!("{cause}; the file is damaged or no TIFF or PNG image, replace it"),
    )
}

#[cfg(test)]
pub(crate) mod tests;
