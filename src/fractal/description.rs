//! Descriptions that typed tasks give of themselves, which are entries of a manifest of version 1
//! or 2.

use std::path::Path;
use std::time::Duration;

use crate::json::{Value, parse_guest_json};
use crate::model::{Limits, ModuleFile, ModuleKind, Modules};
use crate::problem::{Location, Problems};

/// JSON pointer in the location of a problem in a description.
pub(crate) const DESCRIPTION: &str = "describe()";
/// Keys that only entries of version 1 have; it requires them.
const V1_KEYS: [&str; 2] = ["input_type", "output_type"];
/// Keys that only entries of version 2 have.
const V2_KEYS: [&str; 7] = [
    "type",
    "input_types",
    "output_types",
    "args_schema_non_parallel",
    "args_schema_parallel",
    "meta_non_parallel",
    "meta_parallel",
];

/// Asks a typed task for its description. Adds a problem to `problems` if there is none.
///
/// * `limits`: limits of calls, which also apply to the description.
/// * `compile_time`: longest time for compiling the module.
/// * `modules`: prepares the module, and runs it for its description.
pub(crate) fn describe(
    path: &Path,
    limits: &Limits,
    compile_time: Duration,
    modules: &dyn Modules,
    problems: &mut Problems,
) -> Option<Value> {
    let limits = limits.for_description();
    let described = ModuleFile::read(path, limits.module_bytes).and_then(|module| {
        match modules.prepare(&module, &limits, compile_time)? {
            ModuleKind::Typed => modules.describe(&module, &limits),
            kind => Err(format!(
                "this is a {kind}, which cannot describe itself; name the folder of its package"
            )),
        }
    });
    let description = match described {
        Ok(description) => description,
        Err(text) => {
            problems.add(Location::File(path.to_owned()), text);
            return None;
        }
    };
    match parse_guest_json(description.as_bytes()) {
        Ok(value) => Some(value),
        Err(err) => {
            let text = format!("the task's description of itself is not valid JSON: {err}");
            problems.add(location(path), text);
            None
        }
    }
}

/// Returns the location of a description as a whole.
pub(crate) fn location(path: &Path) -> Location {
    Location::Pointer {
        file: path.to_owned(),
        pointer: DESCRIPTION.to_owned(),
    }
}

/// Returns true if a description is an entry of version 2. It can be one of version 1 too.
pub(crate) fn is_v2(description: &Value) -> bool {
    has_any(description, &V2_KEYS)
}

/// Returns true if a description is an entry of version 2 only.
pub(crate) fn is_only_v2(description: &Value) -> bool {
    is_v2(description) && !has_any(description, &V1_KEYS)
}

fn has_any(description: &Value, keys: &[&str]) -> bool {
    keys.iter().any(|key| description.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_known_by_keys() {
        for (value, expected) in [
            (json!({"name": "t", "input_type": "Any"}), (false, false)),
            (json!({"name": "t", "type": "parallel"}), (true, true)),
            (
                json!({"output_type": "Any", "input_types": {}}),
                (true, false),
            ),
            (json!({}), (false, false)),
            (json!([]), (false, false)),
        ] {
            assert_eq!((is_v2(&value), is_only_v2(&value)), expected, "{value}");
        }
    }
}
