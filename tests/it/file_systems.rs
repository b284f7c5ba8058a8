//! File systems of labs: folders of a group, private folders, disks that are not mounted, and file
//! systems that refuse operations that they do not have.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;
use serde_json::json;

use crate::project::{Ended, Project, copy_env, copy_program, finish, module, task};
use crate::strace::{can_trace, traced};

/// A user and a group that no passwd file has.
const NOBODY: u32 = 12_347;
const LAB: u32 = 12_348;

fn project() -> Project {
    let project = Project::new();
    project.workflow(&[task(
        0,
        "t",
        &module("swiss.wasm"),
        json!({ "stdout": "x", "metadiff": { "a": 1 } }),
    )]);
    project
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
}

/// The program with a umask.
fn with_umask(project: &Project, umask: &str, arguments: &[&str]) -> Ended {
    let program = project.command(arguments);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
        .arg(program.get_program());
    command
        .args(program.get_args())
        .current_dir(project.path(""));
    copy_env(&program, &mut command);
    finish(command)
}

/// `run` under a tracer that refuses system calls.
///
/// * `more`: of the tracer, such as `inject=fsync:error=EINVAL`.
fn refusing(project: &Project, umask: &str, expressions: &[&str]) -> Ended {
    let program = project.command(&[
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "work",
    ]);
    let options: Vec<_> = expressions.iter().flat_map(|text| ["-e", text]).collect();
    let traced = traced(&program, "trace", &options);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(traced.get_program())
        .args(traced.get_args())
        .current_dir(project.path(""));
    copy_env(&program, &mut command);
    finish(command)
}

#[test]
fn a_folder_of_a_group_stays_one() {
    let project = project();
    let lab = project.path("lab");
    std::fs::create_dir(&lab).expect("made");
    if chown(&lab, None, Some(LAB)).is_err() {
        println!("skipped: this user cannot give a folder to another group");
        return;
    }
    set_mode(&lab, 0o2775);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "lab/out",
        "--work-dir",
        "lab/runs/work",
        "--task-files",
        "all",
    ];
    with_umask(&project, "002", &arguments).expect(0);
    let mut seen = 0;
    for path in project
        .tree()
        .iter()
        .filter(|path| path.starts_with("lab/"))
    {
        let metadata = project.path(path).metadata().expect("there");
        assert_eq!(metadata.gid(), LAB, "{path}");
        let expected = if metadata.is_dir() { 0o2775 } else { 0o664 };
        assert_eq!(
            metadata.mode() & 0o7777,
            expected,
            "{path}: {:o}",
            metadata.mode()
        );
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_work_directory_that_was_closed_stays_closed() {
    let project = project();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({ "exit": 1 }))]);
    project.run(&[]).expect(3);
    let work = project.path("work");
    assert_eq!(mode(&work), 0o755);
    set_mode(&work, 0o700);
    set_mode(&work.join("0_t"), 0o700);
    for record in ["result.json", "report.html", "events.jsonl"] {
        set_mode(&work.join(record), 0o600);
    }
    project.run(&["--resume"]).expect(3);
    assert_eq!((mode(&work), mode(&work.join("0_t"))), (0o700, 0o700));
    for record in ["result.json", "report.html", "events.jsonl"] {
        assert_eq!(mode(&work.join(record)), 0o600, "{record}");
    }
}

#[test]
fn file_systems_that_cannot_sync_or_set_modes_hold_runs() {
    if !can_trace() {
        return;
    }
    let has_warning = |project: &Project| {
        project
            .read("work/workflow.log")
            .matches("cannot sync files")
            .count()
    };
    for error in ["EINVAL", "EOPNOTSUPP", "EPERM", "ENOSYS"] {
        let project = project();
        let inject = format!("inject=fsync,fdatasync:error={error}");
        refusing(&project, "022", &["trace=fsync,fdatasync", &inject])
            .expect(0)
            .reports(&["cannot sync files"]);
        assert_eq!(has_warning(&project), 1, "{error}");
        assert_eq!(
            project.json("work/result.json")["metadata"],
            json!({ "a": 1 })
        );
    }
    for error in ["EPERM", "EOPNOTSUPP", "EACCES"] {
        let project = project();
        // With this umask a mode has to be set.
        let calls = "chmod,fchmod,fchmodat";
        refusing(
            &project,
            "077",
            &[
                &format!("trace={calls}"),
                &format!("inject={calls}:error={error}"),
            ],
        )
        .expect(0);
        assert!(project.read("trace").contains(error), "nothing was refused");
        assert_eq!(has_warning(&project), 0);
    }
    // A failing disk is reported.
    let project = project();
    let ended = refusing(
        &project,
        "022",
        &["trace=fdatasync", "inject=fdatasync:error=EIO"],
    );
    ended
        .expect(1)
        .reports(&["failed to sync", "Input/output error"]);
}

#[test]
fn a_file_system_without_locks_is_refused_with_what_to_do() {
    if !can_trace() {
        return;
    }
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        let project = project();
        let ended = refusing(
            &project,
            "022",
            &["trace=flock", &format!("inject=flock:error={error}")],
        )
        .expect(1);
        ended.reports(&[
            "failed to lock ",
            "cannot lock files",
            "choose a --work-dir on a local disk",
            "local_lock=flock",
        ]);
        assert!(!project.path("work/events.jsonl").exists());
    }
}

#[test]
fn broken_links_are_reported_before_the_run() {
    let project = project();
    symlink("/mnt/not-mounted/results", project.path("gone")).expect("made");
    let check = |arguments: &[&str], code: i32, text: &str| {
        let before = project.tree();
        let ended =
            project.mandelbox(&[&["run", "workflow.json", "--dry-run"], arguments].concat());
        ended.expect(code).reports(&[
            text,
            "is a link to `/mnt/not-mounted/results`, which does not exist",
        ]);
        assert_eq!(project.tree(), before);
    };
    check(&["--output", "gone"], 2, "output path ");
    check(&["--output", "gone/deep/out"], 2, "/gone` is a link");
    check(
        &["--output", "out", "--work-dir", "gone/work"],
        2,
        "work directory ",
    );
    check(
        &["--output", "out", "--result", "gone/result.json"],
        2,
        "--result ",
    );
    check(
        &["--output", "out", "--input", "gone"],
        0,
        "so tasks will not find it",
    );
    // Without --dry-run nothing is made either.
    project
        .mandelbox(&["run", "workflow.json", "--output", "gone"])
        .expect(2)
        .reports(&["not-mounted"]);
    assert!(!project.path("mandelbox-runs").exists());
}

/// The program as another user, in a copy that this user can reach.
fn as_nobody(project: &Project, arguments: &[&str]) -> Ended {
    let program = project.command(arguments);
    let copy = project.path("program");
    if !copy.exists() {
        copy_program(Path::new(program.get_program()), &copy);
    }
    let mut command = Command::new(copy);
    command
        .args(program.get_args().collect::<Vec<&OsStr>>())
        .current_dir(project.path(""));
    copy_env(&program, &mut command);
    command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    finish(command)
}

#[test]
fn folders_without_permission_are_reported_before_the_run() {
    let project = project();
    std::fs::copy(module("swiss.wasm"), project.path("m.wasm")).expect("copied");
    project.workflow(&[task(0, "t", "m.wasm", json!({}))]);
    for name in ["closed/in", "unlisted", "writable"] {
        std::fs::create_dir_all(project.path(name)).expect("made");
    }
    set_mode(&project.path(""), 0o755);
    set_mode(&project.path("closed"), 0o700);
    set_mode(&project.path("unlisted"), 0o711);
    set_mode(&project.path("writable"), 0o777);
    if geteuid().is_root() {
        chown(project.path("in"), Some(0), Some(0)).expect("changed");
    } else {
        println!("skipped in part: only root can make folders of another user");
        set_mode(&project.path("closed"), 0o000);
        set_mode(&project.path("unlisted"), 0o111);
        set_mode(&project.path(""), 0o555);
    }
    let check = |arguments: &[&str], texts: &[&str]| {
        let ended = as_nobody(
            &project,
            &[&["run", "workflow.json", "--dry-run"], arguments].concat(),
        );
        ended.expect(2).reports(texts);
    };
    let denied = "Permission denied (os error 13)";
    let usual = ["--output", "writable/out", "--work-dir", "writable/work"];
    let with = |more: &[&'static str]| [&usual, more].concat();
    as_nobody(
        &project,
        &[
            &["run", "workflow.json", "--dry-run", "--input", "in"],
            &usual[..],
        ]
        .concat(),
    )
    .expect(0);
    check(
        &with(&["--input", "closed"]),
        &[
            "input path ",
            "/closed: cannot be read: ",
            denied,
            "let this user read it",
        ],
    );
    check(
        &with(&["--input", "closed/in"]),
        &["/closed/in: cannot be read: ", denied],
    );
    check(
        &with(&["--input", "unlisted"]),
        &["/unlisted: cannot be read: ", denied],
    );
    check(
        &["--output", "new", "--work-dir", "writable/work"],
        &["output path ", "/new: `", "` cannot be written to: "],
    );
    check(
        &["--output", "closed/in/new", "--work-dir", "writable/work"],
        &["/closed/in/new: ", "cannot be reached"],
    );
    check(
        &["--output", "writable/out"],
        &[
            "work directory ",
            "cannot be written to: ",
            "another --work-dir",
        ],
    );
    check(
        &with(&["--result", "r.json"]),
        &["--result ", "its folder cannot be written to", denied],
    );
    check(
        &with(&["--events", "e.jsonl"]),
        &["--events ", "its folder cannot be written to", denied],
    );
    check(
        &with(&["--events", "workflow.json"]),
        &["--events ", "would overwrite the workflow"],
    );
    set_mode(&project.path("closed"), 0o700);
    set_mode(&project.path(""), 0o755);
}

#[test]
fn runs_that_start_together_each_get_a_work_directory() {
    const N: usize = 12;
    let project = project();
    project
        .mandelbox(&["run", "workflow.json", "--output", "out"])
        .expect(0);
    std::thread::scope(|scope| {
        for n in 0..N {
            let output = format!("out{n}");
            let command = project.command(&["run", "workflow.json", "--output", &output]);
            scope.spawn(move || finish(command).expect(0));
        }
    });
    let results =
        |path: &&String| path.starts_with("mandelbox-runs/test_") && path.ends_with("/result.json");
    assert_eq!(project.tree().iter().filter(results).count(), N + 1);
}

#[test]
fn a_run_that_does_not_begin_leaves_no_default_work_directory() {
    if !can_trace() {
        return;
    }
    let project = project();
    let program = project.command(&["run", "workflow.json", "--output", "new"]);
    let folder = project.path("new");
    let options = [
        "-e",
        "trace=mkdir,mkdirat",
        "-P",
        folder.to_str().expect("UTF-8"),
        "-e",
        "inject=mkdir,mkdirat:error=EDQUOT",
    ];
    finish(traced(&program, "trace", &options))
        .expect(1)
        .reports(&["failed to create the output folder"]);
    assert_eq!(
        project
            .path("mandelbox-runs")
            .read_dir()
            .expect("made")
            .count(),
        0
    );
}

/// Runs a shell's script with a cache folder that is mounted for it alone; the program is `$0`.
/// `None`: it cannot be here.
fn with_cache(project: &Project, options: &str, script: &str) -> Option<Ended> {
    std::fs::create_dir_all(project.path("cache")).expect("made");
    let script = format!("mount -t tmpfs -o {options},mode=700 tmpfs cache || exit 77; {script}");
    let program = project.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .arg(program.get_program())
        .current_dir(project.path(""));
    command.env("XDG_CACHE_HOME", project.path("cache"));
    let ended = finish(command);
    if ended.code == 77 || !project.path("began").exists() {
        println!("skipped: nothing can be mounted here: {}", ended.stderr);
        return None;
    }
    Some(ended)
}

#[test]
fn a_cache_whose_files_cannot_be_run_is_read() {
    let project = project();
    // Its code is so large that it would be mapped.
    project.workflow(&[task(0, "t", &module("convert_to_ome_zarr.wasm"), json!({}))]);
    // Code from the cache needs no time to compile.
    project.write("policy.toml", "[host]\ncompile = \"1ms\"\n");
    let script = r#"
        touch began
        "$0" run workflow.json --output out --work-dir w0 --policy policy.toml; echo $? >> codes
        "$0" run workflow.json --output out --work-dir w1; echo $? >> codes
        "$0" run workflow.json --output out --work-dir w2 --policy policy.toml; echo $? >> codes
        "$0" run workflow.json --output out --work-dir w3 --policy policy.toml --isolation process; echo $? >> codes
        "$0" doctor
    "#;
    let Some(ended) = with_cache(&project, "noexec", script) else {
        return;
    };
    // The task fails because it has no args.
    assert_eq!(project.read("codes"), "2\n3\n3\n3\n", "{}", ended.stderr);
    ended.reports(&["mounted noexec", "compiled modules are read, not mapped"]);
}

#[test]
fn the_doctor_reports_that_the_cache_is_full() {
    for (options, text) in [
        ("size=512k", "No space left on device"),
        ("size=64m", " are free"),
    ] {
        let Some(ended) = with_cache(&project(), options, "touch began; \"$0\" doctor") else {
            return;
        };
        ended.expect(0).reports(&[
            "missing  cache of compiled modules",
            text,
            "set XDG_CACHE_HOME",
        ]);
    }
}
