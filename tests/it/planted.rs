//! What a stranger may have planted in a folder that the host opens: a link, a FIFO or a device in
//! place of each file and folder. Each row of the table in SECURITY.md has a test here, or in
//! `cache_folder`, that reports what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use serde_json::json;

use crate::project::{Ended, Project, module, task, temporary_folder};

/// What is planted, and the message about it.
const PLANTS: [(Plant, &str); 3] = [
    (
        Plant::Link,
        "it is a symbolic link, and links are not followed here; put a",
    ),
    (Plant::Fifo, "it is a FIFO, a socket or a device; put a"),
    (Plant::Device, "it is a FIFO, a socket or a device; put a"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    /// To what was there before, so that whoever follows it finds nothing amiss.
    Link,
    Fifo,
    /// `/dev/zero`, which has no end.
    Device,
}

impl Plant {
    /// Puts it in place of what is at a path, which is moved to `moved`. Returns whether it could.
    fn plant(self, path: &Path, moved: &Path) -> bool {
        fs::rename(path, moved).expect("moved");
        let make = |kind, device| mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device);
        match self {
            Self::Link => symlink(moved, path).is_ok(),
            Self::Fifo => make(FileType::Fifo, 0).is_ok(),
            // Only root can, and not in every container.
            Self::Device => make(FileType::CharacterDevice, makedev(1, 5)).is_ok(),
        }
    }

    /// Puts back what was there.
    fn remove(path: &Path, moved: &Path) {
        let _ = fs::remove_file(path);
        fs::rename(moved, path).expect("moved back");
    }
}

/// Every file below a folder with its contents, to see that nothing was changed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    files.push((entry.path(), fs::read(entry.path()).expect("read")))
                }
                _ => files.push((entry.path(), Vec::new())),
            }
        }
    }
    files.sort();
    files
}

/// Plants each thing in place of each path, and checks that the command is refused with exit code
/// 2, names the path, and leaves everything as it was.
fn check_refused(project: &Project, paths: &[&str], run: &dyn Fn() -> Ended) {
    let outside = temporary_folder();
    for path in paths {
        for (plant, text) in PLANTS {
            let (location, moved) = (project.path(path), outside.path().join("moved"));
            if plant.plant(&location, &moved) {
                let before = (contents(&project.path("")), contents(outside.path()));
                let ended = run().expect(2).reports(&[text]);
                let name = Path::new(path)
                    .file_name()
                    .and_then(|name| name.to_str())
                    .expect("a name");
                assert!(
                    ended.stderr.contains(&format!("{name}: ")),
                    "{path}, {plant:?}: {}",
                    ended.stderr
                );
                assert_eq!(
                    (contents(&project.path("")), contents(outside.path())),
                    before,
                    "{path}, {plant:?}"
                );
            }
            Plant::remove(&location, &moved);
        }
    }
}

/// A package whose one case lists its input and its output and writes to the latter.
fn package() -> Project {
    let project = Project::new();
    fs::create_dir(project.path("package")).expect("made");
    fs::copy(module("probe.wasm"), project.path("package/probe.wasm")).expect("copied");
    let tasks = json!([{ "name": "probe", "executable": "probe.wasm", "input_type": "Any", "output_type": "Any" }]);
    let manifest = json!({ "manifest_version": "1", "task_list": tasks });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    let steps = json!([
        { "do": "list", "path": "/input" }, { "do": "read", "path": "/input/secret" }, { "do": "list", "path": "/output" },
        { "do": "write", "path": "/output/new.txt", "text": "from the guest\n" },
        { "do": "write", "path": "/output/old.txt", "text": "from the guest\n" },
        { "do": "write", "path": "/output/sub/file.txt", "text": "from the guest\n" },
    ]);
    project.write(
        "package/tests/a/args.json",
        json!({ "steps": steps }).to_string(),
    );
    project.write(
        "package/tests/a/case.json",
        json!({ "task": "probe" }).to_string(),
    );
    project.write("package/tests/a/input/secret", "SECRET\n");
    project.write("package/tests/a/output/old.txt", "old\n");
    project.write("package/tests/a/output/sub/stale.txt", "stale\n");
    project.write("package/tests/a/expected/metadiff.json", "{}");
    project.write("package/tests/a/expected/output/old.txt", "old\n");
    project.write("package/tests/a/expected/output/sub/stale.txt", "stale\n");
    project
}

#[test]
fn nothing_of_a_package_under_test_is_followed() {
    let project = package();
    let paths = [
        "package/__FRACTAL_MANIFEST__.json",
        "package/tests",
        "package/tests/a",
        "package/tests/a/args.json",
        "package/tests/a/case.json",
        "package/tests/a/input",
        "package/tests/a/output",
        "package/tests/a/expected",
        "package/tests/a/expected/metadiff.json",
        "package/tests/a/expected/output",
    ];
    check_refused(&project, &paths, &|| {
        project.mandelbox(&["test", "package"])
    });
    check_refused(&project, &paths, &|| {
        project.mandelbox(&["test", "package", "--update"])
    });
    // What a case can hold of files is checked too; the message names the remedy.
    for path in [
        "output/old.txt",
        "output/sub",
        "expected/output/old.txt",
        "expected/output/sub",
    ] {
        for (plant, _) in PLANTS {
            let outside = temporary_folder();
            let (location, moved) = (
                project.path("package/tests/a").join(path),
                outside.path().join("moved"),
            );
            if plant.plant(&location, &moved) {
                let before = contents(outside.path());
                let ended = project
                    .mandelbox(&["test", "package", "--update"])
                    .expect(2);
                ended.reports(&[path, "a case can contain only regular files; remove it"]);
                assert_eq!(contents(outside.path()), before, "{path}, {plant:?}");
            }
            Plant::remove(&location, &moved);
        }
    }
    // The text of a failure, which is in place of the rest.
    for gone in [
        "package/tests/a/expected/metadiff.json",
        "package/tests/a/expected/output/old.txt",
    ] {
        fs::remove_file(project.path(gone)).expect("removed");
    }
    fs::remove_dir_all(project.path("package/tests/a/expected/output")).expect("removed");
    project.write("package/tests/a/expected/error.txt", "SECRET");
    check_refused(&project, &["package/tests/a/expected/error.txt"], &|| {
        project.mandelbox(&["test", "package"])
    });
    // A package is the folder that the user names, by a link too.
    fs::remove_file(project.path("package/tests/a/expected/error.txt")).expect("removed");
    symlink("package", project.path("link")).expect("made");
    project.mandelbox(&["test", "link", "--update"]).expect(0);
    assert_eq!(
        project.read("package/tests/a/expected/output/new.txt"),
        "from the guest\n"
    );
}

#[test]
fn a_manifest_is_a_plain_file_for_all_who_read_it() {
    let project = package();
    let source =
        json!({ "order": 0, "args": {}, "meta": {}, "task": { "source": "package:probe" } });
    project.workflow(&[source]);
    let manifest = ["package/__FRACTAL_MANIFEST__.json"];
    check_refused(&project, &manifest, &|| {
        project.mandelbox(&["check", "package"])
    });
    check_refused(&project, &manifest, &|| {
        project.run(&["--tasks", "package", "--dry-run"])
    });
    let args = project.write("args.json", "{}");
    let exec = [
        "exec",
        "package/probe.wasm",
        "--args",
        args.to_str().expect("UTF-8"),
    ];
    check_refused(&project, &manifest, &|| project.mandelbox(&exec));
}

/// A module may be behind a link, as it may be at any path, since its path gives it no right. What
/// is no regular file is not opened.
#[test]
fn a_module_is_a_regular_file() {
    let project = package();
    let outside = temporary_folder();
    for (plant, _) in PLANTS {
        let (location, moved) = (
            project.path("package/probe.wasm"),
            outside.path().join("moved"),
        );
        if plant.plant(&location, &moved) && plant != Plant::Link {
            for command in [
                &["check", "package"][..],
                &["test", "package"],
                &["exec", "package/probe.wasm", "--", "x"],
            ] {
                project
                    .mandelbox(command)
                    .expect(2)
                    .reports(&["is not a regular file; name a .wasm file"]);
            }
        }
        Plant::remove(&location, &moved);
    }
}

/// While a package is tested, somebody who can write to it swaps its folders for links again and
/// again.
#[test]
fn folders_that_are_swapped_for_links_meanwhile_lead_nowhere() {
    for isolation in ["thread", "process"] {
        let project = package();
        fs::remove_dir_all(project.path("package/tests/a/input")).expect("removed");
        fs::create_dir(project.path("package/tests/a/input")).expect("made");
        let victim = temporary_folder();
        fs::create_dir(victim.path().join("sub")).expect("made");
        for name in ["secret", "old.txt", "sub/stale.txt", "sub/other"] {
            fs::write(victim.path().join(name), "SECRET of the user\n").expect("written");
        }
        let before = contents(victim.path());
        for path in [
            "input",
            "output",
            "expected/output",
            "expected",
            "expected/output/sub",
        ] {
            let location = project.path("package/tests/a").join(path);
            fs::create_dir_all(&location).expect("made");
            let link = project.path("link");
            symlink(victim.path(), &link).expect("made");
            let ends = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = renameat_with(CWD, &link, CWD, &location, RenameFlags::EXCHANGE);
                    }
                });
                for _ in 0..8 {
                    let ended = project.mandelbox(&[
                        "test",
                        "package",
                        "--update",
                        "--isolation",
                        isolation,
                    ]);
                    assert!(!ended.stderr.contains("SECRET"), "{path}: {}", ended.stderr);
                }
                ends.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            assert_eq!(contents(victim.path()), before, "{path}");
            let _ = fs::remove_file(&link);
            let _ = fs::remove_dir_all(&link);
            let case = contents(&project.path("package"));
            let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"SECRET");
            assert!(
                !case.iter().any(|(_, bytes)| holds(bytes)),
                "{path}: {case:?}"
            );
            let _ = fs::remove_file(&location);
        }
    }
}

/// A project whose run was stopped by a failure.
fn failed_run() -> Project {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({ "exit": 3 }))]);
    project.run(&[]).expect(3);
    fs::create_dir(project.path("work/.scratch")).expect("made");
    project.write("work/.scratch/7/left", "left of a killed call");
    project.write("work/.mandelbox-lock", "{}");
    project
}

#[test]
fn nothing_of_a_work_directory_is_followed() {
    let project = failed_run();
    let paths = [
        "work/.scratch",
        "work/.mandelbox-lock",
        "work/workflow.log",
        "work/0_t",
    ];
    check_refused(&project, &paths, &|| project.run(&["--resume"]));
    // Only the log shows that it is a run.
    let outside = temporary_folder();
    for (plant, _) in PLANTS {
        let (location, moved) = (
            project.path("work/events.jsonl"),
            outside.path().join("moved"),
        );
        if plant.plant(&location, &moved) {
            project
                .run(&["--resume"])
                .expect(2)
                .reports(&["no run of mandelbox"]);
            for command in ["status", "report"] {
                let ended = project.mandelbox(&[command, "work"]);
                assert_ne!(ended.code, 0, "{command}, {plant:?}: {}", ended.stderr);
            }
        }
        Plant::remove(&location, &moved);
    }
    // The same where a run begins.
    let begins = Project::new();
    begins.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    begins.write("work/.scratch/7/left", "left");
    begins.write("work/.mandelbox-lock", "{}");
    check_refused(&begins, &["work/.scratch", "work/.mandelbox-lock"], &|| {
        begins.run(&[])
    });
    // Without them, the run goes on.
    fs::write(project.path("in/x"), "").expect("written");
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project.run(&["--resume"]).expect(0);
    assert!(!project.path("work/.scratch").exists());
}

/// The host makes records in place of what is there, whatever that is.
#[test]
fn records_replace_links() {
    let project = failed_run();
    let outside = temporary_folder();
    let victim = outside.path().join("victim");
    fs::write(&victim, "SECRET").expect("written");
    let records = [
        "metadata.json",
        "history.json",
        "result.json",
        "report.html",
        "0_t/0.args.json",
        "0_t/0.out",
    ];
    for name in records {
        let path = project.path("work").join(name);
        let _ = fs::remove_file(&path);
        symlink(&victim, &path).expect("made");
    }
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project.run(&["--resume"]).expect(0);
    for name in records {
        assert!(
            project
                .path("work")
                .join(name)
                .symlink_metadata()
                .expect("there")
                .is_file(),
            "{name}"
        );
    }
    assert_eq!(fs::read(&victim).expect("there"), b"SECRET");
}

/// A tree that is deeper than any path can be, and than a process may open files, is removed with
/// the temporary folder of `exec`, be it in the task's output or in its scratch folder.
#[test]
fn deep_trees_are_not_left_behind() {
    let project = Project::new();
    let temporary = project.path("tmp");
    fs::create_dir(&temporary).expect("made");
    let prelude = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/prelude.wat");
    let prelude = fs::read_to_string(prelude).expect("there");
    for folder in ["$out", "$scratch"] {
        let text = format!(
            r#"{prelude}
            (data (i32.const 1024) "d\00")
            (func (export "_start")
              (local $folder i32) (local $n i32)
              (local.set $folder (global.get {folder}))
              (loop $deeper
                (call $must_work (call $mkdir (local.get $folder) (i32.const 1024)))
                (call $must_work (call $open (local.get $folder) (i32.const 1024) (i32.const 2) (i64.const 0x4002)))
                (if (i32.ne (local.get $folder) (global.get {folder})) (then (drop (call $fd_close (local.get $folder)))))
                (local.set $folder (global.get $fd))
                (br_if $deeper (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000)))))"#
        );
        let module = project.write("deep.wasm", wat::parse_str(&text).expect("WAT"));
        let args = project.write("args.json", "{}");
        let [module, args] = [&module, &args].map(|path| path.to_str().expect("UTF-8"));
        let program = env!("CARGO_BIN_EXE_mandelbox");
        let limited = [
            "-c",
            "ulimit -n 256 && exec \"$0\" \"$@\"",
            program,
            "exec",
            module,
            "--input",
            "in",
            "--args",
            args,
        ];
        let mut command = std::process::Command::new("sh");
        command
            .args(limited)
            .current_dir(project.path(""))
            .env("TMPDIR", &temporary);
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        crate::project::finish(command).expect(0);
        assert_eq!(
            fs::read_dir(&temporary).expect("there").count(),
            0,
            "{folder}: nothing is left"
        );
    }
}
