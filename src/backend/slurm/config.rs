//! Configuration of the SLURM backend: Fractal's JSON file, with Fractal's keys.
//!
//! Settings of a job come from `default_slurm_config`, then `gpu_slurm_config` for a task that
//! needs a GPU, then the task's own meta; the later one counts.

use std::path::Path;

use super::batching::BatchingConfig;
use super::config_values::{
    check_nodes, read_count, read_lines, read_mem, read_text, read_text_or_count, read_time,
};
use crate::json::{DuplicateKeys, Value, parse_json};
use crate::model::RequestedResource;
use crate::problem::{Cursor, Location, Problems};
use crate::text::unreadable;
use crate::text::wording::did_you_mean;

/// Keys of the file.
const KEYS: [&str; 4] = [
    "default_slurm_config",
    "gpu_slurm_config",
    "batching_config",
    "user_local_exports",
];
/// Keys of the settings of a job.
const JOB_KEYS: [&str; 14] = [
    "partition",
    "cpus_per_task",
    "mem",
    "constraint",
    "gres",
    "gpus",
    "time",
    "exclude",
    "nodelist",
    "nodes",
    "account",
    "extra_lines",
    "shebang_line",
    "use_mem_per_cpu",
];
/// Keys of `batching_config`; all are required.
const BATCHING_KEYS: [&str; 6] = [
    "target_cpus_per_job",
    "max_cpus_per_job",
    "target_mem_per_job",
    "max_mem_per_job",
    "target_num_jobs",
    "max_num_jobs",
];
/// Keys of the settings of a job that a task's meta may have.
const META_KEYS: [&str; 10] = [
    "cpus_per_task",
    "mem",
    "time",
    "gres",
    "gpus",
    "constraint",
    "nodelist",
    "nodes",
    "exclude",
    "extra_lines",
];
/// Options that `extra_lines` of a task's meta may have. Others can change where a job writes, or
/// what it runs.
const META_OPTIONS: [&str; 20] = [
    "begin",
    "comment",
    "contiguous",
    "cores-per-socket",
    "deadline",
    "exclusive",
    "gpus-per-node",
    "gpu-bind",
    "gpu-freq",
    "hint",
    "licenses",
    "mincpus",
    "nice",
    "qos",
    "reservation",
    "sockets-per-node",
    "switches",
    "threads-per-core",
    "tmp",
    "wckey",
];
/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Settings of the jobs of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobSettings {
    pub(super) partition: Option<String>,
    /// CPUs of a call.
    pub(super) cpus_per_task: Option<u64>,
    /// Memory of a call in MB.
    pub(super) mem_mb: Option<u64>,
    pub(super) constraint: Option<String>,
    pub(super) gres: Option<String>,
    pub(super) gpus: Option<String>,
    /// Time limit of a call in seconds.
    pub(super) time_s: Option<u64>,
    /// Nodes that jobs must not run on.
    pub(super) exclude: Option<String>,
    pub(super) nodelist: Option<String>,
    pub(super) account: Option<String>,
    /// Lines of the script: options of `sbatch`, and commands before the worker.
    pub(super) extra_lines: Vec<String>,
    pub(super) shebang_line: String,
    /// True to request the memory of a job by CPU.
    pub(super) use_mem_per_cpu: bool,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            partition: None,
            cpus_per_task: None,
            mem_mb: None,
            constraint: None,
            gres: None,
            gpus: None,
            time_s: None,
            exclude: None,
            nodelist: None,
            account: None,
            extra_lines: Vec::new(),
            shebang_line: "#!/bin/sh".to_owned(),
            use_mem_per_cpu: false,
        }
    }
}

impl JobSettings {
    /// CPUs of a call, at least 1.
    pub(super) fn cpus(&self) -> u64 {
        self.cpus_per_task.unwrap_or(1).max(1)
    }

    /// Reads one key. Returns false if it is none of [`JOB_KEYS`].
    fn set(&mut self, key: &str, value: &Cursor<'_>, problems: &mut Problems) -> bool {
        match key {
            "partition" => self.partition = read_text(value, problems),
            "cpus_per_task" => self.cpus_per_task = read_count(value, problems),
            "mem" => self.mem_mb = read_mem(value, problems),
            "constraint" => self.constraint = read_text(value, problems),
            "gres" => self.gres = read_text(value, problems),
            "gpus" => self.gpus = read_text_or_count(value, problems),
            "time" => self.time_s = read_time(value, problems),
            "exclude" => self.exclude = read_text(value, problems),
            "nodelist" => self.nodelist = read_text(value, problems),
            "nodes" => check_nodes(value, problems),
            "account" => self.account = read_text(value, problems),
            "extra_lines" => {
                for line in read_lines(value, problems) {
                    if !self.extra_lines.contains(&line) {
                        self.extra_lines.push(line);
                    }
                }
            }
            "shebang_line" => self.set_shebang(value, problems),
            "use_mem_per_cpu" => match value.value.as_bool() {
                Some(is_per_cpu) => self.use_mem_per_cpu = is_per_cpu,
                None => value.wrong_type("a boolean", problems),
            },
            _ => return false,
        }
        true
    }

    fn set_shebang(&mut self, value: &Cursor<'_>, problems: &mut Problems) {
        match read_text(value, problems) {
            Some(line) if line.starts_with("#!/") => self.shebang_line = line,
            Some(_) => problems.add(
                value.location(),
                "must begin with `#!/`, as `#!/bin/sh` does",
            ),
            None => {}
        }
    }
}

/// Settings of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlurmConfig {
    default: JobSettings,
    /// Values of `gpu_slurm_config`, and the file with them.
    gpu: Option<(std::path::PathBuf, Value)>,
    pub(super) batching: BatchingConfig,
}

impl Default for SlurmConfig {
    /// Settings without a file: the partition, the memory and the time limit of jobs are those of
    /// the cluster, and a job has 1 to 16 CPUs.
    fn default() -> Self {
        Self {
            default: JobSettings::default(),
            gpu: None,
            batching: BatchingConfig {
                target_cpus_per_job: 4,
                max_cpus_per_job: 16,
                target_mem_per_job: 16_000,
                max_mem_per_job: 64_000,
                target_num_jobs: 50,
                max_num_jobs: 200,
            },
        }
    }
}

impl SlurmConfig {
    /// Reads the configuration of Fractal's SLURM backend.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(path, problems))
    }

    /// Reads the configuration; see [`Self::read`].
    pub(crate) fn read_into(path: &Path, problems: &mut Problems) -> Option<Self> {
        let value = read_json(path, problems)?;
        Self::from_value(path, &value, problems)
    }

    fn from_value(path: &Path, value: &Value, problems: &mut Problems) -> Option<Self> {
        let document = Cursor::new(path, value);
        refuse_unknown(&document, &KEYS, problems)?;
        let mut default = JobSettings::default();
        if let Some(settings) = document.require("default_slurm_config", problems) {
            read_settings(&settings, &mut default, problems);
            for key in ["partition", "cpus_per_task", "mem"] {
                settings.require(key, problems);
            }
        }
        let gpu = document.get_not_null("gpu_slurm_config");
        if let Some(gpu) = &gpu {
            read_settings(gpu, &mut default.clone(), problems);
        }
        let batching = document.require("batching_config", problems);
        let batching = batching.and_then(|batching| read_batching(&batching, problems));
        if let Some(exports) = document.get_not_null("user_local_exports")
            && exports.object(problems).is_some_and(|map| !map.is_empty())
        {
            let text = "has no effect: tasks in the sandbox do not see the variables of the job";
            problems.warn(exports.location(), text);
        }
        Some(Self {
            default,
            gpu: gpu.map(|gpu| (path.to_owned(), gpu.value.clone())),
            batching: batching?,
        })
    }

    /// Returns the settings of the jobs of a task. Problems of its meta go to `problems`.
    pub(super) fn for_task(
        &self,
        resources: &[RequestedResource],
        problems: &mut Problems,
    ) -> TaskSettings {
        let mut job = self.default.clone();
        let needs_gpu = |resource: &RequestedResource| {
            resource.key == "needs_gpu" && resource.value == Value::Bool(true)
        };
        if let Some((file, gpu)) = &self.gpu
            && resources.iter().any(needs_gpu)
        {
            let pointer = "/gpu_slurm_config".to_owned();
            read_settings(&Cursor::at(file, pointer, gpu), &mut job, problems);
        }
        let mut settings = TaskSettings {
            job,
            tasks_per_job: None,
            parallel_tasks_per_job: None,
        };
        for resource in resources {
            let pointer = resource.pointer.clone();
            let value = Cursor::at(&resource.file, pointer, &resource.value);
            settings.set(&resource.key, &value, problems);
        }
        settings
    }
}

/// Settings of the jobs of a task, and the shape that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskSettings {
    pub(super) job: JobSettings,
    pub(super) tasks_per_job: Option<u64>,
    pub(super) parallel_tasks_per_job: Option<u64>,
}

impl TaskSettings {
    /// Reads a key of the task's meta. Keys that are not about jobs are ignored, as in Fractal.
    fn set(&mut self, key: &str, value: &Cursor<'_>, problems: &mut Problems) {
        if value.value.is_null() {
            return;
        }
        match key {
            "account" => problems.add(
                value.location(),
                "a task cannot choose the account; remove the key, or set it in \
                 `default_slurm_config`",
            ),
            "tasks_per_job" => self.tasks_per_job = read_count(value, problems),
            "parallel_tasks_per_job" => self.parallel_tasks_per_job = read_count(value, problems),
            "extra_lines" => {
                check_meta_lines(value, problems);
                self.job.set(key, value, problems);
            }
            _ if META_KEYS.contains(&key) => {
                self.job.set(key, value, problems);
            }
            _ => {}
        }
    }
}

/// Refuses lines of a document that do more than to choose resources: they would run outside the
/// sandbox.
fn check_meta_lines(value: &Cursor<'_>, problems: &mut Problems) {
    let is_allowed = |line: &str| {
        let option = line.strip_prefix("#SBATCH --")?;
        let end = option.find(|c: char| c != '-' && !c.is_ascii_alphanumeric());
        let name = &option[..end.unwrap_or(option.len())];
        let rest = &option[name.len()..];
        // One option in a line, without a comment or a quote.
        let is_one =
            rest.is_empty() || rest.starts_with('=') && !rest.contains([' ', '\t', '"', '\'']);
        (META_OPTIONS.contains(&name) && is_one).then_some(())
    };
    for line in value.value.as_array().into_iter().flatten() {
        if let Value::String(line) = line
            && is_allowed(line).is_none()
        {
            let text = format!(
                "a task may only add lines of the form `#SBATCH --OPTION=VALUE` with one of the \
                 options {}; move `{line}` to `default_slurm_config`",
                META_OPTIONS.join(", ")
            );
            problems.add(value.location(), text);
        }
    }
}

fn read_json(path: &Path, problems: &mut Problems) -> Option<Value> {
    let location = || Location::File(path.to_owned());
    let too_large = path
        .metadata()
        .is_ok_and(|metadata| metadata.len() > MAX_FILE_BYTES);
    if too_large {
        problems.add(location(), "is larger than 1 MiB");
        return None;
    }
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(err) => {
            problems.add(location(), unreadable(&err));
            return None;
        }
    };
    match parse_json(&text, DuplicateKeys::Refuse) {
        Ok(value) => Some(value),
        Err(err) => {
            problems.add(location(), format!("is not valid JSON: {err}"));
            None
        }
    }
}

fn refuse_unknown(object: &Cursor<'_>, known: &[&str], problems: &mut Problems) -> Option<()> {
    for key in object.object(problems)?.keys() {
        if !known.contains(&key.as_str()) {
            let meant = did_you_mean(key, known.iter().copied());
            let text = format!(
                "unknown key; the known keys are {}{meant}",
                known.join(", ")
            );
            problems.add(object.location_of(key), text);
        }
    }
    Some(())
}

fn read_settings(object: &Cursor<'_>, settings: &mut JobSettings, problems: &mut Problems) {
    if refuse_unknown(object, &JOB_KEYS, problems).is_none() {
        return;
    }
    for key in JOB_KEYS {
        if let Some(value) = object.get_not_null(key) {
            settings.set(key, &value, problems);
        }
    }
}

fn read_batching(object: &Cursor<'_>, problems: &mut Problems) -> Option<BatchingConfig> {
    refuse_unknown(object, &BATCHING_KEYS, problems)?;
    let mut counts = [None; BATCHING_KEYS.len()];
    for (count, key) in counts.iter_mut().zip(BATCHING_KEYS) {
        let value = object.require(key, problems);
        *count = value.and_then(|value| match key {
            "target_mem_per_job" | "max_mem_per_job" => read_mem(&value, problems),
            _ => read_count(&value, problems),
        });
    }
    for (target, max) in [(0, 1), (2, 3), (4, 5)] {
        if let (Some(lower), Some(upper)) = (counts[target], counts[max])
            && lower > upper
        {
            let text = format!("must not exceed `{}` {upper}", BATCHING_KEYS[max]);
            problems.add(object.location_of(BATCHING_KEYS[target]), text);
        }
    }
    let [
        target_cpus_per_job,
        max_cpus_per_job,
        target_mem_per_job,
        max_mem_per_job,
        target_num_jobs,
        max_num_jobs,
    ] = counts;
    Some(BatchingConfig {
        target_cpus_per_job: target_cpus_per_job?,
        max_cpus_per_job: max_cpus_per_job?,
        target_mem_per_job: target_mem_per_job?,
        max_mem_per_job: max_mem_per_job?,
        target_num_jobs: target_num_jobs?,
        max_num_jobs: max_num_jobs?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({
            "default_slurm_config": {
                "partition": "main", "cpus_per_task": 1, "mem": "100M", "time": "10",
                "extra_lines": ["#SBATCH --qos=long"]
            },
            "gpu_slurm_config": { "partition": "gpu", "gpus": 1, "extra_lines": ["module load cuda"] },
            "batching_config": {
                "target_cpus_per_job": 4, "max_cpus_per_job": 16,
                "target_mem_per_job": 10000, "max_mem_per_job": "32G",
                "target_num_jobs": 100, "max_num_jobs": 1000
            }
        })
    }

    fn read(value: &Value) -> Result<SlurmConfig, Problems> {
        Problems::or_value(|problems| {
            SlurmConfig::from_value(Path::new("slurm.json"), value, problems)
        })
    }

    fn for_task(meta: Value) -> Result<TaskSettings, String> {
        let config = read(&config()).expect("a configuration");
        let resources: Vec<_> = meta
            .as_object()
            .expect("an object")
            .iter()
            .map(|(key, value)| RequestedResource {
                key: key.clone(),
                value: value.clone(),
                file: "workflow.json".into(),
                pointer: format!("/task_list/0/meta/{key}"),
            })
            .collect();
        let mut problems = Problems::default();
        let settings = config.for_task(&resources, &mut problems);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems.to_string())
        }
    }

    #[test]
    fn the_later_of_default_gpu_and_meta_counts() {
        let settings = for_task(json!({})).expect("settings").job;
        assert_eq!(settings.partition.as_deref(), Some("main"));
        assert_eq!(
            (settings.cpus(), settings.mem_mb, settings.time_s),
            (1, Some(100), Some(600))
        );
        let settings = for_task(json!({ "needs_gpu": true }))
            .expect("settings")
            .job;
        assert_eq!(settings.partition.as_deref(), Some("gpu"));
        assert_eq!(settings.gpus.as_deref(), Some("1"));
        assert_eq!(
            settings.extra_lines,
            ["#SBATCH --qos=long", "module load cuda"]
        );
        let meta = json!({
            "needs_gpu": false, "cpus_per_task": "4", "mem": "3G", "time": "1-12", "gres": "gpu:1",
            "extra_lines": ["#SBATCH --qos=long", "#SBATCH --exclusive"], "partition": "ignored",
            "mandelbox": {}, "tasks_per_job": 5, "parallel_tasks_per_job": 2, "constraint": null
        });
        let settings = for_task(meta).expect("settings");
        assert_eq!(
            settings.tasks_per_job.zip(settings.parallel_tasks_per_job),
            Some((5, 2))
        );
        let job = settings.job;
        assert_eq!(
            (job.cpus(), job.mem_mb, job.time_s),
            (4, Some(3000), Some(129_600))
        );
        assert_eq!(job.partition.as_deref(), Some("main"));
        assert_eq!(
            job.extra_lines,
            ["#SBATCH --qos=long", "#SBATCH --exclusive"]
        );
    }

    #[test]
    fn a_document_cannot_choose_what_a_job_runs() {
        for (meta, expected) in [
            (
                json!({ "account": "lab" }),
                "/task_list/0/meta/account: a task cannot choose",
            ),
            (
                json!({ "extra_lines": ["curl x | sh"] }),
                "move `curl x | sh`",
            ),
            (
                json!({ "extra_lines": ["#SBATCH --output=/home/x"] }),
                "a task may only add",
            ),
            (
                json!({ "extra_lines": ["#SBATCH --qos=a --wrap=b"] }),
                "a task may only add",
            ),
            (
                json!({ "extra_lines": ["#SBATCH --qos=a\nid"] }),
                "control characters",
            ),
            (json!({ "constraint": "a\nid" }), "control characters"),
            (json!({ "nodes": 2 }), "must be 1"),
            (json!({ "mem": "1.5G" }), "must be a size in MB"),
            (json!({ "time": "soon" }), "must be a time of SLURM"),
            (json!({ "cpus_per_task": 0 }), "must be a whole number"),
        ] {
            let message = for_task(meta).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn problems_of_the_file_have_their_locations() {
        let mut wrong = config();
        wrong["extra"] = json!(1);
        wrong["default_slurm_config"]["partitoin"] = json!("x");
        wrong["default_slurm_config"]["shebang_line"] = json!("bash");
        wrong["batching_config"]["max_num_jobs"] = json!(10);
        let problems = read(&wrong).expect_err("problems").to_string();
        for expected in [
            "slurm.json: /extra: unknown key",
            "/default_slurm_config/partitoin: unknown key",
            "/default_slurm_config/shebang_line: must begin with `#!/`",
            "/batching_config/target_num_jobs: must not exceed `max_num_jobs` 10",
        ] {
            assert!(problems.contains(expected), "{problems}");
        }
        for key in ["default_slurm_config", "batching_config"] {
            let mut missing = config();
            missing
                .as_object_mut()
                .expect("an object")
                .shift_remove(key);
            let problems = read(&missing).expect_err("a problem").to_string();
            assert!(
                problems.contains(&format!("missing key `{key}`")),
                "{problems}"
            );
        }
    }
}
