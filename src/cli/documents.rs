//! Documents named on the command line, and the policy for them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::open_files;
use super::shared_arguments::SandboxArguments;
use super::wheels::{Wheels, is_wheel};
use crate::fractal::package::TaskPackage;
use crate::fractal::package::manifest::packages_in;
use crate::fractal::v2::Package;
use crate::model::{ModuleFile, Modules};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::run::folders::real_path;

/// Time limit of compilation while a user waits: none, because the user can press Ctrl-C.
pub(super) const COMPILE_TIME: Duration = Duration::MAX;

/// Time after which a notice explains what takes so long.
pub(super) const COMPILE_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Returns the policy for a module that the user named. Problems go to `problems`.
pub(super) fn author_policy(arguments: &SandboxArguments, problems: &mut Problems) -> Policy {
    let limit = open_files::raise_limit();
    let open_files = open_files::of_a_call(limit, 1, "--jobs").unwrap_or_else(|text| {
        problems.add(Location::Parameter("ulimit -n".to_owned()), text);
        usize::MAX
    });
    let policy = arguments.policy(open_files, problems);
    for_named_module(policy, arguments)
}

/// Returns a policy with the limits for a module that the user named.
pub(super) fn for_named_module(mut policy: Policy, arguments: &SandboxArguments) -> Policy {
    policy.compile_time = COMPILE_TIME;
    if arguments.policy.is_none() {
        policy.default.module_bytes = ModuleFile::MAX_NAMED_BYTES;
        policy.maximum.module_bytes = ModuleFile::MAX_NAMED_BYTES;
    }
    policy
}

/// Reads the task packages that the command line names, and the workflow's own folder if it is a
/// package.
pub(super) struct PackageReader<'a> {
    /// Limits of typed tasks while they describe themselves.
    pub(super) policy: &'a Policy,
    /// Runs the descriptions.
    pub(super) modules: &'a dyn Modules,
    /// Unpacks wheels.
    pub(super) wheels: &'a Wheels,
}

impl PackageReader<'_> {
    /// Reads packages of version 1: folders, wheels or typed tasks. Problems go to `problems`.
    pub(super) fn read_v1(
        &self,
        named: &[PathBuf],
        workflow_folder: &Path,
        problems: &mut Problems,
    ) -> Vec<TaskPackage> {
        let mut packages = Vec::new();
        for path in package_paths(named, workflow_folder) {
            let found = if is_wheel(&path) {
                let Some(unpacked) = self.unpacked(&path, problems) else {
                    packages.push(TaskPackage::refused(&path));
                    continue;
                };
                packages_in(&unpacked)
            } else {
                vec![path]
            };
            for path in found {
                let package = if path.is_file() {
                    TaskPackage::read_module(
                        &path,
                        &self.policy.default,
                        self.policy.compile_time,
                        self.modules,
                        problems,
                    )
                } else {
                    TaskPackage::read_into(&path, problems)
                };
                packages.push(package.unwrap_or_else(|| TaskPackage::refused(&path)));
            }
        }
        packages
    }

    /// Reads packages of version 2: folders of packages or of installed packages, wheels or typed
    /// tasks. Problems go to `problems`.
    pub(super) fn read_v2(
        &self,
        named: &[PathBuf],
        workflow_folder: &Path,
        problems: &mut Problems,
    ) -> Vec<Package> {
        let mut packages = Vec::new();
        for path in package_paths(named, workflow_folder) {
            if is_wheel(&path) {
                if let Some(folder) = self.unpacked(&path, problems) {
                    packages.extend(Package::read_all_into(&folder, problems));
                }
            } else if path.is_file() {
                packages.extend(Package::read_module(
                    &path,
                    &self.policy.default,
                    self.policy.compile_time,
                    self.modules,
                    problems,
                ));
            } else {
                packages.extend(Package::read_all_into(&path, problems));
            }
        }
        packages
    }

    /// Returns the folder with the contents of a wheel, or adds a problem.
    fn unpacked(&self, path: &Path, problems: &mut Problems) -> Option<PathBuf> {
        let unpacked = self.wheels.unpack(path);
        let text = match unpacked {
            Ok(folder) => return Some(folder),
            Err(text) => text,
        };
        problems.add(Location::File(path.to_owned()), text);
        None
    }
}

/// Returns the paths of packages, each only once.
fn package_paths(named: &[PathBuf], workflow_folder: &Path) -> Vec<PathBuf> {
    let workflow_folder = if workflow_folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        workflow_folder
    };
    let own = Some(workflow_folder).filter(|folder| TaskPackage::is_in(folder));
    let mut seen = HashSet::new();
    let paths = named.iter().map(PathBuf::as_path).chain(own).map(absolute);
    paths.filter(|path| seen.insert(real_path(path))).collect()
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
