//! `mandelbox run`, end to end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::project::{Project, module, parallel_task, task};

fn swiss() -> String {
    module("swiss.wasm")
}

#[test]
fn a_component_is_called_like_a_core_module() {
    let project = Project::new();
    let metadiff = json!({ "metadiff": { "well": ["A", "B"] } });
    project.workflow(&[
        task(0, "one", &module("swiss.p2.wasm"), metadiff),
        parallel_task(
            1,
            "two",
            &module("swiss.p2.wasm"),
            "well",
            json!({ "echo": ["component"] }),
        ),
    ]);
    project.run(&[]).expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!([{ "component": "A" }, { "component": "B" }])
    );
}

#[test]
fn a_component_that_fails_has_exit_code_1() {
    let project = Project::new();
    project.workflow(&[task(
        0,
        "one",
        &module("swiss.p2.wasm"),
        json!({ "stderr": "why\n", "exit": 7 }),
    )]);
    project
        .run(&[])
        .expect(3)
        .says(&["exited with code 1", "| why"]);
}

#[test]
fn colliding_components_are_called_once_each() {
    let project = Project::new();
    let names = ["a/b", "a b", "A.B"];
    let components: Vec<_> = (0..1000).map(|index| names[index % 3]).collect();
    project.write("metadata.json", json!({ "c": components }).to_string());
    project.workflow(&[parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "echo": ["component"] }),
    )]);
    project
        .run(&["--metadata", "metadata.json", "--jobs", "4"])
        .expect(0);
    let expected: Vec<_> = components
        .iter()
        .map(|component| json!({ "component": component }))
        .collect();
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        Value::Array(expected)
    );
    let files: Vec<_> = project
        .tree()
        .into_iter()
        .filter(|path| path.ends_with(".args.json"))
        .collect();
    assert_eq!(files.len(), 1000);
    for (index, path) in files.iter().enumerate() {
        let (args, metadiff) = (
            project.json(path),
            project.json(&path.replace(".args.", ".metadiff.")),
        );
        assert_eq!(args["component"], metadiff["echo"]["component"], "{index}");
    }
}

#[test]
fn calls_run_in_a_sliding_window() {
    let project = Project::new();
    let sleeps: Vec<_> = (0..8)
        .map(|index| if index == 0 { 4000 } else { 10 })
        .collect();
    let components: Vec<_> = (0..8).map(|index| format!("c{index}")).collect();
    let per_component: serde_json::Map<_, _> = components
        .iter()
        .cloned()
        .zip(sleeps.iter().map(|ms| json!({ "sleep_ms": ms })))
        .collect();
    project.write("metadata.json", json!({ "c": components }).to_string());
    let mut par = parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "per_component": per_component }),
    );
    par["meta"] = json!({ "parallel_tasks_per_job": 2 });
    project.workflow(&[par]);
    project
        .run(&["--metadata", "metadata.json", "--jobs", "8"])
        .expect(0);
    let events = events(&project);
    let position = |kind: &str, item: &str| {
        events
            .iter()
            .position(|event| event["event"] == kind && event["item"] == item)
            .expect("recorded")
    };
    // With a barrier after each two calls, the third would wait for the first.
    assert!(position("call_started", "c2") < position("call_finished", "c0"));
    let mut running: i32 = 0;
    for event in &events {
        match event["event"].as_str() {
            Some("call_started") => running += 1,
            Some("call_finished") => running -= 1,
            _ => {}
        }
        assert!(running <= 2, "three calls at a time");
    }
}

fn events(project: &Project) -> Vec<Value> {
    let text = project.read("work/events.jsonl");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn events_are_numbered_and_complete() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["A", "B", "C"] }).to_string());
    let fails = json!({ "per_component": { "B": { "exit": 3, "sleep_ms": 100 } } });
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", fails)]);
    let ended = project
        .run(&[
            "--metadata",
            "metadata.json",
            "--keep-going",
            "--events",
            "-",
            "--quiet",
        ])
        .expect(3);
    let events = events(&project);
    assert_eq!(events[0]["format_version"], 3);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index);
    }
    let printed: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(printed, events, "--events - prints what the log holds");
    let ends: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "call_finished")
        .collect();
    let outcome = |component: &str| {
        let end = ends
            .iter()
            .find(|event| event["item"] == component)
            .expect("ended");
        (
            end["outcome"].as_str().expect("an outcome").to_owned(),
            end["code"].clone(),
        )
    };
    assert_eq!(outcome("A"), ("succeeded".to_owned(), Value::Null));
    assert_eq!(outcome("B"), ("exited".to_owned(), json!(3)));
    let last = events.last().expect("an event");
    assert_eq!(
        (&last["event"], &last["status"], &last["error"]),
        (
            &json!("run_finished"),
            &json!("failed"),
            &json!("TaskExecutionError")
        )
    );
}

#[test]
fn one_failure_stops_new_calls() {
    let check = |more: &[&str], expected_calls: std::ops::RangeInclusive<usize>| {
        let project = Project::new();
        let components: Vec<_> = (0..20).map(|index| format!("c{index}")).collect();
        project.write("metadata.json", json!({ "c": components }).to_string());
        let args = json!({ "sleep_ms": 20, "per_component": { "c0": { "exit": 1, "sleep_ms": 0 }, "c1": { "exit": 1, "sleep_ms": 0 } } });
        project.workflow(&[
            parallel_task(0, "par", &swiss(), "c", args),
            task(1, "never", &swiss(), json!({})),
        ]);
        let mut arguments = vec!["--metadata", "metadata.json", "--jobs", "2"];
        arguments.extend(more);
        project
            .run(&arguments)
            .expect(3)
            .says(&["component \"c0\"", "component \"c1\""]);
        let started = events(&project)
            .iter()
            .filter(|event| event["event"] == "call_started")
            .count();
        assert!(expected_calls.contains(&started), "{started} calls started");
        let left = std::fs::read_dir(project.path("work/1_never"))
            .expect("made before the run")
            .count();
        assert_eq!(left, 0, "the task after a failed one never runs");
        assert!(!project.path("work/metadata.json").exists());
    };
    check(&[], 2..=3);
    check(&["--keep-going"], 20..=20);
}

#[test]
fn a_thousand_readers_never_see_half_a_record() {
    let project = Project::new();
    let blob = "x".repeat(5_000);
    let args = |order| json!({ "metadiff": { format!("k{order}"): blob }, "sleep_ms": 50 });
    let tasks: Vec<_> = (0..8)
        .map(|order| task(order, "t", &swiss(), args(order)))
        .collect();
    project.workflow(&tasks);
    let done = AtomicBool::new(false);
    let path = project.path("work/metadata.json");
    let read_until_done = || {
        let mut n_read = 0;
        while !done.load(Ordering::Relaxed) {
            if let Ok(text) = std::fs::read(&path) {
                serde_json::from_slice::<Value>(&text).expect("a whole file");
                n_read += 1;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        n_read
    };
    let n_read: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..1000).map(|_| scope.spawn(read_until_done)).collect();
        project.run(&[]).expect(0);
        done.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no half file"))
            .sum()
    });
    assert!(n_read > 1000, "{n_read} reads");
}

#[test]
fn an_empty_component_list_runs_nothing() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": [] }).to_string());
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", json!({}))]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    let item = &project.json("work/history.json")[0];
    assert_eq!(
        item["parallelization"],
        json!({ "parallelization_level": "c", "component_list": [] })
    );
    assert_eq!(item["mandelbox"]["n_components"], 0);
}

#[test]
fn task_files_are_kept_as_asked() {
    let check = |which: &str, expected: &[&str]| {
        let project = Project::new();
        project.write("metadata.json", json!({ "c": ["A", "B"] }).to_string());
        let args = json!({ "metadiff": { "v": 1 }, "stdout": "o", "per_component": { "B": { "stderr": "e", "exit": 1 } } });
        project.workflow(&[parallel_task(0, "par", &swiss(), "c", args)]);
        project
            .run(&[
                "--metadata",
                "metadata.json",
                "--keep-going",
                "--task-files",
                which,
            ])
            .expect(3);
        let files: BTreeSet<_> = project
            .tree()
            .into_iter()
            .filter_map(|path| path.strip_prefix("work/0_par/0_par_").map(str::to_owned))
            .collect();
        assert_eq!(
            files,
            expected.iter().map(|name| (*name).to_owned()).collect(),
            "{which}"
        );
        if which == "failed" {
            assert_eq!(
                (
                    project.read("work/0_par/0_par_b.out"),
                    project.read("work/0_par/0_par_b.err")
                ),
                ("o".into(), "e".into())
            );
            assert_eq!(
                project.json("work/0_par/0_par_b.args.json")["component"],
                "B"
            );
        }
    };
    let b = ["b.args.json", "b.err", "b.metadiff.json", "b.out"];
    let all = [
        &["a.args.json", "a.err", "a.metadiff.json", "a.out"][..],
        &b,
    ]
    .concat();
    check("all", &all);
    check("failed", &b);
    check("none", &[]);
}

#[test]
fn result_goes_where_it_is_asked_for() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    let ended = project.run(&["--result", "-", "--quiet"]).expect(0);
    assert_eq!(ended.stderr, "");
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(printed, project.json("work/result.json"));
    assert_eq!(printed["metadata"], json!({ "a": 1 }));

    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "exit": 1 }))]);
    project.run(&["--result", "result.json"]).expect(3);
    let result = project.json("result.json");
    assert_eq!(result["history"][0]["status"], "failed");
    assert_eq!(
        result["history"][0]["parallelization"],
        json!({ "parallelization_level": null })
    );
}

#[test]
fn metadata_keys_keep_args_small() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["A"], "big": "x", "wanted": 1 }).to_string(),
    );
    let mut par = parallel_task(0, "par", &swiss(), "c", json!({ "echo": ["metadata"] }));
    par["meta"] = json!({ "mandelbox": { "metadata_keys": ["wanted"] } });
    project.workflow(&[par]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!([{ "metadata": { "wanted": 1 } }])
    );
}

#[test]
fn a_work_directory_with_a_blank_and_brackets_is_fine() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "echo": ["output_path"] }))]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "my out (1)",
        "--work-dir",
        "my work & (2)",
    ];
    project.mandelbox(&arguments).expect(0);
    let output = project.path("my out (1)");
    assert_eq!(
        project.json("my work & (2)/metadata.json")["echo"]["output_path"],
        output.to_str().expect("UTF-8")
    );
}

#[test]
fn the_default_work_directory_is_new_each_time() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    for _ in 0..3 {
        project
            .mandelbox(&["run", "workflow.json", "--output", "out"])
            .expect(0);
    }
    let runs: Vec<_> = project
        .tree()
        .into_iter()
        .filter(|path| path.starts_with("mandelbox-runs/test_") && path.ends_with("result.json"))
        .collect();
    assert_eq!(runs.len(), 3, "{runs:?}");
}

#[test]
fn the_dataset_flows_through_an_exported_workflow_with_a_package() {
    let project = Project::new();
    let manifest = json!({
        "manifest_version": "1",
        "has_args_schemas": true,
        "args_schema_version": "pydantic_v1",
        "task_list": [{
            "name": "Swiss Task", "executable": "swiss.wasm", "input_type": "image", "output_type": "zarr",
            "meta": { "parallel_tasks_per_job": 3 },
            "args_schema": {
                "type": "object", "additionalProperties": false, "required": ["input_paths", "echo"],
                "properties": { "input_paths": {}, "echo": { "type": "array" }, "size": { "type": "integer", "default": 7 } },
            },
        }],
    });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    std::fs::copy(swiss(), project.path("package/swiss.wasm")).expect("copied");
    project.workflow(&[
        json!({ "args": { "echo": ["size"] }, "task": { "source": "package:swiss_task" } }),
    ]);
    project
        .run(&[
            "--tasks",
            "package",
            "--input-type",
            "image",
            "--output-type",
            "zarr",
        ])
        .expect(0);
    assert_eq!(
        project.json("work/metadata.json")["echo"],
        json!({ "size": 7 })
    );
    let item = project.json("work/history.json")[0]["workflowtask"].clone();
    assert_eq!(item["args"], json!({ "size": 7, "echo": ["size"] }));
    assert_eq!(item["meta"], json!({ "parallel_tasks_per_job": 3 }));
    assert_eq!(item["task"]["source"], "package:swiss_task");

    let wrong = project.mandelbox(&[
        "run",
        "workflow.json",
        "--tasks",
        "package",
        "--output",
        "out",
        "--input-type",
        "text",
    ]);
    wrong
        .expect(2)
        .says(&["Incompatible types `image` of workflow `test` and `text`"]);
}

#[test]
fn a_metadiff_with_the_librarys_own_key_ends_its_call_only() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["bad", "good"] }).to_string());
    let raw = "{\"$serde_json::private::Number\":".repeat(20_000);
    let args = json!({ "metadiff": { "v": 1 }, "per_component": { "bad": { "metadiff_raw": raw, "metadiff": null } } });
    project.workflow(&[parallel_task(0, "par", &swiss(), "c", args)]);
    let ended = project
        .run(&["--metadata", "metadata.json", "--keep-going"])
        .expect(3);
    ended.says(&[
        "component \"bad\" returned an invalid output",
        "nested deeper than 256 levels",
    ]);
    assert!(project.read("work/events.jsonl").contains("run_finished"));
}

#[test]
fn a_result_can_go_to_what_is_no_plain_file() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    project.run(&["--result", "/dev/null", "--quiet"]).expect(0);
    assert!(!std::fs::metadata("/dev/null").expect("there").is_file());

    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    project.write("target.json", "old");
    std::os::unix::fs::symlink("target.json", project.path("link.json")).expect("made");
    project.run(&["--result", "link.json"]).expect(0);
    assert!(project.path("link.json").is_symlink());
    assert_eq!(project.json("target.json")["metadata"], json!({ "a": 1 }));
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("there")
    };
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--quiet",
        "--work-dir",
    ];
    let run = |more: &[&str]| {
        let mut command = project.command(&[&arguments[..], more].concat());
        command.stdout(full()).stderr(std::process::Stdio::piped());
        let output = command
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("ended");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, stderr) = run(&["w1", "--result", "-"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("failed to write to stdout"), "{stderr}");
    run(&["w2", "--events", "-"]);
    assert!(
        project
            .read("w2/workflow.log")
            .contains("a report of this run is incomplete")
    );
}

#[test]
fn deep_metadata_can_start_the_next_run() {
    let project = Project::new();
    let deep = format!("{{\"d\": {}{}}}", "[".repeat(255), "]".repeat(255));
    project.write("metadata.json", json!({ "c": ["a"] }).to_string());
    project.workflow(&[parallel_task(
        0,
        "par",
        &swiss(),
        "c",
        json!({ "metadiff_raw": deep }),
    )]);
    project.run(&["--metadata", "metadata.json"]).expect(0);
    project.workflow(&[task(0, "t", &swiss(), json!({}))]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "w2",
        "--metadata",
        "work/metadata.json",
    ];
    project.mandelbox(&arguments).expect(0);
}

#[test]
fn folders_have_fractals_mode_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    project.workflow(&[
        task(0, "one", &swiss(), json!({ "exit": 1 })),
        task(1, "two", &swiss(), json!({})),
    ]);
    let program = env!("CARGO_BIN_EXE_mandelbox");
    let line = format!("umask 077; '{program}' run workflow.json --output out --work-dir work");
    let status = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(project.path(""))
        .output();
    assert_eq!(status.expect("a shell").status.code(), Some(3));
    for folder in ["work", "work/0_one", "work/1_two"] {
        let mode = std::fs::metadata(project.path(folder))
            .expect(folder)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}");
    }
}

#[test]
fn calls_do_not_take_each_others_files() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["a", "b", "c", "d"] }).to_string(),
    );
    let open = json!({ "do": "open_files", "path": project.write("in/a.txt", "x"), "n": 900 });
    project.workflow(&[parallel_task(
        0,
        "par",
        &module("probe.wasm"),
        "c",
        json!({ "steps": [open] }),
    )]);
    let program = env!("CARGO_BIN_EXE_mandelbox");
    let line = format!(
        "ulimit -n 256; '{program}' run workflow.json --input in --output out --work-dir work \
         --metadata metadata.json --jobs 2"
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(project.path(""))
        .output();
    let code = status.expect("a shell").status.code();
    let log = project.read("work/workflow.log");
    assert!(
        log.contains("ulimit -n: each call can open 104 files instead of 1000"),
        "{log}"
    );
    let events = project.read("work/events.jsonl");
    // Each call meets its own limit; none meets the process's.
    assert_eq!(
        events.matches("\"outcome\":\"host_failed\"").count(),
        0,
        "{events}"
    );
    assert!(matches!(code, Some(0 | 3 | 4)), "{code:?}");
}

#[test]
fn calls_start_only_while_the_disk_has_the_room_that_the_policy_asks_for() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &swiss(), json!({ "metadiff": { "a": 1 } }))]);
    let run = |free_space: &str, work: &str| {
        project.write(
            "policy.toml",
            format!("[host]\nfree_space = \"{free_space}\"\n"),
        );
        project.mandelbox(&[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            work,
            "--policy",
            "policy.toml",
        ])
    };
    run("1MiB", "enough").expect(0);
    run("1000000TiB", "too-little")
        .expect(4)
        .says(&["free space for a call in", "host.free_space is 1000000 TiB"]);
    assert_eq!(
        project.json("too-little/result.json")["history"][0]["status"],
        "failed"
    );
}

#[test]
fn paths_in_args_that_no_option_grants_are_reported() {
    let project = Project::new();
    project.write("profiles/a.txt", "x");
    let file = project.path("profiles/a.txt");
    let args = json!({ "touch": [], "profile": { "path": file }, "missing": "/no/such/file" });
    project.workflow(&[task(0, "t", &swiss(), args)]);
    let folder = file.parent().expect("a folder").display().to_string();
    let ended = project.run(&["--dry-run"]).expect(0);
    assert!(
        !ended.stderr.contains("/no/such/file` in"),
        "{}",
        ended.stderr
    );
    ended.says(&[
        "args of task 0",
        "`/profile/path`",
        &format!("add `--read {folder}`"),
    ]);
    let ended = project.run(&["--dry-run", "--read", "profiles"]).expect(0);
    assert!(
        !ended.stderr.contains("grants no access"),
        "{}",
        ended.stderr
    );
}
