//! The calls of one batch of a task, their arguments and the names of their files.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

#[cfg(feature = "cli")]
use super::output::ITEMS;
use super::output::{TaskOutput, parse_init_output};
use crate::fractal::OUTPUT_FILE;
use crate::fractal::dialect::Calls;
use crate::json::{Map, Value};
use crate::model::{
    Attempt, Batch, CallFiles, CallList, CallSpec, FileSuffixes, ModuleKind, TaskMetadata,
    TaskSpec, WEAKENED,
};

/// The calls of a batch: one, or one for each item.
pub(super) struct TaskCalls {
    /// Text of the arguments that all calls have in common: an object.
    shared_args: String,
    /// URLs of images, or items of a parallelization list; `None`: a single call.
    items: Option<Vec<Value>>,
    /// Number of calls with the same number of a batch in the names of their files.
    calls_per_batch: Option<NonZeroUsize>,
    /// Images of a single call.
    inputs: Vec<String>,
    /// Kind of output of the calls.
    output: Output,
}

/// Kind of output of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Changes of the image list.
    Changes,
    /// A parallelization list.
    Items,
    /// One of both.
    #[cfg(feature = "cli")]
    Any,
}

#[cfg(feature = "cli")]
impl TaskCalls {
    /// Creates the only call of a task.
    ///
    /// * `args`: an object, without the keys of `item`.
    /// * `item`: its image, or its item of a parallelization list; `None`: a single call.
    pub(super) fn only(args: &Value, item: Option<Value>, output: Output) -> Self {
        Self {
            shared_args: args.to_string(),
            items: item.map(|item| vec![item]),
            calls_per_batch: None,
            inputs: Vec::new(),
            output,
        }
    }
}

/// Purpose of the calls of a batch.
pub(super) enum CallKind {
    /// A single call for images, of which a converter has none.
    Single {
        /// URLs of the images.
        inputs: Vec<String>,
        /// True if the call returns a parallelization list.
        is_init: bool,
    },
    /// A call for each URL of an image, or for each item of a parallelization list.
    Items {
        /// Name of the list.
        name: &'static str,
        /// The URLs or items.
        items: Vec<Value>,
    },
}

/// Creates the calls of a batch.
///
pub(super) fn calls_of(task: &TaskSpec, shared_args: String, kind: CallKind) -> Calls {
    let (name, items, inputs, is_init) = match kind {
        CallKind::Single { inputs, is_init } => (None, None, inputs, is_init),
        CallKind::Items { name, items } => (Some(name.to_owned()), Some(items), Vec::new(), false),
    };
    let list = TaskCalls {
        shared_args,
        items,
        calls_per_batch: task.max_parallel,
        inputs,
        output: if is_init {
            Output::Items
        } else {
            Output::Changes
        },
    };
    Calls {
        list: Arc::new(list),
        items: name,
        metadata: TaskMetadata::default(),
    }
}

/// Returns the arguments of the only call of a task, or of the first one of a compound task.
///
/// * `zarr_urls`: the selected images; `None` for a converter.
///
/// Source: conformance rules V34 and V37.
pub(super) fn single_args(
    zarr_dir: &str,
    args: &Map<String, Value>,
    zarr_urls: Option<&[String]>,
) -> String {
    let mut all = Map::new();
    all.insert("zarr_dir".to_owned(), zarr_dir.into());
    all.extend(args.clone());
    if let Some(urls) = zarr_urls {
        all.insert("zarr_urls".to_owned(), json!(urls));
    }
    Value::Object(all).to_string()
}

/// Returns the arguments of the call for an item.
///
/// * `item`: the URL of an image, or an object with `zarr_url` and `init_args`.
/// * `shared`: text of the other arguments: an object.
fn item_args(item: &Value, shared: &str) -> String {
    let own = match item {
        Value::Object(_) => item.to_string(),
        url => json!({ "zarr_url": url }).to_string(),
    };
    if shared == "{}" {
        return own;
    }
    let open = own.strip_suffix('}').expect("an object ends so");
    let rest = shared.strip_prefix('{').expect("an object begins so");
    [open, ",", rest].concat()
}

/// Returns the common start of the names of a call's files.
///
/// Source: conformance rule V53.
fn stem(call_index: Option<usize>, calls_per_batch: Option<NonZeroUsize>) -> String {
    match call_index {
        None => "non_par-".to_owned(),
        Some(index) => {
            let batch = calls_per_batch.map_or(0, |size| index / size);
            format!("par-{batch:06}-{index:07}")
        }
    }
}

impl CallList for TaskCalls {
    fn len(&self) -> usize {
        self.items.as_ref().map_or(1, Vec::len)
    }

    fn item(&self, call_index: usize) -> Option<&Value> {
        self.items.as_ref()?.get(call_index)
    }

    fn files(&self, batch: &Batch, call_index: usize) -> CallFiles {
        let call_index = self.items.as_ref().map(|_| call_index);
        CallFiles {
            folder: batch.folder.clone(),
            stem: stem(call_index, self.calls_per_batch),
            suffixes: FileSuffixes {
                args: Cow::Borrowed("-args.json"),
                output: Cow::Owned(format!("-{OUTPUT_FILE}")),
                out: Cow::Borrowed("-log.txt"),
                err: Cow::Borrowed("-log.txt"),
            },
        }
    }

    fn call(&self, batch: &Batch, attempt: Attempt, replaces_files: bool) -> CallSpec {
        let item = self.item(attempt.call_index);
        let files = self.files(batch, attempt.call_index);
        let mut argv = vec![batch.task.module.file_name()];
        argv.extend(batch.task.fixed_args.iter().cloned());
        if batch.task.kind != ModuleKind::Typed {
            let text = |path: PathBuf| path.to_string_lossy().into_owned();
            argv.extend(["--args-json".to_owned(), text(files.args())]);
            argv.extend(["--out-json".to_owned(), text(files.output())]);
        }
        CallSpec {
            attempt,
            item: item.cloned(),
            args: match item {
                Some(item) => item_args(item, &self.shared_args),
                None => self.shared_args.clone(),
            },
            argv,
            stdin: None,
            files,
            replaces_files,
        }
    }

    fn shared_args(&self) -> &str {
        &self.shared_args
    }

    /// Source: conformance rule V87.
    fn item_urls(&self, call_index: usize) -> Option<Vec<String>> {
        let Some(item) = self.item(call_index) else {
            return Some(self.inputs.clone());
        };
        let url = item.get("zarr_url").unwrap_or(item);
        Some(url.as_str().map(str::to_owned).into_iter().collect())
    }

    /// Source: conformance rules V60 to V64.
    fn check_output(&self, output: Value) -> Result<Option<Map<String, Value>>, String> {
        let is_items = match self.output {
            Output::Changes => false,
            Output::Items => true,
            #[cfg(feature = "cli")]
            Output::Any => output.get(ITEMS).is_some(),
        };
        if is_items {
            check_items(output)
        } else {
            check_changes(output)
        }
    }

    fn check_name(&self) -> &'static str {
        match self.output {
            Output::Items => ITEMS_CHECK,
            _ => CHANGES_CHECK,
        }
    }
}

/// Name of [`check_changes`].
pub(crate) const CHANGES_CHECK: &str = "v2-changes";
/// Name of [`check_items`].
pub(crate) const ITEMS_CHECK: &str = "v2-items";

/// Checks the output of a call that changes the list of images; null is none.
pub(crate) fn check_changes(output: Value) -> Result<Option<Map<String, Value>>, String> {
    if !output.is_null() && !WEAKENED {
        drop(TaskOutput::parse(&output)?);
    }
    Ok(object(output))
}

/// Checks the output of a call that returns a parallelization list; null is none.
pub(crate) fn check_items(output: Value) -> Result<Option<Map<String, Value>>, String> {
    if !output.is_null() {
        drop(parse_init_output(&output)?);
    }
    Ok(object(output))
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fractal::v2::tables::{Row, each_row};
    use crate::text::file_name::sanitize_string;

    /// The folder of a task, whose name is built as in version 1.
    fn task_folder_name(order: u64, name: &str) -> String {
        format!("{order}_{}", sanitize_string(name))
    }

    // Source: conformance rule V53.
    #[test]
    fn files_are_fractals() {
        each_row("call_files", |row: &Row| {
            let number = |index: usize| row["in"][index].as_u64().expect("a number");
            let per_batch = NonZeroUsize::new(usize::try_from(number(1)).expect("small"));
            let folder = task_folder_name(number(2), row["in"][3].as_str().expect("a name"));
            let n_calls = usize::try_from(number(0)).expect("small");
            let names = (0..n_calls)
                .map(|index| format!("/j/{folder}/{}-args.json", stem(Some(index), per_batch)));
            let names: Vec<_> = names.map(Value::String).collect();
            assert_eq!(Value::Array(names), row["ok"], "{row:?}");
        });
        assert_eq!(stem(None, None) + "-args.json", "non_par--args.json");
    }

    // Source: conformance rule V52.
    #[test]
    fn folders_are_fractals() {
        each_row("task_folder", |row: &Row| {
            let order = row["in"][0].as_u64().expect("a number");
            let name = row["in"][1].as_str().expect("a name");
            assert_eq!(task_folder_name(order, name), row.text("ok"), "{row:?}");
        });
    }

    // Source: conformance rules V34 and V35.
    #[test]
    fn args_have_the_keys_of_the_host_and_those_of_the_task() {
        let (url, item) = (json!("/z/a"), json!({"zarr_url": "/z/a", "init_args": {}}));
        assert_eq!(item_args(&url, "{}"), r#"{"zarr_url":"/z/a"}"#);
        assert_eq!(
            item_args(&url, r#"{"x":1.0}"#),
            r#"{"zarr_url":"/z/a","x":1.0}"#
        );
        assert_eq!(
            item_args(&item, r#"{"x":1}"#),
            r#"{"zarr_url":"/z/a","init_args":{},"x":1}"#
        );
        let args = json!({"x": 1}).as_object().expect("an object").clone();
        assert_eq!(
            single_args("/z", &args, Some(&["/z/a".to_owned()])),
            r#"{"zarr_dir":"/z","x":1,"zarr_urls":["/z/a"]}"#
        );
        assert_eq!(single_args("/z", &Map::new(), None), r#"{"zarr_dir":"/z"}"#);
    }
}
