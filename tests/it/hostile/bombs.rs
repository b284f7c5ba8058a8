//! Memory bombs together: the host's own memory stays within what its workers' guests may have.

use serde_json::json;

use super::case::cases;
use super::watch::watch;
use crate::project::{Project, parallel_task};

/// Eight calls that take all they get, on two workers with 256 MiB each.
#[test]
fn eight_bombs_leave_the_host_within_its_workers_budgets() {
    const MAX_HOST_BYTES: u64 = (2 * 256 + 256) << 20;
    let project = Project::new();
    let bomb = cases()
        .into_iter()
        .find(|case| case.name == "memory_bomb_filled")
        .expect("a case");
    let path = project.write("bomb.wasm", bomb.module(&project.path("")));
    project.write(
        "metadata.json",
        json!({ "c": (0..8).collect::<Vec<_>>() }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        "bomb",
        path.to_str().expect("UTF-8"),
        "c",
        json!({}),
    )]);
    for name in ["stdout", "stderr"] {
        project.write(name, "");
    }
    let arguments = "run workflow.json --output out --work-dir work --metadata metadata.json \
        --keep-going --jobs 2 \
                     --memory 256M";
    let ended = watch(
        &project,
        project.command(&arguments.split_whitespace().collect::<Vec<_>>()),
    );
    let events = project.read("work/events.jsonl");
    assert_eq!(
        events.matches("\"outcome\":\"memory_exceeded\"").count(),
        8,
        "{}",
        ended.printed
    );
    assert_eq!(ended.code, Some(4));
    assert!(
        ended.peak_bytes <= MAX_HOST_BYTES,
        "the program had {} MiB",
        ended.peak_bytes >> 20
    );
    assert!(
        ended.peak_bytes >= 128 << 20,
        "the bombs did not touch their memory: {} MiB",
        ended.peak_bytes >> 20
    );
}
