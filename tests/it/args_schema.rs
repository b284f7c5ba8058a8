//! Args and their schemas: what is filled in, what does not fit, and schemas that are no good.

use serde_json::json;

use crate::documents::check_project;
use crate::project::{Project, module, task};

#[test]
fn args_must_fit_the_schema() {
    let project = Project::new();
    let mut entry =
        task(0, "t", &module("swiss.wasm"), json!({ "size": "big", "mode": "c", "extra": 1, "component": 1 }));
    entry["task"]["args_schema"] = json!({
        "type": "object", "additionalProperties": false, "required": ["input_paths", "size", "missing"],
        "properties": {
            "size": { "type": "integer" },
            "mode": { "enum": ["a", "b"] },
            "missing": { "type": "string" },
        },
    });
    let mut broken = task(1, "u", &module("swiss.wasm"), json!({}));
    broken["task"]["args_schema"] = json!({ "type": "no such type" });
    let mut reference = task(2, "v", &module("swiss.wasm"), json!({}));
    reference["task"]["args_schema"] = json!({ "$ref": "file:///etc/passwd" });
    project.workflow(&[entry, broken, reference]);
    check_project(
        &project,
        &[],
        &[
            "/task_list/0/args/size: does not fit",
            "/task_list/0/args/mode: does not fit",
            "\"missing\" is a required property",
            "'extra' was unexpected",
            "/task_list/1/task/args_schema: is no valid JSON Schema",
            "/task_list/2/task/args_schema: is no valid JSON Schema",
        ],
    );
}

#[test]
fn schemas_of_both_pydantics_are_read() {
    let project = Project::new();
    let mut v1 = task(0, "t", &module("swiss.wasm"), json!({ "range": [1, 2] }));
    v1["task"]["args_schema"] = json!({
        "type": "object",
        "properties": { "range": { "type": "array", "items": [{ "$ref": "#/definitions/N" }, { "type": "integer" }] } },
        "definitions": { "N": { "type": "integer" } },
    });
    let mut v2 = task(1, "u", &module("swiss.wasm"), json!({ "range": [1, 2] }));
    v2["task"]["args_schema"] = json!({
        "type": "object",
        "properties": { "range": { "type": "array", "prefixItems": [{ "$ref": "#/$defs/N" }] } },
        "$defs": { "N": { "type": "string" } },
    });
    project.workflow(&[v1, v2]);
    check_project(&project, &[], &["/task_list/1/args/range/0: does not fit", "1 problem"]);
}

/// A pattern that takes the longer the more it is given, by far.
#[test]
fn a_schema_that_takes_for_ever_is_refused() {
    let project = Project::new();
    let pattern = "^((x{0,100}){0,100}){0,10}$";
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": pattern } } });
    let mut slow = task(0, "t", &module("swiss.wasm"), json!({ "a": "x".repeat(20_000) }));
    slow["task"]["args_schema"] = schema;
    project.workflow(&[slow]);
    let ended = project.run(&[]).expect(2);
    assert!(ended.elapsed < std::time::Duration::from_secs(20), "{:?}", ended.elapsed);
    let refused = ["takes more than 10 s to check", "is no valid JSON Schema"];
    assert!(refused.iter().any(|text| ended.stderr.contains(text)));
    assert!(ended.stderr.len() < 2000, "the value is not told whole");
}
