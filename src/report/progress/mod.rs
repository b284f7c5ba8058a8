//! Progress for a person, on stderr.

mod pace;
mod texts;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stderr::Weight;
use super::terminal::{columns, draw, print};
use crate::clock::Ticker;
use crate::event::{Event, EventKind, Reporter, Status};
use crate::model::{CallRef, LogLevel, Outcome, Usage};
use crate::text::{bytes_text, escaped};
use texts::Task;

/// Style of the progress display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyle {
    /// Bars for the workflow, the running task and calls that report their progress, redrawn in
    /// place.
    Bar,
    /// A line at the start and the end of each task, and a few while it runs.
    Lines,
    /// Warnings only.
    WarningsOnly,
}

/// Time between two redraws, even without events.
const TICK: Duration = Duration::from_millis(200);
/// Minimum time between two redraws while calls end.
const MIN_REDRAW: Duration = Duration::from_millis(50);

/// Reporter that shows the running task, how many of its calls have ended and failed, and the
/// messages of typed tasks.
pub struct Progress {
    shown: Arc<Mutex<Shown>>,
    ticks: bool,
    ticker: Option<Ticker>,
}

impl Progress {
    /// Creates a reporter.
    ///
    /// * `n_tasks`: number of tasks that will run.
    /// * `shows_calls`: true to print a line for each call that ends.
    pub fn new(style: ProgressStyle, n_tasks: usize, shows_calls: bool) -> Self {
        let now = Instant::now();
        let shown = Shown {
            style,
            shows_calls,
            n_tasks,
            n_started: 0,
            started: now,
            task: None,
            next_line: now,
            drawn: now,
        };
        Self {
            shown: Arc::new(Mutex::new(shown)),
            ticks: style != ProgressStyle::WarningsOnly,
            ticker: None,
        }
    }
}

impl Reporter for Progress {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        if self.ticker.is_none()
            && self.ticks
            && matches!(event.kind, EventKind::TaskStarted { .. })
        {
            // Without the ticker, lines are printed only when events arrive.
            self.ticker = start_ticker(&self.shown).ok();
        }
        lock(&self.shown).report(&event.kind)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ticker = None;
        if lock(&self.shown).style == ProgressStyle::Bar {
            // A terminal that accepts nothing more need not be cleared.
            let _ = draw(Vec::new());
        }
    }
}

/// State that the run's thread and the ticker share.
struct Shown {
    style: ProgressStyle,
    shows_calls: bool,
    n_tasks: usize,
    n_started: usize,
    /// Time at which the first task started.
    started: Instant,
    task: Option<Task>,
    /// Time at which the next line about the running task is due.
    next_line: Instant,
    /// Time at which the bars were last drawn.
    drawn: Instant,
}

impl Shown {
    fn report(&mut self, kind: &EventKind) -> io::Result<()> {
        match kind {
            EventKind::Warning { message } => {
                print_important(&format!("warning: {}", escaped(message)))
            }
            EventKind::Rerun { message } if self.style != ProgressStyle::WarningsOnly => {
                print_important(&format!("rerun: {}", escaped(message)))
            }
            EventKind::TaskStarted {
                batch,
                name,
                n_calls,
                n_reused,
                ..
            } => self.start_batch(*batch, name, *n_calls, *n_reused),
            EventKind::CallLogged {
                call,
                level,
                message,
            } => self.log(call, *level, message),
            EventKind::CallProgress {
                call,
                permille,
                message,
            } => self.progress(call, *permille, message),
            EventKind::CallFinished {
                call,
                outcome,
                retry_in_s: Some(seconds),
                ..
            } => self.retry_call(call, outcome, *seconds),
            EventKind::CallFinished {
                call,
                outcome,
                usage,
                ..
            } => self.finish_call(call, outcome, usage),
            EventKind::JobsCounted {
                n_queued,
                n_running,
                n_ended,
                reason,
                ..
            } => self.count_jobs([*n_queued, *n_running, *n_ended], reason.as_deref()),
            EventKind::TaskFinished { name, status, .. } => self.finish_task(name, *status),
            _ => Ok(()),
        }
    }

    fn start_batch(
        &mut self,
        batch: u32,
        name: &str,
        n_calls: usize,
        n_reused: usize,
    ) -> io::Result<()> {
        let now = Instant::now();
        if self.n_started == 0 {
            self.started = now;
        }
        self.n_started += usize::from(batch == 0);
        let task = Task::new(
            (self.n_started, self.n_tasks),
            escaped(name),
            (n_calls, n_reused),
            now,
            self.started,
        );
        if self.style == ProgressStyle::Lines {
            let reused = if n_reused > 0 {
                format!(", {n_reused} reused")
            } else {
                String::new()
            };
            print_important(&format!(
                "{}: {n_calls} call{}{reused}",
                task.title(),
                if n_calls == 1 { "" } else { "s" }
            ))?;
        }
        self.next_line = now + line_interval(Duration::ZERO);
        self.task = Some(task);
        self.draw(now)
    }

    /// Prints the numbers of jobs of a cluster that wait, run and have ended.
    fn count_jobs(&mut self, counts: [usize; 3], reason: Option<&str>) -> io::Result<()> {
        let Some(task) = self
            .task
            .as_ref()
            .filter(|_| self.style == ProgressStyle::Lines)
        else {
            return Ok(());
        };
        let [n_queued, n_running, n_ended] = counts;
        let reason = reason.filter(|_| n_queued > 0);
        let reason = reason.map(|reason| format!(" ({})", escaped(reason)));
        print_line(&format!(
            "{}: jobs: {n_queued} queued{}, {n_running} running, {n_ended} ended",
            task.title(),
            reason.unwrap_or_default()
        ))
    }

    /// Prints what is due by now.
    fn tick(&mut self, now: Instant) -> io::Result<()> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        task.pace.note(now, task.done());
        if self.style == ProgressStyle::Lines && now >= self.next_line {
            self.next_line = now + line_interval(task.pace.elapsed(now));
            return print_line(&task.line(now));
        }
        self.draw(now)
    }

    fn draw(&mut self, now: Instant) -> io::Result<()> {
        self.drawn = now;
        match (&self.task, self.style) {
            (Some(task), ProgressStyle::Bar) => draw(task.frame(now, columns())),
            _ => Ok(()),
        }
    }

    /// Redraws the bars, unless they were drawn a moment ago.
    fn redraw(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.style == ProgressStyle::Bar && now.duration_since(self.drawn) >= MIN_REDRAW {
            return self.tick(now);
        }
        Ok(())
    }

    fn progress(&mut self, call: &CallRef, permille: u16, message: &str) -> io::Result<()> {
        let message = escaped(message);
        if let Some(task) = &mut self.task {
            let text = format!("{}{message}", name(call));
            task.progress(call.call_index, permille, text.trim_end().to_owned());
        }
        if self.shows_calls {
            print_line(format!("  {}{} % {message}", prefix(call), permille / 10).trim_end())?;
        }
        self.redraw()
    }

    fn log(&self, call: &CallRef, level: LogLevel, message: &str) -> io::Result<()> {
        let name = level.name();
        if self.shows_calls || level >= LogLevel::Warn {
            return print_line(&format!("  {}{name}: {}", prefix(call), escaped(message)));
        }
        Ok(())
    }

    fn retry_call(&mut self, call: &CallRef, outcome: &Outcome, seconds: f64) -> io::Result<()> {
        if let Some(task) = &mut self.task {
            task.end_progress(call.call_index);
        }
        print_line(&format!(
            "  {}{}; retry in {seconds} s",
            prefix(call),
            escaped(&outcome.describe())
        ))
    }

    fn finish_call(&mut self, call: &CallRef, outcome: &Outcome, usage: &Usage) -> io::Result<()> {
        if self.shows_calls {
            let seconds = usage.wall_time.as_secs_f64();
            let memory = bytes_text(usage.peak_memory_bytes);
            let outcome = escaped(&outcome.describe());
            print_line(&format!(
                "  {}{outcome} ({seconds:.3} s, {memory})",
                prefix(call)
            ))?;
        }
        if let Some(task) = &mut self.task {
            task.finish_call(call.call_index, outcome.failure_kind().is_some());
        }
        self.redraw()
    }

    fn finish_task(&mut self, name: &str, status: Status) -> io::Result<()> {
        let Some(task) = self.task.take() else {
            return Ok(());
        };
        if self.style == ProgressStyle::WarningsOnly {
            return Ok(());
        }
        if self.style == ProgressStyle::Bar {
            draw(Vec::new())?;
        }
        let seconds = task.pace.elapsed(Instant::now()).as_secs_f64();
        let title = format!("[{}/{}] {}", self.n_started, self.n_tasks, escaped(name));
        match status {
            Status::Done => print_important(&format!("{title}: finished in {seconds:.2} s")),
            Status::Failed => {
                let (n_failed, n_calls) = (task.n_failed, task.n_calls);
                print_important(&format!(
                    "{title}: failed after {seconds:.2} s ({n_failed} of {n_calls} calls failed)"
                ))
            }
        }
    }
}

/// Starts the ticker, which draws what changes with time alone: the elapsed times, and the pace
/// while no call ends.
fn start_ticker(shown: &Arc<Mutex<Shown>>) -> io::Result<Ticker> {
    let shown = Arc::clone(shown);
    Ticker::start("mandelbox-progress", TICK, move || {
        // The thread that reports events gets the same error.
        let _ = lock(&shown).tick(Instant::now());
    })
}

/// Returns the time until the next line of a task that has run for this long: about 60 lines in an
/// hour, and fewer later.
fn line_interval(elapsed: Duration) -> Duration {
    Duration::from_secs(match elapsed.as_secs() {
        0..50 => 10,
        50..3600 => 60,
        _ => 600,
    })
}

/// Prints a line that is one of many.
fn print_line(line: &str) -> io::Result<()> {
    print(&format!("{line}\n"), Weight::Usual)
}

fn print_important(line: &str) -> io::Result<()> {
    print(&format!("{line}\n"), Weight::Important)
}

/// Returns the item's name, as the start of a line about its call.
fn prefix(call: &CallRef) -> String {
    call.item
        .as_ref()
        .map(|item| format!("{} ", escaped(&item.to_string())))
        .unwrap_or_default()
}

/// Returns [`prefix`], with a string without its quotes.
fn name(call: &CallRef) -> String {
    match call.item.as_ref().and_then(|item| item.as_str()) {
        Some(text) => format!("{} ", escaped(text)),
        None => prefix(call),
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_few_lines_however_long_a_task_takes() {
        let hours = |hours: u64| {
            let (mut elapsed, mut n_lines) = (Duration::ZERO, 0);
            while elapsed < Duration::from_secs(hours * 3600) {
                elapsed += line_interval(elapsed);
                n_lines += 1;
            }
            n_lines
        };
        assert_eq!((hours(1), hours(24)), (65, 65 + 23 * 6));
    }
}
