//! `mandelbox test`: the cases of a package. The guests do what their args say: `typed` as a
//! package of one file, `probe` and `swiss` under a manifest.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::project::{Ended, Project, module};

/// A project with the folder `package`, which holds the named modules and a manifest that names the
/// commands of them.
fn package(modules: &[&str]) -> Project {
    let project = Project::new();
    std::fs::create_dir(project.path("package")).expect("made");
    for name in modules {
        std::fs::copy(module(name), project.path("package").join(name)).expect("copied");
    }
    let commands: Vec<_> = modules
        .iter()
        .filter(|name| !name.contains("typed"))
        .collect();
    if !commands.is_empty() {
        let task = |name: &&&str| {
            json!({
                "name": name.trim_end_matches(".wasm"), "executable": name, "input_type": "Any", "output_type": "Any",
                "args_schema": { "type": "object", "properties": { "echo": { "default": ["n"] }, "n": { "type": "integer", "default": 5 } } }
            })
        };
        let task_list: Vec<_> = commands.iter().map(task).collect();
        let manifest = json!({ "manifest_version": "1", "task_list": task_list });
        project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    }
    project
}

fn case(project: &Project, name: &str, args: &Value) {
    project.write(&format!("package/tests/{name}/args.json"), args.to_string());
}

fn expect(project: &Project, name: &str, metadiff: &Value) {
    project.write(
        &format!("package/tests/{name}/expected/metadiff.json"),
        metadiff.to_string(),
    );
}

fn test(project: &Project, more: &[&str]) -> Ended {
    let ended = project.mandelbox(&[&["test", "package"], more].concat());
    assert_eq!(ended.stdout, "");
    ended
}

/// The files of the cases, relative to their folder.
fn case_files(project: &Project) -> Vec<String> {
    let tree = project.tree().into_iter();
    tree.filter_map(|path| {
        path.strip_prefix("package/tests/")
            .filter(|path| !path.is_empty() && !path.ends_with('/'))
            .map(str::to_owned)
    })
    .collect()
}

fn write(path: &str, text: &str) -> Value {
    json!({ "do": "write", "path": path, "text": text })
}

#[test]
fn cases_pass_when_they_give_what_they_should() {
    for isolation in ["thread", "process"] {
        let project = package(&["swiss.wasm"]);
        case(&project, "defaults", &json!({}));
        expect(&project, "defaults", &json!({ "echo": { "n": 5.0 } }));
        let echo = json!({ "echo": ["input_paths", "output_path", "metadata", "component"], "component": "B/03",
            "metadata": { "well": ["B/03"], "image": ["i"] } });
        case(&project, "what_the_host_adds", &echo);
        let expected = json!({ "echo": { "component": "B/03", "metadata": { "well": ["B/03"] }, "output_path": "/output",
            "input_paths": [] } });
        expect(&project, "what_the_host_adds", &expected);
        case(
            &project,
            "nothing",
            &json!({ "echo": false, "metadiff": "__missing__" }),
        );
        expect(&project, "nothing", &Value::Null);
        case(
            &project,
            "failure",
            &json!({ "exit": 3, "stderr": "there is no plate\n" }),
        );
        project.write("package/tests/failure/expected/error.txt", "no plate\n");
        project.write("package/tests/README.md", "no case");
        project.write("package/tests/it/main.rs", "no case");
        let ended = test(&project, &["--isolation", isolation]).expect(0);
        let names: Vec<_> = ended
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("ok       ")?.split(' ').next())
            .collect();
        assert_eq!(
            names,
            ["defaults", "failure", "nothing", "what_the_host_adds"]
        );
        ended.reports(&["4 passed, 0 failed in "]);
    }
}

#[test]
fn differences_are_reported_with_their_location() {
    let project = package(&["swiss.wasm"]);
    let metadiff =
        json!({ "echo": false, "metadiff": { "counts": { "nuclei": 4 }, "b": "\u{1b}[31m" } });
    case(&project, "values", &metadiff);
    expect(
        &project,
        "values",
        &json!({ "counts": { "nuclei": 3 }, "a": 1 }),
    );
    case(&project, "fails", &json!({ "exit": 3, "stderr": "why\n" }));
    expect(&project, "fails", &Value::Null);
    case(&project, "other_failure", &json!({ "exit": 4 }));
    project.write("package/tests/other_failure/expected/error.txt", "code 3");
    case(&project, "no_failure", &json!({}));
    project.write("package/tests/no_failure/expected/error.txt", "code 3");
    case(&project, "unknown", &json!({}));
    test(&project, &[]).expect(3).reports(&[
        "FAILED   values (",
        "metadiff.json\n           /counts/nuclei: expected 3, got 4\n           /a: expected 1, \
         got nothing\n",
        "/b: expected nothing, got \"\\u001b[31m\"",
        "the call failed; if it should fail, create `expected/error.txt`",
        "call exited with code 3\n             | why\n",
        "should fail with a message that contains \"code 3\"\n         call exited with code 4",
        "should fail with a message that contains \"code 3\", but it succeeded",
        "has no `expected/`; write it with `--update`",
        "0 passed, 5 failed in ",
    ]);
    assert_eq!(
        case_files(&project).len(),
        9,
        "nothing is written without --update"
    );
    test(&project, &["--case", "values"])
        .expect(3)
        .reports(&["0 passed, 1 failed"]);
}

#[test]
fn a_program_gets_the_results_as_one_object() {
    let project = package(&["typed.wasm"]);
    let test = |more: &[&str], code: i32| -> Value {
        let ended = project
            .mandelbox(&[&["test", "package", "--format", "json"], more].concat())
            .expect(code);
        assert_eq!(ended.stderr, "");
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    case(
        &project,
        "files",
        &json!({ "steps": [write("/output/a.txt", "new\n")] }),
    );
    expect(&project, "files", &json!({ "typed": 1 }));
    project.write("package/tests/files/expected/output/a.txt", "old\n");
    case(&project, "fine", &json!({ "steps": [{ "do": "none" }] }));
    expect(&project, "fine", &Value::Null);
    case(&project, "trap", &json!({ "steps": [{ "do": "trap" }] }));
    let mut answer = test(&[], 3);
    let time = |value: &mut Value| value["wall_time_s"].take().as_f64().expect("a time");
    assert!(time(&mut answer) > 0.0);
    let mut cases = answer["cases"].take();
    for case in cases.as_array_mut().expect("an array") {
        assert!((0.0..60.0).contains(&time(case)));
        for difference in case["differences"].as_array_mut().expect("an array") {
            // The first line is what is meant for a program that shows one.
            let message = difference["message"].as_str().expect("a text");
            difference["message"] = message.lines().next().expect("a line").into();
        }
    }
    let total = json!({ "package": "package", "ok": false, "problems": [], "warnings": [], "n_passed": 1, "n_failed": 2,
        "wall_time_s": null, "cases": null });
    assert_eq!(answer, total);
    let hint = "the call failed; if it should fail, create `expected/error.txt` with a part of its \
        message";
    let expected = json!([
        { "name": "files", "status": "failed", "wall_time_s": null, "changes": [], "differences": [
            { "location": "metadiff.json", "message": "/typed: expected 1, got [null]" },
            { "location": "output/a.txt", "message": "differs" },
        ] },
        { "name": "fine", "status": "passed", "wall_time_s": null, "changes": [], "differences": [] },
        { "name": "trap", "status": "failed", "wall_time_s": null, "changes": [], "differences": [
            { "location": "case", "message": hint },
        ] },
    ]);
    assert_eq!(cases, expected);

    let updated = test(&["--update", "--case", "files"], 0);
    assert_eq!(
        (&updated["ok"], &updated["n_passed"]),
        (&json!(true), &json!(1))
    );
    let case = &updated["cases"][0];
    assert_eq!(
        (&case["status"], &case["differences"]),
        (&json!("updated"), &json!([]))
    );
    assert_eq!(case["changes"], json!(["metadiff.json", "output/a.txt"]));

    let wrong = test(&["--case", "none"], 2);
    assert_eq!(wrong["problems"][0]["location"], "--case none");
    assert_eq!((&wrong["ok"], &wrong["cases"]), (&json!(false), &json!([])));
    let watched = test(&["--watch"], 2);
    assert_eq!(watched["problems"][0]["location"], "--format json");
}

#[test]
fn files_are_compared_and_the_input_is_read_only() {
    let project = package(&["typed.wasm"]);
    let steps = json!([
        { "do": "list", "path": "/input" }, { "do": "list", "path": "/output" },
        write("/output/image.txt", "new\n"), write("/output/deep", "x"),
    ]);
    case(&project, "in_place", &json!({ "steps": steps }));
    project.write("package/tests/in_place/input/a.tif", "a");
    project.write("package/tests/in_place/output/image.txt", "old\n");
    let expected = "package/tests/in_place/expected";
    expect(
        &project,
        "in_place",
        &json!({ "typed": [["a.tif"], ["image.txt"], null, null] }),
    );
    project.write(&format!("{expected}/output/image.txt"), "new\n");
    project.write(&format!("{expected}/output/deep"), "x");
    test(&project, &[]).expect(0);
    assert_eq!(
        project.read("package/tests/in_place/output/image.txt"),
        "old\n",
        "a copy is changed"
    );

    project.write(&format!("{expected}/output/image.txt"), "newer\n");
    project.write(&format!("{expected}/output/gone"), "x");
    std::fs::remove_file(project.path(&format!("{expected}/output/deep"))).expect("removed");
    test(&project, &[]).expect(3).reports(&[
        "output/image.txt differs",
        "-newer",
        "+new",
        "output/gone is missing",
        "output/deep is not expected (1 bytes)",
    ]);
    case(
        &project,
        "in_place",
        &json!({ "steps": [write("/input/a.tif", "x")] }),
    );
    test(&project, &[])
        .expect(3)
        .reports(&["got \"Operation not permitted"]);
    assert_eq!(project.read("package/tests/in_place/input/a.tif"), "a");
}

#[test]
fn what_is_given_becomes_what_is_expected() {
    let project = package(&["typed.wasm"]);
    case(
        &project,
        "new",
        &json!({ "steps": [write("/output/a.txt", "a")] }),
    );
    case(&project, "same", &json!({ "steps": [{ "do": "none" }] }));
    expect(&project, "same", &json!(null));
    case(
        &project,
        "changed",
        &json!({ "steps": [write("/output/b.txt", "b")] }),
    );
    expect(&project, "changed", &json!({ "a": 1 }));
    project.write("package/tests/changed/expected/output/b.txt", "old");
    project.write(
        "package/tests/changed/expected/output/stale/deep/c.txt",
        "c",
    );
    case(
        &project,
        "failing",
        &json!({ "steps": [{ "do": "error", "message": "no image in A/1" }] }),
    );
    project.write("package/tests/failing/expected/error.txt", "");
    let same = project.path("package/tests/same/expected/metadiff.json");
    let same_before = std::fs::metadata(&same)
        .and_then(|metadata| metadata.modified())
        .expect("a time");
    test(&project, &["--update"]).expect(0).reports(&[
        "updated  new (",
        "      metadiff.json\n      output/a.txt\n",
        "updated  changed (",
        "      output/stale/deep/c.txt (removed)\n",
        "ok       same (",
        "      error.txt\n",
        "4 passed, 0 failed",
    ]);
    let files = [
        "changed/args.json",
        "changed/expected/metadiff.json",
        "changed/expected/output/b.txt",
        "failing/args.json",
        "failing/expected/error.txt",
        "new/args.json",
        "new/expected/metadiff.json",
        "new/expected/output/a.txt",
        "same/args.json",
        "same/expected/metadiff.json",
    ];
    assert_eq!(case_files(&project), files);
    assert_eq!(
        project.read("package/tests/failing/expected/error.txt"),
        "failed: no image in A/1\n"
    );
    assert_eq!(
        project.read("package/tests/changed/expected/output/b.txt"),
        "b"
    );
    assert!(
        !project
            .path("package/tests/changed/expected/output/stale")
            .exists()
    );
    assert_eq!(
        std::fs::metadata(&same)
            .and_then(|metadata| metadata.modified())
            .expect("a time"),
        same_before
    );
    test(&project, &[]).expect(0);

    // A call that fails is never what a case should give unless the case expects it, and the other
    // way round.
    case(&project, "new", &json!({ "steps": [{ "do": "trap" }] }));
    case(&project, "failing", &json!({ "steps": [{ "do": "none" }] }));
    test(&project, &["--update"]).expect(3).reports(&[
        "FAILED   new (",
        "trapped",
        "FAILED   failing (",
        "but it succeeded",
    ]);
    assert_eq!(case_files(&project), files);
}

/// A guest can leave links in its output; what they lead to is neither read nor copied.
#[test]
fn links_in_the_output_are_not_followed() {
    let project = package(&["probe.wasm"]);
    let steps = json!([{ "do": "symlink", "from": "secret", "to": "/output/link" }, write("/output/secret", "s")]);
    case(&project, "link", &json!({ "steps": steps }));
    test(&project, &["--update"])
        .expect(0)
        .reports(&["output/link is a link or a special file and was left out"]);
    assert_eq!(
        case_files(&project),
        [
            "link/args.json",
            "link/expected/metadiff.json",
            "link/expected/output/secret"
        ]
    );
    test(&project, &[]).expect(3).reports(&[
        "output/link is a link or a special file, but a case can contain only regular files",
    ]);
}

#[test]
fn clocks_and_random_numbers_are_fixed_and_guest_paths_too() {
    let run = || {
        let project = package(&["probe.wasm"]);
        case(
            &project,
            "c",
            &json!({ "steps": [{ "do": "clock" }, { "do": "random" }, { "do": "argv" }] }),
        );
        test(&project, &["--update"]).expect(0);
        project.json("package/tests/c/expected/metadiff.json")
    };
    let (one, other) = (run(), run());
    assert_eq!(one, other);
    let argv = [
        "probe.wasm",
        "-j",
        "/task/0.args.json",
        "--metadata-out",
        "/task/0.metadiff.json",
    ];
    assert_eq!(one["probe"][2]["ok"], json!(argv));
}

#[test]
fn a_case_names_its_task_where_there_are_several() {
    let project = package(&["swiss.wasm", "typed.wasm"]);
    case(&project, "one", &json!({ "n": 7 }));
    expect(&project, "one", &json!({ "echo": { "n": 7 } }));
    let case_json = |text: &str| drop(project.write("package/tests/one/case.json", text));
    test(&project, &[]).expect(2).reports(&[
        "one/case.json: /task: must name the case's task",
        "swiss, Typed",
    ]);
    case_json(r#"{"task": "swiss"}"#);
    test(&project, &[]).expect(0);
    case_json(r#"{"task": "none"}"#);
    test(&project, &[])
        .expect(2)
        .reports(&["no task \"none\"; the package has: swiss, "]);
    case_json(r#"{"task": "swiss", "timeout": "200ms"}"#);
    case(&project, "one", &json!({ "sleep_ms": 60_000 }));
    test(&project, &[])
        .expect(3)
        .reports(&["exceeded its time limit of 0.2 s"]);
    test(&project, &["--timeout", "100ms"])
        .expect(3)
        .reports(&["time limit of 0.1 s"]);
}

#[test]
fn a_module_next_to_its_cases_is_a_package() {
    let project = package(&["typed.wasm"]);
    case(&project, "one", &json!({ "steps": [{ "do": "none" }] }));
    expect(&project, "one", &Value::Null);
    project
        .mandelbox(&["test", "package/typed.wasm"])
        .expect(0)
        .reports(&["1 passed"]);
}

#[test]
fn a_folder_that_may_have_been_meant_as_a_case_is_named() {
    let project = package(&["typed.wasm"]);
    case(&project, "one", &json!({ "steps": [{ "do": "none" }] }));
    expect(&project, "one", &Value::Null);
    project.write("package/tests/other/code.rs", "");
    project.write("package/tests/two/arguments.json", "{}");
    std::fs::create_dir(project.path("package/tests/empty")).expect("made");
    let ended = test(&project, &[]).expect(0);
    let warnings: Vec<_> = ended
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("warning: package/tests/"))
        .collect();
    assert_eq!(
        warnings,
        [
            "empty: is not a case, because it has no `args.json`",
            "two: is not a case, because it has no `args.json`"
        ]
    );
}

#[test]
fn a_problem_of_the_task_of_many_cases_is_reported_once() {
    let project = package(&["swiss.wasm"]);
    case(&project, "a", &json!({}));
    case(&project, "b", &json!({}));
    std::fs::remove_file(project.path("package/swiss.wasm")).expect("removed");
    test(&project, &[]).expect(2).reports(&[
        "error: 1 problem in",
        "no module at `package/swiss.wasm`; build it first",
    ]);
}

#[test]
fn invalid_documents_are_reported_together_and_nothing_runs() {
    let project = package(&["swiss.wasm"]);
    test(&project, &[])
        .expect(2)
        .reports(&["package/tests: contains no case; create `NAME/args.json`"]);
    project.write("package/tests/a/args.json", "{");
    case(&project, "b", &json!({ "n": "x", "input_paths": ["/x"] }));
    case(&project, "c", &json!({}));
    project.write(
        "package/tests/c/case.json",
        r#"{"tsak": "swiss", "timeout": "5M"}"#,
    );
    case(&project, "d", &json!({}));
    expect(&project, "d", &Value::Null);
    project.write("package/tests/d/expected/error.txt", "x");
    project.write("package/tests/e/expected/metadiff.json", "null");
    case(&project, "f", &json!({ "metadata": [] }));
    let before = project.tree();
    test(&project, &["--update"]).expect(2).reports(&[
        "a/args.json:1:1: not valid JSON",
        "b/args.json: /n: does not match the task's `args_schema`",
        "b/args.json: /input_paths: `input_paths` is filled in",
        "c/case.json: /tsak: unknown key `tsak`; known are task, timeout",
        "c/case.json: /timeout: must be a time",
        "d/expected/error.txt: is next to `metadiff.json` or `output/`",
        "e/args.json: cannot be read",
        "f/args.json: /metadata: must be an object, not an array",
    ]);
    assert_eq!(project.tree(), before);
    test(&project, &["--case", "x"])
        .expect(2)
        .reports(&["--case x: no such case; the package has: a, b, c, d, e, f"]);
    project
        .mandelbox(&["test", "in"])
        .expect(2)
        .reports(&["in: is not a task package"]);
    project
        .mandelbox(&["test", "none"])
        .expect(2)
        .reports(&["none"]);
}

#[test]
fn a_change_makes_the_cases_run_again() {
    let project = package(&["swiss.wasm"]);
    case(&project, "one", &json!({}));
    let mut command = project.command(&["test", "package", "--watch"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        stderr
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| send.send(line))
    });
    let wait_for = |text: &str| {
        while !lines
            .recv_timeout(Duration::from_secs(60))
            .unwrap_or_else(|err| panic!("{text}: {err}"))
            .contains(text)
        {}
    };
    wait_for("0 passed, 1 failed");
    wait_for("waiting for a change");
    expect(&project, "one", &json!({ "echo": { "n": 5 } }));
    wait_for("1 passed, 0 failed");
    wait_for("waiting for a change");
    project.write("package/swiss.wasm", "no module");
    wait_for("is not a WebAssembly module");
    wait_for("waiting for a change");
    std::fs::copy(module("swiss.wasm"), project.path("package/swiss.wasm")).expect("copied");
    wait_for("1 passed, 0 failed");
    child.kill().expect("ended");
    child.wait().expect("ended");
}
