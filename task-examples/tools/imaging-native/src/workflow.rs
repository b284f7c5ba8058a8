//! Runs the package's workflow as Fractal does, with one call at a time in this process.

use fractal_task::{Call, TaskError, Version};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs all tasks of a workflow in Fractal's exported form, whose manifest lies beside it.
///
/// # Errors
/// If a document cannot be read or lacks what is needed, or a call fails.
pub(crate) fn run(workflow: &Path, input: &Path, output: &Path) -> Result<(), TaskError> {
    let document = read_json(workflow)?;
    let manifest_path = workflow.with_file_name("__FRACTAL_MANIFEST__.json");
    let manifest = read_json(&manifest_path)?;
    let scratch = Scratch::make()?;
    let mut metadata = Map::new();
    let mut input = input;
    for (index, entry) in document["task_list"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let source = entry["task"]["source"].as_str().unwrap_or_default();
        let task = manifest["task_list"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|task| is_source(source, task));
        let task = task.ok_or_else(|| {
            TaskError::about(
                "cannot use",
                workflow,
                format!("{source:?} is not in the manifest"),
            )
        })?;
        let command = task["executable"]
            .as_str()
            .and_then(|executable| executable.split_once(' '))
            .map(|(_, name)| name);
        let command = command.ok_or_else(|| {
            TaskError::about(
                "cannot use",
                &manifest_path,
                "an executable has no fixed argument",
            )
        })?;
        let mut args = json!({"input_paths": [input], "output_path": output, "metadata": metadata});
        merge(&mut args, &entry["args"]);
        match task["meta"]["parallelization_level"].as_str() {
            None => metadata.extend(call(&scratch, command, &args)?),
            Some(level) => {
                let components = metadata
                    .get(level)
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                let mut metadiffs = Vec::with_capacity(components.len());
                for component in components {
                    args["component"] = component;
                    metadiffs.push(call(&scratch, command, &args)?);
                }
                aggregate(&mut metadata, metadiffs);
            }
        }
        eprintln!("{index} {command}");
        input = output;
    }
    Ok(())
}

/// Whether `imaging:create_ome-zarr_plate` is the task "Create OME-Zarr plate".
fn is_source(source: &str, task: &Value) -> bool {
    let name = source.rsplit(':').next().unwrap_or_default();
    task["name"]
        .as_str()
        .is_some_and(|known| known.to_lowercase().replace(' ', "_") == name)
}

fn call(scratch: &Scratch, command: &str, args: &Value) -> Result<Map<String, Value>, TaskError> {
    let (args_file, metadiff_file) = (scratch.0.join("args.json"), scratch.0.join("metadiff.json"));
    fs::write(&args_file, args.to_string())
        .map_err(|err| TaskError::about("cannot write", &args_file, err))?;
    imaging::tasks::call(&Call {
        version: Version::V1,
        args_file,
        metadiff_file: metadiff_file.clone(),
        fixed_args: vec![command.into()],
    })?;
    match read_json(&metadiff_file)? {
        Value::Object(metadiff) => Ok(metadiff),
        _ => Err(TaskError::about(
            "cannot use",
            &metadiff_file,
            "a metadiff is an object",
        )),
    }
}

fn merge(args: &mut Value, others: &Value) {
    for (key, value) in others.as_object().into_iter().flatten() {
        args[key] = value.clone();
    }
}

/// Each key of the metadiffs becomes the list of its values.
fn aggregate(metadata: &mut Map<String, Value>, metadiffs: Vec<Map<String, Value>>) {
    let mut lists: Map<String, Value> = Map::new();
    for (key, value) in metadiffs.into_iter().flatten() {
        if let Value::Array(list) = lists.entry(key).or_insert_with(|| json!([])) {
            list.push(value);
        }
    }
    metadata.extend(lists);
}

fn read_json(path: &Path) -> Result<Value, TaskError> {
    let text = fs::read(path).map_err(|err| TaskError::about("cannot read", path, err))?;
    serde_json::from_slice(&text).map_err(|err| TaskError::about("cannot read", path, err))
}

/// A folder for the args and metadiffs, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, TaskError> {
        let folder = std::env::temp_dir().join(format!("imaging-native-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .map_err(|err| TaskError::about("cannot make the folder", &folder, err))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is small and in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
