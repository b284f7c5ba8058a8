//! The arguments of calls as text.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::dataset::Dataset;
use super::task::TaskDetails;
use crate::json::{Value, build_json};

/// The key that calls of a component do not get, since it is long and useless to them.
const IMAGE: &str = "image";
/// Indentation of args.json, as in Fractal.
const ARGS_INDENT: usize = 4;

/// Returns the metadata that a task may see.
pub(super) fn visible_metadata<'a>(
    task: &'a TaskDetails,
    dataset: &'a Dataset,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let is_visible = |key: &String| match &task.metadata_keys {
        None => true,
        Some(keys) => keys.contains(key),
    };
    let entries = dataset.metadata.iter();
    entries.filter(move |(key, _)| is_visible(key))
}

/// An object with few keys, which borrows its values, since metadata can be large.
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
    /// Sets the value of a key, which keeps its position if it exists.
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

/// The parameters of one task's calls as text. The part that all calls share is built once.
#[derive(Clone, Debug)]
pub(super) struct ArgsText {
    shared: String,
}

impl ArgsText {
    /// Builds the text that all calls share.
    ///
    /// * `task_name`: calls of some tasks get `metadata["image"]`.
    pub(super) fn new(task_name: &str, task: &TaskDetails, dataset: &Dataset) -> Self {
        let is_parallel = task.level.is_some();
        let includes_image = dataset
            .tasks_include_image
            .iter()
            .any(|name| name == task_name);
        let trims_image = is_parallel && !includes_image;
        let is_in_args = |key: &String| match &task.metadata_keys {
            _ if !task.metadata_in_args => false,
            Some(_) => true,
            None => !(trims_image && key == IMAGE),
        };
        let metadata: Borrowed<'_> = visible_metadata(task, dataset)
            .filter(|(key, _)| is_in_args(key))
            .map(|(key, value)| (key.as_str(), Arg::Value(value)))
            .collect();
        let paths = dataset
            .input_paths
            .iter()
            .map(|path| path.to_string_lossy())
            .collect();
        let mut args: Borrowed<'_> = [
            ("input_paths", Arg::Paths(paths)),
            (
                "output_path",
                Arg::Path(dataset.output_path.to_string_lossy()),
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
            shared: json_text(&args),
        }
    }

    /// Returns the args without a component.
    pub(super) fn shared(&self) -> &str {
        &self.shared
    }

    /// Returns the whole args.json for a component, or for a single task.
    pub(super) fn for_component(&self, component: Option<&Value>) -> String {
        let Some(component) = component else {
            return self.shared.clone();
        };
        let open = self.shared.strip_suffix("\n}");
        let open = open.expect("the object has its three keys at least");
        let value = json_text(component);
        [open, ",\n    \"component\": ", &value, "\n}"].concat()
    }
}

fn json_text(value: &impl Serialize) -> String {
    String::from_utf8(build_json(value, ARGS_INDENT)).expect("JSON is UTF-8")
}
