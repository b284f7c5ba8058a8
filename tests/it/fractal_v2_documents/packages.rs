//! Broken packages, and the name of a package.

use super::*;

#[test]
fn broken_packages_are_refused() {
    let set = |pointer, value| Set(MANIFEST, pointer, value);
    let at = |pointer: &str| format!("__FRACTAL_MANIFEST__.json: {pointer}");
    let [version, name, kind, meta, types] = [
        "/manifest_version",
        "/task_list/1/name",
        "/task_list/0/type",
        "/task_list/0/meta_non_parallel",
        "/task_list/1/input_types",
    ]
    .map(at);
    const MODULE: &str = "site-mandelbox-swiss-1.0.0/mandelbox_swiss/swiss.wasm";
    check_all(
        &EXPORTED,
        vec![
            (set("/manifest_version", json!(2)), &[], &[&version]),
            (
                set("/task_list/1/name", json!("first")),
                &[],
                &[&name, "first"],
            ),
            (
                set("/task_list/0/type", json!("non_parallel")),
                &[],
                &[&kind],
            ),
            (
                set("/task_list/0/type", json!("paralel")),
                &[],
                &[&kind, "parallel"],
            ),
            (
                set("/task_list/0/meta_non_parallel", json!({ "mem": 1 })),
                &[],
                &[&meta],
            ),
            (set("/task_list/1/input_types", json!([])), &[], &[&types]),
            (
                Remove(MANIFEST, "/task_list/0/executable_parallel"),
                &[],
                &["__FRACTAL_MANIFEST__.json: /task_list/0", "executable"],
            ),
            (
                set("/has_args_schemas", json!(true)),
                &[],
                &[
                    "__FRACTAL_MANIFEST__.json: /task_list/1",
                    "args_schema_non_parallel",
                ],
            ),
            (
                set("/task_list/0/docs_link", json!("x")),
                &[],
                &["/task_list/0/docs_link"],
            ),
            (Delete(MANIFEST), &[], &["mandelbox_swiss"]),
            (Delete(MODULE), &[], &["executable_parallel", "swiss.wasm"]),
            (Text(MODULE, "#!/bin/sh\n"), &[], &["swiss.wasm"]),
            (
                Replace(METADATA, "\nVersion: 1.0.0", ""),
                &[],
                &["METADATA", "Version"],
            ),
            (Delete(METADATA), &[], &["mandelbox_swiss"]),
            (Nothing, &["--tasks", "none"], &["none"]),
        ],
    );
}

/// Keys of the manifest stand for metadata that is not there, and only then.
#[test]
fn a_package_has_its_name_from_its_metadata_or_its_manifest() {
    let project = project();
    std::fs::remove_file(project.path(METADATA)).expect("removed");
    std::fs::remove_dir_all(project.path(&format!("{SITE}/mandelbox_swiss-1.0.0.dist-info")))
        .expect("removed");
    apply(&project, &Set(MANIFEST, "/pkg_name", json!(NAME)));
    apply(&project, &Set(MANIFEST, "/version", json!("1.0.0")));
    project.write(&format!("{PACKAGE}/unused.wasm"), empty_module());
    run(&project, &EXPORTED).expect(0);
    std::fs::remove_dir_all(project.path("work")).expect("removed");
    apply(&project, &Set(MANIFEST, "/version", json!("1.0.1")));
    run(&project, &EXPORTED)
        .expect(2)
        .reports(&["workflow.json: /task_list/0/task", "1.0.1"]);
}
