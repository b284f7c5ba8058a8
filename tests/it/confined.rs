//! The program inside other sandboxes: a run works, or reports in one line what is missing and leaves
//! nothing half written.
//!
//! What not every machine lets a test do (namespaces, another user) is left out there, with a word
//! on stderr.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::hostile::no_openat2;
use crate::project::{Ended, Project, finish, module, parallel_task};

/// Users that no passwd file has; of the second the processes are counted.
const NOBODY: u32 = 12345;
const COUNTED: u32 = 12346;
const ISOLATIONS: [&str; 2] = ["thread", "process"];
const RUN: &str =
    "run workflow.json --input in --output out --work-dir work --metadata metadata.json";

/// A project with a task of `n` calls, each of which echoes its component.
pub fn project(n: usize) -> Project {
    let project = Project::new();
    let components: Vec<_> = (0..n).map(|index| format!("c{index}")).collect();
    project.write("metadata.json", json!({ "c": components }).to_string());
    project.workflow(&[parallel_task(
        0,
        "par",
        &module("swiss.wasm"),
        "c",
        json!({ "echo": ["component"] }),
    )]);
    project
}

/// A command that runs another one in its arguments: `shell` is a shell's line, in which `"$@"` is
/// the other.
pub fn confined(shell: &str, inner: &Command) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", shell, "confined"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null());
    if let Some(folder) = inner.get_current_dir() {
        command.current_dir(folder);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

pub fn run(project: &Project, shell: &str, more: &[&str]) -> Ended {
    let jobs: &[_] = if more.contains(&"--jobs") {
        &[]
    } else {
        &["--jobs", "2"]
    };
    let arguments: Vec<_> = RUN
        .split(' ')
        .chain(jobs.iter().chain(more).copied())
        .collect();
    finish(confined(shell, &project.command(&arguments)))
}

/// Returns true if a shell's line can run here; prints so otherwise.
fn can(shell: &str) -> bool {
    let done = finish(confined(shell, &Command::new("true"))).code == 0;
    if !done {
        let _ = writeln!(
            std::io::stderr(),
            "left out, since this machine does not let a test do it: {shell}"
        );
    }
    done
}

/// Runs in both isolations, each of which must go well.
#[track_caller]
pub fn check_works(shell: &str, more: &[&str]) {
    for isolation in ISOLATIONS {
        let project = project(3);
        let ended = run(
            &project,
            shell,
            &[more, &["--isolation", isolation]].concat(),
        );
        ended.expect(0);
        check_echo(&project, "work", 3);
    }
}

/// The run gave what it must.
#[track_caller]
fn check_echo(project: &Project, work_dir: &str, n: usize) {
    let echo = project.json(&format!("{work_dir}/metadata.json"))["echo"].clone();
    let expected: Vec<_> = (0..n)
        .map(|index| json!({ "component": format!("c{index}") }))
        .collect();
    assert_eq!(echo, Value::Array(expected));
    check_whole(&project.path(work_dir));
}

/// The run did not start: one line has the reason, and no work directory exists.
#[track_caller]
fn check_refused(project: &Project, ended: Ended, texts: &[&str]) {
    assert!(
        [1, 2].contains(&ended.code),
        "{}: {}",
        ended.code,
        ended.stderr
    );
    let errors: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| !line.starts_with("warning: "))
        .collect();
    // One line, or one for each problem of the input.
    let are_problems = errors[0].ends_with("nothing was run")
        && errors[1..].iter().all(|line| line.starts_with("  "));
    assert!(
        (errors.len() == 1 || are_problems) && errors[0].starts_with("error: "),
        "{}",
        ended.stderr
    );
    ended.reports(texts);
    assert!(!project.path("work").exists(), "{:?}", project.tree());
}

/// No record is a part of one, and nothing of running calls is left.
#[track_caller]
pub fn check_whole(work_dir: &Path) {
    let mut folders = vec![work_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            assert!(!name.starts_with('.'), "{}", path.display());
            let bytes = if path.is_dir() {
                Vec::new()
            } else {
                std::fs::read(&path).expect("readable")
            };
            let is_json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).is_ok();
            if path.is_dir() {
                folders.push(path);
            } else if name == "events.jsonl" {
                let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                assert!(
                    lines
                        .iter()
                        .all(|line| line.ends_with(b"\n") && is_json(line)),
                    "{}",
                    path.display()
                );
            } else if work_dir == folder && name.ends_with(".json") {
                assert!(is_json(&bytes), "{}", path.display());
            }
        }
    }
}

#[test]
fn few_open_files() {
    check_works("ulimit -n 128; exec \"$@\"", &[]);
    check_works("ulimit -n 64; exec \"$@\"", &["--jobs", "1"]);
    for isolation in ISOLATIONS {
        for (files, jobs) in [("16", "1"), ("32", "2"), ("64", "4")] {
            let project = project(3);
            let shell = format!("ulimit -n {files}; exec \"$@\"");
            let ended = run(
                &project,
                &shell,
                &["--isolation", isolation, "--jobs", jobs],
            );
            check_refused(&project, ended, &["ulimit -n", files, "--jobs"]);
        }
    }
}

#[test]
fn few_processes_and_threads() {
    // The superuser may have any number.
    let limited = |n: usize| {
        format!("exec setpriv --reuid {COUNTED} --clear-groups prlimit --nproc={n} \"$@\"")
    };
    if !can(&limited(100)) || !is_reachable() {
        return;
    }
    for isolation in ISOLATIONS {
        for n in 1..=12 {
            let project = given_to(COUNTED, project(3));
            let ended = run(
                &project,
                &limited(n),
                &["--isolation", isolation, "--no-cache"],
            );
            assert!(!ended.stderr.contains("panicked"), "{n}: {}", ended.stderr);
            assert!(ended.code != 0 || n > 3, "{n} cannot be enough");
            assert!(
                ended.code == 0 || n < 12,
                "{n} must be enough: {}",
                ended.stderr
            );
            if ended.code == 0 {
                check_echo(&project, "work", 3);
            } else if project.path("work").exists() {
                // The run had started, and a worker process could not.
                ended.expect(4).reports(&[
                    "failed to start a worker process",
                    "Resource temporarily unavailable",
                ]);
                check_whole(&project.path("work"));
            } else {
                check_refused(&project, ended, &["Resource temporarily unavailable"]);
            }
        }
    }
}

/// Gives all files of a project to a user.
fn given_to(user: u32, project: Project) -> Project {
    for path in [project.tree(), vec![String::new()]].concat() {
        std::os::unix::fs::chown(project.path(&path), Some(user), None).expect("given away");
    }
    project
}

/// Whether another user can start the program where it was built.
fn is_reachable() -> bool {
    can(&format!(
        "exec setpriv --reuid {NOBODY} --clear-groups test -x {}",
        env!("CARGO_BIN_EXE_mandelbox")
    ))
}

#[test]
fn runs_of_a_user_without_a_name() {
    let shell = format!("exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$@\"");
    if !can(&shell) || !is_reachable() {
        return;
    }
    for isolation in ISOLATIONS {
        let project = given_to(NOBODY, project(3));
        let ended = run(&project, &shell, &["--isolation", isolation]).expect(0);
        // The cache belongs to who runs the tests.
        ended.reports(&[
            "modules are compiled from scratch each time",
            "Permission denied",
        ]);
        check_echo(&project, "work", 3);
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let is_root = rustix::process::geteuid().is_root();
    let shell = format!("exec setpriv --reuid {NOBODY} --clear-groups \"$@\"");
    if is_root && !(can(&shell) && is_reachable()) {
        return;
    }
    let shell = if is_root { &shell } else { "exec \"$@\"" };
    let refused = |project: &Project, name: &str| {
        let path = project.path(name).display().to_string();
        check_refused(
            project,
            run(project, shell, &["--quiet"]),
            &["Permission denied", path.trim_end_matches('/')],
        );
    };
    let project = project(1);
    let mode = |name: &str, mode| {
        std::fs::set_permissions(project.path(name), std::fs::Permissions::from_mode(mode))
            .expect("changed");
    };
    // Open to others, and closed to writers, the owner among them.
    mode("out", 0o777);
    mode("", 0o555);
    refused(&project, "work");
    mode("", 0o755);
    std::fs::remove_dir(project.path("out")).expect("empty");
    mode("", 0o555);
    refused(&project, "out");
    mode("", 0o755);
}

#[test]
fn runs_without_a_home_folder() {
    for shell in [
        "unset HOME XDG_CACHE_HOME; exec \"$@\"",
        "export HOME=; unset XDG_CACHE_HOME; exec \"$@\"",
    ] {
        check_works(shell, &[]);
    }
    for isolation in ISOLATIONS {
        let project = project(3);
        // A file is a folder that nobody can write to, the superuser included.
        let shell = "unset XDG_CACHE_HOME; HOME=$PWD/workflow.json exec \"$@\"";
        let ended = run(&project, shell, &["--isolation", isolation]).expect(0);
        ended.reports(&[
            "modules are compiled from scratch each time",
            "workflow.json/.cache",
        ]);
        check_echo(&project, "work", 3);
    }
}

#[test]
fn no_proc() {
    let shell = "exec unshare -m sh -c 'mount -t tmpfs none /proc && exec \"$@\"' confined \"$@\"";
    if !can(shell) {
        return;
    }
    let project = project(3);
    run(&project, shell, &[]).expect(0);
    check_echo(&project, "work", 3);
    let other = self::project(3);
    check_refused(
        &other,
        run(&other, shell, &["--isolation", "process"]),
        &["Is /proc mounted?"],
    );
}

#[test]
fn a_read_only_file_system() {
    // Everything, but for one folder and what is mounted elsewhere.
    let shell = "mkdir -p writable && exec unshare -m sh -c 'mount --bind writable writable && cd \
        \"$PWD\" &&
        for folder in / /tmp \"$(stat -c %m .)\" \"$XDG_CACHE_HOME\"; do
            ! mountpoint -q \"$folder\" || mount -o remount,bind,ro \"$folder\" || exit 99
        done && exec \"$@\"' confined \"$@\"";
    if finish(confined(shell, &project(1).command(&["--version"]))).code != 0 {
        let _ = writeln!(
            std::io::stderr(),
            "left out: the file system cannot be made read-only here"
        );
        return;
    }
    for isolation in ISOLATIONS {
        let project = project(3);
        let more = [
            "--isolation",
            isolation,
            "--work-dir",
            "writable/work",
            "--output",
            "writable/out",
        ];
        let arguments: Vec<_> = [
            "run",
            "workflow.json",
            "--input",
            "in",
            "--metadata",
            "metadata.json",
        ]
        .into_iter()
        .chain(more)
        .collect();
        finish(confined(shell, &project.command(&arguments))).expect(0);
        check_echo(&project, "writable/work", 3);
        let ended = run(&project, shell, &["--isolation", isolation]);
        check_refused(
            &project,
            ended,
            &[
                "output path ",
                "/out: cannot be written to: Read-only file system",
            ],
        );
        let more = [
            "--isolation",
            isolation,
            "--output",
            "writable/out",
            "--work-dir",
            "work",
        ];
        let ended = finish(confined(
            shell,
            &project.command(&[&arguments[..6], &more].concat()),
        ));
        check_refused(
            &project,
            ended,
            &[
                "work directory ",
                "/work: `",
                "` cannot be written to: Read-only file system",
            ],
        );
    }
}

#[test]
fn no_network() {
    let shell = "exec unshare -n \"$@\"";
    if can(shell) {
        check_works(shell, &[]);
    }
}

#[test]
fn no_openat2() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            no_openat2::refuse();
            check_works("exec \"$@\"", &[]);
        });
    });
}

#[test]
fn files_for_their_owner_alone() {
    check_works("umask 077; exec \"$@\"", &[]);
}

#[test]
fn closed_streams() {
    for shell in [
        "exec \"$@\" <&-",
        "exec \"$@\" >&-",
        "exec \"$@\" 2>&-",
        "exec \"$@\" <&- >&- 2>&-",
    ] {
        check_works(shell, &[]);
    }
    check_works("exec \"$@\" >&-", &["--result", "-"]);
    check_works("exec \"$@\" >&- 2>&-", &["--events", "-"]);
}

#[test]
fn a_reader_that_has_gone_away() {
    for option in ["--result", "--events"] {
        check_works(
            "{ sleep 0.2; \"$@\"; echo $? >code; } | true; exit $(cat code)",
            &[option, "-"],
        );
    }
}

#[test]
fn a_stdout_that_is_full() {
    check_works("exec \"$@\" >/dev/full", &["--events", "-"]);
    check_works("exec \"$@\" 2>/dev/full", &[]);
    for isolation in ISOLATIONS {
        let project = project(3);
        let ended = run(
            &project,
            "exec \"$@\" >/dev/full",
            &["--isolation", isolation, "--result", "-"],
        );
        ended
            .expect(1)
            .reports(&["failed to write to stdout: No space left on device"]);
        check_echo(&project, "work", 3);
    }
}

#[test]
fn a_disk_that_is_full() {
    // The folder is mounted for the program alone; what is left there is copied out.
    let shell = |kibibytes: usize| {
        format!(
            "mkdir -p small kept && exec unshare -m sh -c 'mount -t tmpfs -o size={kibibytes}k \
             none small &&
             {{ \"$@\"; code=$?; cp -R small/work kept/; exit $code; }}' confined \"$@\""
        )
    };
    if !can("exec unshare -m true") {
        return;
    }
    let base =
        "run workflow.json --input in --output out --work-dir small/work --metadata metadata.json";
    // With the files of calls, these are too large; without, the log of events is.
    let cases = [
        (12, "", (4..=160).step_by(12)),
        (100, " --task-files none --keep-going", (4..=80).step_by(4)),
    ];
    for (n, more, sizes) in cases {
        let (mut n_failed, mut n_done) = (0, 0);
        for kibibytes in sizes {
            let project = project(n);
            let arguments = format!("{base}{more}");
            let arguments: Vec<_> = arguments.split(' ').collect();
            let ended = finish(confined(&shell(kibibytes), &project.command(&arguments)));
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
            if project.path("kept/work").exists() {
                check_whole(&project.path("kept/work"));
            }
            match ended.code {
                0 => {
                    n_done += 1;
                    let echo = project.json("kept/work/metadata.json")["echo"]
                        .as_array()
                        .map(Vec::len);
                    assert_eq!(echo, Some(n));
                }
                // The guest could not write what it gives.
                3 => n_failed += 1,
                code => {
                    n_failed += 1;
                    assert!([1, 4].contains(&code), "{code}");
                    ended.reports(&["No space left on device", "small/work"]);
                }
            }
        }
        assert!(
            n_failed >= 3 && n_done >= 1,
            "{n_failed} failed, {n_done} did not"
        );
    }
}
