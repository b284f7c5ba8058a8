//! Selection of the images that a task gets.

use serde_json::json;

use super::dataset::Dataset;
use super::filters::match_types;
use super::image::Types;
use crate::fractal::dialect::TaskProblem;
use crate::model::TaskSpec;

impl Dataset {
    /// Returns the images that pass the type filters of a task, and the URLs of those that it gets,
    /// as far as the filters decide now. Both are in the order of the list.
    ///
    /// Source: conformance rules V43 to V50, defect W11.
    pub(super) fn selection(&self, task: &TaskSpec) -> (usize, Vec<&String>) {
        let types = self.type_filters(task);
        let images = self.state.images.images().iter();
        let available: Vec<_> = images.filter(|image| match_types(&types, image)).collect();
        let has_status = |url: &String| match &self.accepted {
            Some(accepted) => accepted.contains(url),
            None => self.statuses.is_accepted(&self.filters, task.order, url),
        };
        let n_available = available.len();
        let selected = available
            .into_iter()
            .filter(|image| self.filters.attributes.match_image(image))
            .map(|image| &image.zarr_url)
            .filter(|url| has_status(url) && self.only.matches(url));
        (n_available, selected.collect())
    }

    fn type_filters(&self, task: &TaskSpec) -> Types {
        let mut types = self.filters.types.clone();
        types.extend(self.details(task).type_filters.clone());
        types
    }

    /// Selects the images of a task that starts. The statuses for the first task that gets images
    /// count for all later ones.
    ///
    /// Source: conformance rules V47 to V50, defect W12.
    pub(super) fn select(&mut self, task: &TaskSpec) -> Result<Vec<String>, TaskProblem> {
        self.n_available_images = 0;
        if self.details(task).task_type.is_converter() {
            return Ok(Vec::new());
        }
        if self.filters.statuses.is_some() && self.accepted.is_none() {
            let urls = self.state.images.images().iter();
            let accepted = urls
                .map(|image| &image.zarr_url)
                .filter(|url| self.statuses.is_accepted(&self.filters, task.order, url));
            self.accepted = Some(accepted.cloned().collect());
        }
        let (n_available, selected) = self.selection(task);
        let selected: Vec<_> = selected.into_iter().cloned().collect();
        self.n_available_images = n_available;
        if selected.is_empty() {
            let statuses = match &self.filters.statuses {
                Some(statuses) => format!(" and statuses={}", json!(statuses)),
                None => String::new(),
            };
            let only = if self.only.is_empty() {
                String::new()
            } else {
                format!(
                    ", of the trial run's items {}",
                    self.only.globs().join(", ")
                )
            };
            let task_type = self.details(task).task_type;
            let advice = if task_type.has_single_call() && self.state.images.images().is_empty() {
                format!(
                    " The dataset has no image. If the task creates images, give it the type \
                     \"converter_{}\" in its manifest.",
                    task_type.name()
                )
            } else {
                String::new()
            };
            return Err(TaskProblem::of_job(format!(
                "Cannot run task '{}' for an empty image list (obtained after applying \
                 type_filters={} and attribute_filters={}{statuses}{only}).{advice}",
                task.name,
                json!(self.type_filters(task)),
                json!(self.filters.attributes.0),
            )));
        }
        Ok(selected)
    }
}
