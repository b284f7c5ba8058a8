//! Calls as plain data: what the calls of a batch share, and what each call has of its own.
//!
//! Both can be written down, so that another process or another machine can run a call. What cannot
//! be written down (cancel token, open folders, where events go) is in the backend's `RunContext`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CallRef, FailureKind, Grant, Outcome, TaskMetadata, TaskSpec};
use crate::json::{Map, Value};

/// Which calls leave their files in the work directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskFiles {
    /// All calls, as in Fractal.
    #[default]
    All,
    /// Those that fail.
    Failed,
    /// None.
    None,
}

/// What the calls of a batch share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The task.
    pub task: TaskSpec,
    /// Index of the batch in its task, from 0.
    pub index: u32,
    /// Folders that every call sees, in addition to its scratch folder and the task's mounts.
    pub grants: Vec<Grant>,
    /// The task's subfolder of the work directory.
    pub folder: PathBuf,
    /// Which calls leave their files there.
    pub task_files: TaskFiles,
    /// The metadata that a typed task may fetch.
    pub metadata: TaskMetadata,
    /// Bytes that must be free in the work directory and in the output for a call to start; 0: any.
    pub free_space_bytes: u64,
    /// True if calls still start after one has failed.
    pub keep_going: bool,
    /// How often a call is retried.
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
    /// Which call, and which attempt of it.
    pub attempt: Attempt,
    /// The item that it is for; `None` for a single call.
    pub item: Option<Value>,
    /// The arguments, as JSON text.
    pub args: String,
    /// The command line that the guest sees, the module's own name first.
    pub argv: Vec<String>,
    /// Its files in the work directory.
    pub files: CallFiles,
    /// True if files of an earlier attempt may exist, which are replaced.
    pub replaces_files: bool,
}

impl CallSpec {
    /// A number that only this call of the workflow has, the same in every run of the same items.
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

    /// How events name this attempt.
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
    /// Of the arguments.
    pub args: Cow<'static, str>,
    /// Of the output.
    pub output: Cow<'static, str>,
    /// Of stdout.
    pub out: Cow<'static, str>,
    /// Of stderr.
    pub err: Cow<'static, str>,
}

/// The files of one call, all in its task's subfolder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFiles {
    /// The task's subfolder.
    pub folder: PathBuf,
    /// What all names begin with.
    pub stem: String,
    /// What each name ends with.
    pub suffixes: FileSuffixes,
}

impl CallFiles {
    /// The arguments, as the call gets them.
    pub fn args(&self) -> PathBuf {
        self.folder.join(self.args_name())
    }

    /// The output of the call.
    pub fn output(&self) -> PathBuf {
        self.folder.join(self.output_name())
    }

    /// Its stdout.
    pub fn out(&self) -> PathBuf {
        self.folder.join(self.name(&self.suffixes.out))
    }

    /// Its stderr.
    pub fn err(&self) -> PathBuf {
        self.folder.join(self.name(&self.suffixes.err))
    }

    /// File name of [`Self::args`].
    pub fn args_name(&self) -> String {
        self.name(&self.suffixes.args)
    }

    /// File name of [`Self::output`].
    pub fn output_name(&self) -> String {
        self.name(&self.suffixes.output)
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.stem)
    }
}

/// The calls of a batch, each made when it is asked for: a list can have millions of items.
pub trait CallList: Send + Sync {
    /// Number of calls: 1 for a single call, else the length of the list of items.
    fn len(&self) -> usize;

    /// True if there is no call to make.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item of a call; `None` for a single call.
    fn item(&self, call_index: usize) -> Option<&Value>;

    /// The files of a call.
    ///
    /// * `call_index`: below [`Self::len`].
    fn files(&self, batch: &Batch, call_index: usize) -> CallFiles;

    /// One call.
    ///
    /// * `attempt`: its index is below [`Self::len`].
    fn call(&self, batch: &Batch, attempt: Attempt, replaces_files: bool) -> CallSpec;

    /// What the args of all calls have in common, as JSON text.
    fn shared_args(&self) -> &str;

    /// Checks the output of a call where the call ran, so that a bad one is an outcome of its call
    /// and of no other. Returns `None` if the call gave no output.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn check_output(&self, output: Value) -> Result<Option<Map<String, Value>>, String>;
}

/// How often calls that end with a JobExecutionError are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Most retries of a call; default 0.
    pub n_retries: u32,
    /// Wait before the first of them, which doubles with each one more, up to a minute; default 1 s.
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
    /// The wait before a call is retried; `None`: it is not.
    ///
    /// * `n_failed`: attempts that have failed in this run.
    pub(crate) fn wait(&self, n_failed: u32, outcome: &Outcome) -> Option<Duration> {
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        // A module that cannot be started will not be one the next time, nor is there more room for
        // outputs; who cancels wants no other attempt.
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
    use super::*;

    #[test]
    fn only_what_another_try_may_mend_is_tried_again() {
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
