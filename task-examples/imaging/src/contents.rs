//! What the files of a plate contain. One of them is opened when the plate is created; the
//! conversion refuses files that contain something else.

use crate::source::{ImageFile, Series};
use fractal_task::TaskError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Relative difference up to which two sizes are equal: programs round them.
const TOLERANCE: f64 = 5e-3;

/// What a file of a plate contains, and all others should contain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The file.
    pub file: PathBuf,
    /// Number of images; `None` if only the first image of a file is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_images: Option<usize>,
    /// Number of time points of an image.
    pub n_times: usize,
    /// Number of Z planes of an image.
    pub n_z: usize,
    /// Names of the channels; empty texts for channels without one.
    pub channels: Vec<String>,
    /// Width and height of a pixel in micrometers; `None` if it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<[f64; 2]>,
    /// Distance of two Z planes in micrometers; `None` if it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z_step_um: Option<f64>,
}

impl Contents {
    /// * `images`: of the file, at least one.
    /// * `only_first`: true if the first is taken.
    pub fn of(file: &Path, images: &[Series], only_first: bool) -> Self {
        let image = &images[0];
        Self {
            file: file.to_owned(),
            n_images: (!only_first).then_some(images.len()),
            n_times: image.n_times,
            n_z: image.n_z,
            channels: image.channels.clone(),
            pixel_size_um: image.pixel_size_um,
            z_step_um: image.z_step_um,
        }
    }

    /// Refuses a file with other contents.
    ///
    /// # Errors
    /// A text that names the difference.
    pub fn check(&self, path: &Path, file: &ImageFile) -> Result<(), TaskError> {
        let images = file.series();
        let refuse = |cause: String| Err(TaskError::about("cannot convert", path, cause));
        if let Some(n) = self.n_images.filter(|n| *n != images.len()) {
            let first = self.file.display();
            return refuse(format!(
                "it has {} images, but {first} has {n}; save all files of the plate in the same way",
                images.len()
            ));
        }
        let images = match self.n_images {
            Some(_) => images,
            None => &images[..1],
        };
        for image in images {
            if let Some(difference) = self.difference(image) {
                let first = self.file.display();
                return refuse(format!("{difference} (compared with {first})"));
            }
        }
        Ok(())
    }

    /// How an image differs from the first one, and what to do; `None` if it does not.
    pub fn difference(&self, image: &Series) -> Option<String> {
        let same =
            "save all files of the plate in the same way, or convert them as plates of their own";
        for (what, n, expected) in [
            ("time point", image.n_times, self.n_times),
            ("Z plane", image.n_z, self.n_z),
            ("channel", image.channels.len(), self.channels.len()),
        ] {
            if n != expected {
                let plural = if n == 1 { "" } else { "s" };
                return Some(format!(
                    "it has {n} {what}{plural} instead of {expected}; {same}"
                ));
            }
        }
        // The name of a single channel may be in the name of the file.
        let names = image.channels.iter().zip(&self.channels);
        let differs = |(name, expected): (&String, &String)| {
            !name.is_empty() && !expected.is_empty() && name != expected
        };
        if self.channels.len() > 1 && names.clone().any(differs) {
            return Some(format!(
                "its channels are {} instead of {}; {same}",
                image.channels.join(", "),
                self.channels.join(", ")
            ));
        }
        let sizes = image.pixel_size_um.zip(self.pixel_size_um);
        if let Some((sizes, expected)) = sizes
            && !(0..2).all(|axis| is_equal(sizes[axis], expected[axis]))
        {
            return Some(format!(
                "its pixels have {} x {} um instead of {} x {} um; convert files with pixels of another size as a plate of \
                 their own, or set the argument pixel_size_um of \"Create OME-Zarr plate\"",
                sizes[0], sizes[1], expected[0], expected[1]
            ));
        }
        let steps = image.z_step_um.zip(self.z_step_um);
        if let Some((step, expected)) = steps.filter(|(step, expected)| !is_equal(*step, *expected))
        {
            return Some(format!(
                "its Z planes are {step} um apart instead of {expected} um; convert files with another distance as a plate of \
                 their own, or set the argument z_step_um of \"Create OME-Zarr plate\""
            ));
        }
        None
    }
}

fn is_equal(one: f64, other: f64) -> bool {
    (one / other - 1.0).abs() <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::open;
    use crate::source::tests::small_tiff;
    use std::fs;

    /// An image of OME-XML with Z planes and channels.
    fn image(n_z: usize, channels: &[&str], sizes: &str) -> String {
        let n = channels.len();
        let channels: String = channels
            .iter()
            .map(|name| format!("<Channel Name=\"{name}\"/>"))
            .collect();
        format!(
            "<Image><Pixels DimensionOrder=\"XYZCT\" SizeT=\"1\" SizeZ=\"{n_z}\" SizeC=\"{n}\" {sizes}>\
             {channels}<TiffData/></Pixels></Image>"
        )
    }

    /// Compares a file with the first one: the cause of its refusal.
    fn compare(name: &str, images: [&str; 2], only_first: bool) -> Result<(), String> {
        let folder =
            std::env::temp_dir().join(format!("imaging-contents-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let paths = ["a.tif", "b.tif"].map(|name| folder.join(name));
        let files = [0, 1].map(|index| {
            let document = format!("<OME>{}</OME>", images[index]);
            fs::write(&paths[index], small_tiff(6, &document)).unwrap();
            open(&paths[index]).unwrap()
        });
        let contents = Contents::of(&paths[0], files[0].series(), only_first);
        let checked = contents.check(&paths[1], &files[1]);
        fs::remove_dir_all(&folder).unwrap();
        let shown = format!("{}/", folder.display());
        checked.map_err(|err| err.to_string().replace(&shown, ""))
    }

    #[test]
    fn files_of_a_plate_contain_the_same() {
        let two = ["DAPI", "GFP"];
        let first = image(2, &two, "PhysicalSizeX=\"0.5\" PhysicalSizeZ=\"2\"");
        for (name, other, expected) in [
            ("z", image(3, &two, ""), "it has 3 Z planes instead of 2"),
            ("one-z", image(1, &two, ""), "it has 1 Z plane instead of 2"),
            (
                "channels",
                image(2, &two[..1], ""),
                "it has 1 channel instead of 2",
            ),
            (
                "order",
                image(2, &["GFP", "DAPI"], ""),
                "its channels are GFP, DAPI instead of DAPI, GFP",
            ),
            (
                "size",
                image(2, &two, "PhysicalSizeX=\"0.6\""),
                "its pixels have 0.6 x 0.6 um instead of 0.5 x 0.5 um",
            ),
            (
                "step",
                image(2, &two, "PhysicalSizeZ=\"3\""),
                "its Z planes are 3 um apart instead of 2 um",
            ),
            (
                "images",
                image(2, &two, "").repeat(2),
                "b.tif: it has 2 images, but a.tif has 1",
            ),
        ] {
            let error = compare(name, [&first, &other], false).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
        // Sizes are rounded, and a file need not state what others do.
        let alike = image(2, &["", ""], "PhysicalSizeX=\"0.501\"");
        assert_eq!(compare("alike", [&first, &alike], false), Ok(()));
        let more = first.repeat(2);
        assert_eq!(compare("first", [&first, &more], true), Ok(()));
    }
}
