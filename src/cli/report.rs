//! `mandelbox report`.

use super::Answer;
use super::arguments::ReportArguments;
use super::run::absolute;
use super::status::no_run;
use crate::error::exit_code;
use crate::reporter::escape::escaped;
use crate::reporter::{ReportError, write_report};

pub(super) fn report(arguments: &ReportArguments) -> Answer {
    let work_dir = absolute(&arguments.work_dir);
    match write_report(&work_dir) {
        Ok(path) => Answer::text(format!("report: {}\n", escaped(&path.to_string_lossy())), exit_code::SUCCESS),
        Err(ReportError::Log { error, .. }) => Answer::text(no_run(&work_dir, &error), exit_code::WRONG_INPUT),
        Err(err @ ReportError::Empty(_)) => {
            Answer::text(format!("error: {}\n", escaped(&err.to_string())), exit_code::WRONG_INPUT)
        }
        Err(err @ ReportError::Write(_)) => {
            Answer::text(format!("error: {}\n", escaped(&err.to_string())), exit_code::HOST_FAILED)
        }
    }
}
