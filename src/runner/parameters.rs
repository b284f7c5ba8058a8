//! The state that goes from task to task, and what of it a call gets.

use std::path::PathBuf;

use crate::json::{Map, Value, build_json};
use crate::workflow::PlannedTask;

/// What a task gets and gives on.
///
/// Source: fractal-server 2.9.2, `TaskParameters`.
#[derive(Clone, Debug)]
pub struct TaskParameters {
    /// Given for the first task; the output path for every later one.
    pub input_paths: Vec<PathBuf>,
    /// The same for every task.
    pub output_path: PathBuf,
    /// Changed by every task that ends well.
    pub metadata: Map<String, Value>,
    /// One item more for every task that ends well.
    pub history: Vec<Value>,
}

/// Names of tasks whose component calls get the `image` list all the same.
pub const DEFAULT_TASKS_INCLUDE_IMAGE: [&str; 2] =
    ["Copy OME-Zarr structure", "Convert Metadata Components from 2D to 3D"];

/// The key that component calls do not get, since it is long and of no use to them.
const IMAGE: &str = "image";
/// Indentation of args.json, as Fractal's.
const ARGS_INDENT: usize = 4;

/// What a task may see of the metadata.
pub(super) fn visible_metadata<'a>(
    task: &'a PlannedTask,
    parameters: &'a TaskParameters,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let is_visible = |key: &String| task.metadata_keys.as_ref().is_none_or(|keys| keys.contains(key));
    parameters.metadata.iter().filter(move |(key, _)| is_visible(key))
}

/// The parameters of one task's calls as text: what all calls share, made once.
#[derive(Clone, Debug)]
pub(super) struct ArgsText {
    shared: Vec<u8>,
}

impl ArgsText {
    /// * `include_image`: names of tasks whose component calls get `metadata["image"]`.
    pub(super) fn new(task: &PlannedTask, parameters: &TaskParameters, include_image: &[String]) -> Self {
        let is_parallel = task.parallelization_level.is_some();
        let trims_image = is_parallel && !include_image.contains(&task.name);
        let is_in_args = |key: &String| match &task.metadata_keys {
            _ if !task.metadata_in_args => false,
            Some(_) => true,
            None => !(trims_image && key == IMAGE),
        };
        let metadata: Map<_, _> = visible_metadata(task, parameters)
            .filter(|(key, _)| is_in_args(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let path = |path: &PathBuf| Value::from(path.to_string_lossy());
        let mut args = Map::new();
        args.insert("input_paths".to_owned(), parameters.input_paths.iter().map(path).collect());
        args.insert("output_path".to_owned(), path(&parameters.output_path));
        args.insert("metadata".to_owned(), Value::Object(metadata));
        args.extend(task.args.clone());
        if is_parallel {
            args.shift_remove("component");
        }
        Self { shared: build_json(&args, ARGS_INDENT) }
    }

    /// The args without a component.
    pub(super) fn shared(&self) -> &[u8] {
        &self.shared
    }

    /// The whole of args.json for a component, or for a single task.
    pub(super) fn for_component(&self, component: Option<&Value>) -> Vec<u8> {
        let Some(component) = component else { return self.shared.clone() };
        let open = self.shared.strip_suffix(b"\n}").expect("the object has its three keys at least");
        let value = build_json(component, ARGS_INDENT);
        let mut text = Vec::with_capacity(open.len() + value.len() + 24);
        text.extend_from_slice(open);
        text.extend_from_slice(b",\n    \"component\": ");
        text.extend_from_slice(&value);
        text.extend_from_slice(b"\n}");
        text
    }
}
