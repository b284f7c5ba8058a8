//! The image list of a dataset, and how the outputs of a task change it. All operations are linear
//! in the number of images.

use std::collections::{HashMap, HashSet};

use serde::{Serialize, Serializer};

use super::image::{Image, Types, is_below};
use super::output::{CallOutput, Conflict, TaskOutput, join_outputs};
use crate::json::Value;
use crate::model::WEAKENED;

/// Images in order, each with its own URL.
#[derive(Clone, Debug, Default)]
pub struct ImageList {
    images: Vec<Image>,
    /// Position of each image, by its URL.
    positions: HashMap<String, usize>,
}

impl Serialize for ImageList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.images.serialize(serializer)
    }
}

/// Outputs of the calls of a task, and the data that they are merged with.
pub struct Merge<'t> {
    /// Outputs of the calls that succeeded. Those that give nothing may be missing.
    pub outputs: Vec<CallOutput>,
    /// Folder of new images.
    pub zarr_dir: &'t str,
    /// Types that the task sets on each image that it changes.
    pub output_types: &'t Types,
}

/// Result of merging outputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Calls whose outputs cannot be merged, and the reasons. Nothing of them was merged.
    pub rejected: Vec<(usize, String)>,
    /// True if the other outputs change nothing at all.
    pub is_empty: bool,
    /// URLs of all images that were added or changed.
    pub updated: HashSet<String>,
    /// URLs of the origins of new and re-created images.
    pub origins: HashSet<String>,
    /// URLs of the images that were removed.
    pub removed: HashSet<String>,
    /// Number of images that were added.
    pub n_new: usize,
    /// Number of images whose origin is not in the list, so that they inherit nothing.
    pub n_unknown_origins: usize,
}

impl ImageList {
    /// Creates a list.
    ///
    /// # Errors
    /// The first URL that an earlier image has.
    ///
    /// Source: defect W2.
    pub fn new(images: Vec<Image>) -> Result<Self, String> {
        let mut positions = HashMap::with_capacity(images.len());
        for (position, image) in images.iter().enumerate() {
            let earlier = positions.insert(image.zarr_url.clone(), position);
            if earlier.is_some() && !WEAKENED {
                return Err(image.zarr_url.clone());
            }
        }
        Ok(Self { images, positions })
    }

    /// Returns the images in order.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Returns the image with a URL.
    pub fn get(&self, zarr_url: &str) -> Option<&Image> {
        self.positions
            .get(zarr_url)
            .map(|position| &self.images[*position])
    }

    /// Merges the outputs of a task into the list.
    ///
    /// An output that cannot be merged is rejected, and the others are merged nevertheless.
    ///
    /// # Errors
    /// Two outputs contradict each other. The list is then unchanged.
    ///
    /// Source: conformance rules V66 to V74, defect W19.
    pub fn merge(&mut self, merge: Merge<'_>) -> Result<Merged, Conflict> {
        let mut merged = Merged::default();
        let mut accepted = Vec::with_capacity(merge.outputs.len());
        for (call_index, output) in merge.outputs {
            match self.check(&output, merge.zarr_dir) {
                Ok(()) => accepted.push((call_index, output)),
                Err(reason) => merged.rejected.push((call_index, reason)),
            }
        }
        merged.rejected.sort();
        let output = join_outputs(accepted)?;
        merged.is_empty = output.is_empty();
        for update in output.image_list_updates {
            merged.updated.insert(update.zarr_url.clone());
            self.update(update, merge.output_types, &mut merged);
        }
        merged.removed = output.image_list_removals.into_iter().collect();
        self.remove(&merged.removed);
        Ok(merged)
    }

    /// Checks an output. A URL has one change in a task, so the list before the task is enough to
    /// know whether an image is new, and whether one can be removed.
    fn check(&self, output: &TaskOutput, zarr_dir: &str) -> Result<(), String> {
        for update in &output.image_list_updates {
            let url = &update.zarr_url;
            if !self.positions.contains_key(url) && !is_below(url, zarr_dir) {
                return Err(format!(
                    "Cannot create image if zarr_url is not a subfolder of zarr_dir \
                     (zarr_url={url}, zarr_dir={zarr_dir})."
                ));
            }
        }
        let mut removals = output.image_list_removals.iter();
        match removals.find(|url| !self.positions.contains_key(*url) && !WEAKENED) {
            Some(url) => Err(format!("Cannot remove missing image (zarr_url={url}).")),
            None => Ok(()),
        }
    }

    /// Edits, re-creates or adds an image.
    ///
    /// Source: conformance rules V68 to V72.
    fn update(&mut self, update: Image, output_types: &Types, merged: &mut Merged) {
        let position = self.positions.get(&update.zarr_url).copied();
        let other_origin = update
            .origin
            .as_ref()
            .filter(|origin| **origin != update.zarr_url);
        let base = match (position, other_origin) {
            (Some(position), None) => Some(&self.images[position]),
            (_, Some(origin)) => {
                let base = self.get(origin);
                merged.n_unknown_origins += usize::from(base.is_none());
                merged.origins.insert(origin.clone());
                base
            }
            (None, None) => None,
        };
        let origin = match (position, other_origin) {
            (Some(position), None) => self.images[position].origin.clone(),
            _ => update.origin,
        };
        let (mut attributes, mut types) = match base {
            Some(base) => (base.attributes.clone(), base.types.clone()),
            None => Default::default(),
        };
        for (key, value) in update.attributes {
            if value == Value::Null {
                attributes.shift_remove(&key);
            } else {
                attributes.insert(key, value);
            }
        }
        types.extend(update.types);
        types.extend(
            output_types
                .iter()
                .map(|(key, value)| (key.clone(), *value)),
        );
        let image = Image {
            zarr_url: update.zarr_url,
            origin,
            attributes,
            types,
        };
        match position {
            Some(position) => self.images[position] = image,
            None => {
                merged.n_new += 1;
                self.positions
                    .insert(image.zarr_url.clone(), self.images.len());
                self.images.push(image);
            }
        }
    }

    fn remove(&mut self, urls: &HashSet<String>) {
        if urls.is_empty() {
            return;
        }
        self.images.retain(|image| !urls.contains(&image.zarr_url));
        self.positions.retain(|url, _| !urls.contains(url));
        for (position, image) in self.images.iter().enumerate() {
            if let Some(known) = self.positions.get_mut(&image.zarr_url) {
                *known = position;
            }
        }
    }

    /// Sets types on images, as if the task had returned an empty update of each.
    ///
    /// Source: conformance rule V65.
    pub fn set_types<'u>(&mut self, urls: impl IntoIterator<Item = &'u str>, types: &Types) {
        for url in urls {
            if let Some(position) = self.positions.get(url) {
                let entries = types.iter().map(|(key, value)| (key.clone(), *value));
                self.images[*position].types.extend(entries);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn list(urls: &[&str]) -> ImageList {
        let image = |url: &&str| Image {
            zarr_url: (*url).to_owned(),
            origin: None,
            attributes: json!({"well": url}).as_object().expect("an object").clone(),
            types: Types::new(),
        };
        ImageList::new(urls.iter().map(image).collect()).expect("distinct URLs")
    }

    fn merge(list: &mut ImageList, outputs: &[Value]) -> Result<Merged, Conflict> {
        let outputs = outputs.iter().enumerate();
        let outputs =
            outputs.map(|(index, output)| (index, TaskOutput::parse(output).expect("valid")));
        list.merge(Merge {
            outputs: outputs.collect(),
            zarr_dir: "/z",
            output_types: &Types::from([("done".to_owned(), true)]),
        })
    }

    fn images(list: &ImageList) -> Value {
        json!(list.images())
    }

    // Source: conformance rules V68, V70, V71 and V72.
    #[test]
    fn images_are_edited_recreated_and_added() {
        let mut list = list(&["/z/a", "/z/b"]);
        let output = json!({"image_list_updates": [
            {"zarr_url": "/z/a", "attributes": {"x": 1, "well": null}, "types": {"done": false}},
            {"zarr_url": "/z/b", "origin": "/z/a"},
            {"zarr_url": "/z/c", "origin": "/z/b", "attributes": {"y": 2}},
            {"zarr_url": "/z/d", "origin": "/elsewhere"},
        ]});
        let merged = merge(&mut list, &[output]).expect("no conflict");
        assert_eq!((merged.n_new, merged.n_unknown_origins), (2, 1));
        let types = json!({"done": true});
        let expected = json!([
            {"zarr_url": "/z/a", "origin": null, "attributes": {"x": 1}, "types": types},
            {"zarr_url": "/z/b", "origin": "/z/a", "attributes": {"x": 1}, "types": types},
            {"zarr_url": "/z/c", "origin": "/z/b", "attributes": {"x": 1, "y": 2}, "types": types},
            {"zarr_url": "/z/d", "origin": "/elsewhere", "attributes": {}, "types": types},
        ]);
        assert_eq!(images(&list), expected);
    }

    // Source: defects W3, W19 and W22, conformance rules V67 and V73.
    #[test]
    fn outputs_that_cannot_be_merged_leave_the_others_alone() {
        let mut list = list(&["/z/a", "/z/b"]);
        let outputs = [
            json!({"image_list_updates": [{"zarr_url": "/zarr/c"}]}),
            json!({"image_list_removals": ["/z/b"]}),
            json!({"image_list_removals": ["/z/nope"], "image_list_updates": [{"zarr_url": "/z/x"}]}),
        ];
        let merged = merge(&mut list, &outputs).expect("no conflict");
        let rejected: Vec<_> = merged.rejected.iter().map(|(index, _)| *index).collect();
        assert_eq!(rejected, [0, 2]);
        assert_eq!(list.images().len(), 1);
        let before = images(&list);
        let update =
            |x: u8| json!({"image_list_updates": [{"zarr_url": "/z/a", "attributes": {"x": x}}]});
        let conflict = merge(&mut list, &[update(1), json!({}), update(2)]);
        assert_eq!(conflict.expect_err("a conflict").calls, (0, 2));
        assert_eq!(images(&list), before);
    }

    // Source: defect W24.
    #[test]
    fn merging_is_linear() {
        let started = Instant::now();
        let mut list = list(&["/z/plate"]);
        let urls = || (0..20_001).map(|index| format!("/z/{index}"));
        let updates: Vec<_> = urls()
            .map(|url| json!({"zarr_url": url, "origin": "/z/plate"}))
            .collect();
        merge(&mut list, &[json!({"image_list_updates": updates})]).expect("no conflict");
        let removals: Vec<_> = urls()
            .skip(1)
            .map(|url| json!({"image_list_removals": [url]}))
            .collect();
        assert_eq!(list.images().len(), 20_002);
        merge(&mut list, &removals).expect("no conflict");
        assert_eq!(list.images().len(), 2);
        assert_eq!(
            list.get("/z/0").map(|image| &image.attributes["well"]),
            Some(&json!("/z/plate"))
        );
        // The quadratic way takes minutes.
        assert!(started.elapsed().as_secs() < 20);
    }

    /// Generates the output of a call: a few changes of a few images.
    fn output() -> impl Strategy<Value = Value> {
        let url = || (0..6_u8).prop_map(|index| format!("/z/{index}"));
        let origin = proptest::option::of(url());
        let update = (url(), origin, 0..2_u8).prop_map(
            |(url, origin, x)| json!({"zarr_url": url, "origin": origin, "attributes": {"x": x}}),
        );
        (proptest::collection::vec(update, 0..2), proptest::collection::vec(url(), 0..2))
            .prop_map(|(updates, removals)| {
                json!({"image_list_updates": updates, "image_list_removals": removals})
            })
    }

    proptest! {
        // Source: conformance rule V65, case f51.
        #[test]
        fn order_of_completion_does_not_matter(
            outputs in proptest::collection::vec(output(), 0..5),
            seed in any::<u64>(),
        ) {
            let together = |order: &[usize]| {
                let mut list = list(&["/z/0", "/z/1", "/z/2"]);
                let outputs = order.iter().map(|index| {
                    (*index, TaskOutput::parse(&outputs[*index]).expect("valid"))
                });
                let merged = list.merge(Merge {
                    outputs: outputs.collect(),
                    zarr_dir: "/z",
                    output_types: &Types::new(),
                });
                (merged, images(&list))
            };
            let in_order: Vec<_> = (0..outputs.len()).collect();
            let mut shuffled = in_order.clone();
            shuffled.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(together(&in_order), together(&shuffled));
        }
    }
}
