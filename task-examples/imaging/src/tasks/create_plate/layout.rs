//! The fields and Z planes that a plate should have.

use crate::files::Found;
use crate::image::{Channel, PlaneFile};
use crate::name::{Number, PlaneId, Well};
use crate::source::Position;
use fractal_task::TaskError;
use std::collections::{BTreeMap, BTreeSet};

/// Which fields and Z planes there should be.
pub(super) struct Layout {
    pub(super) fields: BTreeMap<Well, Vec<Number>>,
    pub(super) z: BTreeSet<Number>,
}

impl Layout {
    /// * `complete`: each well should have the fields that any well of the plate has.
    pub(super) fn of(planes: &BTreeMap<&PlaneId, &PlaneFile>, complete: bool) -> Self {
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
    pub(super) fn files(
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
