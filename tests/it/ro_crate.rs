//! `mandelbox report --ro-crate`. With `MANDELBOX_RO_CRATE_VALIDATOR`, a program that gets the
//! folder of a crate, each of the crates here is validated too.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use mandelbox::text::is_misleading;
use mandelbox::workdir::WorkDir;
use serde_json::{Value, json};

use crate::project::{Project, finish_within, module, parallel_task, task};
use crate::report::synthetic_log;
use crate::run_options::{project_v2, run_v2};

/// Ids that are references to the world and need no entity.
const OUTSIDE: [&str; 1] = ["https://w3id.org/ro/crate/1.1"];
const COMPLETED: &str = "http://schema.org/CompletedActionStatus";
const FAILED: &str = "http://schema.org/FailedActionStatus";

/// A crate that keeps the rules which hold for all of them.
struct Crate(BTreeMap<String, Value>);

impl Crate {
    /// Makes the crate of a work directory and checks it.
    #[track_caller]
    fn of(project: &Project, work_dir: &str) -> Self {
        let message = format!(
            "RO-Crate: {}",
            project
                .path(work_dir)
                .join("ro-crate-metadata.json")
                .display()
        );
        project
            .mandelbox(&["report", work_dir, "--ro-crate"])
            .expect(0)
            .reports(&["report: ", &message]);
        Self::read(project, work_dir)
    }

    #[track_caller]
    fn read(project: &Project, work_dir: &str) -> Self {
        let document = project.json(&format!("{work_dir}/ro-crate-metadata.json"));
        let graph = document["@graph"].as_array().expect("a graph").clone();
        let ids: Vec<_> = graph
            .iter()
            .map(|entity| entity["@id"].as_str().expect("an id").to_owned())
            .collect();
        let entities: BTreeMap<_, _> = ids.iter().cloned().zip(graph.iter().cloned()).collect();
        assert_eq!(entities.len(), graph.len(), "no id twice: {ids:?}");
        for entity in &graph {
            let is_plain = |value: &Value| match value {
                Value::Array(values) => values.len() > 1 && !values.iter().any(Value::is_null),
                value => !value.is_null(),
            };
            assert!(
                entity
                    .as_object()
                    .expect("an object")
                    .values()
                    .all(is_plain),
                "{entity}"
            );
            // An argument's value is data; all else is for people.
            let for_people = entity
                .as_object()
                .expect("an object")
                .iter()
                .filter(|(key, _)| *key != "value");
            let texts: Vec<_> = for_people.flat_map(|(_, value)| texts(value)).collect();
            assert!(
                !texts.iter().any(|text| text.chars().any(is_misleading)),
                "{entity}"
            );
            for id in references(entity) {
                assert!(
                    entities.contains_key(&id) || OUTSIDE.contains(&&*id),
                    "{id} is not there: {entity}"
                );
            }
        }
        for id in &ids {
            let is_uri = |byte| byte > b' ' && byte < 0x7f && !b"\"<>\\^`{|}".contains(&byte);
            assert!(id.bytes().all(is_uri), "{id:?}");
        }
        let root = &entities["./"];
        for key in [
            "name",
            "description",
            "datePublished",
            "license",
            "mainEntity",
            "conformsTo",
        ] {
            assert!(root.get(key).is_some(), "{key}: {root}");
        }
        let parts: BTreeSet<_> = references(&root["hasPart"]).into_iter().collect();
        for (id, entity) in &entities {
            let types = texts(&entity["@type"]);
            let is_folder = types.contains(&"Dataset".to_owned());
            if !is_folder && !types.contains(&"File".to_owned()) || id == "./" {
                continue;
            }
            assert!(parts.contains(id), "{id} is no part");
            assert_eq!(is_folder, id.ends_with('/'), "{id}");
            if !id.starts_with("file:///") {
                let path = project.path(work_dir).join(decoded(id));
                assert_eq!(path.is_dir(), is_folder, "{}", path.display());
                let size = path.metadata().expect("there").len().to_string();
                assert!(
                    is_folder || entity["contentSize"] == size.as_str(),
                    "{entity}"
                );
            }
        }
        if let Some(validator) = std::env::var_os("MANDELBOX_RO_CRATE_VALIDATOR") {
            let mut command = Command::new(validator);
            command.arg(project.path(work_dir));
            // The validator reads large ontologies, which takes long on a busy machine.
            finish_within(command, Duration::from_secs(900)).expect(0);
        }
        Self(entities)
    }

    #[track_caller]
    fn entity(&self, id: &str) -> &Value {
        self.0
            .get(id)
            .unwrap_or_else(|| panic!("{id} is not in {:?}", self.0.keys()))
    }

    /// Ids of the entities of a type.
    fn of_type(&self, name: &str) -> Vec<&str> {
        let is_of = |entity: &Value| texts(&entity["@type"]).iter().any(|text| text == name);
        self.0
            .iter()
            .filter(|(_, entity)| is_of(entity))
            .map(|(id, _)| id.as_str())
            .collect()
    }

    fn profiles(&self) -> Vec<String> {
        let ids = references(&self.entity("./")["conformsTo"]);
        ids.iter()
            .map(|id| id.rsplit('/').nth(1).expect("a name").to_owned())
            .collect()
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        value => value.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// All ids that a value refers to.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(references).collect(),
        Value::Object(object) if object.len() == 1 && object.contains_key("@id") => {
            texts(&object["@id"])
        }
        Value::Object(object) => object
            .iter()
            .flat_map(|(_, value)| references(value))
            .collect(),
        _ => Vec::new(),
    }
}

fn decoded(id: &str) -> String {
    let mut pieces = id.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).expect("two digits"));
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn parameters() -> Value {
    json!({ "metadiff": { "c": ["A", "B"] }, "n": 12345678901234567890_u64, "ratio": 1.50, "deep": [1, { "a": null }],
        "none": null, "yes": true, "an \"odd\" n\u{e4}me/": "text" })
}

/// A run of three tasks, the last two of which are the same one with other args.
fn good_run() -> Project {
    let project = Project::new();
    let list = task(0, "list", &module("swiss.wasm"), parameters());
    let again = |order, args| {
        parallel_task(
            order,
            "seg \"m\u{e9}nt\" #1",
            &module("swiss.wasm"),
            "c",
            args,
        )
    };
    project.workflow(&[
        list,
        again(1, json!({ "radius": 2 })),
        again(2, json!({ "radius": 2.5, "more": "x" })),
    ]);
    project.run(&[]).expect(0);
    project
}

#[test]
fn a_run_is_a_crate_with_an_action_for_each_task() {
    let project = good_run();
    let it = Crate::of(&project, "work");
    assert_eq!(
        it.profiles(),
        ["process", "workflow", "provenance", "workflow-ro-crate"]
    );
    assert_eq!(
        it.of_type("CreateAction"),
        ["#run", "#task-0", "#task-1", "#task-2"]
    );
    assert_eq!(it.of_type("HowToStep"), ["#step-0", "#step-1", "#step-2"]);
    assert_eq!(
        it.of_type("SoftwareApplication"),
        ["#mandelbox", "#tool-0", "#tool-1"],
        "one tool for two tasks"
    );
    for id in [
        it.of_type("CreateAction"),
        it.of_type("ControlAction"),
        it.of_type("OrganizeAction"),
    ]
    .concat()
    {
        let action = it.entity(id);
        assert_eq!(
            (&action["actionStatus"], action.get("error")),
            (&json!(COMPLETED), None),
            "{action}"
        );
        let time = |key: &str| {
            action[key]
                .as_str()
                .expect("a time")
                .parse::<jiff::Timestamp>()
                .expect("ISO 8601")
        };
        assert!(time("startTime") <= time("endTime"), "{action}");
    }
    let file_id = |name: &str| format!("file://{}/", project.path(name).display());
    let run = it.entity("#run");
    assert_eq!(references(&run["object"]), [file_id("in")]);
    assert_eq!(
        references(&run["result"]),
        [
            &file_id("out"),
            "metadata.json",
            "history.json",
            "result.json"
        ]
    );
    let second = it.entity("#task-1");
    assert_eq!(
        references(&second["object"]),
        [&file_id("out"), "#task-1/args/radius"],
        "only the first reads the input"
    );
    assert_eq!(references(&second["result"])[1], "1_seg__m%C3%A9nt___1/");
    assert_eq!(
        second["description"],
        "2 calls, one for each component in c: 2 succeeded, 0 failed."
    );
    let n_calls = it.entity("#task-1/usage/n_calls");
    assert_eq!(
        (&n_calls["propertyID"], &n_calls["value"]),
        (&json!("n_calls"), &json!(2))
    );
    assert_eq!(it.entity("events.jsonl")["about"]["@id"], "#run");
    assert!(references(&it.entity("./")["hasPart"]).contains(&"report.html".to_owned()));
}

#[test]
fn parameters_and_modules_are_in_the_crate() {
    let project = good_run();
    let it = Crate::of(&project, "work");
    let value = |name: &str| it.entity(&format!("#task-0/args/{name}"))["value"].clone();
    assert_eq!(value("n").to_string(), "12345678901234567890");
    assert_eq!(value("ratio"), json!(1.5));
    assert_eq!(value("deep"), r#"[1,{"a":null}]"#);
    assert_eq!((value("none"), value("yes")), (json!("null"), json!(true)));
    assert_eq!(value("an%20%22odd%22%20n%C3%A4me/"), "text");
    let kind = |name: &str| it.entity(&format!("#tool-0/args/{name}"))["additionalType"].clone();
    assert_eq!(
        (kind("n"), kind("deep"), kind("yes")),
        (json!("Integer"), json!("PropertyValue"), json!("Boolean"))
    );
    // Of a tool that was used twice.
    let radius = it.entity("#tool-1/args/radius");
    assert_eq!(radius["additionalType"], json!(["Integer", "Float"]));
    assert_eq!(
        references(&radius["workExample"]),
        ["#task-1/args/radius", "#task-2/args/radius"]
    );
    assert_eq!(
        references(&it.entity("#tool-1/args/more")["workExample"]),
        ["#task-2/args/more"]
    );
    let events = project.read("work/events.jsonl");
    let digest = events
        .split("\"module_sha256\":\"")
        .nth(1)
        .expect("a task")
        .split('"')
        .next()
        .expect("a digest");
    assert_eq!(it.entity("#tool-0")["sha256"], digest);
    assert_eq!(
        it.entity("#mandelbox")["softwareVersion"],
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn the_workflow_of_a_crate_makes_the_run_again() {
    let project = good_run();
    Crate::of(&project, "work");
    let arguments = [
        "run",
        "work/ro-crate-workflow.json",
        "--input",
        "in",
        "--output",
        "out",
        "--work-dir",
        "again",
    ];
    project.mandelbox(&arguments).expect(0);
    assert_eq!(
        project.json("again/metadata.json"),
        project.json("work/metadata.json")
    );
    let args = |work_dir: &str| {
        let history = project.json(&format!("{work_dir}/history.json"));
        let items = history.as_array().expect("items").iter();
        items
            .map(|item| item["workflowtask"]["args"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(args("again"), args("work"));
    // With the very modules only.
    let workflow = project.read("work/ro-crate-workflow.json");
    project.write(
        "work/ro-crate-workflow.json",
        workflow.replace("swiss.wasm", "typed.wasm"),
    );
    let arguments = [
        "run",
        "work/ro-crate-workflow.json",
        "--output",
        "out",
        "--work-dir",
        "third",
    ];
    project
        .mandelbox(&arguments)
        .expect(2)
        .reports(&["use the module with that digest"]);
}

const HOSTILE: &str = "\"}]\u{1b}[31m<b>&\u{202e}\n../x";

#[test]
fn a_failed_run_reports_its_error() {
    let project = Project::new();
    let components: Vec<_> = (0..5).map(|index| format!("c{index}{HOSTILE}")).collect();
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { HOSTILE: components } }),
    );
    let fails = |name: &String| (name.clone(), json!({ "stderr": "no image\n", "exit": 3 }));
    let fails: serde_json::Map<_, _> = components[1..].iter().map(fails).collect();
    let args = json!({ "per_component": fails, HOSTILE: 1 });
    let third = task(2, "never", &module("swiss.wasm"), json!({}));
    let each = parallel_task(1, HOSTILE, &module("swiss.wasm"), HOSTILE, args);
    project.write(
        "workflow.json",
        json!({ "name": HOSTILE, "task_list": [list, each, third] }).to_string(),
    );
    project.run(&["--keep-going"]).expect(3);
    let it = Crate::of(&project, "work");
    assert_eq!(it.of_type("CreateAction"), ["#run", "#task-0", "#task-1"]);
    let run = it.entity("#run");
    assert_eq!(
        (&run["actionStatus"], &run["error"]),
        (&json!(FAILED), &json!("TaskExecutionError"))
    );
    assert!(
        run["description"]
            .as_str()
            .expect("a text")
            .starts_with("2 of 3 tasks of the workflow started and 1 succeeded")
    );
    assert_eq!(it.entity("#task-0")["actionStatus"], COMPLETED);
    let failed = it.entity("#task-1");
    let error = failed["error"].as_str().expect("an error");
    assert!(
        error.starts_with(
            "4 of 5 calls failed: component \"c1\"}]\\u{1b}[31m<b>&\\u{202e}\\n../x\" exited"
        ),
        "{error}"
    );
    assert!(error.ends_with("; ..."), "{error}");
    assert_eq!(it.entity("#control-1")["error"], error);
    assert!(
        it.entity("#task-1/args/per_component")["value"]
            .as_str()
            .expect("JSON text")
            .contains("\\u001b[31m")
    );
    // As after a failure, the last records of the dataset are those before it.
    assert_eq!(
        references(&run["result"])[1..],
        ["metadata.json", "history.json", "result.json"]
    );
    assert_eq!(
        project.json("work/ro-crate-workflow.json")["task_list"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn the_images_of_version_2_are_parts_of_the_output() {
    let project = project_v2();
    run_v2(&project, &["--zarr-dir", "zarr"]).expect(0);
    let it = Crate::of(&project, "work");
    let output = format!("file://{}/", project.path("zarr").display());
    let parts = references(&it.entity(&output)["hasPart"]);
    let dataset = project.json("work/dataset.json");
    let images = dataset["images"].as_array().expect("a list");
    assert!(images.len() > 2);
    assert_eq!(parts.len(), images.len());
    for (image, part) in images.iter().zip(parts) {
        let url = image["zarr_url"].as_str().expect("a text");
        assert_eq!(part, format!("file://{url}/"));
        let description = &it.entity(&part)["description"];
        let is_seen = format!("seen: {}", image["types"]["seen"]);
        assert!(description.as_str().expect("a text").contains(&is_seen));
    }
}

#[test]
fn a_killed_run_is_a_crate_too() {
    let project = good_run();
    let log = project.read("work/events.jsonl");
    let cut = |before: &str| {
        project.write(
            "work/events.jsonl",
            &log[..log.rfind(before).expect("there")],
        )
    };
    for name in ["result.json", "report.html"] {
        std::fs::remove_file(project.path("work").join(name)).expect("removed");
    }
    let history = project.json("work/history.json");
    project.write(
        "work/history.json",
        json!([history[0], history[1]]).to_string(),
    );
    cut("{\"seq\":13");
    let it = Crate::of(&project, "work");
    assert_eq!(
        (
            &it.entity("#run")["actionStatus"],
            &it.entity("#run")["error"]
        ),
        (&json!(FAILED), &json!("the run was killed"))
    );
    assert_eq!(it.entity("#task-1")["actionStatus"], COMPLETED);
    assert_eq!(
        it.entity("#task-2")["error"],
        "the run was killed during this task"
    );
    assert_eq!(
        references(&it.entity("#task-2")["object"]).len(),
        1,
        "its args are in no record"
    );
    // One that was killed before its first task.
    cut("{\"seq\":1,");
    std::fs::remove_file(project.path("work/history.json")).expect("removed");
    let it = Crate::of(&project, "work");
    assert_eq!(it.profiles(), ["process", "workflow", "workflow-ro-crate"]);
    assert_eq!(it.of_type("CreateAction"), ["#run"]);
}

#[test]
fn items_of_earlier_runs_are_left_out() {
    let project = good_run();
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": null }),
    );
    let fails = parallel_task(1, "seg", &module("swiss.wasm"), "missing", json!({}));
    project.workflow(&[list, fails]);
    let arguments = [
        "run",
        "workflow.json",
        "--output",
        "out",
        "--work-dir",
        "w2",
        "--history",
        "work/history.json",
    ];
    project.mandelbox(&arguments).expect(4);
    let it = Crate::of(&project, "w2");
    let args =
        it.0.keys()
            .filter(|id| id.contains("/args/"))
            .map(String::as_str)
            .collect::<Vec<_>>();
    assert_eq!(args, ["#task-0/args/metadiff", "#tool-0/args/metadiff"]);
    assert_eq!(
        it.entity("#task-1")["error"],
        "the task failed outside its calls"
    );
    assert_eq!(
        it.entity("#run").get("object"),
        None,
        "no input path was given"
    );
}

#[test]
fn a_crate_needs_a_complete_run() {
    let project = Project::new();
    let work_dir = WorkDir::create(&project.path("going")).expect("made");
    project.write("going/events.jsonl", synthetic_log(3));
    project
        .mandelbox(&["report", "going", "--ro-crate"])
        .expect(2)
        .reports(&["is in use by a run", "wait for its end"]);
    assert!(
        !project.tree().iter().any(|path| path.contains("ro-crate")),
        "{:?}",
        project.tree()
    );
    drop(work_dir);
    Crate::of(&project, "going");
    project
        .mandelbox(&["report", "in", "--ro-crate"])
        .expect(2)
        .reports(&["in: not the work directory of a run"]);
    project
        .mandelbox(&["report", "in", "--license", "x"])
        .expect(2)
        .reports(&["--ro-crate"]);
}

#[test]
fn a_license_is_taken_as_given() {
    let project = Project::new();
    project.write("w/events.jsonl", synthetic_log(3));
    let made = |license: &str| {
        project
            .mandelbox(&["report", "w", "--ro-crate", "--license", license])
            .expect(0);
        Crate::read(&project, "w")
    };
    let url = "https://creativecommons.org/licenses/by/4.0/";
    let it = made(url);
    assert_eq!(it.entity("./")["license"], json!({ "@id": url }));
    assert_eq!(it.entity(url)["@type"], "CreativeWork");
    assert_eq!(made("ask us").entity("./")["license"], "ask us");
}

#[test]
fn ten_thousand_calls_are_a_small_crate() {
    let project = Project::new();
    project.write("w/events.jsonl", synthetic_log(10_000));
    let it = Crate::of(&project, "w");
    let size = project.read("w/ro-crate-metadata.json").len();
    assert!(size < 30_000, "{size} bytes");
    assert_eq!(it.entity("#task-0/usage/n_failed")["value"], 100);
    assert!(
        it.entity("#task-0")["error"]
            .as_str()
            .expect("an error")
            .starts_with("100 of 10000 calls failed: ")
    );
}
