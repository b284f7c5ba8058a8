//! The cells of one field: where their nuclei are, how large and how bright. Nothing is drawn here.

use crate::ellipse::Ellipse;
use crate::kind::Settings;
use std::f64::consts::PI;
use synthetic_images::random::Random;

/// Least and largest half axis of a nucleus.
const AXES: [f64; 2] = [8.0, 12.0];
/// The radius of a nucleus of mean brightness.
const MEAN_RADIUS: f64 = 9.5;
/// Between a nucleus and the border of the image.
const MARGIN: f64 = 3.0;
/// Between the centres of two nuclei, in their mean radii.
const LEAST_DISTANCE: f64 = 1.5;
/// How often a place is sought for a nucleus before it is left out.
const N_TRIES: usize = 400;

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// The largest section of the nucleus.
    pub(crate) nucleus: Ellipse,
    /// What is around it, roughly.
    pub(crate) cytoplasm: Ellipse,
    /// The plane that it is in, from 0.
    pub(crate) plane: usize,
    /// 1 on average, in each channel.
    pub(crate) brightness: [f64; 2],
}

/// Puts cells into a field.
///
/// * `size`: rows and columns of the image.
/// * `response`: to the dose, 0 to 1; the larger, the fewer cells.
pub(crate) fn place_cells(
    settings: &Settings,
    size: usize,
    n_planes: usize,
    response: f64,
    random: &mut Random,
) -> Vec<Cell> {
    let [most, least] = settings.n_nuclei;
    let density = most + (least - most) * response + random.uniform(-2.0, 2.0);
    let n_cells = libm::round(density * (size * size) as f64 / 65_536.0) as usize;
    let mut cells: Vec<Cell> = Vec::with_capacity(n_cells);
    for _ in 0..n_cells {
        let is_joined = !cells.is_empty() && random.uniform(0.0, 1.0) < settings.joined;
        let shape = draw_shape(random);
        let radius = shape.mean_radius() / MEAN_RADIUS;
        let light = libm::pow(radius, settings.size_power);
        let scatter = settings.scatter;
        let brightness = [
            light * random.uniform(1.0 - scatter, 1.0 + scatter),
            random.uniform(0.75, 1.25),
        ];
        let plane = random.uniform(0.0, n_planes as f64) as usize;
        for _ in 0..N_TRIES {
            let place = if is_joined {
                place_beside(&cells, &shape, settings, size, random)
            } else {
                place_apart(&cells, &shape, settings, size, random)
            };
            if let Some(nucleus) = place {
                let cytoplasm = draw_cytoplasm(&nucleus, settings.cytoplasm_size, random);
                cells.push(Cell {
                    nucleus,
                    cytoplasm,
                    plane,
                    brightness,
                });
                break;
            }
        }
    }
    cells
}

/// Two thirds of the nuclei are small, the others, before they divide, are large.
fn draw_shape(random: &mut Random) -> Ellipse {
    let is_large = random.uniform(0.0, 1.0) < 0.35;
    let long = if is_large {
        random.uniform(10.5, AXES[1])
    } else {
        random.uniform(8.5, 10.0)
    };
    let short = (long * random.uniform(0.76, 1.0)).max(AXES[0]);
    Ellipse::new(
        0.0,
        0.0,
        [thousandths(long), thousandths(short)],
        thousandths(random.uniform(0.0, PI)),
    )
}

/// Around a nucleus, which is not in its middle.
fn draw_cytoplasm(nucleus: &Ellipse, size: f64, random: &mut Random) -> Ellipse {
    let radius = nucleus.mean_radius() * size;
    let axes = [
        radius * random.uniform(1.0, 1.3),
        radius * random.uniform(0.8, 1.0),
    ];
    let (x, y) = (
        nucleus.x + random.uniform(-3.0, 3.0),
        nucleus.y + random.uniform(-3.0, 3.0),
    );
    Ellipse::new(x, y, axes, random.uniform(0.0, PI))
}

/// Anywhere, if it is free there.
fn place_apart(
    cells: &[Cell],
    shape: &Ellipse,
    settings: &Settings,
    size: usize,
    random: &mut Random,
) -> Option<Ellipse> {
    let (width, height) = (
        shape.reach(1.0, 0.0) + MARGIN,
        shape.reach(0.0, 1.0) + MARGIN,
    );
    let last = size as f64 - 1.0;
    let x = random.uniform(width, last - width);
    let y = random.uniform(height, last - height);
    let nucleus = shape.moved_to(thousandths(x), thousandths(y));
    cells
        .iter()
        .all(|cell| has_gap(&cell.nucleus, &nucleus, settings.gap))
        .then_some(nucleus)
}

/// Beside one of the cells, if it is inside the image and not too near to another one.
fn place_beside(
    cells: &[Cell],
    shape: &Ellipse,
    settings: &Settings,
    size: usize,
    random: &mut Random,
) -> Option<Ellipse> {
    let index = random.uniform(0.0, cells.len() as f64) as usize;
    let neighbour = &cells[index].nucleus;
    let direction = random.uniform(0.0, 2.0 * PI);
    let (dx, dy) = (libm::cos(direction), libm::sin(direction));
    let gap = random.uniform(settings.joined_gap[0], settings.joined_gap[1]);
    let at = |distance: f64| {
        shape.moved_to(
            thousandths(neighbour.x + dx * distance),
            thousandths(neighbour.y + dy * distance),
        )
    };
    let (mut near, mut far) = (0.0, 2.0 * AXES[1] + gap.max(0.0));
    for _ in 0..20 {
        let middle = (near + far) / 2.0;
        if neighbour.gap_to(&at(middle)) < gap {
            near = middle
        } else {
            far = middle
        }
    }
    let nucleus =
        at(far.max(LEAST_DISTANCE * (neighbour.mean_radius() + shape.mean_radius()) / 2.0));
    let is_inside = is_between(nucleus.x, nucleus.reach(1.0, 0.0) + MARGIN, size)
        && is_between(nucleus.y, nucleus.reach(0.0, 1.0) + MARGIN, size);
    let mut others = cells
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index);
    (is_inside && others.all(|(_, cell)| has_gap(&cell.nucleus, &nucleus, settings.gap)))
        .then_some(nucleus)
}

fn is_between(position: f64, margin: f64, size: usize) -> bool {
    position >= margin && position <= size as f64 - 1.0 - margin
}

fn has_gap(one: &Ellipse, other: &Ellipse, gap: f64) -> bool {
    // Most are too far from each other to be looked at.
    let distance =
        ((one.x - other.x) * (one.x - other.x) + (one.y - other.y) * (one.y - other.y)).sqrt();
    distance >= one.axes[0] + other.axes[0] + gap || one.gap_to(other) >= gap
}

/// Numbers that are short to write, so that a reader of the truth has the very same ellipse.
fn thousandths(value: f64) -> f64 {
    libm::round(value * 1000.0) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn fields(kind: Kind) -> Vec<Vec<Cell>> {
        let settings = kind.settings();
        let field = |seed: u32| {
            let mut random = Random::new(u64::from(seed));
            place_cells(&settings, 256, 3, f64::from(seed) / 19.0, &mut random)
        };
        (0..20).map(field).collect()
    }

    fn pairs(cells: &[Cell]) -> impl Iterator<Item = (usize, usize, f64)> {
        let gap = |i: usize, j: usize| (i, j, cells[i].nucleus.gap_to(&cells[j].nucleus));
        (0..cells.len()).flat_map(move |i| (i + 1..cells.len()).map(move |j| gap(i, j)))
    }

    #[test]
    fn easy_nuclei_are_apart() {
        for cells in fields(Kind::Easy) {
            assert!((15..=40).contains(&cells.len()), "{}", cells.len());
            assert!(pairs(&cells).all(|(_, _, gap)| gap >= 6.0));
        }
    }

    #[test]
    fn of_crowded_nuclei_every_second_or_third_touches_another() {
        let (mut n_touching, mut n_cells) = (0, 0);
        for cells in fields(Kind::Crowded) {
            assert!((60..=90).contains(&cells.len()), "{}", cells.len());
            let mut touches = vec![false; cells.len()];
            for (i, j, gap) in pairs(&cells).filter(|(_, _, gap)| *gap < 1.0) {
                assert!(gap > -2.6, "{gap}");
                let (one, other) = (&cells[i].nucleus, &cells[j].nucleus);
                let distance = libm::hypot(one.x - other.x, one.y - other.y);
                assert!(distance >= 1.49 * (one.mean_radius() + other.mean_radius()) / 2.0);
                (touches[i], touches[j]) = (true, true);
            }
            n_touching += touches.iter().filter(|touches| **touches).count();
            n_cells += cells.len();
        }
        let share = n_touching as f64 / n_cells as f64;
        assert!((0.3..=0.5).contains(&share), "{share}");
    }

    #[test]
    fn nuclei_are_whole_and_of_the_right_size() {
        for kind in [Kind::Easy, Kind::Crowded] {
            for cell in fields(kind).concat() {
                let nucleus = &cell.nucleus;
                let [long, short] = nucleus.axes;
                assert!(
                    (8.0..=12.0).contains(&short) && (short..=12.0).contains(&long),
                    "{nucleus:?}"
                );
                for (position, reach) in [
                    (nucleus.x, nucleus.reach(1.0, 0.0)),
                    (nucleus.y, nucleus.reach(0.0, 1.0)),
                ] {
                    assert!(
                        position - reach >= 2.99 && position + reach <= 252.01,
                        "{nucleus:?}"
                    );
                }
                assert!(cell.plane < 3);
            }
        }
    }

    #[test]
    fn the_response_takes_cells_away() {
        let settings = Kind::Easy.settings();
        let n_cells =
            |response| place_cells(&settings, 512, 1, response, &mut Random::new(3)).len();
        assert!(n_cells(0.0) > n_cells(0.5) && n_cells(0.5) > n_cells(1.0));
    }
}
