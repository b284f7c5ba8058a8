//! Recorded inputs and outputs of fractal-server's pure functions.

use std::path::Path;

use mandelbox::fractal::args::schema::default_args;
use mandelbox::fractal::package::manifest::slugify_task_name;
use mandelbox::fractal::package::{MANIFEST, TaskPackage};
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::fractal::v1::file_names::FileNames;
use mandelbox::plan::set_start_and_last_task_index;
use mandelbox::problem::Problems;
use mandelbox::text::file_name::sanitize_string;
use mandelbox::workdir::layout::task_folder_name;
use serde_json::Value;

fn rows(table: &str) -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fractal/tables/{table}.json"));
    let rows: Vec<Value> =
        serde_json::from_slice(&std::fs::read(path).expect("a table")).expect("JSON");
    assert!(!rows.is_empty());
    rows
}

#[test]
fn sanitized_strings() {
    for row in rows("sanitize_string") {
        assert_eq!(
            sanitize_string(row["in"].as_str().expect("text")),
            row["out"],
            "{row}"
        );
    }
}

#[test]
fn slugs() {
    for row in rows("slugify_task_name_for_source") {
        assert_eq!(
            slugify_task_name(row["in"].as_str().expect("text")),
            row["out"],
            "{row}"
        );
    }
}

#[test]
fn first_and_last_task() {
    for row in rows("task_index") {
        let n = usize::try_from(row["num_tasks"].as_u64().expect("a number")).expect("small");
        let here = set_start_and_last_task_index(n, row["first"].as_i64(), row["last"].as_i64());
        match row["message"].as_str() {
            Some(message) => assert_eq!(here.expect_err(message), message, "{row}"),
            None => {
                let (first, last) = here.expect("indices");
                assert_eq!(serde_json::json!([first, last]), row["ok"], "{row}");
            }
        }
    }
}

#[test]
fn defaults_of_args() {
    for row in rows("default_args_from_args_schema") {
        let schema = Some(&row["args_schema"]).filter(|schema| !schema.is_null());
        assert_eq!(Value::Object(default_args(schema)), row["ok"], "{row}");
    }
}

#[test]
fn manifests() {
    for row in rows("manifest") {
        let folder = crate::project::temporary_folder();
        std::fs::write(folder.path().join(MANIFEST), row["manifest"].to_string()).expect("written");
        let mut problems = Problems::default();
        let package = TaskPackage::read_into(folder.path(), &mut problems);
        assert_eq!(
            problems.is_empty(),
            row.get("ok").is_some(),
            "{row}\n{problems}"
        );
        if let Some(expected) = row["ok"]["task_list"].as_array() {
            let names: Vec<_> = package
                .expect("a package")
                .task_list
                .iter()
                .map(|task| task.task.name.clone())
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|task| task["name"].as_str().expect("a name"))
                .collect();
            assert_eq!(names, expected);
        }
    }
}

#[test]
fn exported_workflows() {
    for row in rows("workflow_import") {
        let mut problems = Problems::default();
        let text = row["workflow"].to_string();
        let document = WorkflowDocument::parse(
            "workflow.json",
            Path::new(""),
            text.as_bytes(),
            &mut problems,
        );
        assert_eq!(
            problems.is_empty(),
            row.get("ok").is_some(),
            "{row}\n{problems}"
        );
        if let Some(expected) = row.get("ok") {
            let document = document.expect("a workflow");
            assert_eq!(document.name, expected["name"]);
            let object = |object: &Option<serde_json::Map<_, _>>| {
                object.clone().map_or(Value::Null, Value::Object)
            };
            for (task, expected) in document
                .task_list
                .iter()
                .zip(expected["task_list"].as_array().expect("tasks"))
            {
                assert_eq!(
                    (object(&task.args), object(&task.meta)),
                    (expected["args"].clone(), expected["meta"].clone())
                );
            }
        }
    }
}

#[test]
fn names_of_files() {
    for row in rows("task_files") {
        let order = row["order"].as_u64().unwrap_or(0);
        let component = &row["component"];
        // Names of components that are neither text, number nor boolean are mandelbox's own.
        if component.is_object() || component.is_array() {
            continue;
        }
        let components = Some(std::slice::from_ref(component)).filter(|_| !component.is_null());
        let names = FileNames::new(order, components);
        let files = names.files(
            Path::new(""),
            0,
            components.map(|components| &components[0]),
        );
        let paths = [
            ("args", files.args()),
            ("metadiff", files.output()),
            ("out", files.out()),
            ("err", files.err()),
        ];
        for (key, path) in paths {
            assert_eq!(path.to_str(), row[key].as_str(), "{row}");
        }
        assert_eq!(
            task_folder_name(order, "my task"),
            row["subfolder"],
            "{row}"
        );
    }
}
