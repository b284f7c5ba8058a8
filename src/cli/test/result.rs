//! Result of a case, as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Answer;
use crate::cli::check::problem_facts;
use crate::json::build_json;
use crate::problem::Problems;
use crate::text::escaped;

/// Status of a case that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaseStatus {
    Passed,
    Failed,
    /// Its actual results became its expected ones.
    Updated,
}

/// Difference between the actual and the expected results of a case.
pub(super) enum Difference {
    /// The case as a whole, such as a call that failed.
    Case(String),
    /// A location in the output of the call.
    CallOutput(String),
    /// A file of the output folder.
    File { name: String, text: String },
}

/// Result of a case that was run.
pub(super) struct CaseResult {
    pub(super) name: String,
    /// Name of the file with the expected output of its call.
    pub(super) call_output: &'static str,
    pub(super) status: CaseStatus,
    /// Duration of its call.
    pub(super) time: Duration,
    /// Differences of a failed case.
    pub(super) differences: Vec<Difference>,
    /// Changes of an updated case, one line each.
    pub(super) changes: Vec<String>,
}

impl CaseResult {
    pub(super) fn text(&self) -> String {
        let word = match self.status {
            CaseStatus::Passed => "ok",
            CaseStatus::Failed => "FAILED",
            CaseStatus::Updated => "updated",
        };
        let milliseconds = self.time.as_secs_f64() * 1e3;
        let mut text = format!("{word:8} {} ({milliseconds:.0} ms)\n", escaped(&self.name));
        // Writing to a string cannot fail.
        for change in &self.changes {
            let _ = writeln!(text, "      {change}");
        }
        let mut in_output = false;
        for difference in &self.differences {
            let paragraph = match difference {
                Difference::Case(text) => text.clone(),
                Difference::CallOutput(line) if in_output => format!("  {line}"),
                Difference::CallOutput(line) => format!("{}\n  {line}", self.call_output),
                Difference::File { name, text } => format!("{name} {text}"),
            };
            in_output = matches!(difference, Difference::CallOutput(_));
            for line in paragraph.lines() {
                let _ = writeln!(text, "         {line}");
            }
        }
        text
    }

    fn facts(&self) -> Value {
        let difference = |difference: &Difference| match difference {
            Difference::Case(text) => json!({ "location": "case", "message": text }),
            Difference::CallOutput(line) => {
                json!({ "location": self.call_output, "message": line })
            }
            Difference::File { name, text } => json!({ "location": name, "message": text }),
        };
        json!({
            "name": self.name,
            "status": match self.status {
                CaseStatus::Passed => "passed",
                CaseStatus::Failed => "failed",
                CaseStatus::Updated => "updated",
            },
            "wall_time_s": self.time.as_secs_f64(),
            "differences": self.differences.iter().map(difference).collect::<Vec<_>>(),
            "changes": self.changes,
        })
    }
}

/// Adds the results to an answer, as one JSON object.
///
/// * `not_run`: names of the cases that were not run because of a signal.
/// * `time`: duration of all cases together.
pub(super) fn add_json(
    answer: &mut Answer,
    package: &Path,
    results: &[CaseResult],
    not_run: &[&str],
    problems: &Problems,
    time: Duration,
) {
    let not_run = not_run
        .iter()
        .map(|name| json!({ "name": name, "status": "not_run" }));
    let facts = json!({
        "package": package.to_string_lossy(),
        "ok": answer.exit_code == 0,
        "problems": problem_facts(problems.iter()),
        "warnings": problem_facts(problems.warnings()),
        "n_passed": results.iter().filter(|result| result.status != CaseStatus::Failed).count(),
        "n_failed": results.iter().filter(|result| result.status == CaseStatus::Failed).count(),
        "wall_time_s": time.as_secs_f64(),
        "cases": results.iter().map(CaseResult::facts).chain(not_run).collect::<Vec<_>>(),
    });
    answer.stdout = build_json(&facts, 2);
    answer.stdout.push(b'\n');
}
