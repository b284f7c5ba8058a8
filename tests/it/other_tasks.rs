//! Runs that are resumed with other tasks: what records show is the run that it has become.

use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task, task};

fn swiss(order: u64, name: &str, args: Value) -> Value {
    task(order, name, &module("swiss.wasm"), args)
}

fn each(order: u64, name: &str) -> Value {
    parallel_task(
        order,
        name,
        &module("swiss.wasm"),
        "list",
        json!({ "echo": ["component"] }),
    )
}

struct Shown {
    text: String,
    /// Order, name, state, calls that succeeded, and calls that failed.
    tasks: Vec<(u64, String, String, u64, u64)>,
    /// Names of the tasks in the crate's workflow.
    crate_tasks: Vec<Value>,
    page: String,
}

fn shown(project: &Project) -> Shown {
    let text = project.mandelbox(&["status", "work"]).expect(0).stderr;
    let status = project
        .mandelbox(&["status", "work", "--format", "json"])
        .expect(0)
        .stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let tasks = status["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(|task| {
            let text = |key: &str| task[key].as_str().expect("a text").to_owned();
            let number = |key: &str| task[key].as_u64().expect("a number");
            (
                number("task"),
                text("name"),
                text("state"),
                number("n_done"),
                number("n_failed"),
            )
        });
    let tasks = tasks.collect();
    project
        .mandelbox(&["report", "work", "--ro-crate"])
        .expect(0);
    let workflow = project.json("work/ro-crate-workflow.json");
    let crate_tasks = workflow["task_list"].as_array().expect("tasks").iter();
    let crate_tasks = crate_tasks
        .map(|task| task["task"]["name"].clone())
        .collect();
    Shown {
        text,
        tasks,
        crate_tasks,
        page: project.read("work/report.html"),
    }
}

fn task_shown(
    order: u64,
    name: &str,
    state: &str,
    n_done: u64,
    n_failed: u64,
) -> (u64, String, String, u64, u64) {
    (order, name.to_owned(), state.to_owned(), n_done, n_failed)
}

fn run(project: &Project, tasks: &[Value], code: i32, more: &[&str]) {
    project.workflow(tasks);
    if !project.path("metadata.json").is_file() {
        project.write("metadata.json", r#"{"list": ["x", "y", "z"]}"#);
    }
    project
        .run(
            &[
                &["--metadata", "metadata.json", "--resume", "--jobs", "1"],
                more,
            ]
            .concat(),
        )
        .expect(code);
}

fn first() -> Value {
    swiss(0, "first", json!({}))
}

#[test]
fn a_task_that_was_removed_is_not_shown_and_comes_back_with_its_results() {
    let project = Project::new();
    run(&project, &[first(), each(1, "removed")], 0, &[]);
    for more in [&[][..], &["--last-task", "0"]] {
        let tasks = if more.is_empty() {
            vec![first()]
        } else {
            vec![first(), each(1, "removed")]
        };
        run(&project, &tasks, 0, more);
        let shown = shown(&project);
        assert!(
            shown.text.contains("tasks: 1 of 1 started"),
            "{}",
            shown.text
        );
        assert_eq!(shown.tasks, [task_shown(0, "first", "done", 1, 0)]);
        assert_eq!(shown.crate_tasks, ["first"]);
        assert!(!shown.page.contains("removed"), "{}", shown.page);
        let crate_text = project.read("work/ro-crate-metadata.json");
        assert!(
            crate_text.contains("1 of 1 tasks of the workflow started"),
            "{crate_text}"
        );
        run(&project, &[first(), each(1, "removed")], 0, &[]);
        assert_eq!(
            self::shown(&project).tasks[1],
            task_shown(1, "removed", "done", 3, 0)
        );
    }
    let log = project.read("work/events.jsonl");
    assert_eq!(
        log.matches("\"event\":\"call_started\",\"task\":1").count(),
        3,
        "its results are still kept"
    );
}

#[test]
fn a_task_that_another_replaces_is_gone() {
    let project = Project::new();
    run(
        &project,
        &[first(), each(1, "replaced"), swiss(2, "last", json!({}))],
        0,
        &[],
    );
    let fails = |order: u64| swiss(order, "other", json!({ "exit": 3, "order": order }));
    run(
        &project,
        &[first(), fails(1), swiss(2, "last", json!({}))],
        3,
        &[],
    );
    let shown = shown(&project);
    assert!(
        shown.text.contains("tasks: 2 of 3 started"),
        "{}",
        shown.text
    );
    // What the last task did rests on data that are made again.
    assert_eq!(
        shown.tasks,
        [
            task_shown(0, "first", "done", 1, 0),
            task_shown(1, "other", "failed", 0, 1)
        ]
    );
    assert_eq!(shown.crate_tasks, ["first", "other"]);
    assert!(
        !shown.page.contains("replaced") && shown.page.contains("1 more task"),
        "{}",
        shown.page
    );
}

#[test]
fn a_task_with_another_name_keeps_its_results_under_it() {
    let project = Project::new();
    run(&project, &[first(), each(1, "old-name")], 0, &[]);
    run(&project, &[first(), each(1, "after")], 0, &[]);
    let shown = shown(&project);
    assert_eq!(
        shown.tasks,
        [
            task_shown(0, "first", "done", 1, 0),
            task_shown(1, "after", "done", 3, 0)
        ]
    );
    assert_eq!(shown.crate_tasks, ["first", "after"]);
    assert!(
        !shown.page.contains("old-name") && shown.page.contains("\"z\""),
        "{}",
        shown.page
    );
}

#[test]
fn tasks_in_another_order_are_shown_in_it() {
    let project = Project::new();
    let tasks = |names: [&str; 3]| -> Vec<Value> {
        (0..)
            .zip(names)
            .map(|(order, name)| swiss(order, name, json!({ "of": name })))
            .collect()
    };
    run(&project, &tasks(["a", "b", "c"]), 0, &[]);
    run(&project, &tasks(["a", "c", "b"]), 0, &[]);
    let shown = shown(&project);
    let expected =
        [("a", 0), ("c", 1), ("b", 2)].map(|(name, order)| task_shown(order, name, "done", 1, 0));
    assert_eq!(shown.tasks, expected);
    assert_eq!(shown.crate_tasks, ["a", "c", "b"]);
}

#[test]
fn a_run_from_another_first_task_shows_the_tasks_from_there() {
    let project = Project::new();
    run(&project, &[first(), each(1, "each")], 0, &[]);
    run(
        &project,
        &[first(), each(1, "each")],
        0,
        &["--first-task", "1"],
    );
    let shown = shown(&project);
    assert!(
        shown.text.contains("tasks: 1 of 1 started"),
        "{}",
        shown.text
    );
    assert_eq!(shown.tasks, [task_shown(1, "each", "done", 3, 0)]);
    assert_eq!(shown.crate_tasks, ["each"]);
}

#[test]
fn calls_of_components_that_are_gone_are_not_counted() {
    let project = Project::new();
    let mut task = each(0, "each");
    task["task"]["meta"]["mandelbox"] = json!({ "metadata_keys": [] });
    run(&project, std::slice::from_ref(&task), 0, &[]);
    project.write("metadata.json", r#"{"list": ["z", "x"]}"#);
    run(&project, &[task], 0, &[]);
    let shown = shown(&project);
    assert!(
        shown.text.contains("2 of 2 done, 2 reused"),
        "{}",
        shown.text
    );
    assert_eq!(shown.tasks, [task_shown(0, "each", "done", 2, 0)]);
    assert!(!shown.page.contains("\"y\""), "{}", shown.page);
}
