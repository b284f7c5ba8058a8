//! The cache of compiled modules below folders that others can write to: what is in it runs as
//! native code.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use serde_json::json;

use crate::project::{Ended, Project, finish, module, task};

/// A user that is not this one.
const OTHER: u32 = 54_321;

/// Runs a workflow with a cache folder; returns how that ended and whether anything was kept there.
fn run(project: &Project, cache: &Path) -> (Ended, bool) {
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    let mut command = project.command(&[
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "work",
    ]);
    command.env("XDG_CACHE_HOME", cache);
    let ended = finish(command).expect(0);
    fs::remove_dir_all(project.path("work")).expect("removed");
    let entries = fs::read_dir(cache.join("mandelbox/modules"));
    (
        ended,
        entries.is_ok_and(|mut entries| entries.next().is_some()),
    )
}

#[test]
fn a_cache_below_a_folder_of_others_is_not_used() {
    let project = Project::new();
    let folder = |name: &str, mode: u32| {
        let path = project.path(name);
        fs::create_dir_all(&path).expect("made");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
        path
    };
    let check = |cache: &Path, refused: Option<&str>| {
        let (ended, is_kept) = run(&project, cache);
        assert_eq!(
            is_kept,
            refused.is_none(),
            "{}: {}",
            cache.display(),
            ended.stderr
        );
        match refused {
            None => assert!(!ended.stderr.contains("the cache"), "{}", ended.stderr),
            Some(text) => drop(ended.reports(&[
                "modules are compiled from scratch each time: the cache ",
                text,
            ])),
        }
    };
    check(&folder("mine", 0o755).join("cache"), None);
    check(&folder("sticky", 0o1777).join("cache"), None);
    check(
        &folder("open", 0o757).join("cache"),
        Some("open and could put other code there"),
    );
    check(
        &folder("group", 0o2775).join("deep/cache"),
        group_refusal(&project),
    );
    // A link is followed where nobody else could have made it.
    symlink("mine", project.path("link")).expect("made");
    check(&project.path("link/cache"), None);
    symlink("open", project.path("link_to_open")).expect("made");
    check(
        &project.path("link_to_open/cache"),
        Some("open and could put other code there"),
    );
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // What only root can set up: folders and links of another user.
    let theirs = folder("theirs", 0o755);
    fs::create_dir_all(theirs.join("cache")).expect("made");
    chown(&theirs, Some(OTHER), None).expect("changed");
    check(
        &theirs.join("cache"),
        Some("theirs belongs to another user (uid 54321)"),
    );
    let link = project.path("sticky/link");
    symlink(folder("target", 0o755), &link).expect("made");
    std::os::unix::fs::lchown(&link, Some(OTHER), None).expect("changed");
    check(&link.join("cache"), Some("link belongs to another user"));
    let planted = folder("sticky/planted", 0o755);
    chown(&planted, Some(OTHER), None).expect("changed");
    check(&planted, Some("planted belongs to another user"));
}

/// The refusal of a folder that its group can write to, unless that group is the user's alone.
fn group_refusal(project: &Project) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    let gid = fs::metadata(project.path("group"))
        .expect("there")
        .gid()
        .to_string();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let has = |text: String, index: usize| {
        text.lines()
            .filter(|line| line.split(':').nth(index) == Some(&gid))
            .count()
    };
    let is_own = has(read("/etc/group"), 2) == 1 && has(read("/etc/passwd"), 3) == 1;
    (!is_own).then_some("group, and could put other code there")
}

/// The folder above a cache goes to another user, who may have put anything there: it is neither
/// read nor written.
#[test]
fn a_cache_that_another_user_gets_is_not_used_any_more() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let project = Project::new();
    let parent = project.path("parent");
    fs::create_dir_all(parent.join("cache")).expect("made");
    let (warmed, is_kept) = run(&project, &parent.join("cache"));
    assert!(is_kept, "{}", warmed.stderr);
    // From now on it is another user's, with all that is in it.
    chown(&parent, Some(OTHER), None).expect("changed");
    let before = fs::read_dir(parent.join("cache/mandelbox/modules"))
        .expect("there")
        .count();
    let (ended, _) = run(&project, &parent.join("cache"));
    ended.reports(&["parent belongs to another user"]);
    assert_eq!(
        fs::read_dir(parent.join("cache/mandelbox/modules"))
            .expect("there")
            .count(),
        before
    );
}
