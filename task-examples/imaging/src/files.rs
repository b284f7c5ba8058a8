//! Finds the planes of plates: from names or a table, and from what is in the files.

use crate::about;
use crate::contents::Contents;
use crate::image::PlaneFile;
use crate::name::{Number, PlaneId, Well};
use crate::naming::{FileName, Naming, describe_unknown, n_columns_of};
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
    /// True if an argument replaces the sizes of pixels that files state.
    pub replaces_pixel_size: bool,
    /// True if an argument replaces the distances of Z planes that files state.
    pub replaces_z_step: bool,
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
    /// Channels that have different names in two plates: both names.
    pub label_conflicts: BTreeMap<String, [String; 2]>,
    /// What the files of each plate contain.
    pub contents: BTreeMap<String, Contents>,
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
    for (plate, mut files) in by_plate {
        unify_wells(&mut files);
        let first = open_first(&files);
        let images = first.as_ref().map(|(_, images)| images.as_slice());
        let mut labels = BTreeMap::new();
        if let Some((file, images)) = &first {
            // A field in the name of a file is its first image.
            let only_first = file.field.is_some() && images.len() > 1;
            let mut contents = Contents::of(&file.path, images, only_first);
            if search.replaces_pixel_size {
                contents.pixel_size_um = None;
            }
            if search.replaces_z_step {
                contents.z_step_um = None;
            }
            if !only_first {
                check_images(&file.path, &contents, images)?;
            }
            found.contents.insert(plate, contents);
        }
        for file in files {
            for (id, position) in expand(&file, images, search, &mut labels)? {
                let plane = PlaneFile {
                    file: file.path.clone(),
                    position,
                };
                if let Some(other) = found.planes.insert(id, plane) {
                    let (one, two) = (other.file.display(), file.path.display());
                    return Err(TaskError::new(format!(
                        "{one} and {two} are the same plane (well, field, Z plane and channel); take one of them away, or tell \
                         them apart with the argument pattern or a table"
                    )));
                }
            }
        }
        for (id, label) in labels {
            match found.labels.get(&id) {
                Some(other) if *other != label => {
                    let names = [other.clone(), label];
                    found.label_conflicts.entry(id).or_insert(names);
                }
                _ => _ = found.labels.insert(id, label),
            }
        }
    }
    Ok(found)
}

/// Writes the columns of wells in one way: `B3` as `B03` if the plate has both.
fn unify_wells(files: &mut [Known]) {
    let key = |well: &Well| (well.row.clone(), well.column.parse::<u32>().unwrap_or(0));
    let mut longest: BTreeMap<(String, u32), String> = BTreeMap::new();
    for Known { well, .. } in files.iter() {
        let column = longest.entry(key(well)).or_default();
        if column.len() < well.column.len() {
            column.clone_from(&well.column);
        }
    }
    for Known { well, .. } in files {
        if let Some(column) = longest.get(&key(well)) {
            well.column.clone_from(column);
        }
    }
}

/// Refuses a file whose images, which are the fields of a well, differ.
fn check_images(path: &Path, contents: &Contents, images: &[Series]) -> Result<(), TaskError> {
    for (index, image) in images.iter().enumerate() {
        if let Some(difference) = contents.difference(image) {
            let cause = format!("image {} of {}: {difference}", index + 1, images.len());
            return Err(TaskError::about("cannot use", path, cause));
        }
    }
    Ok(())
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
        // Tables that are written on Windows.
        let name = &name.replace('\\', "/");
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
    let (mut paths, mut deeper): (Vec<_>, Vec<_>) = Default::default();
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for folder in search.folders {
        let mut names = Names::default();
        read_names(folder, "", search.extensions, MAX_DEPTH, &mut names)?;
        paths.extend(names.taken.into_iter().map(|name| (folder, name)));
        deeper.extend(names.deeper.into_iter().map(|name| (folder, name)));
        for (ending, n) in names.endings {
            *endings.entry(ending).or_default() += n;
        }
    }
    let names_of = |paths: &[(&PathBuf, String)]| -> Vec<String> {
        paths.iter().map(|(_, name)| name.clone()).collect()
    };
    let find_naming = |paths: &[(&PathBuf, String)]| match search.pattern {
        Some(pattern) => Naming::of_argument(pattern).map(Some),
        None => Ok(Naming::find(&names_of(paths))),
    };
    let mut naming = find_naming(&paths)?;
    let fits = |naming: &Option<Naming>, path: &str| {
        naming
            .as_ref()
            .is_some_and(|naming| naming.parse(path).is_some())
    };
    if !paths.iter().any(|(_, path)| fits(&naming, path)) {
        // Such as a picture of the plate next to the folder of its images.
        let naming_of_deeper = find_naming(&deeper)?;
        if deeper.iter().any(|(_, path)| fits(&naming_of_deeper, path)) {
            (naming, paths) = (naming_of_deeper, [deeper, paths].concat());
            deeper = Vec::new();
        }
    }
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for (folder, path) in &paths {
        match naming.as_ref().and_then(|naming| naming.parse(path)) {
            Some(name) => files.push((*folder, path, name)),
            None => others.push(folder.join(path)),
        }
    }
    if files.is_empty() {
        return Err(nothing_fits(search, &names_of(&paths), &endings));
    }
    if let Some((folder, first)) = deeper.first() {
        eprintln!(
            "warning: left out {} file(s) in folders next to images, such as {}; give their folder as another input to take them",
            deeper.len(),
            folder.join(first).display()
        );
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
    resolve_well_numbers(&mut files);
    let known = files.into_iter().map(|(folder, path, name)| {
        let plate = plate_of(folder, path, &name);
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

/// Sets the wells of files whose names have the number of the well only. All wells of a plate are
/// numbered in the same way, so the largest number decides how many columns the plate has.
fn resolve_well_numbers(files: &mut [(&PathBuf, &String, FileName)]) {
    let mut largest: BTreeMap<String, usize> = BTreeMap::new();
    for (folder, path, name) in files.iter() {
        if let Some(index) = name.index {
            let largest = largest.entry(plate_of(folder, path, name)).or_default();
            *largest = index.max(*largest);
        }
    }
    for (plate, largest) in &largest {
        let n_columns = n_columns_of(*largest);
        eprintln!(
            "plate {plate}: wells are numbered up to {largest}, as in a plate with {n_columns} columns; if it has others, set \
             the argument pattern or use a table"
        );
    }
    for (folder, path, name) in files.iter_mut().filter(|(.., name)| name.index.is_some()) {
        if let Some(largest) = largest.get(&plate_of(folder, path, name)) {
            name.resolve_number(n_columns_of(*largest));
        }
    }
}

/// The plate of a file: that of its name, or else of its folder.
fn plate_of(folder: &Path, path: &str, name: &FileName) -> String {
    let of_folder = || plate_of_folder(folder, path);
    name.plate.clone().unwrap_or_else(of_folder)
}

/// * `endings`: of the other files, with their numbers.
fn nothing_fits(
    search: &Search<'_>,
    names: &[String],
    endings: &BTreeMap<String, usize>,
) -> TaskError {
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
        let advice = match endings.iter().max_by_key(|(_, n)| **n) {
            None => ": correct the input folder or the argument extensions".to_owned(),
            Some((ending, n)) => format!(
                ", but {n} with the ending {ending}: add it to the argument extensions if they are TIFF or PNG files, convert them \
                 with `bfconvert` if they are other images, or correct the input folder"
            ),
        };
        return TaskError::new(format!(
            "no file with one of the endings {extensions} in {place}{advice}"
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
                    "time_point is {chosen}, but the files have the time points {first} to {last}; choose one of them"
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

/// Names of the image files below an input folder.
#[derive(Default)]
struct Names {
    /// Those of files that have no images in a folder above them.
    taken: Vec<String>,
    /// The others.
    deeper: Vec<String>,
    /// Endings of files that are no images, with their numbers.
    endings: BTreeMap<String, usize>,
}

/// Adds the files below a folder that have one of the endings, sorted; those whose name begins with
/// a dot are left alone.
fn read_names(
    folder: &Path,
    below: &str,
    extensions: &[String],
    depth: usize,
    names: &mut Names,
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
        } else if !ending.is_empty() {
            *names
                .endings
                .entry(ending.to_ascii_lowercase())
                .or_default() += 1;
        }
    }
    files.sort();
    folders.sort();
    let has_images = !files.is_empty();
    names
        .taken
        .extend(files.into_iter().map(|name| format!("{below}{name}")));
    if depth == 0 {
        return Ok(());
    }
    for name in folders {
        let mut inside = Names::default();
        let below = format!("{below}{name}/");
        read_names(
            &folder.join(&name),
            &below,
            extensions,
            depth - 1,
            &mut inside,
        )?;
        if has_images {
            names.deeper.append(&mut inside.taken);
        }
        names.taken.append(&mut inside.taken);
        names.deeper.append(&mut inside.deeper);
        for (ending, n) in inside.endings {
            *names.endings.entry(ending).or_default() += n;
        }
    }
    Ok(())
}

/// The first file of a plate that can be opened, and its images; `None` if none can be. Damaged
/// files fail their images later.
fn open_first(files: &[Known]) -> Option<(Known, Vec<Series>)> {
    for file in files.iter().take(MAX_OPENED) {
        if let Ok(opened) = source::open(&file.path) {
            for warning in opened.warnings() {
                eprintln!("warning: {}: {warning}", file.path.display());
            }
            return Some((file.clone(), opened.series().to_vec()));
        }
    }
    None
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
        let lacks_z = image.has_z_elsewhere && z.is_none();
        if lacks_z || image.has_channels_elsewhere && channel.is_none() {
            let what = if lacks_z { "Z planes" } else { "channels" };
            return Err(wrong(format!(
                "its OME-XML names other files with more {what} of its image; save the image as one file, for example with \
                 `bfconvert -bigtiff`, or name its parts with the argument pattern or in a table"
            )));
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
                .ok_or_else(|| {
                    format!(
                        "time_point is {chosen}, but it has {n_times} time points; choose one of 1 to {n_times}"
                    )
                })
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
