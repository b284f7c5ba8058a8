//! Progress for a person, on stderr.

use std::io::{self, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};

use super::Reporter;
use super::escape::escaped;
use crate::event::{Event, EventKind, Status};
use crate::json::Value;
use crate::outcome::{Figures, Outcome, bytes_text};

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

/// Shows which task runs, how many of its calls have ended and how many failed.
pub struct Progress {
    style: ProgressStyle,
    says_calls: bool,
    n_tasks: usize,
    n_started: usize,
    n_failed: usize,
    n_calls: usize,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// * `n_tasks`: tasks that will run.
    /// * `says_calls`: a line for each call that ends.
    pub fn new(style: ProgressStyle, n_tasks: usize, says_calls: bool) -> Self {
        Self { style, says_calls, n_tasks, n_started: 0, n_failed: 0, n_calls: 0, started: Instant::now(), bar: None }
    }

    fn say(&self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(io::stderr(), "{line}")),
            None => writeln!(io::stderr(), "{line}"),
        }
    }

    fn start_task(&mut self, name: &str, n_calls: usize) -> io::Result<()> {
        self.n_started += 1;
        (self.n_failed, self.n_calls, self.started) = (0, n_calls, Instant::now());
        let title = format!("[{}/{}] {}", self.n_started, self.n_tasks, escaped(name));
        match self.style {
            ProgressStyle::WarningsOnly => {}
            ProgressStyle::Lines => {
                self.say(&format!("{title}: {n_calls} call{}", if n_calls == 1 { "" } else { "s" }))?;
            }
            ProgressStyle::Bar => {
                let bar = ProgressBar::with_draw_target(Some(n_calls as u64), ProgressDrawTarget::stderr());
                let template = "{prefix} {wide_bar:.cyan/dim} {pos}/{len} {per_sec} eta {eta} {msg}";
                if let Ok(style) = BarStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_prefix(title);
                self.bar = Some(bar);
            }
        }
        Ok(())
    }

    fn finish_call(&mut self, component: Option<&Value>, outcome: &Outcome, figures: &Figures) -> io::Result<()> {
        let failed = outcome.failure_kind().is_some();
        self.n_failed += usize::from(failed);
        if self.says_calls {
            let component = component.map(|component| format!("{} ", escaped(&component.to_string())));
            let seconds = figures.wall_time.as_secs_f64();
            let memory = bytes_text(figures.peak_memory_bytes);
            let outcome = escaped(&outcome.describe());
            self.say(&format!("  {}{outcome} ({seconds:.3} s, {memory})", component.unwrap_or_default()))?;
        }
        if let Some(bar) = &self.bar {
            if failed {
                bar.set_message(format!("{} failed", self.n_failed));
            }
            bar.inc(1);
        }
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

impl Reporter for Progress {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Warning { message } => self.say(&format!("warning: {}", escaped(message))),
            EventKind::TaskStarted { name, n_calls, .. } => self.start_task(name, *n_calls),
            EventKind::CallFinished { component, outcome, figures, .. } => {
                self.finish_call(component.as_ref(), outcome, figures)
            }
            EventKind::TaskFinished { name, status, .. } => self.finish_task(name, *status),
            _ => Ok(()),
        }
    }
}
