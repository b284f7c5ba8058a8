//! Broken workflows, in the exported and in the full form.

use super::*;

#[test]
fn broken_workflows_are_refused() {
    const FILE: &str = "workflow.json";
    let set = |pointer, value| Set(FILE, pointer, value);
    check_all(
        &EXPORTED,
        vec![
            (
                set("/filters", json!({})),
                &[],
                &["workflow.json: /filters: unknown key"],
            ),
            (
                Remove(FILE, "/name"),
                &[],
                &["workflow.json: missing key `name`"],
            ),
            (
                set("/name", json!(" ")),
                &[],
                &["workflow.json: /name: must not be empty"],
            ),
            (
                set("/task_list", json!({})),
                &[],
                &["workflow.json: /task_list: must be an array"],
            ),
            (set("/task_list", json!([])), &[], &["workflow.json"]),
            (
                set("/task_list/0/executor", json!("gpu")),
                &[],
                &["/task_list/0/executor: unknown"],
            ),
            (
                set("/task_list/0/task/source", json!("x")),
                &[],
                &["/task_list/0/task/source"],
            ),
            (
                Remove(FILE, "/task_list/0/task/pkg_name"),
                &[],
                &["workflow.json: /task_list/0/task: missing key `pkg_name`"],
            ),
            (
                set("/task_list/0/task/pkg_name", json!("fractal-other")),
                &[],
                &["workflow.json: /task_list/0/task", "fractal-other"],
            ),
            (
                set("/task_list/0/task/version", json!("2.0.0")),
                &[],
                &["workflow.json: /task_list/0/task", "2.0.0", "1.0.0"],
            ),
            (
                set("/task_list/2/task/name", json!("fourth")),
                &[],
                &["workflow.json: /task_list/2/task", "fourth"],
            ),
            (
                set("/task_list/2/args_parallel", json!({ "zarr_url": 1 })),
                &[],
                &[
                    "workflow.json: /task_list/2/args_parallel",
                    "zarr_url",
                    "reserved",
                ],
            ),
            (
                set("/task_list/2/args_parallel", json!([])),
                &[],
                &["workflow.json: /task_list/2/args_parallel: must be an object"],
            ),
            (
                set("/task_list/2/args_non_parallel", json!({ "": 1 })),
                &[],
                &["workflow.json: /task_list/2/args_non_parallel"],
            ),
            (
                set("/task_list/0/args_parallel/threshold", json!("high")),
                &[],
                &["workflow.json: /task_list/0/args_parallel", "threshold"],
            ),
            (
                set("/task_list/0/args_non_parallel", json!({ "a": 1 })),
                &[],
                &["workflow.json: /task_list/0/args_non_parallel"],
            ),
            (
                set("/task_list/1/type_filters", json!({ "x": true })),
                &[],
                &["workflow.json: /task_list/1/type_filters", "`x`"],
            ),
            (
                set("/task_list/1/type_filters/y", json!("maybe")),
                &[],
                &["workflow.json: /task_list/1/type_filters/y"],
            ),
            (
                set(
                    "/task_list/1/input_filters",
                    json!({ "attributes": {}, "types": {} }),
                ),
                &[],
                &["workflow.json: /task_list/1/input_filters"],
            ),
            (
                set(
                    "/task_list/0/input_filters",
                    json!({ "attributes": { "w": "A" } }),
                ),
                &[],
                &["workflow.json: /task_list/0/input_filters/attributes"],
            ),
            (
                set(
                    "/task_list/2/meta_parallel/parallel_tasks_per_job",
                    json!(0),
                ),
                &[],
                &["workflow.json: /task_list/2/meta_parallel/parallel_tasks_per_job"],
            ),
            (
                set("/task_list/0/alias", json!(1)),
                &[],
                &["workflow.json: /task_list/0/alias"],
            ),
            (
                Replace(FILE, "{", "{,"),
                &[],
                &["workflow.json:1:", "not valid JSON"],
            ),
            (
                Replace(FILE, "{", r#"{"name": "x","#),
                &[],
                &["workflow.json:1:", "duplicate key"],
            ),
            (Text(FILE, "[]"), &[], &["workflow.json: must be an object"]),
            (Delete(FILE), &[], &["workflow.json", "cannot be read"]),
        ],
    );
}

#[test]
fn broken_full_workflows_are_refused() {
    let set = |pointer, value| Set("full.json", pointer, value);
    check_all(
        &FULL,
        vec![
            (
                set("/task_list/0/order", json!(-1)),
                &[],
                &["full.json: /task_list/0/order"],
            ),
            (
                set("/task_list/0/task/command_parallel", json!("no/such.wasm")),
                &[],
                &[
                    "full.json: /task_list/0/task/command_parallel",
                    "no/such.wasm",
                ],
            ),
            (
                set("/task_list/0/task/command_parallel", json!("a.wasm 'b")),
                &[],
                &["full.json: /task_list/0/task/command_parallel"],
            ),
            (
                set("/task_list/0/task/type", json!("compound")),
                &[],
                &["full.json: /task_list/0/task/type"],
            ),
            (
                set("/task_list/0/args_parallel/init_args", json!({})),
                &[],
                &["full.json: /task_list/0/args_parallel", "init_args"],
            ),
            (
                Remove("full.json", "/task_list/0/task"),
                &[],
                &["full.json: /task_list/0"],
            ),
            (
                Remove("full.json", "/task_list/0/task/name"),
                &[],
                &["full.json: /task_list/0/task: missing key `name`"],
            ),
        ],
    );
}
