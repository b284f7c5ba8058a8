//! Folders that guests list: while they and others change them, with names that no guest can be
//! given, and within limits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::project::{ISOLATIONS, Project, module, parallel_task, task};
use crate::sandbox::probe;

#[test]
fn removing_while_listing_removes_all() {
    let steps = json!([
        { "do": "make_dir", "path": "t" },
        { "do": "make_files", "path": "t", "n": 2000 },
        { "do": "remove_all", "path": "t" },
        { "do": "make_dir", "path": "@/out/u" },
        { "do": "make_files", "path": "@/out/u", "n": 2000 },
        { "do": "remove_each", "path": "@/out/u" },
        { "do": "list", "path": "@/out/u" },
    ]);
    probe(
        |_| {},
        &steps,
        &[],
        |project, ended, results| {
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            assert_eq!(
                (&results[2]["ok"], results[2].get("error")),
                (&json!(null), None)
            );
            assert_eq!(
                (&results[5]["ok"], &results[6]["ok"]),
                (&json!(0), &json!([]))
            );
            assert_eq!(
                std::fs::read_dir(project.path("out/u"))
                    .expect("there")
                    .count(),
                0
            );
        },
    );
}

#[test]
fn files_that_stay_are_listed_once_during_writes() {
    for (name, isolation) in ["probe.wasm", "probe.p2.wasm"].into_iter().zip(ISOLATIONS) {
        let project = Project::new();
        for index in 0..500 {
            project.write(&format!("in/f{index:05}"), "");
        }
        let step =
            json!({ "do": "list_often", "path": project.path("in"), "n_files": 500, "n": 150 });
        project.workflow(&[task(0, "probe", &module(name), step)]);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in (0..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                    let new = project.write(&format!("in/n{n}"), "");
                    std::fs::rename(&new, project.path(&format!("in/m{n}"))).expect("renamed");
                    if n >= 50 {
                        std::fs::remove_file(project.path(&format!("in/m{}", n - 50)))
                            .expect("removed");
                    }
                }
            });
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                project.run(&["--isolation", isolation])
            }));
            ended.store(true, Ordering::Relaxed);
            run.expect("no panic").expect(0);
        });
        let expected = json!({ "lacking": 0, "double": 0, "failed": 0 });
        assert_eq!(
            project.json("work/metadata.json")["probe"]["ok"],
            expected,
            "{name}"
        );
    }
}

#[test]
fn names_that_are_not_utf8_are_left_out_with_one_warning() {
    for (name, isolation) in ["probe.wasm", "probe.p2.wasm"]
        .into_iter()
        .flat_map(|name| ISOLATIONS.map(|i| (name, i)))
    {
        let project = Project::new();
        for odd in [&b"plate_\xb5m.tif"[..], b"\xff\x1b[2J"] {
            std::fs::write(project.path("in").join(OsStr::from_bytes(odd)), "").expect("written");
        }
        project.write("in/good.tif", "");
        project.write("in/\u{b5}m.tif", "");
        project.write("metadata.json", json!({ "c": ["a", "b", "c"] }).to_string());
        let list = json!({ "do": "list", "path": project.path("in") });
        let args = json!({ "steps": [list, list, { "do": "list", "path": project.path("out") }] });
        project.workflow(&[
            parallel_task(0, "first", &module(name), "c", args.clone()),
            task(1, "second", &module(name), args),
        ]);
        let ended = project
            .run(&["--metadata", "metadata.json", "--isolation", isolation])
            .expect(0);
        let results = &project.json("work/metadata.json")["probe"];
        assert_eq!(
            results[1]["ok"],
            json!(["good.tif", "\u{b5}m.tif"]),
            "{results}"
        );
        let warning = format!(
            "{}: 2 file names are not UTF-8",
            project.path("in").display()
        );
        for text in [
            &ended.stderr,
            &project.read("work/workflow.log"),
            &project.read("work/events.jsonl"),
        ] {
            assert_eq!(text.matches(&warning).count(), 1, "{text}");
            assert!(text.contains("xB5m.tif") || text.contains("xFF"), "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
    }
}

#[test]
fn an_exec_warns_of_names_that_are_not_utf8() {
    let project = Project::new();
    std::fs::create_dir(project.path("data")).expect("made");
    std::fs::write(
        project.path("data").join(OsStr::from_bytes(b"\xb5m.tif")),
        "",
    )
    .expect("written");
    project.write(
        "files/args.json",
        json!({ "do": "list", "path": "/data" }).to_string(),
    );
    let mounts = ["--mount", "files::/files:rw", "--mount", "data::/data"];
    let arguments = [
        "--",
        "-j",
        "/files/args.json",
        "--metadata-out",
        "/files/metadiff.json",
    ];
    let ended =
        project.mandelbox(&[&["exec", &module("probe.wasm")], &mounts[..], &arguments].concat());
    assert_eq!(
        project.json("files/metadiff.json")["probe"]["ok"],
        json!([])
    );
    ended
        .expect(0)
        .reports(&[r#"/data: the file name "\xB5m.tif" is not UTF-8"#]);
}

#[test]
fn deterministic_listings_are_sorted() {
    let prepare = |project: &Project| {
        for name in ["b", "a", "c/x", "B", "\u{e4}", "10", "9"] {
            project.write(&format!("in/{name}"), "");
        }
    };
    let steps = json!([{ "do": "list_as_is", "path": "@/in" }]);
    probe(prepare, &steps, &["--deterministic"], |_, _, results| {
        assert_eq!(
            results[0]["ok"],
            json!(["10", "9", "B", "a", "b", "c", "\u{e4}"])
        );
    });
}

/// Opens its folder at /d 600 times and begins to list it each time: exit code 7 when it has no
/// memory for one, 1 when all could be begun, 2 for any other error.
const LISTS_OFTEN: &str = r#"
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_readdir" (func $list (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) ".")
  (func $begin (result i32)
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 2)
      (i64.const 0x4002) (i64.const 0x4002) (i32.const 0) (i32.const 16)) (then (call $exit (i32.const 2))))
    (call $list (i32.load (i32.const 16)) (i32.const 64) (i32.const 1000) (i64.const 0) (i32.const 20)))
  (func (export "_start") (local $n i32) (local $errno i32)
    (loop $next
      (local.set $errno (call $begin))
      (if (i32.eq (local.get $errno) (i32.const 48)) (then (call $exit (i32.const 7))))
      (if (local.get $errno) (then (call $exit (i32.const 2))))
      CLOSE
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 600))))
    (call $exit (i32.const 1)))
"#;

#[test]
fn open_listings_count_against_the_memory() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        std::fs::create_dir(project.path("d")).expect("made");
        for index in 0..4000 {
            std::fs::write(
                project.path(&format!("d/a_name_of_some_length_{index:05}")),
                "",
            )
            .expect("written");
        }
        let close = "(drop (call $close (i32.load (i32.const 16))))";
        for (close, expected) in [("", 7), (close, 1)] {
            let text = format!("(module {})", LISTS_OFTEN.replace("CLOSE", close));
            project.write("guest.wasm", wat::parse_str(text).expect("valid WAT"));
            let options = [
                "--memory",
                "16MiB",
                "--isolation",
                isolation,
                "--mount",
                "d::/d",
                "--",
            ];
            let ended = project.mandelbox(&[&["exec", "guest.wasm"], &options[..]].concat());
            assert_eq!(ended.code, expected, "{}", ended.stderr);
        }
    }
}

#[test]
fn a_listing_is_within_the_time_limit() {
    let project = Project::new();
    std::fs::create_dir(project.path("in/many")).expect("made");
    for index in 0..50_000 {
        std::fs::write(project.path(&format!("in/many/{index}")), "").expect("written");
    }
    let step = json!({ "do": "list_often", "path": project.path("in/many"), "n_files": 0, "n": 1_000_000 });
    for name in ["probe.wasm", "probe.p2.wasm"] {
        project.workflow(&[task(0, "probe", &module(name), step.clone())]);
        let _ = std::fs::remove_dir_all(project.path("work"));
        let ended = project
            .run(&["--timeout", "1s"])
            .expect(4)
            .reports(&["exceeded its time limit of 1 s"]);
        assert!(ended.elapsed.as_secs_f64() < 5.0, "{:?}", ended.elapsed);
    }
}
