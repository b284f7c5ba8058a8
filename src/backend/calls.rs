//! The calls of one workflow task. They are made one at a time: a task can have millions.

use std::collections::BTreeSet;
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Span;

use crate::backend::CallEvent;
use crate::backend::output_budget::MetadiffBudget;
use crate::event::{EventKind, Fact};
use crate::fractal::v1::parameters::ArgsText;
use crate::json::{Map, Value};
use crate::model::{CallRef, CancelToken, Ended, FailureKind, Grant, ModuleKind, Outcome};
use crate::plan::PlannedTask;
use crate::sandbox::TaskMetadata;
use crate::trace;
use crate::workdir::{CallFiles, TaskFiles, TaskLayout, WorkDir};

/// The calls of one workflow task, and what they share. All of it is their own: a thread whose
/// guest cannot be ended may outlive the run.
pub struct TaskCalls {
    pub(crate) task: PlannedTask,
    pub(crate) components: Option<Components>,
    pub(crate) args: ArgsText,
    pub(crate) metadata: TaskMetadata,
    pub(crate) layout: TaskLayout,
    pub(crate) work_dir: Arc<WorkDir>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) task_files: TaskFiles,
    pub(crate) keep_going: bool,
    pub(crate) cancel: CancelToken,
    pub(crate) free_space_bytes: u64,
    pub(crate) to_do: ToDo,
    pub(crate) retries: Retries,
    pub(crate) metadiffs: Arc<MetadiffBudget>,
    pub(crate) span: Span,
    pub(crate) output: Option<Arc<OutputWriter>>,
    pub(crate) seen_warnings: Arc<SeenWarnings>,
}

/// Warnings that calls gave rise to: those of a folder that a thousand calls list are one.
#[derive(Default)]
pub(crate) struct SeenWarnings(Mutex<BTreeSet<String>>);

/// Different warnings of all calls that are shown.
const MAX_WARNINGS: usize = 100;

impl SeenWarnings {
    /// The warning, if it is new and there are not too many already.
    pub(crate) fn first(&self, message: String) -> Option<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > MAX_WARNINGS || !seen.insert(message.clone()) {
            return None;
        }
        if seen.len() > MAX_WARNINGS {
            Some("calls gave more warnings, which are not shown".to_owned())
        } else {
            Some(message)
        }
    }
}

/// A component list, where it stands in the metadata: one of millions is not copied.
pub(crate) struct Components {
    pub(crate) metadata: Arc<Map<String, Value>>,
    /// Key of the list.
    pub(crate) level: String,
}

impl Components {
    pub(crate) fn list(&self) -> &[Value] {
        self.metadata
            .get(&self.level)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }
}

/// Which calls of a task are to be made.
#[derive(Clone, Debug, Default)]
pub(crate) enum ToDo {
    /// All of them, for the first time.
    #[default]
    All,
    /// These, by position in the component list, each with the number that its next attempt has.
    /// Files that an attempt before has left are replaced.
    These(Vec<(usize, u32)>),
}

/// Whether calls that end with a JobExecutionError are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many times at most; default 0.
    pub n_retries: u32,
    /// Wait before the first of them, which doubles with each one more, up to a minute; default 1
    /// s.
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
    /// The wait before a call is tried again; `None`: it is not.
    ///
    /// * `n_failed`: attempts that have failed in this run.
    fn wait(&self, n_failed: u32, outcome: &Outcome) -> Option<Duration> {
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        // A module that cannot be started will not be one the next time, nor is there more room for
        // metadiffs; who cancels wants no other attempt.
        let is_final = matches!(
            outcome,
            Outcome::Refused { .. } | Outcome::MetadiffsExceeded { .. } | Outcome::Cancelled
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

/// Makes what takes the stdout or the stderr of a guest.
pub type OutputWriter = dyn Fn() -> Box<dyn Write + Send> + Send + Sync;

/// A try of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which call: position in the component list; 0 for a single task.
    pub call_index: usize,
    /// Which try, from 1; those of earlier runs in the same work directory count.
    pub number: u32,
}

/// One call of one task.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which one, and which try of it.
    pub attempt: Attempt,
    /// The component; `None` for a single task.
    pub component: Option<Value>,
    /// The parameters, as JSON text.
    pub args: Vec<u8>,
    /// The command line that the guest sees.
    pub argv: Vec<String>,
    /// Its files in the work directory.
    pub files: CallFiles,
}

impl Call {
    /// A number that only this call of the workflow has, the same in every run of the same
    /// components.
    pub fn seed(&self, task_order: u64) -> u64 {
        let component = self
            .component
            .as_ref()
            .map(Value::to_string)
            .unwrap_or_default();
        let digest = blake3::hash(
            format!("{task_order} {} {component}", self.attempt.call_index).as_bytes(),
        );
        digest
            .as_bytes()
            .iter()
            .take(8)
            .fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

impl TaskCalls {
    /// Number of calls: 1 for a single task, else the length of the component list.
    pub fn len(&self) -> usize {
        self.components
            .as_ref()
            .map_or(1, |components| components.list().len())
    }

    /// Whether there is no call to make.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the files of a call go.
    pub(crate) fn files(&self, call_index: usize) -> CallFiles {
        self.layout.files(call_index, self.component(call_index))
    }

    /// What the args of all calls have in common, as JSON text.
    pub(crate) fn shared_args(&self) -> &[u8] {
        self.args.shared()
    }

    /// Makes one call.
    ///
    /// # Panics
    /// If its position is not below [`Self::len`].
    pub fn call(&self, attempt: Attempt) -> Call {
        let Attempt { call_index, .. } = attempt;
        let component = self
            .components
            .as_ref()
            .map(|components| &components.list()[call_index]);
        let files = self.layout.files(call_index, component);
        let mut argv = vec![self.task.module.file_name()];
        argv.extend(self.task.fixed_args.iter().cloned());
        if !self.is_typed() {
            let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
            argv.extend([
                "-j".to_owned(),
                path(files.args()),
                "--metadata-out".to_owned(),
                path(files.metadiff()),
            ]);
        }
        Call {
            attempt,
            component: component.cloned(),
            args: self.args.for_component(component),
            argv,
            files,
        }
    }

    /// Number of calls to make: [`Self::len`], but for those that were kept of an earlier run.
    pub fn n_to_make(&self) -> usize {
        match &self.to_do {
            ToDo::All => self.len(),
            ToDo::These(calls) => calls.len(),
        }
    }

    /// A call to make, for the first time in this run.
    ///
    /// * `position`: from 0, below [`Self::n_to_make`]; `None` past the last.
    pub fn attempt(&self, position: usize) -> Option<Attempt> {
        match &self.to_do {
            ToDo::All => (position < self.len()).then_some(Attempt {
                call_index: position,
                number: 1,
            }),
            ToDo::These(calls) => {
                let (call_index, number) = *calls.get(position)?;
                Some(Attempt { call_index, number })
            }
        }
    }

    /// Whether files of an earlier attempt may be where an attempt's own go.
    pub fn replaces_files(&self, attempt: Attempt) -> bool {
        attempt.number > 1 || matches!(self.to_do, ToDo::These(_))
    }

    /// How events name a call.
    pub fn call_ref(&self, attempt: Attempt) -> CallRef {
        let component = self.component(attempt.call_index).cloned();
        CallRef {
            task: self.task.order,
            call_index: attempt.call_index,
            component,
            attempt: attempt.number,
        }
    }

    /// Makes a call, and makes it again as often as it is to be tried again. What happens is told;
    /// how the last attempt ended is returned.
    ///
    /// * `run`: makes one attempt.
    /// * `tell`: gets what happens.
    ///
    /// # Errors
    /// What `tell` returned.
    pub fn make<E>(
        &self,
        first: Attempt,
        mut run: impl FnMut(Attempt) -> Ended,
        mut tell: impl FnMut(CallEvent) -> Result<(), E>,
    ) -> Result<Option<FailureKind>, E> {
        let mut attempt = first;
        loop {
            tell(CallEvent::Happened(Fact::new(EventKind::CallStarted(
                self.call_ref(attempt),
            ))))?;
            let span = trace::call(&self.span, || self.call_ref(attempt));
            let ended = span.in_scope(|| run(attempt));
            trace::call_ended(&span, &ended);
            drop(span);
            let kind = ended.outcome.failure_kind();
            let n_failed = attempt.number - first.number + 1;
            let wait = self
                .retries
                .wait(n_failed, &ended.outcome)
                .filter(|_| !self.cancel.is_cancelled());
            tell(self.finished(attempt, ended, wait))?;
            match wait {
                Some(wait) if !self.cancel.wait_for(wait) => attempt.number += 1,
                _ => return Ok(kind),
            }
        }
    }

    /// What a backend tells when an attempt has ended.
    ///
    /// * `wait`: after which another follows; `None`: it was the last.
    pub fn finished(&self, attempt: Attempt, ended: Ended, wait: Option<Duration>) -> CallEvent {
        let Ended {
            outcome,
            figures,
            stderr_tail,
        } = ended;
        let retry_in_s = wait.map(|wait| wait.as_secs_f64());
        let kind = EventKind::CallFinished {
            call: self.call_ref(attempt),
            outcome,
            figures,
            retry_in_s,
        };
        CallEvent::Finished {
            fact: Fact::new(kind),
            stderr_tail,
        }
    }

    /// Whether calls get their parameters in memory.
    pub fn is_typed(&self) -> bool {
        self.task.kind == ModuleKind::Typed
    }

    /// What calls of a typed task may fetch.
    pub fn metadata(&self) -> &TaskMetadata {
        &self.metadata
    }

    /// The workflow task.
    pub fn task(&self) -> &PlannedTask {
        &self.task
    }

    /// The component of a call; `None` for a single task.
    pub fn component(&self, call_index: usize) -> Option<&Value> {
        self.components
            .as_ref()
            .and_then(|components| components.list().get(call_index))
    }

    /// Calls that run at a time at most; `None`: as many as the backend has room for.
    pub fn window(&self) -> Option<NonZeroUsize> {
        self.task.parallel_tasks_per_job
    }

    /// Whether calls still start after one has failed.
    pub fn keeps_going(&self) -> bool {
        self.keep_going
    }

    /// Ends the run when it is cancelled.
    pub fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// The task's subfolder of the work directory.
    pub fn folder(&self) -> &std::path::Path {
        self.layout.folder()
    }

    /// Folders that every call sees beside its scratch folder.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Where the calls' files go.
    pub fn work_dir(&self) -> &WorkDir {
        &self.work_dir
    }

    /// Bytes that must be free in the work directory and in the output for a call to start; 0: not
    /// looked at.
    pub fn free_space_bytes(&self) -> u64 {
        self.free_space_bytes
    }

    /// What the metadiffs of the run may have together.
    pub(crate) fn metadiffs(&self) -> &MetadiffBudget {
        &self.metadiffs
    }

    /// The span of the task, in which those of calls are.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// What takes stdout and stderr of the calls, in place of their files.
    pub fn output(&self) -> Option<&OutputWriter> {
        self.output.as_deref()
    }

    /// Warnings of calls that were shown already.
    pub(crate) fn seen_warnings(&self) -> &Arc<SeenWarnings> {
        &self.seen_warnings
    }

    /// Which calls leave their files.
    pub fn task_files(&self) -> TaskFiles {
        self.task_files
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
            (Outcome::Succeeded { metadiff: None }, false),
            (Outcome::Exited { code: 1 }, false),
            (Outcome::Failed { message: message() }, false),
            (Outcome::BadOutput { message: message() }, false),
            (Outcome::Refused { message: message() }, false),
            (
                Outcome::MetadiffsExceeded {
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
