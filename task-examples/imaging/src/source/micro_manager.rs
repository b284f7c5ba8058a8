//! Positions of the stage in the JSON of Micro-Manager: a tag of its TIFF files, and the file
//! `metadata.txt` in the folder of a position.
//!
//! Source: Micro-Manager, `MDUtils.getXPositionUm`; Micro-Manager User's Guide, "Files on Disk".

use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// The file with the descriptions of the images of a folder.
const FILE_NAME: &str = "metadata.txt";

/// Reads the position of the stage, x and y in micrometers, from the description of a page.
pub(super) fn stage(text: &str) -> Option<[f64; 2]> {
    stage_of(&serde_json::from_str(text).ok()?)
}

/// Reads the position of the stage from the file next to an image; `None` if there is none, or it
/// cannot be read: an acquisition that was interrupted leaves an incomplete file.
pub(super) fn stage_beside(image: &Path) -> Option<[f64; 2]> {
    let name = image.file_name()?.to_str()?;
    let mut text = String::new();
    let file = File::open(image.with_file_name(FILE_NAME)).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let metadata: Value = serde_json::from_str(&text).ok()?;
    let entries = metadata.as_object()?;
    let is_of_image = |key: &str, entry: &Value| {
        key.ends_with(name)
            || entry["FileName"]
                .as_str()
                .is_some_and(|file| file.ends_with(name))
    };
    let own = entries
        .iter()
        .filter(|(key, entry)| is_of_image(key, entry))
        .find_map(|(_, entry)| stage_of(entry));
    // All images of a folder have one position.
    own.or_else(|| entries.values().find_map(stage_of))
}

fn stage_of(entry: &Value) -> Option<[f64; 2]> {
    let number = |name: &str| {
        let value = &entry[name];
        // Version 2 has `{"type": "DOUBLE", "scalar": 1.5}` in some files.
        value.as_f64().or_else(|| value["scalar"].as_f64())
    };
    Some([number("XPositionUm")?, number("YPositionUm")?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn positions_are_those_of_the_image() {
        assert_eq!(
            stage("{\"XPositionUm\": -1.5, \"YPositionUm\": 2}"),
            Some([-1.5, 2.0])
        );
        assert_eq!(stage("{\"XPositionUm\": 1}"), None);
        assert_eq!(stage("{\"XPos"), None);
        let folder = std::env::temp_dir().join(format!("imaging-mm-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let entry = |name: &str, x: f64| {
            format!("{{\"FileName\": \"{name}\", \"XPositionUm\": {x}, \"YPositionUm\": 0}}")
        };
        let text = format!(
            "{{\"Summary\": {{}}, \"FrameKey-0-0-0\": {}, \"FrameKey-0-1-0\": {}}}",
            entry("a.tif", 1.0),
            entry("b.tif", 2.0)
        );
        fs::write(folder.join(FILE_NAME), text).unwrap();
        assert_eq!(stage_beside(&folder.join("b.tif")), Some([2.0, 0.0]));
        assert_eq!(stage_beside(&folder.join("c.tif")), Some([1.0, 0.0]));
        fs::write(folder.join(FILE_NAME), "{\"FrameKey").unwrap();
        assert_eq!(stage_beside(&folder.join("b.tif")), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
