//! `mandelbox worker --batch`: the calls of one job of a cluster.

use std::path::Path;
use std::sync::Arc;

use super::sandbox_options::{compiling_in_processes, worker_command};
use super::signals::{self, Signals};
use super::temporary::TemporaryFolder;
use super::{Answer, environment, open_files};
use crate::backend::{
    EXIT_REFUSED, EXIT_SUPERSEDED, Isolation, Local, Slice, SliceEnd, WorkerSettings,
};
use crate::fractal::output_check;
use crate::model::{FailureKind, HostError, ModuleFile, Modules, TaskSpec};
use crate::plan::digest_of_script;
use crate::run::exit_code;
use crate::sandbox::SandboxOptions;
use crate::workdir::WorkDir;

/// Reason why no call of the slice has started.
enum NotRun {
    /// The calls are not for this program, or their module is another one.
    Refused(String),
    /// This machine cannot run them.
    Failed(HostError),
}

impl From<HostError> for NotRun {
    fn from(err: HostError) -> Self {
        Self::Failed(err)
    }
}

/// Runs the calls of a slice. What is printed ends up in the log of the job.
pub(super) fn worker(batch: &Path, slice: usize, signals: &Signals) -> Answer {
    let _saving = signals.saving();
    match run(batch, slice, signals) {
        Ok(SliceEnd::Done(None)) => Answer::default(),
        Ok(SliceEnd::Done(Some(kind))) => Answer::text(
            String::new(),
            match kind {
                FailureKind::TaskExecution => exit_code::TASK_EXECUTION_ERROR,
                FailureKind::JobExecution => exit_code::JOB_EXECUTION_ERROR,
            },
        ),
        Ok(SliceEnd::Superseded) => {
            Answer::text("another job runs these calls\n".to_owned(), EXIT_SUPERSEDED)
        }
        Ok(SliceEnd::Cancelled) => {
            let code = signals.received().map(signals::Signal::exit_code);
            let text = "stopped; the results of its calls were saved\n".to_owned();
            Answer::text(text, code.unwrap_or(exit_code::HOST_FAILED))
        }
        Err(NotRun::Refused(text)) => Answer::text(format!("error: {text}\n"), EXIT_REFUSED),
        Err(NotRun::Failed(err)) => {
            Answer::text(format!("error: {}\n", err.chain()), exit_code::HOST_FAILED)
        }
    }
}

fn run(batch: &Path, index: usize, signals: &Signals) -> Result<SliceEnd, NotRun> {
    let mut slice = Slice::read(batch, index).map_err(NotRun::Refused)?;
    let limit = open_files::raise_limit();
    let open_files = open_files::of_a_call(limit, slice.parallel(), "parallel_tasks_per_job");
    slice.limit_open_files(open_files.map_err(NotRun::Refused)?);
    let Some(check) = output_check(slice.check_name()) else {
        let text = format!("unknown check of outputs `{}`", slice.check_name());
        return Err(NotRun::Refused(text));
    };
    let local = local(slice.settings(), slice.parallel())?;
    prepare(&local, slice.task(), slice.settings())?;
    let folder = TemporaryFolder::new("mandelbox-worker-")?;
    let work_dir = WorkDir::create(&folder.path().join("work")).map_err(HostError::from)?;
    let ended = slice.run(
        &local,
        Arc::new(work_dir),
        Box::new(check),
        environment::job_identity(),
        signals.cancel(),
    );
    Ok(ended?)
}

fn local(settings: &WorkerSettings, parallel: usize) -> Result<Local, NotRun> {
    let options = SandboxOptions {
        cache_folder: settings.cache_folder.clone(),
        deterministic: settings.deterministic,
        ..SandboxOptions::default()
    };
    let isolation = match settings.isolates_in_processes {
        false => Isolation::Thread,
        true => Isolation::Process(worker_command().map_err(NotRun::Refused)?),
    };
    let mut local = Local::with_options(parallel.max(1), &options, isolation)?;
    if !settings.interrupts_all {
        local = local.without_epochs_for_untimed_calls()?;
    }
    let local = compiling_in_processes(local, settings.compile_memory_bytes);
    Ok(local.cancel_grace_period(signals::GRACE_PERIOD))
}

/// Prepares the module of the calls, which must be the one that the run has checked.
fn prepare(local: &Local, task: &TaskSpec, settings: &WorkerSettings) -> Result<(), NotRun> {
    let path = &task.module.path;
    let refused = |text: String| NotRun::Refused(format!("{}: {text}", path.display()));
    // The limit is for modules of packages. The operator named the interpreter of a script.
    let max_bytes = match task.script {
        None => task.limits.module_bytes,
        Some(_) => ModuleFile::MAX_NAMED_BYTES,
    };
    let module = ModuleFile::read(path, max_bytes).map_err(refused)?;
    if module.sha256 != task.module.sha256 {
        return Err(refused(format!(
            "the module has changed since the run has started: its SHA-256 is {} instead of {}",
            module.sha256, task.module.sha256
        )));
    }
    check_script(task)?;
    let prepared = match &task.snapshot {
        None => local.prepare(&module, &task.limits, settings.compile_time),
        Some(_) => local.prepare_snapshots(&module, &task.limits, settings.compile_time),
    };
    let kind = prepared.map_err(refused)?;
    if kind != task.kind {
        return Err(refused("is a module of another kind".to_owned()));
    }
    local.write_cache();
    Ok(())
}

/// Checks that the script of the calls is the one that the run has checked.
fn check_script(task: &TaskSpec) -> Result<(), NotRun> {
    let Some(script) = &task.script else {
        return Ok(());
    };
    let refused = |text: String| NotRun::Refused(format!("{}: {text}", script.path.display()));
    let sha256 = digest_of_script(&script.path).map_err(refused)?;
    if sha256 != script.sha256 {
        return Err(refused(format!(
            "the script has changed since the run has started: its SHA-256 is {sha256} instead of \
             {}",
            script.sha256
        )));
    }
    Ok(())
}
