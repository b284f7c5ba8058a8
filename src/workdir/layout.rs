//! Names of files and folders in a work directory. All functions are pure.

use crate::event::EventLog;
use crate::model::record_names;
use crate::text::file_name::{is_safe, sanitize_string, suffixed};

/// Event log.
pub const EVENT_LOG_FILE: &str = EventLog::NAME;
/// Log of the run as text.
pub const LOG_FILE: &str = "workflow.log";
/// Report of a run.
pub const REPORT_FILE: &str = "report.html";
/// Description of a run as a Workflow Run RO-Crate.
pub const RO_CRATE_FILE: &str = "ro-crate-metadata.json";
/// Workflow of the run, for [`RO_CRATE_FILE`].
pub const RO_CRATE_WORKFLOW_FILE: &str = "ro-crate-workflow.json";
/// Records of the calls of a task, in the task's subfolder.
pub const PACKED_CALLS_FILE: &str = "calls.packed";
/// Folder for the files that jobs of a cluster share with the run.
pub const JOBS_DIR: &str = ".jobs";
/// Folder for copies of task packages that jobs of a cluster use.
pub const PACKAGES_DIR: &str = ".packages";
/// Folder for the scratch folders of running calls.
pub(super) const SCRATCH_DIR: &str = ".scratch";

/// Returns the name of a task's subfolder: `{order}_{sanitized name}`.
pub fn task_folder_name(order: u64, task_name: &str) -> String {
    let name = sanitize_string(task_name);
    if is_safe(&name) {
        format!("{order}_{name}")
    } else {
        format!("{order}_{}", suffixed(&name, task_name, 0))
    }
}

/// Returns the name of a [`PACKED_CALLS_FILE`] that a job of a cluster writes: several machines
/// cannot append to one file of a shared file system.
///
/// * `writer`: unique name of the job, of letters, digits and hyphens.
pub fn packed_calls_file_of(writer: &str) -> String {
    format!("calls.job-{writer}.packed")
}

/// Returns true if a name is [`PACKED_CALLS_FILE`], or that of a job of a cluster.
pub fn is_packed_calls_file(name: &str) -> bool {
    name == PACKED_CALLS_FILE || name.starts_with("calls.job-") && name.ends_with(".packed")
}

/// Returns the name that a damaged [`PACKED_CALLS_FILE`] gets.
///
/// * `number`: from 1; the first one that is free.
pub(super) fn damaged_packed_calls_file(number: u32) -> String {
    format!("calls.damaged-{number}.packed")
}

/// Returns true if a name can be that of a task's subfolder.
pub fn is_task_folder_name(name: &str) -> bool {
    name.split_once('_')
        .is_some_and(|(order, _)| order.parse::<u64>().is_ok())
}

/// Records of a run, apart from the files that can be created from them again.
pub(super) const RECORD_FILES: [&str; 7] = [
    EVENT_LOG_FILE,
    LOG_FILE,
    record_names::RESULT_FILE,
    record_names::METADATA_FILE,
    record_names::HISTORY_FILE,
    record_names::DATASET_FILE,
    record_names::STATUS_FILE,
];

/// Returns true if a file of this name in a work directory is one that mandelbox writes there.
#[cfg(feature = "cli")]
pub(super) fn is_record_name(name: &str) -> bool {
    let others = [
        REPORT_FILE,
        RO_CRATE_FILE,
        RO_CRATE_WORKFLOW_FILE,
        super::lock::NAME,
    ];
    let is_record = RECORD_FILES.contains(&name) || others.contains(&name);
    is_record || EventLog::is_damaged_name(name) || crate::folder::is_unfinished_name(name)
}

/// Converts the name of a workflow for use in the name of a folder.
pub fn workflow_folder_name(workflow_name: &str) -> String {
    let name = sanitize_string(workflow_name);
    if is_safe(&name) {
        name
    } else {
        suffixed(&name, workflow_name, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_plain_and_bounded_names() {
        assert_eq!(task_folder_name(0, "My Task"), "0_my_task");
        assert!(task_folder_name(7, &"n".repeat(400)).len() < 255);
    }
}
