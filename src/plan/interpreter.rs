//! Interpreters: modules that run the scripts of tasks. An interpreter is data: the suffix of its
//! scripts, a module, the folders that it reads, and the arguments before the script.
//!
//! Only the operator names an interpreter, in a policy or as an environment on the command line. A
//! document names a script, which is then mounted with the folder of its package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::script_state::{ScriptStates, digest_of_file};
use crate::model::{Grant, Rights, ScriptRef};
use crate::problem::{Location, Problems};
use crate::text::unreadable;

/// Name of the file in the folder of an environment that describes its interpreter.
pub const DESCRIPTION_FILE: &str = "interpreter.json";
/// Maximum size of the description, in bytes.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// Module that runs the scripts of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Name for messages: the folder of the environment, or the key of the policy.
    pub name: String,
    /// End of the file names of its scripts, with the dot.
    pub suffix: String,
    /// Path of the module.
    pub module: PathBuf,
    /// Folders that it reads: its library, and packages that scripts import.
    pub mounts: Vec<Grant>,
    /// Arguments before the path of the script.
    pub args: Vec<String>,
    /// Arguments in place of `args` for a check of a script; `None` if scripts are not checked. The
    /// module then prints a JSON array with one string for each problem of the script.
    pub check: Option<Vec<String>>,
    /// True if calls start from a snapshot of the module, which is made with its mounts.
    pub snapshot: bool,
}

/// The description as written, in JSON or in a policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InterpreterFile {
    suffix: String,
    module: PathBuf,
    #[serde(default)]
    mounts: BTreeMap<String, PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    check: Option<Vec<String>>,
    #[serde(default)]
    snapshot: bool,
}

impl Interpreter {
    /// Reads the interpreter of an environment: a folder with an `interpreter.json`.
    ///
    /// # Errors
    /// All problems of the description.
    pub fn read(folder: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_environment(folder, problems))
    }

    /// [`Self::read`], which adds problems to `problems`.
    pub(crate) fn read_environment(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let path = folder.join(DESCRIPTION_FILE);
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                let text = format!(
                    "is not an environment: it has no `{DESCRIPTION_FILE}`; create an environment \
                     with `python -m mandelbox.env create`"
                );
                problems.add(Location::File(folder.to_owned()), text);
                return None;
            }
            Err(err) => {
                problems.add(Location::File(path), unreadable(&err));
                return None;
            }
        };
        match serde_json::from_slice::<InterpreterFile>(&text) {
            Ok(file) => {
                let location = |key: &str| Location::Pointer {
                    file: path.clone(),
                    pointer: format!("/{key}"),
                };
                let name = folder.display().to_string();
                Self::checked(name, file, folder, location, problems)
            }
            Err(err) => {
                let location = Location::Text {
                    file: path.clone(),
                    line: err.line(),
                    column: err.column(),
                };
                problems.add(location, format!("invalid description: {err}"));
                None
            }
        }
    }

    /// Checks a description.
    ///
    /// * `folder`: folder that its paths are relative to.
    /// * `location`: returns the location of a key.
    pub(super) fn checked(
        name: String,
        file: InterpreterFile,
        folder: &Path,
        location: impl Fn(&str) -> Location,
        problems: &mut Problems,
    ) -> Option<Self> {
        let n_before = problems.len();
        if !file.suffix.starts_with('.') || file.suffix.len() < 2 || file.suffix.contains('/') {
            let text = "must be the end of a file name, such as `.py`";
            problems.add(location("suffix"), text);
        }
        let module = absolute(&folder.join(&file.module));
        if !module.is_file() {
            let text = format!("no module at `{}`; correct the path", module.display());
            problems.add(location("module"), text);
        }
        let mut mounts = Vec::new();
        for (guest_path, host_path) in &file.mounts {
            let host_path = absolute(&folder.join(host_path));
            let key = format!(
                "mounts/{}",
                guest_path.replace('~', "~0").replace('/', "~1")
            );
            if !guest_path.starts_with('/') || guest_path.split('/').any(|part| part == "..") {
                problems.add(
                    location(&key),
                    "the path in the sandbox must be absolute, without `..`",
                );
            } else if host_path.is_dir() {
                mounts.push(Grant::new(host_path, guest_path.clone(), Rights::ReadOnly));
            } else {
                let text = format!("no folder at `{}`; correct the path", host_path.display());
                problems.add(location(&key), text);
            }
        }
        (problems.len() == n_before).then_some(Self {
            name,
            suffix: file.suffix,
            module,
            mounts,
            args: file.args,
            check: file.check,
            snapshot: file.snapshot,
        })
    }

    /// Returns true if the interpreter runs the files with the name of this path.
    pub(crate) fn runs(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() > self.suffix.len() && name.ends_with(&self.suffix)
    }

    /// Prepares the call of a script.
    ///
    /// # Errors
    /// A sentence for the user with the reason why the script cannot run.
    pub(crate) fn program(
        &self,
        script: &Path,
        home: ScriptHome<'_>,
        states: &mut ScriptStates,
    ) -> Result<Program, String> {
        let shown = script.display();
        let real = script
            .canonicalize()
            .map_err(|err| format!("no script at `{shown}`: {err}"))?;
        if !real.is_file() {
            return Err(format!("`{shown}` is not a file; name a script"));
        }
        let (guest_path, mount) = self.guest_path(script, &real, home)?;
        let mut state = blake3::Hasher::new();
        for mount in &self.mounts {
            state.update(states.tree(&mount.host_path).as_bytes());
        }
        let mut mounts = self.mounts.clone();
        if let Some(mount) = mount {
            let scripts = states.scripts(&mount.host_path, &self.suffix);
            state.update(scripts.as_bytes());
            mounts.push(mount);
        }
        let with_script = |args: &Vec<String>| {
            let args = args.iter().chain([&guest_path]);
            args.cloned().collect::<Vec<_>>()
        };
        let sha256 = digest_of_file(&real).map_err(|err| format!("`{shown}` {err}"))?;
        Ok(Program {
            module: self.module.clone(),
            args: with_script(&self.args),
            check: self.check.as_ref().map(with_script),
            mounts,
            n_own_mounts: self.mounts.len(),
            has_snapshot: self.snapshot,
            script: ScriptRef {
                path: absolute(script),
                sha256,
                environment: state.finalize().to_hex().to_string(),
            },
        })
    }

    /// Returns the path of a script in the sandbox, and the folder to mount if it is in none of the
    /// interpreter's own.
    fn guest_path(
        &self,
        script: &Path,
        real: &Path,
        home: ScriptHome<'_>,
    ) -> Result<(String, Option<Grant>), String> {
        for mount in &self.mounts {
            let Ok(host_path) = mount.host_path.canonicalize() else {
                continue;
            };
            if let Ok(rest) = real.strip_prefix(&host_path) {
                return Ok((format!("{}/{}", mount.guest_path, text_of(rest)?), None));
            }
        }
        let shown = script.display();
        let folder = match home {
            ScriptHome::Package(folder) => {
                let folder = absolute(folder);
                let root = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                if !real.starts_with(root) {
                    return Err(format!(
                        "the script `{shown}` is outside of its package; move it into the folder \
                         `{}`",
                        folder.display()
                    ));
                }
                folder
            }
            ScriptHome::Workflow { folder, allowed } => {
                let root = absolute(folder).canonicalize().ok();
                let roots = root.iter().chain(allowed);
                if !roots.into_iter().any(|root| real.starts_with(root)) {
                    return Err(format!(
                        "the script `{shown}` is neither in the folder of the workflow nor in the \
                         environment `{}`; move it there, or add its folder to `packages.mounts` \
                         of the policy",
                        self.name
                    ));
                }
                parent_of(script)
            }
            ScriptHome::Operator => parent_of(script),
        };
        let script = absolute(script);
        // A script that a link leads to is looked up where it is.
        let inside = match script.strip_prefix(&folder) {
            Ok(_) => script.as_path(),
            Err(_) => real,
        };
        let grant = Grant::new(folder.clone(), text_of(&folder)?, Rights::ReadOnly);
        Ok((text_of(inside)?, Some(grant)))
    }
}

/// Location of a script, which decides on the folder that is mounted with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ScriptHome<'a> {
    /// Folder of the task package that names the script. All of it is mounted.
    Package(&'a Path),
    /// Folder of the workflow that names the script. The folder with the script is mounted.
    Workflow {
        folder: &'a Path,
        /// Other folders that the policy allows.
        allowed: &'a [PathBuf],
    },
    /// Any folder: the user named the script on the command line. The folder with the script is
    /// mounted.
    Operator,
}

/// Call of a script by its interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Module of the interpreter.
    pub(crate) module: PathBuf,
    /// Arguments up to and including the path of the script in the sandbox.
    pub(crate) args: Vec<String>,
    /// Arguments for a check of the script; `None` if scripts are not checked.
    pub(crate) check: Option<Vec<String>>,
    /// Folders that the call reads.
    pub(crate) mounts: Vec<Grant>,
    /// Number of those folders, from the first on, that belong to the interpreter.
    n_own_mounts: usize,
    /// True if the call starts from a snapshot.
    pub(crate) has_snapshot: bool,
    /// Identity of the script and of all that it can import.
    pub(crate) script: ScriptRef,
}

impl Program {
    /// Returns the folders that belong to the interpreter. It does not depend on the script.
    pub(crate) fn own_mounts(&self) -> &[Grant] {
        &self.mounts[..self.n_own_mounts]
    }

    /// Returns true if the interpreter of a call requests snapshots.
    pub(super) fn wants_snapshot(program: Option<&Self>) -> bool {
        program.is_some_and(|program| program.has_snapshot)
    }

    /// Returns the folders that a task's module can read when it starts for a snapshot. The folder
    /// of a script is not one of them, so all scripts of an interpreter share its snapshot.
    ///
    /// * `requested`: folders that the package requests.
    pub(super) fn start_mounts(program: Option<&Self>, requested: &[Grant]) -> Vec<Grant> {
        let own = program.map(Self::own_mounts).unwrap_or_default();
        [requested, own].concat()
    }

    /// Returns what a task with this call has in addition: its script, its first arguments, and its
    /// mounts.
    pub(super) fn into_parts(
        program: Option<Self>,
    ) -> (Option<ScriptRef>, Vec<String>, Vec<Grant>) {
        match program {
            Some(program) => (Some(program.script), program.args, program.mounts),
            None => (None, Vec::new(), Vec::new()),
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(MAX_DESCRIPTION_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

fn text_of(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("`{}` must be UTF-8", path.display()))
}

fn parent_of(script: &Path) -> PathBuf {
    let script = absolute(script);
    script.parent().unwrap_or(Path::new("/")).to_owned()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = r#"{
        "suffix": ".scr", "module": "m.wasm", "mounts": {"/lib": "lib"}, "args": ["/lib/boot"]
    }"#;

    fn environment(description: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            std::fs::write(path, text).expect("written");
        };
        write("env/interpreter.json", description);
        write("env/m.wasm", "");
        write("env/lib/own.scr", "own");
        write("package/tasks/task.scr", "task");
        write("other/task.scr", "other");
        folder
    }

    fn read(description: &str) -> Result<(Interpreter, tempfile::TempDir), String> {
        let folder = environment(description);
        let mut problems = Problems::default();
        let read = Interpreter::read_environment(&folder.path().join("env"), &mut problems);
        let found = problems.to_string();
        read.map(|read| (read, folder)).ok_or(found)
    }

    #[test]
    fn scripts_run_in_their_package_or_in_the_environment() {
        let (interpreter, root) = read(DESCRIPTION).expect("an interpreter");
        let root = root.path();
        let package = root.join("package");
        let home = ScriptHome::Package(&package);
        let program = |script: &str, home| {
            interpreter.program(&root.join(script), home, &mut ScriptStates::default())
        };

        let own = program("env/lib/own.scr", home).expect("a program");
        assert_eq!(own.args, ["/lib/boot", "/lib/own.scr"]);
        assert_eq!(own.mounts.len(), 1);

        let task = program("package/tasks/task.scr", home).expect("a program");
        let path = root.join("package/tasks/task.scr").display().to_string();
        assert_eq!(task.args, ["/lib/boot", &path]);
        assert_eq!(task.mounts[1].host_path, package);
        assert_eq!(task.mounts[1].rights, Rights::ReadOnly);

        let outside = program("other/task.scr", home).expect_err("outside");
        assert!(outside.contains("is outside of its package"), "{outside}");
        let missing = program("package/none.scr", home).expect_err("missing");
        assert!(missing.contains("no script at"), "{missing}");
    }

    #[test]
    fn workflows_reach_no_script_of_other_folders() {
        let (interpreter, root) = read(DESCRIPTION).expect("an interpreter");
        let folder = root.path().join("package");
        let script = root.path().join("other/task.scr");
        let allowed = [root.path().join("other").canonicalize().expect("a folder")];
        let of = |allowed| ScriptHome::Workflow {
            folder: &folder,
            allowed,
        };
        let program = |home| interpreter.program(&script, home, &mut ScriptStates::default());
        let refused = program(of(&[])).expect_err("refused");
        assert!(refused.contains("neither in the folder of the workflow"));
        for home in [of(&allowed), ScriptHome::Operator] {
            let program = program(home).expect("a program");
            assert_eq!(program.mounts[1].host_path, root.path().join("other"));
        }
    }

    #[test]
    fn a_change_of_a_script_or_of_the_environment_is_another_state() {
        let (interpreter, root) = read(DESCRIPTION).expect("an interpreter");
        let package = root.path().join("package");
        let state = || {
            let script = root.path().join("package/tasks/task.scr");
            let home = ScriptHome::Package(&package);
            let program = interpreter.program(&script, home, &mut ScriptStates::default());
            program.expect("a program").script
        };
        let first = state();
        assert_eq!(first, state());
        std::fs::write(package.join("data.txt"), "x").expect("written");
        assert_eq!(first, state());
        std::fs::write(package.join("imported.scr"), "x").expect("written");
        let second = state();
        assert_ne!(first.environment, second.environment);
        std::fs::write(root.path().join("env/lib/more"), "x").expect("written");
        let third = state();
        assert_ne!(second.environment, third.environment);
        std::fs::write(package.join("tasks/task.scr"), "kast").expect("written");
        assert_ne!(third.sha256, state().sha256);
    }

    #[test]
    fn descriptions_are_checked() {
        let check = |description: &str, expected: &str| {
            let found = read(description).expect_err(expected);
            assert!(found.contains(expected), "{found}");
        };
        check("{", "interpreter.json:1:1: invalid description");
        check(
            r#"{"suffix": ".x", "module": "m.wasm", "mount": {}}"#,
            "unknown field `mount`",
        );
        check(
            r#"{"suffix": "x", "module": "m.wasm"}"#,
            "/suffix: must be the end of a file name",
        );
        check(r#"{"suffix": ".x", "module": "n"}"#, "/module: no module");
        let mounts =
            |mounts| format!(r#"{{"suffix": ".x", "module": "m.wasm", "mounts": {mounts}}}"#);
        check(&mounts(r#"{"lib": "lib"}"#), "must be absolute");
        check(&mounts(r#"{"/a": "none"}"#), "/mounts/~1a: no folder");
    }
}
