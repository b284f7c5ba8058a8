//! A workflow that can run: every question that the documents can answer is answered.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::json::{Map, Value};
use crate::model::{Grant, Limits, ModuleFile, ModuleKind};
use crate::problem::Problem;

/// What will run, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workflow's name.
    pub workflow_name: String,
    /// First and last task of the workflow that run, from 0, both inclusive; `None` if the workflow
    /// has no task.
    pub task_range: Option<(usize, usize)>,
    /// The tasks that run.
    pub tasks: Vec<PlannedTask>,
    /// What deserves a word before the run.
    pub warnings: Vec<Problem>,
}

/// One workflow task, ready to be called.
#[derive(Clone, Debug)]
pub struct PlannedTask {
    /// Begins the names of its files.
    pub order: u64,
    /// Name of the task.
    pub name: String,
    /// The module of every call.
    pub module: ModuleFile,
    /// What its module is, and so how it is called.
    pub kind: ModuleKind,
    /// Arguments after the module's name; for a command before `-j`.
    pub fixed_args: Vec<String>,
    /// Defaults of the schema and the args given, together.
    pub args: Map<String, Value>,
    /// Key of the metadata that holds the component list; `None`: a single task.
    pub parallelization_level: Option<String>,
    /// Calls that run at a time at most; `None`: as many as there are threads.
    pub parallel_tasks_per_job: Option<NonZeroUsize>,
    /// The only metadata keys that the task gets; `None`: all.
    pub metadata_keys: Option<Vec<String>>,
    /// Whether args hold the metadata that the task gets; if not, a typed task fetches what it
    /// needs.
    pub metadata_in_args: bool,
    /// Limits of each call.
    pub limits: Limits,
    /// Whether somebody asked for its memory limit, so that calls start only while there is as much
    /// for each of them.
    pub reserves_memory: bool,
    /// Environment variables of each call, name and value.
    pub env: Vec<(String, String)>,
    /// Folders that each call sees read-only, beside those of the run.
    pub mounts: Vec<Grant>,
    /// The workflow task as history items show it, with args and meta as they count.
    pub workflowtask: Map<String, Value>,
}

/// What a package or a workflow asks for in `meta.mandelbox` (and Fractal's `mem`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Memory budget of a call, in bytes.
    pub memory_bytes: Option<u64>,
    /// Wall-time limit of a call.
    pub wall_time: Option<Duration>,
    /// Expected SHA-256 of the module, lower-case hexadecimal.
    pub sha256: Option<String>,
    /// See [`PlannedTask::metadata_keys`].
    pub metadata_keys: Option<Vec<String>>,
    /// See [`PlannedTask::metadata_in_args`].
    pub metadata_in_args: Option<bool>,
    /// Environment variables that the policy allows.
    pub env: Vec<(String, String)>,
    /// Folders that the policy allows.
    pub mounts: Vec<Grant>,
}

impl PlannedTask {
    /// The workflow task's `id`, where its document has one.
    pub fn workflow_task_id(&self) -> Option<&Value> {
        self.workflowtask.get("id").filter(|id| !id.is_null())
    }
}

/// A path as Python's `pathlib` writes it: no doubled or trailing slash, no `.` part; `..` is kept,
/// empty is `.`.
///
/// Source: conformance rule 29, from fractal-server's `TaskParameters`.
fn normalized_path(path: &str) -> PathBuf {
    let root = match path.bytes().take_while(|byte| *byte == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let text = format!("{root}{}", parts.join("/"));
    PathBuf::from(if text.is_empty() { "." } else { &text })
}

/// [`normalized_path`] of a path that is text; any other stays.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    path.to_str()
        .map_or_else(|| path.to_owned(), normalized_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_pathlibs() {
        let check = |path: &str, expected: &str| {
            assert_eq!(normalized_path(path), PathBuf::from(expected), "{path}")
        };
        check("/a//b/./c/", "/a/b/c");
        check("//a/b", "//a/b");
        check("///a", "/a");
        check("a/../b", "a/../b");
        check("", ".");
        check("./", ".");
        check("/", "/");
        assert_eq!(normalized_path("//a").to_str(), Some("//a"));
        assert_eq!(normalized_path("/a/").to_str(), Some("/a"));
    }
}
