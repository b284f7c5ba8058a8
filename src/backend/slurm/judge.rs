//! Judgement of jobs that ended before their calls did. All functions are pure.

use std::time::Duration;

use super::parse::{JobRow, JobState, job_state};
use super::script::build_time;

/// Exit code of a worker that refused its calls: another version, or another module.
pub const EXIT_REFUSED: u8 = 2;
/// Exit code of a worker whose calls another copy or another round runs.
pub const EXIT_SUPERSEDED: u8 = 5;
/// Exit codes of a shell that cannot start a program.
const EXIT_NOT_STARTED: [u32; 2] = [126, 127];
/// Signal that SLURM reports if the folder of a job is missing on its node.
const SIGNAL_NO_FOLDER: u32 = 53;

/// Reason why a job ended before its calls, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// State of the job, as SLURM names it.
    pub(super) state: String,
    /// Sentence for the user, which fits after "was lost: ".
    pub(super) message: String,
    /// True if the calls run again elsewhere.
    pub(super) retries: bool,
    /// True if the calls were refused before they started.
    pub(super) is_refused: bool,
    /// True if the node is to blame.
    pub(super) blames_node: bool,
}

/// What is known of a job that ended before its calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence<'a> {
    /// Identifier of the job.
    pub(super) job: &'a str,
    /// Last known state.
    pub(super) row: Option<&'a JobRow>,
    /// Node that the job ran on; empty if it is not known.
    pub(super) node: &'a str,
    /// End of the log of the job.
    pub(super) log: &'a str,
    /// How its worker was stopped; `None` if the worker has not reported that.
    pub(super) stopped: Option<Stopped>,
}

/// A worker that a signal has stopped. It has saved its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// For its time limit, in seconds.
    AtTimeLimit(u64),
    /// For another reason.
    Early,
}

/// Time in which results can still appear after a job has ended.
///
/// * `grace`: time for a job without a known state, or one that is reported as completed.
pub(super) fn time_for_results(row: Option<&JobRow>, grace: Duration) -> Duration {
    match row.map(|row| row.state.as_str()) {
        // Its worker was killed, so only what it had written before can appear.
        Some(
            "NODE_FAIL" | "TIMEOUT" | "OUT_OF_MEMORY" | "PREEMPTED" | "BOOT_FAIL" | "CANCELLED",
        ) => grace / 6,
        // Its worker has not started, or was killed.
        Some("FAILED") => grace / 6,
        _ => grace,
    }
}

/// Judges a job that has ended, or has left the queue, without results of all its calls.
pub(super) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let Evidence { job, node, log, .. } = *evidence;
    let job_name = if node.is_empty() {
        format!("job {job}")
    } else {
        format!("job {job} on node {node}")
    };
    let row = evidence.row.filter(|row| explains(row, evidence.stopped));
    match (row, evidence.stopped) {
        (Some(row), _) => judge_row(row, &job_name, log),
        (None, Some(stopped)) => judge_stopped(stopped, &job_name),
        (None, None) => {
            let message = format!("{job_name} left the queue without results of all its calls");
            verdict("UNKNOWN", with_log(message, log), true)
        }
    }
}

/// Returns true if a state gives the reason of the end. That of a job whose worker was stopped can
/// be one from before its end, or the exit code of the worker.
fn explains(row: &JobRow, stopped: Option<Stopped>) -> bool {
    let has_ended = job_state(&row.state) == JobState::Ended;
    stopped.is_none() || has_ended && !["FAILED", "COMPLETED"].contains(&row.state.as_str())
}

fn judge_stopped(stopped: Stopped, job_name: &str) -> Verdict {
    match stopped {
        Stopped::AtTimeLimit(time_s) => {
            let limit = build_time(time_s);
            let message = format!(
                "{job_name} was stopped before its time limit of {limit}; raise `time` of the task"
            );
            verdict("TIMEOUT", message, true)
        }
        Stopped::Early => verdict(
            "STOPPED",
            format!("{job_name} was stopped by a signal"),
            true,
        ),
    }
}

fn judge_row(row: &JobRow, job_name: &str, log: &str) -> Verdict {
    let state = row.state.as_str();
    let ended = format!("{job_name} ended with {state}");
    match state {
        "TIMEOUT" | "DEADLINE" => {
            verdict(state, format!("{ended}; raise `time` of the task"), true)
        }
        "OUT_OF_MEMORY" => verdict(state, format!("{ended}; raise `mem` of the task"), true),
        "NODE_FAIL" | "BOOT_FAIL" => Verdict {
            blames_node: true,
            ..verdict(state, ended, true)
        },
        "PREEMPTED" => verdict(state, ended, true),
        // Not only users cancel jobs: SLURM does too, after its controller has lost its state.
        "CANCELLED" => verdict(state, format!("{ended}, by a user or by SLURM"), true),
        _ => judge_exit(row, job_name, &ended, log),
    }
}

fn judge_exit(row: &JobRow, job_name: &str, ended: &str, log: &str) -> Verdict {
    let state = &row.state;
    let exit = row.exit;
    if exit.signal == SIGNAL_NO_FOLDER {
        return Verdict {
            blames_node: true,
            ..verdict(
                state,
                format!(
                    "{job_name} could not start: the work directory is not there; use a shared folder"
                ),
                true,
            )
        };
    }
    if exit.signal > 0 {
        let message = format!("{ended} (signal {})", exit.signal);
        return verdict(state, with_log(message, log), true);
    }
    if exit.code == u32::from(EXIT_REFUSED) {
        return Verdict {
            is_refused: true,
            ..verdict(
                state,
                with_log(format!("{job_name} refused its calls"), log),
                false,
            )
        };
    }
    if EXIT_NOT_STARTED.contains(&exit.code) {
        let message = format!(
            "{job_name} could not start mandelbox (exit code {}); install it in a shared folder",
            exit.code
        );
        return Verdict {
            is_refused: true,
            ..verdict(state, with_log(message, log), false)
        };
    }
    let message = match exit.code {
        0 => format!("{ended}, but results of its calls are missing"),
        code => format!("{ended} (exit code {code})"),
    };
    verdict(state, with_log(message, log), true)
}

fn verdict(state: &str, message: String, retries: bool) -> Verdict {
    Verdict {
        state: state.to_owned(),
        message,
        retries,
        is_refused: false,
        blames_node: false,
    }
}

fn with_log(message: String, log: &str) -> String {
    let lines: Vec<_> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.last() {
        Some(last) => format!("{message}: {}", last.trim_start_matches("error: ")),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::Exit;
    use super::*;

    fn row(state: &str, code: u32, signal: u32) -> JobRow {
        JobRow {
            state: state.to_owned(),
            exit: Exit { code, signal },
            ..JobRow::default()
        }
    }

    #[test]
    fn verdicts_name_node_and_reason() {
        for (state, code, signal, log, retries, expected) in [
            (
                "NODE_FAIL",
                0,
                0,
                "",
                true,
                "job 7_3 on node n2 ended with NODE_FAIL",
            ),
            (
                "TIMEOUT",
                0,
                15,
                "",
                true,
                "ended with TIMEOUT; raise `time`",
            ),
            (
                "OUT_OF_MEMORY",
                0,
                125,
                "",
                true,
                "ended with OUT_OF_MEMORY; raise `mem`",
            ),
            ("PREEMPTED", 0, 15, "", true, "ended with PREEMPTED"),
            ("CANCELLED", 0, 15, "", true, "by a user or by SLURM"),
            (
                "FAILED",
                2,
                0,
                "error: another version\n",
                false,
                "refused its calls: another version",
            ),
            (
                "FAILED",
                127,
                0,
                "sh: not found",
                false,
                "could not start mandelbox (exit code 127)",
            ),
            (
                "FAILED",
                15,
                53,
                "",
                true,
                "the work directory is not there",
            ),
            ("FAILED", 0, 9, "", true, "ended with FAILED (signal 9)"),
            (
                "FAILED",
                1,
                0,
                "error: disk full\n\n",
                true,
                "(exit code 1): disk full",
            ),
            (
                "COMPLETED",
                0,
                0,
                "",
                true,
                "results of its calls are missing",
            ),
        ] {
            let verdict = judge(&Evidence {
                job: "7_3",
                row: Some(&row(state, code, signal)),
                node: "n2",
                log,
                stopped: None,
            });
            assert!(verdict.message.contains(expected), "{}", verdict.message);
            assert_eq!(verdict.retries, retries, "{state}");
            assert!(
                verdict.message.contains("job 7_3 on node n2"),
                "{}",
                verdict.message
            );
        }
        let verdict = judge(&Evidence {
            job: "7",
            ..Evidence::default()
        });
        assert!(
            verdict.message.starts_with("job 7 left the queue"),
            "{}",
            verdict.message
        );
        assert!(verdict.retries);
    }

    /// SLURM's state counts if it gives the reason; the worker's exit code does not.
    #[test]
    fn a_worker_that_was_stopped_has_a_reason() {
        let early = Stopped::Early;
        let limit = Stopped::AtTimeLimit(150);
        for (state, stopped, expected, message) in [
            ("TIMEOUT", early, "TIMEOUT", "ended with TIMEOUT; raise"),
            ("PREEMPTED", early, "PREEMPTED", "ended with PREEMPTED"),
            ("CANCELLED", early, "CANCELLED", "by a user or by SLURM"),
            ("FAILED", early, "STOPPED", "was stopped by a signal"),
            ("RUNNING", early, "STOPPED", "was stopped by a signal"),
            (
                "FAILED",
                limit,
                "TIMEOUT",
                "its time limit of 0-00:02:30; raise",
            ),
            ("COMPLETING", limit, "TIMEOUT", "its time limit of"),
        ] {
            let verdict = judge(&Evidence {
                job: "7",
                row: Some(&row(state, 143, 0)),
                node: "n2",
                log: "stopped; the results of its calls were saved",
                stopped: Some(stopped),
            });
            assert_eq!(verdict.state, expected);
            assert!(verdict.message.contains(message), "{}", verdict.message);
            assert!(verdict.retries && !verdict.is_refused);
        }
        let verdict = judge(&Evidence {
            job: "7",
            stopped: Some(early),
            ..Evidence::default()
        });
        assert_eq!(verdict.message, "job 7 was stopped by a signal");
    }

    #[test]
    fn nodes_that_failed_are_blamed() {
        let blames = |row: JobRow| {
            let row = Some(&row);
            judge(&Evidence {
                job: "7",
                row,
                ..Evidence::default()
            })
            .blames_node
        };
        assert!(blames(row("NODE_FAIL", 0, 0)));
        assert!(blames(row("FAILED", 0, 53)));
        assert!(!blames(row("TIMEOUT", 0, 15)));
    }
}
