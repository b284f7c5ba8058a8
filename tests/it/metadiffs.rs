//! The bound on all metadiffs of a run together.

use serde_json::{Value, json};

use crate::project::{ISOLATIONS, Project, module, parallel_task, task};

/// A metadiff of `n_bytes` of text: `{"m":"xx..."}`.
fn metadiff(n_bytes: usize) -> Value {
    json!({ "m": "x".repeat(n_bytes - r#"{"m":""}"#.len()) })
}

fn project(limit: &str, per_component: &Value) -> Project {
    let project = Project::new();
    project.write("policy.toml", format!("[host]\noutputs = \"{limit}\"\n"));
    project.write("metadata.json", r#"{"list": ["a", "b", "c", "d"]}"#);
    let each = parallel_task(
        0,
        "each",
        &module("swiss.wasm"),
        "list",
        json!({ "per_component": per_component }),
    );
    let last = task(
        1,
        "last",
        &module("swiss.wasm"),
        json!({ "metadiff": metadiff(1000) }),
    );
    project.workflow(&[each, last]);
    project
}

fn run(project: &Project, more: &[&str]) -> crate::project::Ended {
    let always = [
        "--metadata",
        "metadata.json",
        "--policy",
        "policy.toml",
        "--jobs",
        "1",
    ];
    project.run(&[&always[..], more].concat())
}

#[test]
fn all_metadiffs_of_a_run_together_have_a_limit() {
    let own = metadiff(1024);
    let per_component =
        json!({ "a": { "metadiff": own }, "b": { "metadiff": own }, "c": { "metadiff": own } });
    for isolation in ISOLATIONS {
        // Those of all tasks count: the last one is 1 byte too many, or just not.
        let project = project("4071", &per_component);
        let texts = [
            "JobExecutionError: task \"last\" (order 1) failed\n  call returned an output that \
             exceeds the limit on all outputs of the run (4.0 KiB in total, the limit is 4.0 KiB); \
             write data to files in the output folder, or raise `host.outputs` in the policy",
        ];
        run(&project, &["--isolation", isolation])
            .expect(4)
            .reports(&texts);
        assert_eq!(
            project.json("work/metadata.json")["m"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
        let status = project
            .mandelbox(&["status", "work", "--format", "json"])
            .expect(0)
            .stdout;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let failed = &status["tasks"][1]["failed"][0]["outcome"];
        let expected =
            json!({ "outcome": "outputs_exceeded", "limit_bytes": 4071, "asked_bytes": 4072 });
        assert_eq!(*failed, expected);
        // What is kept counts, and what was recorded is not made again.
        run(&project, &["--isolation", isolation, "--resume"])
            .expect(4)
            .reports(&texts);
        project.write("policy.toml", "[host]\noutputs = \"4072\"\n");
        run(&project, &["--isolation", isolation, "--resume"]).expect(0);
        let log = project.read("work/events.jsonl");
        assert_eq!(
            log.matches("\"event\":\"call_started\",\"task\":0").count(),
            4,
            "made again"
        );
        assert_eq!(
            project.json("work/result.json")["metadata"]["m"]
                .as_str()
                .map(str::len),
            Some(1000 - 8)
        );
    }
}

#[test]
fn many_short_values_count_for_what_they_take_in_memory() {
    // 1000 values in 2 KB of text: 64 bytes for each, and 512 for the object.
    let zeros = json!({ "a": { "metadiff": { "m": vec![0; 999] } } });
    let project = project("64511", &zeros);
    run(&project, &["--keep-going", "--retries", "3"])
        .expect(4)
        .reports(&["component \"a\" returned an output that exceeds the limit"]);
    let log = project.read("work/events.jsonl");
    assert_eq!(
        log.matches("outputs_exceeded").count(),
        1,
        "another attempt finds no more room"
    );
    project.write("policy.toml", "[host]\noutputs = \"65512\"\n");
    run(&project, &["--resume"]).expect(0);
}
