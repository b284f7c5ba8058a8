//! Makes a small plate of 16-bit microscope-like images: wells B03 and C05, two fields each, and of
//! each field channel C01 (nuclei) and C02 (cytoplasm around them).
//!
//! The same seed gives the same bytes on every machine: random numbers and all functions beyond
//! arithmetic are computed here or by `libm`, never by the system.

mod field;

use field::Field;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use synthetic_images::random::Random;
use synthetic_images::{DeflateLevel, build_tiff};
use tiff::TiffResult;

const SEED: u64 = 20_240_607;
const SIZE: usize = 256;
const IMAGES: [(&str, &str); 4] = [
    ("B03", "F001"),
    ("B03", "F002"),
    ("C05", "F001"),
    ("C05", "F002"),
];

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder] = args.as_slice() else {
        eprintln!("usage: synthetic-images FOLDER");
        return ExitCode::from(2);
    };
    match write_plate(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!(
                "error: cannot write the images to {}: {err}",
                folder.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn write_plate(folder: &Path) -> TiffResult<()> {
    std::fs::create_dir_all(folder)?;
    for (index, (well, field)) in IMAGES.into_iter().enumerate() {
        let mut random = Random::new(SEED + index as u64);
        let cells = Field::new(SIZE, &mut random);
        for (channel, values) in [
            ("C01", cells.nuclei(&mut random)),
            ("C02", cells.cytoplasm(&mut random)),
        ] {
            let path = folder.join(format!("plate1_{well}_{field}_{channel}.tif"));
            std::fs::write(path, build_tiff(SIZE, &values, DeflateLevel::Best)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_images_are_those_of_the_seed() {
        let made = std::env::temp_dir().join(format!("synthetic-images-{}", std::process::id()));
        write_plate(&made).unwrap();
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images");
        let mut n_images = 0;
        for entry in std::fs::read_dir(&made).unwrap() {
            let name = entry.unwrap().file_name();
            let same = std::fs::read(made.join(&name)).unwrap()
                == std::fs::read(committed.join(&name)).unwrap();
            assert!(same, "{}", name.display());
            n_images += 1;
        }
        assert_eq!(n_images, 8);
        std::fs::remove_dir_all(&made).unwrap();
    }
}
