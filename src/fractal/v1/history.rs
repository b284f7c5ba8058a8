//! Outcomes → history items in Fractal's shape; pure.

use jiff::Timestamp;
use serde_json::json;

use crate::json::Value;
use crate::plan::PlannedTask;
use crate::text::time_text;

/// When a task ran and with how many components.
#[derive(Clone, Copy, Debug)]
pub struct TaskRun {
    /// Its start.
    pub started: Timestamp,
    /// Its end.
    pub ended: Timestamp,
    /// Length of the component list; 0 for a single task.
    pub n_components: usize,
}

/// The item of a task that ended well.
///
/// * `component_list`: as used; `None` for a single task.
///
/// Source: conformance rule 67, from fractal-server's `execute_tasks`.
pub fn done_item(task: &PlannedTask, component_list: Option<&[Value]>, run: TaskRun) -> Value {
    let parallelization = component_list.map(|components| {
        let mut parallelization = level(task);
        parallelization["component_list"] = Value::Array(components.to_vec());
        parallelization
    });
    item(task, "done", parallelization, run)
}

/// The item of a task that failed.
///
/// Source: conformance rule 68, from fractal-server's `assemble_history_failed_job`.
pub fn failed_item(task: &PlannedTask, run: TaskRun) -> Value {
    item(task, "failed", Some(level(task)), run)
}

fn level(task: &PlannedTask) -> Value {
    json!({ "parallelization_level": task.parallelization_level })
}

fn item(task: &PlannedTask, status: &str, parallelization: Option<Value>, run: TaskRun) -> Value {
    let mut item = json!({
        "workflowtask": task.workflowtask,
        "status": status,
        "parallelization": null,
        "mandelbox": {
            "version": env!("CARGO_PKG_VERSION"),
            "module_sha256": task.module.sha256,
            "started": time_text(run.started),
            "ended": time_text(run.ended),
            "n_components": run.n_components,
        },
    });
    // Moved there, since a list of millions is in it.
    item["parallelization"] = parallelization.unwrap_or_default();
    item
}
