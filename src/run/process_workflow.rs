//! The library's main function, with the parameters of fractal-server's.

use std::path::{Path, PathBuf};

use super::prepare::{RunFailure, RunOptions, prepare};
use crate::event::Reporter;
use crate::fractal::v1::WorkflowDocument;
use crate::fractal::v1::parameters::TaskParameters;
use crate::json::{Map, Value};
use crate::model::HostError;
use crate::problem::Problems;
use crate::run::Error;
use crate::trace;

/// The parameters of Fractal's `process_workflow`, with Fractal's names and meaning.
///
/// Source: fractal-server 2.9.2, `fractal_server.app.runner.v1._local.process_workflow`.
#[derive(Clone, Debug)]
pub struct ProcessWorkflow {
    /// The workflow, of which only the tasks and the name are used.
    pub workflow: WorkflowDocument,
    /// Input paths of the first executed task.
    pub input_paths: Vec<PathBuf>,
    /// Output path of all tasks, and input of all but the first.
    pub output_path: PathBuf,
    /// Metadata at the start; not modified.
    pub input_metadata: Map<String, Value>,
    /// History at the start; kept, with new items behind it.
    pub input_history: Vec<Value>,
    /// Name of the run in the lines of `workflow.log`.
    pub logger_name: String,
    /// The work directory. It is made if it is not there, and must not hold the records of another
    /// run.
    pub workflow_dir_local: PathBuf,
    /// Nothing, or the same as `workflow_dir_local`.
    pub workflow_dir_remote: Option<PathBuf>,
    /// Ignored by the local backend.
    pub slurm_user: Option<String>,
    /// Ignored by the local backend.
    pub slurm_account: Option<String>,
    /// Ignored by the local backend.
    pub user_cache_dir: Option<String>,
    /// Ignored by the local backend.
    pub worker_init: Option<String>,
    /// First task that runs, from 0; nothing: the first.
    pub first_task_index: Option<i64>,
    /// Last task that runs, from 0, inclusive; nothing: the last.
    pub last_task_index: Option<i64>,
}

impl ProcessWorkflow {
    /// The required parameters; the others are `None`.
    pub fn new(workflow: WorkflowDocument, output_path: &Path, workflow_dir_local: &Path) -> Self {
        Self {
            input_paths: Vec::new(),
            output_path: output_path.to_owned(),
            input_metadata: Map::new(),
            input_history: Vec::new(),
            logger_name: workflow.name.clone(),
            workflow,
            workflow_dir_local: workflow_dir_local.to_owned(),
            workflow_dir_remote: None,
            slurm_user: None,
            slurm_account: None,
            user_cache_dir: None,
            worker_init: None,
            first_task_index: None,
            last_task_index: None,
        }
    }

    /// Refuses what the local backend cannot do, before anything else.
    ///
    /// # Errors
    /// [`HostError::NotImplemented`] in Fractal's words.
    pub fn check_directories(&self) -> Result<(), HostError> {
        match &self.workflow_dir_remote {
            Some(remote) if *remote != self.workflow_dir_local => {
                Err(HostError::NotImplemented(format!(
                    "Local backend does not support different directories workflow_dir_local={} \
                     and workflow_dir_remote={}",
                    self.workflow_dir_local.display(),
                    remote.display()
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Runs a workflow to its end on the calling thread and the backend's.
///
/// Returns the dataset after the run: its metadata and history are Fractal's result.
///
/// * `reporters`: told of every event, beside the records in the work directory.
///
/// # Errors
/// [`RunFailure`] with [`Error::Documents`] before anything is written; with [`Error::TaskExecution`],
/// [`Error::JobExecution`] or [`Error::Host`] and the dataset after the run has started.
pub fn process_workflow(
    arguments: &ProcessWorkflow,
    options: RunOptions,
    reporters: Vec<Box<dyn Reporter>>,
) -> Result<TaskParameters, Box<RunFailure>> {
    let _span = trace::process_workflow(&arguments.workflow.name).entered();
    arguments
        .check_directories()
        .map_err(|err| Box::new(Error::from(err).into()))?;
    let mut problems = Problems::default();
    let run = prepare(arguments, options, &mut problems);
    if !problems.is_empty() {
        return Err(Box::new(Error::Documents(problems).into()));
    }
    run.run(reporters)
}

/// [`process_workflow`] for asynchronous programs, whatever their runtime: it runs on a thread of its own.
///
/// Nothing runs before the future is polled. A future that is dropped does not end the run: cancel
/// its token.
///
/// # Errors
/// As [`process_workflow`]; [`HostError::Setup`] if no thread can be started, and if the run
/// panicked.
pub async fn process_workflow_async(
    arguments: ProcessWorkflow,
    options: RunOptions,
    reporters: Vec<Box<dyn Reporter>>,
) -> Result<TaskParameters, Box<RunFailure>> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let failed = |err: HostError| Box::new(RunFailure::from(Error::from(err)));
    let thread = std::thread::Builder::new()
        .name("mandelbox-run".to_owned())
        .spawn(move || {
            // Nobody is left to be told if the future was dropped.
            let _ = send.send(process_workflow(&arguments, options, reporters));
        });
    thread
        .map_err(HostError::setup("start a thread for the run"))
        .map_err(failed)?;
    receive
        .await
        .map_err(HostError::setup("finish the run: it panicked"))
        .map_err(failed)?
}
