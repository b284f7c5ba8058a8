//! Names of image files (`plate1_B03_F001_C01.tif`) and of the images made from them
//! (`plate1_B03_F001.zarr`). No file is touched here.

use std::fmt;

/// One field of view, which becomes one OME-Zarr image. Its text is `PLATE_WELL_FIELD`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    plate: String,
    well: String,
    field: String,
}

impl ImageName {
    /// Reads a component such as `plate1_B03_F001.zarr`.
    pub fn parse_component(component: &str) -> Option<Self> {
        Self::parse(component.strip_suffix(".zarr")?)
    }

    /// The name of the image's folder, and of the component: `plate1_B03_F001.zarr`.
    pub fn component(&self) -> String {
        format!("{self}.zarr")
    }

    fn parse(text: &str) -> Option<Self> {
        let (rest, field) = text.rsplit_once('_')?;
        let (plate, well) = rest.rsplit_once('_')?;
        let safe_plate =
            !plate.is_empty() && !plate.contains(['/', '\\']) && !plate.contains(char::is_control);
        (safe_plate && is_well(well) && is_number(field, 'F')).then(|| Self {
            plate: plate.to_owned(),
            well: well.to_owned(),
            field: field.to_owned(),
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.plate, self.well, self.field)
    }
}

/// The file of one channel of one image. Its text is `PLATE_WELL_FIELD_CHANNEL.EXTENSION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The image that the file belongs to.
    pub image: ImageName,
    /// `C` and a number.
    pub channel: String,
    /// What follows the last dot, as it is written.
    pub extension: String,
}

impl FileName {
    /// Reads a file name; `None` if it does not have the form `plate1_B03_F001_C01.tif`.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let (image, channel) = stem.rsplit_once('_')?;
        is_number(channel, 'C').then_some(())?;
        Some(Self {
            image: ImageName::parse(image)?,
            channel: channel.to_owned(),
            extension: extension.to_owned(),
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}.{}", self.image, self.channel, self.extension)
    }
}

/// A row of one or two capital letters, then a column of one to three digits: `B03`, `AF48`.
fn is_well(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let n_letters = text.len() - digits.len();
    (1..=2).contains(&n_letters)
        && (1..=3).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_number(text: &str, prefix: char) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_taken_apart_and_put_together() {
        for name in [
            "plate1_B03_F001_C01.tif",
            "my_plate 2_AF48_F1_C12.TIFF",
            "p.1_A1_F0_C0.png",
        ] {
            assert_eq!(FileName::parse(name).expect(name).to_string(), name);
        }
        let file = FileName::parse("my_plate_B03_F001_C02.tif").unwrap();
        assert_eq!(file.channel, "C02");
        assert_eq!(file.image.component(), "my_plate_B03_F001.zarr");
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "B03_F001_C01.tif",
            "_B03_F001_C01.tif",
            "plate1_B03_F001.tif",
            "plate1_b03_F001_C01.tif",
            "plate1_B_F001_C01.tif",
            "plate1_B03_F_C01.tif",
            "plate1_B03_F001_C01x.tif",
            "plate1_B03_F001_C01",
            "thumbnail.png",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
        for component in [
            "../p_B03_F001.zarr",
            "p_B03_F001",
            "p_B03_F001.zarr/0",
            "a\\p_B03_F001.zarr",
            "",
        ] {
            assert_eq!(ImageName::parse_component(component), None, "{component}");
        }
    }
}
