//! The job of a workflow of version 1.

use std::path::{Path, PathBuf};

use super::{JobContext, set};
use crate::cli::documents::absolute;
use crate::cli::environment;
use crate::cli::result_files::InputFile;
use crate::fractal::package::manifest::{modules_next_to, slugify_task_name};
use crate::fractal::package::{MANIFEST, TaskPackage};
use crate::fractal::v1::document::{self, TaskReference};
use crate::fractal::v1::{WorkflowDocument, WorkflowTaskDocument};
use crate::json::{Map, Value};
use crate::plan::{Job, ProcessWorkflow};
use crate::problem::{Location, Problems};

/// Reads the job. Problems go to `problems`.
///
/// * `workflow`: `None` if it could not be read. The other documents are checked all the same.
pub(super) fn read(
    context: &JobContext<'_>,
    workflow: Option<WorkflowDocument>,
    problems: &mut Problems,
) -> (Box<dyn Job>, Vec<InputFile>) {
    let arguments = context.arguments;
    let is_read = workflow.is_some();
    let mut workflow = workflow.unwrap_or_else(|| WorkflowDocument {
        file: arguments.workflow.clone(),
        folder: PathBuf::new(),
        name: String::new(),
        task_list: Vec::new(),
    });
    context.refuse(
        &arguments.v2.given(),
        "is an option for workflows of Fractal v2; this is one of version 1",
        problems,
    );
    if arguments.v1.output.is_none() && is_read {
        let text = "is required for a workflow of Fractal v1: the folder that tasks write to";
        problems.add(Location::Parameter("--output".to_owned()), text);
    }
    let output = arguments.v1.output.as_deref().map(absolute);
    let work_dir = context.work_dir(problems);
    let names: Vec<_> = workflow.task_list.iter().map(names).collect();
    let (first_task_index, last_task_index) = context.task_range(&names, problems);
    set::apply_v1(&arguments.set, &mut workflow, &names, problems);
    let tasks = [arguments.tasks.as_slice(), &modules_next_to(&workflow)].concat();
    let packages = context.packages.read_v1(&tasks, &workflow.folder, problems);
    let files = input_files(context, &workflow, &packages);

    // Without an output there is a problem, and nothing runs.
    let output = output.unwrap_or_else(|| absolute(Path::new("output")));
    let mut job = ProcessWorkflow::new(workflow, &output, &work_dir);
    let inputs = arguments.v1.inputs.iter();
    job.input_paths = inputs.map(|path| absolute(path)).collect();
    job.read_paths = arguments.read.iter().map(|path| absolute(path)).collect();
    (job.input_metadata, job.input_history) = dataset(context, problems);
    job.only = context.only(problems);
    job.first_task_index = first_task_index;
    job.last_task_index = last_task_index;
    job.packages = packages;
    job.local_config = context.local_config(problems);
    job.input_type.clone_from(&arguments.v1.input_type);
    job.output_type.clone_from(&arguments.v1.output_type);
    job.tasks_include_image = environment::tasks_include_image();
    (Box::new(job), files)
}

/// Returns the names by which users know a task.
fn names(task: &WorkflowTaskDocument) -> Vec<String> {
    match &task.task {
        TaskReference::Inline(task) => vec![task.name.clone(), slugify_task_name(&task.name)],
        TaskReference::Source { source, name } => {
            let slug = source.rsplit(':').next().unwrap_or(source);
            name.iter().cloned().chain([slug.to_owned()]).collect()
        }
    }
}

/// Reads the metadata and the history at the start of the run.
fn dataset(context: &JobContext<'_>, problems: &mut Problems) -> (Map<String, Value>, Vec<Value>) {
    let arguments = context.arguments;
    if let Some(path) = &arguments.dataset {
        let result = document::read_result(path, problems);
        return result.unwrap_or_default();
    }
    let metadata = arguments.v1.metadata.as_deref();
    let metadata = metadata.and_then(|path| document::read_metadata(path, problems));
    let history = arguments.v1.history.as_deref();
    let history = history.and_then(|path| document::read_history(path, problems));
    (metadata.unwrap_or_default(), history.unwrap_or_default())
}

fn input_files(
    context: &JobContext<'_>,
    workflow: &WorkflowDocument,
    packages: &[TaskPackage],
) -> Vec<InputFile> {
    let arguments = context.arguments;
    let mut files: Vec<InputFile> = Vec::new();
    for (what, path) in [
        ("the file of `--metadata`", &arguments.v1.metadata),
        ("the file of `--history`", &arguments.v1.history),
        ("the file of `--dataset`", &arguments.dataset),
    ] {
        files.extend(path.iter().map(|path| (what, path.clone())));
    }
    let module = |path: PathBuf| ("the module of a task", path);
    for task in &workflow.task_list {
        if let TaskReference::Inline(task) = &task.task {
            files.push(module(task.module_path()));
        }
    }
    for package in packages {
        let manifest: &Path = &package.folder.join(MANIFEST);
        files.push(("the manifest of a package", manifest.to_owned()));
        let tasks = package.task_list.iter();
        files.extend(tasks.map(|task| module(task.task.module_path())));
    }
    files
}
