//! A task that can be called, as far as all calls of it are alike.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Grant, Limits, ModuleFile, ModuleKind};
use crate::json::Value;

/// A module by its path and contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRef {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of its bytes, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl ModuleRef {
    /// Name of the file, as the guest sees it.
    pub fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

impl From<&ModuleFile> for ModuleRef {
    fn from(module: &ModuleFile) -> Self {
        Self {
            path: module.path.clone(),
            sha256: module.sha256.clone(),
        }
    }
}

/// One workflow task, ready to be called. What its arguments mean is the dialect's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Position in the order of the run; the names of its files begin with it.
    pub order: u64,
    /// Name of the task.
    pub name: String,
    /// The workflow task's `id`, where its document has one.
    pub id: Option<Value>,
    /// The module of every call.
    pub module: ModuleRef,
    /// Kind of the module, which decides how it is called.
    pub kind: ModuleKind,
    /// Arguments after the module's name, before those of the call.
    pub fixed_args: Vec<String>,
    /// True if the task is called once, false if it is called for each item of a list.
    pub is_single: bool,
    /// Most calls that run at a time; `None`: as many as the backend has room for.
    pub max_parallel: Option<NonZeroUsize>,
    /// Limits of each call.
    pub limits: Limits,
    /// True if somebody asked for the memory limit, so that calls start only while there is as much
    /// memory for each of them.
    pub reserves_memory: bool,
    /// Environment variables of each call, name and value.
    pub env: Vec<(String, String)>,
    /// Folders that each call sees read-only, in addition to those of the run.
    pub mounts: Vec<Grant>,
}
