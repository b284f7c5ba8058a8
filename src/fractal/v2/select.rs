//! Selection of the images that a task gets.

use serde_json::json;

use super::dataset::Dataset;
use super::filters::match_types;
use crate::fractal::dialect::TaskProblem;
use crate::model::TaskSpec;

impl Dataset {
    /// Selects the images of a task, in the order of the list.
    ///
    /// Source: conformance rules V43 to V50, defects W11 and W12.
    pub(super) fn select(&mut self, task: &TaskSpec) -> Result<Vec<String>, TaskProblem> {
        self.n_available_images = 0;
        let details = self.details(task);
        if details.task_type.is_converter() {
            return Ok(Vec::new());
        }
        let mut types = self.filters.types.clone();
        types.extend(details.type_filters.clone());
        let images = self.state.images.images();
        if self.filters.statuses.is_some() && self.accepted.is_none() {
            let urls = images.iter().map(|image| &image.zarr_url);
            let accepted =
                urls.filter(|url| self.statuses.is_accepted(&self.filters, task.order, url));
            self.accepted = Some(accepted.cloned().collect());
        }
        let available = images.iter().filter(|image| match_types(&types, image));
        let available: Vec<_> = available.collect();
        self.n_available_images = available.len();
        let is_selected = |url: &String| match &self.accepted {
            Some(accepted) => accepted.contains(url),
            None => true,
        };
        let selected: Vec<_> = available
            .into_iter()
            .filter(|image| self.filters.attributes.match_image(image))
            .map(|image| &image.zarr_url)
            .filter(|url| is_selected(url) && self.only.matches(url))
            .cloned()
            .collect();
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
            return Err(TaskProblem::of_job(format!(
                "Cannot run task '{}' for an empty image list (obtained after applying \
                 type_filters={} and attribute_filters={}{statuses}{only}).",
                task.name,
                json!(types),
                json!(self.filters.attributes.0),
            )));
        }
        Ok(selected)
    }
}
