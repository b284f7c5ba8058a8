//! The workflow of a run, built from its records. Pure.

use serde_json::json;

use crate::event::RunSummary;
use crate::json::{Map, Value};

/// Builds the workflow of a run, as far as its records have it: the tasks that have started, as in
/// the history, each with the digest that its module must have.
pub(super) fn workflow(
    summary: &RunSummary,
    workflow_tasks: &[Option<Map<String, Value>>],
) -> Value {
    let tasks = summary
        .tasks
        .iter()
        .zip(workflow_tasks)
        .map(|(task, known)| {
            let Some(known) = known else {
                let meta = task
                    .items
                    .as_ref()
                    .map(|level| json!({ "parallelization_level": level }));
                return json!({ "order": task.order, "task": { "name": task.name, "meta": meta } });
            };
            let mut known = Value::Object(known.clone());
            let meta = &mut known["meta"];
            if !meta["mandelbox"].is_object() {
                if !meta.is_object() {
                    *meta = json!({});
                }
                meta["mandelbox"] = json!({});
            }
            let script = task.script.as_ref().map(|script| &script.sha256);
            meta["mandelbox"]["sha256"] = script.unwrap_or(&task.module_sha256).as_str().into();
            known
        });
    json!({ "name": summary.run.as_deref().map(|run| &run.workflow), "task_list": tasks.collect::<Vec<_>>() })
}
