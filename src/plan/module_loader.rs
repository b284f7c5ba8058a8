//! The modules of a workflow, each read and prepared once.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Policy;
use crate::model::{Limits, ModuleFile, ModuleKind, Modules};
use crate::problem::{Location, Problems};

/// Reads and prepares modules.
pub(super) struct ModuleLoader<'a> {
    policy: &'a Policy,
    modules: &'a dyn Modules,
    /// Modules read so far, or the reasons why they cannot run, by path, by whether calls have a
    /// time limit, and by whether they start from a snapshot.
    loaded: HashMap<(PathBuf, bool, bool), Result<(ModuleFile, ModuleKind), String>>,
}

/// A module that a task names.
pub(super) struct WantedModule<'w> {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Limits of the calls.
    pub(super) limits: &'w Limits,
    /// Expected SHA-256 of the file, hexadecimal; `None`: not checked.
    pub(super) sha256: Option<&'w str>,
    /// True if calls start from a snapshot.
    pub(super) has_snapshot: bool,
    /// Where the document names it.
    pub(super) location: Location,
}

impl<'a> ModuleLoader<'a> {
    pub(super) fn new(policy: &'a Policy, modules: &'a dyn Modules) -> Self {
        Self {
            policy,
            modules,
            loaded: HashMap::new(),
        }
    }

    /// Returns a module and its kind, or adds a problem.
    ///
    /// * `advice`: returns the end of the message if the module cannot run.
    pub(super) fn load(
        &mut self,
        wanted: WantedModule<'_>,
        advice: impl Fn() -> String,
        problems: &mut Problems,
    ) -> Option<(ModuleFile, ModuleKind)> {
        let WantedModule {
            path,
            limits,
            sha256,
            has_snapshot,
            location,
        } = wanted;
        let (policy, modules) = (self.policy, self.modules);
        let loaded = self
            .loaded
            .entry((path.clone(), limits.wall_time.is_some(), has_snapshot))
            .or_insert_with(|| {
                let module = ModuleFile::read(&path, policy.default.module_bytes)?;
                let prepared = if has_snapshot {
                    modules.prepare_snapshots(&module, limits, policy.compile_time)
                } else {
                    modules.prepare(&module, limits, policy.compile_time)
                };
                let kind = prepared.map_err(|text| format!("{}: {text}", path.display()))?;
                Ok((module, kind))
            });
        match loaded {
            Err(text) => {
                problems.add(location, format!("{text}{}", advice()));
                None
            }
            Ok((module, kind)) => {
                if let Some(expected) =
                    sha256.filter(|expected| !expected.eq_ignore_ascii_case(&module.sha256))
                {
                    let text = format!(
                        "`{}` has SHA-256 {}, but `meta.mandelbox.sha256` is {expected}; use the \
                         module with that digest, or correct the key",
                        path.display(),
                        module.sha256
                    );
                    problems.add(location, text);
                }
                Some((module.clone(), *kind))
            }
        }
    }
}
