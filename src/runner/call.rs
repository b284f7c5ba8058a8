//! The calls of one workflow task. They are made one at a time: a task can have millions.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::parameters::ArgsText;
use crate::backend::CallEvent;
use crate::cancel::CancelToken;
use crate::event::{CallRef, EventKind, Fact};
use crate::json::{Map, Value};
use crate::outcome::Ended;
use crate::sandbox::{Grant, ModuleKind, TaskMetadata};
use crate::workdir::{CallFiles, TaskFiles, TaskLayout, WorkDir};
use crate::workflow::PlannedTask;

/// The calls of one workflow task, and what they share. All of it is their own: a thread whose guest cannot be ended may
/// outlive the run.
pub struct TaskCalls {
    pub(super) task: PlannedTask,
    pub(super) components: Option<Components>,
    pub(super) args: ArgsText,
    pub(super) metadata: TaskMetadata,
    pub(super) layout: TaskLayout,
    pub(super) work_dir: Arc<WorkDir>,
    pub(super) grants: Vec<Grant>,
    pub(super) task_files: TaskFiles,
    pub(super) keep_going: bool,
    pub(super) cancel: CancelToken,
    pub(super) free_space_bytes: u64,
    pub(super) output: Option<Arc<OutputWriter>>,
}

/// A component list, where it stands in the metadata: one of millions is not copied.
pub(super) struct Components {
    pub(super) metadata: Arc<Map<String, Value>>,
    /// Key of the list.
    pub(super) level: String,
}

impl Components {
    pub(super) fn list(&self) -> &[Value] {
        self.metadata.get(&self.level).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// Makes what takes the stdout or the stderr of a guest.
pub type OutputWriter = dyn Fn() -> Box<dyn Write + Send> + Send + Sync;

/// One call of one task.
#[derive(Clone, Debug)]
pub struct Call {
    /// Position in the component list; 0 for a single task.
    pub call_index: usize,
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
    /// A number that only this call of the workflow has, the same in every run of the same components.
    pub fn seed(&self, task_order: u64) -> u64 {
        let component = self.component.as_ref().map(Value::to_string).unwrap_or_default();
        let digest = blake3::hash(format!("{task_order} {} {component}", self.call_index).as_bytes());
        digest.as_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

impl TaskCalls {
    /// Number of calls: 1 for a single task, else the length of the component list.
    pub fn len(&self) -> usize {
        self.components.as_ref().map_or(1, |components| components.list().len())
    }

    /// Whether there is no call to make.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes one call.
    ///
    /// # Panics
    /// If `call_index` is not below [`Self::len`].
    pub fn call(&self, call_index: usize) -> Call {
        let component = self.components.as_ref().map(|components| &components.list()[call_index]);
        let files = self.layout.files(call_index, component);
        let mut argv = vec![self.task.module.file_name()];
        argv.extend(self.task.fixed_args.iter().cloned());
        if !self.is_typed() {
            let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
            argv.extend(["-j".to_owned(), path(files.args()), "--metadata-out".to_owned(), path(files.metadiff())]);
        }
        Call { call_index, component: component.cloned(), args: self.args.for_component(component), argv, files }
    }

    /// How events name a call.
    pub fn call_ref(&self, call_index: usize) -> CallRef {
        const FIRST_ATTEMPT: u32 = 1;
        let component = self.component(call_index).cloned();
        CallRef { task: self.task.order, call_index, component, attempt: FIRST_ATTEMPT }
    }

    /// What a backend tells when a call starts.
    pub fn started(&self, call_index: usize) -> CallEvent {
        CallEvent::Happened(Fact::new(EventKind::CallStarted(self.call_ref(call_index))))
    }

    /// What a backend tells when a call has ended.
    pub fn finished(&self, call_index: usize, ended: Ended) -> CallEvent {
        let Ended { outcome, figures, stderr_tail } = ended;
        let kind = EventKind::CallFinished { call: self.call_ref(call_index), outcome, figures };
        CallEvent::Finished { fact: Fact::new(kind), stderr_tail }
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
        self.components.as_ref().and_then(|components| components.list().get(call_index))
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

    /// Bytes that must be free in the work directory and in the output for a call to start; 0: not looked at.
    pub fn free_space_bytes(&self) -> u64 {
        self.free_space_bytes
    }

    /// What takes stdout and stderr of the calls, in place of their files.
    pub fn output(&self) -> Option<&OutputWriter> {
        self.output.as_deref()
    }

    /// Which calls leave their files.
    pub fn task_files(&self) -> TaskFiles {
        self.task_files
    }
}
