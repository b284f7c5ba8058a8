//! OME-NGFF 0.4 plates on disk: which wells a plate has, and which images each well.

use crate::name::{Component, Number, Well};
use crate::replace::replace_folder;
use fractal_task::TaskError;
use ome_zarr::zarr;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A plate: its name, and each well's images, which are named `0`, `1`, ... in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plate {
    /// The folder without `.zarr`.
    pub name: String,
    /// The names of each well's images.
    pub wells: BTreeMap<Well, Vec<String>>,
}

impl Plate {
    /// A plate with these fields in each well.
    pub fn new(name: String, fields: &BTreeMap<Well, Vec<Number>>) -> Self {
        let images = |fields: &Vec<Number>| (0..fields.len()).map(|index| index.to_string()).collect();
        Self { name, wells: fields.iter().map(|(well, fields)| (well.clone(), images(fields))).collect() }
    }

    /// Reads the metadata of a plate.
    ///
    /// # Errors
    /// If they cannot be read or are of another form.
    pub fn read(output: &Path, name: &str) -> Result<Self, TaskError> {
        let folder = plate_component(name).folder(output);
        let attributes: Value = zarr::read_attributes(&folder)?;
        let wrong = |what: &str| {
            TaskError::about("cannot use the attributes of", &folder, format!("{what}; make the plate again"))
        };
        let mut wells = BTreeMap::new();
        for well in attributes["plate"]["wells"].as_array().ok_or_else(|| wrong("there is no list plate.wells"))? {
            let path = well["path"].as_str().unwrap_or_default();
            let (component, well) = Component::parse_well(&format!("{name}.zarr/{path}"))
                .map_err(|_| wrong("a path in plate.wells is no well"))?;
            wells.insert(well, read_images(&component.folder(output))?);
        }
        Ok(Self { name: name.to_owned(), wells })
    }

    /// The components of its wells, in order.
    pub fn well_components(&self) -> impl Iterator<Item = Component> {
        self.wells.keys().map(|well| Component { well: Some(well.clone()), ..plate_component(&self.name) })
    }

    /// The components of its images, in order.
    pub fn image_components(&self) -> impl Iterator<Item = Component> {
        self.wells.iter().flat_map(|(well, images)| {
            images.iter().map(|image| Component {
                well: Some(well.clone()),
                image: Some(image.clone()),
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
            zarr::create_group(part)?;
            zarr::write_attributes(part, &self.attributes())?;
            for (well, images) in &self.wells {
                let row = part.join(&well.row);
                zarr::create_group(&row)?;
                let folder = row.join(&well.column);
                zarr::create_group(&folder)?;
                let images: Vec<Value> = images.iter().map(|image| json!({"path": image, "acquisition": 0})).collect();
                zarr::write_attributes(&folder, &json!({"well": {"version": "0.4", "images": images}}))?;
            }
            for component in &images {
                let place = component.folder(Path::new(""));
                let below: std::path::PathBuf = place.iter().skip(1).collect();
                write_image(component, &part.join(below))?;
            }
            Ok(())
        })
    }

    fn check_target(&self, target: &Path, output: &Path, overwrite: bool) -> Result<(), TaskError> {
        let is_there = fs::symlink_metadata(target).is_ok();
        let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
        if !is_there || is_empty() {
            return Ok(());
        }
        if !zarr::is_group(target) {
            return Err(TaskError::about("cannot replace", target, "it is not a Zarr plate; take it away"));
        }
        // What a killed call left is not in anybody's way.
        let old = Self::read(output, &self.name);
        let has_pixels = |plate: Self| plate.image_components().any(|image| image.folder(output).join("0").exists());
        if overwrite || old.is_ok_and(|old| !has_pixels(old)) {
            return Ok(());
        }
        Err(TaskError::about("cannot write", target, "it exists; take it away or set the argument overwrite to true"))
    }

    /// Source: OME-NGFF 0.4, "plate" metadata.
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
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({
            "plate": {
                "version": "0.4",
                "name": self.name,
                "rows": named(&rows),
                "columns": named(&columns),
                "wells": wells,
                "acquisitions": [{"id": 0, "name": self.name}],
                "field_count": self.wells.values().map(Vec::len).max().unwrap_or(0),
            },
        })
    }
}

/// The names of a well's images.
///
/// # Errors
/// If its metadata cannot be read or are of another form.
pub fn read_images(well: &Path) -> Result<Vec<String>, TaskError> {
    let attributes: Value = zarr::read_attributes(well)?;
    let images = attributes["well"]["images"].as_array();
    let names: Option<Vec<String>> =
        images.and_then(|images| images.iter().map(|image| image["path"].as_str().map(str::to_owned)).collect());
    names.ok_or_else(|| {
        TaskError::about(
            "cannot use the attributes of",
            well,
            "there is no list well.images with paths; make the plate again",
        )
    })
}

/// The component of a whole plate.
pub fn plate_component(name: &str) -> Component {
    Component { plate: name.to_owned(), well: None, image: None }
}
