//! The calls of one task, created one at a time, since a task can have millions.

use std::sync::Arc;

use super::args_text::ArgsText;
use super::file_names::FileNames;
use crate::json::{Map, Value, type_name};
use crate::model::{Attempt, Batch, CallFiles, CallList, CallSpec, ModuleKind};

/// The calls of a single task, or of a parallel one.
pub(super) struct TaskCalls {
    /// The component list in the metadata, not copied, since it can have millions of entries.
    pub(super) components: Option<Components>,
    pub(super) args: ArgsText,
    pub(super) names: FileNames,
}

/// A component list in the metadata.
pub(super) struct Components {
    pub(super) metadata: Arc<Map<String, Value>>,
    /// Key of the list.
    pub(super) level: String,
}

impl Components {
    fn list(&self) -> &[Value] {
        let list = self.metadata.get(&self.level);
        list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl CallList for TaskCalls {
    fn len(&self) -> usize {
        match &self.components {
            None => 1,
            Some(components) => components.list().len(),
        }
    }

    fn item(&self, call_index: usize) -> Option<&Value> {
        self.components.as_ref()?.list().get(call_index)
    }

    fn files(&self, batch: &Batch, call_index: usize) -> CallFiles {
        let component = self.item(call_index);
        self.names.files(&batch.folder, call_index, component)
    }

    fn call(&self, batch: &Batch, attempt: Attempt, replaces_files: bool) -> CallSpec {
        let component = self.item(attempt.call_index);
        let files = self.files(batch, attempt.call_index);
        let mut argv = vec![batch.task.module.file_name()];
        argv.extend(batch.task.fixed_args.iter().cloned());
        if batch.task.kind != ModuleKind::Typed {
            let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
            argv.extend(["-j".to_owned(), text(files.args())]);
            argv.extend(["--metadata-out".to_owned(), text(files.output())]);
        }
        CallSpec {
            attempt,
            item: component.cloned(),
            args: self.args.for_component(component),
            argv,
            stdin: None,
            files,
            replaces_files,
        }
    }

    fn shared_args(&self) -> &str {
        self.args.shared()
    }

    fn check_output(&self, output: Value) -> Result<Option<Map<String, Value>>, String> {
        check_metadiff(output)
    }

    fn check_name(&self) -> &'static str {
        METADIFF_CHECK
    }
}

/// Name of [`check_metadiff`].
pub(crate) const METADIFF_CHECK: &str = "v1";

/// Checks the output of a call: an object, or null for none.
pub(crate) fn check_metadiff(output: Value) -> Result<Option<Map<String, Value>>, String> {
    match output {
        Value::Null => Ok(None),
        Value::Object(metadiff) => Ok(Some(metadiff)),
        other => Err(format!(
            "must be a JSON object or null, not {}",
            type_name(&other)
        )),
    }
}
