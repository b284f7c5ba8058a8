//! Check of documents of Fractal v2.

mod dataset;
mod package;
mod workflow;

use crate::fractal::v2::Types;

pub(super) use dataset::check as check_dataset;
pub(super) use package::{add_typed_task, check as check_packages};
pub(super) use workflow::check as check_workflow;

/// Returns types as a text such as `flat=true, is_3D=false`.
fn types_text(types: &Types) -> String {
    let types: Vec<_> = types
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    types.join(", ")
}

/// Returns the images that a task gets, as a text.
fn input_text(is_converter: bool, types: &Types) -> String {
    match is_converter {
        true => "no images".to_owned(),
        false if types.is_empty() => "all images".to_owned(),
        false => format!("images with {}", types_text(types)),
    }
}
