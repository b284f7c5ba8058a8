//! The start of a run: its work directory, the records that stay open, and what a resumed run
//! finds.

use std::path::Path;
use std::sync::Arc;

use super::data_state::{
    Change, compare, folder_id, force_copy_up, is_empty, is_same_folder, scan_inputs,
};
use super::prepare::{PreparedRun, work_dir_location};
use super::resume::EarlierRun;
use crate::event::{
    EndOfLog, EventKind, EventLog, FORMAT_VERSION, InputState, Recorder, Reporter, RunStarted,
    RunTask,
};
use crate::json::{Map, Value};
use crate::model::{HostError, TaskSpec};
use crate::problem::{Location, Problems};
use crate::report::{LogFile, RunEvents};
use crate::run::Error;
use crate::text::escaped;
use crate::workdir::{WorkDir, WorkDirError};

/// A run that has started.
pub(super) struct Started {
    pub(super) work_dir: Arc<WorkDir>,
    pub(super) recorder: Recorder,
    /// `None`: this run is not resumed.
    pub(super) earlier: Option<EarlierRun>,
    pub(super) inputs: Vec<InputState>,
}

impl PreparedRun {
    /// Creates or reopens the work directory, and the records that stay open.
    pub(super) fn start(&self, reporters: Vec<Box<dyn Reporter>>) -> Result<Started, Error> {
        let output = &self.plan.output_path;
        let create_output = || {
            std::fs::create_dir_all(output)
                .map_err(HostError::file("create the output folder", output))
        };
        // The output comes first: if it cannot be created, no new work directory prevents the next
        // attempt. A resumed run first checks that its output still exists.
        if !self.options.resume {
            create_output()?;
        }
        let (work_dir, earlier, found) = self.open_work_dir()?;
        create_output()?;
        force_copy_up(output);
        let work_dir = Arc::new(work_dir);
        let is_resumed = earlier
            .as_ref()
            .is_some_and(|earlier| earlier.run.is_some());
        // Create the event log first: it marks the folder as that of a run, even if a later step
        // fails.
        let (log, end) = match &earlier {
            None => (EventLog::create(&self.work_dir)?, EndOfLog::default()),
            Some(EarlierRun { end, .. }) => (EventLog::reopen(&self.work_dir, end)?, end.clone()),
        };
        for (folder, name) in &self.packages {
            work_dir.copy_package(folder, name)?;
        }
        let mut all: Vec<Box<dyn Reporter>> = Vec::new();
        if self.options.log_file {
            let (folder, name) = (&self.work_dir, &self.logger_name);
            let log_file = match earlier.is_some() || self.options.prepared_work_dir {
                false => LogFile::create(folder, name)?,
                true => LogFile::reopen(folder, name)?,
            };
            all.push(Box::new(log_file));
        }
        if self
            .dialect
            .as_ref()
            .is_none_or(|dialect| dialect.has_early_folders())
        {
            for task in &self.plan.tasks {
                work_dir.create_task_folder(task.order, &task.name)?;
            }
        }
        all.push(Box::new(RunEvents));
        all.extend(reporters);
        let mut recorder = Recorder::resuming(log, all, end.next_seq);
        let start = if is_resumed {
            EventKind::RunResumed
        } else {
            EventKind::RunStarted
        };
        let facts = self.facts();
        let inputs = facts.inputs.clone();
        recorder.record(start(Box::new(facts)))?;
        for warning in &self.plan.warnings {
            recorder.record(EventKind::Warning {
                message: warning.to_string(),
            })?;
        }
        found
            .into_iter()
            .try_for_each(|event| recorder.record(event))?;
        for message in self.options.backend.start(&self.grants) {
            recorder.record(EventKind::Note { message })?;
        }
        recorder.flush()?;
        Ok(Started {
            work_dir,
            recorder,
            earlier,
            inputs,
        })
    }

    fn facts(&self) -> RunStarted {
        let plan = &self.plan;
        let mut folders: Vec<&Path> = plan.input_paths.iter().map(AsRef::as_ref).collect();
        folders.extend(
            plan.tasks
                .iter()
                .flat_map(|task| &task.mounts)
                .map(|mount| mount.host_path.as_path()),
        );
        // Tasks that change their inputs in place are no sign that somebody else has changed them.
        let output_id = plan.output_path.canonicalize().ok();
        folders.retain(|folder| output_id.is_none() || folder.canonicalize().ok() != output_id);
        folders.sort_unstable();
        folders.dedup();
        RunStarted {
            format_version: FORMAT_VERSION,
            mandelbox_version: env!("CARGO_PKG_VERSION").into(),
            backend: self.options.backend.name().into(),
            workflow: plan.workflow_name.clone(),
            logger_name: self.logger_name.clone(),
            work_dir: self.work_dir.clone(),
            input_paths: plan.input_paths.clone(),
            output_path: plan.output_path.clone(),
            item_kind: self.item_kind.into(),
            only: plan.only.clone(),
            input_metadata_keys: plan.input_metadata_keys.clone(),
            first_task_index: plan.task_range.map(|(first, _)| first),
            last_task_index: plan.task_range.map(|(_, last)| last),
            tasks: plan
                .tasks
                .iter()
                .map(|task| RunTask {
                    task: task.order,
                    name: task.name.clone(),
                    workflow_task: self.workflow_task(task),
                })
                .collect(),
            output: folder_id(&plan.output_path),
            inputs: scan_inputs(&folders, &self.written_folders()),
        }
    }

    fn workflow_task(&self, task: &TaskSpec) -> Option<Map<String, Value>> {
        self.dialect.as_ref()?.workflow_task(task)
    }

    /// Folders that the run itself writes to, which can be below an input.
    fn written_folders(&self) -> [&Path; 2] {
        [&self.plan.output_path, &self.work_dir]
    }

    /// Opens or creates the work directory. With an earlier run in it come warnings and notes about
    /// what was found.
    fn open_work_dir(&self) -> Result<(WorkDir, Option<EarlierRun>, Vec<EventKind>), Error> {
        let refuse = |text: String| input_error(work_dir_location(&self.work_dir), text);
        let opened = if self.options.resume {
            WorkDir::reopen(&self.work_dir)
        } else {
            WorkDir::create_in(&self.work_dir, self.options.prepared_work_dir)
        };
        let work_dir = opened.map_err(|err| match err {
            WorkDirError::Host(err) => Error::Host(err),
            // What has changed since this run was prepared.
            obstacle => refuse(obstacle.to_string()),
        })?;
        if !self.options.resume {
            return Ok((work_dir, None, Vec::new()));
        }
        let mut earlier = EarlierRun::read(&self.work_dir).map_err(|err| {
            let advice =
                "use the version of mandelbox that wrote it, or run without --resume in another \
                 work directory";
            refuse(format!("{}: {err}; {advice}", EventLog::NAME))
        })?;
        if earlier.end.is_foreign
            && !self
                .work_dir
                .join(crate::workdir::layout::LOG_FILE)
                .is_file()
        {
            return Err(refuse(format!(
                "{} is not an event log of mandelbox; name the folder of the run to resume",
                EventLog::NAME
            )));
        }
        if let Some(run) = earlier
            .run
            .as_ref()
            .filter(|run| run.workflow != self.plan.workflow_name)
        {
            let (other, this) = (escaped(&run.workflow), escaped(&self.plan.workflow_name));
            return Err(refuse(format!(
                "contains a run of the workflow \"{other}\", not of \"{this}\"; choose that run's \
                 folder, or run without \
                 --resume in a new one"
            )));
        }
        let mut found: Vec<_> = self
            .drop_unwanted_results(&mut earlier)
            .into_iter()
            .collect();
        found.extend(self.check_output(&earlier)?);
        found.extend(self.log_warnings(&earlier));
        work_dir.tidy()?;
        Ok((work_dir, Some(earlier), found))
    }

    /// Drops the results that the user does not want any more.
    fn drop_unwanted_results(&self, earlier: &mut EarlierRun) -> Option<EventKind> {
        let order = self.rerun_from?;
        let n_dropped = earlier.forget_from(order);
        let message = format!(
            "--rerun-from: {n_dropped} calls of task {order} and later tasks had succeeded and \
             run again"
        );
        Some(EventKind::Rerun { message })
    }

    /// Checks that the output is the folder that the calls wrote to whose results are reused.
    fn check_output(&self, earlier: &EarlierRun) -> Result<Option<EventKind>, Error> {
        let path = &self.plan.output_path;
        let n_done = earlier.n_done(|order| self.plan.tasks.iter().any(|task| task.order == order));
        // With another path all args are others, and no result counts.
        let Some(run) = earlier
            .run
            .as_ref()
            .filter(|run| run.output_path == *path && n_done > 0)
        else {
            return Ok(None);
        };
        let now = folder_id(path);
        let is_same = match (&run.output, &now) {
            (Some(before), Some(now)) => is_same_folder(before, now, path),
            (_, now) => now.is_some(),
        };
        let is_emptied = earlier.had_output && is_empty(path) == Some(true);
        let first = self.plan.tasks.first().map_or(0, |task| task.order);
        let refuse = |text: &str| {
            Err(input_error(
                Location::Parameter(format!("output path {}", path.display())),
                format!(
                    "{text}, but calls that are recorded as succeeded ({n_done}) wrote there; \
                     mount or restore that folder, or \
                 run all tasks again with `--rerun-from {first}`"
                ),
            ))
        };
        match now {
            None => refuse("does not exist any more"),
            Some(_) if is_emptied => refuse("is empty now"),
            Some(_) if is_same => Ok(None),
            // With `--rerun-from`, another output folder is accepted: the user has chosen the tasks
            // whose data is kept.
            Some(_) if self.rerun_from.is_some() => {
                let message = format!(
                    "output path {}: is another folder than before; the data of the tasks that \
                     are kept must be in it",
                    path.display()
                );
                Ok(Some(EventKind::Warning { message }))
            }
            Some(_) => refuse(
                "is another folder than before (if it has the data of the first tasks, \
                 `--rerun-from` with the next one \
                 keeps these)",
            ),
        }
    }

    /// Warnings about the state of the log, and about where it is from.
    fn log_warnings(&self, earlier: &EarlierRun) -> Vec<EventKind> {
        let mut texts = Vec::new();
        let kept = "it is kept as events.damaged-N.jsonl";
        if let Some(damage) = earlier.end.damage() {
            texts.push(format!(
                "{} {damage}; calls whose records are lost run again, and {kept}",
                EventLog::NAME
            ));
        }
        if earlier.end.is_headless {
            let text = "is damaged: its first line is missing, so none of its events count";
            texts.push(format!(
                "{} {text}; all calls run again, and {kept}",
                EventLog::NAME
            ));
        }
        if let Some(run) = &earlier.run
            && run.work_dir != self.work_dir
            && run.work_dir.join(EventLog::NAME).is_file()
            && run.work_dir.canonicalize().ok() != self.work_dir.canonicalize().ok()
        {
            texts.push(format!(
                "the work directory is a copy of {}; calls that run in both write to the same \
                 output",
                run.work_dir.display()
            ));
        }
        texts
            .into_iter()
            .map(|message| EventKind::Warning { message })
            .collect()
    }

    /// An input that has changed, and if there is none, one that could not be compared.
    ///
    /// * `before`: what was in the inputs when the calls ran whose results are kept.
    /// * `now`: what was in them when this run started.
    pub(super) fn changed_input(
        &self,
        before: &[InputState],
        now: &[InputState],
    ) -> (Option<String>, Option<String>) {
        let mut unknown = None;
        for before in before {
            let Some(now) = now.iter().find(|now| now.path == before.path) else {
                continue;
            };
            if (&now.digest, now.n_entries, now.is_whole)
                == (&before.digest, before.n_entries, before.is_whole)
            {
                continue;
            }
            let location = format!("input path {}", before.path.display());
            match compare(before, &self.written_folders()) {
                Change::None => {}
                Change::Changed(text) => return (Some(format!("{location}: {text}")), None),
                Change::Unknown => {
                    unknown = Some(format!(
                        "{location}: has too many entries to compare it with before"
                    ))
                }
            }
        }
        (None, unknown)
    }
}

fn input_error(location: Location, text: String) -> Error {
    let mut problems = Problems::default();
    problems.add(location, text);
    Error::Documents(problems)
}
