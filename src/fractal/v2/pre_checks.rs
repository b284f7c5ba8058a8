//! Checks of a run before it starts, which find images that a task would skip or get by mistake.

use std::collections::BTreeSet;

use super::dataset_document::DatasetDocument;
use super::filters::{Filters, match_types};
use super::image::{Image, Types};
use super::status::{ImageStatus, Statuses};
use super::task::TaskDetails;

/// Images that the first task which gets images selects, as far as is known before the run.
pub(crate) struct Selection<'d> {
    /// The dataset.
    pub(crate) dataset: &'d DatasetDocument,
    /// Statuses of earlier runs.
    pub(crate) statuses: &'d Statuses,
    /// Filters of the run.
    pub(crate) filters: &'d Filters,
}

impl Selection<'_> {
    fn images(&self, order: u64, task: &TaskDetails) -> Vec<&Image> {
        let mut types = self.filters.types.clone();
        types.extend(task.type_filters.clone());
        let images = self.dataset.images.images().iter();
        images
            .filter(|image| match_types(&types, image))
            .filter(|image| self.filters.attributes.match_image(image))
            .filter(|image| {
                self.statuses
                    .is_accepted(self.filters, order, &image.zarr_url)
            })
            .collect()
    }
}

/// Returns warnings about the images of the first task: types that not all of them have, and images
/// that the task before has not processed.
///
/// * `first`: order of the first task of the run, and the task.
/// * `previous`: order of the task before it in the workflow, and the task; `None` if it is the
///   first.
///
/// Source: conformance rule V94.
pub(crate) fn pre_checks(
    selection: &Selection<'_>,
    first: (u64, &TaskDetails),
    previous: Option<(u64, &TaskDetails)>,
) -> Vec<String> {
    let (order, task) = first;
    if task.task_type.is_converter() {
        return Vec::new();
    }
    let images = selection.images(order, task);
    let mut warnings = Vec::new();
    let keys: BTreeSet<_> = images.iter().flat_map(|image| image.types.keys()).collect();
    let is_mixed = |key: &&&String| {
        let n_true = images
            .iter()
            .filter(|image| image.types.get(**key) == Some(&true));
        let n_true = n_true.count();
        n_true > 0 && n_true < images.len()
    };
    let mixed: Vec<_> = keys
        .iter()
        .filter(is_mixed)
        .map(|key| key.as_str())
        .collect();
    if !mixed.is_empty() {
        warnings.push(format!(
            "only some of the {} selected images have the type {}; select with `--type-filter` if \
             the task is for some of them only",
            images.len(),
            mixed.join(", ")
        ));
    }
    if let Some((order, task)) = previous
        && !task.task_type.is_converter()
        && task.output_types.is_empty()
    {
        let is_missing = |image: &&&Image| {
            selection.statuses.get(order, &image.zarr_url) != Some(ImageStatus::Done)
        };
        let n_missing = images.iter().filter(is_missing).count();
        if n_missing > 0 {
            warnings.push(format!(
                "task {order}, the one before, is not done for {n_missing} of the {} selected \
                 images",
                images.len()
            ));
        }
    }
    warnings
}

/// Returns the type filters of a run that a task of it overrules, each with a sentence.
///
/// * `tasks`: the tasks of the run, with their orders and names.
///
/// Source: defect W32.
pub(crate) fn overridden_filters<'t>(
    filters: &Types,
    tasks: impl Iterator<Item = (u64, &'t str, &'t TaskDetails)>,
) -> Vec<String> {
    let mut left = filters.clone();
    let mut warnings = Vec::new();
    for (order, name, task) in tasks {
        for (types, kind) in [
            (&task.type_filters, "input types"),
            (&task.output_types, "output types"),
        ] {
            for (key, value) in types {
                if left.get(key).is_some_and(|given| given != value) {
                    left.remove(key);
                    let given = filters[key];
                    warnings.push(format!(
                        "the type filter {key}={given} is overridden by {key}={value} in the {kind} \
                         of task {order} \"{name}\""
                    ));
                }
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::fractal::v2::TaskType;
    use crate::json::Map;
    use crate::problem::{Cursor, Problems};

    fn details(type_filters: &[(&str, bool)], output_types: &[(&str, bool)]) -> TaskDetails {
        let types = |given: &[(&str, bool)]| {
            let given = given.iter().map(|(key, value)| ((*key).to_owned(), *value));
            given.collect()
        };
        TaskDetails {
            task_type: TaskType::Parallel,
            args_non_parallel: Map::new(),
            args_parallel: Map::new(),
            type_filters: types(type_filters),
            output_types: types(output_types),
            compute: None,
        }
    }

    // Source: conformance rule V94.
    #[test]
    fn images_of_mixed_types_and_skipped_tasks_are_found() {
        let images = json!([{"zarr_url": "/z/a", "types": {"flat": true}}, {"zarr_url": "/z/b"}]);
        let document = json!({"name": "d", "zarr_dir": "/z", "images": images});
        let mut problems = Problems::default();
        let cursor = Cursor::new(Path::new("d"), &document);
        let dataset = DatasetDocument::from_cursor(&cursor, &mut problems).expect("valid");
        let statuses = json!({"0": {"/z/a": "done"}});
        let cursor = Cursor::new(Path::new("s"), &statuses);
        let statuses = Statuses::from_cursor(&cursor, &mut problems).expect("valid");
        let check = |type_filters: &[(&str, bool)], expected: &[&str]| {
            let selection = Selection {
                dataset: &dataset,
                statuses: &statuses,
                filters: &Filters::default(),
            };
            let (first, previous) = (details(type_filters, &[]), details(&[], &[]));
            let found = pre_checks(&selection, (1, &first), Some((0, &previous)));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{found}");
            }
        };
        check(&[], &["the type flat", "not done for 1 of the 2"]);
        check(&[("flat", true)], &[]);
        check(&[("flat", false)], &["not done for 1 of the 1"]);
    }

    // Source: defect W32.
    #[test]
    fn overridden_filters_are_named_once() {
        let filters = Types::from([("a".to_owned(), true), ("b".to_owned(), true)]);
        let tasks = [
            details(&[("b", true)], &[("a", false)]),
            details(&[("a", false)], &[]),
        ];
        let tasks = tasks
            .iter()
            .zip(0..)
            .map(|(task, order)| (order, "t", task));
        let found = overridden_filters(&filters, tasks);
        assert_eq!(
            found,
            ["the type filter a=true is overridden by a=false in the output types of task 0 \"t\""]
        );
    }
}
