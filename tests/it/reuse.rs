//! What calls have in turn (memory, tables, the scratch folder) is as new for each of them.

use serde_json::json;

use crate::project::{Project, module, parallel_task, temporary_folder};

/// Runs one call after the other on one worker, in a thread and in a process; all must end well.
fn run_in_turn(module: &str, args: &serde_json::Value, check: impl Fn(&Project)) {
    for isolation in ["thread", "process"] {
        let project = Project::new();
        project.write(
            "metadata.json",
            json!({ "c": ["a", "b", "c", "d"] }).to_string(),
        );
        project.workflow(&[parallel_task(0, "t", module, "c", args.clone())]);
        let more = [
            "--metadata",
            "metadata.json",
            "--jobs",
            "1",
            "--keep-going",
            "--isolation",
            isolation,
        ];
        project.run(&more).expect(0);
        check(&project);
    }
}

#[test]
fn no_file_of_a_call_is_left_for_the_next() {
    for left in [
        json!([{ "do": "write", "path": "./left", "text": "x" }]),
        json!([{ "do": "symlink", "from": "elsewhere", "to": "./link" }]),
        json!([{ "do": "make_dir", "path": "./folder" }, { "do": "write", "path": "./folder/x", "text": "x" }]),
        (0..50)
            .map(|n| json!({ "do": "write", "path": format!("./many{n}"), "text": "x" }))
            .collect(),
    ] {
        let mut steps = vec![json!({ "do": "list", "path": "." })];
        steps.extend(left.as_array().expect("steps").iter().cloned());
        run_in_turn(
            &module("probe.wasm"),
            &json!({ "steps": steps }),
            |project| {
                let results = &project.json("work/metadata.json")["probe"];
                for (component, results) in ["a", "b", "c", "d"]
                    .iter()
                    .zip(results.as_array().expect("results"))
                {
                    assert_eq!(
                        results[0]["ok"],
                        json!([format!("0_par_{component}.args.json")]),
                        "{left}"
                    );
                    assert!(
                        results
                            .as_array()
                            .expect("steps")
                            .iter()
                            .all(|step| step.get("ok").is_some()),
                        "{results}"
                    );
                }
            },
        );
    }
}

#[test]
fn no_memory_of_a_call_is_left_for_the_next() {
    // Looks whether all that it has is as it must be at the start, and writes over it at the end: a
    // memory with data, which grows, a table and a global.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
        (memory (export "memory") 100) (data (i32.const 8) "\07")
        (table $t 50 100 funcref) (global $g (mut i64) (i64.const 5))
        (elem declare func $f) (func $f)
        (func $must (param i32) (if (i32.eqz (local.get 0)) (then (call $proc_exit (i32.const 70)))))
        (func $is_zero (param $from i32) (param $to i32)
          (loop $again
            (call $must (i64.eqz (i64.load (local.get $from))))
            (local.set $from (i32.add (local.get $from) (i32.const 8)))
            (br_if $again (i32.lt_u (local.get $from) (local.get $to)))))
        (func (export "_start")
          (call $must (i32.eq (memory.size) (i32.const 100)))
          (call $must (i64.eq (i64.load (i32.const 8)) (i64.const 7)))
          (call $is_zero (i32.const 16) (i32.const 6553600))
          (drop (memory.grow (i32.const 100)))
          (call $is_zero (i32.const 6553600) (i32.const 13107200))
          (call $must (i64.eq (global.get $g) (i64.const 5)))
          (call $must (i32.eq (table.size $t) (i32.const 50)))
          (call $must (ref.is_null (table.get $t (i32.const 49))))
          (drop (table.grow $t (ref.func $f) (i32.const 50)))
          (table.fill $t (i32.const 0) (ref.func $f) (i32.const 100))
          (global.set $g (i64.const 6))
          (memory.fill (i32.const 0) (i32.const 255) (i32.const 13107200))))"#;
    let folder = temporary_folder();
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, wat::parse_str(text).expect("valid WAT")).expect("written");
    run_in_turn(path.to_str().expect("UTF-8"), &json!({}), |_| {});
}
