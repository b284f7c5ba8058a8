//! Smoothing by a Gaussian.

/// How many standard deviations the kernel reaches.
const TRUNCATE: f64 = 4.0;

/// Smooths an image. Beyond its edges it goes on with the value at the edge.
///
/// * `values`: row after row.
/// * `sigma`: standard deviation in pixels; 0 changes nothing.
///
/// Source: scipy's `gaussian_filter` with `mode="nearest"`, whose sums are made in the same order.
pub fn smooth(values: Vec<f64>, (width, height): (usize, usize), sigma: f64) -> Vec<f64> {
    let radius = (TRUNCATE * sigma + 0.5) as usize;
    if radius == 0 {
        return values;
    }
    let kernel = kernel(sigma, radius);
    let mut columns_done = vec![0.0; values.len()];
    for (y, sums) in columns_done.chunks_exact_mut(width).enumerate() {
        let row = |y: usize| &values[y * width..(y + 1) * width];
        scale(sums, row(y), kernel[0]);
        for (distance, &weight) in kernel.iter().enumerate().skip(1).rev() {
            add(
                sums,
                row(y.saturating_sub(distance)),
                row((y + distance).min(height - 1)),
                weight,
            );
        }
    }
    let mut smooth = values;
    let mut padded = vec![0.0; width + 2 * radius];
    for (row, sums) in columns_done
        .chunks_exact(width)
        .zip(smooth.chunks_exact_mut(width))
    {
        padded[..radius].fill(row[0]);
        padded[radius..radius + width].copy_from_slice(row);
        padded[radius + width..].fill(row[width - 1]);
        scale(sums, row, kernel[0]);
        for (distance, &weight) in kernel.iter().enumerate().skip(1).rev() {
            add(
                sums,
                &padded[radius - distance..][..width],
                &padded[radius + distance..][..width],
                weight,
            );
        }
    }
    smooth
}

/// The weights of the pixel itself and of those at distance 1, 2, ... to each side; all together
/// are 1.
fn kernel(sigma: f64, radius: usize) -> Vec<f64> {
    let weights: Vec<f64> = (0..=radius)
        .map(|distance| libm::exp(-0.5 / (sigma * sigma) * (distance * distance) as f64))
        .collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.iter().map(|weight| weight / sum).collect()
}

fn scale(sums: &mut [f64], values: &[f64], weight: f64) {
    sums.iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum = value * weight);
}

fn add(sums: &mut [f64], before: &[f64], after: &[f64], weight: f64) {
    for ((sum, before), after) in sums.iter_mut().zip(before).zip(after) {
        *sum += (before + after) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_becomes_the_kernel() {
        let mut point = vec![0.0; 11 * 9];
        point[4 * 11 + 5] = 1.0;
        let smooth = smooth(point, (11, 9), 1.0);
        let kernel = kernel(1.0, 4);
        for (pixel, value) in smooth.iter().enumerate() {
            let (dx, dy) = ((pixel % 11).abs_diff(5), (pixel / 11).abs_diff(4));
            let expected = if dx > 4 { 0.0 } else { kernel[dx] * kernel[dy] };
            assert!(
                (value - expected).abs() < 1e-15,
                "{pixel}: {value} {expected}"
            );
        }
    }

    #[test]
    fn a_flat_image_stays_flat_up_to_its_edges() {
        for value in smooth(vec![7.0; 3 * 2], (3, 2), 5.0) {
            assert!((value - 7.0).abs() < 1e-12, "{value}");
        }
        assert_eq!(smooth(vec![1.0, 2.0], (2, 1), 0.0), [1.0, 2.0]);
    }
}
