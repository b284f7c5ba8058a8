//! Splits objects that touch: a marker at each peak of the distance to the background, from which
//! labels flow downhill.

use super::regions::neighbours;
use std::cmp::Ordering;
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

/// A pixel whose neighbours are to be labelled.
struct Front {
    height: f64,
    /// When it was labelled: of equally high pixels the first goes on.
    age: u64,
    pixel: usize,
}

impl Ord for Front {
    fn cmp(&self, other: &Self) -> Ordering {
        self.height
            .total_cmp(&other.height)
            .then(other.age.cmp(&self.age))
            .then(other.pixel.cmp(&self.pixel))
    }
}

impl PartialOrd for Front {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Front {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Front {}

/// Labels the pixels of a mask from markers on, highest first, through edges that pixels have in
/// common. What is reached over a lower pixel is as low as that one.
///
/// Returns the labels, row after row: that of the first marker is 1, and 0 is what no marker
/// reaches.
///
/// Source: F. Meyer's flooding, as scikit-image's `watershed` has it.
pub fn flood(height: &[f64], mask: &[bool], width: usize, markers: &[usize]) -> Vec<u32> {
    let mut labels = vec![0_u32; height.len()];
    let mut front = BinaryHeap::with_capacity(markers.len());
    for (index, &pixel) in markers.iter().enumerate() {
        labels[pixel] = index as u32 + 1;
        front.push(Front {
            height: height[pixel],
            age: 0,
            pixel,
        });
    }
    let mut age = 0;
    while let Some(Front {
        height: level,
        pixel,
        ..
    }) = front.pop()
    {
        for neighbour in neighbours(pixel, width, height.len()) {
            if mask[neighbour] && labels[neighbour] == 0 {
                age += 1;
                labels[neighbour] = labels[pixel];
                front.push(Front {
                    height: height[neighbour].min(level),
                    age,
                    pixel: neighbour,
                });
            }
        }
    }
    labels
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
