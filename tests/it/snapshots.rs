//! Snapshots of every text that a person reads: help, plans, problems, progress, reports.
//!
//! `INSTA_UPDATE=always cargo test --test it -- snapshots::` rewrites `tests/snapshots`. Read the
//! difference before it is committed: it is what users will notice.

use serde_json::{Value, json};

use crate::project::{Ended, Project, module, parallel_task, task};

/// What differs from run to run, and what a snapshot has instead. The order matters.
const REDACTIONS: [(&str, &str); 18] = [
    // Shown when compiling takes more than a second, which it does on a busy machine.
    (r"(?m)^compiling .* \.\.\.\n", ""),
    (
        r"\d{4}-\d\d-\d\d[T_ ]?\d\d[:]?\d\d[:]?\d\d([.,]\d+)?( UTC|Z)?",
        "[DATE]",
    ),
    (r"_\d{8}_\d{6}(_\d+)?", "_[DATE]"),
    (r"sha256 [0-9a-f]{12}", "sha256 [DIGEST]"),
    (r"\b[0-9a-f]{64}\b", "[DIGEST]"),
    (r"[Pp]rocess \d+", "process [PID]"),
    (r"\bmandelbox \d+\.\d+\.\d+", "mandelbox [VERSION]"),
    (
        r"\b\d+(\.\d+)? (ns|us|µs|ms|s|min|h)\b( \d+ (ms|s|min)\b)?",
        "[TIME]",
    ),
    (r"\b\d+(\.\d+)?(us|µs|ms|s)\b", "[TIME]"),
    (r"\b\d+(\.\d+)? (bytes|KiB|MiB|GiB)( free)?", "[SIZE]"),
    (r"mandelbox-test[A-Za-z0-9]+", "[PROJECT]"),
    (r"wasm trap: .*|wasm backtrace:[^$]*", "[TRAP]"),
    (r"offset 0x[0-9a-f]+", "offset [OFFSET]"),
    (r"slowest call: .*", "slowest call: [CALL]"),
    (
        r"(?s)\nSlowest calls\n.*\nParameters\n",
        "\nSlowest calls\n[CALLS]\nParameters\n",
    ),
    // The marks of an axis are as many as fit its figures.
    (r"(\[TIME\]\n)+", "[TIME]\n"),
    (r"(\[SIZE\]\n)+", "[SIZE]\n"),
    (r" +\n", "\n"),
];

/// Compares a text with the snapshot `name`.
#[track_caller]
fn check(project: &Project, name: &str, text: &str) {
    let repository = env!("CARGO_MANIFEST_DIR");
    let folder = project.path("");
    let folder = folder.to_str().expect("UTF-8").trim_end_matches('/');
    let text = text
        .replace(folder, "[PROJECT]")
        .replace(repository, "[REPOSITORY]");
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in REDACTIONS {
        settings.add_filter(pattern, replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Compares all that a command prints, and its exit code.
#[track_caller]
fn check_command(project: &Project, name: &str, arguments: &[&str]) {
    let ended = project.mandelbox(arguments);
    check(project, name, &printed(arguments, &ended));
}

fn printed(arguments: &[&str], ended: &Ended) -> String {
    let Ended {
        code,
        stdout,
        stderr,
        ..
    } = ended;
    let arguments = arguments.join(" ");
    format!("$ mandelbox {arguments}\n[exit code {code}]\n--- stdout\n{stdout}--- stderr\n{stderr}")
}

/// A project with an input image, a metadata file with three wells, and the given tasks.
fn project(task_list: &[Value]) -> Project {
    let project = Project::new();
    project.write(
        "metadata.json",
        json!({ "well": ["B/03", "B/04", "C/05"] }).to_string(),
    );
    project.workflow(task_list);
    project
}

const RUN: [&str; 10] = [
    "run",
    "workflow.json",
    "--input",
    "in",
    "--output",
    "out",
    "--work-dir",
    "work",
    "--metadata",
    "metadata.json",
];

fn run_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], more].concat()
}

#[test]
fn help() {
    let project = Project::new();
    check_command(&project, "help", &["--help"]);
    for name in project.subcommands() {
        check_command(&project, &format!("help_{name}"), &[&name, "--help"]);
    }
}

#[test]
fn runs() {
    let swiss = module("swiss.wasm");
    let project = project(&[
        task(
            0,
            "List wells",
            &swiss,
            json!({ "metadiff": { "extra": 1 }, "stdout": "listing\n" }),
        ),
        parallel_task(
            1,
            "Measure",
            &swiss,
            "well",
            json!({ "echo": ["component"] }),
        ),
    ]);
    check_command(&project, "run_dry", &run_with(&["--dry-run"]));
    check_command(&project, "run_succeeds", &run_with(&["--jobs", "1"]));
    check(
        &project,
        "run_succeeds_workflow_log",
        &project.read("work/workflow.log"),
    );
    check(
        &project,
        "run_succeeds_report",
        &visible_text(&project.read("work/report.html")),
    );
    check_command(&project, "run_exists", &RUN);
    check_command(
        &project,
        "run_resumed",
        &run_with(&["--resume", "--jobs", "1", "--verbose"]),
    );
    check_command(&project, "status_succeeded", &["status", "work"]);
    check_command(&project, "report_command", &["report", "work"]);
    check_command(
        &project,
        "report_ro_crate",
        &["report", "work", "--ro-crate"],
    );
    check_command(
        &project,
        "run_quiet",
        &[
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            "w2",
            "--quiet",
        ],
    );
}

#[test]
fn failures() {
    let swiss = module("swiss.wasm");
    let per_component = json!({ "per_component": {
        "B/04": { "stderr": "no image in B/04\n", "exit": 3 }, "C/05": { "metadiff_text": "[1]" } } });
    let project = project(&[
        task(0, "List wells", &swiss, json!({})),
        parallel_task(1, "Measure", &swiss, "well", per_component),
    ]);
    check_command(
        &project,
        "run_fails",
        &run_with(&["--jobs", "1", "--keep-going"]),
    );
    check(
        &project,
        "run_fails_workflow_log",
        &project.read("work/workflow.log"),
    );
    check(
        &project,
        "run_fails_report",
        &visible_text(&project.read("work/report.html")),
    );
    check_command(&project, "status_failed", &["status", "work"]);
    let log = project.read("work/events.jsonl");
    let cut = log.rfind("{\"seq\"").expect("events");
    project.write("work/events.jsonl", &log[..cut]);
    check_command(&project, "status_interrupted", &["status", "work"]);

    let probe = module("probe.wasm");
    for (name, args) in [
        ("exit_code", json!({ "do": "exit", "code": 7 })),
        ("timeout", json!({ "do": "sleep_ms", "ms": 60_000 })),
        ("memory", json!({ "do": "allocate_mib", "n": 600 })),
    ] {
        project.workflow(&[task(0, "t", &probe, args)]);
        let _ = std::fs::remove_dir_all(project.path("work"));
        let more = ["--timeout", "200ms", "--memory", "256MiB"];
        check_command(&project, &format!("run_fails_by_{name}"), &run_with(&more));
    }
}

#[test]
fn checks() {
    let project = project(&[task(0, "t", &module("swiss.wasm"), json!({}))]);
    std::fs::create_dir(project.path("package")).expect("created");
    for name in ["swiss.wasm", "swiss.p2.wasm", "typed.wasm"] {
        std::fs::copy(module(name), project.path(name)).expect("copied");
        check_command(
            &project,
            &format!("check_{}", name.replace('.', "_")),
            &["check", name],
        );
    }
    check_command(&project, "check_workflow", &["check", "workflow.json"]);
    project.write("text.wasm", "<html>not found</html>");
    check_command(&project, "check_no_module", &["check", "text.wasm"]);
    std::fs::copy(module("swiss.wasm"), project.path("package/swiss.wasm")).expect("copied");
    let manifest = json!({ "manifest_version": "1", "task_list": [
        { "name": "Swiss", "executable": "swiss.wasm", "input_type": "Any", "output_type": "Any",
          "meta": { "parallelization_level": "well" } },
        { "name": "Gone", "executable": "gone.wasm", "input_type": "Any", "output_type": "Any" }] });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    check_command(&project, "check_package", &["check", "package"]);
    check_command(
        &project,
        "exec_fails",
        &["exec", "swiss.wasm", "--args", "none.json"],
    );
    project.write(
        "args.json",
        json!({ "echo": ["output_path"], "stderr": "a line\n" }).to_string(),
    );
    check_command(
        &project,
        "exec_succeeds",
        &[
            "exec",
            "swiss.wasm",
            "--args",
            "args.json",
            "--output",
            "out",
        ],
    );
    check_command(
        &project,
        "exec_command",
        &["exec", "swiss.wasm", "--", "--help"],
    );
}

#[test]
fn package_tests() {
    let project = Project::new();
    std::fs::create_dir(project.path("package")).expect("created");
    std::fs::copy(module("swiss.wasm"), project.path("package/swiss.wasm")).expect("copied");
    let manifest = json!({ "manifest_version": "1", "task_list": [
        { "name": "Swiss", "executable": "swiss.wasm", "input_type": "Any", "output_type": "Any" }] });
    project.write("package/__FRACTAL_MANIFEST__.json", manifest.to_string());
    check_command(&project, "test_without_cases", &["test", "package"]);
    project.write(
        "package/tests/one/args.json",
        json!({ "metadiff": { "n": 4 } }).to_string(),
    );
    check_command(&project, "test_without_expectation", &["test", "package"]);
    check_command(&project, "test_updated", &["test", "package", "--update"]);
    project.write(
        "package/tests/one/expected/metadiff.json",
        json!({ "n": 3 }).to_string(),
    );
    check_command(&project, "test_fails", &["test", "package"]);
    check_command(&project, "new", &["new", "count-cells", "--lang", "c"]);
    check_command(
        &project,
        "new_exists",
        &["new", "count-cells", "--lang", "c"],
    );
}

#[test]
fn doctor_findings() {
    let project = Project::new();
    let text = project.mandelbox(&["doctor"]).stderr;
    // States and values are the machine's.
    let name = |line: &str| line.get(9..36).map(|name| name.trim().to_owned());
    let names: Vec<_> = text
        .lines()
        .skip(1)
        .filter_map(name)
        .filter(|name| !name.is_empty())
        .collect();
    check(&project, "doctor_findings", &names.join("\n"));
}

#[test]
fn problems() {
    let swiss = module("swiss.wasm");
    let mut wrong_args = task(0, "t", &swiss, json!({ "size": "big", "sigm": 2 }));
    wrong_args["task"]["args_schema"] = json!({ "type": "object", "additionalProperties": false,
        "properties": { "size": { "type": "integer" }, "sigma": { "type": "number" },
            "mode": { "enum": ["fast", "good"] } }, "required": ["mode"] });
    let mut asks = task(0, "t", &swiss, json!({}));
    asks["meta"] = json!({ "mandelbox": { "env": { "A": "b" }, "mounts": { "/x": "lib" }, "memory": "lots",
        "timout": "3s", "sha256": "00" } });
    let workflow = |tasks: Value| json!({ "name": "w", "task_list": tasks }).to_string();
    let documents = [
        ("empty", String::new()),
        ("no_json", "name: w\n".to_owned()),
        ("torn", "{\"name\": \"w\",\n \"task_list\": [}".to_owned()),
        (
            "duplicate_key",
            "{\"name\": \"w\", \"name\": \"v\", \"task_list\": []}".to_owned(),
        ),
        ("array", "[]".to_owned()),
        ("missing_key", "{\"task_lists\": []}".to_owned()),
        (
            "shapes",
            workflow(
                json!([7, { "order": -1, "args": [], "task": { "command": "", "name": 5 } }, { "task": {} }]),
            ),
        ),
        (
            "unknown_source",
            workflow(json!([{ "task": { "source": "nowhere:x" } }])),
        ),
        (
            "missing_module",
            workflow(json!([task(0, "t", "no/such.wasm", json!({}))])),
        ),
        (
            "native_command",
            workflow(json!([{ "task": { "name": "t", "command": "touch x" } }])),
        ),
        ("wrong_args", workflow(json!([wrong_args]))),
        ("asks_for_more", workflow(json!([asks]))),
        (
            "missing_level",
            workflow(json!([parallel_task(0, "p", &swiss, "image", json!({}))])),
        ),
        (
            "same_order",
            workflow(json!([
                task(1, "a", &swiss, json!({})),
                task(1, "a", &swiss, json!({}))
            ])),
        ),
    ];
    let project = project(&[]);
    let mut text = String::new();
    for (name, document) in documents {
        project.write("workflow.json", document);
        let ended = project.mandelbox(&RUN);
        text.push_str(&format!(
            "== {name} [exit code {}]\n{}\n",
            ended.code, ended.stderr
        ));
    }
    check(&project, "problems_of_workflows", &text);

    project.workflow(&[task(0, "t", &swiss, json!({}))]);
    project.write("policy.toml", "[default]\nmemry = \"1G\"\n");
    project.write("list.json", "[]");
    let mut text = String::new();
    for more in [
        &["--metadata", "list.json"][..],
        &["--history", "metadata.json"],
        &["--policy", "policy.toml"],
        &["--local-config", "metadata.json"],
        &["--tasks", "in"],
        &["--tasks", "none"],
        &["--first-task", "3"],
        &["--work-dir", "out/work"],
        &["--result", "out/result.json"],
        &["--memory", "lots"],
        &["--timeout", "soon"],
        &["--jobs", "0"],
        &["--resume"],
        &["--colour"],
    ] {
        let fixed = ["run", "workflow.json", "--input", "in", "--output", "out"];
        let ended = project.mandelbox(&[&fixed[..], more].concat());
        text.push_str(&format!(
            "== {} [exit code {}]\n{}\n",
            more.join(" "),
            ended.code,
            ended.stderr
        ));
    }
    for arguments in [
        &["status", "in"][..],
        &["report", "none"],
        &["exec", "none.wasm", "--"],
        &["check", "in"],
        &["tset"],
    ] {
        let ended = project.mandelbox(arguments);
        text.push_str(&format!(
            "== {} [exit code {}]\n{}\n",
            arguments.join(" "),
            ended.code,
            ended.stderr
        ));
    }
    check(&project, "problems_of_options", &text);
}

/// The text of a page: what stands between its tags, but for styles and scripts.
fn visible_text(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        let end = match tag.split([' ', '>', '\n']).next() {
            Some("style") => "</style>",
            Some("script") => "</script>",
            _ => ">",
        };
        rest = tag.split_once(end).map_or("", |(_, rest)| rest);
        text.push('\n');
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}
