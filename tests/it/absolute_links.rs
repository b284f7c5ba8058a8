//! Symbolic links with absolute paths in the folders of a call.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::project::{Project, module};
use crate::sandbox::probe;

#[test]
fn absolute_links_within_the_folders_of_a_call_are_followed() {
    let prepare = |project: &Project| {
        project.write("in/real/a.txt", "input");
        project.write("out/b.txt", "output");
        project.write("outside/secret", "SECRET");
        let link =
            |to: &str, from: &str| symlink(project.path(to), project.path(from)).expect("made");
        link("in/real/a.txt", "in/file");
        link("in/real", "in/folder");
        link("out", "in/to_output");
        link("in", "out/to_input");
        link("outside/secret", "in/away");
        link("outside", "in/real/away");
        link("in/loop", "in/loop");
        symlink("folder", project.path("in/chain")).expect("made");
    };
    let steps = json!([
        { "do": "read", "path": "@/in/file" },
        { "do": "size", "path": "@/in/file" },
        { "do": "read", "path": "@/in/chain/a.txt" },
        { "do": "list", "path": "@/in/folder" },
        { "do": "size", "path": "@/in/folder/a.txt" },
        { "do": "read", "path": "@/in/to_output/b.txt" },
        { "do": "write", "path": "@/in/to_output/new.txt", "text": "made" },
        { "do": "read", "path": "@/out/to_input/folder/a.txt" },
        { "do": "write", "path": "@/out/to_input/new.txt", "text": "made" },
        { "do": "write", "path": "@/in/file", "text": "changed" },
        { "do": "read", "path": "@/in/away" },
        { "do": "size", "path": "@/in/away" },
        { "do": "read", "path": "@/in/folder/away/secret" },
        { "do": "read", "path": "@/in/loop" },
    ]);
    probe(prepare, &steps, &[], |project, ended, results| {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let ok = |index: usize| &results[index]["ok"];
        assert_eq!(
            [ok(0), ok(1), ok(2), ok(4)],
            [&json!("input"), &json!(5), &json!("input"), &json!(5)]
        );
        assert_eq!(
            [ok(3), ok(5), ok(7)],
            [&json!(["a.txt", "away"]), &json!("output"), &json!("input")]
        );
        assert!(results[6].get("error").is_none(), "{}", results[6]);
        assert_eq!(project.read("out/new.txt"), "made");
        for index in [8, 9, 10, 11, 12, 13] {
            assert!(results[index].get("error").is_some(), "{}", results[index]);
        }
        assert_eq!(project.read("in/real/a.txt"), "input");
        assert!(!project.path("in/new.txt").exists());
        let text = |name: &str| project.path(name).display().to_string();
        for (link, target) in [("in/away", "outside/secret"), ("in/real/away", "outside")] {
            let warning = format!(
                "{}: the symbolic link leads to {}",
                text(link),
                text(target)
            );
            assert_eq!(
                ended.stderr.matches(&warning).count(),
                1,
                "{}",
                ended.stderr
            );
        }
    });
}

#[test]
fn links_of_mounts_lead_by_the_paths_of_the_host() {
    let project = Project::new();
    project.write("data/real/a.txt", "input");
    symlink(project.path("data"), project.path("alias")).expect("made");
    symlink(project.path("data/real"), project.path("data/link")).expect("made");
    symlink(project.path("alias/real"), project.path("data/by_alias")).expect("made");
    let read = |path: &str| json!({ "do": "read", "path": path });
    let steps = json!({ "steps": [read("/d/link/a.txt"), read("/d/by_alias/a.txt")] });
    project.write("files/args.json", steps.to_string());
    let mounts = ["--mount", "files::/files:rw", "--mount", "alias::/d"];
    let arguments = [
        "--",
        "-j",
        "/files/args.json",
        "--metadata-out",
        "/files/metadiff.json",
    ];
    for name in ["probe.wasm", "probe.p2.wasm"] {
        project
            .mandelbox(&[&["exec", &module(name)], &mounts[..], &arguments].concat())
            .expect(0);
        let results = &project.json("files/metadiff.json")["probe"];
        assert_eq!(
            (&results[0]["ok"], &results[1]["ok"]),
            (&json!("input"), &json!("input")),
            "{results}"
        );
    }
}
