//! Tests of the dataset of a run.

use std::num::NonZeroUsize;
use std::path::Path;

use super::*;
use crate::fractal::v2::tables::{Row, each_row};
use crate::fractal::v2::{STATUS_KEY, Types};
use crate::model::{Limits, ModuleKind, ModuleRef};
use crate::problem::{Cursor, Problems};

const TIMES: TaskTimes = TaskTimes {
    started: jiff::Timestamp::UNIX_EPOCH,
    ended: jiff::Timestamp::UNIX_EPOCH,
};

fn task(order: u64, module: &str) -> TaskSpec {
    TaskSpec {
        order,
        name: "t".to_owned(),
        id: None,
        module: ModuleRef {
            path: module.into(),
            sha256: String::new(),
        },
        kind: ModuleKind::CommandP1,
        script: None,
        fixed_args: Vec::new(),
        is_single: false,
        max_parallel: None,
        limits: Limits::default(),
        reserves_memory: false,
        n_cpus: NonZeroUsize::MIN,
        env: Vec::new(),
        mounts: Vec::new(),
        resources: Vec::new(),
        snapshot: None,
    }
}

fn details(task_type: TaskType) -> TaskDetails {
    TaskDetails {
        task_type,
        args_non_parallel: Map::new(),
        args_parallel: Map::new(),
        type_filters: Types::new(),
        output_types: Types::from([("x".to_owned(), true)]),
        compute: Some(task(0, "compute.wasm")),
    }
}

fn dataset(filters: Value, task_types: &[TaskType]) -> Dataset {
    let images = json!([{"zarr_url": "/z/a"}, {"zarr_url": "/z/b"}]);
    let document = json!({"name": "d", "zarr_dir": "/z", "images": images});
    let mut problems = Problems::default();
    let cursor = Cursor::new(Path::new("d"), &document);
    let document = DatasetDocument::from_cursor(&cursor, &mut problems).expect("valid");
    let filters = Cursor::new(Path::new("f"), &filters);
    let filters = Filters::read(None, Some(&filters), &mut problems);
    assert!(problems.is_empty(), "{problems}");
    let tasks = task_types.iter().map(|task_type| details(*task_type));
    let tasks = (0..).zip(tasks).collect();
    Dataset::new(document, filters, Statuses::default(), tasks)
}

fn end(outputs: &[(usize, Value)]) -> BatchEnd {
    let outputs = outputs.iter().map(|(index, output)| {
        let output = output.as_object().expect("an object");
        (*index, output.clone())
    });
    BatchEnd {
        outputs: outputs.collect(),
        times: TIMES,
    }
}

fn types(dataset: &Dataset) -> Value {
    let images = dataset.images().images().iter();
    images.map(|image| json!(image.types)).collect()
}

// Source: conformance rule V93.
#[test]
fn parallel_calls_are_limited() {
    each_row("parallelization_size", |row: &Row| {
        let n_calls = row["in"].as_u64().expect("a number");
        let dataset = dataset(json!({}), &[]).max_items(20_000);
        let checked = dataset.check_n_items(usize::try_from(n_calls).expect("small"));
        assert_eq!(checked.is_ok(), row.is_accepted(), "{row:?}");
    });
}

// Source: part C of the conformance rules, conformance rules V38 to V40.
#[test]
fn a_compound_task_has_two_batches() {
    let mut dataset = dataset(json!({}), &[TaskType::Compound]);
    let task = task(0, "init.wasm");
    let Ok(Step::Calls(calls)) = dataset.next(&task, None, true) else {
        panic!("the first batch");
    };
    assert_eq!((calls.list.len(), calls.items), (1, None));
    let list = json!({"parallelization_list": [{"zarr_url": "/z/a"}, {"zarr_url": "/z/new"}]});
    let Ok(Step::Calls(calls)) = dataset.next(&task, Some(end(&[(0, list)])), true) else {
        panic!("the second batch");
    };
    assert_eq!(calls.list.len(), 2);
    let item = json!({"zarr_url": "/z/new", "init_args": {}});
    assert_eq!(calls.list.item(1), Some(&item));
    let module = |batch| dataset.batch_task(&task, batch).module.file_name();
    assert_eq!([module(0), module(1)], ["init.wasm", "compute.wasm"]);
    let last = dataset.next(&task, Some(end(&[])), true);
    assert!(matches!(
        last,
        Ok(Step::Done(TaskEnd { warning: None, .. }))
    ));
    assert_eq!(types(&dataset), json!([{"x": true}, {"x": true}]));
}

// Source: conformance rules V78 and V79, defect W18.
#[test]
fn outputs_of_a_failed_task_are_kept() {
    let task = task(0, "t.wasm");
    let check = |failed: &[usize], expected: Value, statuses: [ImageStatus; 2]| {
        let mut dataset = dataset(json!({}), &[TaskType::Parallel]);
        assert!(dataset.next(&task, None, true).is_ok());
        dataset.end_failed(&task, end(&[]), failed);
        dataset.fail(&task, TIMES, 2);
        assert_eq!(types(&dataset), expected);
        let status = |url| dataset.statuses().get(0, url).expect("a status");
        assert_eq!([status("/z/a"), status("/z/b")], statuses);
    };
    check(
        &[1],
        json!([{"x": true}, {}]),
        [ImageStatus::Done, ImageStatus::Failed],
    );
    check(
        &[0, 1],
        json!([{}, {}]),
        [ImageStatus::Failed, ImageStatus::Failed],
    );
}

// Source: defect W12.
#[test]
fn statuses_are_those_for_the_first_task_that_gets_images() {
    let types = [TaskType::ConverterNonParallel, TaskType::Parallel];
    let mut dataset = dataset(json!({ STATUS_KEY: ["unset"] }), &types);
    dataset.tasks.get_mut(&0).expect("a task").output_types = Types::new();
    dataset
        .statuses
        .set(1, "/z/a".to_owned(), ImageStatus::Done);
    let converter = task(0, "t.wasm");
    assert!(dataset.next(&converter, None, true).is_ok());
    assert!(dataset.next(&converter, Some(end(&[])), true).is_ok());
    let Ok(Step::Calls(calls)) = dataset.next(&task(1, "t.wasm"), None, true) else {
        panic!("calls");
    };
    assert_eq!(calls.list.len(), 1);
    assert_eq!(calls.list.item(0), Some(&json!("/z/b")));
}

#[test]
fn records_are_the_dataset_and_the_statuses() {
    let dataset = dataset(json!({}), &[]);
    let mut text = Vec::new();
    let records = dataset.records();
    let names: Vec<_> = records.iter().map(|record| record.name).collect();
    assert_eq!(names, ["dataset.json", "status.json"]);
    (records[0].write)(&mut text).expect("written");
    let written: Value = serde_json::from_slice(&text).expect("JSON");
    drop(records);
    assert_eq!(written, Value::Object(Box::new(dataset).into_result()));
}
