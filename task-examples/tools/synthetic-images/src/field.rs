//! One field of view: cells at random places, drawn as a camera would see them.

use synthetic_images::random::Random;

/// Counts of an empty pixel, before noise.
const BACKGROUND: f64 = 110.0;
/// Standard deviation of the camera's own noise, in counts.
const READ_NOISE: f64 = 2.5;
/// Counts for each detected photon: shot noise is the root of counts times this.
const GAIN: f64 = 0.4;

/// The cells of one field, and the light that falls on them.
#[derive(Debug)]
pub(crate) struct Field {
    size: usize,
    cells: Vec<Cell>,
    /// Direction in which the light falls off, as change over the width and over the height.
    slope: (f64, f64),
    /// Plane waves that make up the texture of the cytoplasm.
    waves: Vec<Wave>,
}

#[derive(Debug)]
struct Cell {
    center: (f64, f64),
    /// Half axes of the nucleus in pixels.
    axes: (f64, f64),
    angle: f64,
    brightness: f64,
}

#[derive(Debug)]
struct Wave {
    frequency: (f64, f64),
    phase: f64,
}

impl Field {
    /// * `size`: rows and columns of the images.
    pub(crate) fn new(size: usize, random: &mut Random) -> Self {
        let mut cells: Vec<Cell> = Vec::new();
        let margin = 14.0;
        let n_cells = random.uniform(12.0, 26.0) as usize;
        for _ in 0..400 {
            let place = |random: &mut Random| random.uniform(margin, size as f64 - margin);
            let center = (place(random), place(random));
            let is_free = cells
                .iter()
                .all(|cell| distance(cell.center, center) > 34.0);
            if is_free && cells.len() < n_cells {
                let width = random.uniform(8.0, 12.0);
                cells.push(Cell {
                    center,
                    axes: (width, width * random.uniform(0.65, 0.95)),
                    angle: random.uniform(0.0, std::f64::consts::PI),
                    brightness: random.uniform(0.6, 1.2),
                });
            }
        }
        let slope = (random.uniform(-0.2, 0.2), random.uniform(-0.2, 0.2));
        let waves = (0..12)
            .map(|_| {
                let (length, angle) = (
                    random.uniform(5.0, 24.0),
                    random.uniform(0.0, std::f64::consts::PI),
                );
                let frequency = 2.0 * std::f64::consts::PI / length;
                Wave {
                    frequency: (frequency * libm::cos(angle), frequency * libm::sin(angle)),
                    phase: random.uniform(0.0, 2.0 * std::f64::consts::PI),
                }
            })
            .collect();
        Self {
            size,
            cells,
            slope,
            waves,
        }
    }

    /// Channel C01: bright ellipses with soft edges.
    pub(crate) fn nuclei(&self, random: &mut Random) -> Vec<u16> {
        self.expose(random, |x, y| {
            let light = self
                .cells
                .iter()
                .map(|cell| cell.brightness * soft_edge(cell.radius_at(x, y, 1.0), 0.12));
            3200.0 * light.sum::<f64>()
        })
    }

    /// Channel C02: broad, dim and textured, darker in the nuclei.
    pub(crate) fn cytoplasm(&self, random: &mut Random) -> Vec<u16> {
        self.expose(random, |x, y| {
            let light = self.cells.iter().map(|cell| {
                let nucleus = soft_edge(cell.radius_at(x, y, 1.0), 0.12);
                cell.brightness * soft_edge(cell.radius_at(x, y, 2.1), 0.2) * (1.0 - 0.6 * nucleus)
            });
            1300.0 * light.fold(0.0, f64::max) * (1.0 + 0.2 * self.texture_at(x, y))
        })
    }

    /// From light to counts: illumination, background, shot noise, read noise.
    fn expose(&self, random: &mut Random, light_at: impl Fn(f64, f64) -> f64) -> Vec<u16> {
        let middle = self.size as f64 / 2.0;
        let mut values = Vec::with_capacity(self.size * self.size);
        for row in 0..self.size {
            for column in 0..self.size {
                let (x, y) = (column as f64, row as f64);
                let illumination = 1.0
                    + (self.slope.0 * (x - middle) + self.slope.1 * (y - middle))
                        / self.size as f64;
                let mean = BACKGROUND + illumination * (120.0 + light_at(x, y));
                let noise = libm::sqrt(mean * GAIN + READ_NOISE * READ_NOISE) * random.normal();
                values.push(libm::round(mean + noise).clamp(0.0, 65535.0) as u16);
            }
        }
        values
    }

    /// About -1 to 1.
    fn texture_at(&self, x: f64, y: f64) -> f64 {
        let waves = self.waves.iter();
        let sum: f64 = waves
            .map(|wave| libm::cos(wave.frequency.0 * x + wave.frequency.1 * y + wave.phase))
            .sum();
        sum / libm::sqrt(2.0 * self.waves.len() as f64)
    }
}

impl Cell {
    /// The distance from the centre in units of the ellipse, scaled: 1 on its edge.
    fn radius_at(&self, x: f64, y: f64, scale: f64) -> f64 {
        let (dx, dy) = (x - self.center.0, y - self.center.1);
        let (sin, cos) = (libm::sin(self.angle), libm::cos(self.angle));
        let along = (dx * cos + dy * sin) / (self.axes.0 * scale);
        let across = (dy * cos - dx * sin) / (self.axes.1 * scale);
        libm::sqrt(along * along + across * across)
    }
}

/// 1 inside an ellipse, falling to 0 outside of it as a Gaussian's integral does.
///
/// * `radius`: 1 on the edge.
/// * `width`: standard deviation of the Gaussian, in the same unit.
fn soft_edge(radius: f64, width: f64) -> f64 {
    0.5 * libm::erfc((radius - 1.0) / (width * std::f64::consts::SQRT_2))
}

fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    libm::sqrt((a.0 - b.0) * (a.0 - b.0) + (a.1 - b.1) * (a.1 - b.1))
}
