//! The images of a plate, and what each of them is made of.

use super::Args;
use super::layout::Layout;
use super::stages::Stages;
use crate::contents::Contents;
use crate::files::Found;
use crate::image::{Acquisition, Channel, PlaneFile};
use crate::mosaic::{self, Location, Positions};
use crate::name::{Number, PlaneId, Well};
use crate::plate::WellImage;
use crate::table::Conditions;
use fractal_task::TaskError;
use std::collections::BTreeMap;

/// The field of an image that has all fields of a well.
const STITCHED: &str = "all";

/// What the files have of one acquisition of a plate.
pub(super) struct Source<'a> {
    name: &'a str,
    planes: BTreeMap<&'a PlaneId, &'a PlaneFile>,
    layout: Layout,
    stages: Stages,
    channels: Vec<Channel>,
    pixel_size_um: f64,
    z_step_um: f64,
    contents: Option<Contents>,
}

/// An image that is created.
pub(super) struct Planned {
    pub(super) acquisition: usize,
    /// One, or those that become one image.
    fields: Vec<Number>,
}

/// Where fields are, how files that are missing are named, and the conditions of wells.
pub(super) struct Located<'a> {
    pub(super) args: &'a Args,
    pub(super) positions: Option<&'a Positions>,
    pub(super) found: &'a Found,
    pub(super) conditions: &'a Conditions,
}

/// The images of each well, acquisition by acquisition.
pub(super) fn plan_images(sources: &[Source<'_>], stitch: bool) -> BTreeMap<Well, Vec<Planned>> {
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

pub(super) fn well_images(images: &[Planned]) -> Vec<WellImage> {
    let image = |(index, planned): (usize, &Planned)| WellImage {
        path: index.to_string(),
        acquisition: planned.acquisition,
    };
    images.iter().enumerate().map(image).collect()
}

impl<'a> Source<'a> {
    /// # Errors
    /// If the files state pixels that are not square, and no argument replaces their size.
    pub(super) fn of(
        name: &'a str,
        found: &'a Found,
        channels: &[Channel],
        args: &Args,
    ) -> Result<Self, TaskError> {
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
        let stages = if args.stitch && args.positions.is_none() {
            let stages = Stages::read(&planes, &layout.fields);
            stages.report(name, args.field_columns);
            stages
        } else {
            Stages::default()
        };
        let mut contents = found.contents.get(name).cloned();
        let (pixel_size_um, z_step_um) = sizes_of(name, contents.as_ref(), args, layout.z.len())?;
        if let Some(contents) = contents.as_mut().filter(|_| layout.z.len() < 2) {
            contents.z_step_um = None;
        }
        Ok(Self {
            name,
            planes,
            layout,
            stages,
            channels,
            pixel_size_um,
            z_step_um,
            contents,
        })
    }

    /// * `plate`: the plate that is created.
    pub(super) fn describe(
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
            contents: self.contents.clone(),
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
                    let location = stage(field)
                        .map(Location::StageUm)
                        .or_else(|| self.stages.find(well, index))
                        .or_else(|| located.cell_of(index, fields.len()))
                        .ok_or_else(|| self.without_position(well, field, located.args))?;
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

    fn without_position(&self, well: &Well, field: &Number, args: &Args) -> TaskError {
        let (cause, way_out) = match &args.positions {
            Some(table) => (String::new(), format!("add it to {table}")),
            None => (
                self.stages
                    .why_not(well)
                    .map_or(String::new(), |cause| format!(", because {cause}")),
                "name a table of positions in the argument positions, or give field_columns for a grid"
                    .to_owned(),
            ),
        };
        TaskError::new(format!(
            "field {field} of well {well} has no position{cause}: {way_out}, or set stitch to false"
        ))
    }
}

impl Located<'_> {
    /// The location of a field in a grid; `None` if there is none, or a table has the positions.
    fn cell_of(&self, index: usize, n_fields: usize) -> Option<Location> {
        match self.args.field_columns {
            Some(n_columns) if self.positions.is_none() => Some(mosaic::cell(index, n_columns)),
            _ => (n_fields == 1).then(|| mosaic::cell(0, 1)),
        }
    }
}

/// Width and height of a pixel, and the distance of two Z planes, in micrometers: those of the
/// arguments, then those of the files, and 1 with a warning if neither has them.
///
/// # Errors
/// If the pixels of the files are not square, and the argument is missing.
fn sizes_of(
    plate: &str,
    contents: Option<&Contents>,
    args: &Args,
    n_z: usize,
) -> Result<(f64, f64), TaskError> {
    let stated_size = contents.and_then(|contents| contents.pixel_size_um);
    let stated_step = contents.and_then(|contents| contents.z_step_um);
    if let (Some([x, y]), None) = (stated_size, args.pixel_size_um)
        && (x / y - 1.0).abs() > 1e-3
    {
        return Err(TaskError::new(format!(
            "the pixels of plate {plate} have {x} x {y} um, but the pixels of an image must be square: set the argument \
             pixel_size_um to the size that both sides get, or resample the images"
        )));
    }
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
        stated_size.map(|[x, _]| x),
        "pixel_size_um",
        "the size of a pixel",
    );
    let z_step_um = if n_z < 2 {
        args.z_step_um.or(stated_step).unwrap_or(1.0)
    } else {
        choose(
            args.z_step_um,
            stated_step,
            "z_step_um",
            "the distance of Z planes",
        )
    };
    Ok((pixel_size_um, z_step_um))
}
