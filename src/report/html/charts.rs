//! Distributions as small charts (SVG), with one logarithmic axis for all tasks.

use std::fmt::Write as _;

const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 34.0;
const N_BINS: usize = 50;
/// Maximum number of labels below an axis.
const MAX_TICKS: usize = 5;

/// A logarithmic axis.
pub(super) struct LogAxis {
    low: f64,
    high: f64,
    /// Ratio of two neighbouring ticks.
    factor: f64,
}

impl LogAxis {
    /// Creates an axis for these values. Values below `least` are drawn as `least`.
    ///
    /// * `factor`: ratio of two neighbouring ticks.
    pub(super) fn new(values: impl Iterator<Item = f64>, least: f64, factor: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, least), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let low = low.clamp(least, high);
        // At least as wide as the distance of two ticks, so that equal values are drawn in the
        // middle.
        let margin = (factor / (high / low)).max(1.0).sqrt() * 1.05;
        Self {
            low: low / margin,
            high: high * margin,
            factor,
        }
    }

    /// Returns the position of a value, 0 to 1.
    fn position(&self, value: f64) -> f64 {
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Draws the axis with its labels.
    ///
    /// * `unit`: a value at which there is a tick.
    /// * `label`: returns the text of a value; safe in HTML.
    pub(super) fn labels(&self, unit: f64, label: impl Fn(f64) -> String) -> String {
        let exponent = |value: f64| (value / unit).ln() / self.factor.ln();
        let (first, last) = (
            exponent(self.low).ceil() as i32,
            exponent(self.high).floor() as i32,
        );
        let n_ticks = usize::try_from(last - first + 1).unwrap_or(0);
        let step = n_ticks.div_ceil(MAX_TICKS).max(1);
        let mut svg = format!(
            r#"<svg width="{WIDTH}" height="16" viewBox="0 0 {WIDTH} 16" aria-hidden="true">"#
        );
        for power in (first..=last).step_by(step) {
            let value = unit * self.factor.powi(power);
            let x = self.position(value) * WIDTH;
            let anchor = if x < 20.0 {
                "start"
            } else if x > WIDTH - 20.0 {
                "end"
            } else {
                "middle"
            };
            // Writing to a string cannot fail.
            let _ = write!(
                svg,
                r#"<text x="{x:.0}" y="10" text-anchor="{anchor}">{}</text>"#,
                label(value)
            );
            let _ = write!(svg, r#"<path class="axis" d="M{x:.0} 13v3"/>"#);
        }
        svg + "</svg>"
    }

    /// Draws the distribution of values, with its highest bar as high as the chart.
    ///
    /// * `class`: CSS class of the bars.
    /// * `title`: text alternative of the chart; safe in HTML.
    pub(super) fn histogram(
        &self,
        values: impl Iterator<Item = f64>,
        class: &str,
        title: &str,
    ) -> String {
        let mut bins = [0_u64; N_BINS];
        for value in values {
            bins[((self.position(value) * N_BINS as f64) as usize).min(N_BINS - 1)] += 1;
        }
        let most = bins.iter().copied().max().unwrap_or(0).max(1);
        let width = WIDTH / N_BINS as f64;
        let mut path = String::new();
        for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            // A single call among many must be visible too.
            let height = (*count as f64 / most as f64 * HEIGHT).max(1.5);
            let (x, y, bar) = (index as f64 * width, HEIGHT - height, width - 0.7);
            let _ = write!(path, "M{x:.1} {y:.1}h{bar:.1}V{HEIGHT}h-{bar:.1}z");
        }
        format!(
            r#"<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><path class="axis" d="M0 {y}h{WIDTH}"/><path class="{class}" d="{path}"/></svg>"#,
            y = HEIGHT - 0.5
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        for values in [
            vec![],
            vec![0.0],
            vec![5.0],
            vec![5.0, 5.0],
            vec![0.0, 1e12],
            vec![1.0, 9.0, 90.0],
        ] {
            let axis = LogAxis::new(values.iter().copied(), 1.0, 10.0);
            for value in &values {
                let position = axis.position(value.max(1.0));
                assert!(
                    position > 0.0 && position < 1.0,
                    "{values:?} {value} {position}"
                );
            }
            let labels = axis.labels(1.0, |value| format!("{value}"));
            let n_labels = labels.matches("<text").count();
            assert!(
                (1..=MAX_TICKS + 1).contains(&n_labels),
                "{values:?} {labels}"
            );
            let svg = axis.histogram(values.iter().copied(), "c0", "t");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
