//! Measures of the regions of a label image.
//!
//! Names and values are those of scikit-image's `regionprops`, in pixels.

use ome_zarr::pixel::Pixel;
use ome_zarr::plane::Plane;
use std::f64::consts::{FRAC_PI_4, PI, SQRT_2};

/// One region and its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its number in the label image.
    pub label: u32,
    /// Pixels.
    pub area: u64,
    /// Mean row and column.
    pub centroid: (f64, f64),
    /// First row and column, and those after the last.
    pub bbox: (usize, usize, usize, usize),
    /// Axes of the ellipse that has the same second moments; the longer one first.
    pub axes: (f64, f64),
    /// Of that ellipse: 0 is a circle.
    pub eccentricity: f64,
    /// Angle between the rows' direction (downwards) and the longer axis, counter-clockwise, from
    /// -pi/2 to pi/2.
    pub orientation: f64,
    /// Length of the line through the centres of the border pixels.
    pub perimeter: f64,
}

impl Region {
    /// Diameter of the circle of the same area.
    pub fn equivalent_diameter_area(&self) -> f64 {
        (4.0 * self.area as f64 / PI).sqrt()
    }

    /// Share of the bounding box that is in the region.
    pub fn extent(&self) -> f64 {
        let (top, left, bottom, right) = self.bbox;
        self.area as f64 / ((bottom - top) * (right - left)) as f64
    }

    /// `4 pi area / perimeter^2`: 1 for a disc, less for other shapes; `None` without a perimeter.
    pub fn form_factor(&self) -> Option<f64> {
        (self.perimeter > 0.0)
            .then(|| 4.0 * PI * self.area as f64 / (self.perimeter * self.perimeter))
    }
}

/// The intensity of one channel in a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intensity {
    /// Sum over the pixels; exact up to 2^53 for integers.
    pub integrated: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Sums over the pixels of a region.
#[derive(Debug, Clone, Copy)]
struct Sums {
    area: u64,
    y: u64,
    x: u64,
    top: usize,
    left: usize,
    bottom: usize,
    right: usize,
}

/// Measures all regions, in the order of their numbers.
pub fn measure(labels: &Plane<u32>) -> Vec<Region> {
    numbered(&sum(labels))
        .map(|(label, sums)| measure_one(labels, label, sums))
        .collect()
}

/// First row and column of a region, and those after the last.
pub type BoundingBox = (usize, usize, usize, usize);

/// The numbers of all regions, with the bounding box of each.
pub fn bounding_boxes(labels: &Plane<u32>) -> Vec<(u32, BoundingBox)> {
    let sums = sum(labels);
    numbered(&sums)
        .map(|(label, sums)| (label, (sums.top, sums.left, sums.bottom, sums.right)))
        .collect()
}

fn sum(labels: &Plane<u32>) -> Vec<Sums> {
    let n_labels = labels.values.iter().max().map_or(0, |&max| max as usize);
    let empty = Sums {
        area: 0,
        y: 0,
        x: 0,
        top: usize::MAX,
        left: usize::MAX,
        bottom: 0,
        right: 0,
    };
    let mut sums = vec![empty; n_labels + 1];
    for (y, row) in labels.values.chunks_exact(labels.width).enumerate() {
        for (x, &label) in row.iter().enumerate().filter(|(_, label)| **label != 0) {
            let sums = &mut sums[label as usize];
            sums.area += 1;
            sums.y += y as u64;
            sums.x += x as u64;
            sums.top = sums.top.min(y);
            sums.left = sums.left.min(x);
            sums.bottom = y + 1;
            sums.right = sums.right.max(x + 1);
        }
    }
    sums
}

/// The regions that have pixels.
fn numbered(sums: &[Sums]) -> impl Iterator<Item = (u32, &Sums)> {
    (0_u32..)
        .zip(sums)
        .filter(|(label, sums)| *label != 0 && sums.area > 0)
}

fn measure_one(labels: &Plane<u32>, label: u32, sums: &Sums) -> Region {
    let n = sums.area as f64;
    let (cy, cx) = (sums.y as f64 / n, sums.x as f64 / n);
    let (mut yy, mut xx, mut xy) = (0.0, 0.0, 0.0);
    for y in sums.top..sums.bottom {
        let row = &labels.values[y * labels.width..(y + 1) * labels.width];
        for (x, _) in row
            .iter()
            .enumerate()
            .take(sums.right)
            .skip(sums.left)
            .filter(|(_, other)| **other == label)
        {
            let (dy, dx) = (y as f64 - cy, x as f64 - cx);
            yy += dy * dy;
            xx += dx * dx;
            xy += dy * dx;
        }
    }
    let (yy, xx, xy) = (yy / n, xx / n, xy / n);
    let (middle, spread) = ((yy + xx) / 2.0, libm::hypot((yy - xx) / 2.0, xy));
    let (large, small) = (middle + spread, (middle - spread).max(0.0));
    Region {
        label,
        area: sums.area,
        centroid: (cy, cx),
        bbox: (sums.top, sums.left, sums.bottom, sums.right),
        axes: (4.0 * large.sqrt(), 4.0 * small.sqrt()),
        eccentricity: if large == 0.0 {
            0.0
        } else {
            (1.0 - small / large).max(0.0).sqrt()
        },
        orientation: orientation(yy, xx, xy),
        perimeter: perimeter(labels, label, sums),
    }
}

fn orientation(yy: f64, xx: f64, xy: f64) -> f64 {
    if yy == xx {
        return if xy > 0.0 { FRAC_PI_4 } else { -FRAC_PI_4 };
    }
    0.5 * libm::atan2(2.0 * xy, yy - xx)
}

/// Source: K. Benkrid and D. Crookes, "Design and FPGA implementation of a perimeter estimator",
/// 2000, with 4 neighbours.
fn perimeter(labels: &Plane<u32>, label: u32, sums: &Sums) -> f64 {
    // A copy of the region with two pixels of background around.
    let (width, height) = (sums.right - sums.left + 4, sums.bottom - sums.top + 4);
    let mut inside = vec![false; width * height];
    for y in sums.top..sums.bottom {
        for x in sums.left..sums.right {
            inside[(y - sums.top + 2) * width + x - sums.left + 2] =
                labels.values[y * labels.width + x] == label;
        }
    }
    let is_border = |pixel: usize| {
        let around = [pixel - width, pixel - 1, pixel + 1, pixel + width];
        inside[pixel] && around.iter().any(|&other| !inside[other])
    };
    let border: Vec<bool> = (0..inside.len())
        .map(|pixel| {
            let (x, y) = (pixel % width, pixel / width);
            (1..width - 1).contains(&x) && (1..height - 1).contains(&y) && is_border(pixel)
        })
        .collect();
    let mut n_by_length = [0_u64; 3];
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let at = |dy: usize, dx: usize| u32::from(border[(y + dy - 1) * width + x + dx - 1]);
            let straight = at(0, 1) + at(1, 0) + at(1, 2) + at(2, 1);
            let diagonal = at(0, 0) + at(0, 2) + at(2, 0) + at(2, 2);
            match at(1, 1) + 2 * straight + 10 * diagonal {
                5 | 7 | 15 | 17 | 25 | 27 => n_by_length[0] += 1,
                21 | 33 => n_by_length[1] += 1,
                13 | 23 => n_by_length[2] += 1,
                _ => {}
            }
        }
    }
    let [ones, diagonals, mixed] = n_by_length.map(|n| n as f64);
    ones + diagonals * SQRT_2 + mixed * (1.0 + SQRT_2) / 2.0
}

/// The intensity of one channel in each of the regions that [`measure`] gave for these labels.
pub fn measure_intensity<T: Pixel>(
    labels: &Plane<u32>,
    regions: &[Region],
    channel: &Plane<T>,
) -> Vec<Intensity> {
    let n_labels = regions.last().map_or(0, |region| region.label as usize);
    let empty = Intensity {
        integrated: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };
    let mut all = vec![empty; n_labels + 1];
    let pixels = labels.values.iter().zip(&channel.values);
    for (&label, value) in pixels.filter(|(label, _)| **label != 0) {
        let (intensity, value) = (&mut all[label as usize], value.to_f64());
        intensity.integrated += value;
        // Modules have instructions for these comparisons, but none for `min` and `max`.
        if value < intensity.min {
            intensity.min = value;
        }
        if value > intensity.max {
            intensity.max = value;
        }
    }
    regions
        .iter()
        .map(|region| all[region.label as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(rows: &[&str]) -> Region {
        let values = rows
            .iter()
            .flat_map(|row| row.bytes().map(|byte| u32::from(byte == b'#') * 3))
            .collect();
        let labels = Plane {
            width: rows[0].len(),
            height: rows.len(),
            values,
        };
        let mut regions = measure(&labels);
        assert_eq!(regions.len(), 1);
        regions.remove(0)
    }

    #[test]
    fn a_square() {
        let region = region(&["......", ".####.", ".####.", ".####.", ".####."]);
        assert_eq!(
            (region.label, region.area, region.bbox),
            (3, 16, (1, 1, 5, 5))
        );
        assert_eq!(
            (region.centroid, region.eccentricity, region.orientation),
            ((2.5, 2.5), 0.0, -FRAC_PI_4)
        );
        assert_eq!((region.perimeter, region.extent()), (12.0, 1.0));
        assert!((region.axes.0 - 4.0 * 1.25_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_line_points_along_its_rows_or_columns() {
        let standing = region(&["#", "#", "#"]);
        assert_eq!(
            (standing.orientation, standing.eccentricity, standing.axes.1),
            (0.0, 1.0, 0.0)
        );
        assert_eq!(region(&["###"]).orientation.abs(), PI / 2.0);
        assert!((region(&["#..", ".#.", "..#"]).orientation - FRAC_PI_4).abs() < 1e-12);
    }

    #[test]
    fn one_pixel_has_no_perimeter() {
        let region = region(&["...", ".#.", "..."]);
        assert_eq!(
            (region.perimeter, region.form_factor(), region.eccentricity),
            (0.0, None, 0.0)
        );
    }

    #[test]
    fn intensities_are_those_of_the_region() {
        let labels = Plane {
            width: 3,
            height: 1,
            values: vec![2, 0, 2],
        };
        let channel = Plane {
            width: 3,
            height: 1,
            values: vec![5_u16, 900, 8],
        };
        let regions = measure(&labels);
        let expected = Intensity {
            integrated: 13.0,
            min: 5.0,
            max: 8.0,
        };
        assert_eq!(measure_intensity(&labels, &regions, &channel), [expected]);
        let channel = Plane {
            width: 3,
            height: 1,
            values: vec![-5_i16, 900, -8],
        };
        let expected = Intensity {
            integrated: -13.0,
            min: -8.0,
            max: -5.0,
        };
        assert_eq!(measure_intensity(&labels, &regions, &channel), [expected]);
    }
}
