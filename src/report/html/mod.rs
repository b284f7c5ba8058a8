//! `report.html`: the report of a run on one page, created from its event log.
//!
//! The page is self-contained, and its policy forbids it to load anything. Tables and charts are
//! created here; only the timeline is drawn by a script, since it can have very many calls.

mod calls;
mod charts;
mod markup;
mod parameters;
mod sections;
mod timeline;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::workflow_tasks::read_workflow_tasks;
use crate::event::{
    Event, EventKind, EventLog, ReadEventsError, Reporter, RunSummary, visit_events,
};
use crate::folder::write_rebuildable;
use crate::model::HostError;
use crate::workdir::layout::REPORT_FILE;
use calls::CallTable;
use markup::{base64, fill, html, script_json};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("timeline.js");

/// Reason why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The event log cannot be used.
    #[error("{} {error}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The reason.
        error: ReadEventsError,
    },
    /// The event log has no events yet.
    #[error("{} contains no event yet", .0.display())]
    Empty(PathBuf),
    /// The page cannot be written.
    #[error("{}", .0.chain())]
    Write(HostError),
}

/// Writes `report.html` to the work directory of a run, finished or not, from its event log.
/// Replaces an existing report. Returns the path of the report.
///
/// # Errors
/// [`ReportError`]: the event log does not exist or is damaged, or the page cannot be written.
pub fn write_report(work_dir: &Path) -> Result<PathBuf, ReportError> {
    let log = work_dir.join(EventLog::NAME);
    let mut summary = RunSummary::default();
    let mut calls = CallTable::default();
    let read = visit_events(&log, |event| {
        summary.add(&event);
        calls.add(&event);
    });
    let end = read.map_err(|error| ReportError::Log {
        path: log.clone(),
        error,
    })?;
    summary.note_damage(&end);
    if summary.run.is_none() {
        return Err(ReportError::Empty(log));
    }
    calls.close_all(summary.last_event.as_microsecond());
    calls.retain_tasks(&summary.tasks);
    let path = work_dir.join(REPORT_FILE);
    write_rebuildable(&path, page(&summary, &calls, work_dir).as_bytes())
        .map_err(ReportError::Write)?;
    Ok(path)
}

/// Reporter that writes `report.html` at the end of a run. It collects the events as they arrive,
/// so it need not read the log again.
///
/// A run with too many events gets no page automatically, and a page that cannot be written does
/// not fail the run. In both cases [`write_report`] can create the page later.
pub struct HtmlReport {
    work_dir: PathBuf,
    summary: RunSummary,
    calls: CallTable,
}

impl HtmlReport {
    /// Creates a reporter for a work directory.
    pub fn new(work_dir: &Path) -> Self {
        Self {
            work_dir: work_dir.to_owned(),
            summary: RunSummary::default(),
            calls: CallTable::default(),
        }
    }
}

impl Reporter for HtmlReport {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        /// Maximum number of events of a run whose page a browser opens without delay.
        const MAX_EVENTS: u64 = 250_000;
        if event.seq >= MAX_EVENTS {
            (self.summary, self.calls) = (RunSummary::default(), CallTable::default());
            return Ok(());
        }
        if matches!(event.kind, EventKind::RunResumed(_)) {
            // Earlier events are only in the log.
            let read = visit_events(&self.work_dir.join(EventLog::NAME), |earlier| {
                if earlier.seq < event.seq {
                    self.summary.add(&earlier);
                    self.calls.add(&earlier);
                }
            });
            read.map_err(io::Error::other)?;
        }
        self.summary.add(event);
        self.calls.add(event);
        if matches!(event.kind, EventKind::RunFinished { .. }) {
            self.calls
                .close_all(self.summary.last_event.as_microsecond());
            self.calls.retain_tasks(&self.summary.tasks);
            let page = page(&self.summary, &self.calls, &self.work_dir);
            // The user sees that the page is missing. An error returned here would become the last
            // event of the run.
            let _ = write_rebuildable(&self.work_dir.join(REPORT_FILE), page.as_bytes());
        }
        Ok(())
    }
}

fn page(summary: &RunSummary, calls: &CallTable, work_dir: &Path) -> String {
    let workflow = summary.run.as_deref().map_or("", |run| &run.workflow);
    let (state, state_class) = sections::state(summary);
    let parts = [
        ("script_digest", base64(&Sha256::digest(SCRIPT))),
        ("title", format!("{} - {}", html(workflow), html(&state))),
        (
            "style",
            format!("{STYLE}{}", timeline::further_colors(summary.tasks.len())),
        ),
        ("workflow", html(workflow)),
        ("state", html(&state)),
        ("state_class", state_class.to_owned()),
        ("subtitle", sections::subtitle(summary)),
        ("cards", sections::cards(summary, calls)),
        ("graph", sections::graph(summary)),
        ("failed", sections::failed(summary, work_dir)),
        ("timeline_text", timeline::timeline_text(calls)),
        ("legend", timeline::legend(summary, calls)),
        ("distributions", sections::distributions(summary, calls)),
        ("slowest", sections::slowest(summary, calls)),
        ("warnings", sections::warnings(summary)),
        (
            "parameters",
            parameters::parameters(summary, &read_workflow_tasks(work_dir, summary)),
        ),
        ("facts", sections::facts(summary, work_dir)),
        (
            "timeline_data",
            script_json(&timeline::timeline_data(summary, calls)),
        ),
        ("script", SCRIPT.to_owned()),
    ];
    fill(TEMPLATE, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Status;

    #[test]
    fn a_run_with_too_many_events_gets_no_page_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join(REPORT_FILE);
        for (seq, is_made) in [(250_000, false), (249_999, true)] {
            let kind = EventKind::RunFinished {
                status: Status::Done,
                error: None,
            };
            let event = Event {
                seq,
                time: jiff::Timestamp::UNIX_EPOCH,
                kind,
            };
            HtmlReport::new(folder.path())
                .report(&event)
                .expect("accepted");
            assert_eq!(page.exists(), is_made);
        }
    }
}
