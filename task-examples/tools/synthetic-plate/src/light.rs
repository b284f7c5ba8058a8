//! From cells to the light in each plane, before it passes the objective's illumination and the
//! camera.

use crate::cells::Cell;
use crate::ellipse::Ellipse;
use crate::kind::Settings;
use std::f64::consts::{PI, SQRT_2};
use synthetic_images::random::Random;

/// Light where there is no cell: autofluorescence and what is far out of focus.
pub(crate) const BACKGROUND: f64 = 120.0;
/// Standard deviation of the edge of what is in focus, in pixels, and what each plane out of focus
/// adds.
const BLUR: [f64; 2] = [1.0, 2.0];

/// The light of one field, of both channels, each with its planes; a plane is a list of pixels, row
/// by row.
#[derive(Debug)]
pub(crate) struct Light {
    pub(crate) nuclei: Vec<Vec<f64>>,
    pub(crate) cytoplasm: Vec<Vec<f64>>,
}

/// Draws all planes of a field.
///
/// * `cytoplasm_light`: by how much the response makes it brighter or darker.
pub(crate) fn draw(
    cells: &[Cell],
    settings: &Settings,
    size: usize,
    n_planes: usize,
    cytoplasm_light: f64,
    random: &mut Random,
) -> Light {
    let chromatin = Texture::new(size, [5.0, 14.0], random).values();
    let fibres = Texture::new(size, [5.0, 24.0], random).values();
    let outline = Texture::new(size, [16.0, 60.0], random).values();
    let mut light = Light {
        nuclei: Vec::new(),
        cytoplasm: Vec::new(),
    };
    for plane in 0..n_planes {
        let mut nuclei = vec![BACKGROUND; size * size];
        let mut cytoplasm = vec![0.0_f64; size * size];
        let mut inside = vec![0.0_f64; size * size];
        for cell in cells {
            let defocus = cell.plane.abs_diff(plane) as f64;
            let blur = BLUR[0] + BLUR[1] * defocus;
            let contrast = 1.0 / (1.0 + defocus * defocus);
            let strength = settings.nucleus_light * cell.brightness[0] / (1.0 + 1.5 * defocus);
            for pixel in pixels_near(&cell.nucleus, size, 3.5 * blur) {
                let share = soft_edge(pixel.distance, blur);
                let dome = 1.0 - 0.18 * pixel.radius.min(1.0) * pixel.radius.min(1.0);
                nuclei[pixel.index] +=
                    strength * share * dome * (1.0 + 0.06 * contrast * chromatin[pixel.index]);
                inside[pixel.index] = inside[pixel.index].max(share * contrast);
            }
            let strength = settings.cytoplasm_light * cytoplasm_light * cell.brightness[1]
                / (1.0 + 0.6 * defocus);
            let blur = 1.0 + blur;
            for pixel in pixels_near(&cell.cytoplasm, size, 3.5 * blur) {
                // Thin towards the rim, which is not an ellipse's.
                let share = soft_edge(pixel.distance + 2.5 * outline[pixel.index], blur);
                let dome = 1.0 - 0.5 * pixel.radius.min(1.0) * pixel.radius.min(1.0);
                let texture = 1.0 + 0.22 * (0.3 + 0.7 * contrast) * fibres[pixel.index];
                cytoplasm[pixel.index] =
                    cytoplasm[pixel.index].max(strength * share * dome * texture);
            }
        }
        for (light, inside) in cytoplasm.iter_mut().zip(inside) {
            *light = BACKGROUND + *light * (1.0 - 0.55 * inside);
        }
        light.nuclei.push(nuclei);
        light.cytoplasm.push(cytoplasm);
    }
    light
}

/// The share of light at a distance from an edge that is blurred: 1 inside (where the distance is
/// negative), 1/2 on the edge.
///
/// * `blur`: standard deviation of the Gaussian.
fn soft_edge(distance: f64, blur: f64) -> f64 {
    // Most pixels are far from the edge, and this function is slow.
    if distance < -3.5 * blur {
        1.0
    } else {
        0.5 * libm::erfc(distance / (blur * SQRT_2))
    }
}

/// A pixel of an image, seen from an ellipse.
struct Pixel {
    index: usize,
    /// From the edge, negative inside.
    distance: f64,
    /// From the centre, 1 on the edge.
    radius: f64,
}

/// The pixels in an ellipse, and those not further from its edge than `reach`.
fn pixels_near(ellipse: &Ellipse, size: usize, reach: f64) -> impl Iterator<Item = Pixel> {
    let [rows, columns] = ellipse.bounds(size, reach);
    let pixel = move |row: usize, column: usize| {
        let (x, y) = (column as f64, row as f64);
        Pixel {
            index: row * size + column,
            distance: ellipse.edge_distance(x, y),
            radius: ellipse.radius_at(x, y),
        }
    };
    rows.flat_map(move |row| columns.clone().map(move |column| pixel(row, column)))
        .filter(move |pixel| pixel.distance < reach)
}

/// A sum of plane waves.
struct Texture {
    size: usize,
    waves: Vec<[f64; 3]>,
}

impl Texture {
    /// * `lengths`: of the shortest and the longest wave, in pixels.
    fn new(size: usize, lengths: [f64; 2], random: &mut Random) -> Self {
        let wave = |_| {
            let frequency = 2.0 * PI / random.uniform(lengths[0], lengths[1]);
            let angle = random.uniform(0.0, PI);
            [
                frequency * libm::cos(angle),
                frequency * libm::sin(angle),
                random.uniform(0.0, 2.0 * PI),
            ]
        };
        Self {
            size,
            waves: (0..24).map(wave).collect(),
        }
    }

    /// The value at each pixel: mean 0, standard deviation 1.
    fn values(&self) -> Vec<f64> {
        let scale = (2.0 / self.waves.len() as f64).sqrt();
        let mut values = vec![0.0; self.size * self.size];
        for [along, down, phase] in &self.waves {
            // The cosine of a sum, from tables of a row and a column.
            let table = |frequency: f64, phase: f64| -> Vec<(f64, f64)> {
                let angles = (0..self.size).map(|index| frequency * index as f64 + phase);
                angles
                    .map(|angle| (libm::cos(angle), libm::sin(angle)))
                    .collect()
            };
            let (columns, rows) = (table(*along, *phase), table(*down, 0.0));
            for (line, (row_cos, row_sin)) in values.chunks_exact_mut(self.size).zip(rows) {
                for (value, (cos, sin)) in line.iter_mut().zip(&columns) {
                    *value += scale * (cos * row_cos - sin * row_sin);
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn one_cell(n_planes: usize) -> Light {
        let nucleus = Ellipse::new(32.0, 32.0, [12.0, 8.0], 0.0);
        let cytoplasm = Ellipse::new(32.0, 32.0, [26.0, 26.0], 0.0);
        let cell = Cell {
            nucleus,
            cytoplasm,
            plane: 0,
            brightness: [1.0, 1.0],
        };
        draw(
            &[cell],
            &Kind::Easy.settings(),
            64,
            n_planes,
            1.0,
            &mut Random::new(1),
        )
    }

    #[test]
    fn half_of_the_light_is_left_on_the_edge() {
        let light = &one_cell(1).nuclei[0];
        let strength = Kind::Easy.settings().nucleus_light;
        for (column, row) in [(44, 32), (20, 32), (32, 24), (32, 40)] {
            let share = (light[row * 64 + column] - BACKGROUND) / strength;
            assert!((0.36..0.52).contains(&share), "{share}");
        }
        assert_eq!(light[0], BACKGROUND);
    }

    #[test]
    fn out_of_focus_it_is_dimmer_and_larger() {
        let light = one_cell(3).nuclei;
        let middle = |plane: usize| light[plane][32 * 64 + 32];
        assert!(middle(0) > middle(1) && middle(1) > middle(2));
        let outside = |plane: usize| light[plane][32 * 64 + 48];
        assert!(outside(0) < outside(1));
    }

    #[test]
    fn the_nucleus_is_dark_in_the_cytoplasm() {
        let light = &one_cell(1).cytoplasm[0];
        let nucleus = Ellipse::new(32.0, 32.0, [12.0, 8.0], 0.0);
        let mean = |radii: std::ops::Range<f64>| {
            let pixels = light.iter().enumerate();
            let ring = pixels.filter(|(index, _)| {
                radii.contains(&nucleus.radius_at((index % 64) as f64, (index / 64) as f64))
            });
            let values: Vec<f64> = ring.map(|(_, value)| *value).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let (inside, around) = (mean(0.0..0.8), mean(1.2..1.4));
        assert!(inside < 0.75 * around, "{inside} {around}");
    }

    #[test]
    fn a_texture_has_mean_0_and_variance_1() {
        let values = Texture::new(256, [5.0, 14.0], &mut Random::new(2)).values();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| value * value).sum::<f64>() / n;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.1,
            "{mean} {variance}"
        );
    }
}
