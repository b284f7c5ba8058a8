//! Groups of Zarr versions 2 and 3, and where their attributes have the metadata of OME-NGFF 0.4
//! and 0.5.

use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::Path;

/// Version of OME-NGFF, which determines that of Zarr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Format {
    /// OME-NGFF 0.4, whose arrays are of Zarr version 2.
    #[default]
    #[serde(rename = "0.4")]
    V04,
    /// OME-NGFF 0.5, whose arrays are of Zarr version 3.
    #[serde(rename = "0.5")]
    V05,
}

impl Format {
    /// The version of OME-NGFF.
    pub fn version(self) -> &'static str {
        match self {
            Self::V04 => "0.4",
            Self::V05 => "0.5",
        }
    }

    /// The format of a folder: 0.5 if it is a group or an array of Zarr version 3.
    pub fn of(folder: &Path) -> Self {
        if folder.join(METADATA_V3).is_file() {
            Self::V05
        } else {
            Self::V04
        }
    }
}

/// The file with the metadata of a group or an array of Zarr version 3.
pub(crate) const METADATA_V3: &str = "zarr.json";

/// Creates a folder that is a Zarr group, and the folders above it.
///
/// * `ome`: what OME-NGFF describes, such as `{"well": {...}}`, without versions. An empty object
///   is nothing.
/// * `others`: other attributes.
///
/// # Errors
/// If a file cannot be written.
///
/// Source: OME-NGFF 0.5, where all keys of 0.4 have moved into `ome`, which has the only version.
pub fn write(
    folder: &Path,
    format: Format,
    mut ome: Map<String, Value>,
    others: Map<String, Value>,
) -> Result<(), TaskError> {
    fs::create_dir_all(folder)
        .map_err(|err| TaskError::about("cannot make the folder", folder, err))?;
    match format {
        Format::V04 => {
            for value in ome.values_mut() {
                add_version(value, format);
            }
            ome.extend(others);
            write_json(&folder.join(".zgroup"), &json!({"zarr_format": 2}))?;
            if ome.is_empty() {
                Ok(())
            } else {
                write_json(&folder.join(".zattrs"), &ome)
            }
        }
        Format::V05 => {
            let mut attributes = others;
            if !ome.is_empty() {
                ome.insert("version".to_owned(), json!(format.version()));
                attributes.insert("ome".to_owned(), Value::Object(ome));
            }
            let metadata =
                json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
            write_json(&folder.join(METADATA_V3), &metadata)
        }
    }
}

/// The entries of `multiscales` have a version each, the list `labels` has none.
fn add_version(value: &mut Value, format: Format) {
    match value {
        Value::Object(object) => drop(object.insert("version".to_owned(), json!(format.version()))),
        Value::Array(entries) => {
            entries
                .iter_mut()
                .filter(|entry| entry.is_object())
                .for_each(|entry| add_version(entry, format));
        }
        _ => {}
    }
}

/// Reads the attributes of a group of either version. The keys in `ome` of 0.5 are next to the
/// others, as in 0.4.
///
/// # Errors
/// If the file does not exist or has other contents.
pub fn read_attributes(folder: &Path) -> Result<Map<String, Value>, TaskError> {
    match Format::of(folder) {
        Format::V04 => read_json(&folder.join(".zattrs")),
        Format::V05 => {
            let path = folder.join(METADATA_V3);
            let mut metadata: Map<String, Value> = read_json(&path)?;
            let mut attributes = match metadata.remove("attributes") {
                Some(Value::Object(attributes)) => attributes,
                _ => Map::new(),
            };
            if let Some(Value::Object(ome)) = attributes.remove("ome") {
                attributes.extend(ome);
            }
            Ok(attributes)
        }
    }
}

/// Creates a group whose attributes are those of another one, with one more.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_like(old: &Path, folder: &Path, key: &str, value: Value) -> Result<(), TaskError> {
    match Format::of(old) {
        Format::V04 => {
            let mut attributes: Map<String, Value> = read_json(&old.join(".zattrs"))?;
            attributes.insert(key.to_owned(), value);
            write(folder, Format::V04, Map::new(), attributes)
        }
        Format::V05 => {
            let mut metadata: Value = read_json(&old.join(METADATA_V3))?;
            metadata["attributes"][key] = value;
            write_json(&folder.join(METADATA_V3), &metadata)
        }
    }
}

/// True if a folder is a group of Zarr version 2 or 3.
pub fn exists(folder: &Path) -> bool {
    [".zgroup", METADATA_V3]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// The object of a JSON value; an empty one for other values.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TaskError> {
    serde_json::to_vec_pretty(value)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(path, bytes))
        .map_err(|err| TaskError::about("cannot write", path, err))
}

pub(crate) fn read_json<V: serde::de::DeserializeOwned>(path: &Path) -> Result<V, TaskError> {
    fs::read(path)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
        .map_err(|err| TaskError::about("cannot read", path, err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let folder = std::env::temp_dir().join(format!("ome-zarr-group-{}", std::process::id()));
        let ome = || {
            object(json!({"multiscales": [{"name": "a"}], "labels": ["b"], "well": {"images": []}}))
        };
        let others = || object(json!({"imaging": {"n": 1}}));
        for (name, format) in [("v2", Format::V04), ("v3", Format::V05)] {
            let group = folder.join(name);
            assert!(!exists(&group));
            write(&group, format, ome(), others()).unwrap();
            assert!(exists(&group));
            assert_eq!(Format::of(&group), format);
            let read = read_attributes(&group).unwrap();
            assert_eq!(
                (&read["labels"], &read["imaging"]),
                (&json!(["b"]), &json!({"n": 1}))
            );
            assert_eq!(read["multiscales"][0]["name"], "a");
        }
        let v04: Value = read_json(&folder.join("v2/.zattrs")).unwrap();
        assert_eq!(v04["multiscales"], json!([{"name": "a", "version": "0.4"}]));
        assert_eq!(v04["well"], json!({"images": [], "version": "0.4"}));
        let v05: Value = read_json(&folder.join("v3/zarr.json")).unwrap();
        let ome = json!({
            "version": "0.5", "multiscales": [{"name": "a"}], "labels": ["b"], "well": {"images": []},
        });
        assert_eq!(
            v05,
            json!({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, "imaging": {"n": 1}}})
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
