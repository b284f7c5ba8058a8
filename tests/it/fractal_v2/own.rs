//! Where mandelbox differs from the recordings on purpose.

use serde_json::{Value, json};

use super::case::Case;

/// How a case has to end.
pub enum Ending {
    /// The jobs as recorded, but for what [`super::compare`] leaves out.
    AsRecorded,
    /// Exit code 2, and stderr has each of these texts.
    Refused(&'static [&'static str]),
    /// The only job ends with one of these exit codes, and these are the images. Code 2 means that
    /// nothing was written.
    Images(&'static [i32], Value),
    /// The only job succeeds, does not change the images, and this is in the arguments of its call.
    Passes(&'static str, Value),
}

impl Ending {
    pub fn of(case: &Case) -> Self {
        let images = || case.dataset["images"].clone();
        match case.name.as_str() {
            // A module's path has no meaning to a shell.
            "a57-manifest-command-forbidden-char" => Self::Images(&[0], images()),
            "a54-args-not-checked" => Self::Refused(&["/task_list/0/args_parallel"]),
            // JSON has this character, so it is passed on.
            "b10-args-nul-char" => Self::Passes("a", json!("x\0y")),
            // A module that is missing is found before anything runs.
            "g20-command-not-found" => Self::Refused(&["no-such-command-mandelbox"]),
            // The first task fails, so the second does not run.
            "f14-add-sibling-prefix" => Self::Images(&[3], case.expected["better_images"].clone()),
            "i13-status-filter-unknown-value" => Self::Images(&[2, 4], images()),
            // Statuses are not kept as attributes, so an attribute with their key is not lost.
            "i14-status-attribute-lost" => Self::Images(&[0], images()),
            _ => {
                let jobs = case.expected["jobs"].as_array().into_iter().flatten();
                let mut parts = jobs.chain([&case.expected]);
                let better = case.expected["better"].as_str().unwrap_or_default();
                if parts.any(|part| part.get("refused").is_some()) || better.starts_with("refuse") {
                    Self::Refused(&[])
                } else {
                    Self::AsRecorded
                }
            }
        }
    }
}

/// Exit codes that a job may end with, by how the recorded one ended.
pub fn exit_codes(case: &Case, job: &Value) -> &'static [i32] {
    // The output is refused as one of a call, or when it is merged.
    const REJECTED: &[i32] = &[3, 4];
    if case.name.starts_with("f14-") {
        return REJECTED;
    }
    if job["status"] == "done" {
        return &[0];
    }
    let error = error_text(job);
    let is_any = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    if is_any(&["returncode=-"]) {
        &[4]
    } else if is_any(&[
        "returncode=",
        "codec can't decode",
        "Validation of",
        "argument after **",
        "Expecting ",
        "BOM",
    ]) || job["error"]["class"] == "DataError"
    {
        &[3]
    } else if is_any(&["Cannot create image", "Cannot remove missing image"]) {
        REJECTED
    } else if is_any(&["empty image list", "non-unique", "Too many"]) {
        &[4]
    } else {
        panic!("an error that was not foreseen: {error}")
    }
}

/// True if the calls of the failed task had succeeded, and the task failed after that.
pub fn failed_after_calls(job: &Value) -> bool {
    let error = error_text(job);
    let texts = ["Cannot create", "Cannot remove", "non-unique", "Too many"];
    texts.iter().any(|text| error.contains(text))
}

/// True if the guest of a call of the job was ended by a signal.
pub fn is_killed(job: &Value) -> bool {
    error_text(job).contains("returncode=-")
}

fn error_text(job: &Value) -> &str {
    let error = &job["error"];
    let texts = [&error["info"], &error["message"]];
    let texts = texts.into_iter().filter_map(Value::as_str);
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or("")
}

/// Statuses where those of fractal-server are a defect.
///
/// Source: defects W3, W16, W17, W19 and W23.
pub fn statuses(case: &Case) -> Option<Value> {
    let url = |name: &str| {
        format!(
            "{}/{name}",
            case.dataset["zarr_dir"].as_str().expect("text")
        )
    };
    match case.name.split('-').next()? {
        "e09" => Some(json!({ "0": { url("a"): "failed", url("b"): "failed" } })),
        "e11" | "e23" | "e34" | "f14" | "h02" => Some(json!({ "0": { url("a"): "failed" } })),
        "g32" => Some(json!({ "0": { url("a"): "done", url("b"): "failed", url("c"): "done" } })),
        _ => None,
    }
}

/// True if the calls have another order than those of fractal-server.
///
/// Source: defect W11.
pub fn has_other_calls(case: &Case) -> bool {
    case.name.starts_with("i11-")
}
