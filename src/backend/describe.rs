//! Asks a typed task what it is, before the run: a call of `describe`, with no folder and little of
//! everything.

use super::node::RunGuest;
use crate::model::{CancelToken, Limits};
use crate::sandbox::{Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation};
use crate::text::bytes_text;

/// The task's answer, or a sentence for the user.
///
/// * `sha256`: of a module that was prepared.
/// * `limits`: [`Limits::for_description`].
/// * `name`: the module's own name, as it sees it.
pub(super) fn ask(
    worker: &mut dyn RunGuest,
    sha256: &str,
    name: &str,
    limits: &Limits,
) -> Result<String, String> {
    let stderr = GuestOutput::new(None, 0);
    let (end, _) = worker.run(&Invocation {
        module_sha256: sha256,
        entry: Entry::Describe,
        argv: &[name.to_owned()],
        env: &[],
        grants: &[],
        stdin: GuestInput::Empty,
        stdout: GuestOutput::new(None, 0),
        stderr: stderr.clone(),
        warnings: GuestWarnings::dropped(),
        limits,
        seed: 0,
        cancel: &CancelToken::new(),
    });
    let why = match end {
        GuestEnd::Returned(text) => return Ok(text.unwrap_or_default()),
        GuestEnd::ReturnedTooMuch(text) | GuestEnd::Failed(text) => text,
        GuestEnd::Exited(code) => format!("it exited with code {code}"),
        GuestEnd::Trapped(text) => format!("it trapped: {text}"),
        GuestEnd::TimedOut(limit) => format!("it took longer than {} s", limit.as_secs_f64()),
        GuestEnd::MemoryExceeded { limit_bytes, .. } => {
            format!("it needs more memory than {}", bytes_text(limit_bytes))
        }
        GuestEnd::Cancelled | GuestEnd::OutputFailed => "it was ended".to_owned(),
        GuestEnd::HostFailed(text) | GuestEnd::Lost(text) => text,
    };
    let tail = stderr.tail();
    let last_line = tail
        .trim_end()
        .lines()
        .next_back()
        .map(|line| format!(" (the last line on stderr: {line})"));
    Err(format!(
        "the task does not describe itself: {why}{}",
        last_line.unwrap_or_default()
    ))
}
