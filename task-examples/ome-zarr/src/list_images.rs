//! The task "List images": from folders of files to the list of images, checked to be complete.
//! Only names are looked at; a damaged file is found by the conversion.

use crate::name::{FileName, ImageName};
use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parameters. The descriptions are in the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "Fractal passes all of them to every task")]
pub struct Parameters {
    input_paths: Vec<PathBuf>,
    output_path: PathBuf,
    metadata: Map<String, Value>,
    #[serde(default = "default_extensions")]
    extensions: Vec<String>,
}

fn default_extensions() -> Vec<String> {
    ["tif", "tiff", "png"].map(String::from).to_vec()
}

/// The metadiff.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The components of the conversion, sorted: `plate1_B03_F001.zarr`.
    image: Vec<String>,
    /// The folders that hold the files.
    original_paths: Vec<PathBuf>,
    /// The channels that every image has, sorted.
    channels: Vec<String>,
    /// The endings of the files found, sorted, as they are written in the names.
    extensions: Vec<String>,
}

/// Lists the images in the input folders.
///
/// Files with another ending are left alone, as are those whose name begins with a dot. Files with
/// an accepted ending and a name of another form are left out and named on stdout.
///
/// # Errors
/// If a folder cannot be read, no image is found, an image lacks a channel that another one has,
/// or two files are the same channel of the same image.
pub fn list_images(parameters: Parameters) -> Result<Listing, TaskError> {
    if parameters.input_paths.is_empty() {
        return Err(TaskError::new(
            "input_paths is empty: give at least one folder of images",
        ));
    }
    if parameters.extensions.is_empty() {
        return Err(TaskError::new(
            "extensions is empty: give at least one ending, such as \"tif\"",
        ));
    }
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for folder in &parameters.input_paths {
        for name in read_file_names(folder)? {
            if !has_extension(&name, &parameters.extensions) {
                continue;
            }
            match FileName::parse(&name) {
                Some(file) => files.push((folder.as_path(), file)),
                None => others.push(folder.join(name)),
            }
        }
    }
    if let Some(first) = others.first() {
        println!(
            "left out {} file(s) not named like plate1_B03_F001_C01.tif, such as {}",
            others.len(),
            first.display()
        );
    }
    if files.is_empty() {
        return Err(TaskError::new(format!(
            "no images found in {}: \
             files must be named like plate1_B03_F001_C01.tif and end in one of {}",
            join(parameters.input_paths.iter().map(|path| path.display())),
            join(&parameters.extensions),
        )));
    }
    let listing = group(&files, &parameters.input_paths)?;
    println!(
        "found {} image(s) of {} channel(s)",
        listing.image.len(),
        listing.channels.len()
    );
    Ok(listing)
}

fn read_file_names(folder: &Path) -> Result<Vec<String>, TaskError> {
    let failed = |err| TaskError::about("cannot list the input folder", folder, err);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.starts_with('.') && !entry.file_type().map_err(failed)?.is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Upper and lower case are the same here, and so are `tif` and `.tif`.
fn has_extension(name: &str, extensions: &[String]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| {
        extensions
            .iter()
            .any(|one| one.trim_start_matches('.').eq_ignore_ascii_case(extension))
    })
}

fn group(files: &[(&Path, FileName)], folders: &[PathBuf]) -> Result<Listing, TaskError> {
    let mut images: BTreeMap<&ImageName, BTreeMap<&str, PathBuf>> = BTreeMap::new();
    for (folder, file) in files {
        let path = folder.join(file.to_string());
        let channels = images.entry(&file.image).or_default();
        let other = channels.insert(&file.channel, path.clone());
        if other.as_ref() == Some(&path) {
            let folder = folder.display();
            return Err(TaskError::new(format!(
                "input_paths names the folder {folder} twice: name it once"
            )));
        }
        if let Some(other) = other {
            return Err(TaskError::new(format!(
                "{} and {} are both channel {} of image {}: take one of them out",
                other.display(),
                path.display(),
                file.channel,
                file.image,
            )));
        }
    }
    let all_channels: BTreeSet<&str> = images.values().flat_map(BTreeMap::keys).copied().collect();
    let incomplete: Vec<String> = images
        .iter()
        .filter(|(_, channels)| channels.len() < all_channels.len())
        .map(|(image, channels)| {
            format!(
                "{image} lacks {}",
                join(
                    all_channels
                        .iter()
                        .filter(|channel| !channels.contains_key(**channel))
                )
            )
        })
        .collect();
    if let Some(first) = incomplete.first() {
        let more = match incomplete.len() {
            1 => String::new(),
            n => format!(" (and {} more images are incomplete)", n - 1),
        };
        return Err(TaskError::new(format!(
            "image {first}{more}: all images in {} must have the channels {}; \
             add the missing files or take the image out",
            join(folders.iter().map(|path| path.display())),
            join(&all_channels),
        )));
    }
    let extensions: BTreeSet<&str> = files
        .iter()
        .map(|(_, file)| file.extension.as_str())
        .collect();
    Ok(Listing {
        image: images.keys().map(|image| image.component()).collect(),
        original_paths: folders.to_vec(),
        channels: all_channels.into_iter().map(String::from).collect(),
        extensions: extensions.into_iter().map(String::from).collect(),
    })
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str]) -> Result<Listing, String> {
        let folder = PathBuf::from("/in");
        let files: Vec<_> = names
            .iter()
            .map(|name| (folder.as_path(), FileName::parse(name).expect(name)))
            .collect();
        group(&files, std::slice::from_ref(&folder)).map_err(|err| err.to_string())
    }

    #[test]
    fn complete_images_are_listed_in_order() {
        let listing = check(&[
            "p_C05_F002_C02.tif",
            "p_B03_F001_C01.tif",
            "p_C05_F002_C01.tif",
            "p_B03_F001_C02.TIF",
        ])
        .unwrap();
        assert_eq!(listing.image, ["p_B03_F001.zarr", "p_C05_F002.zarr"]);
        assert_eq!(listing.channels, ["C01", "C02"]);
        assert_eq!(listing.extensions, ["TIF", "tif"]);
    }

    #[test]
    fn a_missing_channel_is_named() {
        let message = check(&[
            "p_B03_F001_C01.tif",
            "p_B03_F001_C02.tif",
            "p_B03_F002_C02.tif",
            "p_B03_F003_C01.tif",
        ])
        .unwrap_err();
        assert_eq!(
            message,
            "image p_B03_F002 lacks C01 (and 1 more images are incomplete): all images in /in must have \
             the channels C01, C02; add the missing files or take the image out"
        );
    }

    #[test]
    fn the_same_channel_twice_is_refused() {
        let message = check(&["p_B03_F001_C01.tif", "p_B03_F001_C01.png"]).unwrap_err();
        assert!(
            message.contains("p_B03_F001_C01.tif and /in/p_B03_F001_C01.png are both channel C01"),
            "{message}"
        );
    }

    #[test]
    fn endings_match_in_any_case() {
        let extensions = ["tif".to_owned(), ".PNG".to_owned()];
        assert!(has_extension("a.TIF", &extensions) && has_extension("b.png", &extensions));
        assert!(!has_extension("a.tiff", &extensions) && !has_extension("tif", &extensions));
    }
}
