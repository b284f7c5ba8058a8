//! Texts about a running task: lines for a terminal of any width, and one line for a log.

use std::collections::BTreeMap;
use std::time::Instant;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::pace::{Pace, left_text, rate_text};
use crate::text::duration_text;

/// Parts of a call: its progress is in thousandths.
const PARTS: u64 = 1000;
/// Maximum number of lines for calls that report their progress.
const MAX_CALL_LINES: usize = 3;
/// Minimum and maximum number of columns of a bar.
const MIN_BAR: usize = 5;
const MAX_BAR: usize = 40;
/// Minimum number of columns of a name.
const MIN_NAME: usize = 8;

/// The running task.
pub(super) struct Task {
    /// Position in the workflow, from 1, and number of tasks of the workflow.
    pub(super) position: (usize, usize),
    /// Name, escaped.
    pub(super) name: String,
    pub(super) n_calls: usize,
    pub(super) n_ended: usize,
    pub(super) n_failed: usize,
    pub(super) pace: Pace,
    /// Time at which the first task started.
    pub(super) workflow_started: Instant,
    /// Running calls that report their progress, by index.
    calls: BTreeMap<usize, CallProgress>,
    /// Progress of all `calls` together, in thousandths of a call.
    parts: u64,
}

/// The last progress report of a call.
struct CallProgress {
    permille: u16,
    /// Item and message, escaped.
    text: String,
}

impl Task {
    pub(super) fn new(
        position: (usize, usize),
        name: String,
        (n_calls, n_reused): (usize, usize),
        now: Instant,
        workflow_started: Instant,
    ) -> Self {
        let pace = Pace::starting_at(now, n_reused as f64);
        let calls = BTreeMap::new();
        Self {
            position,
            name,
            n_calls,
            n_ended: n_reused,
            n_failed: 0,
            pace,
            workflow_started,
            calls,
            parts: 0,
        }
    }

    pub(super) fn progress(&mut self, call_index: usize, permille: u16, text: String) {
        self.end_progress(call_index);
        self.parts += u64::from(permille);
        self.calls
            .insert(call_index, CallProgress { permille, text });
    }

    pub(super) fn finish_call(&mut self, call_index: usize, failed: bool) {
        self.end_progress(call_index);
        self.n_ended += 1;
        self.n_failed += usize::from(failed);
    }

    /// Removes the progress of a call that has ended or is retried.
    pub(super) fn end_progress(&mut self, call_index: usize) {
        let permille = self
            .calls
            .remove(&call_index)
            .map_or(0, |call| call.permille);
        self.parts -= u64::from(permille);
    }

    /// Returns the number of calls that have ended, plus the fractions of running calls.
    pub(super) fn done(&self) -> f64 {
        self.n_ended as f64 + self.parts as f64 / PARTS as f64
    }

    fn fraction(&self) -> f64 {
        // A task without calls is done when it starts.
        if self.n_calls == 0 {
            1.0
        } else {
            self.done() / self.n_calls as f64
        }
    }

    /// Returns the title: `[2/3] name`.
    pub(super) fn title(&self) -> String {
        format!("[{}/{}] {}", self.position.0, self.position.1, self.name)
    }

    /// Returns the counts (`12/60, 2 failed`), and the pace and the time left if they are known.
    fn facts(&self, now: Instant) -> [Option<String>; 3] {
        let failed = if self.n_failed > 0 {
            format!(", {} failed", self.n_failed)
        } else {
            String::new()
        };
        let rate = self.pace.rate(now, self.done());
        let left = rate.and_then(|rate| left_text(self.n_calls as f64 - self.done(), rate));
        [
            Some(format!("{}/{}{failed}", self.n_ended, self.n_calls)),
            rate.map(|rate| format!(", {}", rate_text(rate))),
            left.filter(|_| self.n_ended < self.n_calls)
                .map(|left| format!(", {left} left")),
        ]
    }

    /// Returns the line for a log.
    pub(super) fn line(&self, now: Instant) -> String {
        let facts: String = self.facts(now).into_iter().flatten().collect();
        let percent = match self.calls.first_key_value() {
            // The progress of the only call.
            Some((_, call)) if self.n_calls == 1 => format!(", {} %", call.permille / 10),
            _ => String::new(),
        };
        format!("{}: {facts}{percent}", self.title())
    }

    /// Returns the lines for a terminal of this width.
    pub(super) fn frame(&self, now: Instant, columns: usize) -> Vec<String> {
        // The last column stays free: a terminal may wrap after it.
        let width = columns.saturating_sub(1).max(1);
        let (position, n_tasks) = self.position;
        let title = self.title();
        let mut lines = Vec::new();
        let name_width = (width / 3).max(MIN_NAME).min(title.width());
        let (bar_width, facts) = bar_and_facts(&self.facts(now), name_width, width);
        if n_tasks > 1 {
            let fraction = (position as f64 - 1.0 + self.fraction()) / n_tasks as f64;
            let elapsed = now.duration_since(self.workflow_started);
            let elapsed = if elapsed.as_secs() < 60 {
                format!("{} s", elapsed.as_secs())
            } else {
                duration_text(elapsed)
            };
            let facts = format!("{} %, {elapsed}", (fraction * 100.0) as u64);
            lines.push(line(
                "workflow", name_width, fraction, bar_width, &facts, width,
            ));
        }
        lines.push(line(
            &title,
            name_width,
            self.fraction(),
            bar_width,
            &facts,
            width,
        ));
        let shown = self.calls.values().take(MAX_CALL_LINES);
        lines.extend(shown.map(|call| {
            fit(
                &format!("  {:>3} % {}", call.permille / 10, call.text),
                width,
            )
        }));
        if self.calls.len() > MAX_CALL_LINES {
            lines.push(fit(
                &format!("        and {} more", self.calls.len() - MAX_CALL_LINES),
                width,
            ));
        }
        lines
    }
}

/// Returns the number of columns for a bar, and the facts that fit. If there is too little room,
/// first the pace is dropped, then the bar, then the time that is left.
fn bar_and_facts(facts: &[Option<String>; 3], name_width: usize, width: usize) -> (usize, String) {
    let [counts, rate, left] = facts
        .each_ref()
        .map(|fact| fact.as_deref().unwrap_or_default());
    let (all, fewer) = (format!("{counts}{rate}{left}"), format!("{counts}{left}"));
    let room = |facts: &str| width.saturating_sub(name_width + 1 + facts.width());
    for facts in [&all, &fewer] {
        // Leaves room for a space.
        if room(facts) > MIN_BAR {
            return ((room(facts) - 1).min(MAX_BAR), facts.clone());
        }
    }
    let fits = name_width + 1 + fewer.width() <= width;
    (0, if fits { fewer } else { counts.to_owned() })
}

/// Formats a line with a name, a bar and facts. If there is too little room, the name is shortened
/// or dropped.
fn line(
    name: &str,
    name_width: usize,
    fraction: f64,
    bar_width: usize,
    facts: &str,
    width: usize,
) -> String {
    if name_width + 1 + facts.width() > width {
        return fit(facts, width);
    }
    let name = fit(name, name_width);
    let padding = " ".repeat(name_width - name.width() + 1);
    let bar = if bar_width > 0 {
        bar(fraction, bar_width) + " "
    } else {
        String::new()
    };
    fit(&format!("{name}{padding}{bar}{facts}"), width)
}

fn bar(fraction: f64, width: usize) -> String {
    let n_full = ((fraction * width as f64) as usize).min(width);
    "█".repeat(n_full) + &"░".repeat(width - n_full)
}

/// Shortens a text to a number of columns, with an ellipsis where it is cut off.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let mut start: String = text.chars().take_while(fits).collect();
    start.push('…');
    start
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns a task of 60 calls, 12 of which have ended within 4 s, two of them with a failure.
    fn task(name: &str, n_tasks: usize) -> (Task, Instant) {
        let started = Instant::now();
        let mut task = Task::new(
            (n_tasks, n_tasks),
            name.to_owned(),
            (60, 0),
            started,
            started,
        );
        for call in 0..12 {
            task.finish_call(call, call < 2);
            task.pace.note(
                started + Duration::from_millis(333 * (call as u64 + 1)),
                task.done(),
            );
        }
        (task, started + Duration::from_secs(4))
    }

    #[test]
    fn a_task_is_shown_with_its_counts_pace_and_the_workflow_around_it() {
        let (mut task, now) = task("measure", 3);
        task.progress(13, 455, "B/04 writing".to_owned());
        task.progress(12, 100, "B/03 reading".to_owned());
        assert_eq!(
            task.frame(now, 80),
            [
                "workflow      ██████████████████████░░░░░░░░░ 73 %, 4 s",
                "[3/3] measure ██████░░░░░░░░░░░░░░░░░░░░░░░░░ 12/60, 2 failed, 3.3/s, 15 s left",
                "   10 % B/03 reading",
                "   45 % B/04 writing",
            ]
        );
        assert_eq!(
            task.line(now),
            "[3/3] measure: 12/60, 2 failed, 3.3/s, 15 s left"
        );
        task.finish_call(12, true);
        assert_eq!(task.frame(now, 80).len(), 3);
        assert!(
            task.line(now)
                .starts_with("[3/3] measure: 13/60, 3 failed, ")
        );
    }

    #[test]
    fn of_many_calls_the_first_are_shown() {
        let (mut task, now) = task("measure", 1);
        for call in 12..20 {
            task.progress(call, 500, format!("c{call}"));
        }
        let frame = task.frame(now, 80);
        assert_eq!(
            frame[1..],
            [
                "   50 % c12",
                "   50 % c13",
                "   50 % c14",
                "        and 5 more"
            ]
        );
    }

    #[test]
    fn lines_fit_any_terminal() {
        for name in [
            "measure",
            "測定する作業の名前はとても長い",
            &"long ".repeat(40),
            "e\u{301}".repeat(50).as_str(),
        ] {
            let (mut task, now) = task(name, 3);
            task.progress(12, 1000, "中".repeat(100));
            for columns in 1..200 {
                for line in task.frame(now, columns) {
                    assert!(line.width() < columns.max(2), "{columns} columns: {line:?}");
                }
            }
        }
        let (task, now) = task("measure", 1);
        assert_eq!(
            task.frame(now, 41),
            ["[1/1] measure 12/60, 2 failed, 17 s left"]
        );
        assert_eq!(task.frame(now, 25), ["[1/1] m… 12/60, 2 failed"]);
        assert_eq!(
            task.frame(now, 60),
            ["[1/1] measure ██░░░░░░░░░ 12/60, 2 failed, 3.0/s, 17 s left"]
        );
    }

    #[test]
    fn an_unknown_pace_is_not_shown() {
        let now = Instant::now();
        let mut task = Task::new((1, 1), "t".to_owned(), (1, 0), now, now);
        let later = now + Duration::from_secs(20);
        assert_eq!(task.line(later), "[1/1] t: 0/1");
        task.progress(0, 250, "reading".to_owned());
        assert_eq!(
            task.line(later),
            "[1/1] t: 0/1, 45/h, 1 min 00 s left, 25 %"
        );
        let none = Task::new((1, 1), "t".to_owned(), (0, 0), now, now);
        assert_eq!(
            none.frame(later, 40),
            ["[1/1] t ███████████████████████████ 0/0"]
        );
        // The reused results took no time in this run.
        let mut resumed = Task::new((1, 1), "t".to_owned(), (60, 40), now, now);
        (40..50).for_each(|call| resumed.finish_call(call, false));
        assert_eq!(resumed.line(later), "[1/1] t: 50/60, 30/min, 20 s left");
    }
}
