//! Splits objects that touch: a marker at each peak of the distance to the background, from which
//! labels flow downhill.

use super::regions::{neighbours, with_border, without_border};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Finds the pixels that are the highest in their neighbourhood, region by region.
///
/// * `height`: what is to be high, row after row.
/// * `regions`: the region of each pixel; 0 is none.
/// * `min_distance`: how far the neighbourhood reaches in x and y, and how far two peaks of a
///   region are apart in x or in y.
///
/// Returns their places, each region's by falling height; of equally high ones the first counts.
/// Each region has a peak.
///
/// Source: scikit-image's `peak_local_max` with `labels` and without borders.
pub fn find_peaks(
    height: &[f64],
    regions: &[u32],
    width: usize,
    min_distance: usize,
) -> Vec<usize> {
    let n_rows = height.len() / width;
    let is_highest = |pixel: usize, reach: usize| {
        let (x, y) = (pixel % width, pixel / width);
        let rows = y.saturating_sub(reach)..=(y + reach).min(n_rows - 1);
        let (left, right) = (x.saturating_sub(reach), (x + reach).min(width - 1));
        rows.into_iter().all(|row| {
            let row = row * width;
            (row + left..=row + right)
                .all(|other| regions[other] != regions[pixel] || height[other] <= height[pixel])
        })
    };
    // Most pixels are not even the highest of their nearest neighbours.
    let mut candidates: Vec<usize> = (0..height.len())
        .filter(|&pixel| {
            regions[pixel] != 0 && is_highest(pixel, 1) && is_highest(pixel, min_distance)
        })
        .collect();
    candidates.sort_by(|&one, &other| {
        regions[one]
            .cmp(&regions[other])
            .then(height[other].total_cmp(&height[one]))
            .then(one.cmp(&other))
    });
    let mut peaks: Vec<usize> = Vec::new();
    let mut region_start = 0;
    for candidate in candidates {
        if peaks
            .last()
            .is_some_and(|&peak| regions[peak] != regions[candidate])
        {
            region_start = peaks.len();
        }
        let is_far = |&peak: &usize| {
            let (dx, dy) = (
                (peak % width).abs_diff(candidate % width),
                (peak / width).abs_diff(candidate / width),
            );
            dx.max(dy) >= min_distance
        };
        if peaks[region_start..].iter().all(is_far) {
            peaks.push(candidate);
        }
    }
    peaks
}

/// A pixel whose neighbours are to be labelled. The highest comes first; of equally high ones that
/// which was labelled first; of equally high markers the first one.
///
/// As small as possible and of whole numbers, because a heap compares and moves it often.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    /// From [`order`].
    height: i64,
    /// When it was labelled.
    age: Reverse<u32>,
    pixel: Reverse<u32>,
}

/// A whole number that orders values as [`f64::total_cmp`] does.
fn order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) & i64::MAX)
}

/// Labels the pixels of a mask from markers on, highest first, through edges that pixels have in
/// common. What is reached over a lower pixel is as low as that one.
///
/// Returns the labels, row after row: that of the first marker is 1, and 0 is what no marker
/// reaches.
///
/// Source: F. Meyer's flooding, as scikit-image's `watershed` has it.
pub fn flood(height: &[f64], mask: &[bool], width: usize, markers: &[usize]) -> Vec<u32> {
    let (mask, stride) = (with_border(mask, width, false), width + 1);
    let height = with_border(height, width, 0.0);
    let mut labels = vec![0_u32; mask.len()];
    let mut front = BinaryHeap::with_capacity(markers.len());
    for (label, &pixel) in (1..).zip(markers) {
        let pixel = (pixel / width + 1) * stride + pixel % width;
        labels[pixel] = label;
        front.push(Front {
            height: order(height[pixel]),
            age: Reverse(0),
            pixel: Reverse(pixel as u32),
        });
    }
    let mut age = 0;
    while let Some(Front {
        height: level,
        pixel: Reverse(pixel),
        ..
    }) = front.pop()
    {
        let pixel = pixel as usize;
        for neighbour in neighbours(pixel, stride) {
            if mask[neighbour] && labels[neighbour] == 0 {
                age += 1;
                labels[neighbour] = labels[pixel];
                front.push(Front {
                    height: order(height[neighbour]).min(level),
                    age: Reverse(age),
                    pixel: Reverse(neighbour as u32),
                });
            }
        }
    }
    without_border(&labels, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_keep_their_distance() {
        let height = [1.0, 5.0, 1.0, 4.0, 1.0, 1.0, 3.0, 1.0];
        assert_eq!(find_peaks(&height, &[1; 8], 8, 1), [1, 3, 6]);
        assert_eq!(find_peaks(&height, &[1; 8], 8, 2), [1, 6]);
        assert_eq!(
            find_peaks(&height, &[1, 1, 1, 2, 2, 2, 2, 2], 8, 2),
            [1, 3, 6],
            "another region is no neighbour"
        );
        assert_eq!(find_peaks(&height, &[1, 1, 1, 2, 2, 2, 2, 2], 8, 4), [1, 3]);
    }

    #[test]
    fn of_a_plateau_the_first_counts() {
        assert_eq!(find_peaks(&[2.0; 9], &[1; 9], 3, 3), [0]);
        assert!(find_peaks(&[2.0; 9], &[0; 9], 3, 3).is_empty());
    }

    #[test]
    fn labels_meet_in_the_valley() {
        let height = [3.0, 2.0, 1.0, 2.0, 3.0, 9.0, 1.0];
        let mask = [true, true, true, true, true, false, true];
        assert_eq!(flood(&height, &mask, 7, &[0, 4]), [1, 1, 1, 2, 2, 0, 0]);
        assert_eq!(flood(&height[..4], &mask[..4], 2, &[3]), [1; 4]);
        // The label that comes down to 1.0 first does not run up the whole rise behind it.
        assert_eq!(
            flood(&[3.0, 1.0, 2.5, 2.6, 1.0, 3.0], &[true; 6], 6, &[0, 5]),
            [1, 1, 1, 2, 2, 2]
        );
    }
}
