//! Smaller versions of a plane.

use crate::pixel::Pixel;
use crate::plane::Plane;

/// Halves a plane in both directions: each value is the mean of 2x2 pixels. Integers are rounded,
/// and halfway between two integers to the even one, so that the levels do not drift upwards.
///
/// An odd last row or column counts as well: its values are means of the two pixels (in the corner
/// the one pixel) that are there, so sizes are rounded up.
pub fn halve<T: Pixel>(plane: &Plane<T>) -> Plane<T> {
    let (width, height) = half_size((plane.width, plane.height));
    let mut values = Vec::with_capacity(width * height);
    for rows in plane.values.chunks(2 * plane.width) {
        let (upper, lower) = rows.split_at(plane.width);
        let lower = if lower.is_empty() { upper } else { lower };
        let ((upper, upper_end), (lower, lower_end)) = (upper.as_chunks(), lower.as_chunks());
        let pairs = upper.iter().zip(lower);
        values.extend(pairs.map(|([a, b], [c, d])| T::mean([*a, *b, *c, *d])));
        if let ([upper], [lower]) = (upper_end, lower_end) {
            values.push(T::mean([*upper, *upper, *lower, *lower]));
        }
    }
    Plane {
        width,
        height,
        values,
    }
}

/// Every second pixel of every second row, from the first ones on: halves labels, of which there is
/// no mean.
pub fn take_every_second<T: Copy>(plane: &Plane<T>) -> Plane<T> {
    let (width, height) = half_size((plane.width, plane.height));
    let rows = plane.values.chunks(plane.width).step_by(2);
    Plane {
        width,
        height,
        values: rows
            .flat_map(|row| row.iter().step_by(2).copied())
            .collect(),
    }
}

/// The size of a halved plane, from its width and height.
pub fn half_size((width, height): (usize, usize)) -> (usize, usize) {
    (width.div_ceil(2), height.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: usize, values: &[u16], half_width: usize, expected: &[u16]) {
        let plane = Plane {
            width,
            height: values.len() / width,
            values: values.to_vec(),
        };
        let half = halve(&plane);
        assert_eq!((half.width, half.values.as_slice()), (half_width, expected));
        assert_eq!(half.height, expected.len() / half_width);
    }

    #[test]
    fn means_are_rounded_halves_to_even() {
        check(4, &[1, 2, 0, 0, 3, 4, 0, 3], 2, &[2, 1]);
        check(2, &[65535, 65535, 65535, 65535], 1, &[65535]);
        check(2, &[0, 1, 1, 0], 1, &[0]);
        check(2, &[1, 2, 2, 1], 1, &[2]);
    }

    #[test]
    fn labels_stay_labels() {
        let plane = Plane {
            width: 3,
            height: 3,
            values: vec![1_u32, 2, 3, 4, 5, 6, 7, 8, 9],
        };
        assert_eq!(
            take_every_second(&plane),
            Plane {
                width: 2,
                height: 2,
                values: vec![1, 3, 7, 9]
            }
        );
    }

    #[test]
    fn edges_of_odd_size_count() {
        check(3, &[1, 3, 10, 5, 7, 20, 2, 3, 9], 2, &[4, 15, 2, 9]);
        check(1, &[6], 1, &[6]);
    }
}
