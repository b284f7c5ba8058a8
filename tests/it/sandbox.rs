//! What a guest sees and may use, asked from inside by the `probe` module.

use std::time::Duration;

use serde_json::{Value, json};

use crate::project::{Ended, ISOLATIONS, Project, module, parallel_task, task};

/// Runs the steps in a single task of each kind of module, in a thread and in a process, and hands
/// the results to `check`.
pub fn probe(
    prepare: impl Fn(&Project),
    steps: &Value,
    more: &[&str],
    check: impl Fn(&Project, &Ended, &[Value]),
) {
    let names = ["probe.wasm", "probe.p2.wasm"];
    for (name, isolation) in names
        .into_iter()
        .flat_map(|name| [(name, "thread"), (name, "process")])
    {
        let project = Project::new();
        prepare(&project);
        let root = project.path("");
        let root = root.to_str().expect("UTF-8").trim_end_matches('/');
        let steps: Value =
            serde_json::from_str(&steps.to_string().replace("@", root)).expect("JSON");
        project.workflow(&[task(0, "probe", &module(name), json!({ "steps": steps }))]);
        let ended = project.run(&[more, &["--isolation", isolation]].concat());
        let results = match ended.code {
            0 => project.json("work/metadata.json")["probe"]
                .as_array()
                .expect("results")
                .clone(),
            _ => Vec::new(),
        };
        check(&project, &ended, &results);
    }
}

#[track_caller]
fn assert_refused(result: &Value) {
    assert!(result.get("error").is_some(), "{result}");
}

#[test]
fn nothing_of_the_host_leaks_in() {
    let steps = json!([{ "do": "env" }, { "do": "stdin" }, { "do": "argv" }, { "do": "list", "path": "." }]);
    probe(
        |_| {},
        &steps,
        &[],
        |project, _, results| {
            assert_eq!(results[0]["ok"], json!({}));
            assert_eq!(results[1]["ok"], 0);
            let folder = project.path("work/0_probe");
            let file = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
            let argv = results[2]["ok"].as_array().expect("arguments");
            assert_eq!(
                argv[1..],
                [
                    json!("-j"),
                    json!(file("0.args.json")),
                    json!("--metadata-out"),
                    json!(file("0.metadiff.json"))
                ]
            );
            assert_eq!(results[3]["ok"], json!(["0.args.json"]));
        },
    );
}

#[test]
fn folders_have_the_rights_that_were_granted() {
    let prepare = |project: &Project| {
        project.write("in/a.txt", "input");
        project.write("outside/secret", "SECRET");
    };
    let steps = json!([
        { "do": "read", "path": "@/in/a.txt" },
        { "do": "write", "path": "@/in/a.txt", "text": "changed" },
        { "do": "write", "path": "@/in/new.txt", "text": "new" },
        { "do": "remove", "path": "@/in/a.txt" },
        { "do": "write", "path": "@/out/new.txt", "text": "made" },
        { "do": "read", "path": "@/outside/secret" },
        { "do": "read", "path": "@/in/../outside/secret" },
        { "do": "read", "path": "../outside/secret" },
        { "do": "symlink", "from": "../outside", "to": "@/out/link" },
        { "do": "read", "path": "@/out/link/secret" },
        { "do": "rename", "from": "@/in/a.txt", "to": "@/out/a.txt" },
        { "do": "hard_link", "from": "@/in/a.txt", "to": "@/out/a.txt" },
        { "do": "list", "path": "@/work" },
        { "do": "read", "path": "@/work/events.jsonl" },
        { "do": "read", "path": "@/work/workflow.log" },
    ]);
    probe(prepare, &steps, &[], |project, _, results| {
        assert_eq!(results[0]["ok"], "input");
        for index in [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14] {
            assert_refused(&results[index]);
        }
        assert!(results[4].get("ok").is_some());
        assert_eq!(project.read("in/a.txt"), "input");
        assert_eq!(project.read("out/new.txt"), "made");
        assert!(!project.path("in/new.txt").exists() && !project.path("out/a.txt").exists());
        assert!(
            !project
                .read("work/0_probe/0.metadiff.json")
                .contains("SECRET")
        );
    });
}

/// A command as Go's library makes them: its working directory is the first folder that it is
/// given, which it finds by its absolute path. Writes work.tmp there: exit code 0, or WASI's error
/// number; 99 if the path is not absolute.
const WRITES_IN_FIRST_FOLDER: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "work.tmp")
  (func (export "_start")
    (drop (call $name (i32.const 3) (i32.const 1000) (i32.const 4096)))
    (if (i32.ne (i32.load8_u (i32.const 1000)) (i32.const 47)) (then (call $exit (i32.const 99))))
    (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 1)
      (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 300)))))"#;

#[test]
fn the_first_folder_is_the_scratch_folder() {
    for isolation in ISOLATIONS {
        for input in [&["--input", "in"][..], &[]] {
            let project = Project::new();
            let path = project.write(
                "guest.wasm",
                wat::parse_str(WRITES_IN_FIRST_FOLDER).expect("valid WAT"),
            );
            project.write("metadata.json", json!({ "c": ["a", "b"] }).to_string());
            project.workflow(&[parallel_task(
                0,
                "t",
                path.to_str().expect("UTF-8"),
                "c",
                json!({}),
            )]);
            let options = [
                "run",
                "workflow.json",
                "--output",
                "out",
                "--work-dir",
                "work",
                "--isolation",
                isolation,
            ];
            project
                .mandelbox(&[&options, &["--metadata", "metadata.json"][..], input].concat())
                .expect(0);
            assert!(
                !project.tree().iter().any(|path| path.contains("work.tmp")),
                "{:?}",
                project.tree()
            );
        }
    }
}

#[test]
fn tmp_is_the_scratch_folder() {
    let steps = json!([
        { "do": "write", "path": "/tmp/a.txt", "text": "a" },
        { "do": "read", "path": "a.txt" },
        { "do": "write", "path": "@/out/b.txt", "text": "b" },
        { "do": "read", "path": "/tmp/mandelbox-test" },
        { "do": "rename", "from": "/tmp/a.txt", "to": "@/out/a.txt" },
    ]);
    probe(
        |_| {},
        &steps,
        &[],
        |project, _, results| {
            assert_eq!(results[1]["ok"], "a");
            assert_eq!(
                (project.read("out/a.txt"), project.read("out/b.txt")),
                ("a".to_owned(), "b".to_owned())
            );
            assert_refused(&results[3]);
        },
    );
}

#[test]
fn calls_do_not_see_each_other() {
    let project = Project::new();
    project.write("metadata.json", json!({ "c": ["a", "b"] }).to_string());
    let folder = project.path("work/0_probe");
    let folder = folder.to_str().expect("UTF-8");
    let steps = json!([
        { "do": "sleep_ms", "ms": 200 },
        { "do": "list", "path": folder },
        { "do": "write", "path": format!("{folder}/0_par_b.metadiff.json"), "text": "{\"forged\": 1}" },
        { "do": "write", "path": format!("{folder}/0_par_a.out"), "text": "forged" },
    ]);
    project.workflow(&[parallel_task(
        0,
        "probe",
        &module("probe.wasm"),
        "c",
        json!({ "steps": steps }),
    )]);
    project
        .run(&["--metadata", "metadata.json", "--jobs", "2"])
        .expect(0);
    let metadata = project.json("work/metadata.json");
    assert!(metadata.get("forged").is_none());
    let lists: Vec<_> = metadata["probe"]
        .as_array()
        .expect("results")
        .iter()
        .map(|results| results[1]["ok"].clone())
        .collect();
    assert_eq!(
        lists,
        [json!(["0_par_a.args.json"]), json!(["0_par_b.args.json"])]
    );
    assert_eq!(project.read("work/0_probe/0_par_a.out"), "");
    assert!(
        !project.path("work/.scratch").exists(),
        "scratch folders are gone"
    );
}

#[test]
fn exit_codes_come_out_as_they_are() {
    for code in [1, 125, 126, 255, 256, -1] {
        let project = Project::new();
        project.workflow(&[task(
            0,
            "probe",
            &module("probe.wasm"),
            json!({ "do": "exit", "code": code }),
        )]);
        project
            .run(&[])
            .expect(3)
            .reports(&[&format!("exited with code {code}")]);
    }
}

#[test]
fn traps_are_distinguished_from_exits() {
    for (step, text) in [
        ("trap", "unreachable"),
        ("panic", "unreachable"),
        ("recurse", "call stack exhausted"),
    ] {
        probe(
            |_| {},
            &json!([{ "do": step }]),
            &[],
            |_, ended, _| {
                assert_eq!(ended.code, 4, "{}", ended.stderr);
                assert!(
                    ended.stderr.contains("JobExecutionError") && ended.stderr.contains(text),
                    "{}",
                    ended.stderr
                );
            },
        );
    }
}

#[test]
fn special_files_in_an_input_are_never_opened() {
    let prepare = |project: &Project| {
        let fifo = project.path("in/fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .expect("mkfifo")
                .success()
        );
        std::os::unix::fs::symlink("fifo", project.path("in/link")).expect("made");
        let socket =
            std::os::unix::net::UnixListener::bind(project.path("in/socket")).expect("made");
        drop(socket);
        project.write("in/a.txt", "input");
    };
    let steps = json!([
        { "do": "read", "path": "@/in/fifo" },
        { "do": "read", "path": "@/in/link" },
        { "do": "read", "path": "@/in/socket" },
        { "do": "open_files", "path": "@/in/fifo", "n": 3 },
        { "do": "list", "path": "@/in" },
        { "do": "read", "path": "@/in/a.txt" },
    ]);
    probe(
        prepare,
        &steps,
        &["--timeout", "20s"],
        |_, ended, results| {
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            for result in &results[..4] {
                assert_refused(result);
            }
            assert_eq!(results[4]["ok"].as_array().map(Vec::len), Some(4));
            assert_eq!(results[5]["ok"], "input");
        },
    );
}

#[test]
fn six_hundred_fifos_leave_nothing_behind() {
    let project = Project::new();
    let components: Vec<_> = (0..600).map(|index| format!("c{index}")).collect();
    let fifo = project.path("in/fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );
    project.write("metadata.json", json!({ "c": components }).to_string());
    project.workflow(&[
        parallel_task(
            0,
            "fifos",
            &module("probe.wasm"),
            "c",
            json!({ "do": "read", "path": fifo }),
        ),
        task(
            1,
            "good",
            &module("swiss.wasm"),
            json!({ "metadiff": { "well": "done" } }),
        ),
    ]);
    project
        .run(&["--metadata", "metadata.json", "--timeout", "2s"])
        .expect(0);
    assert_eq!(project.json("work/metadata.json")["well"], "done");
}

#[test]
fn a_guests_words_cannot_forge_lines() {
    let project = Project::new();
    let text = "\u{1b}[2J\u{1b}]0;owned\u{7}red\nerror: forged\r\u{9b}31m\u{202e}abc";
    let name = "t\u{1b}[31m\nEND";
    project.write("metadata.json", json!({ "c": [text] }).to_string());
    let args = json!({ "stderr": text, "exit": 1 });
    project.workflow(&[parallel_task(0, name, &module("swiss.wasm"), "c", args)]);
    let ended = project
        .run(&["--metadata", "metadata.json", "--verbose"])
        .expect(3);
    for printed in [ended.stderr.as_str(), &project.read("work/workflow.log")] {
        let odd = printed
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(odd, None, "{printed:?}");
        assert!(
            !printed
                .lines()
                .any(|line| line.starts_with("error: forged") || line.starts_with("END")),
            "{printed}"
        );
    }
}

#[test]
fn deterministic_runs_give_the_same_bytes() {
    let steps = json!([{ "do": "random" }, { "do": "clock" }, { "do": "random" }]);
    for name in ["probe.wasm", "probe.p2.wasm"] {
        let run = |more: &[&str]| {
            let project = Project::new();
            project.write("metadata.json", json!({ "c": ["a", "b"] }).to_string());
            project.workflow(&[parallel_task(
                0,
                "probe",
                &module(name),
                "c",
                json!({ "steps": steps }),
            )]);
            let mut arguments = vec!["--metadata", "metadata.json"];
            arguments.extend(more);
            project.run(&arguments).expect(0);
            project.json("work/metadata.json")["probe"].clone()
        };
        let first = run(&["--deterministic"]);
        assert_eq!(first, run(&["--deterministic"]));
        assert_ne!(
            first[0][0], first[1][0],
            "components have numbers of their own"
        );
        assert_ne!(first, run(&[]));
    }
}

#[test]
fn a_worker_process_that_dies_takes_its_call_only() {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "c": ["victim", "b", "c", "d"] }).to_string(),
    );
    let args =
        json!({ "metadiff": { "v": 1 }, "per_component": { "victim": { "sleep_ms": 60_000 } } });
    project.workflow(&[parallel_task(0, "par", &module("swiss.wasm"), "c", args)]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "work",
        "--metadata",
        "metadata.json",
    ];
    let more = ["--isolation", "process", "--jobs", "2", "--keep-going"];
    let mut command = project.command(&[&arguments[..], &more].concat());
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let program = command.spawn().expect("started");
    let log = project.path("work/events.jsonl");
    let n_finished = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .matches("\"call_finished\"")
            .count()
    };
    while n_finished() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The worker that still has a call; the other one has ended with its loop.
    let children = children_of(program.id());
    assert!(!children.is_empty());
    for child in &children {
        // The other worker may have ended meanwhile.
        let _ = std::process::Command::new("kill")
            .args(["-9", &child.to_string()])
            .output()
            .expect("kill");
    }
    let output = program.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("component \"victim\" was lost: the worker process died (signal: 9"),
        "{stderr}"
    );
    let events = project.read("work/events.jsonl");
    assert_eq!(events.matches("\"outcome\":\"succeeded\"").count(), 3);
    assert!(
        children
            .iter()
            .all(|child| !std::path::Path::new(&format!("/proc/{child}")).exists())
    );
}

/// Process ids of a program's children.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name, which ends with the last bracket: state, then the parent.
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
            == Some(&parent.to_string())
    };
    processes.filter(is_child).collect()
}

#[test]
fn the_log_shows_how_processes_are_confined() {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project.run(&["--isolation", "process"]).expect(0);
    let log = project.read("work/workflow.log");
    assert!(
        log.contains("calls run in child processes; ") && log.contains("privileges"),
        "{log}"
    );
}

#[test]
fn the_longest_time_limit_does_no_harm() {
    let more = ["--timeout", "18446744073709551615s 999ms"];
    probe(
        |_| {},
        &json!([]),
        &more,
        |_, ended, _| assert_eq!(ended.code, 0, "{}", ended.stderr),
    );
}

/// While a guest reads and writes below a folder, another program swaps that folder with a link
/// that leads out.
#[test]
fn a_folder_that_turns_into_a_link_leads_nowhere() {
    let own_thread: fn() = || {};
    for (prepare_thread, is_absolute) in [
        (own_thread, false),
        (own_thread, true),
        (crate::hostile::no_openat2::refuse, false),
    ] {
        let project = Project::new();
        project.write("outside/secret", "SECRET");
        project.write("out/folder/secret", "public");
        let target = if is_absolute {
            project.path("outside")
        } else {
            "../outside".into()
        };
        std::os::unix::fs::symlink(target, project.path("out/link")).expect("made");
        let root = project.path("out/folder");
        let file = |name: &str| format!("{}/{name}", root.display());
        let steps: Vec<_> = (0..1500)
            .flat_map(|_| {
                [
                    json!({ "do": "read", "path": file("secret") }),
                    json!({ "do": "write", "path": file("written"), "text": "x" }),
                    json!({ "do": "rename", "from": file("written"), "to": file("renamed") }),
                    json!({ "do": "make_dir", "path": file("made") }),
                    json!({ "do": "remove", "path": file("made") }),
                ]
            })
            .collect();
        project.workflow(&[task(
            0,
            "probe",
            &module("probe.wasm"),
            json!({ "steps": steps }),
        )]);
        let ended = std::sync::atomic::AtomicBool::new(false);
        let n_swaps = std::thread::scope(|scope| {
            let swaps = scope.spawn(|| {
                let mut n_swaps = 0;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) || n_swaps < 100_000 {
                    use rustix::fs::{CWD, RenameFlags, renameat_with};
                    let (folder, link) = (project.path("out/folder"), project.path("out/link"));
                    renameat_with(CWD, folder, CWD, link, RenameFlags::EXCHANGE).expect("swapped");
                    n_swaps += 1;
                }
                n_swaps
            });
            let run = scope.spawn(|| {
                prepare_thread();
                project.run(&[])
            });
            let run = run.join();
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            let n_swaps = swaps.join().expect("swapped");
            run.expect("no panic").expect(0);
            n_swaps
        });
        assert!(n_swaps >= 100_000);
        let results = project.read("work/0_probe/0.metadiff.json");
        assert!(results.contains("public"), "the guest never met the folder");
        assert!(
            results.contains("\"error\""),
            "the guest never met the link"
        );
        assert!(!results.contains("SECRET"));
        let outside: Vec<_> = project
            .tree()
            .into_iter()
            .filter(|path| path.starts_with("outside/"))
            .collect();
        assert_eq!(outside, ["outside/", "outside/secret"]);
    }
}
