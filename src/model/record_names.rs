//! Names of the records of a run that the versions of Fractal define.

/// Metadata of the dataset (version 1).
pub(crate) const METADATA_FILE: &str = "metadata.json";
/// History of the dataset (version 1).
pub(crate) const HISTORY_FILE: &str = "history.json";
/// The dataset with its images (version 2).
pub(crate) const DATASET_FILE: &str = "dataset.json";
/// Status of each image for each task (version 2).
pub(crate) const STATUS_FILE: &str = "status.json";
/// Result of a run, successful or failed.
pub(crate) const RESULT_FILE: &str = "result.json";
