//! Task packages as wheels: unpacked once, compared with the wheel at each use, and refused whole
//! if anything in them is not as it must be.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::{Value, json};

use crate::project::{Ended, Project, finish};

const WHEEL: &str = "fractal_x-1.0-py3-none-any.whl";
const MANIFEST: &str = "fractal_x/__FRACTAL_MANIFEST__.json";
const MODULE: &str = "fractal_x/tasks/t.wasm";
/// Offsets of fields in an entry of a ZIP file's directory, and the size of the entry before its
/// name.
const FLAGS: usize = 8;
const METHOD: usize = 10;
const CRC: usize = 16;
const SIZE: usize = 24;
const ATTRIBUTES: usize = 38;
const HEADER_BYTES: usize = 46;

/// A command that does `body` and nothing else.
fn command_module(body: &str) -> Vec<u8> {
    let text = format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#);
    wat::parse_str(text).expect("valid WAT")
}

/// The files of a good wheel of version 2, whose executable is a script with a module next to it.
fn files() -> Vec<(String, Vec<u8>)> {
    let manifest = json!({
        "manifest_version": "2",
        "task_list": [{ "name": "t", "executable_parallel": "tasks/t.py" }],
    });
    let file = |path: &str, contents: &[u8]| (path.to_owned(), contents.to_vec());
    vec![
        file("fractal_x/__init__.py", b""),
        file(MANIFEST, manifest.to_string().as_bytes()),
        file("fractal_x/tasks/t.py", b"print('in Python')\n"),
        file(MODULE, &command_module("")),
        file(
            "fractal_x-1.0.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: fractal-x\nVersion: 1.0\n",
        ),
        file(
            "fractal_x-1.0.dist-info/RECORD",
            format!("{MANIFEST},sha256=x,1\n").as_bytes(),
        ),
    ]
}

fn wheel_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipArchiveWriter::new(Vec::new());
    for (path, contents) in files {
        let file = zip
            .new_file(path.as_str())
            .compression_method(CompressionMethod::DEFLATE)
            .unix_permissions(0o644);
        let (mut entry, config) = file.start().expect("started");
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
        writer.write_all(contents).expect("written");
        let (encoder, descriptor) = writer.finish().expect("finished");
        encoder.finish().expect("finished");
        entry.finish(descriptor).expect("finished");
    }
    zip.finish().expect("finished")
}

/// A good wheel with one more file.
fn wheel_with(path: &str, contents: &[u8]) -> Vec<u8> {
    let mut files = files();
    files.push((path.to_owned(), contents.to_vec()));
    wheel_of(&files)
}

/// Writes to the entry of a path in the directory of a wheel.
fn patch(wheel: &mut [u8], path: &str, offset: usize, bytes: &[u8]) {
    let name = path.as_bytes();
    let found = wheel
        .windows(name.len())
        .rposition(|window| window == name)
        .expect("an entry");
    let at = found - HEADER_BYTES + offset;
    wheel[at..at + bytes.len()].copy_from_slice(bytes);
}

fn patched(mut wheel: Vec<u8>, path: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    patch(&mut wheel, path, offset, bytes);
    wheel
}

/// A good wheel with an entry that has another path than a ZIP writer would write.
fn wheel_with_path(path: &str) -> Vec<u8> {
    let placeholder = "q".repeat(path.len());
    let wheel = wheel_with(&placeholder, b"x");
    patched(wheel, &placeholder, HEADER_BYTES, path.as_bytes())
}

/// A project with a workflow of version 2, a dataset of two images and a cache of its own.
fn project(wheel: &[u8]) -> Project {
    let project = Project::new();
    project.write(WHEEL, wheel);
    let task = json!({ "pkg_name": "fractal-x", "version": "1.0", "name": "t" });
    let workflow = json!({ "name": "w", "task_list": [{ "task": task }] });
    project.write("workflow.json", workflow.to_string());
    let zarr_dir = project.path("zarr");
    let image = |name: &str| json!({ "zarr_url": zarr_dir.join(name) });
    let dataset = json!({ "name": "d", "zarr_dir": zarr_dir, "images": [image("a"), image("b")] });
    project.write("dataset.json", dataset.to_string());
    for folder in ["cache", "tmp"] {
        fs::create_dir(project.path(folder)).expect("created");
    }
    project
}

fn command(project: &Project, work_dir: &str, more: &[&str]) -> Command {
    let arguments = [
        "run",
        "workflow.json",
        "--dataset",
        "dataset.json",
        "--tasks",
        WHEEL,
        "--work-dir",
        work_dir,
    ];
    let mut command = project.command(&[&arguments, more].concat());
    command
        .env("XDG_CACHE_HOME", project.path("cache"))
        .env("TMPDIR", project.path("tmp"));
    command
}

fn run(project: &Project, work_dir: &str, more: &[&str]) -> Ended {
    finish(command(project, work_dir, more))
}

/// The entries of a folder; none if it does not exist.
fn entries(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The folders of unpacked wheels in the cache.
fn unpacked(project: &Project) -> Vec<PathBuf> {
    entries(&project.path("cache/mandelbox/packages"))
}

#[track_caller]
fn assert_nothing_is_left(project: &Project) {
    assert!(unpacked(project).is_empty(), "{:?}", unpacked(project));
    let temporary = entries(&project.path("tmp"));
    assert!(temporary.is_empty(), "{temporary:?}");
}

#[test]
fn a_wheel_is_unpacked_once() {
    let project = project(&wheel_of(&files()));
    run(&project, "work", &[]).expect(0);
    let folders = unpacked(&project);
    let [folder] = &folders[..] else {
        panic!("{folders:?}");
    };
    let name = folder.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("fractal_x-1.0-py3-none-any-"), "{name}");
    for (path, contents) in files() {
        assert_eq!(
            fs::read(folder.join(&path)).expect("read"),
            contents,
            "{path}"
        );
    }
    let inode = || fs::metadata(folder).expect("there").ino();
    let first = inode();
    run(&project, "work2", &[]).expect(0);
    assert_eq!((inode(), unpacked(&project).len()), (first, 1));

    // The same path, another wheel: the first one is not used for it.
    project.write(WHEEL, wheel_with(MODULE_OF_NOBODY, b"x"));
    run(&project, "work3", &[]).expect(0);
    assert_eq!(unpacked(&project).len(), 2);
}

const MODULE_OF_NOBODY: &str = "fractal_x/tasks/other.wasm";

#[test]
fn a_changed_cache_is_not_trusted() {
    let project = project(&wheel_of(&files()));
    run(&project, "work", &[]).expect(0);
    let folder = unpacked(&project).remove(0);
    let module = folder.join(MODULE);
    let good = fs::read(&module).expect("read");
    let bad = command_module("(unreachable)");
    let damages: [(&str, &dyn Fn()); 6] = [
        ("another module", &|| {
            fs::write(&module, &bad).expect("written")
        }),
        ("one byte", &|| {
            let mut changed = good.clone();
            changed[7] ^= 1;
            fs::write(&module, changed).expect("written");
        }),
        ("no module", &|| fs::remove_file(&module).expect("removed")),
        ("one more file", &|| {
            fs::write(folder.join("x"), "").expect("written")
        }),
        ("a link", &|| {
            fs::write(project.path("same.wasm"), &good).expect("written");
            fs::remove_file(&module).expect("removed");
            std::os::unix::fs::symlink(project.path("same.wasm"), &module).expect("created");
        }),
        ("no folder", &|| {
            fs::remove_dir_all(&folder).expect("removed");
            fs::write(&folder, "a file").expect("written");
        }),
    ];
    for (n, (what, damage)) in damages.into_iter().enumerate() {
        damage();
        let ended = run(&project, &format!("after{n}"), &[]);
        assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        let metadata = fs::symlink_metadata(&module).expect("there");
        assert!(metadata.is_file(), "{what}");
        assert_eq!(fs::read(&module).expect("read"), good, "{what}");
        assert!(!folder.join("x").exists(), "{what}");
        assert_eq!(unpacked(&project), std::slice::from_ref(&folder), "{what}");
    }
}

#[test]
fn processes_unpack_a_wheel_at_the_same_time() {
    let project = project(&wheel_with("fractal_x/large", &vec![7; 4 << 20]));
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|n| {
                let command = command(&project, &format!("work{n}"), &[]);
                scope.spawn(move || finish(command))
            })
            .collect();
        for run in runs {
            run.join().expect("no panic").expect(0);
        }
    });
    // Nothing that one of them began is left, either.
    let folders = unpacked(&project);
    assert_eq!(folders.len(), 1, "{folders:?}");
}

#[test]
fn without_a_cache_a_wheel_is_unpacked_for_the_run() {
    let project = project(&wheel_of(&files()));
    run(&project, "work", &["--no-cache"]).expect(0);
    assert_nothing_is_left(&project);
    run(&project, "dry", &["--dry-run"]).expect(0);
    assert_nothing_is_left(&project);
    // A cache that cannot be created.
    fs::remove_dir_all(project.path("cache")).expect("removed");
    project.write("cache", "a file");
    run(&project, "work2", &[]).expect(0);
    assert!(entries(&project.path("tmp")).is_empty());
}

#[test]
fn what_killed_processes_left_is_removed() {
    let project = project(&wheel_of(&files()));
    let packages = project.path("cache/mandelbox/packages");
    fs::create_dir_all(&packages).expect("created");
    fs::set_permissions(&packages, fs::Permissions::from_mode(0o700)).expect("changed");
    for (name, days) in [(".new-old", 2), (".new-now", 0)] {
        fs::create_dir_all(packages.join(name).join("unpacked")).expect("created");
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        let folder = fs::File::open(packages.join(name)).expect("opened");
        folder.set_modified(time).expect("changed");
    }
    run(&project, "work", &[]).expect(0);
    assert!(!packages.join(".new-old").exists() && packages.join(".new-now").exists());
}

/// A wheel of version 1 with the task `fractal_x:t`.
pub fn wheel_of_version_1() -> Vec<u8> {
    let mut files = files();
    let manifest = json!({
        "manifest_version": "1",
        "task_list": [{
            "name": "T", "executable": "tasks/t.wasm", "input_type": "Any", "output_type": "Any"
        }],
    });
    files[1].1 = manifest.to_string().into_bytes();
    wheel_of(&files)
}

#[test]
fn version_1_has_wheels_too() {
    let project = project(&wheel_of_version_1());
    let task = json!({ "args": {}, "meta": null, "task": { "source": "fractal_x:t" } });
    project.workflow(&[task]);
    project.run(&["--tasks", WHEEL]).expect(0);
    let ended = project.mandelbox(&["check", "workflow.json", "--tasks", WHEEL]);
    ended.expect(0).reports(&["no problem found"]);
    fs::write(project.path(WHEEL), "no wheel").expect("written");
    let ended = project.mandelbox(&["check", "workflow.json", "--tasks", WHEEL]);
    ended.expect(2).reports(&[WHEEL, "is not a wheel"]);
}

/// Runs a wheel, which is refused with these texts, and leaves nothing.
#[track_caller]
fn check_refused(wheel: &[u8], texts: &[&str]) {
    let project = project(wheel);
    for more in [&[][..], &["--no-cache"]] {
        let ended = run(&project, "work", more).expect(2);
        ended.reports(&[WHEEL]).reports(texts);
        assert_nothing_is_left(&project);
        assert!(!project.path("work").exists());
    }
}

#[test]
fn hostile_paths_are_refused() {
    for path in ["../evil", "fractal_x/../../evil", "./evil", "fractal_x/.."] {
        check_refused(&wheel_with_path(path), &[path, "has `.` or `..` in it"]);
    }
    check_refused(&wheel_with_path("/tmp/evil"), &["absolute"]);
    check_refused(&wheel_with_path("c:evil"), &["not allowed"]);
    check_refused(&wheel_with_path("a\\..\\evil"), &["not allowed"]);
    check_refused(&wheel_with_path("a\u{1b}[31m"), &["not allowed"]);
    check_refused(&wheel_with_path("a//evil"), &["empty name"]);
    for path in [
        MODULE,
        "FRACTAL_X/tasks/T.wasm",
        "fractal_x/tasks",
        "fractal_x/tasks/t.py/x",
    ] {
        check_refused(&wheel_with_path(path), &["two entries of the same path"]);
    }
}

#[test]
fn hostile_kinds_of_entries_are_refused() {
    let kind = |mode: u32| {
        let wheel = wheel_with("fractal_x/odd", b"/etc/passwd");
        // Made by Unix, which has the type in the upper half of the attributes.
        let wheel = patched(wheel, "fractal_x/odd", 5, &[3]);
        patched(
            wheel,
            "fractal_x/odd",
            ATTRIBUTES,
            &(mode << 16).to_le_bytes(),
        )
    };
    check_refused(&kind(0o120_777), &["fractal_x/odd", "which is a link"]);
    for mode in [0o020_666, 0o060_666, 0o010_666, 0o140_666, 0o040_755] {
        check_refused(&kind(mode), &["neither a file nor a folder"]);
    }
    let project = project(&kind(0o100_644));
    run(&project, "work", &[]).expect(0);
    let wheel = || wheel_of(&files());
    check_refused(
        &patched(wheel(), MODULE, METHOD, &[12, 0]),
        &["compression"],
    );
    check_refused(&patched(wheel(), MODULE, FLAGS, &[1, 0]), &["encrypted"]);
}

#[test]
fn sizes_are_bounded() {
    let size = |bytes: u32| patched(wheel_of(&files()), MODULE, SIZE, &bytes.to_le_bytes());
    check_refused(&size(0x7fff_ffff), &[MODULE, "larger than 1 GiB"]);
    // A header that lies about the size of what comes out.
    check_refused(&size(3), &["is a damaged wheel", MODULE]);
    check_refused(&size(100_000), &["is a damaged wheel", MODULE]);
    let mut sum = wheel_of(&files());
    for (path, _) in &files()[..3] {
        patch(&mut sum, path, SIZE, &0x3fff_ffff_u32.to_le_bytes());
    }
    check_refused(&sum, &["more than 2 GiB together"]);
    // A megabyte that became a thousand, with a header that admits a few bytes.
    let zeros = wheel_with("fractal_x/zeros", &vec![0; 64 << 20]);
    assert!(zeros.len() < 1 << 20);
    let bomb = patched(zeros, "fractal_x/zeros", SIZE, &10_u32.to_le_bytes());
    check_refused(&bomb, &["is a damaged wheel", "fractal_x/zeros"]);

    let mut many = files();
    many.extend((0..50_001).map(|n| (format!("fractal_x/{n}"), Vec::new())));
    check_refused(&wheel_of(&many), &["has 50007 entries"]);
    let mut deep = files();
    let folders = "d/".repeat(200);
    deep.extend((0..600).map(|n| (format!("{n}/{folders}x"), Vec::new())));
    check_refused(&wheel_of(&deep), &["files and folders"]);
}

#[test]
fn a_wheel_must_be_whole() {
    let wheel = wheel_of(&files());
    for n_bytes in [0, 1, 30, wheel.len() / 2, wheel.len() - 30, wheel.len() - 1] {
        check_refused(&wheel[..n_bytes], &["is not a wheel"]);
    }
    check_refused(b"not a ZIP file at all", &["is not a wheel"]);
    check_refused(
        &patched(wheel.clone(), MODULE, CRC, &[1, 2, 3, 4]),
        &["is a damaged wheel", MODULE],
    );
    let without = |path: &str| {
        let files = files().into_iter().filter(|(name, _)| name != path);
        wheel_of(&files.collect::<Vec<_>>())
    };
    check_refused(&without(MANIFEST), &["contains no task package"]);
    let mut outside = files();
    outside[1].0 = "__FRACTAL_MANIFEST__.json".to_owned();
    check_refused(&wheel_of(&outside), &["that is in no folder"]);
    outside[1].0 = "src/fractal_x/__FRACTAL_MANIFEST__.json".to_owned();
    check_refused(&wheel_of(&outside), &["no folder directly in it"]);
    // Good wheels with a module that is missing.
    let project = project(&without(MODULE));
    let ended = run(&project, "work", &[]).expect(2);
    // The location is in the wheel that the user named, wherever it was unpacked.
    ended
        .reports(&["t.wasm", "build it, and put it next to it"])
        .reports(&[&format!("{WHEEL}/{MANIFEST}: /task_list/0")]);
}

#[test]
fn the_result_cannot_replace_the_wheel() {
    let project = project(&wheel_of(&files()));
    run(&project, "work", &["--result", WHEEL])
        .expect(2)
        .reports(&["a task package"]);
    let dataset: Value = project.json("dataset.json");
    run(&project, "work", &["--result", "result.json"]).expect(0);
    assert_eq!(project.json("result.json")["zarr_dir"], dataset["zarr_dir"]);
}
