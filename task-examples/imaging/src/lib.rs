//! Ten Fractal tasks, from the image files of a plate to a table of its nuclei.
//!
//! [`tasks`] has one module a task, in the order of the workflow; [`run`] calls the one that the
//! command line names. What they share: [`name`], [`naming`], [`table`] and [`files`] say which
//! file is which plane, [`contents`] what all files of a plate contain, [`source`] reads image files, [`plate`] and [`image`] are OME-NGFF plates
//! and images on disk, [`replace`] puts a folder in place of another, [`png_file`] writes pictures.
//! The computing is in [`illumination`], [`segmentation`], [`region`] and [`sheet`], which touch no
//! file.

pub mod contents;
pub mod files;
pub mod foreign;
pub mod illumination;
pub mod image;
pub mod mosaic;
pub mod name;
pub mod naming;
pub mod plate;
pub mod png_file;
pub mod region;
pub mod replace;
pub mod segmentation;
pub mod sheet;
pub mod source;
pub mod stored;
pub mod table;
pub mod tasks;

use fractal_task::{Call, TaskError, exit_code};
use std::process::ExitCode;

/// Runs the task that the command line of this process names: `TASK -j ARGS.json --metadata-out
/// METADIFF.json`, or `TASK --args-json ARGS.json --out-json OUTPUT.json` for Fractal v2.
///
/// Returns the exit code of the process: 0, or 1 after an error, which is one line on stderr.
pub fn run() -> ExitCode {
    exit_code(Call::from_command_line().and_then(|call| tasks::call(&call)))
}

/// Wraps what a file operation says with what was done to which file.
fn about<E: std::fmt::Display>(
    action: &str,
    path: &std::path::Path,
) -> impl FnOnce(E) -> TaskError {
    move |err| TaskError::about(action, path, err)
}
