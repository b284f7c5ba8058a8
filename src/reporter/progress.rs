//! Progress for a person, on stderr.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle as BarStyle};

use super::Reporter;
use super::escape::escaped;
use crate::event::{CallRef, Event, EventKind, Status};
use crate::outcome::{Figures, Outcome, bytes_text};
use crate::sandbox::LogLevel;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyle {
    /// A bar for the running task, redrawn in place.
    Bar,
    /// A line at the start and the end of each task.
    Lines,
    /// Warnings, and nothing else.
    WarningsOnly,
}

/// Parts of a call on the bar: a typed task says how many of them are done.
const PARTS: u64 = 1000;
/// Characters beside the bar of what a call says.
const MAX_SAID_CHARS: usize = 80;

/// Shows which task runs, how many of its calls have ended, how many failed, and what typed tasks say.
pub struct Progress {
    style: ProgressStyle,
    says_calls: bool,
    n_tasks: usize,
    n_started: usize,
    n_failed: usize,
    n_calls: usize,
    n_ended: usize,
    /// Parts that are done of the calls that say so, by call.
    parts: HashMap<usize, u16>,
    /// What a call said last.
    said: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// * `n_tasks`: tasks that will run.
    /// * `says_calls`: a line for each call that ends.
    pub fn new(style: ProgressStyle, n_tasks: usize, says_calls: bool) -> Self {
        Self {
            style,
            says_calls,
            n_tasks,
            n_started: 0,
            n_failed: 0,
            n_calls: 0,
            n_ended: 0,
            parts: HashMap::new(),
            said: String::new(),
            started: Instant::now(),
            bar: None,
        }
    }

    fn say(&self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(io::stderr(), "{line}")),
            None => writeln!(io::stderr(), "{line}"),
        }
    }

    fn start_task(&mut self, name: &str, n_calls: usize) -> io::Result<()> {
        self.n_started += 1;
        (self.n_failed, self.n_calls, self.n_ended, self.started) = (0, n_calls, 0, Instant::now());
        self.parts.clear();
        self.said.clear();
        let title = format!("[{}/{}] {}", self.n_started, self.n_tasks, escaped(name));
        match self.style {
            ProgressStyle::WarningsOnly => {}
            ProgressStyle::Lines => {
                self.say(&format!("{title}: {n_calls} call{}", if n_calls == 1 { "" } else { "s" }))?;
            }
            ProgressStyle::Bar => {
                let bar = ProgressBar::with_draw_target(Some(n_calls as u64 * PARTS), ProgressDrawTarget::stderr());
                if let Ok(style) = BarStyle::with_template("{prefix} {wide_bar:.cyan/dim} {rate} eta {eta} {msg}") {
                    bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
                        // A rate that cannot be written is not shown.
                        let _ = write!(text, "{:.1}/s", state.per_sec() / PARTS as f64);
                    }));
                }
                bar.set_prefix(title);
                self.bar = Some(bar);
                self.draw();
            }
        }
        Ok(())
    }

    /// Brings the bar up to date.
    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let failed = (self.n_failed > 0).then(|| format!(", {} failed", self.n_failed));
        // A component's name can be of any length.
        let said: String = self.said.chars().take(MAX_SAID_CHARS).collect();
        let said = if said.is_empty() { said } else { format!(", {said}") };
        bar.set_message(format!("{}/{}{}{said}", self.n_ended, self.n_calls, failed.unwrap_or_default()));
        let parts: u64 = self.parts.values().map(|parts| u64::from(*parts)).sum();
        bar.set_position(self.n_ended as u64 * PARTS + parts);
    }

    fn progress(&mut self, call: &CallRef, permille: u16, message: &str) -> io::Result<()> {
        let percent = permille / 10;
        self.said = format!("{}{percent} % {}", prefix(call), escaped(message)).trim_end().to_owned();
        self.parts.insert(call.call_index, permille);
        self.draw();
        if self.says_calls { self.say(&format!("  {}", self.said)) } else { Ok(()) }
    }

    fn log(&self, call: &CallRef, level: LogLevel, message: &str) -> io::Result<()> {
        let name = match level {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warning",
            LogLevel::Error => "error",
        };
        if self.says_calls || level >= LogLevel::Warn {
            return self.say(&format!("  {}{name}: {}", prefix(call), escaped(message)));
        }
        Ok(())
    }

    fn finish_call(&mut self, call: &CallRef, outcome: &Outcome, figures: &Figures) -> io::Result<()> {
        let failed = outcome.failure_kind().is_some();
        self.n_failed += usize::from(failed);
        if self.says_calls {
            let seconds = figures.wall_time.as_secs_f64();
            let memory = bytes_text(figures.peak_memory_bytes);
            let outcome = escaped(&outcome.describe());
            self.say(&format!("  {}{outcome} ({seconds:.3} s, {memory})", prefix(call)))?;
        }
        self.n_ended += 1;
        if self.parts.remove(&call.call_index).is_some() {
            self.said.clear();
        }
        self.draw();
        Ok(())
    }

    fn finish_task(&mut self, name: &str, status: Status) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.style == ProgressStyle::WarningsOnly {
            return Ok(());
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let title = format!("[{}/{}] {}", self.n_started, self.n_tasks, escaped(name));
        match status {
            Status::Done => self.say(&format!("{title}: done in {seconds:.2} s")),
            Status::Failed => {
                let (n_failed, n_calls) = (self.n_failed, self.n_calls);
                self.say(&format!("{title}: failed after {seconds:.2} s ({n_failed} of {n_calls} calls failed)"))
            }
        }
    }
}

/// The component's name before what is said of its call.
fn prefix(call: &CallRef) -> String {
    call.component.as_ref().map(|component| format!("{} ", escaped(&component.to_string()))).unwrap_or_default()
}

impl Reporter for Progress {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Warning { message } => self.say(&format!("warning: {}", escaped(message))),
            EventKind::TaskStarted { name, n_calls, .. } => self.start_task(name, *n_calls),
            EventKind::CallLogged { call, level, message } => self.log(call, *level, message),
            EventKind::CallProgress { call, permille, message } => self.progress(call, *permille, message),
            EventKind::CallFinished { call, outcome, retry_in_s: Some(seconds), .. } => {
                let outcome = escaped(&outcome.describe());
                self.say(&format!("  {}{outcome}; tried again in {seconds} s", prefix(call)))
            }
            EventKind::CallFinished { call, outcome, figures, .. } => self.finish_call(call, outcome, figures),
            EventKind::TaskFinished { name, status, .. } => self.finish_task(name, *status),
            _ => Ok(()),
        }
    }
}
