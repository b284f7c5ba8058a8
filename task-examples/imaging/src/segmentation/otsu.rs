//! Otsu's threshold.

/// Bins of the histogram of values with fractions.
const N_BINS: usize = 256;
/// Whole values that span fewer levels are counted level by level.
const MAX_COUNTED: f64 = (1 << 16) as f64;

/// The grey level up to which pixels are background, such that the two classes differ most: the
/// lowest one if several do equally. For an image of one level it is that level.
///
/// * `whole`: the values have no fractions, and each is a level. Otherwise the levels are the
///   centres of 256 bins.
///
/// Values that are not finite do not count.
///
/// Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979; scikit-image's
/// `threshold_otsu` gives the same.
pub fn threshold(values: &[f64], whole: bool) -> f64 {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    // Modules have instructions for these comparisons, but none for `min` and `max`.
    let min = finite().fold(f64::INFINITY, |a, b| if b < a { b } else { a });
    let max = finite().fold(f64::NEG_INFINITY, |a, b| if b > a { b } else { a });
    if min >= max {
        return if min.is_finite() { min } else { 0.0 };
    }
    if whole && max - min >= MAX_COUNTED {
        let mut sorted: Vec<f64> = finite().collect();
        sorted.sort_by(f64::total_cmp);
        let levels: Vec<(f64, f64)> = sorted
            .chunk_by(|one, other| one == other)
            .map(|level| (level[0], level.len() as f64))
            .collect();
        return separate(&levels);
    }
    let width = if whole {
        1.0
    } else {
        (max - min) / N_BINS as f64
    };
    let n_bins = if whole {
        (max - min) as usize + 1
    } else {
        N_BINS
    };
    let mut counts = vec![0_u64; n_bins];
    // At most 65,536, and modules convert numbers to signed integers of 32 bits fastest.
    let bin = |value: f64| ((value - min) / width) as i32 as usize;
    finite().for_each(|value| counts[bin(value).min(n_bins - 1)] += 1);
    let offset = if whole { min } else { min + width / 2.0 };
    let levels: Vec<(f64, f64)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(bin, &count)| (offset + bin as f64 * width, count as f64))
        .collect();
    separate(&levels)
}

/// * `levels`: each with the number of its pixels, from the lowest.
fn separate(levels: &[(f64, f64)]) -> f64 {
    let n: f64 = levels.iter().map(|(_, count)| count).sum();
    let sum: f64 = levels.iter().map(|(level, count)| level * count).sum();
    let (mut n_below, mut sum_below) = (0.0, 0.0);
    let (mut best, mut threshold) = (-1.0, levels.first().map_or(0.0, |(level, _)| *level));
    for (level, count) in levels {
        n_below += count;
        sum_below += level * count;
        let n_above = n - n_below;
        if n_above == 0.0 {
            break;
        }
        let difference = sum_below / n_below - (sum - sum_below) / n_above;
        let variance = n_below * n_above * difference * difference;
        if variance > best {
            (best, threshold) = (variance, *level);
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
            let (below, above): (Vec<f64>, Vec<f64>) = values
                .iter()
                .map(|&value| f64::from(value))
                .partition(|&value| value <= f64::from(threshold));
            let mean = |class: &[f64]| class.iter().sum::<f64>() / class.len() as f64;
            let difference = mean(&below) - mean(&above);
            below.len() as f64 * above.len() as f64 * difference * difference
        };
        let max = *values.iter().max().unwrap();
        let mut levels: Vec<u16> = values
            .iter()
            .copied()
            .filter(|&value| value < max)
            .collect();
        levels.sort_unstable();
        levels
            .into_iter()
            .fold((0, -1.0), |best, level| {
                if variance(level) > best.1 {
                    (level, variance(level))
                } else {
                    best
                }
            })
            .0
    }

    #[test]
    fn the_classes_differ_most() {
        let values: Vec<u16> = (0..500_u32)
            .map(|i| (i * i % 97 + if i % 3 == 0 { 400 } else { 60 }) as u16)
            .collect();
        let as_f64: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        assert_eq!(threshold(&as_f64, true), f64::from(slow(&values)));
        assert_eq!(threshold(&[1.0, 1.0, 9.0, 9.0], true), 1.0);
        assert_eq!(threshold(&[0.0, 65535.0], true), 0.0);
        assert_eq!(threshold(&[5.0, 5.0], true), 5.0);
    }

    #[test]
    fn large_and_fractional_values_have_levels() {
        let large: Vec<f64> = (0..400)
            .map(|i| f64::from(i % 7) + if i % 3 == 0 { 4e9 } else { -30_000.0 })
            .collect();
        assert_eq!(threshold(&large, true), -29_994.0);
        let fractions: Vec<f64> = (0..400)
            .map(|i| f64::from(i % 7) / 100.0 + f64::from(i % 2))
            .collect();
        let found = threshold(&fractions, false);
        assert!((0.06..1.0).contains(&found), "{found}");
        assert_eq!(threshold(&[f64::NAN, 0.5, 0.5], false), 0.5);
        assert_eq!(threshold(&[f64::NAN], false), 0.0);
    }
}
