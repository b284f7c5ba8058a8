//! Numbers of bytes, durations and times as text.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

/// Formats a number of bytes: `256 MiB`, `4 GiB`, `17 bytes`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Formats a duration: `850 us`, `12 ms`, `1.25 s`, `3 min 05 s`, `2 h 05 min`.
pub fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.as_micros() {
        0..1_000 => format!("{} us", time.as_micros()),
        1_000..100_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        100_000..1_000_000 => format!("{} ms", time.as_millis()),
        1_000_000..60_000_000 => format!("{:.2} s", time.as_secs_f64()),
        60_000_000..3_600_000_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Truncates a duration to microseconds, as records store it. Events during a run and the records
/// read later then agree.
pub(crate) fn whole_microseconds(time: Duration) -> Duration {
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Formats a time with microseconds, as all records of a run do.
pub(crate) fn time_text(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Returns the time between two timestamps, or zero if the clock was set back in between.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

/// Returns why a file that the user named cannot be read, with advice.
pub(crate) fn unreadable(err: &io::Error) -> String {
    let advice = match err.kind() {
        io::ErrorKind::NotFound => "; correct the path",
        io::ErrorKind::IsADirectory => "; name a file",
        io::ErrorKind::PermissionDenied => "; let this user read it",
        _ => "",
    };
    format!("cannot be read: {err}{advice}")
}
