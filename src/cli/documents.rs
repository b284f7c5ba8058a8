//! Documents named on the command line, and the policy for them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::SandboxArguments;
use super::open_files;
use super::wheels::{Wheels, is_wheel};
use crate::fractal::package::TaskPackage;
use crate::fractal::package::manifest::packages_in;
use crate::fractal::v2::Package;
use crate::model::Modules;
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::run::folders::real_path;

/// Size limit of a module that the user names without a policy: interpreters with their libraries
/// have 100 MiB and more.
const MAX_MODULE_BYTES: u64 = 2 << 30;

/// Time limit of compilation while a user waits: none, because the user can press Ctrl-C.
pub(super) const COMPILE_TIME: Duration = Duration::MAX;

/// Time after which a notice explains what takes so long.
pub(super) const COMPILE_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Returns the policy for a module that the user named. Problems go to `problems`.
pub(super) fn author_policy(arguments: &SandboxArguments, problems: &mut Problems) -> Policy {
    let open_files = open_files::of_a_call(open_files::raise_limit(), 1).unwrap_or_else(|text| {
        problems.add(Location::Parameter("ulimit -n".to_owned()), text);
        usize::MAX
    });
    let mut policy = arguments.policy(open_files, problems);
    policy.compile_time = COMPILE_TIME;
    if arguments.policy.is_none() {
        policy.default.module_bytes = MAX_MODULE_BYTES;
        policy.maximum.module_bytes = MAX_MODULE_BYTES;
    }
    policy
}

/// Reads the named packages, which are folders, wheels or typed tasks, and the workflow's own folder
/// if it is a package. Problems go to `problems`.
///
/// * `policy`: limits of typed tasks while they describe themselves.
/// * `modules`: runs the descriptions.
/// * `wheels`: unpacks wheels.
pub(super) fn read_packages(
    named: &[PathBuf],
    workflow_folder: &Path,
    policy: &Policy,
    modules: &dyn Modules,
    wheels: &Wheels,
    problems: &mut Problems,
) -> Vec<TaskPackage> {
    let workflow_folder = if workflow_folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        workflow_folder
    };
    let own = Some(workflow_folder).filter(|folder| TaskPackage::is_in(folder));
    let mut seen = HashSet::new();
    let paths = named.iter().map(PathBuf::as_path).chain(own).map(absolute);
    let paths: Vec<_> = paths.filter(|path| seen.insert(real_path(path))).collect();
    let mut packages = Vec::new();
    for path in &paths {
        if is_wheel(path) {
            let Some(unpacked) = unpacked(path, wheels, problems) else {
                packages.push(TaskPackage::refused(path));
                continue;
            };
            for folder in packages_in(&unpacked) {
                let package = TaskPackage::read_into(&folder, problems);
                packages.push(package.unwrap_or_else(|| TaskPackage::refused(&folder)));
            }
            continue;
        }
        let package = if path.is_file() {
            TaskPackage::read_module(
                path,
                &policy.default,
                policy.compile_time,
                modules,
                problems,
            )
        } else {
            TaskPackage::read_into(path, problems)
        };
        packages.push(package.unwrap_or_else(|| TaskPackage::refused(path)));
    }
    packages
}

/// Reads the named packages of version 2, which are folders of packages or of installed packages,
/// wheels or typed tasks, and the workflow's own folder if it is a package. Problems go to
/// `problems`.
///
/// * `policy`, `modules`, `wheels`: as for [`read_packages`].
pub(super) fn read_dataset_packages(
    named: &[PathBuf],
    workflow_folder: &Path,
    policy: &Policy,
    modules: &dyn Modules,
    wheels: &Wheels,
    problems: &mut Problems,
) -> Vec<Package> {
    let workflow_folder = if workflow_folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        workflow_folder
    };
    let own = Some(workflow_folder).filter(|folder| TaskPackage::is_in(folder));
    let mut seen = HashSet::new();
    let paths = named.iter().map(PathBuf::as_path).chain(own).map(absolute);
    let mut packages = Vec::new();
    for path in paths {
        if !seen.insert(real_path(&path)) {
            continue;
        }
        if is_wheel(&path) {
            if let Some(folder) = unpacked(&path, wheels, problems) {
                packages.extend(Package::read_all_into(&folder, problems));
            }
        } else if path.is_file() {
            packages.extend(Package::read_module(
                &path,
                &policy.default,
                policy.compile_time,
                modules,
                problems,
            ));
        } else {
            packages.extend(Package::read_all_into(&path, problems));
        }
    }
    packages
}

/// Returns the folder with the contents of a wheel, or adds a problem.
fn unpacked(path: &Path, wheels: &Wheels, problems: &mut Problems) -> Option<PathBuf> {
    match wheels.unpack(path) {
        Ok(folder) => Some(folder),
        Err(text) => {
            problems.add(Location::File(path.to_owned()), text);
            None
        }
    }
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
