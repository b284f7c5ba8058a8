//! URLs of images, and the plates that selected images belong to.

use crate::name::Component;
use crate::plate::Plate;
use fractal_task::TaskError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// An image of a plate: `/data/plate1.zarr/B/03/0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageUrl {
    /// Folder that contains the plate, without a slash at its end: `/data`.
    pub(super) folder: String,
    /// The image below it.
    pub(super) component: Component,
}

impl ImageUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is not the absolute path of an image in a plate.
    pub(super) fn parse(url: &str) -> Result<Self, TaskError> {
        let parts: Vec<&str> = url.trim_end_matches('/').rsplitn(5, '/').collect();
        if let [image, column, row, plate, folder] = parts[..]
            && url.starts_with('/')
            && let Ok(component) =
                Component::parse_image(&format!("{plate}/{row}/{column}/{image}"))
        {
            return Ok(Self {
                folder: folder.to_owned(),
                component,
            });
        }
        Err(TaskError::new(format!(
            "zarr_url {url:?} is no image of a plate on this machine, such as /data/plate1.zarr/B/03/0"
        )))
    }

    /// The URL.
    pub(super) fn url(&self) -> String {
        format!("{}/{}", self.folder, self.component)
    }

    /// Folder of the image.
    pub(super) fn path(&self) -> PathBuf {
        self.component.folder(&self.output())
    }

    /// Folder that contains the plate, its tables and its pictures.
    pub(super) fn output(&self) -> PathBuf {
        Path::new("/").join(&self.folder)
    }

    /// The value of the attribute `plate`.
    pub(super) fn plate(&self) -> String {
        format!("{}.zarr", self.component.plate)
    }
}

/// The selected images of a plate.
#[derive(Debug)]
pub(super) struct Selection {
    /// Folder that contains the plate, as in the URLs.
    pub(super) folder: String,
    /// The plate, with no other wells and images than the selected ones.
    pub(super) plate: Plate,
}

impl Selection {
    /// Groups images by their plates, in the order of the plates' names.
    ///
    /// # Errors
    /// If a URL is not an image of a plate, or the metadata of the plate cannot be read or lack the
    /// image.
    pub(super) fn of(urls: &[String]) -> Result<Vec<Self>, TaskError> {
        let mut by_plate: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for url in urls {
            let url = ImageUrl::parse(url)?;
            let key = (url.folder.clone(), url.component.plate.clone());
            by_plate
                .entry(key)
                .or_default()
                .insert(url.component.to_string());
        }
        by_plate
            .into_iter()
            .map(|((folder, plate), images)| Self::read(folder, &plate, images))
            .collect()
    }

    fn read(folder: String, plate: &str, mut images: BTreeSet<String>) -> Result<Self, TaskError> {
        let output = Path::new("/").join(&folder);
        let mut plate = Plate::read(&output, plate)?;
        for component in plate.image_components().collect::<Vec<_>>() {
            if !images.remove(&component.to_string())
                && let Component {
                    well: Some(well),
                    image: Some(image),
                    ..
                } = &component
                && let Some(names) = plate.wells.get_mut(well)
            {
                names.retain(|known| known.path != *image);
            }
        }
        plate.wells.retain(|_, images| !images.is_empty());
        match images.first() {
            None => Ok(Self { folder, plate }),
            Some(image) => Err(TaskError::new(format!(
                "the plate {folder}/{}.zarr does not list the image {image}; convert the images again",
                plate.name
            ))),
        }
    }

    /// Folder that contains the plate, its tables and its pictures.
    pub(super) fn output(&self) -> PathBuf {
        Path::new("/").join(&self.folder)
    }

    /// The images, in the order of the wells.
    pub(super) fn images(&self) -> Vec<ImageUrl> {
        let images = self.plate.image_components();
        images
            .map(|component| ImageUrl {
                folder: self.folder.clone(),
                component,
            })
            .collect()
    }
}
