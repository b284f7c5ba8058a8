//! Otsu's threshold.

/// The grey level up to which pixels are background, such that the two classes differ most: the lowest one if several do
/// equally. For an image of one level it is that level.
///
/// Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979; scikit-image's `threshold_otsu` gives
/// the same.
pub fn threshold(values: &[u16]) -> u16 {
    let mut counts = vec![0_u64; 1 << 16];
    values.iter().for_each(|&value| counts[usize::from(value)] += 1);
    let n = values.len() as f64;
    let sum: f64 = counts.iter().enumerate().map(|(level, &count)| level as f64 * count as f64).sum();
    let (mut n_below, mut sum_below) = (0.0, 0.0);
    let (mut best, mut threshold) = (-1.0, values.first().copied().unwrap_or(0));
    for (level, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        n_below += count as f64;
        sum_below += level as f64 * count as f64;
        let n_above = n - n_below;
        if n_above == 0.0 {
            break;
        }
        let difference = sum_below / n_below - (sum - sum_below) / n_above;
        let variance = n_below * n_above * difference * difference;
        if variance > best {
            (best, threshold) = (variance, level as u16);
        }
    }
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By trying all thresholds.
    fn slow(values: &[u16]) -> u16 {
        let variance = |threshold: u16| {
            let (below, above): (Vec<f64>, Vec<f64>) =
                values.iter().map(|&value| f64::from(value)).partition(|&value| value <= f64::from(threshold));
            let mean = |class: &[f64]| class.iter().sum::<f64>() / class.len() as f64;
            let difference = mean(&below) - mean(&above);
            below.len() as f64 * above.len() as f64 * difference * difference
        };
        let max = *values.iter().max().unwrap();
        let mut levels: Vec<u16> = values.iter().copied().filter(|&value| value < max).collect();
        levels.sort_unstable();
        levels
            .into_iter()
            .fold((0, -1.0), |best, level| if variance(level) > best.1 { (level, variance(level)) } else { best })
            .0
    }

    #[test]
    fn the_classes_differ_most() {
        let values: Vec<u16> = (0..500_u32).map(|i| (i * i % 97 + if i % 3 == 0 { 400 } else { 60 }) as u16).collect();
        assert_eq!(threshold(&values), slow(&values));
        assert_eq!(threshold(&[1, 1, 9, 9]), 1);
        assert_eq!(threshold(&[0, 65535]), 0);
        assert_eq!(threshold(&[5, 5]), 5);
    }
}
