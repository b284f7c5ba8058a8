//! Tasks of version 2.

use serde_json::{Value, json};

use crate::{Call, create_folder, log, write};

pub(crate) fn run(name: &str, call: &Call) -> Result<(), String> {
    log(name);
    let output = match name {
        "v2_create" => create(call)?,
        "v2_mark" => mark(call)?,
        other => return Err(format!("there is no twin {other:?}")),
    };
    call.write_output(&output)
}

/// Creates three images.
fn create(call: &Call) -> Result<Value, String> {
    let mut images = Vec::new();
    for index in 0..3 {
        let url = format!("{}/{index}.zarr", call.text("zarr_dir"));
        create_folder(&url)?;
        let attributes = json!({ "well": format!("A0{index}") });
        let types = json!({ "is_3D": false });
        images.push(json!({ "zarr_url": url, "attributes": attributes, "types": types }));
    }
    Ok(json!({ "image_list_updates": images }))
}

/// Marks an image, or fails if its URL ends with `fail_on`.
fn mark(call: &Call) -> Result<Value, String> {
    let (url, fail_on) = (call.text("zarr_url"), call.text("fail_on"));
    if !fail_on.is_empty() && url.ends_with(fail_on) {
        return Err(format!("ValueError: not {url}"));
    }
    write(format!("{url}/mark"), "x")?;
    Ok(json!({ "image_list_updates": [{ "zarr_url": url, "types": { "marked": true } }] }))
}
