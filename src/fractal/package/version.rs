//! The version of Fractal that a package is for.

use std::path::Path;

use crate::fractal::document_kind::MANIFEST;
use crate::fractal::read::read_package_document;
use crate::fractal::workflow::Version;
use crate::problem::Problems;

/// Returns the version of Fractal that the package in a folder is for; `None` if the folder has no
/// manifest, or one without a known version. Its problems are reported when the package is read.
pub(crate) fn package_version(folder: &Path) -> Option<Version> {
    let file = folder.join(MANIFEST);
    file.symlink_metadata().ok()?;
    let manifest = read_package_document(&file, &mut Problems::default())?;
    match version_text(manifest.get("manifest_version")?).as_str() {
        "1" => Some(Version::V1),
        "2" => Some(Version::V2),
        _ => None,
    }
}

/// Returns a version as text. Version 1 accepts numbers too.
pub(super) fn version_text(version: &crate::json::Value) -> String {
    match version.as_str() {
        Some(text) => text.to_owned(),
        None => version.to_string(),
    }
}
