//! Spans and events of the crate `tracing`. The library installs no subscriber of its own.
//!
//! A run is a tree of spans. The outermost one is `process_workflow`, or `command` in the program.
//! It contains `compile`, `describe`, `prepare` and `run`. A `run` contains `task`, and a `task`
//! contains `call`. A field that is expensive to compute is only computed if a subscriber wants its
//! span.

use std::fmt::{self, Write as _};
use std::path::Path;

use tracing::field::{Empty, display};
use tracing::{Span, error, info, info_span, warn};

use crate::json::Value;
use crate::model::{CallRef, Ended, GuestReport, LogLevel, ModuleFile};
use crate::text::escaped;

/// Maximum size in bytes of an item or a message in a field; the rest is cut.
const MAX_TEXT_BYTES: usize = 256;
/// Target of the log lines of guests.
const GUEST: &str = "mandelbox::guest";

/// Creates the span of the library's main function.
pub(crate) fn process_workflow(workflow: &str) -> Span {
    info_span!("process_workflow", workflow = display(Shown(workflow)))
}

/// Creates the span of a command of the program.
#[cfg(feature = "otel")]
pub(crate) fn command(name: &'static str) -> Span {
    info_span!("command", name, version = env!("CARGO_PKG_VERSION"))
}

/// Creates the span of all checks before a run.
pub(crate) fn prepare(workflow: &str) -> Span {
    info_span!("prepare", workflow = display(Shown(workflow)))
}

/// Creates the span of preparing a module that this sandbox has not prepared yet. [`compiled`]
/// records how it was prepared.
pub(crate) fn compile(module: &ModuleFile) -> Span {
    let path = || display(module.path.display());
    info_span!(
        "compile",
        module = path(),
        digest = module.sha256,
        from_cache = Empty
    )
}

/// Records how the module of the current span was prepared.
pub(crate) fn compiled<T>(from_cache: bool, result: &Result<T, String>) {
    Span::current().record("from_cache", from_cache);
    if let Err(text) = result {
        error!("{}", Shown(text));
    }
}

/// Creates the span of asking a typed task for its description.
pub(crate) fn describe(module: &ModuleFile) -> Span {
    info_span!(
        "describe",
        module = display(module.path.display()),
        digest = module.sha256
    )
}

/// Creates the span of a run. `RunEvents` records its end, and the end of its tasks.
pub(crate) fn run(workflow: &str, work_dir: &Path) -> Span {
    info_span!(
        "run",
        workflow = display(Shown(workflow)),
        work_dir = display(work_dir.display()),
        status = Empty
    )
}

/// Creates the span of a workflow task.
pub(crate) fn task(order: u64, name: &str) -> Span {
    info_span!(
        "task",
        order,
        name = display(Shown(name)),
        n_calls = Empty,
        n_failed = Empty,
        status = Empty
    )
}

/// Creates the span of a call, from its start to its end on this thread.
///
/// * `task`: span of its task.
pub(crate) fn call(task: &Span, call: impl FnOnce() -> CallRef) -> Span {
    if task.is_disabled() {
        return Span::none();
    }
    let CallRef {
        task: order,
        batch: _,
        call_index,
        item,
        attempt,
    } = call();
    info_span!(
        parent: task,
        "call",
        task = order,
        call_index,
        item = item.as_ref().map(|item| display(Item(item))),
        attempt,
        outcome = Empty,
        wall_time_s = Empty,
        peak_memory_bytes = Empty,
        stdout_bytes = Empty,
        stderr_bytes = Empty,
    )
}

/// Records how a call ended.
pub(crate) fn call_ended(call: &Span, ended: &Ended) {
    if call.is_disabled() {
        return;
    }
    let Ended { outcome, usage, .. } = ended;
    call.record("outcome", outcome.name());
    call.record("wall_time_s", usage.wall_time.as_secs_f64());
    call.record("peak_memory_bytes", usage.peak_memory_bytes);
    call.record("stdout_bytes", usage.stdout_bytes);
    call.record("stderr_bytes", usage.stderr_bytes);
    if outcome.failure_kind().is_some() {
        error!(parent: call, "{}", Shown(&outcome.describe()));
    }
}

/// Runs a part of a task on another thread, with the subscriber and the span of the task.
pub(crate) fn within<T>(task: &Span, part: impl FnOnce() -> T) -> T {
    match task.with_subscriber(|(_, subscriber)| subscriber.clone()) {
        None => part(),
        Some(subscriber) => tracing::dispatcher::with_default(&subscriber, || task.in_scope(part)),
    }
}

/// Emits a log line of a guest in the current span, which is that of its call. Progress is not an
/// event.
pub(crate) fn guest_report(report: &GuestReport) {
    let GuestReport::Log { level, message } = report else {
        return;
    };
    match level {
        LogLevel::Trace => tracing::trace!(target: GUEST, "{}", Shown(message)),
        LogLevel::Debug => tracing::debug!(target: GUEST, "{}", Shown(message)),
        LogLevel::Info => info!(target: GUEST, "{}", Shown(message)),
        LogLevel::Warn => warn!(target: GUEST, "{}", Shown(message)),
        LogLevel::Error => error!(target: GUEST, "{}", Shown(message)),
    }
}

/// Untrusted text from a guest or a document, shortened and escaped.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(MAX_TEXT_BYTES);
        f.write_str(&escaped(&self.0[..end]))?;
        f.write_str(if end < self.0.len() { " [cut]" } else { "" })
    }
}

/// Item displayed like [`Shown`]: a string without its quotes, anything else as JSON.
struct Item<'a>(&'a Value);

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Value::String(text) = self.0 {
            return Shown(text).fmt(f);
        }
        let mut start = Start(String::new());
        // This fails once the text is long enough.
        let _ = write!(start, "{}", self.0);
        Shown(&start.0).fmt(f)
    }
}

/// Writer that accepts text until it is longer than a field may be.
struct Start(String);

impl fmt::Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.0.len() > MAX_TEXT_BYTES {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_in_fields_are_short_and_safe() {
        assert_eq!(Item(&json!("B/03\u{1b}[2J")).to_string(), "B/03\\u{1b}[2J");
        assert_eq!(
            Item(&json!({ "well": "B03", "field": 1 })).to_string(),
            r#"{"well":"B03","field":1}"#
        );
        assert_eq!(
            Item(&json!("é".repeat(200))).to_string(),
            format!("{} [cut]", "é".repeat(128))
        );
        let long = Item(&json!(vec![1; 1_000_000])).to_string();
        assert!(
            long.starts_with("[1,1,") && long.ends_with(" [cut]") && long.len() < 300,
            "{long}"
        );
    }
}
