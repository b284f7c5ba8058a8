//! The fields of a well as one image: where each field is, from the positions of the stage or from
//! a grid, and the pixels of all of them in one plane.

use crate::about;
use crate::image::{Place, PlaneFile};
use crate::name::{Number, Well};
use fractal_task::TaskError;
use ome_zarr::pixel::{AnyPlane, Pixel, PixelType};
use ome_zarr::plane::Plane;
use ome_zarr::{each_plane, each_type};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The largest plane of a stitched image, in bytes: about 23,000 x 23,000 pixels of 16 bits.
const MAX_PLANE_BYTES: u64 = 1 << 30;
/// How many times larger than all fields together an image may be. Positions in another unit give
/// much more.
const MAX_EMPTY: u64 = 16;

/// Where a field of a well is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// The position of the stage in micrometers, x to the right and y downwards.
    StageUm([f64; 2]),
    /// Column and row in a grid of fields that do not overlap.
    Cell([usize; 2]),
    /// The position that the file of the field states, which could not be read when the plate was
    /// created.
    InFile,
}

/// A field of an image that has several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The field.
    pub field: Number,
    /// Where it is.
    pub location: Location,
    /// The files of each channel, in the order of axis z.
    pub files: Vec<Vec<PlaneFile>>,
}

/// The position of the stage for each field of a plate.
#[derive(Debug)]
pub struct Positions(BTreeMap<(String, Option<Well>, u64), [f64; 2]>);

impl Positions {
    /// Reads a CSV file with the columns `field`, `x` and `y`, in micrometers, and `plate` and
    /// `well` if they differ there.
    ///
    /// # Errors
    /// If the file cannot be read, a column is missing, or a value does not fit.
    pub fn read(path: &Path) -> Result<Self, TaskError> {
        let file = File::open(path).map_err(about("cannot open", path))?;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(file);
        let headers = reader
            .headers()
            .map_err(about("cannot read", path))?
            .clone();
        let column = |name: &str| {
            headers
                .iter()
                .position(|header| header.eq_ignore_ascii_case(name))
        };
        let required = |name: &str| {
            column(name).ok_or_else(|| {
                TaskError::about(
                    "cannot use",
                    path,
                    format!("it has no column {name:?}; add it to the first line"),
                )
            })
        };
        let (field, x, y) = (required("field")?, required("x")?, required("y")?);
        let (plate, well) = (column("plate"), column("well"));
        let mut positions = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(about("cannot read", path))?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong =
                |what: String| TaskError::about("cannot use", path, format!("line {line}: {what}"));
            let number = |column: usize| {
                let number = record[column]
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite());
                number.ok_or_else(|| {
                    wrong(format!("{:?} is no number of micrometers", &record[column]))
                })
            };
            let well = match well {
                Some(well) => Some(Well::parse(&record[well]).ok_or_else(|| {
                    wrong(format!("{:?} is no well, such as B03", &record[well]))
                })?),
                None => None,
            };
            let name = number_of(&record[field])
                .ok_or_else(|| wrong(format!("{:?} is no field", &record[field])))?;
            let key = (
                plate.map_or("", |plate| &record[plate]).to_owned(),
                well,
                name,
            );
            if positions.insert(key, [number(x)?, number(y)?]).is_some() {
                return Err(wrong(format!(
                    "field {} has a position already",
                    &record[field]
                )));
            }
        }
        Ok(Self(positions))
    }

    /// The position of a field.
    pub fn find(&self, plate: &str, well: &Well, field: &Number) -> Option<[f64; 2]> {
        let field = number_of(&field.0)?;
        let keys = [
            (plate, Some(well)),
            ("", Some(well)),
            (plate, None),
            ("", None),
        ];
        keys.into_iter().find_map(|(plate, well)| {
            self.0
                .get(&(plate.to_owned(), well.cloned(), field))
                .copied()
        })
    }
}

/// The number in the name of a field: 1 for `F001`, `1` and `001`.
fn number_of(field: &str) -> Option<u64> {
    field
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}

/// The cell of the field with this index in a grid that is filled row by row.
pub fn cell(index: usize, n_columns: usize) -> Location {
    Location::Cell([index % n_columns, index / n_columns])
}

/// Places fields in an image.
///
/// * `fields`: at least one, none of them [`Location::InFile`].
/// * `size`: width and height of each field.
///
/// Returns the places, and the width and height of the image.
///
/// # Errors
/// If two fields have the same position, or they are so far apart that the image is too large.
pub fn arrange(
    fields: &[(Number, Location)],
    size: (usize, usize),
    pixel_size_um: f64,
    pixel_type: PixelType,
) -> Result<(Vec<Place>, (usize, usize)), TaskError> {
    let (width, height) = size;
    let corner = |location: &Location| match location {
        Location::StageUm(position) => position.map(|position| position / pixel_size_um),
        Location::Cell([column, row]) => [(column * width) as f64, (row * height) as f64],
        Location::InFile => [0.0; 2],
    };
    let corners: Vec<[f64; 2]> = fields
        .iter()
        .map(|(_, location)| corner(location))
        .collect();
    let first = [0, 1].map(|axis| {
        corners
            .iter()
            .map(|corner| corner[axis])
            .fold(f64::INFINITY, f64::min)
    });
    let mut places: Vec<Place> = Vec::with_capacity(fields.len());
    for ((field, location), corner) in fields.iter().zip(&corners) {
        let [x, y] = [0, 1].map(|axis| libm::round(corner[axis] - first[axis]) as usize);
        if let Some(other) = places.iter().find(|place| (place.x, place.y) == (x, y)) {
            let cause = "have the same position; correct the positions, or set the argument stitch to false";
            return Err(TaskError::new(format!(
                "the fields {} and {field} {cause}",
                other.field
            )));
        }
        let stage_um = match location {
            Location::StageUm(position) => Some(*position),
            Location::Cell(_) | Location::InFile => None,
        };
        places.push(Place {
            field: field.clone(),
            x,
            y,
            width,
            height,
            stage_um,
        });
    }
    let end = |of: fn(&Place) -> usize| places.iter().map(of).max().unwrap_or(0);
    let whole = (
        end(|place| place.x.saturating_add(place.width)),
        end(|place| place.y.saturating_add(place.height)),
    );
    let area = |width: usize, height: usize| (width as u64).saturating_mul(height as u64);
    let n_pixels = area(whole.0, whole.1);
    let n_field_pixels = area(width, height).saturating_mul(fields.len() as u64);
    if n_pixels > n_field_pixels.saturating_mul(MAX_EMPTY)
        || n_pixels > MAX_PLANE_BYTES / pixel_type.n_bytes() as u64
    {
        return Err(TaskError::new(format!(
            "the fields are so far apart that the image of the well would have {}x{} pixels: are the positions in \
             micrometers, and is the pixel size {pixel_size_um} right?",
            whole.0, whole.1
        )));
    }
    Ok((places, whole))
}

/// A plane without light.
pub fn empty(pixel_type: PixelType, (width, height): (usize, usize)) -> AnyPlane {
    each_type!(pixel_type, T => T::wrap(Plane { width, height, values: vec![T::default(); width * height] }))
}

/// The pixels of a field in the plane of an image.
///
/// * `place`: inside of the image.
pub fn cut(plane: &AnyPlane, place: &Place) -> AnyPlane {
    each_plane!(plane, plane => Pixel::wrap(cut_pixels(plane, place)))
}

fn cut_pixels<T: Pixel>(plane: &Plane<T>, place: &Place) -> Plane<T> {
    let rows = plane
        .values
        .chunks_exact(plane.width)
        .skip(place.y)
        .take(place.height);
    let values = rows
        .flat_map(|row| &row[place.x..place.x + place.width])
        .copied()
        .collect();
    Plane {
        width: place.width,
        height: place.height,
        values,
    }
}

/// Puts a field into the plane of the image, over what is there.
///
/// Returns true if both planes have the same type of pixels and the field fits.
#[must_use]
pub fn paste(plane: &mut AnyPlane, field: &AnyPlane, (x, y): (usize, usize)) -> bool {
    match (plane, field) {
        (AnyPlane::U8(plane), AnyPlane::U8(field)) => paste_pixels(plane, field, (x, y)),
        (AnyPlane::U16(plane), AnyPlane::U16(field)) => paste_pixels(plane, field, (x, y)),
        (AnyPlane::U32(plane), AnyPlane::U32(field)) => paste_pixels(plane, field, (x, y)),
        (AnyPlane::I16(plane), AnyPlane::I16(field)) => paste_pixels(plane, field, (x, y)),
        (AnyPlane::F32(plane), AnyPlane::F32(field)) => paste_pixels(plane, field, (x, y)),
        _ => false,
    }
}

fn paste_pixels<T: Pixel>(plane: &mut Plane<T>, field: &Plane<T>, (x, y): (usize, usize)) -> bool {
    if x + field.width > plane.width || y + field.height > plane.height {
        return false;
    }
    let rows = plane.values.chunks_exact_mut(plane.width).skip(y);
    for (row, values) in rows.zip(field.values.chunks_exact(field.width)) {
        row[x..x + field.width].copy_from_slice(values);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Number {
        Number(text.to_owned())
    }

    /// Width and height, or a column and a row.
    type Pair = (usize, usize);

    fn corners(fields: &[(&str, Location)]) -> Result<(Vec<Pair>, Pair), String> {
        let fields: Vec<(Number, Location)> = fields
            .iter()
            .map(|(name, location)| (field(name), *location))
            .collect();
        let arranged =
            arrange(&fields, (10, 8), 0.5, PixelType::U16).map_err(|err| err.to_string());
        arranged.map(|(places, size)| {
            (
                places.iter().map(|place| (place.x, place.y)).collect(),
                size,
            )
        })
    }

    #[test]
    fn fields_are_where_the_stage_was() {
        let stage = |x: f64, y: f64| Location::StageUm([x, y]);
        let (places, size) = corners(&[
            ("F1", stage(-100.0, 50.0)),
            ("F2", stage(-95.2, 50.0)),
            ("F3", stage(-100.0, 46.1)),
        ])
        .unwrap();
        assert_eq!((places, size), (vec![(0, 8), (10, 8), (0, 0)], (20, 16)));
        let (places, size) =
            corners(&[("F1", cell(0, 2)), ("F2", cell(1, 2)), ("F3", cell(2, 2))]).unwrap();
        assert_eq!((places, size), (vec![(0, 0), (10, 0), (0, 8)], (20, 16)));
        let error = corners(&[("F1", stage(0.0, 0.0)), ("F2", stage(0.1, 0.0))]).unwrap_err();
        assert!(
            error.starts_with("the fields F1 and F2 have the same position"),
            "{error}"
        );
        let error = corners(&[("F1", stage(0.0, 0.0)), ("F2", stage(1e30, 0.0))]).unwrap_err();
        assert!(error.contains("so far apart"), "{error}");
    }

    #[test]
    fn the_last_field_is_on_top() {
        let mut plane = empty(PixelType::U16, (3, 2));
        let field = |value: u16| {
            AnyPlane::U16(Plane {
                width: 2,
                height: 1,
                values: vec![value; 2],
            })
        };
        assert!(paste(&mut plane, &field(1), (0, 0)) && paste(&mut plane, &field(2), (1, 0)));
        assert!(!paste(&mut plane, &field(3), (2, 0)));
        assert!(!paste(&mut plane, &empty(PixelType::U8, (1, 1)), (0, 0)));
        assert_eq!(
            plane,
            AnyPlane::U16(Plane {
                width: 3,
                height: 2,
                values: vec![1, 2, 2, 0, 0, 0]
            })
        );
        let place = Place {
            field: Number("F1".to_owned()),
            x: 1,
            y: 0,
            width: 1,
            height: 2,
            stage_um: None,
        };
        assert_eq!(
            cut(&plane, &place),
            AnyPlane::U16(Plane {
                width: 1,
                height: 2,
                values: vec![2, 0]
            })
        );
    }

    #[test]
    fn positions_are_those_of_the_most_exact_row() {
        let path =
            std::env::temp_dir().join(format!("imaging-positions-{}.csv", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let positions = Positions::read(&path).map_err(|err| err.to_string());
            std::fs::remove_file(&path).unwrap();
            positions
        };
        let well = |text: &str| Well::parse(text).unwrap();
        let positions = read("Field,x,y\n1,0,0\n2,650.5,-1\n").unwrap();
        assert_eq!(
            positions.find("p", &well("B03"), &field("F002")),
            Some([650.5, -1.0])
        );
        assert_eq!(positions.find("p", &well("B03"), &field("F003")), None);
        let positions = read("plate,well,field,x,y\np,B03,1,5,6\nq,B03,1,7,8\n").unwrap();
        assert_eq!(
            positions.find("q", &well("B03"), &field("1")),
            Some([7.0, 8.0])
        );
        assert_eq!(positions.find("q", &well("B04"), &field("1")), None);
        assert!(
            read("field,x,y\n1,a,0\n")
                .unwrap_err()
                .ends_with("line 2: \"a\" is no number of micrometers")
        );
        assert!(
            read("field,x\n1,0\n")
                .unwrap_err()
                .contains("it has no column \"y\"")
        );
        assert!(
            read("field,x,y\n1,0,0\nF1,1,1\n")
                .unwrap_err()
                .contains("line 3: field F1 has a position already")
        );
    }
}
