//! The images of a dataset, which a run of Fractal v2 has in its records.

use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::graph::Graph;
use crate::folder::open_plain_file;
use crate::json::{Map, Value};
use crate::model::record_names::DATASET_FILE;
use crate::text::escape::percent_encoded;
use crate::text::escaped;

/// Maximum number of images in a crate. `dataset.json`, which is part of it, has all of them.
const MAX_IMAGES: usize = 10_000;

/// The part of the record that is used.
#[derive(Default, Deserialize)]
struct DatasetRecord {
    #[serde(default)]
    images: Vec<Image>,
}

/// An image of a dataset.
#[derive(Deserialize)]
pub(super) struct Image {
    zarr_url: String,
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    types: Map<String, Value>,
}

/// Reads the images from the records; none if there is no such record.
pub(super) fn read_images(work_dir: &Path) -> Vec<Image> {
    let file = open_plain_file(&work_dir.join(DATASET_FILE));
    let record = file
        .ok()
        .map(|file| serde_json::from_reader(BufReader::new(file)));
    let record: DatasetRecord = record.and_then(Result::ok).unwrap_or_default();
    record.images
}

/// Adds the images, and returns their ids.
pub(super) fn add_images(graph: &mut Graph, images: &[Image]) -> Vec<String> {
    let add = |image: &Image| {
        let url = &image.zarr_url;
        let id = if url.starts_with('/') {
            format!("file://{}/", percent_encoded(url))
        } else {
            percent_encoded(url)
        };
        let properties = json!({
            "name": escaped(url.rsplit('/').next().unwrap_or(url)),
            "description": description(image),
        });
        graph.add_part(&id, &["Dataset"], properties);
        id
    };
    images.iter().take(MAX_IMAGES).map(add).collect()
}

/// Returns the attributes and types of an image, such as `Image; well: B03; is_3D: true`.
fn description(image: &Image) -> String {
    let entries = image.attributes.iter().chain(&image.types);
    let texts = entries.map(|(key, value)| match value {
        Value::String(text) => format!("{key}: {text}"),
        other => format!("{key}: {other}"),
    });
    let texts: Vec<_> = std::iter::once("Image".to_owned()).chain(texts).collect();
    escaped(&texts.join("; "))
}
