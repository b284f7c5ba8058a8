//! Time as Python prints it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time in UTC, by its parts.
pub(crate) struct Stamp {
    date: String,
    time: String,
    milliseconds: u32,
}

/// Returns the present time.
pub(crate) fn now() -> Stamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    at(since.as_secs(), since.subsec_millis())
}

fn at(seconds: u64, milliseconds: u32) -> Stamp {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    Stamp {
        date: format!("{year:04}-{month:02}-{day:02}"),
        time: format!(
            "{:02}:{:02}:{:02}",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        ),
        milliseconds,
    }
}

/// Returns year, month and day of a number of days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let n_days = if is_leap(year) { 366 } else { 365 };
        if days < n_days {
            break;
        }
        days -= n_days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for n_days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < n_days {
            break;
        }
        days -= n_days;
        month += 1;
    }
    (year, month, days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

impl Stamp {
    /// Returns the time as in a log of Python.
    pub(crate) fn of_log(&self) -> String {
        format!("{} {},{:03}", self.date, self.time, self.milliseconds)
    }

    /// Returns the time in RFC 3339.
    pub(crate) fn of_json(&self) -> String {
        format!("{}T{}.{:03}+00:00", self.date, self.time, self.milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let text = |seconds| at(seconds, 7).of_json();
        assert_eq!(text(0), "1970-01-01T00:00:00.007+00:00");
        assert_eq!(text(951_782_400 + 3_661), "2000-02-29T01:01:01.007+00:00");
        assert_eq!(text(1_767_225_599), "2025-12-31T23:59:59.007+00:00");
    }
}
