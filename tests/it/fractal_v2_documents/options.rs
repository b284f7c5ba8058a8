//! Wrong options, and problems of all documents at once.

use super::*;

#[test]
fn wrong_options_are_refused() {
    check_all(
        &EXPORTED,
        vec![
            (Nothing, &["--type-filter", "x"], &["--type-filter"]),
            (
                Nothing,
                &["--type-filter", "x=maybe"],
                &["--type-filter", "maybe"],
            ),
            (Nothing, &["--type-filter", "=true"], &["--type-filter"]),
            (
                Nothing,
                &["--attribute-filter", "w"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=A,1"],
                &["--attribute-filter", "same kind"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=[]"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=null"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--attribute-filter", "w=[[1]]"],
                &["--attribute-filter"],
            ),
            (
                Nothing,
                &["--status-filter", "finished"],
                &["--status-filter", "finished"],
            ),
            (Nothing, &["--first-task", "3"], &["--first-task"]),
            (
                Nothing,
                &["--first-task", "2", "--last-task", "1"],
                &["-task"],
            ),
            (
                Nothing,
                &["--zarr-dir", "zarr"],
                &["--zarr-dir", "--dataset"],
            ),
            (Nothing, &["--metadata", "dataset.json"], &["--metadata"]),
            (
                Text("local_config.json", r#"{"parallel_tasks_per_job": 0}"#),
                &[],
                &["local_config.json: /parallel_tasks_per_job"],
            ),
            (
                Text("local_config.json", r#"{"partition": "gpu"}"#),
                &[],
                &["local_config.json: /partition: unknown key"],
            ),
            (
                Text("local_config.json", "{"),
                &[],
                &["local_config.json:1:", "not valid JSON"],
            ),
            (
                Delete("local_config.json"),
                &[],
                &["local_config.json", "cannot be read"],
            ),
        ],
    );
    let project = project();
    let before = project.tree();
    let ended = run(&project, &["workflow.json", "--tasks", PACKAGE]);
    let trees = [before.as_slice(), &project.tree()];
    let checked = check_answer(&ended, trees, &["--zarr-dir", "--dataset"]);
    assert_eq!(checked, Ok(()), "{}", ended.stderr);
}

/// Problems of all documents are found in one go, each once.
#[test]
fn problems_of_all_documents_are_found_together() {
    let project = project();
    for change in [
        Set("workflow.json", "/task_list/0/executor", json!("gpu")),
        Set("workflow.json", "/task_list/2/task/version", json!("3.1")),
        Set("dataset.json", "/images/0/zarr_url", json!("/elsewhere/a")),
        Text("local_config.json", r#"{"partition": "gpu"}"#),
    ] {
        apply(&project, &change);
    }
    let before = project.tree();
    let ended = run(
        &project,
        &[&EXPORTED[..], &["--attribute-filter", "w=[]"]].concat(),
    );
    let texts = [
        "5 problems",
        "workflow.json: /task_list/0/executor",
        "workflow.json: /task_list/2/task",
        "dataset.json: /images/0/zarr_url",
        "local_config.json: /partition",
        "--attribute-filter",
    ];
    let checked = check_answer(&ended, [&before, &project.tree()], &texts);
    assert_eq!(checked, Ok(()), "{}", ended.stderr);
}
