//! The document of a dataset, which is also the form of the records.

use std::path::Path;

use serde::Serialize;

use super::image::{Image, ImageSource, is_below, read_url};
use super::image_list::ImageList;
use super::status::Statuses;
use crate::fractal::document_kind::{DocumentKind, refuse_another};
use crate::fractal::read::read_dataset;
use crate::problem::{Cursor, Problems};

/// A dataset as its document has it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatasetDocument {
    /// Name of the dataset.
    pub name: String,
    /// Folder of its images: a normalized URL.
    pub zarr_dir: String,
    /// The images.
    pub images: ImageList,
    /// Data of the trial run that wrote the document; `None` for any other run.
    #[serde(rename = "mandelbox", skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialRun>,
}

/// A run on some of the images, for trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialRun {
    /// Globs for the images.
    pub only: Vec<String>,
}

impl DatasetDocument {
    /// Reads a dataset document.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(path, problems))
    }

    /// Reads a dataset document. Adds problems and warnings to `problems`.
    pub fn read_into(path: &Path, problems: &mut Problems) -> Option<Self> {
        let value = read_dataset(path, problems)?;
        Self::from_cursor(&Cursor::new(path, &value), problems)
    }

    /// Reads a dataset. Unknown keys are ignored.
    ///
    /// Source: conformance rules V6 to V10, defects W1 and W2.
    pub fn from_cursor(document: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let kinds = &[DocumentKind::DatasetV2];
        if refuse_another(document, (kinds, "a dataset of Fractal v2"), problems) {
            return None;
        }
        document.object(problems)?;
        let name = document
            .require("name", problems)
            .and_then(|name| read_name(&name, problems));
        let zarr_dir = document
            .require("zarr_dir", problems)
            .and_then(|url| read_url(&url, problems));
        let cursors = match document.get("images") {
            Some(images) => images.items(problems),
            None => Vec::new(),
        };
        let mut images = Vec::with_capacity(cursors.len());
        for cursor in &cursors {
            let Some(image) = Image::read(cursor, ImageSource::Dataset, problems) else {
                continue;
            };
            if let Some(zarr_dir) = &zarr_dir
                && !is_below(&image.zarr_url, zarr_dir)
            {
                let text = format!("must lie in `zarr_dir`, which is {zarr_dir}");
                problems.add(cursor.location_of("zarr_url"), text);
            }
            images.push(image);
        }
        let images = match ImageList::new(images) {
            Ok(images) => images,
            Err(zarr_url) => {
                let text = format!("two images have the zarr_url {zarr_url}; remove one");
                problems.add(document.location_of("images"), text);
                return None;
            }
        };
        if let Some(only) = document.get("mandelbox").and_then(|own| own.get("only")) {
            let text = "the dataset is the result of a trial run, for some of its images only";
            problems.warn(only.location(), text);
        }
        Some(Self {
            name: name?,
            zarr_dir: zarr_dir?,
            images,
            trial: None,
        })
    }
}

/// Reads the name of a dataset.
///
/// Source: conformance rule V7.
fn read_name(name: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = name.text(problems)?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.- ".contains(c);
    if !text.chars().all(is_allowed) {
        let text = "must only have ASCII letters, digits, `_`, `.`, `-` and spaces";
        problems.add(name.location(), text);
        return None;
    }
    Some(text.to_owned())
}

impl Statuses {
    /// Reads the file with the statuses of earlier runs.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| {
            let value = read_dataset(path, problems)?;
            Self::from_cursor(&Cursor::new(path, &value), problems)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};
    use crate::json::Value;

    fn read(value: &Value) -> Option<Value> {
        let read = Problems::or_value(|problems| {
            DatasetDocument::from_cursor(&Cursor::new(Path::new("d"), value), problems)
        });
        read.ok().map(|dataset| json!(dataset))
    }

    // Source: conformance rules V6 to V9, defect W1.
    #[test]
    fn datasets_are_fractals() {
        each_row("dataset_import", |row: &Row| {
            let is_zarr_dir = row["in"]["images"][0]["zarr_url"] == row["in"]["zarr_dir"];
            let expected = row.get("ok").filter(|_| !is_zarr_dir);
            assert_eq!(read(&row["in"]).as_ref(), expected, "{row:?}");
        });
        each_row("dataset_name", |row: &Row| {
            let dataset = read(&json!({"name": row["in"], "zarr_dir": "/z"}));
            let name = dataset.map(|dataset| dataset["name"].clone());
            assert_eq!(name.as_ref(), row.get("ok"), "{row:?}");
        });
    }

    // Source: defect W2.
    #[test]
    fn duplicate_urls_are_refused() {
        let images = json!([{"zarr_url": "/z/a"}, {"zarr_url": "/z/a/"}]);
        let dataset = json!({"name": "d", "zarr_dir": "/z", "images": images});
        assert_eq!(read(&dataset), None);
    }
}
