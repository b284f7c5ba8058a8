//! The state that goes from task to task, and what of it a call gets.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::json::{Map, Value, build_json};
use crate::plan::PlannedTask;

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
pub const DEFAULT_TASKS_INCLUDE_IMAGE: [&str; 2] = [
    "Copy OME-Zarr structure",
    "Convert Metadata Components from 2D to 3D",
];

/// The key that component calls do not get, since it is long and of no use to them.
const IMAGE: &str = "image";
/// Indentation of args.json, as Fractal's.
const ARGS_INDENT: usize = 4;

/// What a task may see of the metadata.
pub(crate) fn visible_metadata<'a>(
    task: &'a PlannedTask,
    parameters: &'a TaskParameters,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let is_visible = |key: &String| {
        task.metadata_keys
            .as_ref()
            .is_none_or(|keys| keys.contains(key))
    };
    parameters
        .metadata
        .iter()
        .filter(move |(key, _)| is_visible(key))
}

/// An object with few keys, whose values are not copied: metadata can be large.
struct Borrowed<'a>(Vec<(&'a str, Arg<'a>)>);

#[derive(Serialize)]
#[serde(untagged)]
enum Arg<'a> {
    Value(&'a Value),
    Paths(Vec<Cow<'a, str>>),
    Path(Cow<'a, str>),
    Metadata(Borrowed<'a>),
}

impl<'a> Borrowed<'a> {
    /// Gives a key another value, where it stands.
    fn set(&mut self, key: &'a str, value: Arg<'a>) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.0.push((key, value)),
        }
    }
}

impl<'a> FromIterator<(&'a str, Arg<'a>)> for Borrowed<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, Arg<'a>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// The parameters of one task's calls as text: what all calls share, made once.
#[derive(Clone, Debug)]
pub(crate) struct ArgsText {
    shared: Vec<u8>,
}

impl ArgsText {
    /// * `include_image`: names of tasks whose component calls get `metadata["image"]`.
    pub(crate) fn new(
        task: &PlannedTask,
        parameters: &TaskParameters,
        include_image: &[String],
    ) -> Self {
        let is_parallel = task.parallelization_level.is_some();
        let trims_image = is_parallel && !include_image.contains(&task.name);
        let is_in_args = |key: &String| match &task.metadata_keys {
            _ if !task.metadata_in_args => false,
            Some(_) => true,
            None => !(trims_image && key == IMAGE),
        };
        let metadata: Borrowed<'_> = visible_metadata(task, parameters)
            .filter(|(key, _)| is_in_args(key))
            .map(|(key, value)| (key.as_str(), Arg::Value(value)))
            .collect();
        let paths = parameters
            .input_paths
            .iter()
            .map(|path| path.to_string_lossy())
            .collect();
        let mut args: Borrowed<'_> = [
            ("input_paths", Arg::Paths(paths)),
            (
                "output_path",
                Arg::Path(parameters.output_path.to_string_lossy()),
            ),
            ("metadata", Arg::Metadata(metadata)),
        ]
        .into_iter()
        .collect();
        for (key, value) in &task.args {
            args.set(key, Arg::Value(value));
        }
        if is_parallel {
            args.0.retain(|(key, _)| *key != "component");
        }
        Self {
            shared: build_json(&args, ARGS_INDENT),
        }
    }

    /// The args without a component.
    pub(crate) fn shared(&self) -> &[u8] {
        &self.shared
    }

    /// The whole of args.json for a component, or for a single task.
    pub(crate) fn for_component(&self, component: Option<&Value>) -> Vec<u8> {
        let Some(component) = component else {
            return self.shared.clone();
        };
        let open = self
            .shared
            .strip_suffix(b"\n}")
            .expect("the object has its three keys at least");
        let value = build_json(component, ARGS_INDENT);
        let mut text = Vec::with_capacity(open.len() + value.len() + 24);
        text.extend_from_slice(open);
        text.extend_from_slice(b",\n    \"component\": ");
        text.extend_from_slice(&value);
        text.extend_from_slice(b"\n}");
        text
    }
}
