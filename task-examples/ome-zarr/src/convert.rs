//! The task "Convert to OME-Zarr": from the channel files of one image to an OME-Zarr 0.4 image
//! with axes c, y, x and a pyramid.
//!
//! The image is written beside its place under a name ending in `.part` and moved there when whole:
//! a call that is stopped leaves no half image, and one that fails leaves the old image.

use crate::group::{self, Format, object};
use crate::name::{FileName, ImageName};
use crate::ngff::{self, Channel, Downscaling};
use crate::pixel::PixelType;
use crate::plane::{self, OpenPlane, Plane};
use crate::pyramid;
use crate::zarr::{ArrayWriter, Options};
use fractal_task::{TaskError, check_range};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The axes of an image.
const AXES: &str = "cyx";

/// The parameters. The descriptions are in the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    #[expect(dead_code, reason = "Fractal passes it to every task")]
    input_paths: Vec<PathBuf>,
    output_path: PathBuf,
    metadata: Metadata,
    component: String,
    #[serde(default = "default_pixel_size_um")]
    pixel_size_um: f64,
    #[serde(default = "default_chunk_size")]
    chunk_size: usize,
    #[serde(default = "default_num_levels")]
    num_levels: usize,
    #[serde(default = "default_compression_level")]
    compression_level: u32,
    #[serde(default)]
    overwrite: bool,
}

/// What the conversion uses of the metadata, all from the metadiff of "List images".
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    original_paths: Vec<PathBuf>,
    channels: Vec<String>,
    extensions: Vec<String>,
}

fn default_pixel_size_um() -> f64 {
    0.325
}

fn default_chunk_size() -> usize {
    256
}

fn default_num_levels() -> usize {
    3
}

fn default_compression_level() -> u32 {
    3
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Converted {
    /// Channels, rows and columns of the full-size level.
    shape: [usize; 3],
    /// The smallest and the largest value of each channel.
    intensity_range: Vec<[u16; 2]>,
}

/// Converts one image.
///
/// # Errors
/// If a parameter is out of range, a channel file is missing, damaged, of another type or of
/// another size than the first one, the image exists and may not be replaced, or a file cannot be
/// written.
pub fn convert(parameters: Parameters) -> Result<Converted, TaskError> {
    check_parameters(&parameters)?;
    let component = &parameters.component;
    let name = ImageName::parse_component(component).ok_or_else(|| {
        TaskError::new(format!(
            "component {component:?} does not have the form plate1_B03_F001.zarr: \
             run \"List images\" first"
        ))
    })?;
    let files = find_files(&name, &parameters.metadata)?;
    let channels = open_all(&files)?;

    let target = parameters.output_path.join(component);
    check_target(&target, parameters.overwrite)?;
    let part = parameters.output_path.join(format!("{component}.part"));
    remove_folder(&part)?;
    let written = write_image(&part, &name, channels, &parameters);
    let moved = written.and_then(|converted| {
        remove_folder(&target)?;
        fs::rename(&part, &target)
            .map_err(|err| TaskError::about("cannot move the new image to", &target, err))?;
        Ok(converted)
    });
    if moved.is_err() {
        // The first error is the one to report.
        let _ = remove_folder(&part);
    }
    moved
}

fn check_parameters(parameters: &Parameters) -> Result<(), TaskError> {
    let Metadata {
        original_paths,
        channels,
        extensions,
    } = &parameters.metadata;
    for (key, is_empty) in [
        ("original_paths", original_paths.is_empty()),
        ("channels", channels.is_empty()),
        ("extensions", extensions.is_empty()),
    ] {
        if is_empty {
            return Err(TaskError::new(format!(
                "metadata.{key} is missing or empty: run \"List images\" first"
            )));
        }
    }
    check_range("pixel_size_um", parameters.pixel_size_um, 1e-6..=1e6)?;
    check_range("chunk_size", parameters.chunk_size, 1..=4096)?;
    check_range("num_levels", parameters.num_levels, 1..=10)?;
    check_range("compression_level", parameters.compression_level, 0..=9)
}

/// One file a channel, in the order of the channels.
fn find_files(name: &ImageName, metadata: &Metadata) -> Result<Vec<(String, PathBuf)>, TaskError> {
    let find = |channel: &String| Ok((channel.clone(), find_file(name, channel, metadata)?));
    metadata.channels.iter().map(find).collect()
}

fn find_file(name: &ImageName, channel: &str, metadata: &Metadata) -> Result<PathBuf, TaskError> {
    let mut tried = Vec::new();
    for folder in &metadata.original_paths {
        for extension in &metadata.extensions {
            let file = FileName {
                image: name.clone(),
                channel: channel.to_owned(),
                extension: extension.clone(),
            };
            let path = folder.join(file.to_string());
            match path.try_exists() {
                Ok(true) => return Ok(path),
                Ok(false) => tried.push(path.display().to_string()),
                Err(err) => return Err(TaskError::about("cannot look for", &path, err)),
            }
        }
    }
    Err(TaskError::new(format!(
        "channel {channel} of image {name} is missing: there is no {}; \
         add the file or run \"List images\" again",
        tried.join(" or "),
    )))
}

struct ChannelFile {
    name: String,
    plane: OpenPlane,
}

/// Opens the files of all channels, whose sizes must be the same.
fn open_all(files: &[(String, PathBuf)]) -> Result<Vec<ChannelFile>, TaskError> {
    let mut channels: Vec<ChannelFile> = Vec::with_capacity(files.len());
    for (name, path) in files {
        let plane = plane::open(path)?;
        if let (Some(first), Some((_, first_path))) = (channels.first(), files.first()) {
            let (size, first_size) = (
                (plane.width, plane.height),
                (first.plane.width, first.plane.height),
            );
            if size != first_size {
                return Err(TaskError::new(format!(
                    "{} has {}x{} pixels, but {} has {}x{}: \
                     all channels of an image must have one size, replace the wrong file",
                    path.display(),
                    size.0,
                    size.1,
                    first_path.display(),
                    first_size.0,
                    first_size.1,
                )));
            }
        }
        channels.push(ChannelFile {
            name: name.clone(),
            plane,
        });
    }
    Ok(channels)
}

/// Refuses to replace what is there, unless told to and it is a Zarr group or an empty folder.
fn check_target(target: &Path, overwrite: bool) -> Result<(), TaskError> {
    let kind = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata.file_type(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(TaskError::about("cannot look at", target, err)),
    };
    if !overwrite {
        return Err(TaskError::about(
            "cannot write",
            target,
            "it exists; take it away or set the argument overwrite to true",
        ));
    }
    let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if kind.is_dir() && (group::exists(target) || is_empty()) {
        return Ok(());
    }
    Err(TaskError::about(
        "cannot replace",
        target,
        "it is not a Zarr image; take it away",
    ))
}

fn remove_folder(folder: &Path) -> Result<(), TaskError> {
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(TaskError::about("cannot remove", folder, err))
        }
        _ => Ok(()),
    }
}

fn write_image(
    folder: &Path,
    name: &ImageName,
    channels: Vec<ChannelFile>,
    parameters: &Parameters,
) -> Result<Converted, TaskError> {
    let size = channels.first().map_or((0, 0), |channel| {
        (channel.plane.width, channel.plane.height)
    });
    let shape = [channels.len(), size.1, size.0];
    let sizes = std::iter::successors(Some(size), |size| Some(pyramid::half_size(*size)));
    let options = Options {
        format: Format::V04,
        axes: AXES,
        chunk_size: parameters.chunk_size,
        compression_level: Some(parameters.compression_level),
    };
    let mut levels: Vec<ArrayWriter> = sizes
        .take(parameters.num_levels)
        .enumerate()
        .map(|(level, size)| {
            ArrayWriter::create(
                folder.join(level.to_string()),
                PixelType::U16,
                &[shape[0]],
                size,
                options,
            )
        })
        .collect::<Result<_, _>>()?;

    let (mut channel_names, mut intensity_range) = (Vec::new(), Vec::new());
    for (index, channel) in channels.into_iter().enumerate() {
        let mut plane = channel.plane.read()?;
        intensity_range.push(range_of(&plane));
        channel_names.push(channel.name);
        for (level, array) in levels.iter_mut().enumerate() {
            if level > 0 {
                plane = pyramid::halve(&plane);
            }
            array.write_plane(&[index], &plane)?;
        }
    }
    levels.into_iter().try_for_each(ArrayWriter::finish)?;
    let attributes = attributes(name, &channel_names, &intensity_range, parameters);
    group::write(folder, Format::V04, object(attributes), Map::new())?;
    Ok(Converted {
        shape,
        intensity_range,
    })
}

fn range_of(plane: &Plane) -> [u16; 2] {
    let range = plane
        .values
        .iter()
        .fold([u16::MAX, 0], |[min, max], &value| {
            [min.min(value), max.max(value)]
        });
    if plane.values.is_empty() {
        [0, 0]
    } else {
        range
    }
}

fn attributes(
    name: &ImageName,
    channels: &[String],
    intensity_range: &[[u16; 2]],
    parameters: &Parameters,
) -> Value {
    let name = name.to_string();
    let size = parameters.pixel_size_um;
    let channels: Vec<Channel> = channels
        .iter()
        .zip(intensity_range)
        .enumerate()
        .map(|(index, (label, window))| Channel {
            label: label.clone(),
            wavelength_id: None,
            color: ngff::color(index).to_owned(),
            pixel_type: PixelType::U16,
            window: window.map(f64::from),
        })
        .collect();
    json!({
        "multiscales": [ngff::multiscales(&name, AXES, &[1.0, size, size], parameters.num_levels, Downscaling::Mean)],
        "omero": ngff::omero(&name, &channels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(change: Value) -> Parameters {
        let mut value = json!({
            "input_paths": ["/out"],
            "output_path": "/out",
            "metadata": {"original_paths": ["/in"], "channels": ["C01", "C02"], "extensions": ["tif"], "more": 1},
            "component": "p_B03_F001.zarr",
        });
        for (key, change) in change.as_object().unwrap() {
            value[key] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn check_refused(change: Value, expected: &str) {
        assert_eq!(
            convert(parameters(change)).unwrap_err().to_string(),
            expected
        );
    }

    #[test]
    fn wrong_parameters_are_refused() {
        check_refused(
            json!({"chunk_size": 0}),
            "chunk_size is 0: it must be from 1 to 4096",
        );
        check_refused(
            json!({"num_levels": 11}),
            "num_levels is 11: it must be from 1 to 10",
        );
        check_refused(
            json!({"compression_level": 10}),
            "compression_level is 10: it must be from 0 to 9",
        );
        check_refused(
            json!({"pixel_size_um": -1}),
            "pixel_size_um is -1: it must be from 0.000001 to 1000000",
        );
        check_refused(
            json!({"metadata": {"original_paths": ["/in"]}}),
            "metadata.channels is missing or empty: run \"List images\" first",
        );
        check_refused(
            json!({"component": "../p_B03_F001.zarr"}),
            "component \"../p_B03_F001.zarr\" does not have the form plate1_B03_F001.zarr: run \"List images\" first",
        );
    }

    #[test]
    fn a_missing_channel_is_named() {
        check_refused(
            json!({"metadata": {"original_paths": ["/no-folder"], "channels": ["C07"], "extensions": ["png", "tif"]}}),
            "channel C07 of image p_B03_F001 is missing: there is no /no-folder/p_B03_F001_C07.png or \
             /no-folder/p_B03_F001_C07.tif; add the file or run \"List images\" again",
        );
    }

    #[test]
    fn defaults_and_limits_are_those_of_the_manifest() {
        let manifest: Value =
            serde_json::from_str(include_str!("../__FRACTAL_MANIFEST__.json")).unwrap();
        let properties = &manifest["task_list"][1]["args_schema"]["properties"];
        let ours = parameters(json!({}));
        assert_eq!(properties["pixel_size_um"]["default"], ours.pixel_size_um);
        assert_eq!(properties["chunk_size"]["default"], ours.chunk_size);
        assert_eq!(properties["num_levels"]["default"], ours.num_levels);
        assert_eq!(
            properties["compression_level"]["default"],
            ours.compression_level
        );
        assert_eq!(properties["overwrite"]["default"], ours.overwrite);
        for name in [
            "pixel_size_um",
            "chunk_size",
            "num_levels",
            "compression_level",
        ] {
            for limit in ["minimum", "maximum"] {
                let value = properties[name][limit].clone();
                assert!(
                    check_parameters(&parameters(json!({ name: value }))).is_ok(),
                    "{name} at its {limit}"
                );
            }
        }
    }
}
