//! Check of a dataset of version 2: its images, and the values that filters can select.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::check::Findings;
use crate::cli::check::lines::Lines;
use crate::fractal::v2::{DatasetDocument, Image};
use crate::problem::{Location, Problems};

/// Maximum number of attributes and of types that are shown.
const MAX_KEYS: usize = 100;
/// Maximum number of values of an attribute in the facts for programs.
const MAX_VALUES: usize = 1000;
/// Maximum number of values in a line without `--verbose`.
const SHOWN: usize = 12;

pub(in crate::cli::check) fn check(
    path: &Path,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let facts = match DatasetDocument::read(path) {
        Ok(dataset) => add_dataset(path, &dataset, &mut lines, problems),
        Err(found) => {
            problems.extend(found);
            Value::Null
        }
    };
    Findings {
        what: "dataset",
        lines,
        facts,
    }
}

fn add_dataset(
    path: &Path,
    dataset: &DatasetDocument,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    if !Path::new(&dataset.zarr_dir).is_absolute() {
        let location = Location::Pointer {
            file: path.to_owned(),
            pointer: "/zarr_dir".to_owned(),
        };
        problems.add(
            location,
            "must be a folder of this machine: an absolute path",
        );
    }
    let images = dataset.images.images();
    let attributes = attributes(images);
    let types = types(images);
    lines.field("name", &dataset.name);
    lines.field("zarr_dir", &dataset.zarr_dir);
    lines.field("images", &images.len().to_string());
    add_rows("attributes", attributes.iter(), lines, values_text);
    add_rows("types", types.iter(), lines, |n_true, _| {
        format!("true: {n_true}, false: {}", images.len() - n_true)
    });
    let attributes = attributes.into_iter().take(MAX_KEYS);
    let attributes = attributes.map(|(key, attribute)| {
        let facts = json!({
            "n_images": attribute.n_images,
            "n_values": attribute.seen.len(),
            "values": attribute.values,
        });
        (key.clone(), facts)
    });
    let types = types.into_iter().take(MAX_KEYS);
    let types = types.map(|(key, n_true)| {
        let facts = json!({ "true": n_true, "false": images.len() - n_true });
        (key.clone(), facts)
    });
    json!({
        "name": dataset.name,
        "zarr_dir": dataset.zarr_dir,
        "n_images": images.len(),
        "attributes": Value::Object(attributes.collect()),
        "types": Value::Object(types.collect()),
    })
}

/// Values of an attribute.
#[derive(Default)]
struct Attribute {
    /// Number of images that have it.
    n_images: usize,
    /// All values, as text.
    seen: HashSet<String>,
    /// The first values, in the order of the images.
    values: Vec<crate::json::Value>,
}

fn attributes(images: &[Image]) -> BTreeMap<&String, Attribute> {
    let mut attributes: BTreeMap<_, Attribute> = BTreeMap::new();
    for (key, value) in images.iter().flat_map(|image| &image.attributes) {
        let attribute = attributes.entry(key).or_default();
        attribute.n_images += 1;
        if attribute.seen.insert(value.to_string()) && attribute.values.len() < MAX_VALUES {
            attribute.values.push(value.clone());
        }
    }
    attributes
}

/// Returns the number of images of each type. A type that an image lacks is false.
fn types(images: &[Image]) -> BTreeMap<&String, usize> {
    let mut types = BTreeMap::new();
    for (key, value) in images.iter().flat_map(|image| &image.types) {
        *types.entry(key).or_insert(0) += usize::from(*value);
    }
    types
}

fn add_rows<'a, T: 'a>(
    label: &str,
    entries: impl ExactSizeIterator<Item = (&'a &'a String, &'a T)>,
    lines: &mut Lines,
    text: impl Fn(&T, &Lines) -> String,
) {
    let n_more = entries.len().saturating_sub(MAX_KEYS);
    if entries.len() == 0 {
        lines.field(label, "none");
        return;
    }
    let rows: Vec<_> = entries
        .take(MAX_KEYS)
        .map(|(key, entry)| [(*key).clone(), text(entry, lines)])
        .collect();
    lines.add(label);
    lines.indented(|lines| {
        lines.table(&rows);
        if n_more > 0 {
            lines.add(&format!("and {n_more} more"));
        }
    });
}

fn values_text(attribute: &Attribute, lines: &Lines) -> String {
    let n_shown = if lines.verbose { MAX_VALUES } else { SHOWN };
    let shown = attribute.values.iter().take(n_shown);
    let shown: Vec<_> = shown
        .map(|value| lines.shortened(&value.to_string()))
        .collect();
    match attribute.seen.len() - shown.len() {
        0 => shown.join(", "),
        n_more => format!("{} and {n_more} more", shown.join(", ")),
    }
}
