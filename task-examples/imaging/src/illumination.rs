//! The illumination of a channel over the field of view: estimated from many images, taken out of
//! one.
//!
//! A pixel is taken to be `background + illumination * light`, where the background is the camera's
//! and the illumination is the same in all images of a channel.

use crate::image::Place;
use fractal_task::TaskError;
use ome_zarr::pixel::Pixel;
use ome_zarr::plane::Plane;

/// Degree of the polynomial in x and y that the illumination is described by.
const DEGREE: usize = 4;
/// Terms of that polynomial.
const N_TERMS: usize = (DEGREE + 1) * (DEGREE + 2) / 2;
/// The share of images that are darker at a pixel than the value which stands for it: few, so that
/// it is light from between the objects, and yet not that of one empty image.
const QUANTILE: f64 = 0.05;
/// How often the polynomial is fitted anew.
const N_FITS: usize = 40;
/// Values that lie this many typical distances above the polynomial count half.
const TOLERANCE: f64 = 1.5;
/// Where there is less light than this share of the brightest place, there is nothing to correct.
const MIN_SHARE: f64 = 0.05;

/// Estimates the illumination from small versions of many images.
///
/// What is dark at a pixel, in the few darkest images, is light from between the objects. Where
/// there are objects in nearly all images the value is too high, so values above the polynomial
/// count less, the farther the less, and those below it do not.
///
/// * `samples`: one image each, all of one size: the darkest of its Z planes; values without the
///   camera's background.
/// * `small`: their width and height.
/// * `size`: width and height of the result.
///
/// Returns the illumination as shares of its maximum, which is 65535.
///
/// # Errors
/// If there is no light in the images, or so uneven that no smooth profile fits.
pub fn estimate(
    samples: &[Vec<f64>],
    small: (usize, usize),
    size: (usize, usize),
) -> Result<Plane, TaskError> {
    let dark: Vec<f64> = (0..small.0 * small.1)
        .map(|pixel| {
            let mut values: Vec<f64> = samples.iter().map(|sample| sample[pixel]).collect();
            values.sort_by(f64::total_cmp);
            values[((values.len() - 1) as f64 * QUANTILE) as usize]
        })
        .collect();
    let coefficients = fit_from_below(&dark, small);
    let values: Vec<f64> = pixels(size)
        .map(|place| dot(&terms(place), &coefficients))
        .collect();
    let max = values.iter().copied().fold(0.0, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    if !(max > 0.0 && min >= MIN_SHARE * max) {
        return Err(TaskError::new(format!(
            "the illumination cannot be estimated: it would go from {min:.1} to {max:.1} counts above the background; \
             is the argument background the camera's, and are the images more than empty?"
        )));
    }
    let values = values
        .iter()
        .map(|value| libm::round(value / max * f64::from(u16::MAX)) as u16)
        .collect();
    Ok(Plane {
        width: size.0,
        height: size.1,
        values,
    })
}

/// Takes the background off an image and divides it by the illumination, as shares of its maximum.
///
/// Values below the background become 0. Integers are rounded, halves upwards, and cut at the
/// largest one of their type. `shares` has the size of the image: see [`shares`].
pub fn correct<T: Pixel>(plane: &mut Plane<T>, shares: &Plane<f64>, background: u16) {
    let rounding = if T::TYPE.limits().is_some() { 0.5 } else { 0.0 };
    for (value, &share) in plane.values.iter_mut().zip(&shares.values) {
        let light = value.to_f64() - f64::from(background);
        // Modules have an instruction for this comparison, but none for `max`, which is for NaN too.
        let light = if light > 0.0 { light } else { 0.0 };
        *value = T::from_f64(light / share + rounding);
    }
}

/// The illumination of each pixel as a share of the brightest one, from a profile without 0.
pub fn shares(profile: &Plane) -> Plane<f64> {
    let max = f64::from(profile.values.iter().copied().max().unwrap_or(1));
    let values = profile
        .values
        .iter()
        .map(|&share| f64::from(share) / max)
        .collect();
    Plane {
        width: profile.width,
        height: profile.height,
        values,
    }
}

/// Corrects each field of an image by the same profile: see [`correct`]. Where fields overlap,
/// pixels are those of the last one. Pixels outside of all fields stay.
///
/// * `fields`: inside of the image, each of the size of `shares`.
pub fn correct_fields<T: Pixel>(
    plane: &mut Plane<T>,
    fields: &[Place],
    shares: &Plane<f64>,
    background: u16,
) {
    if let [field] = fields
        && (field.width, field.height) == (plane.width, plane.height)
    {
        return correct(plane, shares, background);
    }
    let (width, mut is_corrected) = (plane.width, vec![false; plane.values.len()]);
    for field in fields.iter().rev() {
        let mut light = Plane {
            width: field.width,
            height: field.height,
            values: Vec::with_capacity(shares.values.len()),
        };
        let start = |row: usize| (field.y + row) * width + field.x;
        for row in 0..field.height {
            light
                .values
                .extend_from_slice(&plane.values[start(row)..start(row) + field.width]);
        }
        correct(&mut light, shares, background);
        for (row, light) in light.values.chunks_exact(field.width).enumerate() {
            let pixels = start(row)..start(row) + field.width;
            for ((value, is_corrected), light) in plane.values[pixels.clone()]
                .iter_mut()
                .zip(&mut is_corrected[pixels])
                .zip(light)
            {
                if !std::mem::replace(is_corrected, true) {
                    *value = *light;
                }
            }
        }
    }
}

/// The centre of each pixel, both directions from -1 to 1.
fn pixels((width, height): (usize, usize)) -> impl Iterator<Item = (f64, f64)> {
    let place = |index: usize, n: usize| (2 * index + 1) as f64 / n as f64 - 1.0;
    (0..height).flat_map(move |y| (0..width).map(move |x| (place(x, width), place(y, height))))
}

fn terms((x, y): (f64, f64)) -> [f64; N_TERMS] {
    let mut terms = [0.0; N_TERMS];
    let (mut index, mut x_power) = (0, 1.0);
    for x_degree in 0..=DEGREE {
        let mut term = x_power;
        for _ in 0..=DEGREE - x_degree {
            terms[index] = term;
            term *= y;
            index += 1;
        }
        x_power *= x;
    }
    terms
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The polynomial that runs below the values which stand out.
fn fit_from_below(values: &[f64], size: (usize, usize)) -> [f64; N_TERMS] {
    let mut weights = vec![1.0; values.len()];
    let mut coefficients = fit(values, &weights, size);
    for _ in 0..N_FITS {
        let above: Vec<f64> = pixels(size)
            .zip(values)
            .map(|(place, value)| value - dot(&terms(place), &coefficients))
            .collect();
        let mut below: Vec<f64> = above
            .iter()
            .filter(|above| **above < 0.0)
            .map(|above| -above)
            .collect();
        below.sort_by(f64::total_cmp);
        let Some(typical) = below
            .get(below.len() / 2)
            .map(|typical| TOLERANCE * typical)
        else {
            break;
        };
        for (weight, above) in weights.iter_mut().zip(&above) {
            let distance = above.max(0.0) / typical;
            *weight = 1.0 / (1.0 + distance * distance);
        }
        coefficients = fit(values, &weights, size);
    }
    coefficients
}

/// The polynomial of least squares.
fn fit(values: &[f64], weights: &[f64], size: (usize, usize)) -> [f64; N_TERMS] {
    let (mut matrix, mut right) = ([[0.0; N_TERMS]; N_TERMS], [0.0; N_TERMS]);
    for ((place, value), weight) in pixels(size).zip(values).zip(weights) {
        let terms = terms(place);
        for (row, term) in terms.iter().enumerate() {
            right[row] += weight * term * value;
            for (cell, other) in matrix[row].iter_mut().zip(&terms) {
                *cell += weight * term * other;
            }
        }
    }
    solve(matrix, right)
}

/// Solves `matrix * x = right` for a symmetric, positive matrix by Cholesky's decomposition.
/// Directions in which the matrix is singular (an image of few pixels does not determine all terms)
/// get 0.
fn solve(mut matrix: [[f64; N_TERMS]; N_TERMS], right: [f64; N_TERMS]) -> [f64; N_TERMS] {
    let smallest = 1e-9 * matrix[0][0];
    for column in 0..N_TERMS {
        let (above, rest) = matrix.split_at_mut(column);
        debug_assert_eq!(above.len(), column);
        let pivot = rest[0][column] - dot(&rest[0][..column], &rest[0][..column]);
        let root = if pivot > smallest {
            pivot.sqrt()
        } else {
            f64::INFINITY
        };
        let pivot_row = rest[0];
        for (row, cells) in rest.iter_mut().enumerate() {
            cells[column] = if row == 0 {
                root
            } else {
                (cells[column] - dot(&cells[..column], &pivot_row[..column])) / root
            };
        }
    }
    let mut x = right;
    for row in 0..N_TERMS {
        x[row] = (x[row] - dot(&matrix[row][..row], &x[..row])) / matrix[row][row];
    }
    for row in (0..N_TERMS).rev() {
        let below: f64 = (row + 1..N_TERMS)
            .map(|other| matrix[other][row] * x[other])
            .sum();
        x[row] = (x[row] - below) / matrix[row][row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vignette((x, y): (f64, f64)) -> f64 {
        1.0 - 0.2 * ((x - 0.2) * (x - 0.2) + (y + 0.1) * (y + 0.1))
    }

    #[test]
    fn a_smooth_profile_is_found_between_bright_objects() {
        let (small, size) = ((32, 24), (64, 48));
        let samples: Vec<Vec<f64>> = (0..12)
            .map(|image| {
                let light = |pixel: usize| {
                    if (pixel * 7 + image * 13) % 10 < 4 {
                        900.0
                    } else {
                        100.0
                    }
                };
                pixels(small)
                    .enumerate()
                    .map(|(pixel, place)| light(pixel) * vignette(place))
                    .collect()
            })
            .collect();
        let profile = estimate(&samples, small, size).unwrap();
        let expected: Vec<f64> = pixels(size).map(vignette).collect();
        let max = expected.iter().copied().fold(0.0, f64::max);
        for (found, expected) in profile.values.iter().zip(&expected) {
            assert!(
                (f64::from(*found) / 65535.0 - expected / max).abs() < 0.002,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn few_pixels_give_a_flat_profile() {
        let profile = estimate(&[vec![5.0; 4]], (2, 2), (4, 4)).unwrap();
        assert!(
            profile.values.iter().all(|&value| value > 65_000),
            "{profile:?}"
        );
    }

    #[test]
    fn no_light_is_an_error() {
        let error = estimate(&[vec![0.0; 64]], (8, 8), (8, 8))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is the argument background the camera's"),
            "{error}"
        );
    }

    #[test]
    fn overlapping_fields_are_corrected_once() {
        let place = |x: usize| Place {
            field: crate::name::Number(x.to_string()),
            x,
            y: 1,
            width: 2,
            height: 1,
            stage_um: None,
        };
        let mut plane = Plane {
            width: 4,
            height: 2,
            values: vec![9, 9, 9, 9, 9, 20, 20, 20_u16],
        };
        let profile = Plane {
            width: 2,
            height: 1,
            values: vec![65535, 32768],
        };
        correct_fields(&mut plane, &[place(1), place(2)], &shares(&profile), 10);
        assert_eq!(plane.values, [9, 9, 9, 9, 9, 10, 10, 20]);
    }

    #[test]
    fn values_are_rounded_and_cut() {
        let mut plane = Plane {
            width: 5,
            height: 1,
            values: vec![50_u16, 110, 111, 113, 65535],
        };
        let profile = Plane {
            width: 5,
            height: 1,
            values: vec![65535, 65535, 65535, 43690, 13107],
        };
        correct(&mut plane, &shares(&profile), 110);
        assert_eq!(plane.values, [0, 0, 1, 5, 65535]);
        let mut plane = Plane {
            width: 5,
            height: 1,
            values: vec![-50.5, 110.0, 110.5, 113.0, 1e6_f32],
        };
        correct(&mut plane, &shares(&profile), 110);
        assert_eq!(plane.values, [0.0, 0.0, 0.5, 4.5, 4_999_450.0]);
    }
}
