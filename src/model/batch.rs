//! Calls as plain data: the data that all calls of a batch share, and the data of each call.
//!
//! Both can be serialized, so that another process or another machine can run a call. The parts
//! that cannot be serialized (cancel token, open folders, receiver of events) are in the backend's
//! `RunContext`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{CallRef, FailureKind, Grant, Outcome, TaskMetadata, TaskSpec};
use crate::json::{Map, Value};

/// Form of the files of calls (args, output, stdout, stderr) in the work directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskFiles {
    /// [`Self::All`] for a list of up to 1,000 calls, [`Self::Packed`] for a longer one.
    #[default]
    Auto,
    /// Files for each call, as in Fractal.
    All,
    /// Files for each call that failed.
    Failed,
    /// One file for all calls of a task. Calls that failed also have files of their own.
    Packed,
    /// No files.
    None,
}

impl TaskFiles {
    /// Largest number of calls for which [`Self::Auto`] is [`Self::All`].
    pub const MAX_AUTO_ALL: usize = 1000;

    /// Decides what [`Self::Auto`] is for a list of calls. The other variants stay as they are.
    pub fn for_calls(self, n_calls: usize) -> Self {
        match self {
            Self::Auto if n_calls <= Self::MAX_AUTO_ALL => Self::All,
            Self::Auto => Self::Packed,
            decided => decided,
        }
    }
}

/// Data that all calls of a batch share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The task.
    pub task: TaskSpec,
    /// Index of the batch in its task, from 0.
    pub index: u32,
    /// Folders that every call can access, in addition to its scratch folder and the task's mounts.
    pub grants: Vec<Grant>,
    /// The task's subfolder of the work directory.
    pub folder: PathBuf,
    /// Form of the files of the calls in `folder`.
    pub task_files: TaskFiles,
    /// The metadata that a typed task may fetch.
    pub metadata: TaskMetadata,
    /// Minimum free space, in bytes, in the work directory and in the output for a call to start;
    /// 0: not checked.
    pub free_space_bytes: u64,
    /// True if calls still start after one has failed.
    pub keep_going: bool,
    /// Policy for retrying calls.
    pub retries: Retries,
}

/// One attempt of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Index of the item in its list; 0 for a single call.
    pub call_index: usize,
    /// Number of the attempt, from 1; those of earlier runs in the same work directory count.
    pub number: u32,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallSpec {
    /// Index of the call and number of the attempt.
    pub attempt: Attempt,
    /// Item that the call processes, which can be null; `None` for a single call.
    #[serde(
        default,
        deserialize_with = "some",
        skip_serializing_if = "Option::is_none"
    )]
    pub item: Option<Value>,
    /// The arguments, as JSON text; empty for a command that gets only its command line, and
    /// returns no output.
    pub args: String,
    /// Command line of the guest, starting with the module's name.
    pub argv: Vec<String>,
    /// Stdin of a command; `None`: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Files of the call in the work directory.
    pub files: CallFiles,
    /// True if files of an earlier attempt may exist, which the call replaces.
    pub replaces_files: bool,
}

/// Reads an item that exists, even if it is null.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl CallSpec {
    /// Returns a seed that is unique among the calls of the workflow, and the same in every run
    /// with the same items.
    pub fn seed(&self, batch: &Batch) -> u64 {
        let item = self.item.as_ref().map(Value::to_string).unwrap_or_default();
        let mut text = format!("{} {} {item}", batch.task.order, self.attempt.call_index);
        if batch.index > 0 {
            text.push_str(&format!(" {}", batch.index));
        }
        let digest = blake3::hash(text.as_bytes());
        let bytes = digest.as_bytes().iter().take(8);
        bytes.fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }

    /// Returns the identity of this attempt for events.
    pub fn call_ref(&self, batch: &Batch) -> CallRef {
        CallRef {
            task: batch.task.order,
            batch: batch.index,
            call_index: self.attempt.call_index,
            item: self.item.clone(),
            attempt: self.attempt.number,
        }
    }
}

/// Suffixes of the names of a call's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSuffixes {
    /// Suffix of the arguments file.
    pub args: Cow<'static, str>,
    /// Suffix of the output file.
    pub output: Cow<'static, str>,
    /// Suffix of the stdout file.
    pub out: Cow<'static, str>,
    /// Suffix of the stderr file. If it equals `out`, one file contains both streams in the order
    /// of writing.
    pub err: Cow<'static, str>,
}

/// Form of the files of a batch, for readers of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFiles {
    /// Form of the files; not [`TaskFiles::Auto`].
    pub kept: TaskFiles,
    /// Suffixes of the file names of each call.
    pub suffixes: FileSuffixes,
}

/// The files of one call, all in its task's subfolder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFiles {
    /// The task's subfolder.
    pub folder: PathBuf,
    /// Common start of the file names.
    pub stem: String,
    /// Suffixes of the file names.
    pub suffixes: FileSuffixes,
}

impl CallFiles {
    /// Returns the path of the arguments file.
    pub fn args(&self) -> PathBuf {
        self.folder.join(self.args_name())
    }

    /// Returns the path of the output file.
    pub fn output(&self) -> PathBuf {
        self.folder.join(self.output_name())
    }

    /// Returns the path of the stdout file.
    pub fn out(&self) -> PathBuf {
        self.folder.join(self.name(&self.suffixes.out))
    }

    /// Returns the path of the stderr file.
    pub fn err(&self) -> PathBuf {
        self.folder.join(self.name(&self.suffixes.err))
    }

    /// Returns true if stdout and stderr have one file.
    pub fn has_one_log(&self) -> bool {
        self.suffixes.out == self.suffixes.err
    }

    /// Returns the file name of [`Self::args`].
    pub fn args_name(&self) -> String {
        self.name(&self.suffixes.args)
    }

    /// Returns the file name of [`Self::output`].
    pub fn output_name(&self) -> String {
        self.name(&self.suffixes.output)
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.stem)
    }
}

/// The calls of a batch. Each is created on demand, since a list can have millions of items.
pub trait CallList: Send + Sync {
    /// Returns the number of calls: 1 for a single call, otherwise the length of the list of items.
    fn len(&self) -> usize;

    /// Returns true if there are no calls.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the item of a call; `None` for a single call.
    fn item(&self, call_index: usize) -> Option<&Value>;

    /// Returns the files of a call.
    ///
    /// * `call_index`: below [`Self::len`].
    fn files(&self, batch: &Batch, call_index: usize) -> CallFiles;

    /// Creates a call.
    ///
    /// * `attempt`: its call index is below [`Self::len`].
    fn call(&self, batch: &Batch, attempt: Attempt, replaces_files: bool) -> CallSpec;

    /// Returns the args that all calls have in common, as JSON text.
    fn shared_args(&self) -> &str;

    /// Returns the URLs of the items of the dataset that a call is for; `None` for a dialect whose
    /// items have no URLs.
    fn item_urls(&self, call_index: usize) -> Option<Vec<String>> {
        let _ = call_index;
        None
    }

    /// Checks the output of a call in the process that ran the call, so that an invalid output
    /// fails only this call. Returns `None` if the call gave no output.
    ///
    /// # Errors
    /// A sentence that describes what is wrong with the output.
    fn check_output(&self, output: Value) -> Result<Option<Map<String, Value>>, String>;

    /// Returns a name by which another process finds the function that [`Self::check_output`]
    /// calls.
    fn check_name(&self) -> &'static str;
}

/// Policy for retrying calls that fail with a JobExecutionError.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Maximum number of retries of a call; default 0.
    pub n_retries: u32,
    /// Wait before the first retry; default 1 s. It doubles with each further retry, up to one
    /// minute.
    pub first_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            n_retries: 0,
            first_wait: Duration::from_secs(1),
        }
    }
}

impl Retries {
    /// Returns the wait before a call is retried; `None` if it is not retried.
    ///
    /// * `n_failed`: number of failed attempts in this run.
    pub(crate) fn wait(&self, n_failed: u32, outcome: &Outcome) -> Option<Duration> {
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        // A retry cannot help if the module was refused or the outputs have no room, and it is not
        // wanted if the user cancelled the run.
        let is_final = matches!(
            outcome,
            Outcome::Refused { .. } | Outcome::OutputsExceeded { .. } | Outcome::Cancelled
        );
        if is_final
            || outcome.failure_kind() != Some(FailureKind::JobExecution)
            || n_failed > self.n_retries
        {
            return None;
        }
        let factor = 2_u32.saturating_pow(n_failed.saturating_sub(1));
        Some(self.first_wait.saturating_mul(factor).min(LONGEST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::json::{DuplicateKeys, parse_json};
    use crate::model::{
        Limits, ModuleKind, ModuleRef, RequestedResource, Rights, ScriptRef, SnapshotSpec,
    };

    /// Generates JSON values, including numbers that no machine type can hold.
    fn value() -> impl Strategy<Value = Value> {
        let number = prop_oneof!["-?(0|[1-9][0-9]{0,40})", "-?[0-9]\\.[0-9]{1,20}"];
        let parse =
            |text: String| parse_json(text.as_bytes(), DuplicateKeys::Refuse).expect("a number");
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            number.prop_map(parse),
            ".{0,4}".prop_map(Value::String)
        ];
        leaf.prop_recursive(2, 6, 3, |inner| {
            let object = vec((".{0,2}", inner.clone()), 0..3);
            let object = object.prop_map(|entries| Value::Object(entries.into_iter().collect()));
            prop_oneof![vec(inner, 0..3).prop_map(Value::Array), object]
        })
    }

    fn kind() -> impl Strategy<Value = ModuleKind> {
        // A new kind must be added below.
        let _ = |kind: ModuleKind| match kind {
            ModuleKind::CommandP1 | ModuleKind::CommandP2 | ModuleKind::Typed => {}
        };
        prop_oneof![
            Just(ModuleKind::CommandP1),
            Just(ModuleKind::CommandP2),
            Just(ModuleKind::Typed)
        ]
    }

    fn grant() -> impl Strategy<Value = Grant> {
        let rights = prop_oneof![Just(Rights::ReadOnly), Just(Rights::ReadWrite)];
        (
            "(/.{0,3}){1,2}",
            ".{0,4}",
            rights,
            any::<Option<(u64, u64)>>(),
        )
            .prop_map(|(host_path, guest_path, rights, identity)| Grant {
                identity,
                ..Grant::new(host_path.into(), guest_path, rights)
            })
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let time = of((any::<u64>(), 0..1_000_000_000_u32));
        let time = time.prop_map(|time| time.map(|(s, ns)| Duration::new(s, ns)));
        (any::<[u64; 4]>(), time, any::<usize>()).prop_map(|(bytes, wall_time, open_files)| {
            Limits {
                memory_bytes: bytes[0],
                wall_time,
                output_bytes: bytes[1],
                call_output_bytes: bytes[2],
                open_files,
                module_bytes: bytes[3],
            }
        })
    }

    fn resource() -> impl Strategy<Value = RequestedResource> {
        (".{0,4}", value(), ".{0,4}", ".{0,4}").prop_map(|(key, value, file, pointer)| {
            RequestedResource {
                key,
                value,
                file: file.into(),
                pointer,
            }
        })
    }

    fn task() -> impl Strategy<Value = TaskSpec> {
        let module = (".{0,4}", "[0-9a-f]{64}");
        let module = module.prop_map(|(path, sha256)| ModuleRef {
            path: path.into(),
            sha256,
        });
        (
            (any::<u64>(), ".{0,4}", of(value()), module, kind()),
            (vec(".{0,3}", 0..3), any::<bool>(), any::<usize>(), limits()),
            (
                of((".{0,4}", "[0-9a-f]{64}", ".{0,4}")),
                any::<bool>(),
                1..=usize::MAX,
                vec((".{0,3}", ".{0,3}"), 0..3),
                vec(grant(), 0..2),
                vec(resource(), 0..2),
                of((any::<u64>(), 0..1_000_000_000_u32, vec(grant(), 0..2))),
            ),
        )
            .prop_map(
                |(
                    (order, name, id, module, kind),
                    (fixed_args, is_single, max_parallel, limits),
                    (script, reserves_memory, n_cpus, env, mounts, resources, snapshot),
                )| TaskSpec {
                    order,
                    name,
                    // A null id counts as missing.
                    id: id.filter(|id| !id.is_null()),
                    module,
                    script: script.map(|(path, sha256, environment)| ScriptRef {
                        path: path.into(),
                        sha256,
                        environment,
                    }),
                    kind,
                    fixed_args,
                    is_single,
                    max_parallel: NonZeroUsize::new(max_parallel),
                    limits,
                    reserves_memory,
                    n_cpus: NonZeroUsize::new(n_cpus).expect("above 0"),
                    env,
                    mounts,
                    resources,
                    snapshot: snapshot.map(|(s, ns, mounts)| SnapshotSpec {
                        init_time: Duration::new(s, ns),
                        mounts,
                    }),
                },
            )
    }

    fn batch() -> impl Strategy<Value = Batch> {
        let task_files = prop_oneof![
            Just(TaskFiles::Auto),
            Just(TaskFiles::All),
            Just(TaskFiles::Failed),
            Just(TaskFiles::Packed),
            Just(TaskFiles::None)
        ];
        let metadata = vec((".{0,3}", ".{0,3}"), 0..3).prop_map(TaskMetadata::from_texts);
        (
            (task(), any::<u32>(), vec(grant(), 0..3), ".{0,4}"),
            (task_files, metadata, any::<u64>(), any::<bool>()),
            (any::<u32>(), any::<u32>()),
        )
            .prop_map(
                |(
                    (task, index, grants, folder),
                    (task_files, metadata, free_space_bytes, keep_going),
                    (n_retries, first_wait),
                )| Batch {
                    task,
                    index,
                    grants,
                    folder: folder.into(),
                    task_files,
                    metadata,
                    free_space_bytes,
                    keep_going,
                    retries: Retries {
                        n_retries,
                        first_wait: Duration::from_millis(first_wait.into()),
                    },
                },
            )
    }

    fn call() -> impl Strategy<Value = CallSpec> {
        let suffixes = (".{0,3}", ".{0,3}", ".{0,3}", ".{0,3}");
        let suffixes = suffixes.prop_map(|(args, output, out, err)| FileSuffixes {
            args: args.into(),
            output: output.into(),
            out: out.into(),
            err: err.into(),
        });
        (
            (any::<usize>(), any::<u32>(), of(value())),
            (value(), vec(".{0,4}", 0..4), of(".{0,4}"), any::<bool>()),
            (".{0,4}", ".{0,4}", suffixes),
        )
            .prop_map(
                |(
                    (call_index, number, item),
                    (args, argv, stdin, replaces_files),
                    (folder, stem, suffixes),
                )| CallSpec {
                    attempt: Attempt { call_index, number },
                    item,
                    args: args.to_string(),
                    argv,
                    stdin,
                    files: CallFiles {
                        folder: folder.into(),
                        stem,
                        suffixes,
                    },
                    replaces_files,
                },
            )
    }

    proptest! {
        #[test]
        fn batches_and_calls_survive_json(batch in batch(), call in call()) {
            let text = serde_json::to_string(&batch).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<Batch>(&text).expect("a batch"), &batch);
            let text = serde_json::to_string(&call).expect("JSON");
            let read: CallSpec = serde_json::from_str(&text).expect("a call");
            prop_assert_eq!(&read, &call);
            prop_assert_eq!(read.seed(&batch), call.seed(&batch));
        }
    }

    #[test]
    fn only_failures_that_a_retry_can_cure_are_retried() {
        let message = String::new;
        let retries = Retries {
            n_retries: 8,
            ..Retries::default()
        };
        for (outcome, is_tried) in [
            (Outcome::Trapped { message: message() }, true),
            (Outcome::TimedOut { limit_s: 1.0 }, true),
            (Outcome::Lost { message: message() }, true),
            (Outcome::HostFailed { message: message() }, true),
            (Outcome::Succeeded { output: None }, false),
            (Outcome::Exited { code: 1 }, false),
            (Outcome::Failed { message: message() }, false),
            (Outcome::BadOutput { message: message() }, false),
            (Outcome::Refused { message: message() }, false),
            (
                Outcome::OutputsExceeded {
                    limit_bytes: 1,
                    asked_bytes: 2,
                },
                false,
            ),
            (Outcome::Cancelled, false),
        ] {
            assert_eq!(retries.wait(1, &outcome).is_some(), is_tried, "{outcome:?}");
        }
        let lost = Outcome::Lost { message: message() };
        let waits: Vec<_> = (1..=9)
            .map(|n| retries.wait(n, &lost).map(|wait| wait.as_secs()))
            .collect();
        let expected = [
            Some(1),
            Some(2),
            Some(4),
            Some(8),
            Some(16),
            Some(32),
            Some(60),
            Some(60),
            None,
        ];
        assert_eq!(waits, expected);
    }
}
