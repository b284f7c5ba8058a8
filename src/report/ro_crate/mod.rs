//! `ro-crate-metadata.json`: the provenance of a run as a Provenance Run Crate, created from its
//! records.
//!
//! The crate is the work directory. It has an action for the run and one for each task of the run.
//! The calls of a task are not entities, since there can be a million of them. The task's action
//! has their counts and usage, and the task's folder has their files.

mod dataset;
mod graph;
mod images;
mod run;
mod task;
mod workflow;

use std::path::{Path, PathBuf};

use self::images::{Image, read_images};
use super::html::ReportError;
use super::workflow_tasks::read_workflow_tasks;
use crate::event::{EventLog, RunStarted, RunSummary, visit_events};
use crate::folder::write_whole;
use crate::json::{Map, Value, build_json};
use crate::workdir::layout::{RO_CRATE_FILE, RO_CRATE_WORKFLOW_FILE};

/// Ids of the run's formal parameters, named as in Fractal.
const INPUT_ID: &str = "#input_paths";
const OUTPUT_ID: &str = "#output_path";

/// Sources of a crate.
struct Records<'r> {
    summary: &'r RunSummary,
    run: &'r RunStarted,
    /// The workflow task of each task of `summary`, as far as the history has it.
    workflow_tasks: &'r [Option<Map<String, Value>>],
    /// Images of the dataset after the last task; version 2 of Fractal has them.
    images: &'r [Image],
    license: Option<&'r str>,
    /// Function that looks up a path of the records.
    path_kind: &'r dyn Fn(&Path) -> Option<PathKind>,
}

/// Result of looking up a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathKind {
    File { n_bytes: u64 },
    Folder,
}

/// Writes RO-Crate metadata to the work directory of a run that is not running. Next to it, writes
/// the workflow, as far as the records have it. Returns the path of the metadata.
///
/// * `license`: license of the dataset, a URL or a text. RO-Crate requires a license, so `None`
///   becomes a text that no license was given.
///
/// # Errors
/// [`ReportError`]: the event log does not exist or is damaged, or the files cannot be written.
pub fn write_ro_crate(work_dir: &Path, license: Option<&str>) -> Result<PathBuf, ReportError> {
    let log = work_dir.join(EventLog::NAME);
    let mut summary = RunSummary::default();
    let read = visit_events(&log, |event| summary.add(&event));
    let end = read.map_err(|error| ReportError::Log {
        path: log.clone(),
        error,
    })?;
    summary.note_damage(&end);
    let Some(run) = summary.run.as_deref() else {
        return Err(ReportError::Empty(log));
    };
    let workflow_tasks = read_workflow_tasks(work_dir, &summary);
    let workflow = build_json(&workflow::workflow(&summary, &workflow_tasks), 2);
    let workflow_path = work_dir.join(RO_CRATE_WORKFLOW_FILE);
    write_whole(&workflow_path, &workflow).map_err(ReportError::Write)?;
    let path_kind = |path: &Path| {
        let metadata = work_dir.join(path).metadata().ok()?;
        let n_bytes = metadata.len();
        if metadata.is_dir() {
            Some(PathKind::Folder)
        } else {
            metadata.is_file().then_some(PathKind::File { n_bytes })
        }
    };
    let records = Records {
        summary: &summary,
        run,
        workflow_tasks: &workflow_tasks,
        images: &read_images(work_dir),
        license,
        path_kind: &path_kind,
    };
    let path = work_dir.join(RO_CRATE_FILE);
    write_whole(
        &path,
        &build_json(&run::build_crate(&records, &workflow), 2),
    )
    .map_err(ReportError::Write)?;
    Ok(path)
}
