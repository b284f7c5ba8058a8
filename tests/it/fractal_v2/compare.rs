//! Comparison of a case that was run with the recorded one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::case::{Case, Form, JobEnd, parse};
use super::own::{self, Ending, exit_codes, failed_after_calls, has_other_calls, is_killed};
use crate::recorded::{same, unhex};

/// What differs in a case.
#[derive(Default)]
pub struct Differences(pub Vec<String>);

impl Differences {
    fn add(&mut self, text: impl Display) {
        self.0.push(text.to_string());
    }

    fn check(&mut self, what: impl Display, here: &Value, recorded: &Value) {
        self.check_that(same(here, recorded), what, here, recorded);
    }

    fn check_that(&mut self, is_same: bool, what: impl Display, here: &Value, recorded: &Value) {
        let short = |value: &Value| value.to_string().chars().take(800).collect::<String>();
        if !is_same {
            let (here, recorded) = (short(here), short(recorded));
            self.add(format_args!("{what}: {here} instead of {recorded}"));
        }
    }
}

/// Compares all jobs of a case.
pub fn compare(case: &Case, ends: &[JobEnd]) -> Differences {
    let mut differences = Differences::default();
    for end in ends {
        let (code, stderr) = (end.ended.code, &end.ended.stderr);
        let is_foreseen = (0..5).contains(&code) && !stderr.contains("panicked");
        if !is_foreseen || (code != 0 && stderr.trim().is_empty()) {
            differences.add(format_args!("exit code {code}, stderr: {stderr:?}"));
        }
    }
    match Ending::of(case) {
        Ending::Refused(texts) => {
            let end = ends.last().expect("a job");
            check_refused(end, &mut differences);
            for text in texts {
                if !end.ended.stderr.contains(text) {
                    differences.add(format_args!("{text:?} is not in {:?}", end.ended.stderr));
                }
            }
        }
        Ending::Images(codes, images) => {
            let end = ends.last().expect("a job");
            if !codes.contains(&end.ended.code) {
                differences.add(format_args!(
                    "exit code {}, stderr: {:?}",
                    end.ended.code, end.ended.stderr
                ));
            } else if end.ended.code == 2 {
                check_refused(end, &mut differences);
            } else {
                let here = &dataset(case, end)["images"];
                differences.check("images", here, &with_all_keys(&images));
            }
        }
        Ending::Passes(key, value) => {
            let end = ends.last().expect("a job");
            differences.check("exit code", &json!(end.ended.code), &json!(0));
            let here = &dataset(case, end)["images"];
            differences.check("images", here, &with_all_keys(&case.dataset["images"]));
            let args = format!("{}/0_t/par-000000-0000000-args.json", end.work_dir);
            if case.project.path(&args).exists() {
                differences.check("args", &case.project.json(&args)[key], &value);
            } else {
                differences.add(format_args!("no file {args}"));
            }
        }
        Ending::AsRecorded => {
            let jobs = case.expected["jobs"].as_array().expect("jobs");
            for (index, (job, end)) in jobs.iter().zip(ends).enumerate() {
                let is_last = index + 1 == jobs.len();
                compare_job(case, job, end, is_last, &mut differences);
            }
            compare_zarr_files(case, &mut differences);
        }
    }
    differences
}

/// Images of a dataset document in the form of the records.
fn with_all_keys(images: &Value) -> Value {
    let mut images = images.clone();
    for image in images.as_array_mut().into_iter().flatten() {
        for (key, value) in [
            ("origin", Value::Null),
            ("attributes", json!({})),
            ("types", json!({})),
        ] {
            if image.get(key).is_none() {
                image[key] = value;
            }
        }
    }
    images
}

fn check_refused(end: &JobEnd, differences: &mut Differences) {
    let (code, stderr) = (end.ended.code, &end.ended.stderr);
    if code != 2 {
        differences.add(format_args!("exit code {code} instead of 2: {stderr:?}"));
        return;
    }
    let [before, after] = &end.trees;
    if before != after {
        let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
        differences.add(format_args!("refused, but these were written: {new:?}"));
    }
    // A file, or an option of the command line.
    if !stderr.contains(".json") && !stderr.contains("--") {
        differences.add(format_args!("the message names no location: {stderr:?}"));
    }
}

fn dataset(case: &Case, end: &JobEnd) -> Value {
    let file = format!("{}/dataset.json", end.work_dir);
    match case.project.path(&file).exists() {
        true => parse(&case.project.read(&file)),
        false => Value::Null,
    }
}

fn compare_job(
    case: &Case,
    job: &Value,
    end: &JobEnd,
    is_last: bool,
    differences: &mut Differences,
) {
    let codes = exit_codes(case, job);
    if !codes.contains(&end.ended.code) {
        differences.add(format_args!(
            "exit code {} instead of {codes:?}: {:?}",
            end.ended.code, end.ended.stderr
        ));
    }
    if !case.project.path(&end.work_dir).is_dir() {
        differences.add("there is no work directory");
        return;
    }
    let dataset = dataset(case, end);
    for key in ["name", "zarr_dir"] {
        differences.check(key, &dataset[key], &case.dataset[key]);
    }
    match case.expected.get("better_images").filter(|_| is_last) {
        Some(images) => differences.check("images", &dataset["images"], images),
        None => compare_images(&dataset["images"], &job["images"], differences),
    }
    if case.form == Form::Full && end.ended.code == 0 {
        let result = case.project.json(&format!("{}-result.json", end.work_dir));
        differences.check("the result", &result, &dataset);
    }
    let statuses = case.project.path(&format!("{}/status.json", end.work_dir));
    let statuses = match statuses.exists() {
        true => case.project.json(&format!("{}/status.json", end.work_dir)),
        false => json!({}),
    };
    let own = own::statuses(case);
    let recorded = own.as_ref().unwrap_or(&job["image_status"]);
    compare_statuses(&statuses, recorded, differences);
    let log = Log::read(case, end);
    compare_runs(case, job, &log, differences);
    if !has_other_calls(case) {
        compare_files(case, job, end, differences);
    }
}

fn compare_images(here: &Value, recorded: &Value, differences: &mut Differences) {
    if let Some(images) = recorded.get("json") {
        differences.check("images", here, images);
    } else if let Some(text) = recorded["text"].as_str() {
        differences.check("images", here, &parse(text));
    } else {
        compare_long_list("images", here, recorded, differences);
    }
}

/// Compares a list with one of which only the length and both ends were recorded.
fn compare_long_list(what: &str, here: &Value, recorded: &Value, differences: &mut Differences) {
    let Some(list) = here.as_array() else {
        differences.add(format_args!("{what}: no list"));
        return;
    };
    let ends = |list: &[Value], n_first: usize, n_last: usize| {
        let first = list.iter().take(n_first).cloned();
        let last = list.iter().skip(list.len().saturating_sub(n_last)).cloned();
        Value::Array(first.chain(last).collect())
    };
    let [first, last] = ["first", "last"].map(|key| recorded[key].as_array().expect("a list"));
    let here = ends(list, first.len(), last.len());
    let expected = Value::Array([first.as_slice(), last.as_slice()].concat());
    differences.check(format_args!("ends of {what}"), &here, &expected);
    differences.check(
        format_args!("number of {what}"),
        &json!(list.len()),
        &recorded["count"],
    );
}

/// A task without statuses counts as missing, and `submitted` is `failed` (defect W23).
fn compare_statuses(here: &Value, recorded: &Value, differences: &mut Differences) {
    let tasks = |statuses: &Value| {
        let mut tasks = statuses.as_object().cloned().unwrap_or_default();
        tasks.retain(|_, statuses| *statuses != json!({}));
        tasks
    };
    let (here, recorded) = (tasks(here), tasks(recorded));
    let orders: BTreeSet<_> = here.keys().chain(recorded.keys()).collect();
    for order in orders {
        let of = |tasks: &Map<String, Value>| tasks.get(order).cloned().unwrap_or(json!({}));
        let (here, mut recorded) = (of(&here), of(&recorded));
        let what = format!("statuses for task {order}");
        if let Some(count) = recorded.get("count") {
            let here = here.as_object().into_iter().flat_map(Map::values);
            let here: Vec<_> = here.filter_map(Value::as_str).collect();
            let different: BTreeSet<_> = here.iter().collect();
            differences.check(&what, &json!(here.len()), count);
            differences.check(&what, &json!(different), &recorded["statuses"]);
            continue;
        }
        for status in recorded
            .as_object_mut()
            .into_iter()
            .flat_map(Map::values_mut)
        {
            if *status == "submitted" {
                *status = json!("failed");
            }
        }
        differences.check(what, &here, &recorded);
    }
}

/// The events of a run.
struct Log(Vec<Value>);

impl Log {
    fn read(case: &Case, end: &JobEnd) -> Self {
        let text = case.project.read(&format!("{}/events.jsonl", end.work_dir));
        Self(text.lines().map(parse).collect())
    }

    fn of_kind<'l>(&'l self, kind: &'l str) -> impl Iterator<Item = &'l Value> {
        self.0.iter().filter(move |event| event["event"] == kind)
    }

    /// The tasks that started, in order: the events of their first batches.
    fn tasks(&self) -> Vec<&Value> {
        let starts = self.of_kind("task_started");
        starts
            .filter(|event| event.get("batch").is_none())
            .collect()
    }

    /// The last event of each call of a task, in the order of the calls.
    fn calls(&self, order: &Value) -> Vec<&Value> {
        let number = |event: &Value, key: &str| event[key].as_u64().unwrap_or(0);
        let ends = self.of_kind("call_finished");
        let ends =
            ends.filter(|event| event["task"] == *order && event.get("retry_in_s").is_none());
        let calls: BTreeMap<_, _> = ends
            .map(|event| ((number(event, "batch"), number(event, "call_index")), event))
            .collect();
        calls.into_values().collect()
    }
}

fn compare_runs(case: &Case, job: &Value, log: &Log, differences: &mut Differences) {
    let runs = job["runs"].as_array().expect("runs");
    let tasks = log.tasks();
    let numbers = |events: Vec<Value>| Value::Array(events);
    let here = tasks
        .iter()
        .map(|task| json!([task["task"], task["n_available_images"]]));
    let recorded = runs
        .iter()
        .map(|run| json!([run["order"], run["num_available_images"]]));
    differences.check(
        "tasks and their available images",
        &numbers(here.collect()),
        &numbers(recorded.collect()),
    );
    if has_other_calls(case) {
        return;
    }
    for run in runs {
        let order = &run["order"];
        let calls = log.calls(order);
        let units = &run["units"];
        let what = format!("calls of task {order}");
        let here = calls.iter().map(|call| unit_of_call(call));
        let here = Value::Array(here.collect());
        match units.as_array() {
            Some(units) => {
                let units = units.iter().map(facts_of_unit).collect();
                let units = Value::Array(units);
                let is_same = are_same_units(&here, &units);
                differences.check_that(is_same, &what, &here, &units);
            }
            None => {
                let mut recorded = units.clone();
                for key in ["first", "last"] {
                    for unit in recorded[key].as_array_mut().into_iter().flatten() {
                        *unit = facts_of_unit(unit);
                    }
                }
                compare_long_list(&what, &here, &recorded, differences);
            }
        }
        if !case.is_defect && !failed_after_calls(job) {
            compare_outcomes(&what, &calls, run, differences);
        }
    }
}

fn unit_of_call(call: &Value) -> Value {
    json!({ "zarr_urls": call["zarr_urls"], "has_warnings": call["has_warnings"] })
}

fn facts_of_unit(unit: &Value) -> Value {
    json!({ "zarr_urls": unit["zarr_urls"], "has_warnings": unit["has_warnings"] })
}

/// Of many URLs only their number was recorded.
fn are_same_units(here: &Value, recorded: &Value) -> bool {
    let (here, recorded) = (here.as_array(), recorded.as_array());
    let (here, recorded) = (here.expect("a list"), recorded.expect("a list"));
    let are_same = |here: &Value, recorded: &Value| match recorded["zarr_urls"]["count"].as_u64() {
        None => same(here, recorded),
        Some(count) => {
            let n_urls = here["zarr_urls"].as_array().map(|urls| urls.len() as u64);
            n_urls == Some(count) && here["has_warnings"] == recorded["has_warnings"]
        }
    };
    here.len() == recorded.len() && here.iter().zip(recorded).all(|(a, b)| are_same(a, b))
}

/// A call succeeded if its unit is done. The units of a compound task have one status together.
fn compare_outcomes(what: &str, calls: &[&Value], run: &Value, differences: &mut Differences) {
    let Some(units) = run["units"].as_array() else {
        let is_done = calls.iter().all(|call| call["outcome"] == "succeeded");
        differences.check_that(is_done, what, &json!(is_done), &json!(true));
        return;
    };
    let here: Vec<_> = calls
        .iter()
        .map(|call| call["outcome"] == "succeeded")
        .collect();
    let recorded: Vec<_> = units.iter().map(|unit| unit["status"] == "done").collect();
    let is_compound = units.len() > 1
        && units[0]["logfile"]
            .as_str()
            .is_some_and(|file| file.ends_with("/non_par--log.txt"));
    let is_same = if is_compound {
        here.iter().all(|is_done| *is_done) == recorded.iter().all(|is_done| *is_done)
    } else {
        here == recorded
    };
    let what = format!("outcomes of the {what}");
    differences.check_that(is_same, what, &json!(here), &json!(recorded));
}

/// Compares the folders of tasks and the files of calls.
fn compare_files(case: &Case, job: &Value, end: &JobEnd, differences: &mut Differences) {
    let prefix = format!("{}/", end.work_dir);
    let [_, tree] = &end.trees;
    let here = tree.iter().filter_map(|path| path.strip_prefix(&prefix));
    let here: Vec<_> = here.filter(|path| path.contains('/')).collect();
    let folders = here.iter().filter_map(|path| path.strip_suffix('/'));
    let folders: BTreeSet<_> = folders.collect();
    let recorded = job["dirs"].as_array().into_iter().flatten();
    let recorded: BTreeSet<_> = recorded.filter_map(Value::as_str).collect();
    differences.check("folders of tasks", &json!(folders), &json!(recorded));
    let here: BTreeSet<_> = here
        .into_iter()
        .filter(|path| !path.ends_with('/'))
        .collect();
    let files = job["files"].as_object().expect("files");
    if let Some(count) = files.get("count") {
        // The log of the workflow counts, too.
        differences.check("number of files", &json!(here.len() + 1), count);
        let ends = ["first", "last"].map(|key| files[key].as_array().expect("a list"));
        let ends = ends.into_iter().flatten().filter_map(Value::as_str);
        for path in ends.filter(|path| *path != "workflow.log" && !here.contains(path)) {
            differences.add(format_args!("no file {path}"));
        }
        return;
    }
    let mut files = files.clone();
    files.remove("workflow.log");
    let names: BTreeSet<_> = files.keys().map(String::as_str).collect();
    differences.check("files of calls", &json!(here), &json!(names));
    for (path, recorded) in files
        .iter()
        .filter(|(path, _)| here.contains(path.as_str()))
    {
        let file = case.project.path(&format!("{prefix}{path}"));
        let bytes = std::fs::read(file).expect("a file");
        if let Err(text) = compare_file(path, &bytes, recorded, is_killed(job)) {
            differences.add(format_args!("{path}: {text}"));
        }
    }
}

fn compare_file(path: &str, bytes: &[u8], recorded: &Value, is_killed: bool) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let different = |recorded: &dyn Display| {
        let short: String = text.chars().take(500).collect();
        Err(format!("{short:?} instead of {recorded}"))
    };
    if path.ends_with("-log.txt") {
        let expected = match (recorded["text"].as_str(), recorded["hex"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(hex)) => unhex(hex),
            (None, None) if recorded["bytes"] == bytes.len() => return Ok(()),
            (None, None) => return different(recorded),
        };
        // What ended the guest may stand after the guest's own text.
        let is_same = bytes == expected || (is_killed && bytes.starts_with(&expected));
        return if is_same { Ok(()) } else { different(recorded) };
    }
    let here = serde_json::from_slice::<Value>(bytes);
    let expected = match (recorded.get("json"), recorded["text"].as_str()) {
        (Some(value), _) => Some(value.clone()),
        (None, Some(text)) => match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(_) if text.as_bytes() == bytes => return Ok(()),
            Err(_) => return different(recorded),
        },
        // Only the length was recorded, which depends on the spaces in it.
        (None, None) => None,
    };
    match (here, expected) {
        (Ok(here), Some(expected)) if same(&here, &expected) => Ok(()),
        (Ok(_), None) => Ok(()),
        _ => different(recorded),
    }
}

/// Compares what the tasks wrote.
fn compare_zarr_files(case: &Case, differences: &mut Differences) {
    let tree = case.project.tree();
    let files = tree
        .iter()
        .filter(|path| path.starts_with("zarr/") && !path.ends_with('/'));
    let files: Map<_, _> = files
        .map(|path| (path.clone(), json!(case.project.read(path))))
        .collect();
    let files = Value::Object(files);
    differences.check("files below zarr_dir", &files, &case.expected["zarr_files"]);
}
