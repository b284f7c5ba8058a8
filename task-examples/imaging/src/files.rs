//! Finds the planes of plates: from names or a table, and from what is in the files.

use crate::about;
use crate::image::PlaneFile;
use crate::name::{Number, PlaneId, Well};
use crate::naming::{FileName, Naming, describe_unknown};
use crate::source::{self, Position, Series};
use crate::table::{self, Row};
use fractal_task::TaskError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders below an input folder are searched so deep: ImageXpress has `TimePoint_1/ZStep_1`.
const MAX_DEPTH: usize = 3;
/// So many files of a plate are opened, if the first ones are damaged, to find out what the files
/// of the plate contain.
const MAX_OPENED: usize = 3;

/// How files are found and read.
#[derive(Debug)]
pub struct Search<'a> {
    /// The input folders.
    pub folders: &'a [PathBuf],
    /// Endings of the files.
    pub extensions: &'a [String],
    /// Regular expression of the names.
    pub pattern: Option<&'a str>,
    /// Name of the table of the files.
    pub table: Option<&'a str>,
    /// The time point that is taken where there are several, from 1.
    pub time_point: Option<u64>,
    /// True if red, green and blue are three channels.
    pub rgb_channels: bool,
}

/// Sizes that the files of a plate state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sizes {
    /// Width and height of a pixel in micrometers.
    pub pixel_um: Option<f64>,
    /// Distance of two Z planes in micrometers.
    pub z_step_um: Option<f64>,
}

/// The planes of all plates.
#[derive(Debug, Default)]
pub struct Found {
    /// Where the pixels of each plane are.
    pub planes: BTreeMap<PlaneId, PlaneFile>,
    /// A name of each plate, and its input folder, to write the names of missing files like.
    pub names: BTreeMap<String, (PathBuf, FileName)>,
    /// Names of channels that differ from their ids.
    pub labels: BTreeMap<String, String>,
    /// Sizes that the files of each plate state.
    pub sizes: BTreeMap<String, Sizes>,
}

/// A file and what is known of it. Missing parts are in the file.
#[derive(Debug, Clone)]
struct Known {
    path: PathBuf,
    plate: String,
    well: Well,
    field: Option<Number>,
    z: Option<Number>,
    channel: Option<Number>,
}

/// Finds the planes of the input folders.
///
/// # Errors
/// If a folder or the table cannot be read, no file fits, two files are the same plane, or the
/// files contain what is not supported.
pub fn find(search: &Search<'_>) -> Result<Found, TaskError> {
    let mut found = Found::default();
    let mut known = match search.table {
        Some(table) => find_listed(table, search)?,
        None => find_named(search, &mut found)?,
    };
    for file in &mut known {
        let Some(channel) = &mut file.channel else {
            continue;
        };
        let id = channel_id(&channel.0);
        if id != channel.0 {
            let label = std::mem::replace(&mut channel.0, id.clone());
            found.labels.insert(id, label);
        }
    }
    let mut by_plate: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    for file in known {
        by_plate.entry(file.plate.clone()).or_default().push(file);
    }
    for (plate, files) in by_plate {
        let contents = open_first(&files)?;
        if let Some(series) = contents.as_ref().and_then(|contents| contents.first()) {
            let pixel_um = series.pixel_size_um.map(|[x, y]| {
                if (x / y - 1.0).abs() > 1e-3 {
                    eprintln!("warning: the pixels of plate {plate} have {x} x {y} um; {x} um is taken for both");
                }
                x
            });
            found.sizes.insert(
                plate,
                Sizes {
                    pixel_um,
                    z_step_um: series.z_step_um,
                },
            );
        }
        for file in files {
            for (id, position) in expand(&file, contents.as_deref(), search, &mut found.labels)? {
                let plane = PlaneFile {
                    file: file.path.clone(),
                    position,
                };
                if let Some(other) = found.planes.insert(id, plane) {
                    let (one, two) = (other.file.display(), file.path.display());
                    return Err(TaskError::new(format!(
                        "{one} and {two} are the same plane; take one of them away"
                    )));
                }
            }
        }
    }
    Ok(found)
}

/// A channel's name with letters, digits, - and _ only.
fn channel_id(text: &str) -> String {
    let parts = text.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
    let parts: Vec<&str> = parts
        .filter(|part| !part.is_empty() && *part != "-")
        .collect();
    parts.join("-")
}

fn find_listed(table: &str, search: &Search<'_>) -> Result<Vec<Known>, TaskError> {
    let find = |name: &str| {
        let mut paths = search.folders.iter().map(|folder| folder.join(name));
        paths
            .clone()
            .find(|path| path.is_file())
            .or_else(|| paths.next())
    };
    let path = find(table)
        .ok_or_else(|| TaskError::new("input_paths is empty: give the folder of the images"))?;
    let rows = table::read_files(&path)?;
    if rows.is_empty() {
        return Err(TaskError::about(
            "cannot use",
            &path,
            "it has no rows; add one for each file",
        ));
    }
    let known = rows.into_iter().map(
        |Row {
             file,
             plate,
             well,
             field,
             z,
             channel,
         }| {
            // A file that is missing fails its image, not the plate.
            Known {
                path: find(&file).unwrap_or_default(),
                plate,
                well,
                field,
                z,
                channel,
            }
        },
    );
    let known: Vec<Known> = known.collect();
    let mut planes = BTreeMap::new();
    for Known {
        path: file,
        plate,
        well,
        field,
        z,
        channel,
    } in &known
    {
        if let Some(other) = planes.insert((plate, well, field, z, channel), file) {
            let (one, two) = (Path::new(other).display(), file.display());
            let cause = format!("{one} and {two} are the same plane; correct one of the two rows");
            return Err(TaskError::about("cannot use", &path, cause));
        }
    }
    Ok(known)
}

fn find_named(search: &Search<'_>, found: &mut Found) -> Result<Vec<Known>, TaskError> {
    if search.extensions.is_empty() {
        return Err(TaskError::new(
            "extensions is empty: give at least one ending, such as \"tif\"",
        ));
    }
    let mut paths: Vec<(&PathBuf, String)> = Vec::new();
    for folder in search.folders {
        let mut names = Vec::new();
        read_names(folder, "", search.extensions, MAX_DEPTH, &mut names)?;
        paths.extend(names.into_iter().map(|name| (folder, name)));
    }
    let names: Vec<String> = paths.iter().map(|(_, name)| name.clone()).collect();
    let naming = match search.pattern {
        Some(pattern) => Some(Naming::of_argument(pattern)?),
        None => Naming::find(&names),
    };
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for (folder, path) in &paths {
        match naming.as_ref().and_then(|naming| naming.parse(path)) {
            Some(name) => files.push((*folder, path, name)),
            None => others.push(folder.join(path)),
        }
    }
    if files.is_empty() {
        return Err(nothing_fits(search, &names));
    }
    if let Some(first) = others.first() {
        let n = others.len();
        eprintln!(
            "warning: left out {n} file(s) named in another way than the others, such as {}",
            first.display()
        );
    }
    let time = choose_time(
        search.time_point,
        files.iter().filter_map(|(.., name)| name.time.as_ref()),
    )?;
    files.retain(|(.., name)| time.is_none() || name.time.is_none() || name.time == time);
    let known = files.into_iter().map(|(folder, path, name)| {
        let plate = name
            .plate
            .clone()
            .unwrap_or_else(|| plate_of_folder(folder, path));
        found
            .names
            .entry(plate.clone())
            .or_insert_with(|| (folder.clone(), name.clone()));
        let FileName {
            well,
            field,
            z,
            channel,
            ..
        } = name;
        Known {
            path: folder.join(path),
            plate,
            well,
            field,
            z,
            channel,
        }
    });
    Ok(known.collect())
}

fn nothing_fits(search: &Search<'_>, names: &[String]) -> TaskError {
    let folders: Vec<String> = search
        .folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let place = if folders.is_empty() {
        "input_paths, which is empty".to_owned()
    } else {
        folders.join(", ")
    };
    if names.is_empty() {
        let extensions = search.extensions.join(", ");
        return TaskError::new(format!(
            "no file with one of the endings {extensions} in {place}: correct the input folder or the argument extensions"
        ));
    }
    let seen = match search.pattern {
        Some(pattern) => format!(
            "{} files, such as {}; none fits the pattern {pattern:?}",
            names.len(),
            names[0]
        ),
        None => describe_unknown(names),
    };
    TaskError::new(format!(
        "{place}: {seen}; set the argument pattern, or list the files in a table and name it in the argument table"
    ))
}

/// The time point to take: `None` if there are none.
fn choose_time<'a>(
    chosen: Option<u64>,
    times: impl Iterator<Item = &'a Number>,
) -> Result<Option<Number>, TaskError> {
    let times: BTreeSet<&Number> = times.collect();
    let value = |time: &Number| {
        time.0
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse::<u64>()
            .ok()
    };
    match (chosen, times.first().zip(times.last())) {
        (_, None) => Ok(None),
        (None, Some((first, last))) if first == last => Ok(None),
        (None, Some((first, last))) => Err(TaskError::new(format!(
            "the files have {} time points, {first} to {last}, but an image has one: set the argument time_point to one of \
             them",
            times.len()
        ))),
        (Some(chosen), Some((first, last))) => {
            let time = times
                .iter()
                .find(|time| value(time) == Some(chosen))
                .copied()
                .cloned();
            time.map(Some).ok_or_else(|| {
                TaskError::new(format!(
                    "time_point is {chosen}, but the files have the time points {first} to {last}"
                ))
            })
        }
    }
}

/// The name of a plate whose file names do not have it: that of the nearest folder.
fn plate_of_folder(folder: &Path, path: &str) -> String {
    let below = path.split('/').rev().skip(1);
    let above = folder.iter().rev().filter_map(|name| name.to_str());
    let is_name = |name: &&str| {
        let is_part = ["Images", "TimePoint_", "ZStep_", "Default"]
            .iter()
            .any(|part| name.starts_with(part));
        !is_part && !name.contains("-Site_") && crate::name::is_plate(name)
    };
    below
        .chain(above)
        .find(is_name)
        .unwrap_or("plate")
        .to_owned()
}

/// Adds the files below a folder that have one of the endings, sorted; those whose name begins with
/// a dot are left alone. Folders are searched if there are no such files next to them.
fn read_names(
    folder: &Path,
    below: &str,
    extensions: &[String],
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), TaskError> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(about("cannot read the folder", folder))? {
        let entry = entry.map_err(about("cannot read the folder", folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        if name.starts_with('.') || ending == "zarr" {
            continue;
        }
        // MetaXpress and others put small versions next to the images.
        let is_thumbnail = name.to_ascii_lowercase().contains("_thumb");
        if extensions
            .iter()
            .any(|known| known.eq_ignore_ascii_case(ending))
        {
            files.extend((!is_thumbnail).then_some(name));
        } else if entry.path().is_dir() {
            folders.push(name);
        }
    }
    files.sort();
    folders.sort();
    let is_empty = files.is_empty();
    names.extend(files.into_iter().map(|name| format!("{below}{name}")));
    if is_empty && depth > 0 {
        for name in folders {
            read_names(
                &folder.join(&name),
                &format!("{below}{name}/"),
                extensions,
                depth - 1,
                names,
            )?;
        }
    }
    Ok(())
}

/// What the first file of a plate that can be opened contains; `None` if none can be. Damaged files
/// fail their images later.
fn open_first(files: &[Known]) -> Result<Option<Vec<Series>>, TaskError> {
    for file in files.iter().take(MAX_OPENED) {
        if let Ok(opened) = source::open(&file.path) {
            for warning in opened.warnings() {
                eprintln!("warning: {}: {warning}", file.path.display());
            }
            return Ok(Some(opened.series().to_vec()));
        }
    }
    Ok(None)
}

/// The planes of a file.
///
/// * `contents`: images in the file, as in all files of the plate; `None` is one plane.
fn expand(
    file: &Known,
    contents: Option<&[Series]>,
    search: &Search<'_>,
    labels: &mut BTreeMap<String, String>,
) -> Result<Vec<(PlaneId, Option<Position>)>, TaskError> {
    let wrong = |cause: String| TaskError::about("cannot use", &file.path, cause);
    let number = |text: &str| Number(text.to_owned());
    let plane = |field: Option<Number>, z: Option<Number>, channel: Option<Number>| PlaneId {
        plate: file.plate.clone(),
        well: file.well.clone(),
        field: field.unwrap_or_else(|| number("1")),
        channel: channel.unwrap_or_else(|| number("C01")),
        z: z.unwrap_or_else(|| number("")),
    };
    let Known {
        field, z, channel, ..
    } = file;
    let single = || {
        Ok(vec![(
            plane(field.clone(), z.clone(), channel.clone()),
            None,
        )])
    };
    let Some(contents) = contents else {
        return single();
    };
    let contents = if field.is_some() && contents.len() > 1 {
        eprintln!(
            "warning: {} has {} images; the first is taken",
            file.path.display(),
            contents.len()
        );
        &contents[..1]
    } else {
        contents
    };
    let mut planes = Vec::new();
    for (series, image) in contents.iter().enumerate() {
        if image.is_color && !search.rgb_channels {
            return Err(wrong(
                "it is an RGB image; set the argument rgb_channels to true to take red, green and blue as three channels, or \
                 save it as a grey image"
                    .to_owned(),
            ));
        }
        if contents.len() == 1 && image.n_planes() == 1 {
            return single();
        }
        let time = position_of_time(image.n_times, search.time_point).map_err(wrong)?;
        let axes = Axes::of(image, z.is_some(), channel.is_some()).map_err(wrong)?;
        for c in 0..axes.n_channels {
            let channel = channel_of(channel.as_ref(), image, axes.n_channels, c, labels);
            for z_index in 0..axes.n_z {
                let z = z
                    .clone()
                    .or_else(|| (axes.n_z > 1).then(|| Number(format!("{:03}", z_index + 1))));
                let field = field
                    .clone()
                    .unwrap_or_else(|| Number((series + 1).to_string()));
                let (z_inside, channel_inside) = if axes.pages_are_channels {
                    (c, 0)
                } else {
                    (z_index, c)
                };
                let position = Position {
                    series,
                    time,
                    z: z_inside,
                    channel: channel_inside,
                };
                planes.push((plane(Some(field), z, Some(channel.clone())), Some(position)));
            }
        }
    }
    Ok(planes)
}

/// The id of a channel that is in a file.
fn channel_of(
    stated: Option<&Number>,
    image: &Series,
    n_channels: usize,
    index: usize,
    labels: &mut BTreeMap<String, String>,
) -> Number {
    let name = image
        .channels
        .get(index)
        .map(String::as_str)
        .unwrap_or_default();
    let (id, label) = match stated {
        Some(stated) if n_channels == 1 => return stated.clone(),
        // Red, green and blue of the channel that the name states.
        Some(stated) => (
            format!("{stated}-{}", index + 1),
            format!("{stated} {name}"),
        ),
        None => (format!("C{:02}", index + 1), name.to_owned()),
    };
    if !label.is_empty() {
        labels.entry(id.clone()).or_insert(label);
    }
    Number(id)
}

/// Position of the time point in a file.
fn position_of_time(n_times: usize, chosen: Option<u64>) -> Result<usize, String> {
    match chosen {
        _ if n_times == 1 => Ok(0),
        None => Err(format!(
            "it has {n_times} time points, but an image has one: set the argument time_point to one of 1 to {n_times}"
        )),
        Some(chosen) => {
            let index = usize::try_from(chosen)
                .ok()
                .filter(|chosen| (1..=n_times).contains(chosen));
            index
                .map(|index| index - 1)
                .ok_or_else(|| format!("time_point is {chosen}, but it has {n_times} time points"))
        }
    }
}

/// Channels and Z planes that are in a file.
struct Axes {
    n_channels: usize,
    n_z: usize,
    /// True if pages, which count as Z planes, are channels.
    pages_are_channels: bool,
}

impl Axes {
    /// * `has_z`, `has_channel`: the name of the file has them.
    fn of(image: &Series, has_z: bool, has_channel: bool) -> Result<Self, String> {
        let (n_channels, n_z) = (image.channels.len(), image.n_z);
        if n_z > 1 && has_z && !has_channel && n_channels == 1 && !image.has_axes {
            return Ok(Self {
                n_channels: n_z,
                n_z: 1,
                pages_are_channels: true,
            });
        }
        let twice = |n: usize, what: &str| {
            format!(
                "it has {n} {what}, but its name or the table has one for it; leave it out there with the argument pattern or \
                 in the table"
            )
        };
        if n_z > 1 && has_z {
            return Err(twice(n_z, "Z planes"));
        }
        if n_channels > 1 && has_channel && !image.is_color {
            return Err(twice(n_channels, "channels"));
        }
        Ok(Self {
            n_channels,
            n_z,
            pages_are_channels: false,
        })
    }
}
