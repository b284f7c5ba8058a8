//! Ellipses in the plane of an image: what is inside, how far it is to the edge, the gap between
//! two of them.
//!
//! The unit is the pixel; the centre of the first pixel is (0, 0), x goes to the right and y down.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

/// In how many directions [`Ellipse::gap_to`] looks.
const N_DIRECTIONS: u32 = 64;

/// An ellipse of any place, size and direction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ellipse {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Half axes, the longer one first.
    pub(crate) axes: [f64; 2],
    /// From the x axis to the longer half axis, towards the y axis (on the screen clockwise), in
    /// radians.
    pub(crate) angle: f64,
    cos: f64,
    sin: f64,
}

impl Ellipse {
    pub(crate) fn new(x: f64, y: f64, axes: [f64; 2], angle: f64) -> Self {
        Self {
            x,
            y,
            axes,
            angle,
            cos: libm::cos(angle),
            sin: libm::sin(angle),
        }
    }

    pub(crate) fn moved_to(&self, x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            ..self.clone()
        }
    }

    /// The radius of a circle of the same area.
    pub(crate) fn mean_radius(&self) -> f64 {
        (self.axes[0] * self.axes[1]).sqrt()
    }

    /// How far the ellipse reaches from its centre in a direction of length 1.
    pub(crate) fn reach(&self, dx: f64, dy: f64) -> f64 {
        let along = self.axes[0] * (dx * self.cos + dy * self.sin);
        let across = self.axes[1] * (dy * self.cos - dx * self.sin);
        (along * along + across * across).sqrt()
    }

    /// The distance from the centre in units of the ellipse: 1 on its edge.
    pub(crate) fn radius_at(&self, x: f64, y: f64) -> f64 {
        let (along, across) = self.turned(x, y);
        let (along, across) = (along / self.axes[0], across / self.axes[1]);
        (along * along + across * across).sqrt()
    }

    /// The distance from the edge to first order, which is good near the edge: negative inside.
    pub(crate) fn edge_distance(&self, x: f64, y: f64) -> f64 {
        let (along, across) = self.turned(x, y);
        let (along, across) = (along / self.axes[0], across / self.axes[1]);
        let radius = (along * along + across * across).sqrt();
        let (along, across) = (along / self.axes[0], across / self.axes[1]);
        let slope = (along * along + across * across).sqrt() / radius;
        if radius < 1e-9 {
            -self.axes[1]
        } else {
            (radius - 1.0) / slope
        }
    }

    /// The gap between two ellipses, or minus the way that one has to go until they only touch.
    ///
    /// Two convex shapes are as far from each other as the best line between them is wide; as it is
    /// sought in a number of directions only, the true gap may be larger by some hundredths of a
    /// pixel.
    pub(crate) fn gap_to(&self, other: &Self) -> f64 {
        let (dx, dy) = (other.x - self.x, other.y - self.y);
        let between = libm::atan2(dy, dx);
        let mut gap = f64::NEG_INFINITY;
        for step in 0..=N_DIRECTIONS {
            let angle = between + PI * (f64::from(step) / f64::from(N_DIRECTIONS) - 0.5);
            let (along, across) = (libm::cos(angle), libm::sin(angle));
            let width =
                dx * along + dy * across - self.reach(along, across) - other.reach(along, across);
            gap = gap.max(width);
        }
        gap
    }

    /// The rows and columns of a square image of `size` rows in which the ellipse is, or what is at
    /// most `reach` outside of it.
    pub(crate) fn bounds(&self, size: usize, reach: f64) -> [RangeInclusive<usize>; 2] {
        let range = |middle: f64, half: f64| {
            let first = libm::floor(middle - half - reach).max(0.0) as usize;
            let last = libm::ceil(middle + half + reach).min(size as f64 - 1.0) as usize;
            first..=last
        };
        [
            range(self.y, self.reach(0.0, 1.0)),
            range(self.x, self.reach(1.0, 0.0)),
        ]
    }

    /// Counts the pixels whose centre is inside, in a square image of `size` rows.
    pub(crate) fn area_px(&self, size: usize) -> u32 {
        let [rows, columns] = self.bounds(size, 0.0);
        let mut area = 0;
        for row in rows {
            for column in columns.clone() {
                area += u32::from(self.radius_at(column as f64, row as f64) <= 1.0);
            }
        }
        area
    }

    /// A point, in the directions of the longer and the shorter half axis.
    fn turned(&self, x: f64, y: f64) -> (f64, f64) {
        let (dx, dy) = (x - self.x, y - self.y);
        (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_circles_is_that_of_their_radii() {
        let one = Ellipse::new(10.0, 20.0, [5.0, 5.0], 0.3);
        for (other, gap) in [
            ((30.0, 20.0), 8.0),
            ((10.0, 8.0), 0.0),
            ((13.0, 24.0), -7.0),
        ] {
            let found = one.gap_to(&Ellipse::new(other.0, other.1, [7.0, 7.0], 1.0));
            assert!((found - gap).abs() < 0.01, "{other:?} {found}");
        }
    }

    #[test]
    fn the_gap_of_ellipses_is_the_shortest_way_between_their_edges() {
        let one = Ellipse::new(0.0, 0.0, [12.0, 8.0], 0.7);
        let other = Ellipse::new(19.0, 15.0, [11.0, 9.0], 2.5);
        let edge = |ellipse: &Ellipse, step: u32| {
            let t = 2.0 * PI * f64::from(step) / 720.0;
            let (along, across) = (
                ellipse.axes[0] * libm::cos(t),
                ellipse.axes[1] * libm::sin(t),
            );
            (
                ellipse.x + along * ellipse.cos - across * ellipse.sin,
                ellipse.y + along * ellipse.sin + across * ellipse.cos,
            )
        };
        let mut shortest = f64::INFINITY;
        for (x, y) in (0..720).map(|step| edge(&one, step)) {
            for (u, v) in (0..720).map(|step| edge(&other, step)) {
                shortest = shortest.min(libm::hypot(x - u, y - v));
            }
        }
        let gap = one.gap_to(&other);
        assert!(
            gap <= shortest + 1e-9 && shortest - gap < 0.05,
            "{gap} {shortest}"
        );
        assert_eq!(format!("{gap:.6}"), format!("{:.6}", other.gap_to(&one)));
    }

    #[test]
    fn area_angle_and_reach_agree() {
        let ellipse = Ellipse::new(31.2, 30.7, [12.0, 8.0], 0.5);
        let area = f64::from(ellipse.area_px(64));
        assert!((area - PI * 96.0).abs() < 4.0, "{area}");
        let (dx, dy) = (libm::cos(0.5), libm::sin(0.5));
        assert!((ellipse.reach(dx, dy) - 12.0).abs() < 1e-9);
        assert!((ellipse.radius_at(31.2 + 12.0 * dx, 30.7 + 12.0 * dy) - 1.0).abs() < 1e-9);
        assert!((ellipse.edge_distance(31.2 + 13.0 * dx, 30.7 + 13.0 * dy) - 1.0).abs() < 1e-9);
        assert!((ellipse.edge_distance(31.2 - 6.0 * dy, 30.7 + 6.0 * dx) + 2.0).abs() < 1e-9);
        assert_eq!(Ellipse::new(0.0, 0.0, [3.0, 3.0], 0.0).area_px(64), 11);
    }
}
