//! What tasks of Fractal v2 return: changes of the dataset's list of images, and the items of the
//! calls that follow the first call of a compound task.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Output of a task without a list of items.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TaskOutput {
    /// Images that the task created or changed. If all outputs of a task have none, Fractal takes
    /// all images that the task was called for as changed.
    pub image_list_updates: Vec<ImageUpdate>,
}

impl From<ImageUpdate> for TaskOutput {
    fn from(update: ImageUpdate) -> Self {
        Self {
            image_list_updates: vec![update],
        }
    }
}

/// An image that a task created or changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ImageUpdate {
    /// URL of the image, a path below the dataset's folder.
    pub zarr_url: String,
    /// URL of the image from which it gets its other attributes and types, if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Attributes to set: numbers, texts or booleans.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
    /// Types to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, bool>,
}

/// Output of the first call of a compound task. Each item becomes a call of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitOutput<A> {
    /// Items in the order of the calls. Fractal drops items that are equal to an earlier one.
    pub parallelization_list: Vec<Item<A>>,
}

/// Parameters of a call that the first call of a compound task asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item<A> {
    /// URL of the image that the call is for.
    pub zarr_url: String,
    /// Parameters that the first call determined, a JSON object.
    pub init_args: A,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // Fractal reads `origin: null` as no origin, but refuses unknown keys and texts that are no
    // URL.
    #[test]
    fn outputs_have_the_keys_that_fractal_accepts() {
        assert_eq!(
            json!(TaskOutput::default()),
            json!({"image_list_updates": []})
        );
        let update = ImageUpdate {
            zarr_url: "/z/a".to_owned(),
            ..ImageUpdate::default()
        };
        assert_eq!(
            json!(TaskOutput::from(update.clone())),
            json!({"image_list_updates": [{"zarr_url": "/z/a"}]})
        );
        let update = ImageUpdate {
            origin: Some("/z/b".to_owned()),
            attributes: [("well".to_owned(), json!("B03"))].into_iter().collect(),
            types: BTreeMap::from([("is_3D".to_owned(), false)]),
            ..update
        };
        assert_eq!(
            json!(update),
            json!({"zarr_url": "/z/a", "origin": "/z/b", "attributes": {"well": "B03"}, "types": {"is_3D": false}})
        );
        let item = Item {
            zarr_url: "/z/a".to_owned(),
            init_args: json!({"n": 1}),
        };
        assert_eq!(
            json!(InitOutput {
                parallelization_list: vec![item]
            }),
            json!({"parallelization_list": [{"zarr_url": "/z/a", "init_args": {"n": 1}}]})
        );
    }
}
