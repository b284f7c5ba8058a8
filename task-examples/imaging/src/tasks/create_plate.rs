//! The task "Create OME-Zarr plate": from a folder of image files, named or listed in a table, to a
//! plate with its wells and images, which have no pixels yet. One file of each plate is opened, to
//! find out what its files contain; a damaged or missing file is found by the conversion.

use super::Given;
use crate::files::{Found, Search, Sizes, find};
use crate::image::{Acquisition, Channel, PlaneFile, write_empty};
use crate::mosaic::{self, Location, Positions};
use crate::name::{Component, Number, PlaneId, Well, is_plate};
use crate::plate::{Plate, WellImage, plate_component};
use crate::source::Position;
use crate::table::Conditions;
use fractal_task::{TaskError, check_range};
use ome_zarr::group::Format;
use ome_zarr::ngff;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    layout: Option<String>,
    #[serde(default = "default_extensions")]
    extensions: Vec<String>,
    #[serde(default)]
    channels: Vec<ChannelChoice>,
    #[serde(default = "default_complete")]
    complete: bool,
    #[serde(default)]
    pixel_size_um: Option<f64>,
    #[serde(default)]
    z_step_um: Option<f64>,
    #[serde(default)]
    rgb_channels: bool,
    #[serde(default)]
    time_point: Option<u64>,
    #[serde(default)]
    ngff_version: Format,
    #[serde(default)]
    stitch: bool,
    #[serde(default)]
    positions: Option<String>,
    #[serde(default)]
    field_columns: Option<usize>,
    #[serde(default)]
    acquisitions: Vec<String>,
    #[serde(default)]
    plate_name: Option<String>,
    #[serde(default)]
    overwrite: bool,
}

/// The field of an image that has all fields of a well.
const STITCHED: &str = "all";

/// A channel that is used, and how it is shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelChoice {
    id: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    color: Option<String>,
    #[serde(default)]
    wavelength_id: Option<String>,
}

pub(super) fn default_extensions() -> Vec<String> {
    ["tif", "tiff", "png"].map(String::from).to_vec()
}

pub(super) fn default_complete() -> bool {
    true
}

/// The metadiff: the components of each level.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    plate: Vec<String>,
    well: Vec<String>,
    image: Vec<String>,
    channels: Vec<String>,
}

/// Makes the plates of the input folders.
///
/// # Errors
/// If an argument is wrong, a folder or the table cannot be read, no image is found, two files are
/// the same plane, or a plate exists and may not be replaced.
pub fn create_plate(given: &Given, args: Args) -> Result<Created, TaskError> {
    let format = args.ngff_version;
    create(
        &given.input_paths,
        &given.output_path,
        args,
        &mut |_, folder, acquisition| write_empty(folder, format, &acquisition),
    )
}

/// Creates the plates of the input folders, their wells, and what `write_image` writes for each
/// image.
///
/// * `write_image`: gets the component, the folder and the description of an image.
///
/// # Errors
/// As [`create_plate`], and those of `write_image`.
pub(super) fn create(
    inputs: &[PathBuf],
    output: &Path,
    args: Args,
    write_image: &mut dyn FnMut(&Component, &Path, Acquisition) -> Result<(), TaskError>,
) -> Result<Created, TaskError> {
    for (name, size) in [
        ("pixel_size_um", args.pixel_size_um),
        ("z_step_um", args.z_step_um),
    ] {
        size.map_or(Ok(()), |size| check_range(name, size, 1e-6..=1e6))?;
    }
    check_range("field_columns", args.field_columns.unwrap_or(1), 1..=1000)?;
    args.time_point.map_or(Ok(()), |time_point| {
        check_range("time_point", time_point, 0..=1_000_000)
    })?;
    let found = find(&Search {
        folders: inputs,
        extensions: &args.extensions,
        pattern: args.pattern.as_deref(),
        table: args.table.as_deref(),
        time_point: args.time_point,
        rgb_channels: args.rgb_channels,
    })?;
    let channels = choose_channels(&found, &args.channels)?;
    let conditions = read_conditions(inputs, args.layout.as_deref())?;
    let mut created = Created {
        plate: Vec::new(),
        well: Vec::new(),
        image: Vec::new(),
        channels: channels.iter().map(|channel| channel.id.clone()).collect(),
    };
    let positions = match &args.positions {
        Some(name) => Some(Positions::read(&find_input(name, inputs)?)?),
        None => None,
    };
    for group in group_plates(&found, &args)? {
        let sources: Vec<Source<'_>> = group
            .sources
            .iter()
            .map(|name| Source::of(name, &found, &channels, &args))
            .collect();
        let images = plan_images(&sources, args.stitch);
        let plate = Plate {
            name: group.name.clone(),
            format: args.ngff_version,
            acquisitions: group.sources.clone(),
            wells: images
                .iter()
                .map(|(well, images)| (well.clone(), well_images(images)))
                .collect(),
        };
        plate.write(output, args.overwrite, &mut |component, folder| {
            let (Some(well), Some(path)) = (&component.well, &component.image) else {
                return Ok(());
            };
            let Some(image) = path
                .parse()
                .ok()
                .and_then(|index: usize| images.get(well)?.get(index))
            else {
                return Ok(());
            };
            let source = &sources[image.acquisition];
            let located = Located {
                args: &args,
                positions: positions.as_ref(),
                found: &found,
                conditions: &conditions,
            };
            write_image(
                component,
                folder,
                source.describe(&group.name, well, image, &located)?,
            )
        })?;
        created.plate.push(plate_component(&group.name).to_string());
        created.well.extend(
            plate
                .well_components()
                .map(|component| component.to_string()),
        );
        created.image.extend(
            plate
                .image_components()
                .map(|component| component.to_string()),
        );
    }
    Ok(created)
}

/// A plate that is created, with the plates of the files that are its acquisitions.
struct Group {
    name: String,
    sources: Vec<String>,
}

fn group_plates(found: &Found, args: &Args) -> Result<Vec<Group>, TaskError> {
    let found: BTreeSet<&str> = found.planes.keys().map(|id| id.plate.as_str()).collect();
    let mut groups: Vec<Group> = Vec::new();
    if let Some(first) = args.acquisitions.first() {
        if let Some(unknown) = args
            .acquisitions
            .iter()
            .find(|name| !found.contains(name.as_str()))
        {
            let found: Vec<&str> = found.into_iter().collect();
            return Err(TaskError::new(format!(
                "acquisitions: no file belongs to a plate {unknown:?}; there are {}",
                found.join(", ")
            )));
        }
        let name = args.plate_name.as_ref().unwrap_or(first).clone();
        if !is_plate(&name) {
            return Err(TaskError::new(format!(
                "plate_name {name:?} cannot be the name of a folder"
            )));
        }
        groups.push(Group {
            name,
            sources: args.acquisitions.clone(),
        });
    }
    let others = found
        .into_iter()
        .filter(|name| !args.acquisitions.iter().any(|known| known == name));
    groups.extend(others.map(|name| Group {
        name: name.to_owned(),
        sources: vec![name.to_owned()],
    }));
    for (index, group) in groups.iter().enumerate() {
        let mut sources = group.sources.clone();
        sources.sort();
        sources.dedup();
        if sources.len() < group.sources.len()
            || groups[..index].iter().any(|other| other.name == group.name)
        {
            return Err(TaskError::new(format!(
                "acquisitions: {} would be written twice; correct acquisitions and plate_name",
                group.name
            )));
        }
    }
    Ok(groups)
}

/// What the files have of one acquisition of a plate.
struct Source<'a> {
    name: &'a str,
    planes: BTreeMap<&'a PlaneId, &'a PlaneFile>,
    layout: Layout,
    channels: Vec<Channel>,
    pixel_size_um: f64,
    z_step_um: f64,
}

/// An image that is created.
struct Planned {
    acquisition: usize,
    /// One, or those that become one image.
    fields: Vec<Number>,
}

/// Where fields are, how files that are missing are named, and the conditions of wells.
struct Located<'a> {
    args: &'a Args,
    positions: Option<&'a Positions>,
    found: &'a Found,
    conditions: &'a Conditions,
}

/// The images of each well, acquisition by acquisition.
fn plan_images(sources: &[Source<'_>], stitch: bool) -> BTreeMap<Well, Vec<Planned>> {
    let mut images: BTreeMap<Well, Vec<Planned>> = BTreeMap::new();
    for (acquisition, source) in sources.iter().enumerate() {
        for (well, fields) in &source.layout.fields {
            let size = if stitch { fields.len().max(1) } else { 1 };
            let of_well = fields.chunks(size).map(|fields| Planned {
                acquisition,
                fields: fields.to_vec(),
            });
            images.entry(well.clone()).or_default().extend(of_well);
        }
    }
    images
}

fn well_images(images: &[Planned]) -> Vec<WellImage> {
    let image = |(index, planned): (usize, &Planned)| WellImage {
        path: index.to_string(),
        acquisition: planned.acquisition,
    };
    images.iter().enumerate().map(image).collect()
}

impl<'a> Source<'a> {
    fn of(name: &'a str, found: &'a Found, channels: &[Channel], args: &Args) -> Self {
        let has = |id: &PlaneId| id.plate == name;
        // The cycles of a plate have different channels.
        let is_used = |channel: &&Channel| {
            args.acquisitions.is_empty()
                || found
                    .planes
                    .keys()
                    .any(|id| has(id) && id.channel.0 == channel.id)
        };
        let channels: Vec<Channel> = channels.iter().filter(is_used).cloned().collect();
        let planes: BTreeMap<&PlaneId, &PlaneFile> = found
            .planes
            .iter()
            .filter(|(id, _)| has(id) && channels.iter().any(|channel| channel.id == id.channel.0))
            .collect();
        let layout = Layout::of(&planes, args.complete);
        let (pixel_size_um, z_step_um) =
            sizes_of(name, found.sizes.get(name), args, layout.z.len());
        Self {
            name,
            planes,
            layout,
            channels,
            pixel_size_um,
            z_step_um,
        }
    }

    /// * `plate`: the plate that is created.
    fn describe(
        &self,
        plate: &str,
        well: &Well,
        image: &Planned,
        located: &Located<'_>,
    ) -> Result<Acquisition, TaskError> {
        let stitch = located.args.stitch;
        let files = |field: &Number| {
            self.layout.files(
                &self.planes,
                located.found,
                (self.name, well, field),
                &self.channels,
            )
        };
        let mut acquisition = Acquisition {
            plate: plate.to_owned(),
            well: well.clone(),
            field: Number(STITCHED.to_owned()),
            acquisition: image.acquisition,
            pixel_size_um: self.pixel_size_um,
            z_step_um: self.z_step_um,
            conditions: located.conditions.of(self.name, well),
            channels: self.channels.clone(),
            files: Vec::new(),
            mosaic: Vec::new(),
            fields: Vec::new(),
            stage_um: None,
            correction: None,
        };
        let stage = |field: &Number| {
            located
                .positions
                .and_then(|positions| positions.find(self.name, well, field))
        };
        match image.fields.as_slice() {
            [field] if !stitch => {
                acquisition.field = field.clone();
                acquisition.stage_um = stage(field);
                acquisition.files = files(field)?;
            }
            fields => {
                for (index, field) in fields.iter().enumerate() {
                    let location = match (stage(field), located.args.field_columns) {
                        (Some(position), _) => Location::StageUm(position),
                        (None, Some(n_columns)) if located.positions.is_none() => {
                            mosaic::cell(index, n_columns)
                        }
                        _ if fields.len() == 1 => mosaic::cell(0, 1),
                        _ => {
                            return Err(without_position(
                                well,
                                field,
                                located.args.positions.as_deref(),
                            ));
                        }
                    };
                    let part = mosaic::Part {
                        field: field.clone(),
                        location,
                        files: files(field)?,
                    };
                    acquisition.mosaic.push(part);
                }
            }
        }
        Ok(acquisition)
    }
}

fn without_position(well: &Well, field: &Number, positions: Option<&str>) -> TaskError {
    let way_out = match positions {
        Some(table) => format!("add it to {table}"),
        None => {
            "name a table of positions in the argument positions, or give field_columns for a grid"
                .to_owned()
        }
    };
    TaskError::new(format!(
        "field {field} of well {well} has no position: {way_out}, or set stitch to false"
    ))
}

/// Reads the layout of the plates, if there is one.
fn read_conditions(inputs: &[PathBuf], layout: Option<&str>) -> Result<Conditions, TaskError> {
    let Some(layout) = layout else {
        return Ok(Conditions::default());
    };
    Conditions::read(&find_input(layout, inputs)?)
}

/// A file in one of the input folders.
fn find_input(name: &str, folders: &[PathBuf]) -> Result<PathBuf, TaskError> {
    let mut paths = folders.iter().map(|folder| folder.join(name));
    let path = paths
        .clone()
        .find(|path| path.is_file())
        .or_else(|| paths.next());
    path.ok_or_else(|| TaskError::new("input_paths is empty: give the folder of the images"))
}

/// Width and height of a pixel, and the distance of two Z planes, in micrometers: those of the
/// arguments, then those of the files, and 1 with a warning if neither has them.
fn sizes_of(plate: &str, stated: Option<&Sizes>, args: &Args, n_z: usize) -> (f64, f64) {
    let stated = stated.copied().unwrap_or_default();
    let choose = |argument: Option<f64>, stated: Option<f64>, name: &str, what: &str| {
        argument.or(stated).unwrap_or_else(|| {
            eprintln!(
                "warning: the files of plate {plate} do not state {what}; 1 um is taken, and lengths in um are wrong: set the \
                 argument {name}"
            );
            1.0
        })
    };
    let pixel_size_um = choose(
        args.pixel_size_um,
        stated.pixel_um,
        "pixel_size_um",
        "the size of a pixel",
    );
    if n_z < 2 {
        return (
            pixel_size_um,
            args.z_step_um.or(stated.z_step_um).unwrap_or(1.0),
        );
    }
    (
        pixel_size_um,
        choose(
            args.z_step_um,
            stated.z_step_um,
            "z_step_um",
            "the distance of Z planes",
        ),
    )
}

fn choose_channels(files: &Found, choices: &[ChannelChoice]) -> Result<Vec<Channel>, TaskError> {
    let found: BTreeSet<&Number> = files.planes.keys().map(|id| &id.channel).collect();
    let all: Vec<ChannelChoice>;
    let choices = if choices.is_empty() {
        all = found
            .iter()
            .map(|id| ChannelChoice {
                id: id.to_string(),
                label: None,
                color: None,
                wavelength_id: None,
            })
            .collect();
        &all
    } else {
        choices
    };
    let mut channels: Vec<Channel> = Vec::new();
    for (
        index,
        ChannelChoice {
            id,
            label,
            color,
            wavelength_id,
        },
    ) in choices.iter().enumerate()
    {
        if !found.iter().any(|known| known.0 == *id) {
            let found: Vec<&str> = found.iter().map(|id| id.0.as_str()).collect();
            return Err(TaskError::new(format!(
                "channels: no file has the channel {id:?}; there are {}",
                found.join(", ")
            )));
        }
        if !id
            .chars()
            .all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        {
            return Err(TaskError::new(format!(
                "channels: {id:?} has other characters than letters, digits, - and _; change it in the table, and give it a label"
            )));
        }
        if channels.iter().any(|channel| channel.id == *id) {
            return Err(TaskError::new(format!(
                "channels: {id:?} is there twice; take one of them away"
            )));
        }
        let label = label
            .as_ref()
            .or_else(|| files.labels.get(id))
            .unwrap_or(id);
        let default_color = match label.as_str() {
            "R" => "FF0000",
            "G" => "00FF00",
            "B" => "0000FF",
            _ => ngff::color(index),
        };
        let color = color.as_deref().unwrap_or(default_color).to_owned();
        if color.len() != 6 || !color.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TaskError::new(format!(
                "channels: color {color:?} of {id} is not six hexadecimal digits"
            )));
        }
        let wavelength_id = wavelength_id.clone();
        channels.push(Channel {
            id: id.clone(),
            label: label.clone(),
            color,
            wavelength_id,
        });
    }
    Ok(channels)
}

/// Which fields and Z planes there should be.
struct Layout {
    fields: BTreeMap<Well, Vec<Number>>,
    z: BTreeSet<Number>,
}

impl Layout {
    /// * `complete`: each well should have the fields that any well of the plate has.
    fn of(planes: &BTreeMap<&PlaneId, &PlaneFile>, complete: bool) -> Self {
        let mut fields: BTreeMap<Well, BTreeSet<Number>> = BTreeMap::new();
        for id in planes.keys() {
            fields
                .entry(id.well.clone())
                .or_default()
                .insert(id.field.clone());
        }
        if complete {
            let all: BTreeSet<Number> = fields.values().flatten().cloned().collect();
            fields
                .values_mut()
                .for_each(|fields| fields.clone_from(&all));
        }
        let fields = fields
            .into_iter()
            .map(|(well, fields)| (well, fields.into_iter().collect()))
            .collect();
        Self {
            fields,
            z: planes.keys().map(|id| id.z.clone()).collect(),
        }
    }

    /// The files of an image, by channel and Z; those that are missing under the names that they
    /// should have.
    fn files(
        &self,
        planes: &BTreeMap<&PlaneId, &PlaneFile>,
        found: &Found,
        (plate, well, field): (&str, &Well, &Number),
        channels: &[Channel],
    ) -> Result<Vec<Vec<PlaneFile>>, TaskError> {
        let file = |channel: &Channel, z: &Number| {
            let id = PlaneId {
                plate: plate.to_owned(),
                well: well.clone(),
                field: field.clone(),
                channel: Number(channel.id.clone()),
                z: z.clone(),
            };
            match (planes.get(&id), found.names.get(plate)) {
                (Some(file), _) => Ok((*file).clone()),
                (None, Some((folder, name))) => {
                    let file = folder.join(name.of(well, field, z, &id.channel));
                    Ok(PlaneFile {
                        file,
                        position: position_like(planes, &id),
                    })
                }
                (None, None) => Err(TaskError::new(format!(
                    "the table has no row for plate {plate}, well {well}, field {field}, channel {}{}, which other images have; \
                     add it, or set the argument complete to false if the well lacks the whole field",
                    channel.id,
                    if z.0.is_empty() {
                        String::new()
                    } else {
                        format!(", z {z}")
                    }
                ))),
            }
        };
        channels
            .iter()
            .map(|channel| self.z.iter().map(|z| file(channel, z)).collect())
            .collect()
    }
}

/// Where the plane of a missing file will be in it: as in the other files of the plate.
fn position_like(planes: &BTreeMap<&PlaneId, &PlaneFile>, id: &PlaneId) -> Option<Position> {
    let is_like = |other: &PlaneId| (&other.channel, &other.z) == (&id.channel, &id.z);
    let mut like = planes.iter().filter(|(other, _)| is_like(other));
    let same_field = like.clone().find(|(other, _)| other.field == id.field);
    same_field
        .or_else(|| like.next())
        .and_then(|(_, file)| file.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    /// Calls the task on a folder with these files, of which only a table has contents, and gives
    /// the metadiff with what each image of `plate1.zarr` says of itself.
    fn check(
        name: &str,
        files: &[&str],
        table: Option<&str>,
        args: Value,
    ) -> Result<(Value, Vec<Acquisition>), String> {
        let folder =
            std::env::temp_dir().join(format!("imaging-create-{}-{name}", std::process::id()));
        let (input, output) = (folder.join("in"), folder.join("out"));
        fs::create_dir_all(&input).unwrap();
        files
            .iter()
            .for_each(|file| fs::write(input.join(file), "").unwrap());
        table
            .iter()
            .for_each(|text| fs::write(input.join("files.csv"), text).unwrap());
        let mut parameters = json!({"input_paths": [input], "output_path": output, "metadata": {}});
        parameters
            .as_object_mut()
            .unwrap()
            .extend(args.as_object().unwrap().clone());
        let (given, args) = crate::tasks::split(parameters.as_object().unwrap().clone()).unwrap();
        let result = create_plate(&given, args)
            .map_err(|err| err.to_string())
            .map(|created| {
                let read =
                    |image: &String| crate::image::read_acquisition(&output.join(image)).unwrap();
                let images = created.image.iter().map(read).collect();
                (serde_json::to_value(created).unwrap(), images)
            });
        fs::remove_dir_all(&folder).unwrap();
        result.map_err(|message| message.replace(&input.display().to_string(), "IN"))
    }

    fn names(image: &Acquisition) -> Vec<Vec<String>> {
        let name = |plane: &PlaneFile| plane.file.file_name().unwrap().to_str().unwrap().to_owned();
        image
            .files
            .iter()
            .map(|files| files.iter().map(name).collect())
            .collect()
    }

    const FILES: [&str; 5] = [
        "p_C10_F1_Z1_C01.tif",
        "p_C2_F1_Z1_C01.tif",
        "p_C2_F1_Z2_C01.TIF",
        "p_C2_F2_Z1_C01.tif",
        "p_C2_F2_Z2_C01.tif",
    ];

    #[test]
    fn missing_files_have_the_names_that_they_should_have() {
        let (created, images) = check("complete", &FILES, None, json!({})).unwrap();
        assert_eq!(created["well"], json!(["p.zarr/C/2", "p.zarr/C/10"]));
        assert_eq!(
            created["image"],
            json!([
                "p.zarr/C/2/0",
                "p.zarr/C/2/1",
                "p.zarr/C/10/0",
                "p.zarr/C/10/1"
            ])
        );
        assert_eq!(
            names(&images[0]),
            [["p_C2_F1_Z1_C01.tif", "p_C2_F1_Z2_C01.TIF"]]
        );
        assert_eq!(
            names(&images[3]),
            [["p_C10_F2_Z1_C01.tif", "p_C10_F2_Z2_C01.tif"]]
        );
        let (created, images) =
            check("incomplete", &FILES, None, json!({"complete": false})).unwrap();
        assert_eq!(
            created["image"],
            json!(["p.zarr/C/2/0", "p.zarr/C/2/1", "p.zarr/C/10/0"])
        );
        assert_eq!(
            names(&images[2]),
            [["p_C10_F1_Z1_C01.tif", "p_C10_F1_Z2_C01.tif"]]
        );
    }

    #[test]
    fn a_table_says_what_names_do_not() {
        let table = "file,plate,well,field,channel\nx.tif,q,A01,1,DAPI\ny.tif,q,A01,1,GFP\n";
        let args = json!({"table": "files.csv", "channels": [{"id": "GFP", "label": "actin, green"}, {"id": "DAPI"}]});
        let (created, images) = check("table", &["x.tif"], Some(table), args.clone()).unwrap();
        assert_eq!(
            (&created["image"], &created["channels"]),
            (&json!(["q.zarr/A/01/0"]), &json!(["GFP", "DAPI"]))
        );
        assert_eq!(
            (names(&images[0]), images[0].channels[0].label.as_str()),
            (
                vec![vec!["y.tif".to_owned()], vec!["x.tif".to_owned()]],
                "actin, green"
            )
        );
        let error = check(
            "row",
            &[],
            Some(&format!("{table}z.tif,q,A02,1,GFP\n")),
            args,
        )
        .unwrap_err();
        assert!(
            error.starts_with(
                "the table has no row for plate q, well A02, field 1, channel DAPI, which"
            ),
            "{error}"
        );
        let error = check(
            "twice",
            &[],
            Some(&format!("{table}z.tif,q,A01,1,GFP\n")),
            json!({"table": "files.csv"}),
        )
        .unwrap_err();
        assert_eq!(
            error,
            "cannot use IN/files.csv: IN/y.tif and IN/z.tif are the same plane; correct one of the two rows"
        );
    }

    #[test]
    fn time_points_are_chosen() {
        let files = [
            "p_B03_T0001F001L01A01Z01C01.png",
            "p_B03_T0002F001L01A01Z01C01.png",
        ];
        let error = check("times", &files, None, json!({})).unwrap_err();
        assert!(
            error.starts_with(
                "the files have 2 time points, T0001 to T0002, but an image has one: set"
            ),
            "{error}"
        );
        let (_, images) = check("time", &files, None, json!({"time_point": 2})).unwrap();
        assert_eq!(names(&images[0]), [["p_B03_T0002F001L01A01Z01C01.png"]]);
        let error = check("no-time", &files, None, json!({"time_point": 3})).unwrap_err();
        assert_eq!(
            error,
            "time_point is 3, but the files have the time points T0001 to T0002"
        );
    }

    #[test]
    fn channels_of_microscopes_have_ids_and_labels() {
        let files = [
            "A - 1(fld 1 wv UV - DAPI z 1).tif",
            "A - 1(fld 1 wv UV - DAPI z 2).tif",
        ];
        let (created, images) = check("incell", &files, None, json!({})).unwrap();
        assert_eq!(created["channels"], json!(["UV-DAPI"]));
        assert_eq!(
            (
                images[0].channels[0].label.as_str(),
                images[0].files[0].len()
            ),
            ("UV - DAPI", 2)
        );
    }

    #[test]
    fn a_layout_gives_wells_their_conditions() {
        let table = "file,plate,well,field,channel\nx.tif,q,A01,1,C01\n";
        let args = json!({"table": "files.csv", "layout": "files.csv"});
        let (_, images) = check("layout", &["x.tif"], Some(table), args).unwrap();
        assert_eq!(
            images[0].conditions[1],
            ("field".to_owned(), "1".to_owned())
        );
    }

    #[test]
    fn fields_of_a_well_become_one_image() {
        let args = json!({"stitch": true, "field_columns": 2, "complete": false});
        let (created, images) = check("stitch", &FILES, None, args).unwrap();
        assert_eq!(created["image"], json!(["p.zarr/C/2/0", "p.zarr/C/10/0"]));
        let cells: Vec<Location> = images[0].mosaic.iter().map(|part| part.location).collect();
        assert_eq!(cells, [Location::Cell([0, 0]), Location::Cell([1, 0])]);
        assert_eq!(
            (images[0].mosaic[1].files[0].len(), images[0].files.len()),
            (2, 0)
        );
        let error = check("no-position", &FILES, None, json!({"stitch": true})).unwrap_err();
        assert!(
            error.starts_with("field F1 of well C2 has no position: name a table"),
            "{error}"
        );

        let table = "field,x,y\nF1,0,0\nF2,100,-5\n";
        let args = json!({"stitch": true, "positions": "files.csv"});
        let (_, images) = check("positions", &FILES, Some(table), args).unwrap();
        assert_eq!(
            images[0].mosaic[1].location,
            Location::StageUm([100.0, -5.0])
        );
        let (_, images) = check(
            "apart",
            &FILES,
            Some(table),
            json!({"positions": "files.csv"}),
        )
        .unwrap();
        assert_eq!((images[1].stage_um, images.len()), (Some([100.0, -5.0]), 4));
    }

    #[test]
    fn cycles_are_acquisitions_of_one_plate() {
        let files = [
            "a_B03_F1_C01.tif",
            "a_B03_F2_C01.tif",
            "b_B03_F1_C02.tif",
            "c_B03_F1_C01.tif",
        ];
        let args = json!({"acquisitions": ["a", "b"], "plate_name": "p"});
        let (created, images) = check("cycles", &files, None, args).unwrap();
        assert_eq!(created["plate"], json!(["p.zarr", "c.zarr"]));
        let expected = [
            "p.zarr/B/03/0",
            "p.zarr/B/03/1",
            "p.zarr/B/03/2",
            "c.zarr/B/03/0",
        ];
        assert_eq!(created["image"], json!(expected));
        let about = |image: &Acquisition| {
            (
                image.acquisition,
                image.plate.clone(),
                image.channels[0].id.clone(),
            )
        };
        assert_eq!(about(&images[1]), (0, "p".to_owned(), "C01".to_owned()));
        assert_eq!(about(&images[2]), (1, "p".to_owned(), "C02".to_owned()));
        let error = check(
            "unknown-cycle",
            &files,
            None,
            json!({"acquisitions": ["a", "x"]}),
        )
        .unwrap_err();
        assert_eq!(
            error,
            "acquisitions: no file belongs to a plate \"x\"; there are a, b, c"
        );
        let error = check(
            "cycle-name",
            &files,
            None,
            json!({"acquisitions": ["a"], "plate_name": "c"}),
        )
        .unwrap_err();
        assert!(error.contains("c would be written twice"), "{error}");
    }

    #[test]
    fn wrong_channels_and_folders_are_refused() {
        for (name, args, expected) in [
            (
                "unknown",
                json!({"channels": [{"id": "C07"}]}),
                "no file has the channel \"C07\"; there are C01",
            ),
            (
                "again",
                json!({"channels": [{"id": "C01"}, {"id": "C01"}]}),
                "\"C01\" is there twice; take one of them away",
            ),
            (
                "color",
                json!({"channels": [{"id": "C01", "color": "blue"}]}),
                "is not six hexadecimal digits",
            ),
            (
                "png",
                json!({"extensions": ["png"]}),
                "no file with one of the endings png in IN: correct the input folder",
            ),
            (
                "pattern",
                json!({"pattern": "(?P<well>x)"}),
                "IN: 5 files, such as p_C10_F1_Z1_C01.tif; none fits the pattern \"(?P<well>x)\"; set the argument pattern",
            ),
            (
                "size",
                json!({"pixel_size_um": 0.0}),
                "pixel_size_um is 0: it must be from 0.000001 to 1000000",
            ),
        ] {
            let error = check(name, &FILES, None, args).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
