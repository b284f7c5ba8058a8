//! Package under test: its tasks, and the folder of its cases.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::call::Tasks;
use super::tree::optional;
use crate::backend::Local;
use crate::cli::check::NO_PACKAGE;
use crate::cli::task_call::v2::CallableTask;
use crate::folder::Folder;
use crate::fractal::package::manifest::modules_in;
use crate::fractal::package::{MANIFEST, TaskPackage, package_version};
use crate::fractal::typed_package::TypedPackage;
use crate::fractal::v1::document::TaskDocument;
use crate::fractal::v2;
use crate::fractal::workflow::Version;
use crate::model::{ModuleFile, ModuleKind, Modules};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::text::unreadable;

/// Name of the folder of cases.
const CASES: &str = "tests";

/// Package that may have cases.
pub(super) struct Package {
    /// Folder of its cases; `None` if it has none.
    pub(super) cases: Option<Arc<Cases>>,
    /// Its tasks.
    pub(super) tasks: Tasks,
}

/// Folder of the cases of a package. It is opened once, so a folder that later replaces it at its
/// path is never used.
#[derive(Debug)]
pub(super) struct Cases {
    /// For messages.
    pub(super) path: PathBuf,
    pub(super) folder: Folder,
}

impl Cases {
    /// Opens the folder of the cases of a package, unless it is a link.
    fn open(package: &Path) -> io::Result<Option<Arc<Self>>> {
        let path = cases_of(package);
        let folder = Folder::open(parent_of(&path))?.open_folder(CASES);
        Ok(optional(folder)?.map(|folder| Arc::new(Self { path, folder })))
    }
}

impl Package {
    /// Reads a package: the manifest in a folder and the descriptions of the typed tasks in it, or
    /// a single typed task if the path is that of a module. Problems go to `problems`.
    pub(super) fn read(
        path: &Path,
        policy: &Policy,
        backend: &Local,
        problems: &mut Problems,
    ) -> Option<Self> {
        let described = |path: &Path, problems: &mut Problems| {
            TypedPackage::read(
                path,
                &policy.default,
                policy.compile_time,
                backend,
                problems,
            )
        };
        if !path.is_dir() {
            let tasks = match described(path, problems)? {
                TypedPackage::V1(package) => Tasks::V1(tasks_of(package)),
                TypedPackage::V2(package) => Tasks::V2(callable_tasks(package).collect()),
            };
            return Some(Self {
                cases: cases(path, problems),
                tasks,
            });
        }
        match package_version(path) {
            Some(Version::V2) => {
                return Some(Self {
                    cases: cases(path, problems),
                    tasks: Tasks::V2(all_callable_tasks(path, problems)),
                });
            }
            // A folder without a manifest can have typed tasks.
            Some(Version::V1) | None => {}
        }
        let (mut tasks, mut tasks_v2) = (Vec::new(), Vec::new());
        if TaskPackage::is_in(path) {
            tasks.extend(tasks_of(TaskPackage::read_into(path, problems)?));
        }
        for module in modules_in(path) {
            let is_named = tasks.iter().any(|task| task.module_path() == module);
            if !is_named && is_typed(&module, policy, backend) {
                match described(&module, problems) {
                    Some(TypedPackage::V1(package)) => tasks.extend(tasks_of(package)),
                    Some(TypedPackage::V2(package)) => tasks_v2.extend(callable_tasks(package)),
                    None => {}
                }
            }
        }
        let location = || Location::File(path.to_owned());
        let tasks = match (tasks.is_empty(), tasks_v2.is_empty()) {
            (true, false) => Tasks::V2(tasks_v2),
            (is_empty, true) => {
                if is_empty && problems.is_empty() {
                    problems.add(location(), NO_PACKAGE);
                }
                Tasks::V1(tasks)
            }
            (false, false) => {
                let text = "contains tasks of versions 1 and 2 of Fractal; move those of one \
                            version to another folder";
                problems.add(location(), text);
                return None;
            }
        };
        Some(Self {
            cases: cases(path, problems),
            tasks,
        })
    }
}

/// Returns the tasks of a package of version 2.
fn callable_tasks(package: v2::Package) -> impl Iterator<Item = CallableTask> {
    let folder = package.folder;
    let tasks = package.manifest.task_list.into_iter();
    tasks.map(move |task| CallableTask {
        task,
        folder: folder.clone(),
        is_described: true,
    })
}

/// Returns the tasks of the package of version 2 in a folder. Problems go to `problems`.
fn all_callable_tasks(path: &Path, problems: &mut Problems) -> Vec<CallableTask> {
    let packages = v2::Package::read_all_into(path, problems);
    let tasks: Vec<_> = packages.into_iter().flat_map(callable_tasks).collect();
    if tasks.is_empty() && problems.is_empty() {
        let text = "has no tasks; add one to its `task_list`";
        problems.add(Location::File(path.join(MANIFEST)), text);
    }
    tasks
}

fn cases(package: &Path, problems: &mut Problems) -> Option<Arc<Cases>> {
    match Cases::open(package) {
        Ok(cases) => cases,
        Err(err) => {
            problems.add(Location::File(cases_of(package)), unreadable(&err));
            None
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Returns the path of the folder of a package's cases.
pub(super) fn cases_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(CASES)
    } else {
        path.with_file_name(CASES)
    }
}

fn tasks_of(package: TaskPackage) -> Vec<TaskDocument> {
    package
        .task_list
        .into_iter()
        .map(|task| task.task)
        .collect()
}

/// Returns true if a module is a typed task. Other files in a package need not be valid modules.
fn is_typed(path: &Path, policy: &Policy, backend: &Local) -> bool {
    let limits = policy.default.for_description();
    let module = ModuleFile::read(path, limits.module_bytes);
    module.is_ok_and(|module| {
        backend.prepare(&module, &limits, policy.compile_time) == Ok(ModuleKind::Typed)
    })
}
