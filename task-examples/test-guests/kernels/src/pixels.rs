//! Loops over pixels as imaging tasks have them.

use super::{Random, checksum};

const WIDTH: usize = 1024;
const HEIGHT: usize = 1024;
const PLANES: usize = 16;
/// Half the width of the filter.
const RADIUS: usize = 5;

fn noise(n: usize) -> Vec<u16> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..n).map(|_| (random.next() >> 48) as u16).collect()
}

/// Maximum-intensity projection of a stack of 16-bit planes.
pub(super) fn projection(n: u32) -> u64 {
    let stack = noise(WIDTH * HEIGHT * PLANES);
    let mut projected = vec![0_u16; WIDTH * HEIGHT];
    for round in 0..n {
        projected.fill(round as u16 & 1);
        for plane in stack.chunks_exact(WIDTH * HEIGHT) {
            for (brightest, pixel) in projected.iter_mut().zip(plane) {
                *brightest = (*brightest).max(*pixel);
            }
        }
    }
    checksum(projected.iter().map(|pixel| u64::from(*pixel)))
}

/// A separable filter of 11 taps over rows and columns of a 32-bit float image.
pub(super) fn filter(n: u32) -> u64 {
    let taps: [f32; 2 * RADIUS + 1] = std::array::from_fn(|index| {
        let distance = index.abs_diff(RADIUS) as f32;
        1.0 / (1.0 + distance * distance)
    });
    let sum: f32 = taps.iter().sum();
    let taps = taps.map(|tap| tap / sum);
    let mut image: Vec<f32> = noise(WIDTH * HEIGHT)
        .iter()
        .map(|pixel| f32::from(*pixel))
        .collect();
    let mut filtered = image.clone();
    for _ in 0..n {
        for (row, out) in image
            .chunks_exact(WIDTH)
            .zip(filtered.chunks_exact_mut(WIDTH))
        {
            // The last pixels of a row, fewer than a chunk, stay as they are.
            let out = &mut out[RADIUS..WIDTH - RADIUS];
            for (at, sums) in out.chunks_exact_mut(LANES).enumerate() {
                let row = &row[at * LANES..][..LANES + 2 * RADIUS];
                let mut sum = [0.0; LANES];
                for (offset, tap) in taps.iter().enumerate() {
                    add(&mut sum, *tap, &row[offset..][..LANES]);
                }
                sums.copy_from_slice(&sum);
            }
        }
        for y in RADIUS..HEIGHT - RADIUS {
            for x in (0..WIDTH).step_by(LANES) {
                let mut sum = [0.0; LANES];
                for (offset, tap) in taps.iter().enumerate() {
                    add(
                        &mut sum,
                        *tap,
                        &filtered[(y - RADIUS + offset) * WIDTH + x..][..LANES],
                    );
                }
                image[y * WIDTH + x..][..LANES].copy_from_slice(&sum);
            }
        }
    }
    checksum(image.iter().map(|pixel| u64::from(pixel.to_bits())))
}

/// Pixels whose sums are kept in registers at a time.
const LANES: usize = 16;

fn add(sum: &mut [f32; LANES], tap: f32, values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += tap * value;
    }
}

/// Labels of the connected regions above a threshold, by union-find over rows.
pub(super) fn labelling(n: u32) -> u64 {
    let image = noise(WIDTH * HEIGHT);
    let mut labels = vec![0_u32; WIDTH * HEIGHT];
    for round in 0..n {
        // About half of the pixels: many regions, of all sizes.
        let threshold = 30_000 + (round % 7) as u16;
        let mut parents: Vec<u32> = vec![0];
        for at in 0..image.len() {
            labels[at] = 0;
            if image[at] < threshold {
                continue;
            }
            let left = if at % WIDTH > 0 { labels[at - 1] } else { 0 };
            let above = if at >= WIDTH { labels[at - WIDTH] } else { 0 };
            labels[at] = match (left, above) {
                (0, 0) => {
                    parents.push(parents.len() as u32);
                    parents.len() as u32 - 1
                }
                (0, label) | (label, 0) => label,
                (left, above) => {
                    let (left, above) = (root(&mut parents, left), root(&mut parents, above));
                    let (low, high) = (left.min(above), left.max(above));
                    parents[high as usize] = low;
                    low
                }
            };
        }
        for label in &mut labels {
            *label = root(&mut parents, *label);
        }
    }
    checksum(labels.iter().map(|label| u64::from(*label)))
}

fn root(parents: &mut [u32], mut label: u32) -> u32 {
    while parents[label as usize] != label {
        let above = parents[parents[label as usize] as usize];
        parents[label as usize] = above;
        label = above;
    }
    label
}
