//! The builder of a run: the library's main entry.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::prepare::{PreparedRun, RunFailure, RunOptions, prepare};
use crate::backend::{Backend, Local};
use crate::event::{Event, Reporter};
use crate::json::{Map, Value};
use crate::model::{CancelToken, HostError, Retries, TaskFiles};
use crate::plan::{DatasetJob, Job, Package, Policy, ProcessWorkflow};
use crate::problem::Problems;
use crate::run::Error;
use crate::workdir::layout;

/// A run that can start: everything was checked, and nothing was written.
///
/// ```no_run
/// use mandelbox::{Run, WorkflowDocument};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let workflow = WorkflowDocument::read("workflow.json".as_ref())?;
/// let result = Run::builder(workflow)
///     .input("images")
///     .output("results")
///     .build()?
///     .execute()?;
/// println!("{}", result["metadata"]);
/// # Ok(())
/// # }
/// ```
pub struct Run {
    prepared: PreparedRun,
    reporters: Vec<Box<dyn Reporter>>,
}

impl Run {
    /// Builder of a run of a workflow of Fractal v1, or of [`ProcessWorkflow`] with more documents.
    pub fn builder(workflow: impl Into<ProcessWorkflow>) -> RunBuilder<ProcessWorkflow> {
        RunBuilder::new(workflow.into())
    }

    /// Builder of a run of a workflow of Fractal v2 on a dataset.
    ///
    /// ```no_run
    /// use mandelbox::Run;
    /// use mandelbox::v2::{DatasetDocument, DatasetJob, Package, WorkflowDocument};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let workflow = WorkflowDocument::read("workflow.json".as_ref())?;
    /// let dataset = DatasetDocument::read("dataset.json".as_ref())?;
    /// let mut job = DatasetJob::new(workflow, dataset);
    /// job.packages = Package::read_all("my-tasks".as_ref())?;
    /// let dataset = Run::dataset_builder(job).build()?.execute()?;
    /// println!("{}", dataset["images"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dataset_builder(job: DatasetJob) -> RunBuilder<DatasetJob> {
        RunBuilder::new(job)
    }

    /// The work directory, which [`Self::execute`] creates.
    pub fn work_dir(&self) -> &Path {
        &self.prepared.work_dir
    }

    /// Runs the workflow to its end, on the calling thread and those of the backend.
    ///
    /// Returns the result, as `result.json` has it: for version 1 of Fractal an object with
    /// `metadata` and `history`, for version 2 the dataset document.
    ///
    /// # Errors
    /// [`RunFailure`] with the error, and the result as far as it came.
    pub fn execute(mut self) -> Result<Map<String, Value>, Box<RunFailure>> {
        self.prepared.create_work_dir().map_err(Error::from)?;
        self.prepared.execute(self.reporters)
    }
}

/// Settings of a [`Run`].
///
/// * `J`: the documents and parameters of a version of Fractal.
#[must_use]
pub struct RunBuilder<J> {
    job: J,
    reporters: Vec<Box<dyn Reporter>>,
    backend: Option<Arc<dyn Backend>>,
    max_parallel: usize,
    policy: Policy,
    cancel: CancelToken,
    resume: bool,
    keep_going: bool,
    task_files: TaskFiles,
    retries: Retries,
    log_file: bool,
    prepared_work_dir: bool,
    input_in_output: bool,
}

impl RunBuilder<ProcessWorkflow> {
    /// Adds a folder that the first task reads.
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.job.input_paths.push(path.into());
        self
    }

    /// Sets the folder that all tasks write to; it is created if it does not exist. Required.
    pub fn output(mut self, path: impl Into<PathBuf>) -> Self {
        self.job.output_path = path.into();
        self
    }

    /// Sets the folder for the records of the run. Default: a new folder below `mandelbox-runs`.
    pub fn work_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.job.workflow_dir_local = path.into();
        self
    }

    /// Sets the metadata at the start. Default: none.
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.job.input_metadata = metadata;
        self
    }

    /// Adds a package in which the workflow's sources are looked up.
    pub fn package(mut self, package: Package) -> Self {
        self.job.packages.push(package);
        self
    }
}

impl RunBuilder<DatasetJob> {
    /// Sets the folder for the records of the run. Default: a new folder below `mandelbox-runs`.
    pub fn work_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.job.work_dir = path.into();
        self
    }
}

impl<J: Job> RunBuilder<J> {
    fn new(job: J) -> Self {
        Self {
            job,
            reporters: Vec::new(),
            backend: None,
            max_parallel: 0,
            policy: Policy::default(),
            cancel: CancelToken::new(),
            resume: false,
            keep_going: false,
            task_files: TaskFiles::default(),
            retries: Retries::default(),
            log_file: true,
            prepared_work_dir: false,
            input_in_output: false,
        }
    }

    /// Sets where calls run. Default: threads of this process, see [`Self::max_parallel`].
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Sets how many calls run at a time, where no backend is set. Default: one for each CPU.
    pub fn max_parallel(mut self, n_calls: NonZeroUsize) -> Self {
        self.max_parallel = n_calls.get();
        self
    }

    /// Sets the limits of calls, and what packages may ask for. Default: [`Policy::default`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the token that cancels the run from another thread.
    pub fn cancel_token(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Resumes the run in the work directory, reusing the results of calls that succeeded. Default:
    /// false, the work directory must be new.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Runs all calls of a task although one has failed. Default: false.
    pub fn keep_going(mut self, keep_going: bool) -> Self {
        self.keep_going = keep_going;
        self
    }

    /// Sets which calls leave their files in the work directory. Default: all.
    pub fn task_files(mut self, task_files: TaskFiles) -> Self {
        self.task_files = task_files;
        self
    }

    /// Sets how often calls that end with a JobExecutionError are retried. Default: never.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Writes no `workflow.log`, for a program with a log of its own: add [`LogLines`] as a
    /// reporter. Default: the log is written.
    ///
    /// [`LogLines`]: crate::report::LogLines
    pub fn without_log_file(mut self) -> Self {
        self.log_file = false;
        self
    }

    /// Accepts a work directory that contains `workflow.log` and folders of tasks, but no other
    /// records of a run. Default: false.
    pub fn prepared_work_dir(mut self, is_prepared: bool) -> Self {
        self.prepared_work_dir = is_prepared;
        self
    }

    /// Accepts an input inside the output, which tasks can then write to. Default: false.
    pub fn input_in_output(mut self, is_accepted: bool) -> Self {
        self.input_in_output = is_accepted;
        self
    }

    /// Adds a reader of events.
    pub fn reporter(mut self, reporter: impl Reporter + 'static) -> Self {
        self.reporters.push(Box::new(reporter));
        self
    }

    /// Calls a function with each event, in order.
    pub fn on_event(self, function: impl FnMut(&Event) + Send + 'static) -> Self {
        self.reporter(Function(function))
    }

    /// Checks the documents, the folders and the modules. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Documents`] with every problem; [`Error::Host`] if the backend cannot start.
    pub fn build(self) -> Result<Run, Error> {
        let backend: Arc<dyn Backend> = match self.backend {
            Some(backend) => backend,
            None => Arc::new(Local::new(self.max_parallel)?),
        };
        let options = RunOptions {
            policy: self.policy,
            cancel: self.cancel,
            resume: self.resume,
            keep_going: self.keep_going,
            task_files: self.task_files,
            retries: self.retries,
            log_file: self.log_file,
            prepared_work_dir: self.prepared_work_dir,
            input_in_output: self.input_in_output,
            ..RunOptions::new(backend)
        };
        let mut problems = Problems::default();
        self.job.check(&mut problems)?;
        let prepared = prepare(&self.job, options, &mut problems);
        if !problems.is_empty() {
            return Err(Error::Documents(problems));
        }
        Ok(Run {
            prepared,
            reporters: self.reporters,
        })
    }
}

/// A function that gets each event.
struct Function<F>(F);

impl<F: FnMut(&Event) + Send> Reporter for Function<F> {
    fn report(&mut self, event: &Event) -> io::Result<()> {
        (self.0)(event);
        Ok(())
    }
}

/// The work directory of a run for which none is chosen. Of runs that start within the same second
/// each gets another one when the folder is created.
pub(crate) fn default_work_dir(workflow_name: &str) -> PathBuf {
    let name = layout::workflow_folder_name(workflow_name);
    let time = Timestamp::now().strftime("%Y%m%d_%H%M%S");
    let path = Path::new("mandelbox-runs").join(format!("{name}_{time}"));
    std::path::absolute(&path).unwrap_or(path)
}

impl PreparedRun {
    /// Creates the work directory now if its name has to be a new one.
    pub(crate) fn create_work_dir(&mut self) -> Result<(), HostError> {
        if self.numbers_work_dir {
            self.work_dir = crate::workdir::WorkDir::make_new(&self.work_dir)?;
        }
        Ok(())
    }
}
