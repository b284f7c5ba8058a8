//! The pace at which calls end, and the time that is left.

use std::time::{Duration, Instant};

use crate::text::duration_text;

/// Maximum number of samples. When it is reached, every second sample is dropped.
const MAX_SAMPLES: usize = 64;
/// Time between the first two samples.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
/// Time before which no pace is shown.
const TOO_SOON: Duration = Duration::from_millis(500);

/// The pace of a task, over the latter half of its time. A single slow call does not distort it,
/// and a slow start does not lower it for long.
pub(super) struct Pace {
    started: Instant,
    interval: Duration,
    /// Times, each with the number of calls that were done.
    samples: Vec<(Instant, f64)>,
}

impl Pace {
    /// Creates a pace that starts now.
    ///
    /// * `done`: number of calls that were done before.
    pub(super) fn starting_at(now: Instant, done: f64) -> Self {
        Self {
            started: now,
            interval: FIRST_INTERVAL,
            samples: vec![(now, done)],
        }
    }

    /// Adds a sample.
    ///
    /// * `done`: number of calls that have ended, plus the fractions of running calls.
    pub(super) fn note(&mut self, now: Instant, done: f64) {
        let latest = self.samples.last().map_or(self.started, |(time, _)| *time);
        if now.duration_since(latest) < self.interval {
            return;
        }
        if self.samples.len() == MAX_SAMPLES {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2;
        }
        self.samples.push((now, done));
    }

    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.started)
    }

    /// Returns the calls per second; `None` if too little is known.
    pub(super) fn rate(&self, now: Instant, done: f64) -> Option<f64> {
        let elapsed = self.elapsed(now);
        if elapsed < TOO_SOON {
            return None;
        }
        let half = self.started + elapsed / 2;
        let since = self
            .samples
            .partition_point(|(time, _)| *time <= half)
            .saturating_sub(1);
        let (time, done_then) = self.samples[since];
        let rate = (done - done_then) / now.duration_since(time).as_secs_f64();
        // If nothing happened in that time, the pace over the whole time is more informative.
        let rate = if rate > 0.0 {
            rate
        } else {
            done / elapsed.as_secs_f64()
        };
        (rate > 0.0).then_some(rate)
    }
}

/// Formats a rate: `1234/s`, `12/s`, `3.4/s`, `5.1/min`, `2.0/h`.
pub(super) fn rate_text(per_second: f64) -> String {
    let (value, unit) = match per_second {
        1.0.. => (per_second, "s"),
        rate if rate * 60.0 >= 1.0 => (rate * 60.0, "min"),
        rate => (rate * 3600.0, "h"),
    };
    if value >= 9.95 {
        format!("{value:.0}/{unit}")
    } else {
        format!("{value:.1}/{unit}")
    }
}

/// Formats the time that is left: `14 s`, `3 min 05 s`; `None` if it is too long to be shown.
pub(super) fn left_text(calls: f64, per_second: f64) -> Option<String> {
    let left = Duration::try_from_secs_f64((calls / per_second).ceil()).ok()?;
    let seconds = left.as_secs();
    Some(if seconds < 60 {
        format!("{seconds} s")
    } else {
        duration_text(left)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pace after steps of one second, with the number of calls that end in each.
    fn pace(steps: &[f64]) -> Option<f64> {
        let started = Instant::now();
        let mut pace = Pace::starting_at(started, 0.0);
        let (mut now, mut done) = (started, 0.0);
        for step in steps {
            (now, done) = (now + Duration::from_secs(1), done + step);
            pace.note(now, done);
        }
        pace.rate(now, done)
    }

    #[test]
    fn the_pace_is_that_of_the_latter_half() {
        assert_eq!(pace(&[]), None);
        assert_eq!(pace(&[2.0]), Some(2.0));
        assert_eq!(pace(&[0.0; 10]), None);
        assert_eq!(pace(&[[0.0; 10], [4.0; 10]].concat()), Some(4.0));
        // One call a minute: the pace is known after the first call, and kept between two calls.
        let slow: Vec<_> = (1..=170)
            .map(|second| if second % 60 == 0 { 1.0 } else { 0.0 })
            .collect();
        assert!((1.0 / 200.0..1.0 / 50.0).contains(&pace(&slow).expect("a pace")));
        let long = vec![3.0; 100_000];
        assert!((pace(&long).expect("a pace") - 3.0).abs() < 0.01);
    }

    #[test]
    fn rates_and_times_are_readable() {
        let rates = [1234.4, 12.3, 9.96, 3.44, 0.5, 0.1, 0.01].map(rate_text);
        assert_eq!(
            rates,
            [
                "1234/s", "12/s", "10/s", "3.4/s", "30/min", "6.0/min", "36/h"
            ]
        );
        let left = [(1.0, 3.0), (90.0, 3.0), (555.0, 3.0), (1e9, 0.1)]
            .map(|(calls, rate)| left_text(calls, rate));
        let expected =
            ["1 s", "30 s", "3 min 05 s", "2777777 h 46 min"].map(|text| Some(text.to_owned()));
        assert_eq!(left, expected);
        assert_eq!(left_text(1e30, 1e-30), None);
    }
}
