//! WASI functions in a confined worker process: guests get the same results as in a thread.
#![cfg(target_os = "linux")]

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use crate::project::{ISOLATIONS, Project};

/// Functions of preview 1: name and parameters. Each returns an error number.
const FUNCTIONS: [(&str, &str); 31] = [
    ("clock_res_get", "i32 i32"),
    ("clock_time_get", "i32 i64 i32"),
    ("fd_advise", "i32 i64 i64 i32"),
    ("fd_close", "i32"),
    ("fd_datasync", "i32"),
    ("fd_fdstat_get", "i32 i32"),
    ("fd_fdstat_set_flags", "i32 i32"),
    ("fd_filestat_get", "i32 i32"),
    ("fd_filestat_set_size", "i32 i64"),
    ("fd_filestat_set_times", "i32 i64 i64 i32"),
    ("fd_pread", "i32 i32 i32 i64 i32"),
    ("fd_pwrite", "i32 i32 i32 i64 i32"),
    ("fd_read", "i32 i32 i32 i32"),
    ("fd_readdir", "i32 i32 i32 i64 i32"),
    ("fd_seek", "i32 i64 i32 i32"),
    ("fd_sync", "i32"),
    ("fd_tell", "i32 i32"),
    ("fd_write", "i32 i32 i32 i32"),
    ("path_create_directory", "i32 i32 i32"),
    ("path_filestat_get", "i32 i32 i32 i32 i32"),
    ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32"),
    ("path_link", "i32 i32 i32 i32 i32 i32 i32"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32"),
    ("path_remove_directory", "i32 i32 i32"),
    ("path_rename", "i32 i32 i32 i32 i32 i32"),
    ("path_symlink", "i32 i32 i32 i32 i32"),
    ("path_unlink_file", "i32 i32 i32"),
    ("poll_oneoff", "i32 i32 i32 i32"),
    ("random_get", "i32 i32"),
    ("sched_yield", ""),
];

/// Calls in order, with their arguments. 3 is the folder, 4 the file that is opened in it. Texts:
/// 64 `file`, 80 `link`, 96 `folder`, 112 `second`. At 16 is an empty clock subscription, at 128
/// and 136 are lists of one buffer to write and to read. The times of a symbolic link itself are
/// not set: a confined worker may make no system call with a path for it.
const CALLS: &str = "
    path_open 3 0 64 4 9 536870911 536870911 0 1024
    fd_write 4 128 1 1024
    fd_pwrite 4 128 1 9 1024
    fd_seek 4 0 0 1024
    fd_read 4 136 1 1024
    fd_pread 4 136 1 2 1024
    fd_tell 4 1024
    fd_advise 4 0 0 0
    fd_sync 4
    fd_datasync 4
    fd_fdstat_get 4 1024
    fd_fdstat_set_flags 4 1
    fd_fdstat_set_flags 4 0
    fd_filestat_get 4 1024
    fd_filestat_set_size 4 7
    fd_filestat_set_times 4 1000000000 2000000000 5
    path_filestat_get 3 1 64 4 1024
    path_filestat_set_times 3 1 64 4 3000000000 4000000000 5
    path_filestat_set_times 3 0 64 4 3000000000 4000000000 5
    path_symlink 64 4 3 80 4
    path_readlink 3 80 4 1024 64 1100
    path_filestat_get 3 0 80 4 1024
    path_filestat_get 3 1 80 4 1024
    path_filestat_set_times 3 1 80 4 5000000000 6000000000 5
    path_create_directory 3 96 6
    path_filestat_set_times 3 1 96 6 7000000000 8000000000 5
    path_link 3 0 64 4 3 112 6
    path_rename 3 112 6 3 112 6
    path_unlink_file 3 112 6
    fd_readdir 3 2048 1000 0 1024
    path_remove_directory 3 96 6
    clock_res_get 1 1024
    clock_time_get 0 1 1024
    random_get 1024 64
    sched_yield
    poll_oneoff 16 1024 1 1200
    fd_close 4";

/// The module: it makes the calls, and prints the error numbers as one byte each.
fn module_text() -> String {
    let mut text = "(module\n".to_owned();
    for (name, parameters) in FUNCTIONS {
        let _ = writeln!(
            text,
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {parameters}) \
             (result i32)))"
        );
    }
    text.push_str(
        "(memory (export \"memory\") 1)
         (data (i32.const 64) \"file\") (data (i32.const 80) \"link\") (data (i32.const 96) \
             \"folder\")
         (data (i32.const 112) \"second\") (data (i32.const 128) \
             \"\\40\\00\\00\\00\\04\\00\\00\\00\\dc\\05\\00\\00\\04\\00\\00\\00\")
         (func (export \"_start\")\n",
    );
    let calls: Vec<_> = CALLS
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    for (index, call) in calls.iter().enumerate() {
        let mut words = call.split_whitespace();
        let name = words.next().expect("a name");
        let (_, parameters) = FUNCTIONS
            .iter()
            .find(|(known, _)| *known == name)
            .expect(name);
        let arguments = parameters.split_whitespace().zip(words);
        let arguments: String = arguments
            .map(|(kind, value)| format!(" ({kind}.const {value})"))
            .collect();
        let _ = writeln!(
            text,
            "(i32.store8 (i32.const {}) (call ${name}{arguments}))",
            4096 + index
        );
    }
    let _ = writeln!(
        text,
        "(i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const {}))
         (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))",
        calls.len()
    );
    text
}

#[test]
fn guests_get_the_same_answers_as_in_a_thread() {
    let results = ISOLATIONS.map(|isolation| {
        let project = Project::new();
        std::fs::create_dir(project.path("files")).expect("made");
        project.write("guest.wasm", wat::parse_str(module_text()).expect("WAT"));
        let arguments = [
            "exec",
            "guest.wasm",
            "--isolation",
            isolation,
            "--mount",
            "files::.:rw",
            "--",
        ];
        let ended = project.mandelbox(&arguments).expect(0);
        let calls = CALLS.lines().filter(|line| !line.trim().is_empty());
        let answers: Vec<_> = calls.map(str::trim).zip(ended.stdout.bytes()).collect();
        let answers: Vec<String> = answers
            .iter()
            .map(|(call, errno)| format!("{call} -> {errno}"))
            .collect();
        let seconds = |name: &str| {
            let time = std::fs::symlink_metadata(project.path(name))
                .and_then(|metadata| metadata.modified());
            let seconds =
                time.map(|time| time.duration_since(UNIX_EPOCH).expect("after").as_secs());
            // The guest sets times below this. The current time differs between the two runs.
            seconds.ok().map(|seconds| seconds.min(1000))
        };
        let written = std::fs::read_to_string(project.path("files/file")).ok();
        (
            answers,
            written,
            [seconds("files/file"), seconds("files/link")],
        )
    });
    assert_eq!(results[0].0.len(), CALLS.trim().lines().count());
    let failed: Vec<_> = results[0]
        .0
        .iter()
        .filter(|answer| !answer.ends_with(" -> 0"))
        .collect();
    assert_eq!(failed, Vec::<&String>::new(), "in a thread");
    assert_eq!(results[0], results[1]);
}
