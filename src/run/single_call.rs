//! One call of one task, without a run around it and without its records: for authors of tasks.

use std::path::PathBuf;
use std::sync::Arc;

use tracing::Span;

use super::collected::task_failure;
use crate::backend::calls::{Components, OutputWriter, Retries, TaskCalls, ToDo};
use crate::backend::output_budget::MetadiffBudget;
use crate::backend::{Backend, CallEvent};
use crate::event::EventKind;
use crate::fractal::v1::parameters::{ArgsText, TaskParameters, visible_metadata};
use crate::json::{Map, Value};
use crate::model::{CallFailure, CancelToken, FailureKind, Grant, HostError, ModuleKind, Outcome};
use crate::plan::PlannedTask;
use crate::run::{Cancelled, Error};
use crate::sandbox::TaskMetadata;
use crate::workdir::{TaskFiles, TaskLayout, WorkDir};

/// A call that can be made.
pub struct SingleCall<'a> {
    /// The task; it is called as a parallel one if there is a component, else as a single one.
    pub task: &'a PlannedTask,
    /// The component.
    pub component: Option<&'a Value>,
    /// What the task gets beside its args.
    pub parameters: &'a TaskParameters,
    /// Names of tasks whose component calls get `metadata["image"]`.
    pub tasks_include_image: &'a [String],
    /// Folders that the guest sees beside its scratch folder.
    pub grants: &'a [Grant],
    /// Where the guest of a command finds its args and leaves its metadiff: a path in the sandbox.
    pub folder: PathBuf,
    /// Where the scratch folder is made.
    pub work_dir: Arc<WorkDir>,
    /// What takes stdout and stderr; `None`: the end of stderr is kept for the error, and no more.
    pub output: Option<Arc<OutputWriter>>,
    /// Ends the call from another thread.
    pub cancel: &'a CancelToken,
}

/// Which list the component is from makes no difference to its call.
const LEVEL: &str = "component";

/// What a call that ended well gave to the metadata; `None`: nothing.
pub type CallResult = Result<Option<Map<String, Value>>, Error>;

impl SingleCall<'_> {
    /// Makes the call.
    ///
    /// * `observe`: gets the call's start, what the task logs and how far it is, on the calling
    ///   thread.
    ///
    /// # Errors
    /// As a run's, but for those of documents: [`Error::TaskExecution`], [`Error::JobExecution`],
    /// [`Error::Cancelled`],
    /// [`Error::Host`].
    pub fn run(&self, backend: &dyn Backend, observe: &mut dyn FnMut(EventKind)) -> CallResult {
        let mut task = self.task.clone();
        task.parallelization_level = self.component.map(|_| LEVEL.to_owned());
        let components = self.component.map(|component| {
            let metadata =
                Map::from_iter([(LEVEL.to_owned(), Value::Array(vec![component.clone()]))]);
            Components {
                metadata: Arc::new(metadata),
                level: LEVEL.to_owned(),
            }
        });
        let metadata = match task.kind {
            ModuleKind::Typed => TaskMetadata::new(visible_metadata(&task, self.parameters)),
            _ => TaskMetadata::default(),
        };
        let calls = Arc::new(TaskCalls {
            args: ArgsText::new(&task, self.parameters, self.tasks_include_image),
            metadata,
            layout: TaskLayout::new(
                self.folder.clone(),
                task.order,
                components.as_ref().map(Components::list),
            ),
            task,
            components,
            work_dir: Arc::clone(&self.work_dir),
            grants: self.grants.to_vec(),
            task_files: TaskFiles::None,
            keep_going: false,
            cancel: self.cancel.clone(),
            free_space_bytes: 0,
            to_do: ToDo::All,
            retries: Retries::default(),
            metadiffs: Arc::new(MetadiffBudget::unlimited()),
            span: Span::current(),
            output: self.output.clone(),
            seen_warnings: Arc::default(),
        });
        let mut finished = None;
        backend.run_calls(&calls, &mut |event| {
            match event {
                CallEvent::Happened(fact) => observe(fact.into_kind()),
                CallEvent::Finished { fact, stderr_tail } => {
                    if let EventKind::CallFinished { outcome, .. } = fact.into_kind() {
                        finished = Some((outcome, stderr_tail));
                    }
                }
                CallEvent::Idle => {}
            }
            Ok::<_, HostError>(())
        })?;
        let no_call = || match self.cancel.is_cancelled() {
            true => Outcome::Cancelled,
            false => Outcome::HostFailed {
                message: "the backend made no call".to_owned(),
            },
        };
        let (outcome, stderr_tail) = finished.unwrap_or_else(|| (no_call(), String::new()));
        self.result(outcome, stderr_tail)
    }

    fn result(&self, outcome: Outcome, stderr_tail: String) -> CallResult {
        let kind = outcome.failure_kind();
        let is_cancelled = matches!(outcome, Outcome::Cancelled);
        let outcome = match outcome {
            Outcome::Succeeded { metadiff } => return Ok(metadiff),
            outcome => outcome,
        };
        // Who has seen all of stderr needs no end of it.
        let stderr_tail = if self.output.is_some() {
            String::new()
        } else {
            stderr_tail
        };
        let component = self.component.cloned();
        let call = CallFailure {
            call_index: 0,
            component,
            outcome,
            stderr_tail,
            stderr_path: None,
        };
        let failure = task_failure(
            self.task,
            usize::from(self.component.is_some()),
            None,
            vec![call],
        );
        Err(match kind {
            _ if is_cancelled => Error::Cancelled(Box::new(Cancelled {
                failure: *failure,
                n_calls: 1,
                n_ended_well: 0,
            })),
            Some(FailureKind::TaskExecution) => Error::TaskExecution(failure),
            _ => Error::JobExecution(failure),
        })
    }
}
