//! Paths in the args of tasks that no task can access: args grant no access.

use std::path::{Path, PathBuf};

use super::folders::real_path;
use crate::fractal::dialect::Dialect;
use crate::json::Value;
use crate::model::{Grant, TaskSpec};
use crate::plan::RunPlan;
use crate::problem::{Location, Problems};
use crate::text::wording::shell_word;

/// Maximum number of strings of a task's args that are looked at, and of paths that are reported.
const MAX_STRINGS: usize = 10_000;
const MAX_PATHS: usize = 20;

/// Warns of absolute paths in the args of tasks that exist on this machine, and that the task
/// cannot access.
pub(super) fn warn_of_paths(
    plan: &RunPlan,
    dialect: &dyn Dialect,
    grants: &[Grant],
    problems: &mut Problems,
) {
    for task in &plan.tasks {
        let args = Value::Object(dialect.preview(task).args);
        let mut paths = Vec::new();
        collect(&args, String::new(), &mut paths, &mut 0);
        let mut reported: Vec<PathBuf> = Vec::new();
        for (pointer, path) in paths {
            let folder = if path.is_dir() {
                path
            } else {
                path.parent().unwrap_or(path)
            };
            let is_known = reported.iter().any(|known| folder.starts_with(known));
            if is_known || is_granted(path, task, grants) || path.symlink_metadata().is_err() {
                continue;
            }
            let text = format!(
                "the task cannot access `{}` in `{pointer}`, since a path in args grants no access; \
                 add `--read {}`",
                path.display(),
                shell_word(folder.display())
            );
            let location = format!("args of task {} \"{}\"", task.order, task.name);
            problems.warn(Location::Parameter(location), text);
            reported.push(folder.to_owned());
            if reported.len() == MAX_PATHS {
                break;
            }
        }
    }
}

/// Collects the strings that are absolute paths, with their JSON pointers.
fn collect<'a>(
    value: &'a Value,
    pointer: String,
    paths: &mut Vec<(String, &'a Path)>,
    n_strings: &mut usize,
) {
    match value {
        Value::String(text) if *n_strings < MAX_STRINGS => {
            *n_strings += 1;
            let path = Path::new(text);
            // The root of the machine is no folder that anybody means.
            if path.is_absolute() && path.parent().is_some() {
                paths.push((pointer, path));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{index}"), paths, n_strings);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                collect(item, format!("{pointer}/{key}"), paths, n_strings);
            }
        }
        _ => {}
    }
}

fn is_granted(path: &Path, task: &TaskSpec, grants: &[Grant]) -> bool {
    let real = real_path(path);
    let has = |grant: &Grant| {
        path.starts_with(&grant.guest_path) || real.starts_with(real_path(&grant.host_path))
    };
    grants.iter().chain(&task.mounts).any(has)
}
