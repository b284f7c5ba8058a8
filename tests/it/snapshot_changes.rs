//! What snapshots depend on: the files that the initialization can read, the module and the
//! settings.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::project::{Ended, Project, finish};
use crate::snapshot::{START, counter, exec, module, with_guest};

/// A guest that reads `a.txt` of its first folder in its initialization, and prints it in each
/// call.
pub const READER: &str = r#"
    (memory (export "memory") 1)
    (data (i32.const 100) "a.txt")
    (func (export "wizer.initialize")
        (local $file i32)
        (local.set $file (call $open (i32.const 100) (i32.const 5)))
        (i32.store (i32.const 0) (i32.const 200))
        (i32.store (i32.const 4) (i32.const 100))
        (drop (call $fd_read (local.get $file) (i32.const 0) (i32.const 1) (i32.const 160)))
        (drop (call $fd_close (local.get $file))))
    (func (export "_start") (call $print (i32.const 200) (i32.load (i32.const 160))))
"#;

/// Runs the guest in a project with a cache of its own.
fn exec_cached(project: &Project, options: &[&str]) -> Ended {
    let mut command = project.command(&[&["exec", "guest.wasm"], options].concat());
    command.env("XDG_CACHE_HOME", project.path("cache"));
    finish(command)
}

pub fn compiled_files(project: &Project) -> Vec<String> {
    let files = project.tree().into_iter();
    files
        .filter(|path| path.starts_with("cache/") && path.ends_with(".compiled"))
        .collect()
}

#[test]
fn a_changed_mount_gives_a_new_snapshot() {
    let project = with_guest(module(READER));
    project.write("data/a.txt", "one");
    project.write("data/deep/b.txt", "two");
    let read = |mount: &str| {
        exec_cached(&project, &["--snapshot", "--mount", mount])
            .expect(0)
            .stdout
    };
    assert_eq!(read("data"), "one");
    // The code, and the image.
    let mut n_files = 2;
    let n = || compiled_files(&project).len();
    assert_eq!(n(), n_files);
    assert_eq!(read("data"), "one");
    assert_eq!(n(), n_files, "no second snapshot of the same files");
    let path = |name: &str| project.path("data").join(name);
    let changes: [(&str, &dyn Fn()); 20] = [
        ("contents of the same size", &|| {
            std::fs::write(path("a.txt"), "ONE").expect("written")
        }),
        ("a longer file", &|| {
            std::fs::write(path("a.txt"), "longer").expect("written")
        }),
        ("an empty file", &|| {
            std::fs::write(path("a.txt"), "").expect("written")
        }),
        ("a file in a deep folder", &|| {
            std::fs::write(path("deep/b.txt"), "TWO").expect("written")
        }),
        ("a new file", &|| {
            std::fs::write(path("c.txt"), "").expect("written")
        }),
        ("a new folder", &|| {
            std::fs::create_dir(path("empty")).expect("created")
        }),
        ("another name", &|| {
            std::fs::rename(path("c.txt"), path("d.txt")).expect("renamed")
        }),
        ("another folder", &|| {
            std::fs::rename(path("d.txt"), path("empty/d.txt")).expect("renamed")
        }),
        ("a link", &|| {
            std::os::unix::fs::symlink("a.txt", path("link")).expect("linked")
        }),
        ("another target of the link", &|| {
            std::fs::remove_file(path("link")).expect("removed");
            std::os::unix::fs::symlink("deep", path("link")).expect("linked");
        }),
        ("a removed file", &|| {
            std::fs::remove_file(path("empty/d.txt")).expect("removed")
        }),
        ("another time", &|| {
            let file = std::fs::File::options()
                .write(true)
                .open(path("a.txt"))
                .expect("opened");
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .expect("changed");
        }),
        ("another name of a folder", &|| {
            std::fs::rename(path("deep"), path("depth")).expect("renamed")
        }),
        ("a removed folder", &|| {
            std::fs::remove_dir(path("empty")).expect("removed")
        }),
        ("a folder in place of a file", &|| {
            std::fs::remove_file(path("depth/b.txt")).expect("removed");
            std::fs::create_dir(path("depth/b.txt")).expect("created");
        }),
        ("a file in place of a folder", &|| {
            std::fs::remove_dir(path("depth/b.txt")).expect("removed");
            std::fs::write(path("depth/b.txt"), "file").expect("written");
        }),
        ("a hidden file", &|| {
            std::fs::write(path(".hidden"), "h").expect("written")
        }),
        ("a name that is not UTF-8", &|| {
            let name = std::ffi::OsStr::from_bytes(b"\xff");
            std::fs::write(project.path("data").join(name), "x").expect("written")
        }),
        ("two files that swap their names", &|| {
            std::fs::rename(path(".hidden"), path("t")).expect("renamed");
            std::fs::rename(path("depth/b.txt"), path(".hidden")).expect("renamed");
            std::fs::rename(path("t"), path("depth/b.txt")).expect("renamed");
        }),
        ("a file in place of a link", &|| {
            std::fs::remove_file(path("link")).expect("removed");
            std::fs::write(path("link"), "deep").expect("written");
        }),
    ];
    for (what, change) in changes {
        change();
        assert_eq!(read("data"), project.read("data/a.txt"), "{what}");
        n_files += 1;
        assert_eq!(n(), n_files, "{what}");
    }
    // A second folder, and the order of the folders.
    project.write("more/x.txt", "");
    for mounts in [["data", "more"], ["more", "data"]] {
        let options = ["--snapshot", "--mount", mounts[0], "--mount", mounts[1]];
        exec_cached(&project, &options).expect(0);
        n_files += 1;
        assert_eq!(n(), n_files, "{mounts:?}");
    }
    // The path in the sandbox is a part of what the guest sees, the path on the host is not.
    read("data::/other");
    assert_eq!(n(), n_files + 1);
    Command::new("cp")
        .args(["-rp", "data", "copy"])
        .current_dir(project.path(""))
        .status()
        .expect("copied");
    read("copy::/other");
    assert_eq!(n(), n_files + 1);
}

#[test]
fn a_folder_that_the_call_can_write_to_is_not_read_by_the_initialization() {
    let project = with_guest(module(READER));
    project.write("data/a.txt", "private");
    // The file cannot be opened, so the initialization reads nothing.
    let ended = exec(
        &project,
        &[
            "--snapshot",
            "--mount",
            "data:rw",
            "--env",
            "A=b",
            "--",
            "x",
        ],
    )
    .expect(0);
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_cache_that_lost_or_damaged_a_part_is_completed() {
    let project = with_guest(counter(START));
    let run = || {
        assert_eq!(
            exec_cached(&project, &["--snapshot"]).expect(0).stdout,
            "5634567"
        )
    };
    run();
    let files = compiled_files(&project);
    assert_eq!(files.len(), 2);
    for file in &files {
        std::fs::remove_file(project.path(file)).expect("removed");
        run();
        assert_eq!(compiled_files(&project), files);
        let mut bytes = std::fs::read(project.path(file)).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(project.path(file), bytes).expect("written");
        run();
    }
}

#[test]
fn another_module_or_other_settings_give_a_new_snapshot() {
    let project = with_guest(counter(START));
    let mut seen = Vec::new();
    let mut run = |what: &str, options: &[&str]| {
        let options = [&["--snapshot"], options].concat();
        assert_eq!(
            exec_cached(&project, &options).expect(0).stdout,
            "5634567",
            "{what}"
        );
        let files = compiled_files(&project);
        let is_new = files != seen;
        seen = files;
        is_new
    };
    assert!(run("the first", &[]));
    assert!(!run("nothing", &[]));
    assert!(!run("another limit", &["--memory", "1M"]));
    assert!(run("deterministic calls", &["--deterministic"]));
    let mut bytes = counter(START);
    // An empty custom section.
    bytes.extend([0, 1, 0]);
    project.write("guest.wasm", bytes);
    assert!(run("another module", &[]));
}
