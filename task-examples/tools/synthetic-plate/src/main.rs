//! Makes a plate of microscope-like images with uneven illumination and noise, and writes down what
//! is in them.
//!
//! Each well has some fields of view, a field two channels (C01 nuclei, C02 cytoplasm) and some
//! focal planes. The same arguments give the same bytes on every machine: random numbers and all
//! functions beyond arithmetic and the square root are computed by this workspace or by `libm`,
//! never by the system.

mod camera;
mod cells;
mod ellipse;
mod kind;
mod light;
mod plate;
mod truth;
mod wells;

use clap::Parser as _;
use kind::Kind;
use plate::Plate;
use std::path::PathBuf;
use std::process::ExitCode;
use wells::Wells;

/// Makes a plate of microscope-like images of nuclei, with the truth about them
///
/// Writes FOLDER/images/*.tif, FOLDER/truth.json and FOLDER/illumination/*.png; other files there
/// stay. The same arguments give the same bytes.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Where the plate goes; made if it is not there
    folder: PathBuf,
    /// Names of wells, or the number of wells of a whole plate: 6, 12, 24, 48, 96 or 384
    #[arg(long, default_value = "B03,B04,C03,C04", value_parser = Wells::parse)]
    wells: Wells,
    /// Fields of view in each well
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=999))]
    fields: u16,
    /// Focal planes of each field
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    planes: u16,
    /// Rows and columns of an image
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(64..=4096))]
    size: u16,
    /// How hard it is to find the nuclei
    #[arg(long, value_enum, default_value_t = Kind::Easy)]
    kind: Kind,
    /// What all random numbers depend on
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let folder = arguments.folder;
    let plate = Plate {
        wells: arguments.wells,
        n_fields: arguments.fields,
        n_planes: arguments.planes,
        size: arguments.size,
        kind: arguments.kind,
        seed: arguments.seed,
    };
    let made = plate
        .write(&folder)
        .and_then(|fields| Ok((fields, plate.count_other_images(&folder)?)));
    match made {
        Ok((fields, n_others)) => {
            let n_images = fields.len() * 2 * usize::from(plate.n_planes);
            let n_nuclei: usize = fields.iter().map(|field| field.cells.len()).sum();
            println!(
                "{n_images} images with {n_nuclei} nuclei are in {}",
                folder.display()
            );
            if n_others > 0 {
                eprintln!(
                    "note: {n_others} other images of plate1 are there, which truth.json does not describe"
                );
            }
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn message(args: &[&str]) -> String {
        let args = ["synthetic-plate"].iter().chain(args);
        Arguments::try_parse_from(args).unwrap_err().to_string()
    }

    #[test]
    fn wrong_arguments_are_named() {
        Arguments::command().debug_assert();
        for (args, part) in [
            (
                ["out", "--wells", "B3"],
                "'B3' is no well: write a letter from A to P and a column from 01 to 24",
            ),
            (
                ["out", "--wells", "97"],
                "a whole plate has 6, 12, 24, 48, 96 or 384 wells",
            ),
            (["out", "--size", "63"], "63 is not in 64..=4096"),
            (["out", "--fields", "0"], "0 is not in 1..=999"),
            (
                ["out", "--kind", "hard"],
                "[possible values: easy, crowded]",
            ),
        ] {
            assert!(message(&args).contains(part), "{}", message(&args));
        }
        assert!(message(&[]).contains("<FOLDER>"));
    }
}
