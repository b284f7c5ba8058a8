//! Every recorded case of the real fractal-server, through the real program.
//!
//! Cases marked `must` give the same; `should` the same outcome; for `quirk` and `defect`, and
//! where only the outcome is the same, [`own_ending`] has what mandelbox does instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mandelbox::json::{DuplicateKeys, parse_json};
use serde_json::{Value, json};

use crate::project::{Ended, Project, fractal_history, module, quoted};
use crate::recorded::{assert_same, parse, unhex};

/// Threads of the recorded runs: the peer's pool on two CPUs.
const JOBS: &str = "6";
/// Records that Fractal does not have, or whose text is not compared.
const OWN_RECORDS: [&str; 4] = ["events.jsonl", "report.html", "result.json", "workflow.log"];

/// One case with its placeholders filled in.
struct Case {
    name: String,
    project: Project,
    workflow: Value,
    inputs: Value,
    expected: Value,
    work_dir: PathBuf,
}

/// How a case ends here where Fractal ends otherwise, or where only the kind of ending is compared.
enum Ending {
    /// As recorded: the result and all files.
    AsRecorded,
    /// Exit code 0 with this metadata; files are free.
    Metadata(Value),
    /// This exit code, and stderr contains each of these.
    Fails(i32, &'static [&'static str]),
    /// Exit code 0, and stderr contains each of these.
    Warns(&'static [&'static str]),
}

fn own_ending(case: &str, expected: &Value) -> Ending {
    use Ending::{AsRecorded, Fails, Metadata, Warns};
    let metadata = || Metadata(expected["returned"]["metadata"]["json"].clone());
    match case {
        "a06-single-list-of-pairs-metadiff" => Fails(
            3,
            &[
                "must be a JSON object or null, not an array",
                "0.metadiff.json",
                "task \"task0\"",
            ],
        ),
        "a07-single-list-metadiff" => {
            Fails(3, &["not an array", "0.metadiff.json", "task \"task0\""])
        }
        "a09-single-string-metadiff" => {
            Fails(3, &["not a string", "0.metadiff.json", "task \"task0\""])
        }
        "a10-single-invalid-json-metadiff" => Fails(
            3,
            &["line 1, column 2", "0.metadiff.json", "task \"task0\""],
        ),
        "a14-single-exit3-empty-stderr" => Fails(3, &["TaskExecutionError", "exited with code 3"]),
        "a16-single-signal-term" => {
            Fails(4, &["JobExecutionError", "task \"task0\"", "unreachable"])
        }
        "a17-single-stderr-not-utf8" => Fails(3, &["TaskExecutionError", "\u{fffd}"]),
        "a19-command-not-found" => Fails(2, &["/task_list/0/task/command", "no module at"]),
        "a20-command-forbidden-char" => Warns(&["finished in"]),
        "a21-command-empty" => Fails(2, &["/task_list/0/task/command", "must not be empty"]),
        "d06-parallel-list-metadiff" => Fails(
            3,
            &["component \"A\"", "not an array", "0_par_a.metadiff.json"],
        ),
        "d16-parallel-two-failures" => Fails(
            3,
            &[
                "component \"A\" exited with code 1",
                "component \"C\" exited with code 2",
            ],
        ),
        "d18-parallel-fail-stops-next-chunks" => Fails(3, &["component \"B\" exited with code 1"]),
        // Components that are repeated have files of their own here.
        "d08-parallel-overwrites-own-level"
        | "e02-components-duplicates"
        | "e04-components-collide-sequential"
        | "e07-components-not-strings"
        | "e08-component-null" => metadata(),
        "e05-components-collide-stale-metadiff" => {
            let mut metadata = expected["returned"]["metadata"]["json"].clone();
            metadata["v"] = json!(["from a/b"]);
            Metadata(metadata)
        }
        "e10-component-too-long" => Warns(&["finished in"]),
        "e12-component-list-empty" => Warns(&["finished in"]),
        "e14-component-list-string" => Fails(2, &["must be an array, not a string"]),
        "e15-component-list-object" => Fails(2, &["must be an array, not an object"]),
        "e16-component-list-number" => Fails(2, &["must be an array, not a number"]),
        "f02-chunk-0" => Fails(2, &["/meta/parallel_tasks_per_job", "1 or more"]),
        "f05-chunk-invalid" => Fails(2, &["/meta/parallel_tasks_per_job", "\"abc\""]),
        "f12-config-not-json" => Fails(2, &["local_config.json:1:", "not valid JSON"]),
        "f13-config-missing-file" => Fails(2, &["local_config.json", "cannot be read"]),
        "f14-config-unread-if-meta-set" => Fails(2, &["local_config.json"]),
        "g04-real-models-reserved-arg" => Warns(&["warning", "/task_list/0/args/"]),
        "h12-subset-no-tasks" => Warns(&["the workflow has no tasks"]),
        "i04-float-overflow" => Fails(2, &["metadata.json:1:11", "too large for a 64-bit float"]),
        "i07-deep-nesting-3000" => Fails(3, &["nested deeper than 256 levels", "0.metadiff.json"]),
        "j11-job-workflow-missing" => Fails(2, &["workflow.json", "cannot be read"]),
        "j12-job-bad-command" => Fails(2, &["no module at"]),
        _ => AsRecorded,
    }
}

#[test]
fn every_recorded_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal/cases");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the cases")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 89);
    let failed: Vec<_> = names
        .iter()
        .filter(|name| {
            let folder = folder.clone();
            let name = (*name).clone();
            std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || check(&folder, &name))
                .expect("a thread")
                .join()
                .is_err()
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} cases differ: {failed:?}",
        failed.len()
    );
}

fn check(folder: &Path, name: &str) {
    check_on(folder, name, &|_| {});
}

/// Checks a case with another backend.
///
/// * `change`: changes the command that runs the case.
pub fn check_on(folder: &Path, name: &str, change: &dyn Fn(&mut Command)) {
    let case = Case::read(folder, name);
    let ended = case.run(change);
    match own_ending(name, &case.expected) {
        Ending::Fails(code, texts) => {
            ended.expect(code).reports(texts);
            if code == 2 {
                assert!(!case.work_dir.exists(), "{name}: something was written");
            }
        }
        Ending::Warns(texts) => {
            ended.expect(0).reports(texts);
        }
        Ending::Metadata(metadata) => {
            ended.expect(0);
            assert_same(&case.result()["metadata"], &metadata, "metadata");
        }
        // The peer's own failure handling crashes here.
        Ending::AsRecorded if name == "j13-job-odd-history-item" => {
            ended.expect(4);
            case.check_failed_history(&fractal_history(&case.result()["history"]));
        }
        Ending::AsRecorded if case.expected.get("exception").is_some() => {
            case.check_exception(ended)
        }
        Ending::AsRecorded if case.expected.get("job").is_some() => case.check_job(ended),
        Ending::AsRecorded => {
            ended.expect(0);
            let returned = &case.expected["returned"];
            let result = case.result();
            assert_same(
                &result["metadata"],
                &returned["metadata"]["json"],
                "metadata",
            );
            assert_same(
                &Value::Array(fractal_history(&result["history"])),
                &returned["history"]["json"],
                "history",
            );
            case.check_files();
        }
    }
}

impl Case {
    fn read(folder: &Path, name: &str) -> Self {
        let project = Project::new();
        let root = project.path("");
        let root = root
            .to_str()
            .expect("UTF-8")
            .trim_end_matches('/')
            .to_owned();
        let nothing = project.write(
            "true.wasm",
            wat::parse_str("(module (func (export \"_start\")))").expect("WAT"),
        );
        let read = |file: &str| {
            let text = std::fs::read_to_string(folder.join(name).join(file))
                .expect("a case has three files");
            let text = text
                .replace("@WORK@", &root)
                .replace("@SWISS@", &quoted(&module("swiss.wasm")));
            text.replace("@TRUE@", &quoted(nothing.to_str().expect("UTF-8")))
        };
        let (workflow, expected) = (parse(&read("workflow.json")), parse(&read("expected.json")));
        // One case has a number that no f64 holds, which mandelbox's own reader refuses.
        let inputs = serde_json::from_str(&read("inputs.json"))
            .unwrap_or_else(|_| parse(&read("inputs.json")));
        let work_dir = PathBuf::from(workflow["work_dir"].as_str().expect("a path"));
        Self {
            name: name.to_owned(),
            project,
            workflow,
            inputs,
            expected,
            work_dir,
        }
    }

    fn run(&self, change: &dyn Fn(&mut Command)) -> Ended {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let job = &self.workflow["job"];
        if job["drop_workflow"] != json!(true) {
            let tasks = self.workflow["task_list"].as_array().expect("tasks").iter();
            let tasks: Vec<_> = tasks
                .map(|task| document(task, &self.workflow["model"]))
                .collect();
            self.project.workflow(&tasks);
        }
        if job["workdir_exists"] == json!(true) {
            std::fs::create_dir_all(&self.work_dir).expect("made");
        }
        self.project
            .write("metadata.json", self.inputs["metadata"].to_string());
        self.project
            .write("history.json", self.inputs["history"].to_string());
        let mut arguments: Vec<String> = [
            "run",
            "workflow.json",
            "--jobs",
            JOBS,
            "--progress",
            "never",
        ]
        .map(str::to_owned)
        .to_vec();
        let output = &self.inputs["output_path"];
        let same_dataset = job["same_dataset"] == json!(true);
        let inputs = self.inputs["input_paths"].as_array().expect("paths");
        for path in if same_dataset {
            std::slice::from_ref(output)
        } else {
            inputs
        } {
            arguments.extend(["--input".to_owned(), text(path)]);
        }
        arguments.extend(["--output".to_owned(), text(output)]);
        arguments.extend(["--work-dir".to_owned(), text(&self.workflow["work_dir"])]);
        arguments.extend(
            ["--metadata", "metadata.json", "--history", "history.json"].map(str::to_owned),
        );
        for (option, key) in [
            ("--first-task", "first_task_index"),
            ("--last-task", "last_task_index"),
        ] {
            if let Some(index) = self.workflow[key].as_i64() {
                arguments.extend([option.to_owned(), index.to_string()]);
            }
        }
        match &self.workflow["local_config"] {
            Value::Null => {}
            config => {
                match config {
                    Value::String(text) if text == "__missing_file__" => {}
                    Value::String(text) => drop(self.project.write("local_config.json", text)),
                    other => drop(self.project.write("local_config.json", other.to_string())),
                }
                arguments.extend(["--local-config", "local_config.json"].map(str::to_owned));
            }
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut command = self.project.command(&arguments);
        if let Some(names) = self.workflow["extra"]["include_image"].as_str() {
            command.env("FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE", names);
        }
        change(&mut command);
        crate::project::finish(command)
    }

    fn result(&self) -> Value {
        parse(&std::fs::read_to_string(self.work_dir.join("result.json")).expect("a result"))
    }

    fn check_exception(&self, ended: Ended) {
        let exception = &self.expected["exception"];
        let message = exception["message"].as_str().expect("a message");
        let ended = match exception["class"].as_str().expect("a class") {
            "TaskExecutionError" => ended.expect(3).reports(&["TaskExecutionError"]),
            "JobExecutionError" => ended.expect(4).reports(&["JobExecutionError"]),
            // A level that is missing before the first task is found before anything is written.
            "RuntimeError" if self.name.starts_with("e18") => ended.expect(2),
            "RuntimeError" => ended.expect(4),
            "ValueError" => ended.expect(2),
            class => panic!("{class} is not foreseen for {}", self.name),
        };
        for line in message.lines() {
            assert!(
                ended.stderr.contains(line.trim_end()),
                "{line:?} is not in: {}",
                ended.stderr
            );
        }
        if let Some(task) = exception["task_name"].as_str() {
            let order = &exception["workflow_task_order"];
            assert!(
                ended
                    .stderr
                    .contains(&format!("task \"{task}\" (order {order})")),
                "{}",
                ended.stderr
            );
        }
        if ended.code != 2 {
            self.check_files();
        }
    }

    fn check_job(&self, ended: Ended) {
        let job = &self.expected["job"];
        if self.name.starts_with("j09") {
            let ended = ended.expect(2);
            assert!(
                ended.stderr.contains(job["log"].as_str().expect("a text")),
                "{}",
                ended.stderr
            );
            return;
        }
        let result = self.result_of_job(job, ended);
        let meta = &job["output_dataset_meta"]["json"];
        if job["status"] == json!("done") {
            assert_same(&result["metadata"], meta, "metadata");
            assert_same(
                &Value::Array(fractal_history(&result["history"])),
                &job["output_dataset_history"]["json"],
                "history",
            );
        } else {
            self.check_failed_history(&fractal_history(&result["history"]));
        }
        self.check_files();
    }

    fn result_of_job(&self, job: &Value, ended: Ended) -> Value {
        let code = match job["status"].as_str() {
            Some("done") => 0,
            _ if job["log"]
                .as_str()
                .expect("a log")
                .starts_with("TASK ERROR") =>
            {
                3
            }
            _ => 4,
        };
        ended.expect(code);
        self.check_log(job);
        self.result()
    }

    /// The given history first and once, then an item for each task that ran, the last of them
    /// failed.
    fn check_failed_history(&self, history: &[Value]) {
        let given = self.inputs["history"].as_array().expect("an array");
        let recorded = self.expected["job"]["output_dataset_history"]["json"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert_eq!(
            &history[..given.len()],
            &given[..],
            "{}: the given history",
            self.name
        );
        let new = &history[given.len()..];
        let tasks = self.workflow["task_list"].as_array().expect("tasks");
        assert_eq!(new.len(), tasks.len(), "{}: items", self.name);
        for (item, task) in new.iter().zip(tasks) {
            let last = std::ptr::eq(item, &raw const new[new.len() - 1]);
            assert_eq!(item["status"], if last { "failed" } else { "done" });
            assert_eq!(item["workflowtask"]["id"], task["id"]);
        }
        if let Some(failed) = recorded.iter().find(|item| {
            item["status"] == "failed"
                && item["workflowtask"]["id"] == new[new.len() - 1]["workflowtask"]["id"]
        }) {
            assert_same(&new[new.len() - 1], failed, "failed item");
        }
    }

    /// The messages about the workflow and its tasks, in order; versions and the server's own
    /// settings differ.
    fn check_log(&self, job: &Value) {
        let recorded = match job["status"].as_str() {
            Some("done") => job["log"].as_str().map(str::to_owned),
            _ => self.expected["files"].as_object().and_then(|files| {
                let (_, log) = files
                    .iter()
                    .find(|(path, _)| path.ends_with("workflow.log"))?;
                log["text"].as_str().map(str::to_owned)
            }),
        };
        let messages = |log: &str| -> Vec<String> {
            let about = [
                "Start ",
                "START",
                "SUBMIT",
                "END",
                "End ",
                "FAILED",
                "Workflow ",
                "Aggregating",
                "input_paths",
                "input metadata",
            ];
            let renamed = log.replace("\"My Workflow\"", "\"test\"");
            let messages = renamed
                .lines()
                .filter_map(|line| line.splitn(4, " - ").nth(3).map(str::to_owned));
            messages
                .filter(|message| about.iter().any(|start| message.starts_with(start)))
                .collect()
        };
        let log = std::fs::read_to_string(self.work_dir.join("workflow.log")).expect("a log");
        assert_eq!(
            messages(&log),
            messages(&recorded.expect("a recorded log")),
            "{}",
            self.name
        );
    }

    /// All files of the work directory are those recorded, with the same contents.
    fn check_files(&self) {
        let root = self.project.path("");
        let prefix = self
            .work_dir
            .strip_prefix(&root)
            .expect("inside")
            .to_str()
            .expect("UTF-8")
            .to_owned()
            + "/";
        let is_own = |path: &str| {
            OWN_RECORDS
                .iter()
                .any(|own| path.strip_prefix(&prefix) == Some(own))
        };
        let files = self.expected["files"].as_object().expect("files");
        let recorded: BTreeMap<_, _> = files
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix) && !is_own(path))
            .collect();
        let tree = self.project.tree();
        let here: Vec<_> = tree
            .iter()
            .filter(|path| path.starts_with(&prefix) && !path.ends_with('/') && !is_own(path))
            .collect();
        assert_eq!(
            here,
            recorded.keys().copied().collect::<Vec<_>>(),
            "{}",
            self.name
        );
        for (path, contents) in recorded {
            let bytes = std::fs::read(root.join(path)).expect("there");
            let expected = match contents["text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => unhex(contents["hex"].as_str().expect("text or hex")),
            };
            if path.ends_with(".json") {
                let parse = |bytes: &[u8]| parse_json(bytes, DuplicateKeys::LastWins).ok();
                match (parse(&bytes), parse(&expected)) {
                    (Some(mut bytes), Some(expected)) => {
                        if path.ends_with("history.json") {
                            bytes = Value::Array(fractal_history(&bytes));
                        }
                        assert_same(&bytes, &expected, path);
                    }
                    _ => assert_eq!(bytes, expected, "{path}"),
                }
            } else {
                assert_eq!(bytes, expected, "{path}");
            }
        }
        // The subfolders of a subset's other tasks were made by the recording itself.
        if self.workflow["entry"] == "process_workflow" {
            return;
        }
        let recorded_folders = self.expected["dirs"]
            .as_array()
            .expect("dirs")
            .iter()
            .filter_map(Value::as_str);
        let recorded_folders: Vec<_> = recorded_folders
            .filter(|path| path.starts_with(&prefix))
            .collect();
        let folders = tree
            .iter()
            .filter(|path| path.starts_with(&prefix))
            .filter_map(|path| path.strip_suffix('/'));
        let folders: Vec<_> = folders
            .filter(|path| path.len() + 1 > prefix.len())
            .collect();
        assert_eq!(folders, recorded_folders, "{}", self.name);
    }
}

/// The workflow task as the peer's objects show it.
fn document(task: &Value, model: &Value) -> Value {
    let order = &task["order"];
    if model == "mini" {
        return json!({
            "id": task["id"], "order": order, "args": task["args"], "meta": task["meta"], "executor": "default",
            "task": { "name": task["name"], "command": task["command"], "meta": task["task_meta"] },
        });
    }
    // As the database holds them: an empty args or meta is null.
    let or_null = |value: &Value| {
        if value == &json!({}) {
            Value::Null
        } else {
            value.clone()
        }
    };
    let number = order.as_u64().expect("a number");
    json!({
        "meta": or_null(&task["meta"]), "args": or_null(&task["args"]), "id": task["id"], "workflow_id": 1,
        "task_id": 10 + number, "order": order,
        "task": {
            "source": format!("mandelbox:{}", task["name"].as_str().expect("a name")), "id": 10 + number,
            "name": task["name"], "command": task["command"], "input_type": "Any", "output_type": "Any",
            "meta": task["task_meta"], "owner": null, "version": null, "args_schema": null,
            "args_schema_version": null, "docs_info": null, "docs_link": null,
        },
    })
}
