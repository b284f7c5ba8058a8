//! The modules of a workflow, each read and prepared once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Policy, Program, ScriptHome, ScriptStates};
use crate::model::{Limits, ModuleFile, ModuleKind, ModuleRef, Modules, ScriptRef};
use crate::problem::{Location, Problems};

/// A module that is ready, or the reason why it cannot run.
type Loaded = Result<(ModuleRef, ModuleKind), String>;

/// Reads and prepares modules.
pub(super) struct ModuleLoader<'a> {
    policy: &'a Policy,
    modules: &'a dyn Modules,
    /// Modules read so far, or the reasons why they cannot run, by path, by whether calls have a
    /// time limit, and by whether they start from a snapshot.
    loaded: HashMap<(PathBuf, bool, bool), Loaded>,
    states: ScriptStates,
}

/// A module that a task names.
pub(super) struct WantedModule<'w> {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Limits of the calls.
    pub(super) limits: &'w Limits,
    /// Script that the module interprets; `None`: the module is the task.
    pub(super) script: Option<&'w ScriptRef>,
    /// Expected SHA-256 of the file, hexadecimal; `None`: not checked.
    pub(super) sha256: Option<&'w str>,
    /// True if calls start from a snapshot.
    pub(super) has_snapshot: bool,
    /// Location of its name in the document.
    pub(super) location: Location,
}

impl<'a> ModuleLoader<'a> {
    pub(super) fn new(policy: &'a Policy, modules: &'a dyn Modules) -> Self {
        Self {
            policy,
            modules,
            loaded: HashMap::new(),
            states: ScriptStates::default(),
        }
    }

    /// Returns the call of a script by its interpreter; `None` if the path is that of a module, or
    /// if the module next to the script replaces it.
    ///
    /// * `named`: path in the document.
    /// * `twin`: the module that replaces it, or the same path.
    ///
    /// # Errors
    /// A sentence for the user with the reason why the script cannot run.
    pub(super) fn program(
        &mut self,
        named: &Path,
        twin: &Path,
        home: ScriptHome<'_>,
    ) -> Result<Option<Program>, String> {
        if named != twin && twin.is_file() {
            return Ok(None);
        }
        match self.policy.interpreter_of(named) {
            Some(interpreter) => interpreter.program(named, home, &mut self.states).map(Some),
            None => Ok(None),
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
    ) -> Option<(ModuleRef, ModuleKind)> {
        let WantedModule {
            path,
            limits,
            script,
            sha256,
            has_snapshot,
            location,
        } = wanted;
        let (policy, modules) = (self.policy, self.modules);
        let loaded = self
            .loaded
            .entry((path.clone(), limits.wall_time.is_some(), has_snapshot))
            .or_insert_with(|| match script {
                None => {
                    let bounds = (policy.default.module_bytes, policy.compile_time);
                    read(modules, &path, limits, bounds, has_snapshot)
                }
                Some(_) => read_interpreter(modules, &path, limits, has_snapshot),
            });
        match loaded {
            Err(text) => {
                problems.add(location, format!("{text}{}", advice()));
                None
            }
            Ok((module, kind)) => {
                if script.is_some() && *kind == ModuleKind::Typed {
                    let text = format!("the interpreter `{}` must be a command", path.display());
                    problems.add(location, text);
                    return None;
                }
                let (path, found) = match script {
                    Some(script) => (&script.path, &script.sha256),
                    None => (&path, &module.sha256),
                };
                if let Some(expected) =
                    sha256.filter(|expected| !expected.eq_ignore_ascii_case(found))
                {
                    let text = format!(
                        "`{}` has SHA-256 {found}, but `meta.mandelbox.sha256` is {expected}; use \
                         the module with that digest, or correct the key",
                        path.display(),
                    );
                    problems.add(location, text);
                }
                Some((module.clone(), *kind))
            }
        }
    }
}

/// Reads a module and prepares it.
///
/// * `(max_bytes, compile_time)`: limits of the size of the file, and of the time for compiling.
fn read(
    modules: &dyn Modules,
    path: &Path,
    limits: &Limits,
    (max_bytes, compile_time): (u64, Duration),
    has_snapshot: bool,
) -> Loaded {
    let module = ModuleFile::read(path, max_bytes)?;
    let prepared = if has_snapshot {
        modules.prepare_snapshots(&module, limits, compile_time)
    } else {
        modules.prepare(&module, limits, compile_time)
    };
    let kind = prepared.map_err(|text| format!("{}: {text}", path.display()))?;
    Ok((ModuleRef::from(&module), kind))
}

/// Prepares an interpreter, which is large: it is read only if the backend does not know its file.
fn read_interpreter(
    modules: &dyn Modules,
    path: &Path,
    limits: &Limits,
    has_snapshot: bool,
) -> Loaded {
    // The limits for modules of packages do not apply: the operator names interpreters.
    let max_bytes = ModuleFile::MAX_NAMED_BYTES;
    if let Some((sha256, kind)) = modules.prepare_known(path, limits, max_bytes, has_snapshot) {
        let path = path.to_owned();
        return Ok((ModuleRef { path, sha256 }, kind));
    }
    read(
        modules,
        path,
        limits,
        (max_bytes, Duration::MAX),
        has_snapshot,
    )
}
