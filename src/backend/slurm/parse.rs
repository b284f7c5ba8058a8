//! Parsers of the output of SLURM's commands. All are pure functions of text.
//!
//! Sites wrap the commands, so lines that are not understood are skipped.

/// Format of [`parse_squeue`], for `squeue -O`. The widths are unlimited.
pub(super) const SQUEUE_FORMAT: &str = "ArrayJobID:|,ArrayTaskID:|,JobID:|,State:|,exit_code:|,\
                                        Reason:|,RestartCnt:|,NodeList:|,Name:|";
/// Fields of [`parse_sacct`], for `sacct -P -o`.
pub(super) const SACCT_FORMAT: &str = "JobID,State,ExitCode,NodeList";

/// State of a job, as far as the backend distinguishes states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    /// It waits in the queue.
    Pending,
    /// It runs, or is being ended, or is in a state that this version does not know.
    Active,
    /// It has ended.
    Ended,
}

/// States in which a job has ended. A state that is not listed has not ended.
const ENDED: [&str; 11] = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "SPECIAL_EXIT",
    "TIMEOUT",
    "REVOKED",
];

/// Classifies the name of a state.
pub(super) fn job_state(name: &str) -> JobState {
    if name == "PENDING" {
        JobState::Pending
    } else if ENDED.contains(&name) {
        JobState::Ended
    } else {
        JobState::Active
    }
}

/// One job, or one element of a job array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobRow {
    /// Identifier of the job, or of the array.
    pub(super) job_id: u64,
    /// Index of the element; `None` for a job without an array.
    pub(super) element: Option<u64>,
    /// Name of the state.
    pub(super) state: String,
    /// Exit code, and signal that ended the job.
    pub(super) exit: Exit,
    /// Reason of the state, such as `Resources`; empty if there is none.
    pub(super) reason: String,
    /// Number of times that SLURM has requeued the job.
    pub(super) restarts: u64,
    /// Node that the job runs on; empty if it has none.
    pub(super) node: String,
    /// Name of the job; empty in the output of `sacct`.
    pub(super) name: String,
}

/// Exit code of a job, and the signal that ended it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    /// Exit code, 0 to 255.
    pub(super) code: u32,
    /// Number of the signal; 0: none.
    pub(super) signal: u32,
}

impl Exit {
    /// Takes the parts of a wait status.
    fn of_wait_status(status: u32) -> Self {
        Self {
            code: status >> 8 & 0xff,
            signal: status & 0x7f,
        }
    }

    /// Parses `CODE:SIGNAL`, as `sacct` prints it.
    fn of_pair(text: &str) -> Self {
        let (code, signal) = text.split_once(':').unwrap_or((text, "0"));
        Self {
            code: code.parse().unwrap_or_default(),
            signal: signal.parse().unwrap_or_default(),
        }
    }
}

/// Reads the identifier that `sbatch --parsable` prints: `ID` or `ID;CLUSTER`, on the last line
/// that has this form.
pub(super) fn parse_sbatch(text: &str) -> Option<u64> {
    let id = |line: &str| line.trim().split(';').next()?.parse().ok();
    text.lines().rev().find_map(id)
}

/// Reads the output of `squeue -h -r -t all -O` with [`SQUEUE_FORMAT`].
pub(super) fn parse_squeue(text: &str) -> Vec<JobRow> {
    text.lines().filter_map(squeue_row).collect()
}

fn squeue_row(line: &str) -> Option<JobRow> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [
        array_id,
        element,
        job_id,
        state,
        exit,
        reason,
        restarts,
        node,
        name,
        ..,
    ] = fields[..]
    else {
        return None;
    };
    let own_id = job_id.parse().ok();
    // `squeue` prints the number; a wrapper can print the form of `sacct`.
    let exit = match exit.parse() {
        Ok(status) => Exit::of_wait_status(status),
        Err(_) => Exit::of_pair(exit),
    };
    let reason = match reason {
        "None" | "N/A" | "(null)" => "",
        reason => reason,
    };
    Some(JobRow {
        job_id: array_id.parse().ok().or(own_id)?,
        element: element.parse().ok(),
        state: state.to_owned(),
        exit,
        reason: reason.to_owned(),
        restarts: restarts.parse().unwrap_or_default(),
        node: node_name(node),
        name: name.to_owned(),
    })
}

/// Reads the output of `sacct -n -P -X` with [`SACCT_FORMAT`].
pub(super) fn parse_sacct(text: &str) -> Vec<JobRow> {
    text.lines().filter_map(sacct_row).collect()
}

fn sacct_row(line: &str) -> Option<JobRow> {
    let mut fields = line.split('|').map(str::trim);
    let (id, state) = (fields.next()?, fields.next()?);
    let (exit, node) = (fields.next()?, fields.next()?);
    let (job_id, element) = match id.split_once('_') {
        Some((job_id, element)) => (job_id, element.parse().ok()),
        None => (id, None),
    };
    Some(JobRow {
        job_id: job_id.parse().ok()?,
        element,
        // `CANCELLED by 1000`
        state: state.split(' ').next()?.to_owned(),
        exit: Exit::of_pair(exit),
        node: node_name(node),
        ..JobRow::default()
    })
}

fn node_name(text: &str) -> String {
    match text {
        "" | "None assigned" | "(null)" | "N/A" => String::new(),
        node => node.to_owned(),
    }
}

/// Facts about the cluster that submission depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterFacts {
    /// Version of SLURM, such as `22.05.8`.
    pub(super) version: String,
    /// Name of the cluster.
    pub(super) cluster: String,
    /// One more than the largest index of an array.
    pub(super) max_array_size: u64,
}

/// SLURM's default of `MaxArraySize`.
const DEFAULT_MAX_ARRAY_SIZE: u64 = 1001;

/// Reads the output of `scontrol show config`.
pub(super) fn parse_config(text: &str) -> ClusterFacts {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    let max_array_size = value("MaxArraySize").and_then(|value| value.parse().ok());
    ClusterFacts {
        version: value("SLURM_VERSION").unwrap_or("unknown").to_owned(),
        cluster: value("ClusterName").unwrap_or("unknown").to_owned(),
        max_array_size: max_array_size.unwrap_or(DEFAULT_MAX_ARRAY_SIZE),
    }
}

/// Reason why `sbatch` did not submit a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A limit on submitted jobs: it passes when other jobs end.
    Limit,
    /// The controller did not answer: the job may have been submitted.
    NoAnswer,
    /// Nodes were excluded, and no other node can run the job.
    NoNode,
    /// Any other: the same job would be refused again.
    Final,
}

/// Classifies the message of an `sbatch` that failed.
pub(super) fn parse_refusal(stderr: &str) -> Refusal {
    let contains = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    if contains(&[
        "AssocMaxSubmitJobLimit",
        "AssocGrpSubmitJobsLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "QOSGrpSubmitJobsLimit",
        "MaxSubmitJob",
        "Job violates accounting/QOS policy",
        "temporarily unable to accept job",
        "Resource temporarily unavailable",
        "Slurm temporarily unable",
    ]) {
        Refusal::Limit
    } else if contains(&[
        "Unable to contact slurm controller",
        "Socket timed out",
        "Connection refused",
        "Connection timed out",
        "Zero Bytes were transmitted or received",
        "Transport endpoint is not connected",
        "slurm_receive_msg",
        "Communication connection failure",
    ]) {
        Refusal::NoAnswer
    } else if contains(&["Requested node configuration is not available"]) {
        Refusal::NoNode
    } else {
        Refusal::Final
    }
}

/// Advice for a job that does not start for a reason which may never pass; `None` for the usual
/// reasons of a job that waits.
pub(super) fn advice_for_reason(reason: &str) -> Option<&'static str> {
    let starts_with = |prefix: &str| reason.starts_with(prefix);
    Some(match reason {
        "PartitionConfig" => "no node of the partition can give a job so much; lower the resources",
        "PartitionDown" | "PartitionInactive" => "the partition is down; ask the administrators",
        "PartitionTimeLimit" | "PartitionNodeLimit" => {
            "the job exceeds a limit of the partition; lower `time` or the resources"
        }
        "DependencyNeverSatisfied" => "a dependency failed; cancel the job",
        "BadConstraints" | "ReqNodeNotAvail" | "InvalidQOS" | "InvalidAccount" => {
            "check `constraint`, `nodelist`, `account` and the other keys of the configuration"
        }
        _ if starts_with("ReqNodeNotAvail") => "the nodes are down or reserved; check `sinfo`",
        _ if starts_with("JobHeld") => "the job is held; release it with `scontrol release`",
        _ if starts_with("Nodes required for job are DOWN") => {
            "the nodes are down; ask the administrators"
        }
        _ if starts_with("Assoc") || starts_with("QOS") => {
            "a limit of your account holds the job back; wait, or ask the administrators"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
