//! Recorded runs of fractal-server, replayed without a sandbox: the documents of each case go
//! through the dialect, and the recorded outputs of its calls come back.

mod compare;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use compare::{check, check_call, check_images, check_statuses, same};
use serde_json::json;

use super::{
    Dataset, DatasetDocument, Filters, Manifest, Package, Statuses, TaskDetails, TaskReference,
    WorkflowDocument, find_task,
};
use crate::fractal::dialect::{BatchEnd, Calls, Dialect, Step, TaskTimes};
use crate::fractal::local_config::{KEY, LocalConfig};
use crate::json::{DuplicateKeys, Map, Value, parse_guest_json, parse_json};
use crate::model::{Attempt, Batch, Limits, ModuleKind, ModuleRef, Retries, TaskFiles, TaskSpec};
use crate::problem::{Cursor, Problems};

/// Cases in which mandelbox differs on purpose, and the reasons.
const DIFFERENT: [(&str, &str); 2] = [
    (
        "a57-manifest-command-forbidden-char",
        "a module's path has no meaning to a shell",
    ),
    (
        "i14-status-attribute-lost",
        "statuses are not kept as attributes, so an attribute with their key is not lost",
    ),
];

/// A defect whose answer is another part's: arguments are checked against their schema by the plan.
const CHECKED_BY_PLAN: &str = "a54-args-not-checked";

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal-v2")
}

fn parse(text: &str) -> Value {
    parse_json(text.as_bytes(), DuplicateKeys::LastWins).expect("JSON")
}

/// Reads a file of a case, with paths instead of placeholders.
fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    parse(&text.replace("$ZARR", "/w/zarr").replace("$WORK", "/w"))
}

/// Result of a job.
struct JobResult {
    status: &'static str,
    images: Value,
    statuses: Value,
    /// For each task: the number of images that it could get, and the calls.
    runs: Vec<(usize, Vec<CallRecord>)>,
}

struct CallRecord {
    args_name: String,
    args: Value,
    item: Option<Value>,
}

/// A workflow task with the task that it names.
struct ReadTask {
    name: String,
    details: TaskDetails,
    max_parallel: Option<NonZeroUsize>,
    executables: [Option<String>; 2],
}

struct Case {
    folder: PathBuf,
    expected: Value,
    /// Files that stand for earlier calls.
    markers: HashSet<String>,
}

impl Case {
    fn read(&self, name: &str) -> Value {
        read(&self.folder.join(name))
    }

    fn packages(&self, problems: &mut Problems) -> Vec<Package> {
        let mut packages = Vec::new();
        let names = std::fs::read_dir(&self.folder).expect("a folder");
        let names = names.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        for name in names.iter().filter(|name| name.starts_with("manifest")) {
            let version = name.strip_prefix("manifest-");
            let version = version.and_then(|name| name.strip_suffix(".json"));
            let value = self.read(name);
            let manifest = Manifest::from_cursor(&Cursor::new(Path::new(name), &value), problems);
            packages.extend(manifest.map(|manifest| Package {
                pkg_name: "mandelbox-swiss".to_owned(),
                version: version.unwrap_or("1.0.0").to_owned(),
                folder: PathBuf::new(),
                manifest,
                is_refused: false,
            }));
        }
        packages
    }

    fn tasks(
        &self,
        workflow: &Value,
        local_config: LocalConfig,
        problems: &mut Problems,
    ) -> Vec<ReadTask> {
        let packages = self.packages(problems);
        let document = Cursor::new(Path::new("workflow.json"), workflow);
        let Some(workflow) = WorkflowDocument::from_cursor(&document, Path::new(""), problems)
        else {
            return Vec::new();
        };
        let mut tasks = Vec::new();
        for entry in &workflow.task_list {
            let TaskReference::Package {
                pkg_name,
                version,
                name,
            } = &entry.task
            else {
                panic!("cases are exports");
            };
            let task = match find_task(&packages, pkg_name, version.as_deref(), name) {
                Ok(found) => found.task,
                Err(message) => {
                    problems.add(entry.location_of("task"), message);
                    continue;
                }
            };
            let sides = [&task.non_parallel, &task.parallel];
            tasks.push(ReadTask {
                name: task.name.clone(),
                details: entry.details(task, problems),
                max_parallel: entry.max_parallel(task, local_config, problems),
                executables: sides.map(|side| side.as_ref().map(|side| side.executable.clone())),
            });
        }
        tasks
    }

    /// Runs the jobs of the case. `Err`: a job was refused.
    fn run(&mut self) -> Result<Vec<JobResult>, String> {
        let jobs = self.read("job.json");
        let resource = match &jobs["resource"] {
            Value::Object(resource) => resource.clone(),
            _ => Map::new(),
        };
        if let Some(key) = resource.keys().find(|key| *key != KEY) {
            return Err(format!("unknown key {key}"));
        }
        let limit = resource.get(KEY).and_then(Value::as_u64);
        let local_config = LocalConfig {
            parallel_tasks_per_job: limit
                .and_then(|limit| NonZeroUsize::new(usize::try_from(limit).expect("small"))),
        };
        let mut workflow = self.read("workflow.json");
        let dataset = self.read("dataset.json");
        let mut document = Problems::or_value(|problems| {
            DatasetDocument::from_cursor(
                &Cursor::new(Path::new("dataset.json"), &dataset),
                problems,
            )
        })
        .map_err(|problems| problems.to_string())?;
        let mut statuses = Statuses::default();
        let mut results = Vec::new();
        for (index, job) in jobs["jobs"].as_array().expect("jobs").iter().enumerate() {
            for patch in job["patch"].as_array().into_iter().flatten() {
                let order = usize::try_from(patch[0].as_u64().expect("an order")).expect("small");
                for (key, value) in patch[1].as_object().expect("changes") {
                    workflow["task_list"][order][key] = value.clone();
                }
            }
            let mut problems = Problems::default();
            let tasks = self.tasks(&workflow, local_config, &mut problems);
            let cursor = Cursor::new(Path::new("job.json"), job);
            let types = cursor.get("type_filters");
            let attributes = cursor.get("attribute_filters");
            let filters = Filters::read(types.as_ref(), attributes.as_ref(), &mut problems);
            let last_task = tasks.len() as i64 - 1;
            let first = job["first_task_index"].as_i64().unwrap_or(0);
            let last = job["last_task_index"].as_i64().unwrap_or(last_task);
            if !problems.is_empty() || first < 0 || first > last || last > last_task {
                return Err(problems.to_string());
            }
            let details = tasks.iter().enumerate();
            let details: BTreeMap<_, _> = details
                .map(|(order, task)| (order as u64, task.details.clone()))
                .collect();
            let dataset = Dataset::new(document.clone(), filters, statuses, details);
            let mut dataset = dataset.max_items(20_000);
            let range =
                usize::try_from(first).expect("small")..=usize::try_from(last).expect("small");
            let mut runs = Vec::new();
            let mut status = "done";
            for order in range {
                let mut calls = Vec::new();
                let is_done = self.run_task(&mut dataset, order, &tasks[order], index, &mut calls);
                runs.push((dataset.n_available().unwrap_or_default(), calls));
                if !is_done {
                    status = "failed";
                    break;
                }
            }
            statuses = dataset.statuses().clone();
            document.images = dataset.images().clone();
            results.push(JobResult {
                status,
                images: json!(document.images),
                statuses: json!(statuses),
                runs,
            });
        }
        Ok(results)
    }

    fn run_task(
        &mut self,
        dataset: &mut Dataset,
        order: usize,
        task: &ReadTask,
        job: usize,
        records: &mut Vec<CallRecord>,
    ) -> bool {
        let spec = TaskSpec {
            order: order as u64,
            name: task.name.clone(),
            id: None,
            module: ModuleRef {
                path: "t.wasm".into(),
                sha256: String::new(),
            },
            kind: ModuleKind::CommandP1,
            script: None,
            fixed_args: Vec::new(),
            is_single: false,
            max_parallel: task.max_parallel,
            limits: Limits::default(),
            reserves_memory: false,
            n_cpus: NonZeroUsize::MIN,
            env: Vec::new(),
            mounts: Vec::new(),
            resources: Vec::new(),
        };
        let started = jiff::Timestamp::UNIX_EPOCH;
        let times = TaskTimes {
            started,
            ended: started,
        };
        let mut ended = None;
        loop {
            let calls = match dataset.next(&spec, ended.take(), true) {
                Ok(Step::Calls(calls)) => calls,
                Ok(Step::Done(_)) => return true,
                Err(_) => {
                    dataset.fail(&spec, times, 0);
                    return false;
                }
            };
            let side = usize::from(calls.items.is_some());
            let executable = task.executables[side].as_ref().expect("an executable");
            let mut failed = Vec::new();
            let mut outputs = Vec::new();
            for call_index in 0..calls.list.len() {
                match self.call(&spec, &calls, call_index, (executable, job), records) {
                    Ok(output) => outputs.extend(output.map(|output| (call_index, output))),
                    Err(()) => failed.push(call_index),
                }
            }
            // The order of completion does not matter.
            outputs.reverse();
            let batch = BatchEnd { outputs, times };
            if !failed.is_empty() {
                dataset.end_failed(&spec, batch, &failed);
                dataset.fail(&spec, times, 0);
                return false;
            }
            ended = Some(batch);
        }
    }

    /// Does what the recorded task did in a call.
    fn call(
        &mut self,
        spec: &TaskSpec,
        calls: &Calls,
        call_index: usize,
        (executable, job): (&str, usize),
        records: &mut Vec<CallRecord>,
    ) -> Result<Option<Map<String, Value>>, ()> {
        let batch = Batch {
            task: spec.clone(),
            index: 0,
            grants: Vec::new(),
            folder: PathBuf::from(folder_of(spec)),
            task_files: TaskFiles::All,
            metadata: calls.metadata.clone(),
            free_space_bytes: 0,
            keep_going: true,
            retries: Retries::default(),
        };
        let attempt = Attempt {
            call_index,
            number: 1,
        };
        let call = calls.list.call(&batch, attempt, false);
        let args = parse(&call.args);
        let act = self.behaviour(&args);
        let name = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        records.push(CallRecord {
            args_name: name(call.files.args()),
            args,
            item: call.item.clone(),
        });
        let is_fine = act.get("exit").is_none_or(|code| code == 0) && act.get("signal").is_none();
        match executable {
            "swiss.py" if is_fine => {}
            "true.py" => return Ok(None),
            _ => return Err(()),
        }
        let recorded = &self.expected["jobs"][job]["files"][name(call.files.output())];
        let text = match recorded.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None if act.get("out").is_some_and(Value::is_object) => {
                expanded(&act["out"], "").to_string()
            }
            None => return Ok(None),
        };
        let output = parse_guest_json(text.as_bytes()).map_err(|_| ())?;
        calls.list.check_output(output).map_err(|_| ())
    }

    /// Returns the args with the changes for this call.
    fn behaviour(&mut self, args: &Value) -> Map<String, Value> {
        let mut act = args.as_object().expect("an object").clone();
        if let Some(other) = args["init_args"]["act"].as_object() {
            act.extend(other.clone());
        }
        if let Some(url) = args["zarr_url"].as_str() {
            let by_url = act.get("per_url").cloned().unwrap_or_default();
            let name = url.rsplit('/').next().expect("a part");
            let other = by_url.get(url).or_else(|| by_url.get(name));
            act.extend(
                other
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        if let Some(other) = act.get("first_time").and_then(Value::as_object).cloned()
            && self.markers.insert(other["marker"].to_string())
        {
            act.extend(other);
        }
        act
    }
}

/// The folder of a task, as its name is in the recorded files.
fn folder_of(spec: &TaskSpec) -> String {
    let name = crate::text::file_name::sanitize_string(&spec.name);
    format!("{}_{name}", spec.order)
}

/// Expands an output that was too long to be recorded.
fn expanded(value: &Value, index: &str) -> Value {
    match value {
        Value::String(text) => {
            let text = text.replace("{zarr_dir}", "/w/zarr");
            Value::String(text.replace("{index}", index))
        }
        Value::Object(map) if map.contains_key("$range") => {
            let n = map["$range"][0].as_u64().expect("a number");
            let items = (0..n).map(|i| expanded(&map["$range"][1], &i.to_string()));
            Value::Array(items.collect())
        }
        Value::Object(map) => {
            let entries = map.iter();
            entries
                .map(|(key, value)| (key.clone(), expanded(value, index)))
                .collect()
        }
        other => other.clone(),
    }
}

/// Checks one case. `is_defect`: fractal-server is wrong, so statuses and calls may differ.
///
/// Returns the number of calls that were compared.
fn check_case(name: &str, is_defect: bool) -> Result<usize, String> {
    let folder = cases().join("cases").join(name);
    let expected = read(&folder.join("expected.json"));
    let mut case = Case {
        folder,
        expected: expected.clone(),
        markers: HashSet::new(),
    };
    let jobs = expected["jobs"].as_array().cloned().unwrap_or_default();
    let is_refused =
        expected.get("refused").is_some() || jobs.iter().any(|job| job.get("refused").is_some());
    let better = expected["better"].as_str().unwrap_or_default();
    let is_better_refused = better.starts_with("refuse");
    let results = match case.run() {
        Err(_) if is_refused || is_better_refused => return Ok(0),
        Err(problems) => return Err(problems),
        Ok(_) if is_better_refused && name != CHECKED_BY_PLAN => {
            return Err("was not refused".to_owned());
        }
        Ok(_) if is_refused && !is_defect => return Err("was not refused".to_owned()),
        Ok(results) => results,
    };
    let mut n_compared = 0;
    for (index, (job, result)) in jobs.iter().zip(&results).enumerate() {
        let better_images = expected.get("better_images");
        let better_images = better_images.filter(|_| index + 1 == jobs.len());
        let status = match name.split('-').next() {
            Some("f14" | "f35") => &json!("failed"),
            _ => &job["status"],
        };
        check(
            "status",
            result.status == status,
            &result.status.into(),
            status,
        )?;
        match better_images {
            Some(images) => check(
                "images",
                same(&result.images, images),
                &result.images,
                images,
            )?,
            None if is_defect && job["images"].get("json").is_none() => {}
            None => check_images(&result.images, &job["images"])?,
        }
        if is_defect {
            continue;
        }
        check_statuses(&result.statuses, &job["image_status"])?;
        for ((n_available, calls), run) in result
            .runs
            .iter()
            .zip(job["runs"].as_array().expect("runs"))
        {
            let n = &run["num_available_images"];
            check(
                "available images",
                n == *n_available,
                &(*n_available).into(),
                n,
            )?;
            let units = &run["units"];
            let n_units = match units.as_array() {
                Some(units) => json!(units.len()),
                // Of many calls, only their number and the first and the last were recorded.
                None => units["count"].clone(),
            };
            let n_calls = json!(calls.len());
            check("calls", n_units == n_calls, &n_calls, units)?;
            for (call, unit) in calls.iter().zip(units.as_array().into_iter().flatten()) {
                check_call(call, unit, &job["files"])?;
                n_compared += 1;
            }
        }
        let n_runs = result.runs.len();
        check(
            "runs",
            job["runs"].as_array().map(Vec::len) == Some(n_runs),
            &n_runs.into(),
            &job["runs"],
        )?;
    }
    Ok(n_compared)
}

#[test]
fn recorded_runs_are_repeated() {
    let index = read(&cases().join("index.json"));
    let (mut n_checked, mut n_compared) = (0, 0);
    let mut wrong = Vec::new();
    for line in index.as_array().expect("a list") {
        let name = line["case"].as_str().expect("a name");
        if DIFFERENT.iter().any(|(case, _)| *case == name) {
            continue;
        }
        n_checked += 1;
        match check_case(name, line["conform"] == "defect") {
            Ok(n) => n_compared += n,
            Err(message) => wrong.push(format!("{name} ({}): {message}", line["conform"])),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {n_checked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        n_checked > 190 && n_compared > 200,
        "{n_checked} cases, {n_compared} calls"
    );
}
