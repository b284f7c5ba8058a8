//! Compiling modules: its time limit, and the cache of compiled ones.

use std::time::Duration;

use serde_json::json;

use crate::project::{Ended, Project, finish, module, task};

/// Runs workflow.json with a cache in the project.
fn run_with_own_cache(project: &Project, more: &[&str]) -> Ended {
    let mut command = project.command(&[&["run", "workflow.json"], more].concat());
    command.env("XDG_CACHE_HOME", project.path("cache"));
    finish(command)
}

#[test]
fn a_module_that_takes_too_long_to_compile_is_refused() {
    let project = Project::new();
    // Small and valid, and the compiler takes minutes for blocks in blocks.
    let n = 100_000;
    let text = format!(
        "(module (func (export \"_start\") {}{}))",
        "block ".repeat(n),
        "end ".repeat(n)
    );
    project.write("nested.wasm", wat::parse_str(text).expect("valid WAT"));
    project.write("policy.toml", "[host]\ncompile = \"500ms\"\n");
    project.workflow(&[task(0, "t", "nested.wasm", json!({}))]);
    let before = project.tree();
    let ended = project.run(&["--policy", "policy.toml"]).expect(2);
    assert!(
        ended.elapsed < Duration::from_secs(10),
        "{:?}",
        ended.elapsed
    );
    ended.reports(&["takes longer to compile than the limit of 0.5 s", "[host]"]);
    assert_eq!(project.tree(), before);
}

#[test]
fn a_large_module_that_cannot_be_called_is_not_compiled() {
    let project = Project::new();
    // As above, and over the size from which modules are looked into first.
    let (n, data) = (100_000, "x".repeat(1 << 20));
    let nested = format!("{}{}", "block ".repeat(n), "end ".repeat(n));
    let text = format!(
        r#"(module (import "env" "f" (func)) (memory 17) (data (i32.const 0) "{data}") (func (export "_start") {nested}))"#
    );
    project.write("large.wasm", wat::parse_str(text).expect("valid WAT"));
    project.write("policy.toml", "[host]\ncompile = \"500ms\"\n");
    project.workflow(&[task(0, "t", "large.wasm", json!({}))]);
    let policy = ["--policy", "policy.toml"];
    project.run(&policy).expect(2).reports(&["env::f"]);
    project
        .mandelbox(&[&["check", "large.wasm"][..], &policy].concat())
        .expect(2)
        .reports(&["env::f", "1 problem found"]);

    project.write(
        "policy.toml",
        "[default]\nmodule = \"1M\"\n[maximum]\nmodule = \"1M\"\n",
    );
    let ended = project.mandelbox(&[&["check", "large.wasm"][..], &policy].concat());
    ended.expect(2).reports(&[
        "more than the limit of 1 MiB",
        "raise `module` in `[default]` and `[maximum]` of the policy",
    ]);
}

#[test]
fn nothing_is_kept_before_a_run_starts() {
    let project = Project::new();
    let good = task(0, "t", &module("swiss.wasm"), json!({}));
    project.workflow(std::slice::from_ref(&good));
    let entries = || {
        project
            .tree()
            .iter()
            .filter(|path| path.ends_with(".compiled"))
            .count()
    };
    run_with_own_cache(
        &project,
        &["--output", "out", "--work-dir", "w1", "--dry-run"],
    )
    .expect(0);
    project.workflow(&[good, task(1, "missing", "missing.wasm", json!({}))]);
    run_with_own_cache(&project, &["--output", "out", "--work-dir", "w2"]).expect(2);
    assert_eq!(entries(), 0);
    run_with_own_cache(
        &project,
        &["--output", "out", "--work-dir", "w3", "--last-task", "0"],
    )
    .expect(0);
    assert_eq!(entries(), 1);
}

#[test]
fn compiled_modules_are_kept_and_never_trusted_blindly() {
    let project = Project::new();
    project.workflow(&[task(
        0,
        "t",
        &module("swiss.wasm"),
        json!({ "metadiff": { "a": 1 } }),
    )]);
    let run = |work: &str, more: &[&str]| {
        run_with_own_cache(
            &project,
            &[&["--output", "out", "--work-dir", work], more].concat(),
        )
        .expect(0)
    };
    run("w1", &["--no-cache"]);
    assert!(!project.path("cache").exists());
    run("w2", &[]);
    let entries = || -> Vec<_> {
        let files = project
            .tree()
            .into_iter()
            .filter(|path| path.starts_with("cache/") && path.ends_with(".compiled"));
        files.map(|path| project.path(&path)).collect()
    };
    let [entry] = &entries()[..] else {
        panic!("{:?}", project.tree())
    };
    let good = std::fs::read(entry).expect("an entry");
    for index in [0, 31, 32, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[index] ^= 0x40;
        std::fs::write(entry, bad).expect("written");
        run(&format!("bad{index}"), &[]);
        assert_eq!(
            std::fs::read(entry).expect("an entry").len(),
            good.len(),
            "compiled and kept again"
        );
    }
    std::fs::remove_file(entry).expect("removed");
    std::fs::create_dir(entry).expect("a folder in its place");
    run("w3", &[]);
    use std::os::unix::fs::PermissionsExt;
    let folder = project.path("cache/mandelbox/modules");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("changed");
    run("w4", &[]).reports(&[
        "warning: cache: modules are compiled from scratch each time",
        "set its mode to 0700",
    ]);
}
