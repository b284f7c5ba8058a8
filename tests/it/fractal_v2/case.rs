//! One recorded case: its documents in a project, and its jobs through the program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::package::{NAME, Package, empty_module, text_of};
use crate::project::{Ended, Project, finish_within, module, quoted};

/// Key in attribute filters that selects by status.
const STATUS_KEY: &str = "__wftask_dataset_image_status__";
/// Values of `--status-filter`.
const STATUSES: [&str; 3] = ["done", "failed", "unset"];
/// Longest time of one run: some cases have 20,001 images.
const TIMEOUT: Duration = Duration::from_secs(600);

pub fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fractal-v2")
}

/// Numbers keep their text.
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// The form of the workflow that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As exported; the tasks are in packages.
    Exported,
    /// With the tasks, whose commands are modules.
    Full,
}

/// One case with its placeholders filled in.
pub struct Case {
    pub name: String,
    pub form: Form,
    pub project: Project,
    pub dataset: Value,
    pub expected: Value,
    /// True if fractal-server is wrong.
    pub is_defect: bool,
    /// Changes how documents and options are written, where there is a choice.
    is_odd: bool,
    jobs: Value,
    workflow: Value,
    packages: Vec<String>,
}

/// End of one job of a case.
pub struct JobEnd {
    pub ended: Ended,
    /// The work directory, relative to the project.
    pub work_dir: String,
    /// All files before and after the job.
    pub trees: [Vec<String>; 2],
}

impl Case {
    /// Reads a case and writes its packages into a project.
    pub fn read(name: &str, form: Form, is_defect: bool, is_odd: bool) -> Self {
        let folder = cases().join("cases").join(name);
        let project = Project::new();
        let root = text_of(&project.path(""));
        let root = root.trim_end_matches('/').to_owned();
        std::fs::create_dir(project.path("zarr")).expect("made");
        let swiss = match form {
            Form::Full if name.starts_with('b') => "swiss.p2.wasm",
            _ => "swiss.wasm",
        };
        let read = |file: &str| {
            let text = std::fs::read_to_string(folder.join(file)).expect("a file of the case");
            let text = text
                .replace("$ZARR", &format!("{root}/zarr"))
                .replace("$WORK", &root)
                .replace("$SWISS", &quoted(&module(swiss)));
            parse(&text.replace("$TRUE", &quoted(&format!("{root}/true.wasm"))))
        };
        let mut packages = Vec::new();
        if form == Form::Full {
            project.write("true.wasm", empty_module());
        } else {
            for file in manifests(&folder) {
                let (pkg_name, version) = name_and_version(&file);
                let package = Package {
                    name: pkg_name,
                    version,
                    manifest: read(&file),
                    module: swiss,
                    has_dist_info: is_odd,
                };
                packages.push(package.write(&project));
            }
        }
        let workflow = match form {
            Form::Exported => "workflow.json",
            Form::Full => "workflow-full.json",
        };
        Self {
            name: name.to_owned(),
            form,
            dataset: read("dataset.json"),
            expected: read("expected.json"),
            is_defect,
            is_odd,
            jobs: read("job.json"),
            workflow: read(workflow),
            packages,
            project,
        }
    }

    /// Runs the jobs of the case, one after the other, each with the dataset of the one before.
    ///
    /// * `change`: changes the command of each.
    pub fn run(&mut self, change: &dyn Fn(&mut Command)) -> Vec<JobEnd> {
        let mut dataset = "dataset.json".to_owned();
        self.project.write(&dataset, self.dataset.to_string());
        let jobs = self.jobs["jobs"].as_array().cloned().expect("jobs");
        let mut ends = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            for patch in job["patch"].as_array().into_iter().flatten() {
                let order = patch[0].as_u64().and_then(|order| order.try_into().ok());
                let order: usize = order.expect("an order");
                for (key, value) in patch[1].as_object().expect("changes") {
                    self.workflow["task_list"][order][key] = value.clone();
                }
            }
            self.project
                .write("workflow.json", self.workflow.to_string());
            let work_dir = format!("work{index}");
            let arguments = self.arguments(job, &dataset, &work_dir);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let before = self.project.tree();
            let mut command = self.project.command(&arguments);
            change(&mut command);
            let ended = finish_within(command, TIMEOUT);
            let trees = [before, self.project.tree()];
            let result = format!("{work_dir}/dataset.json");
            if self.project.path(&result).exists() {
                dataset = result;
            }
            ends.push(JobEnd {
                ended,
                work_dir,
                trees,
            });
        }
        ends
    }

    fn arguments(&self, job: &Value, dataset: &str, work_dir: &str) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", "workflow.json", "--dataset", dataset]
            .into_iter()
            .chain(["--work-dir", work_dir, "--task-files", "all"])
            .chain(["--jobs", "4", "--progress", "never"])
            .map(str::to_owned)
            .collect();
        for folder in &self.packages {
            arguments.extend(["--tasks".to_owned(), folder.clone()]);
        }
        if self.form == Form::Full {
            // The document goes to a file as well.
            arguments.push(format!("--result={work_dir}-result.json"));
        }
        for (option, key) in [
            ("--first-task", "first_task_index"),
            ("--last-task", "last_task_index"),
        ] {
            if let Some(index) = job[key].as_i64() {
                arguments.push(format!("{option}={index}"));
            }
        }
        for (key, value) in job["type_filters"].as_object().into_iter().flatten() {
            arguments.extend(["--type-filter".to_owned(), format!("{key}={value}")]);
        }
        for (key, values) in job["attribute_filters"].as_object().into_iter().flatten() {
            arguments.extend(self.attribute_filter(key, values.as_array().expect("a list")));
        }
        arguments.extend(self.local_config(job));
        arguments
    }

    fn attribute_filter(&self, key: &str, values: &[Value]) -> [String; 2] {
        let statuses: Option<Vec<_>> = values
            .iter()
            .map(|value| value.as_str().filter(|status| STATUSES.contains(status)))
            .collect();
        if key == STATUS_KEY
            && let Some(statuses) = statuses
        {
            return ["--status-filter".to_owned(), statuses.join(",")];
        }
        let simple: Option<Vec<_>> = values.iter().map(simple_text).collect();
        let values = match simple {
            Some(simple) if !simple.is_empty() && self.is_odd => simple.join(","),
            _ => Value::Array(values.to_vec()).to_string(),
        };
        ["--attribute-filter".to_owned(), format!("{key}={values}")]
    }

    /// Writes the configuration of the local backend, if the case has one.
    fn local_config(&self, job: &Value) -> Vec<String> {
        let mut config = json!({});
        for part in [&self.jobs["resource"], &job["resource"]] {
            for (key, value) in part.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
        }
        if config == json!({}) {
            return Vec::new();
        }
        self.project.write("local_config.json", config.to_string());
        ["--local-config", "local_config.json"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// A value of a filter as it can be given without quotes: text that is no JSON, or JSON, both
/// without a comma.
fn simple_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) if serde_json::from_str::<Value>(text).is_err() => text.clone(),
        Value::String(_) => return None,
        other => other.to_string(),
    };
    let is_simple = !text.is_empty() && !text.contains([',', '[']);
    is_simple.then_some(text)
}

fn manifests(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| name.starts_with("manifest")).collect();
    names.sort();
    names
}

/// The package of a file `manifest.json`, `manifest-VERSION.json` or `manifest-NAME@VERSION.json`.
fn name_and_version(file: &str) -> (&str, &str) {
    let stem = file.strip_suffix(".json").expect("a document");
    match stem.strip_prefix("manifest-") {
        None => (NAME, "1.0.0"),
        Some(given) => given.split_once('@').unwrap_or((NAME, given)),
    }
}
