//! Lookup of the task that the source of an exported workflow names.

use std::collections::HashMap;

use crate::fractal::package::manifest::{PackageTask, TaskPackage, slugify_task_name};
use crate::fractal::v1::document::TaskDocument;
use crate::problem::{Location, Problems};
use crate::text::wording::did_you_mean;

/// Index of the tasks of all packages, by source.
pub(crate) struct TaskIndex<'a> {
    by_source: HashMap<&'a str, Vec<&'a PackageTask>>,
    by_slug: HashMap<String, Vec<&'a PackageTask>>,
    packages: &'a [TaskPackage],
}

impl<'a> TaskIndex<'a> {
    /// Creates an index of the tasks of `packages`.
    pub(crate) fn new(packages: &'a [TaskPackage]) -> Self {
        let mut by_source: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_slug: HashMap<_, Vec<_>> = HashMap::new();
        for task in packages.iter().flat_map(|package| &package.task_list) {
            by_source
                .entry(task.source.as_str())
                .or_default()
                .push(task);
            by_slug
                .entry(slugify_task_name(&task.task.name))
                .or_default()
                .push(task);
        }
        Self {
            by_source,
            by_slug,
            packages,
        }
    }

    /// Returns the only task that `source` names, or adds a problem at `location`.
    ///
    /// A source matches exactly, or by its part after the last `:` if only one package has such a
    /// task: a workflow that was exported elsewhere has another prefix for its packages
    /// (`pip_remote:...`). Exports of 2023 have one source for all tasks of a package
    /// (`pip:fractal-tasks-core==0.9.4`), and the task's name next to it. A match that is not exact
    /// is reported in a warning.
    ///
    /// * `name`: name of the task, if the workflow gives it.
    pub(crate) fn find(
        &self,
        source: &str,
        name: Option<&str>,
        location: Location,
        problems: &mut Problems,
    ) -> Option<&'a TaskDocument> {
        let slug = source.rsplit(':').next().unwrap_or(source);
        let exact = self.by_source.get(source);
        let by_slug = exact.or_else(|| self.by_slug.get(slug)).cloned();
        let by_name = || {
            let mut found = self.by_slug.get(&slugify_task_name(name?))?.clone();
            let of_package = |task: &&PackageTask| is_of_package(&task.source, source);
            if found.iter().any(of_package) {
                found.retain(of_package);
            }
            Some(found)
        };
        let found = by_slug.or_else(by_name).unwrap_or_default();
        let [task] = found[..] else {
            if found.is_empty() && self.is_in_refused(source) {
                // The problem of that package was reported before.
                return None;
            }
            let name = name.map_or_else(String::new, |name| format!(" and name='{name}'"));
            let text = format!(
                "Found {} tasks with source='{source}'{name}. ({})",
                found.len(),
                self.hint(source)
            );
            problems.add(location, text);
            return None;
        };
        if exact.is_none() {
            problems.warn(
                location,
                format!(
                    "the source '{source}' is resolved to `{}`, the only task of that name",
                    task.source
                ),
            );
        }
        Some(&task.task)
    }

    /// Returns true if a source may name a task of a package that could not be read.
    fn is_in_refused(&self, source: &str) -> bool {
        let refused =
            |package: &TaskPackage| package.is_refused && is_of_package(&package.name, source);
        self.packages.iter().any(refused)
    }

    /// Describes the existing tasks, for the problem of a task that was not found.
    fn hint(&self, source: &str) -> String {
        /// Maximum number of sources in a message.
        const SHOWN: usize = 10;
        let sources: Vec<_> = self
            .packages
            .iter()
            .flat_map(|package| &package.task_list)
            .map(|task| &*task.source)
            .collect();
        let refused: Vec<_> = self
            .packages
            .iter()
            .filter(|package| package.is_refused)
            .map(|it| &*it.name)
            .collect();
        let have = match sources.len() {
            0 if self.packages.is_empty() => {
                "no task package was given; name its folder with `--tasks`".to_owned()
            }
            0 => "the packages have no tasks".to_owned(),
            n => {
                let more = n
                    .checked_sub(SHOWN)
                    .filter(|more| *more > 0)
                    .map(|more| format!(" and {more} more"));
                let shown = sources[..n.min(SHOWN)].join(", ");
                format!("the packages have: {shown}{}", more.unwrap_or_default())
            }
        };
        let unread = match refused[..] {
            [] => String::new(),
            _ => format!("; {} could not be read", refused.join(", ")),
        };
        format!(
            "{have}{unread}{}",
            did_you_mean(source, sources.iter().copied())
        )
    }
}

/// Returns true if a source names a package: both begin with the same name, apart from what
/// precedes it (`pip:`) and follows it (`==0.9.4`).
///
/// * `package`: a package's name, or the source of one of its tasks.
fn is_of_package(package: &str, source: &str) -> bool {
    let name = |text: &str| {
        text.split([':', '=', '<', '>', '['])
            .next()
            .unwrap_or_default()
            .to_lowercase()
            .replace('-', "_")
    };
    let source = ["pip:", "pip_remote:"]
        .iter()
        .find_map(|prefix| source.strip_prefix(prefix))
        .unwrap_or(source);
    name(package) == name(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_packages() {
        let check = |package: &str, source: &str, expected: bool| {
            assert_eq!(
                is_of_package(package, source),
                expected,
                "{package} {source}"
            );
        };
        check("fractal-tasks-core", "pip:fractal-tasks-core==0.9.4", true);
        check(
            "fractal_tasks_core:create",
            "pip_remote:fractal-tasks-core:0.10.0::create",
            true,
        );
        check("pk", "pk:x", true);
        check("pk", "pk2:x", false);
        check(
            "fractal-tasks-core",
            "pip:fractal-tasks-core-alpha==0.1",
            false,
        );
    }
}
