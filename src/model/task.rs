//! A task that can be called: the data that all its calls share.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Grant, Limits, ModuleFile, ModuleKind};
use crate::json::Value;

/// A module, identified by its path and contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRef {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of its bytes, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl ModuleRef {
    /// Returns the name of the file, as the guest sees it.
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

/// A script that the module of a task interprets, identified by its path and contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRef {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of its bytes, as 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// BLAKE3 digest of what else it can import: the other scripts of its package, and the folders
    /// of its interpreter.
    pub environment: String,
}

/// A workflow task that is ready to be called. The meaning of its arguments is up to the dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Position in the order of the run; the names of its files begin with it.
    pub order: u64,
    /// Name of the task.
    pub name: String,
    /// The workflow task's `id`, if its document has one.
    pub id: Option<Value>,
    /// Module that every call runs.
    pub module: ModuleRef,
    /// Script that the module interprets; its path in the sandbox is among `fixed_args`. `None`:
    /// the module is the task.
    pub script: Option<ScriptRef>,
    /// Kind of the module, which determines how it is called.
    pub kind: ModuleKind,
    /// Arguments between the module's name and the arguments of the call.
    pub fixed_args: Vec<String>,
    /// True if the task is called once, false if it is called for each item of a list.
    pub is_single: bool,
    /// Maximum number of calls that run at the same time; `None`: as many as the backend has room
    /// for.
    pub max_parallel: Option<NonZeroUsize>,
    /// Limits of each call.
    pub limits: Limits,
    /// True if a user or a document set the memory limit. Calls then start only while that much
    /// memory is available for each of them.
    pub reserves_memory: bool,
    /// Number of CPUs that a call counts as when calls are admitted; default 1.
    pub n_cpus: NonZeroUsize,
    /// Environment variables of each call, name and value.
    pub env: Vec<(String, String)>,
    /// Folders that each call can read, in addition to those of the run.
    pub mounts: Vec<Grant>,
    /// The task's meta, for backends that request the resources of jobs.
    pub resources: Vec<RequestedResource>,
    /// Request to start the calls from a snapshot; `None`: each call starts the module. The module
    /// was prepared accordingly. A backend without snapshots can ignore it: the results are the
    /// same.
    #[serde(default)]
    pub snapshot: Option<SnapshotSpec>,
}

/// Snapshot from which the calls of a task start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    /// Maximum time for starting the module.
    pub init_time: Duration,
    /// Folders that the module can read when it starts, of those that calls read. Tasks with the
    /// same module and folders share a snapshot.
    pub mounts: Vec<Grant>,
}

/// A key of a task's meta, unchecked: only the backend knows what it means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestedResource {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Document that has the key.
    pub file: PathBuf,
    /// JSON pointer of the value in the document.
    pub pointer: String,
}
