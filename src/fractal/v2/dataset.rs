//! The dataset of a run, and the tasks that change its images.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;

use super::calls::{CallKind, calls_of, single_args};
use super::dataset_document::{DatasetDocument, TrialRun};
use super::filters::Filters;
use super::image_list::{ImageList, Merge};
use super::output::{CallOutput, TaskOutput, parse_init_output};
use super::running::{Running, RunningBatch, note, some_of};
use super::status::{ImageStatus, Statuses};
use super::task::{TaskDetails, TaskType};
use crate::fractal::ItemFilter;
use crate::fractal::dialect::{
    BatchEnd, Dialect, Preview, RECORD_INDENT, Record, Step, TaskEnd, TaskProblem, TaskTimes,
};
use crate::json::{Map, Value, write_json};
use crate::model::record_names::{DATASET_FILE, RESULT_FILE, STATUS_FILE};
use crate::model::{ItemChanges, TaskSpec, WEAKENED};

/// A dataset, and the tasks that change it.
pub struct Dataset {
    pub(super) state: DatasetDocument,
    /// Filters of the run. Each task that succeeds adds its output types.
    pub(super) filters: Filters,
    pub(super) statuses: Statuses,
    /// Details of each task of the run, by its order.
    tasks: BTreeMap<u64, TaskDetails>,
    /// URLs of the images with an accepted status; `None` before the first task that gets images,
    /// and without a filter.
    pub(super) accepted: Option<HashSet<String>>,
    /// The task that runs.
    running: Option<Running>,
    /// Images of a trial run.
    pub(super) only: ItemFilter,
    /// Maximum number of images or items that a task is called for.
    max_items: usize,
    pub(super) n_available_images: usize,
}

impl Dataset {
    /// Creates the dataset of a run.
    ///
    /// * `filters`: the filters of the run.
    /// * `statuses`: those of earlier runs.
    /// * `tasks`: details of each task of the run, by its order.
    pub fn new(
        state: DatasetDocument,
        filters: Filters,
        statuses: Statuses,
        tasks: BTreeMap<u64, TaskDetails>,
    ) -> Self {
        Self {
            state,
            filters,
            statuses,
            tasks,
            accepted: None,
            running: None,
            only: ItemFilter::default(),
            max_items: usize::MAX,
            n_available_images: 0,
        }
    }

    /// Selects the images of a trial run.
    pub fn only(mut self, only: ItemFilter) -> Self {
        self.state.trial = (!only.is_empty()).then(|| TrialRun { only: only.globs() });
        self.only = only;
        self
    }

    /// Bounds the number of images or items that a task is called for.
    ///
    /// Source: conformance rule V93.
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.max_items = max_items;
        self
    }

    /// Returns the images as they are now.
    pub fn images(&self) -> &ImageList {
        &self.state.images
    }

    /// Returns the status of each image for each task.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    pub(super) fn details(&self, task: &TaskSpec) -> &TaskDetails {
        self.tasks
            .get(&task.order)
            .expect("each task of the run has details")
    }

    fn start(&mut self, task: &TaskSpec) -> Result<Step, TaskProblem> {
        let inputs = self.select(task)?;
        let details = self.details(task);
        let task_type = details.task_type;
        let batch = match task_type {
            TaskType::Parallel => RunningBatch::Images,
            _ if task_type.is_compound() => RunningBatch::Init,
            _ => RunningBatch::Single,
        };
        let calls = if task_type == TaskType::Parallel {
            let urls = inputs.iter().cloned().map(Value::String).collect();
            let args = Value::Object(details.args_parallel.clone());
            let kind = CallKind::Items {
                name: "image",
                items: urls,
            };
            calls_of(task, args.to_string(), kind)
        } else {
            let urls = (!task_type.is_converter()).then_some(inputs.as_slice());
            let args = single_args(&self.state.zarr_dir, &details.args_non_parallel, urls);
            let kind = CallKind::Single {
                inputs: inputs.clone(),
                is_init: task_type.is_compound(),
            };
            calls_of(task, args, kind)
        };
        // A task that cannot begin leaves the statuses alone.
        self.check_n_items(batch.n_calls(&inputs))?;
        self.running = Some(Running { inputs, batch });
        Ok(Step::Calls(calls))
    }

    /// Makes the second batch of a compound task from the output of the first.
    ///
    /// Source: conformance rules V38 to V40, defect W23.
    fn continue_compound(
        &mut self,
        task: &TaskSpec,
        output: Option<Map<String, Value>>,
    ) -> Result<Step, TaskProblem> {
        let output = Value::Object(output.unwrap_or_default());
        let mut items = parse_init_output(&output).map_err(TaskProblem::of_output)?;
        items.retain(|item| self.only.matches(&item.zarr_url));
        self.check_n_items(items.len())?;
        let urls = items.iter().map(|item| item.zarr_url.clone()).collect();
        let running = self.running.as_mut().expect("the task runs");
        running.batch = RunningBatch::Items(urls);
        if items.is_empty() {
            return self.finish(task, Vec::new(), &[]).map(Step::Done);
        }
        let items = items.iter().map(|item| json!(item)).collect();
        let args = Value::Object(self.details(task).args_parallel.clone());
        let kind = CallKind::Items {
            name: "item",
            items,
        };
        let calls = calls_of(self.batch_task(task, 1), args.to_string(), kind);
        Ok(Step::Calls(calls))
    }

    /// Merges the outputs of the last batch of a task.
    ///
    /// * `failed`: indices of the calls that failed.
    ///
    /// # Errors
    /// The reason why outputs could not be merged. The other outputs are merged all the same, unless
    /// two of them conflict.
    ///
    /// Source: conformance rules V65 to V75 and V78 to V81.
    fn finish(
        &mut self,
        task: &TaskSpec,
        outputs: Vec<(usize, Map<String, Value>)>,
        failed: &[usize],
    ) -> Result<TaskEnd, TaskProblem> {
        let running = self.running.take().expect("the task runs");
        // Not `self.details`, since the images change while these are borrowed.
        let details = self
            .tasks
            .get(&task.order)
            .expect("each task of the run has details");
        let mut rejected = Vec::new();
        let mut parsed: Vec<CallOutput> = Vec::with_capacity(outputs.len());
        for (call_index, output) in outputs {
            match TaskOutput::parse(&Value::Object(output)) {
                Ok(output) => parsed.push((call_index, output)),
                Err(_) if WEAKENED => {}
                Err(message) => rejected.push((call_index, message)),
            }
        }
        let merge = Merge {
            outputs: parsed,
            zarr_dir: &self.state.zarr_dir,
            output_types: &details.output_types,
        };
        let merged = match self.state.images.merge(merge) {
            Ok(merged) => merged,
            Err(conflict) => {
                let text = format!(
                    "the outputs of {} and {} change the image {} in different ways; nothing of \
                     this task was kept",
                    running.call_name(conflict.calls.0),
                    running.call_name(conflict.calls.1),
                    conflict.zarr_url
                );
                self.set_statuses(task, &running, None);
                return Err(TaskProblem::of_job(text));
            }
        };
        rejected.extend(merged.rejected.iter().cloned());
        rejected.sort();
        let rejected_calls = rejected.iter().map(|(call_index, _)| *call_index);
        let failed_calls: HashSet<usize> = rejected_calls.chain(failed.iter().copied()).collect();
        let mut n_changed = merged.updated.len() - merged.n_new;
        if merged.is_empty {
            let urls = running.unchanged_inputs(&failed_calls);
            if !details.output_types.is_empty() {
                n_changed = urls.len();
            }
            self.state.images.set_types(urls, &details.output_types);
        }
        let warning = note(&running, &merged, !details.output_types.is_empty());
        let output_types = details.output_types.clone();
        self.set_statuses(task, &running, Some(&failed_calls));
        for url in &merged.removed {
            self.statuses.remove(task.order, url);
        }
        let changes = Some(ItemChanges {
            n_new: merged.n_new,
            n_changed,
            n_removed: merged.removed.len(),
            n_items: self.state.images.images().len(),
        });
        if !rejected.is_empty() {
            let text = |(call_index, message): &(usize, String)| {
                format!("{}: {message}", running.call_name(*call_index))
            };
            return Err(TaskProblem {
                changes,
                ..TaskProblem::of_output(some_of(rejected.iter().map(text)))
            });
        }
        if failed_calls.is_empty() {
            self.filters.types.extend(output_types);
        }
        Ok(TaskEnd {
            warning,
            changes,
            ..TaskEnd::default()
        })
    }

    fn check_n_items(&self, n_items: usize) -> Result<(), TaskProblem> {
        if n_items <= self.max_items || WEAKENED {
            return Ok(());
        }
        Err(TaskProblem::of_job(format!(
            "Too many parallelization items: {n_items}, at most {} are allowed; a policy file can \
             allow more (`task_items` in [host]).",
            self.max_items
        )))
    }

    /// Sets the status of each input of a task.
    ///
    /// * `failed_calls`: the calls that failed; `None`: all did.
    ///
    /// Source: conformance rules V88 and V89.
    fn set_statuses(
        &mut self,
        task: &TaskSpec,
        running: &Running,
        failed_calls: Option<&HashSet<usize>>,
    ) {
        for (call_index, url) in running.inputs.iter().enumerate() {
            let is_failed = match (&running.batch, failed_calls) {
                (_, None) => true,
                (RunningBatch::Images, Some(failed)) => failed.contains(&call_index),
                (_, Some(failed)) => !failed.is_empty(),
            };
            let status = if is_failed {
                ImageStatus::Failed
            } else {
                ImageStatus::Done
            };
            self.statuses.set(task.order, url.clone(), status);
        }
    }
}

impl Dialect for Dataset {
    fn item_kind(&self) -> &'static str {
        "image"
    }

    fn preview(&self, task: &TaskSpec) -> Preview {
        let details = self.details(task);
        let is_first = self.tasks.keys().next() == Some(&task.order);
        let calls = match details.task_type {
            TaskType::Parallel if is_first => {
                format!(
                    "{}, one for each selected image",
                    self.selection(task).1.len()
                )
            }
            TaskType::Parallel => "one for each image that is selected at that time".to_owned(),
            TaskType::Compound | TaskType::ConverterCompound => {
                "1, then one for each entry of the parallelization list that it returns".to_owned()
            }
            TaskType::NonParallel | TaskType::ConverterNonParallel => "1".to_owned(),
        };
        let n_calls = match details.task_type {
            TaskType::Parallel => is_first.then(|| self.selection(task).1.len()),
            _ => Some(1),
        };
        Preview {
            calls,
            n_calls,
            args: details.args(),
        }
    }

    fn workflow_task(&self, task: &TaskSpec) -> Option<Map<String, Value>> {
        let details = self.details(task);
        let task = json!({ "name": task.name, "type": details.task_type.name() });
        let entries = [
            ("args".to_owned(), Value::Object(details.args())),
            ("task".to_owned(), task),
        ];
        Some(entries.into_iter().collect())
    }

    fn next(
        &mut self,
        task: &TaskSpec,
        ended: Option<BatchEnd>,
        _has_files: bool,
    ) -> Result<Step, TaskProblem> {
        let Some(ended) = ended else {
            return self.start(task);
        };
        let running = self.running.as_ref().expect("the task runs");
        if matches!(running.batch, RunningBatch::Init) {
            let output = ended.outputs.into_iter().next();
            return self.continue_compound(task, output.map(|(_, output)| output));
        }
        self.finish(task, ended.outputs, &[]).map(Step::Done)
    }

    fn batch_task<'t>(&'t self, task: &'t TaskSpec, batch: u32) -> &'t TaskSpec {
        match &self.details(task).compute {
            Some(compute) if batch > 0 => compute,
            _ => task,
        }
    }

    /// Source: conformance rule V52.
    fn has_early_folders(&self) -> bool {
        false
    }

    /// Source: conformance rules V47 and V48.
    fn n_available(&self) -> Option<usize> {
        Some(self.n_available_images)
    }

    fn keeps_partial_outputs(&self) -> bool {
        true
    }

    /// Source: conformance rules V77 to V80.
    fn end_failed(&mut self, task: &TaskSpec, ended: BatchEnd, failed: &[usize]) -> TaskEnd {
        match &self.running {
            None => TaskEnd::default(),
            Some(running) if matches!(running.batch, RunningBatch::Init) => TaskEnd::default(),
            Some(_) => match self.finish(task, ended.outputs, failed) {
                Ok(end) => end,
                Err(problem) => TaskEnd {
                    warning: Some(problem.to_string()),
                    changes: problem.changes,
                    ..TaskEnd::default()
                },
            },
        }
    }

    fn fail(&mut self, task: &TaskSpec, _times: TaskTimes, _n_items: usize) {
        // If outputs were merged, each image has its status already.
        if let Some(running) = self.running.take() {
            self.set_statuses(task, &running, None);
        }
    }

    fn records(&self) -> Vec<Record<'_>> {
        vec![
            self.record(DATASET_FILE),
            Record {
                name: STATUS_FILE,
                write: Box::new(|file| write_json(file, &self.statuses, RECORD_INDENT)),
            },
        ]
    }

    fn result(&self) -> Record<'_> {
        self.record(RESULT_FILE)
    }

    fn into_result(self: Box<Self>) -> Map<String, Value> {
        let images = self.state.images.images().iter();
        let images = images.map(|image| json!(image)).collect();
        let entries = [
            ("name".to_owned(), Value::String(self.state.name)),
            ("zarr_dir".to_owned(), Value::String(self.state.zarr_dir)),
            ("images".to_owned(), Value::Array(images)),
        ];
        let trial = self.state.trial.iter();
        let trial = trial.map(|trial| ("mandelbox".to_owned(), json!(trial)));
        entries.into_iter().chain(trial).collect()
    }
}

impl Dataset {
    fn record(&self, name: &'static str) -> Record<'_> {
        Record {
            name,
            write: Box::new(|file| write_json(file, &self.state, RECORD_INDENT)),
        }
    }
}

#[cfg(test)]
mod tests;
