//! The regions of a mask, and how far each pixel is from its outside.
//!
//! Own code, since it is short: the crate that has both, `imageproc`, brings linear algebra, random
//! numbers and colour management along.

use std::collections::VecDeque;

/// The regions of pixels that have an edge in common, numbered from 1 in the order of their first
/// pixels; 0 is outside.
pub fn connected_regions(mask: &[bool], width: usize) -> Vec<u32> {
    let (mask, stride) = (with_border(mask, width, false), width + 1);
    let mut regions = vec![0; mask.len()];
    let (mut n_regions, mut front) = (0, VecDeque::new());
    for first in 0..mask.len() {
        if !mask[first] || regions[first] != 0 {
            continue;
        }
        n_regions += 1;
        regions[first] = n_regions;
        front.push_back(first);
        while let Some(pixel) = front.pop_front() {
            for neighbour in neighbours(pixel, stride) {
                if mask[neighbour] && regions[neighbour] == 0 {
                    regions[neighbour] = n_regions;
                    front.push_back(neighbour);
                }
            }
        }
    }
    without_border(&regions, width)
}

/// Adds a row above, a row below and a column on the right, so that each pixel has a neighbour in
/// all directions: left of the first pixel of a row is the border of the row above. Rows are then
/// `width + 1` values long.
pub(super) fn with_border<T: Copy>(values: &[T], width: usize, border: T) -> Vec<T> {
    let n_rows = values.len() / width + 2;
    let mut bordered = Vec::with_capacity(n_rows * (width + 1));
    bordered.resize(width + 1, border);
    for row in values.chunks_exact(width) {
        bordered.extend_from_slice(row);
        bordered.push(border);
    }
    bordered.resize(n_rows * (width + 1), border);
    bordered
}

/// Removes what [`with_border`] added.
pub(super) fn without_border<T: Copy>(values: &[T], width: usize) -> Vec<T> {
    let inside = &values[width + 1..values.len() - width - 1];
    let mut rows = Vec::with_capacity(inside.len());
    for row in inside.chunks_exact(width + 1) {
        rows.extend_from_slice(&row[..width]);
    }
    rows
}

/// The pixels above, left, right and below, in values with a border.
pub(super) fn neighbours(pixel: usize, stride: usize) -> [usize; 4] {
    [pixel - stride, pixel - 1, pixel + 1, pixel + stride]
}

/// The distance of each pixel of a mask to the nearest one outside, in pixels; 0 outside. The edge
/// of the image is no outside, and a mask without outside is further away than the image is large.
///
/// Source: A. Meijster, J. Roerdink and W. Hesselink, "A general algorithm for computing distance
/// transforms in linear time", 2000; exact, in whole numbers up to the root.
pub fn distance_to_outside(mask: &[bool], width: usize) -> Vec<f64> {
    let height = mask.len() / width;
    let columns = distance_in_columns(mask, width, (width + height) as i32);
    // The parts of a row in each of which one pixel of the row is the nearest: that pixel, and
    // where its part begins.
    let mut parts: Vec<(i64, i64)> = Vec::with_capacity(width);
    let mut distances = Vec::with_capacity(mask.len());
    for column in columns.chunks_exact(width) {
        if column.iter().all(|&distance| distance == 0) {
            distances.resize(distances.len() + width, 0.0);
            continue;
        }
        let squared_in_column = |x: i64| i64::from(column[x as usize]).pow(2);
        let squared = |x: i64, nearest: i64| (x - nearest).pow(2) + squared_in_column(nearest);
        parts.clear();
        for next in 0..width as i64 {
            while parts
                .last()
                .is_some_and(|&(nearest, start)| squared(start, nearest) > squared(start, next))
            {
                parts.pop();
            }
            let start = parts.last().map_or(0, |&(nearest, _)| {
                let rise = next * next - nearest * nearest + squared_in_column(next)
                    - squared_in_column(nearest);
                1 + rise.div_euclid(2 * (next - nearest))
            });
            if start < width as i64 {
                parts.push((next, start));
            }
        }
        let ends = parts
            .iter()
            .skip(1)
            .map(|&(_, start)| start)
            .chain([width as i64]);
        for (&(nearest, start), end) in parts.iter().zip(ends) {
            distances.extend((start..end).map(|x| (squared(x, nearest) as f64).sqrt()));
        }
    }
    distances
}

/// The distance of each pixel to the nearest one outside in its column; `far` if there is none.
fn distance_in_columns(mask: &[bool], width: usize, far: i32) -> Vec<i32> {
    let height = mask.len() / width;
    let outside = |&in_mask: &bool| if in_mask { far } else { 0 };
    let mut distances: Vec<i32> = mask.iter().map(outside).collect();
    for y in 1..height {
        let (above, rows) = distances.split_at_mut(y * width);
        keep_nearer(&mut rows[..width], &above[(y - 1) * width..]);
    }
    for y in (1..height).rev() {
        let (rows, below) = distances.split_at_mut(y * width);
        keep_nearer(&mut rows[(y - 1) * width..], &below[..width]);
    }
    distances
}

/// Updates the distances of a row from those of the row above or below.
fn keep_nearer(row: &mut [i32], next: &[i32]) {
    for (distance, next) in row.iter_mut().zip(next) {
        *distance = (*distance).min(next + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_edges_in_common() {
        let mask =
            [true, false, true, true, false, true, false, true, false].map(|in_mask| in_mask);
        assert_eq!(connected_regions(&mask, 3), [1, 0, 2, 1, 0, 2, 0, 3, 0]);
    }

    #[test]
    fn distances_are_those_of_every_pair_of_pixels() {
        for (width, height, is_in) in [
            (23, 17, (|i| (i * i + i / 7) % 11 > 1) as fn(usize) -> bool),
            (17, 23, |i| i != 200),
            (40, 5, |i| i % 40 > 1 && i % 13 != 5),
            (1, 9, |i| i != 3),
        ] {
            let mask: Vec<bool> = (0..width * height).map(is_in).collect();
            for (pixel, found) in distance_to_outside(&mask, width).into_iter().enumerate() {
                let squared = |other: usize| {
                    (other % width).abs_diff(pixel % width).pow(2)
                        + (other / width).abs_diff(pixel / width).pow(2)
                };
                let expected = (0..mask.len())
                    .filter(|&other| !mask[other])
                    .map(squared)
                    .min()
                    .unwrap();
                assert_eq!(
                    found,
                    (expected as f64).sqrt(),
                    "pixel {pixel} of {width}x{height}"
                );
            }
        }
    }
}
