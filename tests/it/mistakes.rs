//! Mistakes of a user: each message names the location and the remedy.

#![expect(clippy::print_stdout, reason = "prints what was skipped")]

use std::process::Command;

use serde_json::json;

use crate::project::{Project, finish, module, parallel_task, resealed, task};

fn project() -> Project {
    let project = Project::new();
    project.workflow(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    project
}

#[test]
fn what_cannot_be_read_is_named_with_what_to_do() {
    let project = project();
    project.write("empty/x", "");
    project.write("policy.toml", "[default]\nmemry = \"1G\"\n");
    let run = |more: &[&str], text: &str| {
        project
            .mandelbox(&[&["run", "workflow.json", "--output", "out"], more].concat())
            .expect(2)
            .reports(&[text]);
    };
    project
        .mandelbox(&["run", "none.json", "--output", "out"])
        .expect(2)
        .reports(&[
            "none.json: cannot be read: No such file or directory",
            "; correct the path\n",
        ]);
    project
        .mandelbox(&["run", "in", "--output", "out"])
        .expect(2)
        .reports(&["in: cannot be read: Is a directory", "; name a file\n"]);
    run(&["--metadata", "none.json"], "; correct the path\n");
    run(
        &["--policy", "none.toml"],
        "none.toml: cannot be read: No such file or directory (os error 2); correct the path\n",
    );
    run(
        &["--policy", "policy.toml"],
        "policy.toml:2:1: invalid policy: unknown field `memry`, expected one of `memory`",
    );
    run(
        &["--tasks", "none"],
        "none: no such folder or file; correct the path\n",
    );
    run(
        &["--tasks", "empty"],
        "empty: is not a task package: it has no __FRACTAL_MANIFEST__.json; name the folder of a package",
    );
    run(&["--jobs", "0"], "0 is not in 1..=1024");
    run(&["--resume"], "--work-dir <DIR>");
    project
        .mandelbox(&["exec", &module("swiss.wasm"), "--args", "none.json"])
        .expect(2)
        .reports(&["; correct the path\n"]);
    project.run(&["--input", "none"]).expect(0).reports(&[
        "none: there is no such folder",
        "; make it, or correct the path\n",
    ]);
}

#[test]
fn a_run_that_cannot_be_read_is_reported_with_a_remedy() {
    let project = project();
    project.run(&[]).expect(0);
    let log = project.read("work/events.jsonl");
    let later = log.replacen("\"format_version\":3", "\"format_version\":4", 1);
    project.write("work/events.jsonl", resealed(&later));
    let location =
        "work/events.jsonl: line 1: has format version 4; this version of mandelbox reads 3";
    let restore = "; use the version of mandelbox that wrote it\n";
    for arguments in [
        &["status", "work"][..],
        &["report", "work"],
        &["report", "work", "--ro-crate"],
    ] {
        project
            .mandelbox(arguments)
            .expect(2)
            .reports(&[location, restore]);
    }
    project.run(&["--resume"]).expect(2).reports(&[
        "work: events.jsonl: line 1: has format version 4",
        "; use the version of mandelbox that wrote it, or run without --resume in another work \
         directory\n",
    ]);
    project.mandelbox(&["status", "in"]).expect(2).reports(&[
        "in: not the work directory of a run",
        "; name the folder of",
    ]);
}

#[test]
fn an_output_that_cannot_be_written_to_is_reported_before_anything_runs() {
    let project = project();
    // Permissions do not hold for everybody; a mount that is read-only does.
    let script = r#"
        mount -o bind out out && mount -o remount,bind,ro out || exit 77
        "$0" run workflow.json --output out --work-dir work; echo $? > code
        "$0" run workflow.json --output out/new --work-dir work; echo $? >> code
    "#;
    let program = project.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(program.get_program())
        .current_dir(project.path(""));
    let ended = finish(command);
    if !project.path("code").is_file() {
        println!("skipped: nothing can be mounted here: {}", ended.stderr);
        return;
    }
    assert_eq!(project.read("code"), "2\n2\n", "{}", ended.stderr);
    ended.reports(&[
        "out: cannot be written to: Read-only file system (os error 30); choose another --output, or let this user",
        "out/new: `",
        "/out` cannot be written to: Read-only file system (os error 30); choose another --output, or let this user",
    ]);
    assert!(!project.path("work").exists());
}

#[test]
fn options_of_the_other_backend_are_refused() {
    let project = project();
    let of_slurm = "is an option of `--backend slurm`; add it, or remove this option";
    project
        .run(&["--slurm-grace", "5s"])
        .expect(2)
        .reports(&["--slurm-grace: ", of_slurm]);
    assert!(!project.path("work").exists());
    for option in ["--folder", "--slurm-config"] {
        project
            .mandelbox(&["doctor", option, "in"])
            .expect(2)
            .reports(&[option, of_slurm]);
    }
    project
        .mandelbox(&["doctor", "--backend", "slurm", "--slurm-config", "none"])
        .expect(2)
        .reports(&["none: cannot be read: ", "; correct the path"]);
}

#[test]
fn a_file_is_no_work_directory() {
    let project = project();
    let is_file = "workflow.json: is not a folder; name the work directory of a run\n";
    for command in [
        &["status", "workflow.json"][..],
        &["report", "workflow.json"],
        &["show", "workflow.json", "0"],
    ] {
        project.mandelbox(command).expect(2).reports(&[is_file]);
    }
}

/// Commands for other programs of mandelbox, started by hand.
#[test]
fn internal_commands_are_marked_as_such() {
    let project = project();
    for command in ["worker", "compiler"] {
        project.mandelbox(&[command]).expect(2).reports(&[
            "no other mandelbox sends work to this command",
            "`mandelbox run`",
        ]);
    }
    let worker = ["worker", "--batch", "none", "--slice", "0"];
    project.mandelbox(&worker).expect(2).reports(&[
        "none: cannot be read: ",
        "all nodes must see the work directory",
    ]);
}

#[test]
fn a_trial_run_without_items_is_a_warning() {
    let project = Project::new();
    project.workflow(&[parallel_task(0, "t", &module("swiss.wasm"), "c", json!({}))]);
    project.write("metadata.json", r#"{"c":["a","b"]}"#);
    let warning = "none of the 2 components of \"t\" matches the trial run's items x*, so it was \
                   not called; correct `--only`";
    project
        .run(&["--metadata", "metadata.json", "--only", "x*"])
        .expect(0)
        .reports(&[warning]);
}

#[test]
fn a_file_cannot_be_shared() {
    let project = project();
    project
        .run(&["--share", "workflow.json"])
        .expect(1)
        .reports(&["share calls through the folder workflow.json: not a directory"]);
    assert!(!project.path("work").exists());
}
