//! Bright objects of an image, touching ones split: smoothing, Otsu's threshold, and a watershed of
//! the distance to the background.
//!
//! All steps give what scikit-image and scipy give for the same parameters: `gaussian_filter` with
//! `truncate=4` and the edge repeated, `threshold_otsu` of whole grey levels,
//! `distance_transform_edt`, `peak_local_max` for each connected region, `watershed` with
//! connectivity 1.

pub mod gaussian;
pub mod otsu;
pub mod regions;
pub mod split;

use fractal_task::{TaskError, check_range};
use ome_zarr::ngff;
use ome_zarr::pixel::AnyPlane;
use ome_zarr::plane::Plane;
use serde::{Serialize, Serializer};

/// How objects are found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Standard deviation of the Gaussian that the image is smoothed by, in pixels.
    pub smoothing_sigma: f64,
    /// Objects are brighter than this; Otsu's threshold if there is none.
    #[serde(serialize_with = "serialize_threshold")]
    pub threshold: Option<f64>,
    /// Standard deviation of the Gaussian that the distance to the background is smoothed by, in
    /// pixels.
    pub split_sigma: f64,
    /// Two objects that touch have their middles at least so many pixels apart, in x or in y.
    pub min_distance: usize,
    /// Smaller objects are left out; in pixels.
    pub min_area: usize,
}

impl Settings {
    /// # Errors
    /// If a value is out of range.
    pub fn check(&self) -> Result<(), TaskError> {
        check_range("smoothing_sigma", self.smoothing_sigma, 0.0..=50.0)?;
        check_range("split_sigma", self.split_sigma, 0.0..=50.0)?;
        check_range("min_distance", self.min_distance, 1..=1000)?;
        check_range("min_area", self.min_area, 1..=100_000_000)
    }
}

/// The objects of an image.
#[derive(Debug, PartialEq)]
pub struct Segmentation {
    /// 0 is background; objects are numbered from 1 in the order of their first pixels, row by row.
    pub labels: Plane<u32>,
    /// The number of objects.
    pub n_objects: usize,
    /// Objects are brighter than this, after smoothing.
    pub threshold: f64,
}

/// Writes a threshold without a fraction, if it has none.
fn serialize_threshold<S: Serializer>(
    threshold: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    threshold.map(ngff::number).serialize(serializer)
}

/// Finds the objects of an image. The smoothed values of an image of integers are rounded.
///
/// # Errors
/// If all pixels are brighter than the threshold.
pub fn segment(plane: &AnyPlane, settings: &Settings) -> Result<Segmentation, TaskError> {
    let (width, height) = plane.size();
    let whole = plane.pixel_type().limits().is_some();
    let mut smooth = gaussian::smooth(plane.to_f64(), (width, height), settings.smoothing_sigma);
    if whole {
        smooth
            .iter_mut()
            .for_each(|value| *value = value.round_ties_even());
    }
    let threshold = settings
        .threshold
        .unwrap_or_else(|| otsu::threshold(&smooth, whole));
    let mask: Vec<bool> = smooth.iter().map(|&value| value > threshold).collect();
    if mask.iter().all(|&in_mask| in_mask) {
        return Err(TaskError::new(format!(
            "all pixels are brighter than the threshold {threshold}: choose a higher one"
        )));
    }
    let distance = regions::distance_to_outside(&mask, width);
    let distance = gaussian::smooth(distance, (width, height), settings.split_sigma);
    let regions = regions::connected_regions(&mask, width);
    let peaks = split::find_peaks(&distance, &regions, width, settings.min_distance);
    let mut labels = split::flood(&distance, &mask, width, &peaks);
    let n_objects = number(&mut labels, settings.min_area);
    Ok(Segmentation {
        labels: Plane {
            width,
            height,
            values: labels,
        },
        n_objects,
        threshold,
    })
}

/// Leaves out small objects and numbers the others anew. Returns how many there are.
fn number(labels: &mut [u32], min_area: usize) -> usize {
    let mut areas = vec![0_usize; labels.iter().max().map_or(0, |&max| max as usize) + 1];
    labels.iter().for_each(|&label| areas[label as usize] += 1);
    let mut numbers = vec![None; areas.len()];
    numbers[0] = Some(0);
    let mut n_objects = 0;
    for label in labels {
        let old = *label as usize;
        *label = *numbers[old].get_or_insert_with(|| {
            if areas[old] < min_area {
                return 0;
            }
            n_objects += 1;
            n_objects
        });
    }
    n_objects as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use ome_zarr::pixel::PixelType;

    const SETTINGS: Settings = Settings {
        smoothing_sigma: 1.0,
        threshold: None,
        split_sigma: 1.0,
        min_distance: 5,
        min_area: 20,
    };

    fn discs(size: usize, centres: &[(f64, f64)], radius: f64) -> AnyPlane {
        let is_in = |x: usize, y: usize| {
            centres.iter().any(|(cx, cy)| {
                (x as f64 - cx).powi(2) + (y as f64 - cy).powi(2) <= radius * radius
            })
        };
        let values = (0..size * size)
            .map(|i| if is_in(i % size, i / size) { 1000 } else { 100 })
            .collect();
        AnyPlane::U16(Plane {
            width: size,
            height: size,
            values,
        })
    }

    fn check(centres: &[(f64, f64)], radius: f64, expected: usize) -> Segmentation {
        let segmentation = segment(&discs(64, centres, radius), &SETTINGS).unwrap();
        assert_eq!(segmentation.n_objects, expected, "{centres:?}");
        let max = segmentation.labels.values.iter().max().copied().unwrap();
        assert_eq!(max as usize, expected);
        segmentation
    }

    #[test]
    fn objects_are_numbered_by_their_first_pixels() {
        let segmentation = check(&[(40.0, 12.0), (12.0, 14.0), (30.0, 48.0)], 7.0, 3);
        let at = |x: usize, y: usize| segmentation.labels.values[y * 64 + x];
        assert_eq!((at(40, 12), at(12, 14), at(30, 48), at(0, 0)), (1, 2, 3, 0));
    }

    #[test]
    fn touching_objects_are_split_in_the_middle() {
        let segmentation = check(&[(20.0, 30.0), (35.0, 30.0)], 9.0, 2);
        let row = &segmentation.labels.values[30 * 64..31 * 64];
        let border = (1..64).find(|&x| row[x - 1] == 1 && row[x] == 2).unwrap();
        assert!((27..=28).contains(&border), "{border}");
    }

    #[test]
    fn small_objects_are_left_out() {
        check(&[(20.0, 30.0), (50.0, 30.0)], 1.0, 0);
    }

    #[test]
    fn an_empty_image_has_no_objects() {
        check(&[], 1.0, 0);
    }

    #[test]
    fn all_types_of_pixels_have_the_same_objects() {
        let plane = discs(64, &[(20.0, 30.0), (35.0, 30.0)], 9.0);
        let expected = segment(&plane, &SETTINGS).unwrap();
        let convert = |offset: f64, factor: f64| {
            plane
                .to_f64()
                .into_iter()
                .map(move |value| (value + offset) * factor)
        };
        let (width, height) = plane.size();
        let signed = convert(-600.0, 1.0).map(|value| value as i16).collect();
        let large = convert(0.0, 4e6).map(|value| value as u32).collect();
        let float = convert(-100.0, 0.001).map(|value| value as f32).collect();
        for other in [
            AnyPlane::I16(Plane {
                width,
                height,
                values: signed,
            }),
            AnyPlane::U32(Plane {
                width,
                height,
                values: large,
            }),
            AnyPlane::F32(Plane {
                width,
                height,
                values: float,
            }),
        ] {
            let found = segment(&other, &SETTINGS).unwrap();
            assert_eq!(found.n_objects, 2, "{:?}", other.pixel_type());
            // The levels of fractions are the centres of bins, so the threshold is another one.
            let is_same = found.labels == expected.labels;
            assert!(
                is_same || other.pixel_type() == PixelType::F32,
                "{:?}",
                other.pixel_type()
            );
        }
    }

    #[test]
    fn a_threshold_below_everything_is_an_error() {
        let settings = Settings {
            threshold: Some(0.0),
            ..SETTINGS
        };
        let error = segment(&discs(32, &[], 1.0), &settings)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "all pixels are brighter than the threshold 0: choose a higher one"
        );
    }
}
