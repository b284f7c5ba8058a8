//! Output of the commands of SLURM 22.05 as recorded, and of 23.11 and 24.05 as they differ.

use super::*;

/// `squeue` 22.05.8: elements of an array that ended, ran and waited, a job that a signal ended,
/// and one whose folder was missing on its node.
const SQUEUE_22_05: &str = "\
1|0|5|COMPLETED|0|None|0|n1|a-1|
1|1|6|FAILED|256|NonZeroExitCode|0|n1|a-1|
2|N/A|2|FAILED|9|JobLaunchFailure|0|n1|b-1|
3|N/A|3|FAILED|4021|JobLaunchFailure|0|n1|c-1|
4|1|4|PENDING|0|Resources|0||d-1|
4|0|8|RUNNING|0|None|1|n2|d-1|
";

/// Later versions print `(null)` for a missing list of nodes, and reasons of several words.
const SQUEUE_24_05: &str = "\
4|1|4|PENDING|0|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority \
partitions|0|(null)|d-1|
5|N/A|5|OUT_OF_MEMORY|125|OutOfMemory|0|gpu[01-02]|e-1|
6|N/A|6|LAUNCHING_SOMETHING_NEW|0|None|0|n1|f-1|
";

#[test]
fn rows_of_squeue_are_read() {
    let rows = parse_squeue(SQUEUE_22_05);
    assert_eq!(rows.len(), 6);
    assert_eq!(
        rows[1],
        JobRow {
            job_id: 1,
            element: Some(1),
            state: "FAILED".to_owned(),
            exit: Exit { code: 1, signal: 0 },
            reason: "NonZeroExitCode".to_owned(),
            restarts: 0,
            node: "n1".to_owned(),
            name: "a-1".to_owned(),
        }
    );
    assert_eq!(rows[2].element, None);
    assert_eq!(rows[2].exit, Exit { code: 0, signal: 9 });
    assert_eq!(rows[3].exit.signal, 53);
    assert_eq!(
        (rows[4].reason.as_str(), rows[4].node.as_str()),
        ("Resources", "")
    );
    assert_eq!((rows[5].restarts, rows[5].reason.as_str()), (1, ""));
    let rows = parse_squeue(SQUEUE_24_05);
    assert!(
        rows[0]
            .reason
            .starts_with("Nodes required for job are DOWN")
    );
    assert_eq!(rows[0].node, "");
    assert_eq!(rows[1].node, "gpu[01-02]");
    let states: Vec<_> = rows.iter().map(|row| job_state(&row.state)).collect();
    assert_eq!(
        states,
        [JobState::Pending, JobState::Ended, JobState::Active]
    );
}

/// With `SLURM_CLUSTERS`, a line names the cluster before its jobs.
#[test]
fn other_forms_of_rows_are_read() {
    let text = "CLUSTER: c1\n9|N/A|9|FAILED|3:9|NonZeroExitCode|0|n1|g-1|\n\
                10|N/A|10|TIMEOUT||TimeLimit|0|n1|h-1|\n";
    let rows = parse_squeue(text);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].exit, Exit { code: 3, signal: 9 });
    assert_eq!(rows[1].exit, Exit::default());
}

#[test]
fn lines_of_a_wrapper_are_skipped() {
    let text = format!("Welcome to the cluster!\n\n{SQUEUE_22_05}a|b\n");
    assert_eq!(parse_squeue(&text), parse_squeue(SQUEUE_22_05));
    assert_eq!(parse_squeue(""), []);
}

#[test]
fn identifiers_of_sbatch_are_read() {
    for (text, id) in [
        ("4\n", Some(4)),
        ("123;cluster\n", Some(123)),
        ("sbatch: using account lab\n77\n", Some(77)),
        ("", None),
        ("Submitted batch job", None),
    ] {
        assert_eq!(parse_sbatch(text), id, "{text}");
    }
}

#[test]
fn rows_of_sacct_are_read() {
    let text = "7_3|NODE_FAIL|0:0|n2\n8|CANCELLED by 1000|0:15|None assigned\n\
                9_[4-6]|PENDING|0:0|None assigned\n7.batch|FAILED|1:0|n2\n";
    let rows = parse_sacct(text);
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].job_id, rows[0].element), (7, Some(3)));
    assert_eq!(
        (rows[0].state.as_str(), rows[0].node.as_str()),
        ("NODE_FAIL", "n2")
    );
    assert_eq!(
        (rows[1].state.as_str(), rows[1].node.as_str()),
        ("CANCELLED", "")
    );
    assert_eq!(
        rows[1].exit,
        Exit {
            code: 0,
            signal: 15
        }
    );
    assert_eq!(rows[2].element, None);
}

#[test]
fn facts_of_the_cluster_are_read() {
    for (version, max) in [
        ("22.05.8", 1001),
        ("23.11.4", 4_000_001),
        ("24.05.2", 10_001),
    ] {
        let text = format!(
            "Configuration data as of 2026-11-28T21:21:44\n\
             AccountingStorageBackupHost = (null)\n\
             ClusterName             = test\n\
             MaxArraySize            = {max}\n\
             SLURM_VERSION           = {version}\n\
             Slurmctld(primary) at n0 is UP\n"
        );
        let facts = parse_config(&text);
        assert_eq!(
            (facts.version.as_str(), facts.max_array_size),
            (version, max)
        );
        assert_eq!(facts.cluster, "test");
    }
    assert_eq!(parse_config("").max_array_size, 1001);
}

#[test]
fn refusals_are_classified() {
    let failed = "sbatch: error: Batch job submission failed: ";
    for (text, expected) in [
        ("Invalid partition name specified", Refusal::Final),
        ("Invalid job array specification", Refusal::Final),
        (
            "Requested node configuration is not available",
            Refusal::NoNode,
        ),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            Refusal::Limit,
        ),
        (
            "Unable to contact slurm controller (connect failure)",
            Refusal::NoAnswer,
        ),
        ("Socket timed out on send/recv operation", Refusal::NoAnswer),
        ("Zero Bytes were transmitted or received", Refusal::NoAnswer),
        ("Resource temporarily unavailable", Refusal::Limit),
    ] {
        assert_eq!(
            parse_refusal(&format!("{failed}{text}\n")),
            expected,
            "{text}"
        );
    }
    let text = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed";
    assert_eq!(parse_refusal(text), Refusal::Limit);
    let text = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying";
    assert_eq!(parse_refusal(text), Refusal::Limit);
}

#[test]
fn reasons_that_may_never_pass_have_advice() {
    for reason in ["Resources", "Priority", "BeginTime", "", "None", "Cleaning"] {
        assert_eq!(advice_for_reason(reason), None, "{reason}");
    }
    for reason in [
        "PartitionConfig",
        "DependencyNeverSatisfied",
        "JobHeldUser",
        "JobHeldAdmin",
        "AssocGrpCpuLimit",
        "QOSMaxJobsPerUserLimit",
        "ReqNodeNotAvail, UnavailableNodes:n1",
        "PartitionDown",
    ] {
        assert!(advice_for_reason(reason).is_some(), "{reason}");
    }
}
