//! The task "Copy plate structure": for each plate one with the same wells and images, without
//! pixels, that later tasks fill.

use super::Given;
use crate::image::{Acquisition, read_acquisition, write_empty};
use crate::name::is_plate;
use crate::plate::{Plate, plate_component};
use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default = "default_suffix")]
    pub(super) suffix: String,
    #[serde(default)]
    pub(super) overwrite: bool,
}

pub(super) fn default_suffix() -> String {
    "mip".to_owned()
}

impl Args {
    /// Refuses a suffix that cannot be part of a folder's name.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        let suffix = &self.suffix;
        if !suffix.is_empty() && is_plate(suffix) {
            return Ok(());
        }
        Err(TaskError::new(format!(
            "suffix {suffix:?} cannot be part of a folder's name; choose one such as \"mip\""
        )))
    }
}

/// The metadiff: the components of the new plates take the place of the old ones.
#[derive(Debug, Serialize)]
pub struct Copied {
    plate: Vec<String>,
    well: Vec<String>,
    image: Vec<String>,
    copy_ome_zarr: Copies,
}

/// Which plate each new plate is a copy of, as Fractal has it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Copies {
    /// What was added to the names.
    pub suffix: String,
    /// From the name of a new plate to the path of the plate that it is a copy of.
    pub sources: BTreeMap<String, String>,
}

/// Copies the structure of all plates.
///
/// # Errors
/// If a plate cannot be read, or a copy exists and may not be replaced.
pub fn copy_structure(given: &Given, args: Args) -> Result<Copied, TaskError> {
    args.check()?;
    let Args { suffix, .. } = args;
    let mut copied = Copied {
        plate: Vec::new(),
        well: Vec::new(),
        image: Vec::new(),
        copy_ome_zarr: Copies::default(),
    };
    for source in given.plates()? {
        let old = Plate::read(&given.output_path, &source.plate)?;
        let format = old.format;
        let new = Plate {
            name: format!("{}_{suffix}", source.plate),
            ..old
        };
        new.write(
            &given.output_path,
            args.overwrite,
            &mut |component, folder| {
                let acquisition = read_acquisition(
                    &component.in_plate(&source.plate).folder(&given.output_path),
                )?;
                write_empty(
                    folder,
                    format,
                    &Acquisition {
                        contents: None,
                        files: Vec::new(),
                        mosaic: Vec::new(),
                        ..acquisition
                    },
                )
            },
        )?;
        copied.plate.push(plate_component(&new.name).to_string());
        copied
            .well
            .extend(new.well_components().map(|component| component.to_string()));
        copied.image.extend(
            new.image_components()
                .map(|component| component.to_string()),
        );
        copied.copy_ome_zarr.sources.insert(
            new.name,
            given
                .output_path
                .join(source.to_string())
                .display()
                .to_string(),
        );
    }
    copied.copy_ome_zarr.suffix = suffix;
    Ok(copied)
}
