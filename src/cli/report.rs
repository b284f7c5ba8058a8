//! `mandelbox report`.

use std::path::Path;

use super::Answer;
use super::arguments::ReportArguments;
use super::documents::absolute;
use super::status::no_run;
use crate::report::{ReportError, write_report, write_ro_crate};
use crate::run::exit_code;
use crate::text::escaped;
use crate::workdir::{WorkDir, WorkDirError};

pub(super) fn report(arguments: &ReportArguments) -> Answer {
    let work_dir = absolute(&arguments.work_dir);
    // The crate contains the page, so write it first.
    let report = match write_report(&work_dir) {
        Ok(path) => format!("report: {}\n", escaped(&path.to_string_lossy())),
        Err(err) => return failure(&work_dir, err, String::new()),
    };
    if !arguments.ro_crate {
        return Answer::text(report, exit_code::SUCCESS);
    }
    // A crate describes a run that has ended, so refuse one that holds the lock.
    if let Some(in_use @ WorkDirError::InUse { .. }) = WorkDir::obstacle(&work_dir) {
        let text = format!("{report}error: {}\n", escaped(&in_use.to_string()));
        return Answer::text(text, exit_code::WRONG_INPUT);
    }
    match write_ro_crate(&work_dir, arguments.license.as_deref()) {
        Ok(path) => Answer::text(
            format!("{report}RO-Crate: {}\n", escaped(&path.to_string_lossy())),
            exit_code::SUCCESS,
        ),
        Err(err) => failure(&work_dir, err, report),
    }
}

/// Returns the answer for a report that could not be written.
///
/// * `report`: text about the files that were written before.
fn failure(work_dir: &Path, err: ReportError, report: String) -> Answer {
    let exit_code = match &err {
        ReportError::Log { .. } | ReportError::Empty(_) => exit_code::WRONG_INPUT,
        ReportError::Write(_) => exit_code::HOST_FAILED,
    };
    let text = match err {
        ReportError::Log { error, .. } => no_run(work_dir, &error),
        err => format!("error: {}\n", escaped(&err.to_string())),
    };
    Answer::text(report + &text, exit_code)
}
