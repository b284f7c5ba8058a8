//! The tasks, in the order of the workflow. Each has its arguments, whose descriptions are in the
//! manifest, and its metadiff. These are the forms of version 1 of Fractal; [`v2`] has those of
//! version 2.

pub mod contact_sheet;
pub mod convert_images;
pub mod copy_structure;
pub mod correct_illumination;
pub mod create_plate;
pub mod estimate_illumination;
pub mod measure_regions;
pub mod merge_tables;
pub mod project_maximum;
pub mod segment_nuclei;
pub mod v2;

use crate::about;
use crate::name::Component;
use fractal_task::{Call, TaskError, Version};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The names of the tasks on the command line.
pub const NAMES: [&str; 10] = [
    "create_plate",
    "convert_images",
    "estimate_illumination",
    "correct_illumination",
    "copy_structure",
    "project_maximum",
    "segment_nuclei",
    "measure_regions",
    "merge_tables",
    "contact_sheet",
];

/// What the host passes to every task, beside the task's own arguments.
#[derive(Debug, Deserialize)]
pub struct Given {
    input_paths: Vec<PathBuf>,
    output_path: PathBuf,
    metadata: Metadata,
    /// Empty for a task that is called once.
    #[serde(default)]
    component: String,
}

/// What tasks use of the metadata, all from the metadiffs of tasks before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    plate: Vec<String>,
    copy_ome_zarr: copy_structure::Copies,
}

/// The arguments of a task that has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

impl Given {
    /// The plates of the metadata.
    ///
    /// # Errors
    /// If there are none, or one is no plate.
    fn plates(&self) -> Result<Vec<Component>, TaskError> {
        let plates = &self.metadata.plate;
        if plates.is_empty() {
            return Err(TaskError::new(
                "metadata.plate is missing or empty: run \"Create OME-Zarr plate\" first",
            ));
        }
        plates
            .iter()
            .map(|plate| Component::parse_plate(plate))
            .collect()
    }
}

/// Takes what the host passes to every task out of the parameters; what is left are the arguments.
fn split<A: DeserializeOwned>(
    mut parameters: Map<String, Value>,
) -> serde_json::Result<(Given, A)> {
    let given = ["input_paths", "output_path", "metadata", "component"].into_iter();
    let given = given
        .filter_map(|name| parameters.remove_entry(name))
        .collect();
    Ok((from_object(given)?, from_object(parameters)?))
}

/// Reads a type from an object. Not inlined, so that the module has this code once for the two
/// forms of a task.
#[inline(never)]
fn from_object<T: DeserializeOwned>(object: Map<String, Value>) -> serde_json::Result<T> {
    serde_json::from_value(Value::Object(object))
}

/// Calls the task that the fixed argument of a call names.
///
/// # Errors
/// If there is no such task, its parameters cannot be used, or it fails.
pub fn call(call: &Call) -> Result<(), TaskError> {
    match call.version {
        Version::V1 => call_v1(call),
        Version::V2 => v2::call(call),
    }
}

fn call_v1(call: &Call) -> Result<(), TaskError> {
    match fixed_args(call).as_slice() {
        ["create_plate"] => run(call, create_plate::create_plate),
        ["convert_images"] => run(call, convert_images::convert_images),
        ["estimate_illumination"] => run(call, estimate_illumination::estimate_illumination),
        ["correct_illumination"] => run(call, correct_illumination::correct_illumination),
        ["copy_structure"] => run(call, copy_structure::copy_structure),
        ["project_maximum"] => run(call, project_maximum::project_maximum),
        ["segment_nuclei"] => run(call, segment_nuclei::segment_nuclei),
        ["measure_regions"] => run(call, measure_regions::measure_regions),
        ["merge_tables"] => run(call, merge_tables::merge_tables),
        ["contact_sheet"] => run(call, contact_sheet::contact_sheet),
        other => Err(unknown_task(other, &NAMES, call.version)),
    }
}

fn fixed_args(call: &Call) -> Vec<&str> {
    call.fixed_args
        .iter()
        .filter_map(|arg| arg.to_str())
        .collect()
}

fn unknown_task(fixed_args: &[&str], names: &[&str], version: Version) -> TaskError {
    let [option, _] = version.options();
    let (given, names) = (fixed_args.join(" "), names.join(", "));
    TaskError::new(format!(
        "{given:?} is none of the tasks {names}; put one of them before {option}"
    ))
}

fn run<A: DeserializeOwned, M: Serialize>(
    call: &Call,
    task: impl FnOnce(&Given, A) -> Result<M, TaskError>,
) -> Result<(), TaskError> {
    let (given, args) = split(call.read_parameters()?)
        .map_err(about("cannot use the parameters in", &call.args_file))?;
    call.write_metadiff(&task(&given, args)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Vec<Value> {
        let manifest: Value =
            serde_json::from_str(include_str!("../../__FRACTAL_MANIFEST__.json")).unwrap();
        manifest["task_list"].as_array().unwrap().clone()
    }

    /// The name that a task has on the command line.
    fn command(task: &Value) -> &str {
        task["executable"]
            .as_str()
            .unwrap()
            .strip_prefix("../modules/imaging.wasm ")
            .unwrap()
    }

    #[test]
    fn the_manifest_has_all_tasks() {
        let tasks = manifest();
        assert_eq!(tasks.iter().map(command).collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn defaults_are_those_of_the_manifest() {
        let expected = json!({
            "create_plate": {
                "extensions": create_plate::default_extensions(),
                "channels": [],
                "complete": create_plate::default_complete(),
                "rgb_channels": false,
                "ngff_version": "0.4",
                "stitch": false,
                "acquisitions": [],
                "overwrite": false,
            },
            "convert_images": {
                "num_levels": convert_images::default_num_levels(),
                "chunk_size": convert_images::default_chunk_size(),
            },
            "estimate_illumination": {
                "background": estimate_illumination::default_background(),
                "max_images": estimate_illumination::default_max_images(),
            },
            "correct_illumination": {"background": estimate_illumination::default_background()},
            "copy_structure": {"suffix": copy_structure::default_suffix(), "overwrite": false},
            "project_maximum": {},
            "segment_nuclei": {
                "label_name": segment_nuclei::default_label_name(),
                "smoothing_sigma": segment_nuclei::default_smoothing_sigma(),
                "split_sigma": segment_nuclei::default_split_sigma(),
                "min_distance": segment_nuclei::default_min_distance(),
                "min_area": segment_nuclei::default_min_area(),
            },
            "measure_regions": {"label_name": segment_nuclei::default_label_name()},
            "merge_tables": {},
            "contact_sheet": {
                "label_name": segment_nuclei::default_label_name(),
                "max_width": contact_sheet::default_max_width(),
            },
        });
        for task in manifest() {
            let properties = task["args_schema"]["properties"]
                .as_object()
                .unwrap()
                .clone();
            let defaults: serde_json::Map<String, Value> = properties
                .into_iter()
                .filter_map(|(name, property)| Some((name, property.get("default")?.clone())))
                .collect();
            assert_eq!(
                Value::Object(defaults),
                expected[command(&task)],
                "{}",
                command(&task)
            );
        }
    }

    /// What a task says of args that hold one argument beside those that the host adds.
    fn said(task: &Value, name: &str, value: &Value) -> String {
        let folder = std::env::temp_dir().join(format!(
            "imaging-args-{}-{}-{name}",
            std::process::id(),
            command(task)
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let mut args =
            json!({"input_paths": [], "output_path": folder.join("none"), "metadata": {}});
        if task["meta"]["parallelization_level"].is_string() {
            args["component"] = json!("none");
        }
        args[name] = value.clone();
        let (args_file, metadiff_file) = (folder.join("args.json"), folder.join("metadiff.json"));
        std::fs::write(&args_file, args.to_string()).unwrap();
        let result = super::call(&Call {
            version: Version::V1,
            args_file,
            metadiff_file,
            fixed_args: vec![command(task).into()],
        });
        std::fs::remove_dir_all(&folder).unwrap();
        result.unwrap_err().to_string()
    }

    #[test]
    fn arguments_and_limits_are_those_of_the_manifest() {
        let mut n_limits = 0;
        for task in manifest() {
            let properties = task["args_schema"]["properties"].as_object().unwrap();
            for (name, property) in properties {
                let unknown = said(&task, &format!("{name}_"), &json!(1));
                assert!(unknown.contains("unknown field"), "{unknown}");
                for (limit, step) in [("minimum", -1.0), ("maximum", 1.0)] {
                    let Some(limit) = property.get(limit).and_then(Value::as_f64) else {
                        continue;
                    };
                    // The smallest step outside; types refuse what they cannot hold.
                    let step = if property["type"] == "number" {
                        step * 1e-7 * limit.abs().max(1.0)
                    } else {
                        step
                    };
                    let value = |value: f64| {
                        if property["type"] == "number" {
                            json!(value)
                        } else {
                            json!(value as i64)
                        }
                    };
                    let (good, bad) = (
                        said(&task, name, &value(limit)),
                        said(&task, name, &value(limit + step)),
                    );
                    assert!(!good.contains(name.as_str()), "{good}");
                    assert!(
                        bad.contains(&format!("{name} is "))
                            || bad.starts_with("cannot use the parameters in "),
                        "{bad}"
                    );
                    n_limits += 1;
                }
            }
        }
        assert_eq!(n_limits, 30);
    }

    #[test]
    fn an_unknown_task_is_named_with_those_there_are() {
        let call = |names: &[&str]| Call {
            version: Version::V1,
            args_file: "none".into(),
            metadiff_file: "none".into(),
            fixed_args: names.iter().map(Into::into).collect(),
        };
        for names in [&["segment"][..], &[], &["segment_nuclei", "more"]] {
            let error = super::call(&call(names)).unwrap_err().to_string();
            assert!(
                error.contains(&format!(
                    "{:?} is none of the tasks create_plate, ",
                    names.join(" ")
                )),
                "{error}"
            );
        }
        for name in NAMES {
            assert!(
                super::call(&call(&[name]))
                    .unwrap_err()
                    .to_string()
                    .starts_with("cannot read none"),
                "{name}"
            );
        }
    }
}
