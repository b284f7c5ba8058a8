//! The dataset of a run: the state that is passed from task to task.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::args_text::{ArgsText, visible_metadata};
use super::calls::{Components, TaskCalls};
use super::file_names::FileNames;
use super::history::{TaskRun, done_item, failed_item};
use super::metadata::{aggregate, update};
use super::task::{TaskDetails, component_list};
use crate::fractal::ItemFilter;
use crate::fractal::dialect::{
    BatchEnd, Calls, Dialect, Preview, RECORD_INDENT, Record, Step, TaskEnd, TaskProblem, TaskTimes,
};
use crate::json::{Map, Value, write_json};
use crate::model::record_names::{HISTORY_FILE, METADATA_FILE, RESULT_FILE};
use crate::model::{ModuleKind, TaskMetadata, TaskSpec};

/// Names of tasks whose component calls get the `image` list nevertheless.
pub const DEFAULT_TASKS_INCLUDE_IMAGE: [&str; 2] = [
    "Copy OME-Zarr structure",
    "Convert Metadata Components from 2D to 3D",
];

/// The state of a dataset, and the tasks that change it.
///
/// Source: fractal-server 2.9.2, `TaskParameters`.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Input paths: the given ones for the first task, the output path for every later task.
    pub input_paths: Vec<PathBuf>,
    /// Output path of every task.
    pub output_path: PathBuf,
    /// Metadata, which every task that succeeds changes. Shared with calls while they run.
    pub metadata: Arc<Map<String, Value>>,
    /// History, with one more item for every task that ends.
    pub history: Vec<Value>,
    /// Names of tasks whose component calls get `metadata["image"]`.
    pub tasks_include_image: Vec<String>,
    /// Details of each task of the run, by its order.
    pub tasks: BTreeMap<u64, TaskDetails>,
    /// Components of a trial run.
    pub only: ItemFilter,
    /// The component of the only call, if a task is called just once, for a component.
    pub(crate) only_component: Option<Value>,
}

impl Dataset {
    /// Sets the only task, which is called once: for a component, or as a single task.
    #[cfg(feature = "cli")]
    pub(crate) fn set_only_call(
        &mut self,
        order: u64,
        mut details: TaskDetails,
        component: Option<Value>,
    ) {
        /// Name of the component's list, which makes no difference to the call.
        const LEVEL: &str = "component";
        details.level = component.as_ref().map(|_| LEVEL.to_owned());
        self.tasks.insert(order, details);
        self.only_component = component;
    }

    /// Returns the metadata that contains the component lists.
    fn lists(&self, level: &str) -> Arc<Map<String, Value>> {
        match &self.only_component {
            None if self.only.is_empty() => Arc::clone(&self.metadata),
            // What is no list is reported when the task starts.
            None => match component_list(&self.metadata, level) {
                Err(_) => Arc::clone(&self.metadata),
                Ok(components) => {
                    let selected = components
                        .iter()
                        .filter(|component| self.only.matches_value(component));
                    of_one_list(level, selected.cloned().collect())
                }
            },
            Some(component) => of_one_list(level, vec![component.clone()]),
        }
    }

    fn start(&self, task: &TaskSpec, has_files: bool) -> Result<Step, TaskProblem> {
        let details = self.details(task);
        let level = details.level.clone();
        let components = level.clone().map(|level| Components {
            metadata: self.lists(&level),
            level,
        });
        let list = match &components {
            None => None,
            Some(Components { metadata, level }) => {
                Some(component_list(metadata, level).map_err(TaskProblem::of_job)?)
            }
        };
        // Finding names that two components share takes as long as many short calls.
        let names = FileNames::new(task.order, list.filter(|_| has_files));
        let calls = TaskCalls {
            components,
            args: ArgsText::new(&task.name, details, self),
            names,
        };
        let metadata = match task.kind {
            ModuleKind::Typed => TaskMetadata::new(visible_metadata(details, self)),
            _ => TaskMetadata::default(),
        };
        Ok(Step::Calls(Calls {
            list: Arc::new(calls),
            items: level,
            metadata,
        }))
    }

    fn finish(&mut self, task: &TaskSpec, ended: BatchEnd) -> Step {
        let details = self.details(task);
        let level = details.level.as_deref();
        let lists = level.map(|level| self.lists(level));
        let list = lists
            .as_ref()
            .zip(level)
            .and_then(|(lists, level)| component_list(lists, level).ok());
        let run = TaskRun {
            details,
            module_sha256: &task.module.sha256,
            times: ended.times,
            n_components: list.map_or(0, <[_]>::len),
            only: &self.only,
        };
        let item = done_item(run, list);
        // The metadata is changed below, and must not be copied.
        drop(lists);
        let is_single = level.is_none();
        let (metadiff, note) = if is_single {
            let metadiff = ended
                .outputs
                .into_iter()
                .next()
                .map(|(_, metadiff)| metadiff);
            let note = metadiff.is_none().then(|| {
                "Skip collection of updated metadata. Original error: the task wrote none"
                    .to_owned()
            });
            (metadiff.unwrap_or_default(), note)
        } else {
            let metadiff = aggregate(ended.outputs);
            let keys: Vec<_> = metadiff.keys().map(|key| format!("'{key}'")).collect();
            let note = (!keys.is_empty()).then(|| {
                let keys = keys.join(", ");
                format!("Aggregating parallel-taks updated metadata (with keys [{keys}]).")
            });
            (metadiff, note)
        };
        self.history.push(item);
        update(Arc::make_mut(&mut self.metadata), metadiff);
        self.input_paths = vec![self.output_path.clone()];
        Step::Done(TaskEnd {
            note,
            ..TaskEnd::default()
        })
    }

    fn details(&self, task: &TaskSpec) -> &TaskDetails {
        self.tasks
            .get(&task.order)
            .expect("each task of the run has details")
    }
}

/// Returns metadata that contains one list only.
fn of_one_list(level: &str, list: Vec<Value>) -> Arc<Map<String, Value>> {
    Arc::new(Map::from_iter([(level.to_owned(), Value::Array(list))]))
}

impl Dialect for Dataset {
    fn item_kind(&self) -> &'static str {
        "component"
    }

    fn preview(&self, task: &TaskSpec) -> Preview {
        let details = self.details(task);
        let is_first = self.tasks.keys().next() == Some(&task.order);
        let level = details.level.as_deref();
        let list = level
            .filter(|_| is_first)
            .map(|level| component_list(&self.metadata, level));
        let calls = match (level, &list) {
            (None, _) => "1".to_owned(),
            (Some(level), Some(Ok(list))) => {
                format!(
                    "{}, one for each entry of metadata[\"{level}\"]",
                    list.len()
                )
            }
            (Some(level), _) => {
                format!("one for each entry of metadata[\"{level}\"] at that time")
            }
        };
        let n_calls = match (level, list) {
            (None, _) => Some(1),
            (Some(_), Some(Ok(list))) => Some(list.len()),
            (Some(_), _) => None,
        };
        Preview {
            calls,
            n_calls,
            args: details.args.clone(),
        }
    }

    fn next(
        &mut self,
        task: &TaskSpec,
        ended: Option<BatchEnd>,
        has_files: bool,
    ) -> Result<Step, TaskProblem> {
        match ended {
            None => self.start(task, has_files),
            Some(ended) => Ok(self.finish(task, ended)),
        }
    }

    fn fail(&mut self, task: &TaskSpec, times: TaskTimes, n_items: usize) {
        let item = failed_item(TaskRun {
            details: self.details(task),
            module_sha256: &task.module.sha256,
            times,
            n_components: n_items,
            only: &self.only,
        });
        self.history.push(item);
    }

    fn records(&self) -> Vec<Record<'_>> {
        vec![
            Record {
                name: METADATA_FILE,
                write: Box::new(|file| write_json(file, &*self.metadata, RECORD_INDENT)),
            },
            Record {
                name: HISTORY_FILE,
                write: Box::new(|file| write_json(file, &self.history, RECORD_INDENT)),
            },
        ]
    }

    fn result(&self) -> Record<'_> {
        #[derive(serde::Serialize)]
        struct RunResult<'a> {
            metadata: &'a Map<String, Value>,
            history: &'a [Value],
        }
        Record {
            name: RESULT_FILE,
            write: Box::new(|file| {
                let result = RunResult {
                    metadata: &self.metadata,
                    history: &self.history,
                };
                write_json(file, &result, RECORD_INDENT)
            }),
        }
    }

    fn into_result(self: Box<Self>) -> Map<String, Value> {
        let metadata = Arc::unwrap_or_clone(self.metadata);
        let entries = [
            ("metadata".to_owned(), Value::Object(metadata)),
            ("history".to_owned(), Value::Array(self.history)),
        ];
        entries.into_iter().collect()
    }
}
