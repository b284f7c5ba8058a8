//! Log lines and progress of a running typed task, bounded in size and frequency.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{GuestReport, LogLevel};
use crate::text::bytes_text;

/// Maximum size in bytes of all log lines of a call, including the cost of recording each. Further
/// lines are counted and dropped. All progress reports together have the same limit.
pub const MAX_REPORT_BYTES: u64 = 1 << 20;
/// Maximum size in bytes of a log line.
const MAX_LINE_BYTES: usize = 4 << 10;
/// Maximum size in bytes of a progress message.
const MAX_PROGRESS_TEXT_BYTES: usize = 256;
/// Size in bytes of an event without its text and its item.
const EVENT_BYTES: u64 = 200;
/// Minimum interval between two progress reports. In a long call, the interval is a hundredth of
/// the elapsed time.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Receiver of log lines and progress, which forwards those within the bounds.
///
/// Clones belong to the same call.
#[derive(Clone)]
pub struct GuestReports(Arc<Mutex<State>>);

struct State {
    send: Box<dyn FnMut(GuestReport) + Send>,
    limit_bytes: u64,
    event_bytes: u64,
    log_bytes_left: u64,
    n_lines_dropped: u64,
    progress_bytes_left: u64,
    started: Instant,
    next_progress: Instant,
    latest_progress: Option<(u16, String)>,
}

impl GuestReports {
    /// Creates the receiver of one call.
    ///
    /// * `limit_bytes`: maximum cost of all log lines, and of all progress reports.
    /// * `item_bytes`: cost of each event in addition to its text, which is the length of the item
    ///   that it names.
    /// * `send`: called on the thread of the guest with each report within the bounds.
    pub fn new(
        limit_bytes: u64,
        item_bytes: u64,
        send: impl FnMut(GuestReport) + Send + 'static,
    ) -> Self {
        let started = Instant::now();
        Self(Arc::new(Mutex::new(State {
            send: Box::new(send),
            limit_bytes,
            event_bytes: EVENT_BYTES + item_bytes,
            log_bytes_left: limit_bytes,
            n_lines_dropped: 0,
            progress_bytes_left: limit_bytes,
            started,
            next_progress: started,
            latest_progress: None,
        })))
    }

    /// Receives a log line.
    pub fn log(&self, level: LogLevel, message: &str) {
        let mut state = self.lock();
        let message = cut(message, MAX_LINE_BYTES);
        match state.log_bytes_left.checked_sub(state.cost(&message)) {
            Some(left) if state.n_lines_dropped == 0 => {
                state.log_bytes_left = left;
                (state.send)(GuestReport::Log { level, message });
            }
            _ => state.n_lines_dropped += 1,
        }
    }

    /// Receives a progress report; `fraction` may be any number.
    pub fn progress(&self, fraction: f32, message: &str) {
        // The cast converts NaN to 0.
        let permille = (fraction.clamp(0.0, 1.0) * 1000.0) as u16;
        self.lock().progress(permille, message, Instant::now());
    }

    /// Receives a report that comes from another process.
    pub(crate) fn take(&self, report: GuestReport) {
        match report {
            GuestReport::Log { level, message } => self.log(level, &message),
            GuestReport::Progress { permille, message } => {
                self.lock()
                    .progress(permille.min(1000), &message, Instant::now());
            }
        }
    }

    /// Forwards the latest progress report, if it came too early and its time has come.
    pub(crate) fn send_due_progress(&self) {
        let mut state = self.lock();
        if state.latest_progress.is_some() {
            state.send_progress(Instant::now());
        }
    }

    /// Forwards the latest progress report, and reports how many log lines were dropped. Call it
    /// when the guest has ended.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.next_progress = state.started;
        state.send_progress(Instant::now());
        let n = std::mem::take(&mut state.n_lines_dropped);
        if n > 0 {
            let (lines, limit) = (
                if n == 1 { "line was" } else { "lines were" },
                bytes_text(state.limit_bytes),
            );
            let message =
                format!("[mandelbox: {n} more log {lines} dropped; a call may log {limit}]");
            (state.send)(GuestReport::Log {
                level: LogLevel::Warn,
                message,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the maximum size in bytes of an event with this text, as JSON.
    fn cost(&self, message: &str) -> u64 {
        let escaped = message
            .bytes()
            .filter(|byte| *byte < b' ' || b"\"\\".contains(byte))
            .count();
        self.event_bytes + (message.len() + 5 * escaped) as u64
    }

    fn progress(&mut self, permille: u16, message: &str, now: Instant) {
        match &mut self.latest_progress {
            // Do not copy the text again for a guest that repeats it.
            Some((latest, text)) if text == message => *latest = permille,
            latest => *latest = Some((permille, cut(message, MAX_PROGRESS_TEXT_BYTES))),
        }
        self.send_progress(now);
    }

    fn send_progress(&mut self, now: Instant) {
        if now < self.next_progress {
            return;
        }
        let Some((permille, message)) = self.latest_progress.take() else {
            return;
        };
        self.next_progress = now + PROGRESS_INTERVAL.max((now - self.started) / 100);
        let left = self.progress_bytes_left.checked_sub(self.cost(&message));
        self.progress_bytes_left = left.unwrap_or(0);
        if left.is_some() {
            (self.send)(GuestReport::Progress { permille, message });
        }
    }
}

/// Returns the text, or its start followed by a note, of at most `max_bytes` together.
pub(crate) fn cut(text: &str, max_bytes: usize) -> String {
    const NOTE: &str = " [cut]";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(NOTE.len()));
    format!("{}{NOTE}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = Arc<Mutex<Vec<GuestReport>>>;

    fn reports(limit_bytes: u64, item_bytes: u64) -> (GuestReports, Sent) {
        let sent = Sent::default();
        let received = Arc::clone(&sent);
        let reports = GuestReports::new(limit_bytes, item_bytes, move |report| {
            received.lock().expect("not poisoned").push(report);
        });
        (reports, sent)
    }

    fn messages(sent: &Sent) -> Vec<String> {
        let sent = sent.lock().expect("not poisoned");
        let messages = sent.iter().map(|report| match report {
            GuestReport::Log { message, .. } => message.clone(),
            GuestReport::Progress { permille, message } => format!("{permille} {message}"),
        });
        messages.collect()
    }

    #[test]
    fn lines_are_dropped_one_past_the_limit() {
        let (reports, sent) = reports(2 * (200 + 7 + 10), 7);
        for line in ["0123456789", "abcdefghij", "", ""] {
            reports.log(LogLevel::Info, line);
        }
        assert_eq!(messages(&sent), ["0123456789", "abcdefghij"]);
        reports.finish();
        reports.finish();
        let note = "[mandelbox: 2 more log lines were dropped; a call may log 434 bytes]";
        assert_eq!(messages(&sent)[2..], [note]);
    }

    #[test]
    fn characters_that_json_escapes_cost_what_they_take() {
        let (reports, sent) = reports(2 * (200 + 60), 0);
        for _ in 0..3 {
            reports.log(LogLevel::Info, &"\0".repeat(10));
        }
        assert_eq!(messages(&sent).len(), 2);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let (reports, sent) = reports(u64::MAX, 0);
        reports.log(LogLevel::Info, &"é".repeat(2048));
        reports.log(LogLevel::Info, &"é".repeat(2049));
        reports.progress(0.0, &"é".repeat(129));
        let expected = [
            "é".repeat(2048),
            format!("{} [cut]", "é".repeat(2045)),
            format!("0 {} [cut]", "é".repeat(125)),
        ];
        assert_eq!(messages(&sent), expected);
    }

    #[test]
    fn unusual_fractions_are_rounded_to_the_nearest() {
        let fractions = [f32::NAN, f32::INFINITY, -f32::INFINITY, -0.5, 1.5, 0.1234];
        for (fraction, expected) in fractions
            .into_iter()
            .zip(["0 ", "1000 ", "0 ", "0 ", "1000 ", "123 "])
        {
            let (reports, sent) = reports(u64::MAX, 0);
            reports.progress(fraction, "");
            assert_eq!(messages(&sent), [expected], "{fraction}");
        }
    }

    #[test]
    fn progress_is_reported_at_most_ten_times_a_second_and_the_latest_counts() {
        let (reports, sent) = reports(u64::MAX, 0);
        let mut state = reports.lock();
        let started = state.started;
        // One report per millisecond for 300 ms.
        for ms in 0..300 {
            state.progress(ms, "x", started + Duration::from_millis(u64::from(ms)));
        }
        assert_eq!(messages(&sent), ["0 x", "100 x", "200 x"]);
        state.send_progress(started + Duration::from_millis(299));
        assert_eq!(messages(&sent).len(), 3);
        state.send_progress(started + Duration::from_millis(300));
        assert_eq!(messages(&sent)[3..], ["299 x"]);
        state.progress(301, "end", started + Duration::from_millis(301));
        drop(state);
        reports.finish();
        assert_eq!(messages(&sent)[4..], ["301 end"]);
        let mut state = reports.lock();
        // After an hour, one report per second for another hour.
        for second in 3600..7200 {
            state.progress(0, "", started + Duration::from_secs(second));
        }
        assert!(
            (50..110).contains(&messages(&sent).len()),
            "{}",
            messages(&sent).len()
        );
    }

    #[test]
    fn progress_stops_at_its_limit() {
        let (reports, sent) = reports(1000, 0);
        let mut state = reports.lock();
        for second in 0..100 {
            let now = state.started + Duration::from_secs(second);
            state.progress(0, "", now);
        }
        assert_eq!(messages(&sent).len(), 5);
    }
}
