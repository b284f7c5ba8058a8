//! Calls that failed and are retried in the same run.

use std::sync::Arc;
use std::time::Duration;

use mandelbox::backend::Scripted;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{CallSpec, Outcome, Retries};
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{Error, ProcessWorkflow, RunOptions};
use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task};

#[test]
fn calls_that_the_sandbox_ends_are_retried_and_calls_that_fail_by_themselves_are_not() {
    let project = Project::new();
    let own = json!({ "a": { "signal": "SEGV", "stderr": "tried" }, "b": { "exit": 3 } });
    let args = json!({ "per_component": own, "metadiff": { "n": 1 } });
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "list", args)]);
    project.write("metadata.json", r#"{"list": ["a", "b", "c"]}"#);
    let ended = project.run(&[
        "--metadata",
        "metadata.json",
        "--keep-going",
        "--retries",
        "1",
        "--verbose",
    ]);
    let ended = ended.expect(4).reports(&[
        "component \"a\" trapped",
        "component \"b\" exited with code 3",
        "retry in 1 s",
    ]);
    assert_eq!(
        ended.stderr.matches("component \"a\" trapped").count(),
        1,
        "{}",
        ended.stderr
    );
    let outcomes: Vec<_> = project
        .events_of("call_finished")
        .into_iter()
        .map(|event| {
            (
                event["item"].clone(),
                event["attempt"].clone(),
                event["retry_in_s"].clone(),
            )
        })
        .filter(|(component, _, _)| component != "c")
        .collect();
    let expected = [
        (json!("a"), json!(1), json!(1.0)),
        (json!("b"), json!(1), Value::Null),
        (json!("a"), json!(2), Value::Null),
    ];
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    assert!(
        expected.iter().all(|outcome| outcomes.contains(outcome)),
        "{outcomes:?}"
    );
    assert_eq!(project.events_of("task_finished")[0]["n_failed"], 2);
    assert_eq!(project.read("work/0_t/0_par_a.err"), "tried");
    assert!(project.read("work/workflow.log").contains("retry in 1 s"));
}

#[test]
fn a_call_that_succeeds_at_its_third_attempt_has_succeeded() {
    let project = Project::new();
    let path = project.workflow(&[parallel_task(
        0,
        "t",
        &module("swiss.wasm"),
        "list",
        json!({}),
    )]);
    let workflow =
        WorkflowDocument::read_into(&path, &mut Problems::default()).expect("a workflow");
    let mut arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    arguments.input_metadata = json!({ "list": ["a", "b"] })
        .as_object()
        .cloned()
        .expect("an object");
    let is_lost = |call: &CallSpec| call.item == Some(json!("a")) && call.attempt.number < 3;
    let backend = Scripted::new(move |call| match is_lost(call) {
        true => Outcome::Lost {
            message: "the power".to_owned(),
        },
        false => Outcome::Succeeded {
            output: json!({ "at": call.attempt.number }).as_object().cloned(),
        },
    });
    let options = |n_retries, resume| RunOptions {
        retries: Retries {
            n_retries,
            first_wait: Duration::from_millis(1),
        },
        resume,
        ..RunOptions::new(Arc::new(Scripted::clone(&backend)))
    };
    let failure = process_workflow(&arguments, options(1, false), Vec::new())
        .expect_err("one retry is too few");
    assert!(matches!(failure.error, Error::JobExecution(_)), "{failure}");
    let dataset =
        process_workflow(&arguments, options(0, true), Vec::new()).expect("the third try");
    assert_eq!(dataset["metadata"]["at"], json!([3, 1]));
}
