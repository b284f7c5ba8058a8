//! Positions of the fields that their files state, for plates that are stitched without a table of
//! positions.

use crate::image::PlaneFile;
use crate::mosaic::Location;
use crate::name::{Number, PlaneId, Well};
use crate::source::{self, ImageFile, Stage};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Locations of the fields of wells, in the order of the fields; or why the files of a well do not
/// state them.
#[derive(Debug, Default)]
pub(super) struct Stages(BTreeMap<Well, Result<Vec<Location>, String>>);

impl Stages {
    /// Opens a file of each field of the wells that have several.
    ///
    /// * `fields`: the fields that wells should have.
    pub(super) fn read(
        planes: &BTreeMap<&PlaneId, &PlaneFile>,
        fields: &BTreeMap<Well, Vec<Number>>,
    ) -> Self {
        let mut files: BTreeMap<(&Well, &Number), &PlaneFile> = BTreeMap::new();
        for (id, file) in planes {
            files.entry((&id.well, &id.field)).or_insert(file);
        }
        // The images of one file may be the fields of a well.
        let mut last: Option<(PathBuf, ImageFile)> = None;
        let mut stages = BTreeMap::new();
        for (well, fields) in fields.iter().filter(|(_, fields)| fields.len() > 1) {
            let of_well = fields.iter().map(|field| {
                let file = files.get(&(well, field)).copied();
                let location = file.map_or(Ok(Location::InFile), |file| locate(file, &mut last));
                Ok((field, location?))
            });
            // The first field without a position ends the search.
            let of_well = of_well
                .collect::<Result<Vec<_>, String>>()
                .and_then(|locations| check_distinct(&locations));
            stages.insert(well.clone(), of_well);
        }
        Self(stages)
    }

    /// The location of a field.
    ///
    /// * `index`: index of the field in its well.
    pub(super) fn find(&self, well: &Well, index: usize) -> Option<Location> {
        let locations = self.0.get(well)?.as_ref().ok()?;
        locations.get(index).copied()
    }

    /// Why the files of a well do not state the positions of its fields.
    pub(super) fn why_not(&self, well: &Well) -> Option<&str> {
        self.0.get(well)?.as_ref().err().map(String::as_str)
    }

    /// Prints where the positions of the fields of a plate are from.
    ///
    /// * `n_columns`: the argument `field_columns`.
    pub(super) fn report(&self, plate: &str, n_columns: Option<usize>) {
        let without = self
            .0
            .iter()
            .find_map(|(well, of_well)| Some((well, of_well.as_ref().err()?)));
        let n_without = self.0.values().filter(|of_well| of_well.is_err()).count();
        let n_with = self.0.len() - n_without;
        if n_with > 0 {
            let unused = match n_columns {
                Some(_) if n_without == 0 => ", and field_columns is not used",
                _ => "",
            };
            eprintln!(
                "plate {plate}: the positions of the fields are those that the files of {n_with} well(s) state, with y \
                 downwards{unused}"
            );
        }
        if let (Some((well, cause)), Some(n_columns)) = (without, n_columns) {
            eprintln!(
                "plate {plate}: the fields of {n_without} well(s), such as {well}, are a grid of {n_columns} columns, because \
                 {cause}"
            );
        }
    }
}

/// Returns the location that a file states for a plane, or why it states none. A file that cannot
/// be opened fails its image later, or is repaired until then.
fn locate(plane: &PlaneFile, last: &mut Option<(PathBuf, ImageFile)>) -> Result<Location, String> {
    if last.as_ref().is_none_or(|(path, _)| *path != plane.file) {
        *last = source::open(&plane.file)
            .ok()
            .map(|file| (plane.file.clone(), file));
    }
    let Some((path, file)) = last else {
        return Ok(Location::InFile);
    };
    match file.stage(plane.position) {
        Some(Stage::Um(stage)) => Ok(Location::StageUm(stage)),
        Some(Stage::OtherUnit) => Err(format!(
            "{} states its position without a unit of length (reference frame)",
            path.display()
        )),
        None => Err(format!("{} states no position", path.display())),
    }
}

/// Refuses positions that are equal, which are no positions: some programs write zeros.
fn check_distinct(locations: &[(&Number, Location)]) -> Result<Vec<Location>, String> {
    for (index, (field, location)) in locations.iter().enumerate() {
        let same =
            |other: &&(&Number, Location)| other.1 == *location && *location != Location::InFile;
        if let Some((other, _)) = locations[..index].iter().find(same) {
            return Err(format!(
                "the files of the fields {other} and {field} state the same position"
            ));
        }
    }
    let is_stated = |location: &Location| matches!(location, Location::StageUm(_));
    if !locations.iter().any(|(_, location)| is_stated(location)) {
        return Err("none of its files can be read".to_owned());
    }
    Ok(locations.iter().map(|(_, location)| *location).collect())
}
