//! The job of a workflow of version 2.

use std::path::{Path, PathBuf};

use super::{JobContext, set};
use crate::cli::documents::absolute;
use crate::cli::result_files::InputFile;
use crate::fractal::command::command_words;
use crate::fractal::package::MANIFEST;
use crate::fractal::v2::{
    DatasetDocument, Filters, Package, STATUS_KEY, Side, Statuses, TaskReference, WorkflowDocument,
    WorkflowTask, modules_beside, normalized_url,
};
use crate::json::{DuplicateKeys, Map, Value, parse_json};
use crate::model::record_names::STATUS_FILE;
use crate::plan::{DatasetJob, Job};
use crate::problem::{Cursor, Location, Problems};

/// Reads the job. Problems go to `problems`.
///
/// * `workflow`: `None` if it could not be read. The other documents are checked all the same.
pub(super) fn read(
    context: &JobContext<'_>,
    workflow: Option<WorkflowDocument>,
    problems: &mut Problems,
) -> (Box<dyn Job>, Vec<InputFile>) {
    let arguments = context.arguments;
    let mut workflow = workflow.unwrap_or_else(|| WorkflowDocument {
        file: arguments.workflow.clone(),
        folder: PathBuf::new(),
        name: String::new(),
        task_list: Vec::new(),
    });
    context.refuse(
        &arguments.v1.given(),
        "is an option for workflows of Fractal v1; this is one of version 2, which has \
         `--zarr-dir`, `--dataset` and `--read`",
        problems,
    );
    let dataset = dataset(context, problems);
    let tasks = [arguments.tasks.as_slice(), &modules_beside(&workflow)].concat();
    let packages = context.packages.read_v2(&tasks, &workflow.folder, problems);
    let names: Vec<_> = workflow.task_list.iter().map(names).collect();
    let (first_task_index, last_task_index) = context.task_range(&names, problems);
    set::apply_v2(&arguments.set, &mut workflow, &packages, &names, problems);
    let files = input_files(context, &workflow, &packages);

    let mut job = DatasetJob::new(workflow, dataset);
    job.work_dir = context.work_dir(problems);
    job.filters = filters(context, problems);
    job.statuses = statuses(context, problems);
    job.read_paths = arguments.read.iter().map(|path| absolute(path)).collect();
    job.only = context.only(problems);
    job.first_task_index = first_task_index;
    job.last_task_index = last_task_index;
    job.packages = packages;
    job.local_config = context.local_config(problems);
    (Box::new(job), files)
}

/// Returns the names by which users know a task.
fn names(task: &WorkflowTask) -> Vec<String> {
    let name = match &task.task {
        TaskReference::Inline(task) => &task.name,
        TaskReference::Package { name, .. } => name,
    };
    [name].into_iter().chain(&task.alias).cloned().collect()
}

/// Returns the dataset at the start of the run.
fn dataset(context: &JobContext<'_>, problems: &mut Problems) -> DatasetDocument {
    let arguments = context.arguments;
    if let Some(path) = &arguments.dataset {
        return DatasetDocument::read_into(path, problems).unwrap_or_else(unknown_dataset);
    }
    let Some(path) = &arguments.v2.zarr_dir else {
        let text = "is required for a workflow of Fractal v2: the folder of a new dataset; or give \
                    an existing dataset as `--dataset`";
        problems.add(Location::Parameter("--zarr-dir".to_owned()), text);
        return unknown_dataset();
    };
    let path = absolute(path);
    match path.to_str().map(normalized_url) {
        Some(Ok(zarr_dir)) => DatasetDocument {
            name: dataset_name(&path),
            zarr_dir,
            ..DatasetDocument::default()
        },
        Some(Err(text)) => {
            problems.add(Location::Parameter("--zarr-dir".to_owned()), text);
            unknown_dataset()
        }
        None => {
            let text = "must be UTF-8, as all of JSON is";
            problems.add(Location::Parameter("--zarr-dir".to_owned()), text);
            unknown_dataset()
        }
    }
}

/// Returns a dataset in place of one with problems, with which nothing runs. Its folder is one that
/// causes no more of them.
fn unknown_dataset() -> DatasetDocument {
    DatasetDocument {
        zarr_dir: absolute(Path::new("zarr")).to_string_lossy().into_owned(),
        ..DatasetDocument::default()
    }
}

/// Returns a name for the dataset in a folder, which has only the characters that Fractal accepts.
fn dataset_name(zarr_dir: &Path) -> String {
    let name = zarr_dir.file_name().unwrap_or_default().to_string_lossy();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let name: String = name
        .chars()
        .map(|c| if is_allowed(c) { c } else { '_' })
        .collect();
    if name.is_empty() {
        "dataset".to_owned()
    } else {
        name
    }
}

/// Reads the statuses of the run that wrote the dataset.
fn statuses(context: &JobContext<'_>, problems: &mut Problems) -> Statuses {
    let Some(path) = &context.arguments.dataset else {
        return Statuses::default();
    };
    let folder = absolute(path);
    let folder = folder.parent().unwrap_or(Path::new(""));
    let file = folder.join(STATUS_FILE);
    if !file.exists() {
        return Statuses::default();
    }
    Statuses::read(&file).unwrap_or_else(|found| {
        problems.extend(found);
        Statuses::default()
    })
}

/// Reads the filters of the command line.
fn filters(context: &JobContext<'_>, problems: &mut Problems) -> Filters {
    let options = &context.arguments.v2;
    let types = options.type_filters.iter();
    let types: Map<_, _> = types
        .map(|(key, value)| (key.clone(), Value::Bool(*value)))
        .collect();
    let mut attributes = Map::new();
    for (key, values) in &options.attribute_filters {
        let list = attributes
            .entry(key.clone())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.extend(attribute_values(values));
        }
    }
    if !options.status_filter.is_empty() {
        let statuses = options.status_filter.iter();
        let statuses = statuses.map(|status| Value::from(status.name())).collect();
        attributes.insert(STATUS_KEY.to_owned(), Value::Array(statuses));
    }
    let (types, attributes) = (Value::Object(types), Value::Object(attributes));
    Filters::read(
        Some(&Cursor::new(Path::new("--type-filter"), &types)),
        Some(&Cursor::new(Path::new("--attribute-filter"), &attributes)),
        problems,
    )
}

/// Parses the values of an attribute filter: a JSON array, or values separated by commas, each of
/// which is JSON, or text where it is not JSON.
fn attribute_values(text: &str) -> Vec<Value> {
    let parse = |text: &str| parse_json(text.as_bytes(), DuplicateKeys::Refuse);
    if let Ok(Value::Array(values)) = parse(text) {
        return values;
    }
    let value = |text: &str| parse(text).unwrap_or_else(|_| Value::from(text));
    text.split(',').map(|text| value(text.trim())).collect()
}

fn input_files(
    context: &JobContext<'_>,
    workflow: &WorkflowDocument,
    packages: &[Package],
) -> Vec<InputFile> {
    let dataset = context.arguments.dataset.iter();
    let mut files: Vec<InputFile> = dataset
        .map(|path| ("the file of `--dataset`", path.clone()))
        .collect();
    let inline = workflow
        .task_list
        .iter()
        .filter_map(|entry| match &entry.task {
            TaskReference::Inline(task) => Some((&**task, true, workflow.folder.as_path())),
            TaskReference::Package { .. } => None,
        });
    let of_packages = packages.iter().flat_map(|package| {
        let tasks = package.manifest.task_list.iter();
        tasks.map(|task| (task, false, package.folder.as_path()))
    });
    for (task, is_command, folder) in inline.chain(of_packages) {
        for side in Side::ALL.into_iter().filter_map(|side| task.side(side)) {
            let executable = Value::from(side.executable.as_str());
            let cursor = Cursor::new(folder, &executable);
            // What is wrong with a command is reported when the run is planned.
            let command = command_words(&cursor, is_command, folder, &mut Problems::default());
            let paths = command.map(|command| [command.named(), command.module]);
            let paths = paths.into_iter().flatten();
            files.extend(paths.map(|path| ("the module of a task", path)));
        }
    }
    for package in packages {
        files.push(("the manifest of a package", package.folder.join(MANIFEST)));
    }
    files
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_attributes_are_json_or_text() {
        for (text, expected) in [
            ("B03", json!(["B03"])),
            ("B03,B04", json!(["B03", "B04"])),
            ("1,2", json!([1, 2])),
            ("true", json!([true])),
            ("\"1\"", json!(["1"])),
            ("[\"a,b\", \"c\"]", json!(["a,b", "c"])),
            ("", json!([""])),
        ] {
            assert_eq!(Value::Array(attribute_values(text)), expected, "{text}");
        }
    }

    #[test]
    fn datasets_have_names_that_fractal_accepts() {
        assert_eq!(dataset_name(Path::new("/d/my zarrs é")), "my_zarrs__");
        assert_eq!(dataset_name(Path::new("/")), "dataset");
    }
}
