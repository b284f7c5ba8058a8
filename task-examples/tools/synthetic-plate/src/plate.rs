//! The whole plate: a field is made from the plate's seed and its own place, and written as files.

use crate::camera::{self, Illumination};
use crate::cells::{self, Cell};
use crate::kind::Kind;
use crate::light;
use crate::truth;
use crate::wells::{Well, Wells};
use anyhow::Context as _;
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use synthetic_images::random::Random;
use synthetic_images::{DeflateLevel, build_tiff};

/// What a plate's files depend on.
#[derive(Debug, Clone)]
pub(crate) struct Plate {
    pub(crate) wells: Wells,
    /// Fields of view in a well.
    pub(crate) n_fields: u16,
    /// Focal planes of a field.
    pub(crate) n_planes: u16,
    /// Rows and columns of an image.
    pub(crate) size: u16,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
}

/// One field of view, and what is in it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) well: Well,
    /// From 1.
    pub(crate) number: u16,
    pub(crate) cells: Vec<Cell>,
}

impl Plate {
    /// Writes `images/`, `truth.json` and `illumination/` into a folder; other files there stay.
    ///
    /// Returns the fields, well by well.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<Vec<Field>> {
        let images = folder.join("images");
        let profiles = folder.join("illumination");
        for folder in [&images, &profiles] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let illumination = Illumination::of_plate(self.seed, usize::from(self.size));
        for (name, profile) in ["C01.png", "C02.png"].into_iter().zip(&illumination) {
            write_file(&profiles.join(name), &profile.build_png()?)?;
        }
        let field = |(well, number)| self.write_field(&images, &illumination, well, number);
        let fields = self
            .places()
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(field)
            .collect::<anyhow::Result<Vec<_>>>()?;
        write_file(
            &folder.join("truth.json"),
            truth::build_json(self, &fields)?.as_bytes(),
        )?;
        Ok(fields)
    }

    /// Counts the images of this plate in a folder that these arguments do not make: they are of an
    /// earlier run.
    pub(crate) fn count_other_images(&self, folder: &Path) -> anyhow::Result<usize> {
        let own: HashSet<String> = self
            .places()
            .flat_map(|(well, number)| self.file_names(well, number))
            .collect();
        let images = folder.join("images");
        let mut n_others = 0;
        for entry in std::fs::read_dir(&images)
            .with_context(|| format!("cannot list {}", images.display()))?
        {
            let name = entry?.file_name().to_string_lossy().into_owned();
            n_others += usize::from(name.starts_with("plate1_") && !own.contains(&name));
        }
        Ok(n_others)
    }

    /// Wells and numbers of fields.
    fn places(&self) -> impl Iterator<Item = (Well, u16)> {
        self.wells
            .iter()
            .flat_map(|well| (1..=self.n_fields).map(move |number| (well, number)))
    }

    /// Those of one field: the planes of the first channel, then those of the second.
    fn file_names(&self, well: Well, number: u16) -> impl Iterator<Item = String> {
        let n_planes = self.n_planes;
        (1..=2).flat_map(move |channel| {
            (1..=n_planes).map(move |plane| {
                format!("plate1_{well}_F{number:03}_Z{plane:03}_C{channel:02}.tif")
            })
        })
    }

    fn write_field(
        &self,
        images: &Path,
        illumination: &[Illumination; 2],
        well: Well,
        number: u16,
    ) -> anyhow::Result<Field> {
        let (size, n_planes) = (usize::from(self.size), usize::from(self.n_planes));
        let settings = self.kind.settings();
        let response = self.wells.response_in(well);
        let mut random = self.random_of(well, number);
        let cells = cells::place_cells(&settings, size, n_planes, response, &mut random);
        let light = light::draw(
            &cells,
            &settings,
            size,
            n_planes,
            0.5 + 1.3 * response,
            &mut random,
        );
        let planes = light.nuclei.iter().map(|plane| (plane, &illumination[0]));
        let planes = planes.chain(
            light
                .cytoplasm
                .iter()
                .map(|plane| (plane, &illumination[1])),
        );
        for ((light, illumination), name) in planes.zip(self.file_names(well, number)) {
            let counts = camera::expose(light, illumination, &settings, &mut random);
            write_file(
                &images.join(name),
                &build_tiff(size, &counts, DeflateLevel::Fast)?,
            )?;
        }
        Ok(Field {
            well,
            number,
            cells,
        })
    }

    /// A field has random numbers of its own, so that the others do not change it.
    fn random_of(&self, well: Well, number: u16) -> Random {
        let place = u64::from(well.row) << 32 | u64::from(well.column) << 16 | u64::from(number);
        let seed = Random::new(self.seed).next_u64().wrapping_add(place);
        Random::new(Random::new(seed).next_u64())
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// The plate, with the bytes of its files by name.
    fn write(name: &str, plate: &Plate) -> BTreeMap<String, Vec<u8>> {
        let folder =
            std::env::temp_dir().join(format!("synthetic-plate-{}-{name}", std::process::id()));
        plate.write(&folder).unwrap();
        let mut files = read_files(&folder.join("images"));
        files.insert(
            "truth.json".to_owned(),
            std::fs::read(folder.join("truth.json")).unwrap(),
        );
        assert_eq!(
            read_files(&folder.join("illumination"))
                .into_keys()
                .collect::<Vec<_>>(),
            ["C01.png", "C02.png"]
        );
        assert_eq!(plate.count_other_images(&folder).unwrap(), 0);
        let fewer = Plate {
            n_fields: 1,
            ..plate.clone()
        };
        let n_others = usize::from(plate.n_fields - 1)
            * plate.wells.iter().count()
            * 2
            * usize::from(plate.n_planes);
        assert_eq!(fewer.count_other_images(&folder).unwrap(), n_others);
        std::fs::remove_dir_all(&folder).unwrap();
        files
    }

    fn read_files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let paths = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        paths
            .map(|path| (name(&path), std::fs::read(path).unwrap()))
            .collect()
    }

    fn small(wells: &str, n_fields: u16, seed: u64) -> Plate {
        Plate {
            wells: Wells::parse(wells).unwrap(),
            n_fields,
            n_planes: 1,
            size: 96,
            kind: Kind::Crowded,
            seed,
        }
    }

    #[test]
    fn the_committed_images_are_those_of_the_seed() {
        let wells = Wells::parse("B03,B04,C03,C04").unwrap();
        let plate = Plate {
            wells,
            n_fields: 2,
            n_planes: 3,
            size: 192,
            kind: Kind::Easy,
            seed: 1,
        };
        let made = write("committed", &plate);
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../imaging");
        let mut there = read_files(&committed.join("images"));
        there.insert(
            "truth.json".to_owned(),
            std::fs::read(committed.join("truth.json")).unwrap(),
        );
        assert_eq!(made.len(), 49);
        assert!(made.keys().eq(there.keys()), "{:?}", there.keys());
        for (name, bytes) in made {
            assert!(bytes == there[&name], "{name} is another one");
        }
    }

    #[test]
    fn a_field_does_not_depend_on_how_many_there_are() {
        let (few, many) = (
            write("few", &small("B03,B04", 1, 7)),
            write("many", &small("B03,B04", 3, 7)),
        );
        assert_eq!((few.len(), many.len()), (5, 13));
        for (name, bytes) in few.iter().filter(|(name, _)| name.ends_with(".tif")) {
            assert!(*bytes == many[name], "{name}");
        }
        let images: HashSet<_> = many.values().collect();
        assert_eq!(images.len(), 13, "no two images are the same");
    }

    #[test]
    fn another_seed_gives_other_images() {
        let (one, other) = (
            write("one", &small("A01", 2, 1)),
            write("other", &small("A01", 2, 2)),
        );
        assert!(one.keys().eq(other.keys()));
        assert!(one.iter().all(|(name, bytes)| *bytes != other[name]));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let file =
            std::env::temp_dir().join(format!("synthetic-plate-{}-file", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let message = small("A01", 1, 1).write(&file).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("cannot make the folder {}", file.join("images").display())
        );
        std::fs::remove_file(&file).unwrap();
    }
}
