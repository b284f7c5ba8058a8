//! Names of the files and folders of a case, and of the folders that its call sees.

use crate::fractal::OUTPUT_FILE;
use crate::fractal::workflow::Version;

/// Args of the call.
pub(super) const ARGS: &str = "args.json";
/// Settings of the case.
pub(super) const SETTINGS: &str = "case.json";
/// Folder that the call can read.
pub(super) const INPUT: &str = "input";
/// Folder with the expected results.
pub(super) const EXPECTED: &str = "expected";
/// File in it for a call that must fail.
pub(super) const ERROR: &str = "error.txt";
/// Paths in the sandbox. They are the same on every machine, because outputs contain paths.
pub(super) const INPUT_PATH: &str = "/input";
pub(super) const TASK_FOLDER: &str = "/task";

/// Names of which a case contains at least one. Other folders are not cases.
pub(super) const CASE_ENTRIES: [&str; 6] = [ARGS, SETTINGS, INPUT, V1.output, V2.output, EXPECTED];

/// Names that depend on the version of Fractal.
#[derive(Debug)]
pub(super) struct Layout {
    /// Folder with the contents of the output folder: in the case before the call, in the expected
    /// results after it.
    pub(super) output: &'static str,
    /// Path of the output folder in the sandbox.
    pub(super) output_path: &'static str,
    /// File of the expected results with the output of the call.
    pub(super) call_output: &'static str,
}

const V1: Layout = Layout {
    output: "output",
    output_path: "/output",
    call_output: OUTPUT_FILE,
};

const V2: Layout = Layout {
    output: "zarr_dir",
    output_path: "/zarr_dir",
    call_output: "output.json",
};

impl Layout {
    /// Returns the names for a version.
    pub(super) fn of(version: Version) -> &'static Self {
        match version {
            Version::V1 => &V1,
            Version::V2 => &V2,
        }
    }
}
