//! From light to counts: uneven illumination, shot noise, the camera's own noise.

use crate::kind::Settings;
use std::f64::consts::PI;
use synthetic_images::random::Random;

/// Counts of a pixel without light.
pub(crate) const OFFSET: f64 = 110.0;
/// The illumination in the darkest corner, of each channel; the brightest place has 1.
const DARKEST: [f64; 2] = [0.62, 0.66];

/// How much of the light of one channel arrives, over the image.
#[derive(Debug)]
pub(crate) struct Illumination {
    size: usize,
    values: Vec<f64>,
}

impl Illumination {
    /// Those of both channels, which depend on the plate's seed: bright near the middle, in
    /// different places.
    pub(crate) fn of_plate(seed: u64, size: usize) -> [Self; 2] {
        let mut random = Random::new(seed);
        let first = random.uniform(0.0, 2.0 * PI);
        let second = first + random.uniform(0.5, 1.5) * PI;
        let offset = [random.uniform(0.06, 0.09), random.uniform(0.06, 0.09)];
        [
            Self::new(size, first, offset[0], DARKEST[0]),
            Self::new(size, second, offset[1], DARKEST[1]),
        ]
    }

    /// * `direction`, `offset`: from the middle of the image to its brightest place, in radians and
    ///   image widths.
    fn new(size: usize, direction: f64, offset: f64, darkest: f64) -> Self {
        let (x, y) = (
            0.5 + offset * libm::cos(direction),
            0.5 + offset * libm::sin(direction),
        );
        let (width, height) = (x.max(1.0 - x), y.max(1.0 - y));
        // An image gets dark as the fourth power of the cosine: as 1 / (1 + r^2 / f^2)^2.
        let per_square = (1.0 / darkest.sqrt() - 1.0) / (width * width + height * height);
        let last = (size - 1) as f64;
        let mut values = Vec::with_capacity(size * size);
        for row in 0..size {
            for column in 0..size {
                let (dx, dy) = (column as f64 / last - x, row as f64 / last - y);
                let share = 1.0 / (1.0 + (dx * dx + dy * dy) * per_square);
                values.push(share * share);
            }
        }
        Self { size, values }
    }

    /// The illumination divided by its maximum, as a PNG file of 16-bit grey.
    pub(crate) fn build_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let most = self.values.iter().copied().fold(0.0, f64::max);
        let values = self
            .values
            .iter()
            .map(|value| libm::round(value / most * 65_535.0) as u16);
        let bytes: Vec<u8> = values.flat_map(u16::to_be_bytes).collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.size as u32, self.size as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Sixteen);
        encoder.write_header()?.write_image_data(&bytes)?;
        Ok(file)
    }
}

/// The counts that a camera shows of this light.
pub(crate) fn expose(
    light: &[f64],
    illumination: &Illumination,
    settings: &Settings,
    random: &mut Random,
) -> Vec<u16> {
    let pixels = light.iter().zip(&illumination.values);
    let count = |(light, share): (&f64, &f64)| {
        let signal = share * light;
        let noise = (signal * settings.gain + settings.read_noise * settings.read_noise).sqrt()
            * random.normal();
        libm::round(OFFSET + signal + noise).clamp(0.0, 65_535.0) as u16
    };
    pixels.map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn the_light_falls_off_to_the_corners_from_another_center_in_each_channel() {
        for seed in 0..20 {
            let [first, second] = Illumination::of_plate(seed, 128);
            let brightest = |illumination: &Illumination| {
                let values = illumination.values.iter().enumerate();
                let (index, value) = values.max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
                assert!((0.999..=1.0).contains(value), "{value}");
                (index % 128, index / 128)
            };
            let (one, other) = (brightest(&first), brightest(&second));
            assert!(
                one.0.abs_diff(other.0) + one.1.abs_diff(other.1) > 10,
                "{one:?} {other:?}"
            );
            for illumination in [first, second] {
                for corner in [0, 127, 127 * 128, 128 * 128 - 1] {
                    assert!(
                        (0.6..=0.78).contains(&illumination.values[corner]),
                        "{}",
                        illumination.values[corner]
                    );
                }
            }
        }
    }

    #[test]
    fn counts_are_offset_and_light_with_noise_of_known_size() {
        let illumination = Illumination {
            size: 256,
            values: vec![0.5; 65_536],
        };
        let settings = Kind::Easy.settings();
        let counts = expose(
            &vec![1000.0; 65_536],
            &illumination,
            &settings,
            &mut Random::new(4),
        );
        let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / 65_536.0;
        let variance = counts
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2))
            .sum::<f64>()
            / 65_536.0;
        let expected =
            500.0 * settings.gain + settings.read_noise * settings.read_noise + 1.0 / 12.0;
        assert!((mean - 610.0).abs() < 0.3, "{mean}");
        assert!(
            (variance / expected - 1.0).abs() < 0.03,
            "{variance} {expected}"
        );
    }
}
