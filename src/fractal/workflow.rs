//! A workflow of either version of Fractal, found from the document itself.

use std::path::Path;

use super::document_kind::{DocumentKind, refuse_folder};
use super::read::read_document;
use super::{v1, v2};
use crate::json::Value;
use crate::problem::{Cursor, Problems};

/// A workflow of either version.
#[derive(Clone, Debug)]
pub enum Workflow {
    /// A workflow of version 1.
    V1(v1::WorkflowDocument),
    /// A workflow of version 2.
    V2(v2::WorkflowDocument),
}

/// Version of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

impl Workflow {
    /// Reads a workflow file. Adds problems to `problems`. The workflow that is returned may lack
    /// tasks: it must not be run unless `problems` is empty.
    ///
    /// * `default`: version of a workflow that has no keys of one version only, such as one without
    ///   tasks.
    pub fn read_into(path: &Path, default: Version, problems: &mut Problems) -> Option<Self> {
        if path.is_dir() && refuse_folder(path, problems) {
            return None;
        }
        let value = read_document(path, problems)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_value(path, folder, &value, default, problems)
    }

    /// Reads a workflow from a value, as [`Self::read_into`] does.
    ///
    /// * `file`: file for messages.
    /// * `folder`: folder that the paths of modules are relative to.
    pub fn from_value(
        file: &Path,
        folder: &Path,
        value: &Value,
        default: Version,
        problems: &mut Problems,
    ) -> Option<Self> {
        let has_tasks = value["task_list"]
            .as_array()
            .is_some_and(|tasks| !tasks.is_empty());
        let version = match DocumentKind::of(value) {
            Some(DocumentKind::WorkflowV2) => Version::V2,
            Some(DocumentKind::Workflow) if has_tasks => Version::V1,
            _ => default,
        };
        match version {
            Version::V1 => {
                v1::WorkflowDocument::from_value(file, folder, value, problems).map(Self::V1)
            }
            Version::V2 => {
                let document = Cursor::new(file, value);
                v2::WorkflowDocument::from_cursor(&document, folder, problems).map(Self::V2)
            }
        }
    }
}
