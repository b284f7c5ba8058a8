//! The library's main function, with the parameters of fractal-server's.

use super::prepare::{RunFailure, RunOptions, prepare};
use crate::event::Reporter;
use crate::json::{Map, Value};
use crate::model::HostError;
use crate::plan::{Job, ProcessWorkflow};
use crate::problem::Problems;
use crate::run::Error;
use crate::trace;

/// Runs a workflow to its end on the calling thread and the backend's.
///
/// Returns the result, an object with `metadata` and `history` as Fractal has them.
///
/// * `reporters`: get every event, in addition to the records in the work directory.
///
/// # Errors
/// [`RunFailure`] with [`Error::Documents`] before anything is written; with
/// [`Error::TaskExecution`], [`Error::JobExecution`] or [`Error::Host`] and the result after the
/// run has started.
pub fn process_workflow(
    arguments: &ProcessWorkflow,
    options: RunOptions,
    reporters: Vec<Box<dyn Reporter>>,
) -> Result<Map<String, Value>, Box<RunFailure>> {
    let _span = trace::process_workflow(&arguments.workflow.name).entered();
    let mut problems = Problems::default();
    arguments.check(&mut problems).map_err(Error::from)?;
    let run = prepare(arguments, options, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Documents(problems).into());
    }
    run.execute(reporters)
}

/// [`process_workflow`] for asynchronous programs, whatever their runtime: it runs on a thread of
/// its own.
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
) -> Result<Map<String, Value>, Box<RunFailure>> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let failed = |err: HostError| Box::<RunFailure>::from(Error::from(err));
    let thread = std::thread::Builder::new()
        .name("mandelbox-run".to_owned())
        .spawn(move || {
            // Nobody waits for the result if the future was dropped.
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
