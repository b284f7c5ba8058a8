//! An image of a dataset, and the URLs that identify images.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::json::{Map, Value};
use crate::model::WEAKENED;
use crate::problem::{Cursor, Problems};

/// Types of an image or of a filter, by name.
pub type Types = BTreeMap<String, bool>;

/// An entry of the image list, or an update of one. Serialized, it has the form of the dataset
/// document.
///
/// Source: conformance rule V1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Normalized URL, which identifies the image.
    pub zarr_url: String,
    /// Normalized URL of the image that this one was made from. It need not be in the list.
    pub origin: Option<String>,
    /// Attributes: numbers, strings and booleans; in an update also null, which removes one.
    pub attributes: Map<String, Value>,
    /// Types; a missing one counts as false.
    pub types: Types,
}

/// Source of an image, which determines the values that its attributes can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A dataset document.
    Dataset,
    /// The output of a task, where null removes an attribute.
    Output,
}

impl Image {
    /// Reads an image. Unknown keys are ignored.
    ///
    /// Source: conformance rules V1 and V3.
    pub fn read(cursor: &Cursor<'_>, source: ImageSource, problems: &mut Problems) -> Option<Self> {
        cursor.object(problems)?;
        let n_before = problems.len();
        let zarr_url = cursor
            .require("zarr_url", problems)
            .and_then(|url| read_url(&url, problems));
        let origin = cursor
            .get_not_null("origin")
            .and_then(|url| read_url(&url, problems));
        let mut attributes = Map::new();
        if let Some(given) = cursor.get("attributes") {
            for (key, value) in trimmed_entries(&given, problems).unwrap_or_default() {
                if is_attribute(&value, source, problems) {
                    attributes.insert(key, value.value.clone());
                }
            }
        }
        let types = match cursor.get("types") {
            Some(types) => read_types(&types, problems).unwrap_or_default(),
            None => Types::new(),
        };
        // A caller that stops at the first problem must not get half an image.
        if problems.len() > n_before {
            return None;
        }
        Some(Self {
            zarr_url: zarr_url?,
            origin,
            attributes,
            types,
        })
    }
}

fn is_attribute(value: &Cursor<'_>, source: ImageSource, problems: &mut Problems) -> bool {
    let is_fine = match value.value {
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Null => source == ImageSource::Output,
        Value::Array(_) | Value::Object(_) => false,
    };
    if !is_fine {
        value.wrong_type("a number, a string or a boolean", problems);
    }
    is_fine
}

/// Returns the members of an object. Blanks at both ends of keys are cut. Adds a problem for a key
/// that is empty then, or equal to another.
///
/// Source: conformance rule V5.
pub(super) fn trimmed_entries<'a>(
    cursor: &Cursor<'a>,
    problems: &mut Problems,
) -> Option<Vec<(String, Cursor<'a>)>> {
    let object = cursor.object(problems)?;
    let mut seen = HashSet::with_capacity(object.len());
    let mut entries = Vec::with_capacity(object.len());
    for key in object.keys() {
        let trimmed = key.trim();
        let value = cursor.get(key).expect("the key is one of the object");
        if trimmed.is_empty() {
            problems.add(value.location(), "a key must not be empty");
        } else if !seen.insert(trimmed) {
            let text = format!("duplicate key `{trimmed}`: blanks at both ends do not count");
            problems.add(value.location(), text);
        } else {
            entries.push((trimmed.to_owned(), value));
        }
    }
    Some(entries)
}

/// Reads types, or filters by types.
///
/// Source: conformance rules V4 and V5.
pub(super) fn read_types(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<Types> {
    let mut types = Types::new();
    for (key, value) in trimmed_entries(cursor, problems)? {
        match type_value(value.value) {
            Some(is_set) => {
                types.insert(key, is_set);
            }
            None => value.wrong_type("true or false", problems),
        }
    }
    Some(types)
}

/// Returns the value of a type or of a flag. Fractal also accepts the numbers 0 and 1, and some
/// words.
pub(super) fn type_value(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(is_set) => Some(*is_set),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a URL and normalizes it.
pub(super) fn read_url(cursor: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let Value::String(text) = cursor.value else {
        cursor.wrong_type("a string", problems);
        return None;
    };
    match normalized_url(text) {
        Ok(url) => Some(url),
        Err(message) => {
            problems.add(cursor.location(), message);
            None
        }
    }
}

/// Normalizes a URL: an absolute path, or text that begins with `s3://`. No link is followed.
///
/// # Errors
/// A description of the problem.
///
/// Source: conformance rule V2.
pub fn normalized_url(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("must not be empty");
    }
    if text.contains('\0') {
        return Err("must not contain NUL");
    }
    if text.split('/').any(|part| part == "..") && !WEAKENED {
        return Err("must not have the part `..`");
    }
    if text.starts_with("s3://") {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    if !text.starts_with('/') {
        return Err("must begin with `/` or `s3://`");
    }
    let n_slashes = text.bytes().take_while(|byte| *byte == b'/').count();
    let mut url = if n_slashes == 2 { "//" } else { "/" }.to_owned();
    let parts = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    for (index, part) in parts.enumerate() {
        if index > 0 {
            url.push('/');
        }
        url.push_str(part);
    }
    Ok(url)
}

/// Returns true if a URL is a folder or lies in it, by the parts of the paths. Both are normalized.
///
/// Source: conformance rule V9, defect W3.
pub fn is_within(url: &str, folder: &str) -> bool {
    if url.starts_with("//") != folder.starts_with("//") {
        return false;
    }
    match url.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || folder.ends_with('/'),
        None => false,
    }
}

/// Returns true if a URL lies in a folder, and is not the folder itself.
///
/// Source: conformance rule V68, defects W1 and W3.
pub fn is_below(url: &str, folder: &str) -> bool {
    WEAKENED || url != folder && is_within(url, folder)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};

    fn image(value: &Value, source: ImageSource) -> Option<Image> {
        let mut problems = Problems::default();
        Image::read(&Cursor::new(Path::new(""), value), source, &mut problems)
    }

    // Source: conformance rule V2.
    #[test]
    fn urls_are_fractals() {
        each_row("zarr_url", |row: &Row| {
            let url = normalized_url(row.text("in")).ok();
            assert_eq!(url.as_deref(), row["ok"].as_str(), "{row:?}");
        });
    }

    // Source: conformance rule V9.
    #[test]
    fn urls_lie_in_folders_by_parts() {
        each_row("url_is_relative_to", |row: &Row| {
            let (url, folder) = (row["in"][0].as_str(), row["in"][1].as_str());
            let (url, folder) = (url.expect("a url"), folder.expect("a folder"));
            // Documents and outputs refuse a URL with `..`.
            let is_inside = normalized_url(url).is_ok() && is_within(url, folder);
            assert_eq!(Some(is_inside), row["ok"].as_bool(), "{row:?}");
        });
        assert!(is_below("/z/a", "/z") && !is_below("/z", "/z") && !is_below("/zarr2/a", "/zarr"));
        assert!(is_below("/a", "/") && !is_below("/", "/"));
    }

    // Source: conformance rules V3, V4 and V5.
    #[test]
    fn attributes_and_types_are_fractals() {
        for (table, source) in [
            ("image_attribute", ImageSource::Dataset),
            ("output_attribute", ImageSource::Output),
        ] {
            each_row(table, |row: &Row| {
                let value = json!({"zarr_url": "/a", "attributes": {"k": row["in"]}});
                let read = image(&value, source).map(|image| image.attributes["k"].clone());
                assert_eq!(read.as_ref(), row.get("ok"), "{table}: {row:?}");
            });
        }
        each_row("image_type", |row: &Row| {
            let value = json!({"zarr_url": "/a", "types": {"k": row["in"]}});
            let read = image(&value, ImageSource::Dataset).map(|image| image.types["k"]);
            assert_eq!(read, row["ok"].as_bool(), "{row:?}");
        });
        each_row("dict_keys", |row: &Row| {
            let value = json!({"zarr_url": "/a", "attributes": row["in"]});
            let read = image(&value, ImageSource::Dataset);
            let read = read.map(|image| Value::Object(image.attributes));
            assert_eq!(read.as_ref(), row.get("ok"), "{row:?}");
        });
        let clash = json!({"zarr_url": "/a", "attributes": {"k": 1, " k": 2}});
        assert_eq!(image(&clash, ImageSource::Dataset), None);
    }
}
