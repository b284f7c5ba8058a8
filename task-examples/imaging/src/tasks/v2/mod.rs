//! The tasks as Fractal v2 calls them: for images, which have URLs, instead of for components.
//!
//! The work is that of version 1. This module reads the parameters of version 2 and writes its
//! outputs. A compound task has two names on the command line: that of its first call, which
//! returns the items, and that of the calls for the items. No two calls of a task write the same
//! file.

mod forms;
mod image_url;

use super::from_object;
use crate::about;
use fractal_task::{Call, TaskError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The names of the tasks on the command line. All but one are names of version 1, too.
pub const NAMES: [&str; 11] = [
    "create_plate",
    "convert_images",
    "choose_images",
    "estimate_illumination",
    "correct_illumination",
    "copy_structure",
    "project_maximum",
    "segment_nuclei",
    "measure_regions",
    "merge_tables",
    "contact_sheet",
];

/// What the host passes to a call, in addition to the task's own arguments.
trait Given: DeserializeOwned {
    /// The keys in the parameters.
    const KEYS: &'static [&'static str];
}

/// The dataset of a converter, and the folder that it converts.
#[derive(Debug, Deserialize)]
struct ForFolder {
    zarr_dir: String,
    /// An argument, which the other form of the task does not have.
    image_dir: String,
}

/// The selected images, for a task that is called once.
#[derive(Debug, Deserialize)]
struct ForImages {
    zarr_urls: Vec<String>,
}

/// The image of a parallel call.
#[derive(Debug, Deserialize)]
struct ForImage {
    zarr_url: String,
}

/// The item of a call, as the first call of the task returned it.
#[derive(Debug, Deserialize)]
struct ForItem<A> {
    zarr_url: String,
    init_args: A,
}

impl Given for ForFolder {
    const KEYS: &'static [&'static str] = &["zarr_dir", "image_dir"];
}

impl Given for ForImages {
    const KEYS: &'static [&'static str] = &["zarr_dir", "zarr_urls"];
}

impl Given for ForImage {
    const KEYS: &'static [&'static str] = &["zarr_url"];
}

impl<A: DeserializeOwned> Given for ForItem<A> {
    const KEYS: &'static [&'static str] = &["zarr_url", "init_args"];
}

/// Takes what the host passes out of the parameters; what is left are the arguments.
fn split<G: Given, A: DeserializeOwned>(
    mut parameters: Map<String, Value>,
) -> serde_json::Result<(G, A)> {
    let given = G::KEYS
        .iter()
        .filter_map(|key| parameters.remove_entry(*key))
        .collect();
    Ok((from_object(given)?, from_object(parameters)?))
}

/// Calls the task that the fixed argument of a call names.
///
/// # Errors
/// If there is no such task, its parameters cannot be used, or it fails.
pub(super) fn call(call: &Call) -> Result<(), TaskError> {
    match super::fixed_args(call).as_slice() {
        ["create_plate"] => run(call, forms::create_plate),
        ["convert_images"] => run(call, forms::convert_images),
        ["choose_images"] => run(call, forms::choose_images),
        ["estimate_illumination"] => run(call, forms::estimate_illumination),
        ["correct_illumination"] => run(call, forms::correct_illumination),
        ["copy_structure"] => run(call, forms::copy_structure),
        ["project_maximum"] => run(call, forms::project_maximum),
        ["segment_nuclei"] => run(call, forms::segment_nuclei),
        ["measure_regions"] => run(call, forms::measure_regions),
        ["merge_tables"] => run(call, forms::merge_tables),
        ["contact_sheet"] => run(call, forms::contact_sheet),
        other => Err(super::unknown_task(other, &NAMES, call.version)),
    }
}

fn run<G: Given, A: DeserializeOwned, O: Serialize>(
    call: &Call,
    task: impl FnOnce(G, A) -> Result<O, TaskError>,
) -> Result<(), TaskError> {
    let (given, args) = split(call.read_parameters()?)
        .map_err(about("cannot use the parameters in", &call.args_file))?;
    call.write_metadiff(&task(given, args)?)
}

#[cfg(test)]
mod tests;
