//! Events of a run in the spans of the program that embeds the library.

use std::io;

use tracing::{Span, error, info, warn};

use crate::event::{Event, EventKind, Reporter, Status};
use crate::trace::Shown;

/// Reporter that records the warnings and notes of a run, and the ends of the run and its tasks, in
/// the current spans. These are spans of the embedding program.
pub(crate) struct RunEvents;

impl Reporter for RunEvents {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Warning { message } => warn!("{}", Shown(message)),
            EventKind::Note { message } | EventKind::Rerun { message } => {
                info!("{}", Shown(message))
            }
            EventKind::TaskStarted { n_calls, .. } => {
                Span::current().record("n_calls", n_calls);
            }
            EventKind::TaskFinished {
                status, n_failed, ..
            } => {
                let span = Span::current();
                span.record("n_failed", n_failed)
                    .record("status", status_text(*status));
                if *status == Status::Failed {
                    error!("{n_failed} calls failed");
                }
            }
            EventKind::RunFinished { status, error } => {
                Span::current().record("status", status_text(*status));
                if let Some(error) = error {
                    error!("{error}");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Failed => "failed",
    }
}
