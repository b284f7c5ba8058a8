//! Single call of a task with args from a file, shared by `exec --args` and `test`.

pub(super) mod v1;
pub(super) mod v2;

use std::path::Path;

use crate::fractal::package::{TaskPackage, package_version};
use crate::fractal::read::parse_document;
use crate::fractal::v2::RESERVED_ARGUMENTS;
use crate::fractal::workflow::Version;
use crate::json::{Map, Value};
use crate::problem::{Cursor, Problems};
use crate::run::folders::real_path;

/// Parses args from JSON text. Problems go to `problems`, with `file` as their location.
pub(super) fn parse_args(
    file: &Path,
    text: &[u8],
    problems: &mut Problems,
) -> Option<Map<String, Value>> {
    let value = parse_document(file, text, problems)?;
    Cursor::new(file, &value).object(problems).cloned()
}

/// Returns the version of Fractal that a call is for: version 2 if the args have one that only its
/// runner fills in, else that of the package that contains the module, else version 1.
///
/// * `args`: args of the call.
pub(super) fn version_of(module: &Path, args: &Map<String, Value>) -> Version {
    if RESERVED_ARGUMENTS
        .iter()
        .any(|name| args.contains_key(*name))
    {
        return Version::V2;
    }
    let module = real_path(module);
    let mut folders = module.ancestors().skip(1);
    let package = folders.find(|folder| TaskPackage::is_in(folder));
    package.and_then(package_version).unwrap_or(Version::V1)
}
