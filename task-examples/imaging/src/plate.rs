//! OME-NGFF plates on disk: which wells a plate has, and which images each well.

use crate::name::{Component, Well};
use crate::replace::replace_folder;
use fractal_task::TaskError;
use ome_zarr::group::{self, Format, object};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// More acquisitions than a plate has.
const MAX_ACQUISITIONS: usize = 1000;

/// An image of a well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WellImage {
    /// Its folder: `0`, `1`, ... in the order of acquisitions and fields.
    pub path: String,
    /// The id of its acquisition.
    pub acquisition: usize,
}

/// A plate: its name, and each well's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plate {
    /// The folder without `.zarr`.
    pub name: String,
    /// Version of OME-NGFF.
    pub format: Format,
    /// The names of the acquisitions, whose ids are 0, 1, ...
    pub acquisitions: Vec<String>,
    /// Each well's images.
    pub wells: BTreeMap<Well, Vec<WellImage>>,
}

impl Plate {
    /// Reads the metadata of a plate.
    ///
    /// # Errors
    /// If they cannot be read or are of another form.
    pub fn read(output: &Path, name: &str) -> Result<Self, TaskError> {
        let folder = plate_component(name).folder(output);
        let attributes = Value::Object(group::read_attributes(&folder)?);
        let wrong = |what: &str| {
            TaskError::about(
                "cannot use the attributes of",
                &folder,
                format!("{what}; make the plate again"),
            )
        };
        let mut wells = BTreeMap::new();
        for well in attributes["plate"]["wells"]
            .as_array()
            .ok_or_else(|| wrong("there is no list plate.wells"))?
        {
            let path = well["path"].as_str().unwrap_or_default();
            let (component, well) = Component::parse_well(&format!("{name}.zarr/{path}"))
                .map_err(|_| wrong("a path in plate.wells is no well"))?;
            wells.insert(well, read_images(&component.folder(output))?);
        }
        let acquisitions = attributes["plate"]["acquisitions"].as_array();
        let mut acquisitions: Vec<String> = acquisitions
            .into_iter()
            .flatten()
            .map(|acquisition| acquisition["name"].as_str().unwrap_or(name).to_owned())
            .collect();
        let n_acquisitions = wells
            .values()
            .flatten()
            .map(|image: &WellImage| image.acquisition + 1)
            .max()
            .unwrap_or(1);
        acquisitions.resize(n_acquisitions.max(acquisitions.len()), name.to_owned());
        Ok(Self {
            name: name.to_owned(),
            format: Format::of(&folder),
            acquisitions,
            wells,
        })
    }

    /// The components of its wells, in order.
    pub fn well_components(&self) -> impl Iterator<Item = Component> {
        self.wells.keys().map(|well| Component {
            well: Some(well.clone()),
            ..plate_component(&self.name)
        })
    }

    /// The components of its images, in order.
    pub fn image_components(&self) -> impl Iterator<Item = Component> {
        self.wells.iter().flat_map(|(well, images)| {
            images.iter().map(|image| Component {
                well: Some(well.clone()),
                image: Some(image.path.clone()),
                ..plate_component(&self.name)
            })
        })
    }

    /// Makes the plate with its wells, in the place of an old one.
    ///
    /// * `overwrite`: whether a plate that is there may be replaced. One without pixels always may.
    /// * `write_image`: makes the group of an image.
    ///
    /// # Errors
    /// If something is there that may not be replaced, or a file cannot be written.
    pub fn write(
        &self,
        output: &Path,
        overwrite: bool,
        write_image: &mut dyn FnMut(&Component, &Path) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let target = plate_component(&self.name).folder(output);
        self.check_target(&target, output, overwrite)?;
        let images: Vec<Component> = self.image_components().collect();
        replace_folder(&target, |part| {
            group::write(part, self.format, object(self.attributes()), Map::new())?;
            for (well, images) in &self.wells {
                let row = part.join(&well.row);
                group::write(&row, self.format, Map::new(), Map::new())?;
                let entry = |image: &WellImage| json!({"path": image.path, "acquisition": image.acquisition});
                let images: Vec<Value> = images.iter().map(entry).collect();
                let ome = object(json!({"well": {"images": images}}));
                group::write(&row.join(&well.column), self.format, ome, Map::new())?;
            }
            for component in &images {
                let place = component.folder(Path::new(""));
                let below: std::path::PathBuf = place.iter().skip(1).collect();
                write_image(component, &part.join(below))?;
            }
            Ok(())
        })
    }

    /// The largest number of images that a well has of one acquisition.
    fn field_count(&self) -> usize {
        let count = |images: &Vec<WellImage>| {
            let ids = 0..self.acquisitions.len();
            ids.map(|id| {
                images
                    .iter()
                    .filter(|image| image.acquisition == id)
                    .count()
            })
            .max()
            .unwrap_or(0)
        };
        self.wells.values().map(count).max().unwrap_or(0)
    }

    fn check_target(&self, target: &Path, output: &Path, overwrite: bool) -> Result<(), TaskError> {
        let is_there = fs::symlink_metadata(target).is_ok();
        let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
        if !is_there || is_empty() {
            return Ok(());
        }
        if !group::exists(target) {
            return Err(TaskError::about(
                "cannot replace",
                target,
                "it is not a Zarr plate; take it away",
            ));
        }
        // What a killed call left is not in anybody's way.
        let old = Self::read(output, &self.name);
        let has_pixels = |plate: Self| {
            plate
                .image_components()
                .any(|image| image.folder(output).join("0").exists())
        };
        if overwrite || old.is_ok_and(|old| !has_pixels(old)) {
            return Ok(());
        }
        Err(TaskError::about(
            "cannot write",
            target,
            "it exists; take it away or set the argument overwrite to true",
        ))
    }

    /// Source: OME-NGFF, "plate" metadata.
    fn attributes(&self) -> Value {
        let mut rows: Vec<&str> = self.wells.keys().map(|well| well.row.as_str()).collect();
        rows.dedup();
        let mut columns: Vec<&str> = self.wells.keys().map(|well| well.column.as_str()).collect();
        columns.sort_by_key(|column| (column.parse().unwrap_or(0_u32), *column));
        columns.dedup();
        let index = |names: &[&str], name: &str| names.iter().position(|known| *known == name);
        let wells: Vec<Value> = self
            .wells
            .keys()
            .map(|well| {
                json!({
                    "path": format!("{}/{}", well.row, well.column),
                    "rowIndex": index(&rows, &well.row),
                    "columnIndex": index(&columns, &well.column),
                })
            })
            .collect();
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|name| json!({"name": name}))
                .collect::<Vec<_>>()
        };
        let acquisitions = self
            .acquisitions
            .iter()
            .enumerate()
            .map(|(id, name)| json!({"id": id, "name": name}));
        json!({
            "plate": {
                "name": self.name,
                "rows": named(&rows),
                "columns": named(&columns),
                "wells": wells,
                "acquisitions": acquisitions.collect::<Vec<_>>(),
                "field_count": self.field_count(),
            },
        })
    }
}

/// The images of a well.
///
/// # Errors
/// If its metadata cannot be read or are of another form.
pub fn read_images(well: &Path) -> Result<Vec<WellImage>, TaskError> {
    let attributes = Value::Object(group::read_attributes(well)?);
    let image = |image: &Value| {
        let acquisition = image["acquisition"]
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .unwrap_or(0);
        // An id that is no small number is not used as a position in a list.
        let acquisition = if acquisition < MAX_ACQUISITIONS {
            acquisition
        } else {
            0
        };
        Some(WellImage {
            path: image["path"].as_str()?.to_owned(),
            acquisition,
        })
    };
    let images = attributes["well"]["images"].as_array();
    let images: Option<Vec<WellImage>> =
        images.and_then(|images| images.iter().map(image).collect());
    images.ok_or_else(|| {
        TaskError::about(
            "cannot use the attributes of",
            well,
            "there is no list well.images with paths; make the plate again",
        )
    })
}

/// The component of a whole plate.
pub fn plate_component(name: &str) -> Component {
    Component {
        plate: name.to_owned(),
        well: None,
        image: None,
    }
}
