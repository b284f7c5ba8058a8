//! History items in Fractal's shape, built from outcomes. Pure.

use serde_json::json;

use super::task::TaskDetails;
use crate::fractal::ItemFilter;
use crate::fractal::dialect::TaskTimes;
use crate::json::Value;
use crate::text::time_text;

/// A task that ran.
#[derive(Clone, Copy)]
pub(super) struct TaskRun<'t> {
    pub(super) details: &'t TaskDetails,
    pub(super) module_sha256: &'t str,
    pub(super) times: TaskTimes,
    /// Length of the component list; 0 for a single task.
    pub(super) n_components: usize,
    /// Components of a trial run.
    pub(super) only: &'t ItemFilter,
}

/// Builds the item of a task that succeeded.
///
/// * `component_list`: the list that was used; `None` for a single task.
///
/// Source: conformance rule 67, from fractal-server's `execute_tasks`.
pub(super) fn done_item(run: TaskRun<'_>, component_list: Option<&[Value]>) -> Value {
    let parallelization = component_list.map(|components| {
        let mut parallelization = level(run.details);
        parallelization["component_list"] = Value::Array(components.to_vec());
        parallelization
    });
    item(run, "done", parallelization)
}

/// Builds the item of a task that failed.
///
/// Source: conformance rule 68, from fractal-server's `assemble_history_failed_job`.
pub(super) fn failed_item(run: TaskRun<'_>) -> Value {
    item(run, "failed", Some(level(run.details)))
}

fn level(task: &TaskDetails) -> Value {
    json!({ "parallelization_level": task.level })
}

fn item(run: TaskRun<'_>, status: &str, parallelization: Option<Value>) -> Value {
    let mut item = json!({
        "workflowtask": run.details.workflowtask,
        "status": status,
        "parallelization": null,
        "mandelbox": {
            "version": env!("CARGO_PKG_VERSION"),
            "module_sha256": run.module_sha256,
            "started": time_text(run.times.started),
            "ended": time_text(run.times.ended),
            "n_components": run.n_components,
        },
    });
    if !run.only.is_empty() {
        item["mandelbox"]["only"] = json!(run.only.globs());
    }
    // Moved, not copied, since it may hold a list of millions.
    item["parallelization"] = parallelization.unwrap_or_default();
    item
}
